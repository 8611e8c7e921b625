"""Twenty cognitive tasks, learnt by one recurrent network: the training recipe of the task collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from simulators import TASKS, cognitive_accuracy, cognitive_sequences, cognitive_trials

N_INPUTS, N_OUTPUTS = 53, 17


class CognitiveBatch(NamedTuple):
    """Sequences of trials, what to answer at each time step, and the seed of the units' noise."""

    inputs: Float[Tensor, "sequence time 53"]
    labels: Int[Tensor, "sequence time"]
    noise_seed: int


@dataclass(frozen=True)
class CognitiveTask:
    """Trials of random tasks one after the other; cross-entropy over all time steps.

    Yang et al. 2019 (Nature Neuroscience 22, 297); sequences of 100 steps of 100 ms as in neurogym's recipe for the
    collection.

    Attributes:
        n_steps: time steps a sequence.
        device: of the batches.
        tasks: names in ``simulators.TASKS``; None is all twenty.
    """

    n_steps: int = 100
    device: str = "cpu"
    tasks: tuple[str, ...] | None = None

    def training_batch(self, seed: int, step: int, size: int) -> CognitiveBatch:
        """Fresh sequences for every step."""
        rng = np.random.default_rng((seed, step))
        inputs, labels = cognitive_sequences(size, self.n_steps, rng=rng, tasks=self.tasks)
        tensors = (torch.from_numpy(a).to(self.device) for a in (inputs, labels))
        return CognitiveBatch(*tensors, noise_seed=int(rng.integers(2**62)))

    def loss(self, model: nn.Module, batch: CognitiveBatch) -> Float[Tensor, ""]:
        """Mean over sequences and time steps, with noise on the units."""
        generator = torch.Generator(batch.inputs.device).manual_seed(batch.noise_seed)
        answers = model(batch.inputs, generator=generator)
        return F.cross_entropy(answers.flatten(0, 1), batch.labels.flatten())


@torch.no_grad()
def task_accuracy(
    model: nn.Module, *, rng: np.random.Generator, n_trials: int = 200, tasks: Sequence[str] | None = None
) -> Float[np.ndarray, " task"]:
    """Share of trials whose answer at the last time step is right, without noise on the units.

    One number for each of ``tasks``, in their order; None is all twenty.
    """
    device = next(model.parameters()).device
    right = []
    for task in TASKS if tasks is None else tasks:
        trials = cognitive_trials(task, n_trials, rng=rng)
        answers = model(torch.from_numpy(trials.inputs).to(device)).cpu()
        right.append(cognitive_accuracy(answers.numpy(), trials))
    return np.array(right)

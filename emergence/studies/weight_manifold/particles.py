"""Hard discs under a context: gravity of some strength or direction, collisions that keep some of their energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from simulators import HardSpheres, simulate

from ...data import Batch, Normalization, Transitions, make_transitions
from ...tasks import batch_indices
from .config import TaskName
from .contexts import as_tensor, contexts_of, even_shares
from .task import ContextBatch

N_FEATURES, N_OUTPUTS = 6, 4
STRONGEST = 6.0
"""Gravity at strength one; in a frame interval it changes velocities by half their deviation at the start."""
GRAVITY = 4.0
"""Its strength where the direction is the context."""
LEAST_RESTITUTION = 0.4
"""At context 0; elastic at 0.5."""
N_CONTEXTS, N_SYSTEMS, N_FRAMES, FRAME_INTERVAL = 200, 50, 5, 0.1
"""To learn from: contexts, boxes at each, frames a box."""
N_TEST_SYSTEMS = 80
"""Boxes at each context kept out."""
_PARTS = {"train": 0, "validation": 1, "test": 2}


def system_at(task: TaskName, context: Float[np.ndarray, " axis"]) -> HardSpheres:
    """Six discs that fill as much of the box as the ten of the standard study."""
    restitution = 1.0
    if task == "gravity-strength":
        gravity = (0.0, -STRONGEST * float(context[0]))
    else:
        angle = 2 * math.pi * float(context[0])
        gravity = (GRAVITY * math.cos(angle), GRAVITY * math.sin(angle))
    if task == "direction-and-restitution":
        restitution = LEAST_RESTITUTION + (1 - LEAST_RESTITUTION) * 2 * float(context[1])
    return HardSpheres(n_particles=6, radius=0.08, gravity=gravity, restitution=restitution)


@dataclass(frozen=True)
class ParticlesTask:
    """Scenes at learnt contexts, and as many at any other as are asked for.

    Attributes:
        name: of the task.
        seed: of all boxes.
        train: scenes at contexts learnt.
        contexts: of each of them.
        normalization: of features and targets, over these scenes.
    """

    name: TaskName
    seed: int
    train: Batch
    contexts: Tensor
    normalization: Normalization

    def training_batch(self, seed: int, step: int, size: int) -> ContextBatch:
        """Scenes with replacement."""
        index = torch.from_numpy(batch_indices(seed, step, len(self.contexts), size))
        return ContextBatch(self.train.features[index], self.contexts[index], self.train.targets[index])

    def loss(self, model: nn.Module, batch: ContextBatch) -> Float[Tensor, ""]:
        """Mean squared error of the normalised change of state."""
        return (model(batch.inputs, batch.contexts) - batch.targets).square().mean()

    @torch.no_grad()
    def error(
        self, model: nn.Module, part: str, context: Float[np.ndarray, " axis"], rng: np.random.Generator
    ) -> float:
        """The loss over scenes of a part at one context; nothing is drawn."""
        scenes = self.scenes(part, context).batch
        contexts = as_tensor(np.tile(context, (len(scenes.features), 1)))
        return self.loss(model, ContextBatch(scenes.features, contexts, scenes.targets)).item()

    def scenes(self, part: str, context: Float[np.ndarray, " axis"]) -> Transitions:
        """All scenes of a part that is kept out, at one context."""
        return _scenes(self.name, self.seed, part, tuple(context.tolist()), self.normalization)


@lru_cache(maxsize=8)
def particles_task(name: TaskName, seed: int) -> ParticlesTask:
    """Simulate the boxes to learn from: some at each of many contexts, spread evenly over those learnt."""
    contexts = contexts_of(name, "learnt", even_shares(name, N_CONTEXTS))
    runs = [
        simulate(
            system_at(name, context),
            n_systems=N_SYSTEMS,
            n_frames=N_FRAMES,
            frame_interval=FRAME_INTERVAL,
            rng=np.random.default_rng((seed, _PARTS["train"], index)),
        )
        for index, context in enumerate(contexts)
    ]
    unit = Normalization((0.0,) * N_FEATURES, (1.0,) * N_FEATURES, (0.0,) * N_OUTPUTS, (1.0,) * N_OUTPUTS)
    raw = [make_transitions(run, normalization=unit).batch for run in runs]
    features, targets = (torch.cat(parts) for parts in zip(*raw, strict=True))
    scale = Normalization.of(features.double().numpy(), targets.double().numpy())
    return ParticlesTask(
        name,
        seed,
        Batch(
            _scaled(features, scale.feature_mean, scale.feature_std),
            _scaled(targets, scale.target_mean, scale.target_std),
        ),
        as_tensor(contexts.repeat(N_SYSTEMS * (N_FRAMES - 1), axis=0)),
        scale,
    )


def _scaled(values: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    center, scale = (torch.tensor(numbers, dtype=torch.float64) for numbers in (mean, std))
    return ((values.double() - center) / scale).float()


@lru_cache(maxsize=1024)
def _scenes(
    name: TaskName, seed: int, part: str, context: tuple[float, ...], normalization: Normalization
) -> Transitions:
    place = [round(1e6 * number) for number in context]  # every context has boxes of its own
    trajectories = simulate(
        system_at(name, np.array(context)),
        n_systems=N_TEST_SYSTEMS,
        n_frames=N_FRAMES,
        frame_interval=FRAME_INTERVAL,
        rng=np.random.default_rng((seed, _PARTS[part], *place)),
    )
    return make_transitions(trajectories, normalization=normalization)

"""Tasks of one network that can be learnt a few at a time: the outputs of a formula, the cognitive tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from simulators.cognitive import TASKS

from .cognitive import CognitiveTask, task_accuracy
from .examples import Examples, ExampleTask
from .task import Task


@runtime_checkable
class SeveralTasks(Protocol):
    """What a continual study needs to know of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order of ``accuracy``."""
        ...

    def some(self, names: Sequence[str]) -> Task:
        """A few of them to learn, the others left out of the loss."""
        ...

    def accuracy(
        self, model: nn.Module, *, rng: np.random.Generator, n_trials: int
    ) -> tuple[Float[np.ndarray, " task"], Float[np.ndarray, " task"]]:
        """How well each is known, from 0 to 1, and its standard error (NaN on a fixed test set)."""
        ...


@dataclass(frozen=True)
class SeveralOutputs:
    """Outputs of formulas; accuracy is the share of a target's variance that is explained.

    ``max(0, 1 - mean squared error / variance)`` on the test examples: an output that was overwritten is worth no more
    than a constant, however far off it is.

    Attributes:
        whole: all outputs.
    """

    whole: ExampleTask

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        return self.whole.target_names

    def some(self, names: Sequence[str]) -> Task:
        """Squared error of those outputs; the others may be anything."""
        return _Outputs(self.whole, tuple(self.names.index(name) for name in names))

    @torch.no_grad()
    def accuracy(
        self, model: nn.Module, *, rng: np.random.Generator, n_trials: int
    ) -> tuple[Float[np.ndarray, " task"], Float[np.ndarray, " task"]]:
        """On all test examples: ``rng`` and ``n_trials`` are for tasks that draw their trials."""
        inputs, targets = self.whole.test
        missed = (model(inputs) - targets).double().square().mean(0) / targets.double().var(0, correction=0)
        return (1 - missed).clamp_min(0).numpy(), np.full(len(self.names), np.nan)


@dataclass(frozen=True)
class _Outputs:
    whole: ExampleTask
    columns: tuple[int, ...]

    def training_batch(self, seed: int, step: int, size: int) -> Examples:
        return self.whole.training_batch(seed, step, size)

    def loss(self, model: nn.Module, batch: Examples) -> Float[Tensor, ""]:
        return F.mse_loss(model(batch.inputs)[:, self.columns], batch.targets[:, self.columns])


@dataclass(frozen=True)
class SeveralCognitive:
    """The twenty cognitive tasks; accuracy is the share of trials answered rightly."""

    names: tuple[str, ...] = TASKS

    def some(self, names: Sequence[str]) -> Task:
        """Sequences of trials of those tasks alone."""
        return CognitiveTask(tasks=tuple(names))

    def accuracy(
        self, model: nn.Module, *, rng: np.random.Generator, n_trials: int
    ) -> tuple[Float[np.ndarray, " task"], Float[np.ndarray, " task"]]:
        """On ``n_trials`` fresh trials of each, with the binomial standard error."""
        share = task_accuracy(model, rng=rng, n_trials=n_trials)
        return share, np.sqrt(share * (1 - share) / n_trials)

"""Digits under a context: turned by an angle, or with noise of some strength; parts of the contexts are held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn

from .config import TaskName

Range = tuple[float, float]
N_INPUTS, N_CLASSES = 64, 10
NOISE = 1.0
"""Deviation of the noise at context one, where a pixel runs from zero to one; our choice."""


@dataclass(frozen=True)
class Contexts:
    """Which contexts are learnt and which are held out: between learnt ones, and beyond them.

    On the circle of rotations nothing lies beyond; a gap of a third of it is the nearest there is.
    """

    learnt: tuple[Range, ...]
    interpolation: tuple[Range, ...]
    extrapolation: tuple[Range, ...]


CONTEXTS: dict[TaskName, Contexts] = {
    "rotated-digits": Contexts(((0.0, 0.3), (0.4, 0.65)), ((0.3, 0.4),), ((0.65, 1.0),)),
    "noisy-digits": Contexts(((0.2, 0.45), (0.55, 0.8)), ((0.45, 0.55),), ((0.0, 0.2), (0.8, 1.0))),
}
"""Our choice; which angles and strengths the paper holds out is not known."""


class ContextBatch(NamedTuple):
    """Pictures as a network sees them, at which context, and which digit each is."""

    inputs: Float[Tensor, "batch 64"]
    contexts: Float[Tensor, " batch"]
    targets: Int[Tensor, " batch"]


@dataclass(frozen=True)
class ContextTask:
    """Digits to learn, to choose the learning rate on and to report, none of them in two of these.

    Attributes:
        name: of the task.
        train, validation, test: upright digits without noise, and their classes.
    """

    name: TaskName
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def training_batch(self, seed: int, step: int, size: int) -> ContextBatch:
        """Digits with replacement, each at a context of its own, uniform over those learnt."""
        rng = np.random.default_rng((seed, step))
        index = torch.from_numpy(rng.integers(len(self.train[0]), size=size))
        contexts = uniform(CONTEXTS[self.name].learnt, rng.random(size))
        return self.seen(self.train[0][index], self.train[1][index], contexts, rng)

    def seen(
        self,
        digits: Float[Tensor, "n 64"],
        targets: Tensor,
        contexts: Float[np.ndarray, " n"],
        rng: np.random.Generator,
    ) -> ContextBatch:
        """Digits as they look at their contexts."""
        s = torch.from_numpy(contexts).float()
        if self.name == "rotated-digits":
            return ContextBatch(rotated(digits, s), s, targets)
        noise = torch.from_numpy(rng.standard_normal(digits.shape)).float()
        return ContextBatch(digits + NOISE * s[:, None] * noise, s, targets)

    def loss(self, model: nn.Module, batch: ContextBatch) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(model(batch.inputs, batch.contexts), batch.targets)

    @torch.no_grad()
    def error(
        self, model: nn.Module, examples: tuple[Tensor, Tensor], context: float, rng: np.random.Generator
    ) -> float:
        """Fraction of wrong classes with all examples at one context."""
        inputs, contexts, targets = self.seen(*examples, np.full(len(examples[0]), context), rng)
        return (model(inputs, contexts).argmax(-1) != targets).double().mean().item()


def digits_task(name: TaskName, *, rng: np.random.Generator) -> ContextTask:
    """The 1797 digits that scikit-learn ships: six tenths to learn, two to choose on, two to report."""
    data: Any = load_digits()
    order = rng.permutation(len(data.data))
    pictures, classes = torch.from_numpy(data.data[order] / 16).float(), torch.from_numpy(data.target[order])
    first, second = (round(share * len(order)) for share in (0.6, 0.8))
    parts = (slice(first), slice(first, second), slice(second, None))
    return ContextTask(name, *((pictures[part], classes[part]) for part in parts))


def rotated(digits: Float[Tensor, "n 64"], turns: Float[Tensor, " n"]) -> Float[Tensor, "n 64"]:
    """Each 8 x 8 picture turned about its center by its own number of turns; bilinear, dark beyond the edge."""
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    zero = torch.zeros_like(cos)
    maps = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    pictures = digits.view(-1, 1, 8, 8)
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False).view(-1, 64)


def uniform(ranges: Sequence[Range], share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Where these shares of the total length of the ranges lie."""
    lengths = np.array([high - low for low, high in ranges])
    ends = np.concatenate([[0.0], lengths.cumsum()])
    along = share * ends[-1]
    part = np.clip(np.searchsorted(ends, along, side="right") - 1, 0, len(ranges) - 1)
    return np.array([low for low, _ in ranges])[part] + along - ends[part]

"""Digits under a context: turned by an angle, or with noise of some strength."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor, nn

from .config import TaskName
from .contexts import as_tensor, contexts_of
from .task import ContextBatch

N_INPUTS, N_CLASSES = 64, 10
NOISE = 1.0
"""Deviation of the noise at context one, where a pixel runs from zero to one; our choice."""


@dataclass(frozen=True)
class DigitsTask:
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
        contexts = contexts_of(self.name, "learnt", rng.random((size, 1)))
        return self.seen(self.train[0][index], self.train[1][index], contexts, rng)

    def seen(
        self,
        digits: Float[Tensor, "n 64"],
        targets: Tensor,
        contexts: Float[np.ndarray, "n 1"],
        rng: np.random.Generator,
    ) -> ContextBatch:
        """Digits as they look at their contexts."""
        s = as_tensor(contexts)
        if self.name == "rotated-digits":
            return ContextBatch(rotated(digits, s), s, targets)
        noise = torch.from_numpy(rng.standard_normal(digits.shape)).float()
        return ContextBatch(digits + NOISE * s[:, None] * noise, s, targets)

    def loss(self, model: nn.Module, batch: ContextBatch) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return F.cross_entropy(model(batch.inputs, batch.contexts), batch.targets)

    @torch.no_grad()
    def error(self, model: nn.Module, part: str, context: Float[np.ndarray, " 1"], rng: np.random.Generator) -> float:
        """Fraction of wrong classes with all examples of a part at one context."""
        digits, classes = getattr(self, part)
        inputs, contexts, targets = self.seen(digits, classes, np.tile(context, (len(digits), 1)), rng)
        return (model(inputs, contexts).argmax(-1) != targets).double().mean().item()


def digits_task(name: TaskName, *, rng: np.random.Generator) -> DigitsTask:
    """The 1797 digits that scikit-learn ships: six tenths to learn, two to choose on, two to report."""
    data: Any = load_digits()
    order = rng.permutation(len(data.data))
    pictures, classes = torch.from_numpy(data.data[order] / 16).float(), torch.from_numpy(data.target[order])
    first, second = (round(share * len(order)) for share in (0.6, 0.8))
    parts = (slice(first), slice(first, second), slice(second, None))
    return DigitsTask(name, *((pictures[part], classes[part]) for part in parts))


def rotated(digits: Float[Tensor, "n 64"], turns: Float[Tensor, " n"]) -> Float[Tensor, "n 64"]:
    """Each 8 x 8 picture turned about its center by its own number of turns; bilinear, dark beyond the edge."""
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    zero = torch.zeros_like(cos)
    maps = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    pictures = digits.view(-1, 1, 8, 8)
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False).view(-1, 64)

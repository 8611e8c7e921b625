"""A fixed set of examples, learnt whole at every step or in random batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .task import batch_indices


class Examples(NamedTuple):
    """What a network reads and what it should answer: numbers (regression) or class indices (classification)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class ExampleTask:
    """Training and test examples; squared error for numbers, cross-entropy for classes.

    Attributes:
        train, test: the examples, on the device of the model.
        input_names, target_names: what figures call them; empty where there are too many to name.
    """

    train: Examples
    test: Examples
    input_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    def training_batch(self, seed: int, step: int, size: int) -> Examples:
        """All examples if ``size`` asks for as many as there are, else a draw with replacement."""
        n = len(self.train.inputs)
        if size >= n:
            return self.train
        index = torch.from_numpy(batch_indices(seed, step, n, size)).to(self.train.inputs.device)
        return Examples(*(t.index_select(0, index) for t in self.train))

    def loss(self, model: nn.Module, batch: Examples) -> Float[Tensor, ""]:
        """Mean over examples (and outputs)."""
        answers = model(batch.inputs)
        if batch.targets.is_floating_point():
            return F.mse_loss(answers, batch.targets)
        return F.cross_entropy(answers, batch.targets)

    @torch.no_grad()
    def error(self, model: nn.Module) -> float:
        """On the test examples: mean squared error, or the fraction of wrong classes."""
        answers = model(self.test.inputs)
        if self.test.targets.is_floating_point():
            return F.mse_loss(answers, self.test.targets).item()
        return (answers.argmax(-1) != self.test.targets).double().mean().item()

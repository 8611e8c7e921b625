"""Tasks made of handwritten digits, to be learnt one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ....tasks.examples import Examples, ExampleTask
from ...supervised import study_task
from .config import SequenceName

N_PIXELS, N_DIGITS = 64, 10


@dataclass(frozen=True)
class Stage:
    """One task of a sequence.

    Attributes:
        task: what is learnt, and the test that is reported.
        validation: what decides that it is learnt.
    """

    task: ExampleTask
    validation: Examples

    def accuracy(self, model: nn.Module) -> float:
        """On the test."""
        return 1 - self.task.error(model)

    def accuracy_on_validation(self, model: nn.Module) -> float:
        """On what is neither learnt nor reported."""
        return 1 - ExampleTask(self.task.train, self.validation).error(model)


def sequence(name: SequenceName, n_tasks: int, *, rng: np.random.Generator) -> list[Stage]:
    """The tasks in their order; which pairs of digits, and which orders of pixels, is drawn.

    Split digits are told apart by the same two outputs in every pair, so nothing tells the network which task it is in
    (domain-incremental learning, van de Ven & Tolias 2019, arXiv 1904.07734, section 2).
    """
    digits, validation = study_task("digits", rng=rng)
    if name == "split-digits":
        pairs = rng.permutation(N_DIGITS).reshape(-1, 2)[:n_tasks]
        return [
            Stage(ExampleTask(_of_pair(digits.train, pair), _of_pair(digits.test, pair)), _of_pair(validation, pair))
            for pair in pairs
        ]
    orders = [np.arange(N_PIXELS), *(rng.permutation(N_PIXELS) for _ in range(n_tasks - 1))]
    return [
        Stage(ExampleTask(_in_order(digits.train, o), _in_order(digits.test, o)), _in_order(validation, o))
        for o in map(torch.from_numpy, orders)
    ]


def n_outputs(name: SequenceName) -> int:
    """Of a network that learns the sequence."""
    return 2 if name == "split-digits" else N_DIGITS


def _of_pair(examples: Examples, pair: np.ndarray) -> Examples:
    first, second = (examples.targets == int(digit) for digit in pair)
    return Examples(examples.inputs[first | second], second[first | second].long())


def _in_order(examples: Examples, order: Tensor) -> Examples:
    return Examples(examples.inputs[:, order], examples.targets)

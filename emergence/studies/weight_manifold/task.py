"""What every task of the study has: batches at many contexts, and the error at one."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from .config import DIGITS, TaskName


class ContextBatch(NamedTuple):
    """What a network reads, at which context, and what it should answer."""

    inputs: Float[Tensor, "batch ..."]
    contexts: Float[Tensor, "batch ..."]
    targets: Tensor


@runtime_checkable
class ContextTask(Protocol):
    """Learnt at contexts of its own; two parts are kept out, one to choose the learning rate on, one to report."""

    @property
    def name(self) -> TaskName: ...  # noqa: D102

    def training_batch(self, seed: int, step: int, size: int) -> ContextBatch: ...  # noqa: D102

    def loss(self, model: nn.Module, batch: ContextBatch) -> Float[Tensor, ""]: ...  # noqa: D102

    def error(
        self, model: nn.Module, part: str, context: Float[np.ndarray, " axis"], rng: np.random.Generator
    ) -> float:
        """At one context on the ``"validation"`` or ``"test"`` part."""
        ...


def make_task(name: TaskName, seed: int) -> ContextTask:
    """The task of a study; a seed has examples of its own."""
    if name in DIGITS:
        from .digits import digits_task

        return digits_task(name, rng=np.random.default_rng((seed, 1)))
    from .particles import particles_task

    return particles_task(name, seed)

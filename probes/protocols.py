"""What a model, a loss and a series of checkpoints must offer to be probed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

LossFn = Callable[[nn.Module, Any], Tensor]
"""``loss_fn(model, batch)``: a scalar tensor, the mean over the batch, differentiable in the parameters."""

Batches = Iterable[Any]
"""Batches that iterate again in the same order; all are weighted alike, so give them equal sizes."""


@runtime_checkable
class CheckpointSeries(Protocol):
    """Snapshots of one training run."""

    @property
    def steps(self) -> Sequence[int]:
        """Training steps at which a snapshot exists, ascending."""
        ...

    def load(self, step: int) -> nn.Module:
        """Return a fresh module with the weights of ``step``, in evaluation mode."""
        ...

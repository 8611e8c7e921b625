"""What a network is asked to learn, as the training loop sees it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """Batches that are a function of (seed, step), so that resuming needs no random state, and their loss."""

    def training_batch(self, seed: int, step: int, size: int) -> Any:
        """Examples of one step, on the device of the task."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Float[Tensor, ""]:
        """Mean over the batch."""
        ...


def batch_indices(seed: int, step: int, n_examples: int, size: int) -> Int[np.ndarray, " size"]:
    """Examples of one step, drawn with replacement."""
    return np.random.default_rng((seed, step)).integers(n_examples, size=size)

"""The named points at which the training loop lets a method in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


class Intervention:
    """Plain training: each method is a point of the loop, and does nothing. Methods override what they need.

    How a linear map is parametrised and how an error signal travels back are parts of the model, which is converted
    before training.
    """

    def penalty(self, step: int) -> Float[Tensor, ""] | None:
        """Added to the loss of the update that leads to ``step``."""
        return None

    def after_backward(self, step: int) -> None:
        """Change the gradients before the optimizer sees them."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Change the weights; ``step`` is the number of finished steps."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides weights and optimizer for training to go on at the same bits."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""

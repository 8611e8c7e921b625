"""Training along a manifold in the one loop: gradients take its metric before the optimizer sees them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ..intervention import Intervention
from .preconditioning import precondition


class ManifoldTraining(Intervention):
    """Training of a converted model, with the metric of the contexts that it sees."""

    def __init__(self, model: nn.Module, gram: Float[Tensor, "k k"] | None = None) -> None:
        self.model, self.gram = model, gram

    def after_backward(self, step: int) -> None:
        """Precondition."""
        precondition(self.model, self.gram)

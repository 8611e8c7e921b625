"""Structured training in the one loop: the layers were converted before it, the correction has a price."""

from __future__ import annotations

from torch import Tensor, nn

from ..intervention import Intervention
from ..settings import Structured
from .correction import correction_penalty


class StructuredTraining(Intervention):
    """Training of a converted model."""

    def __init__(self, model: nn.Module, settings: Structured) -> None:
        self.model, self.settings = model, settings

    def penalty(self, step: int) -> Tensor | None:
        """The share of the correction in this step's outputs, at its price."""
        if self.settings.penalty == 0:
            return None
        return self.settings.penalty * correction_penalty(self.model)

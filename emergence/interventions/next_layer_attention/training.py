"""Training by the rule in the one loop: the layers were converted before it; what is lost must be lost again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..intervention import Intervention
from .layers import NextLayer


class NextLayerTraining(Intervention):
    """Training of a converted model; where messages are lost, a checkpoint holds the generator that draws which."""

    def __init__(self, model: nn.Module) -> None:
        routes = [
            route for module in model.modules() if isinstance(module, NextLayer) for route in module.routes.values()
        ]
        drawing = [route.generator for route in routes if route.drop]
        self.generator = drawing[0] if drawing else None  # convert gives all layers the same one

    def state(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on drawing where the checkpoint was written."""
        if self.generator is not None:
            self.generator.set_state(state["generator"])

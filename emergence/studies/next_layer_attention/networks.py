"""Deep networks that differ in the way back of their error signals alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...interventions import next_layer_attention
from ...interventions.intervention import Intervention
from ..layers import Layer, drawn_linear
from .config import RuleName


def rule_network(
    rule: RuleName, depth: int, width: int, sizes: tuple[int, int], *, drop: float, generator: torch.Generator
) -> nn.Module:
    """Return a network of ``depth`` hidden layers of tanh that learns by a rule.

    Weights are drawn before anything else, so that all rules of a seed begin with the same.

    Args:
        rule: see ``NextLayerStudyConfig``.
        depth: hidden layers.
        width: neurons of each.
        sizes: numbers read and written.
        drop: chance that a message is lost.
        generator: draws weights, then random feedback, and while the network learns what is lost.
    """
    widths = [sizes[0], *[width] * depth]
    network = nn.Sequential()
    for index in range(depth):
        network.add_module(f"layer{index}", Layer(widths[index], widths[index + 1], generator))
    network.add_module("outputs", drawn_linear(width, sizes[1], generator))
    return next_layer_attention.convert(network, "*", rule, drop=drop, generator=generator)


class LostMessages(Intervention):
    """Keep the generator's state with the checkpoints: a run that goes on loses what it would have lost."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state(self) -> dict[str, Tensor]:
        """Where the generator is."""
        return {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.generator.set_state(state["generator"])

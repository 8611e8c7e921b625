"""Deep networks that differ in the way back of their error signals alone."""

from __future__ import annotations

import torch
from torch import nn

from ...interventions import next_layer_attention
from ...interventions.settings import AttentionName
from ..layers import Layer, drawn_linear


def rule_network(
    rule: AttentionName, depth: int, width: int, sizes: tuple[int, int], *, drop: float, generator: torch.Generator
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

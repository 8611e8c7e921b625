"""Deep networks that differ in their hidden layers alone, with as many numbers to learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...interventions import structured
from ..layers import Layer, drawn_linear
from .config import ArmName, StructuredStudyConfig


class ResidualLayer(nn.Module):
    """``x + V tanh(U x + b) + c``; what a layer adds begins so small that ``depth`` of them add up to order one."""

    def __init__(self, width: int, hidden: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = drawn_linear(width, hidden, generator)
        self.outer = drawn_linear(hidden, width, generator, gain=1 / math.sqrt(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Add to the layer below."""
        return x + self.outer(torch.tanh(self.inner(x)))


def deep_network(
    arm: ArmName,
    depth: int,
    width: int,
    sizes: tuple[int, int],
    config: StructuredStudyConfig,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return a network of ``depth`` hidden layers between two affine maps.

    A structured layer of width ``w`` with its correction has 1.25 w^2 numbers and a few; affine layers get the width,
    layers with a skip connection the inner width, at which they have as many.
    """
    hidden_width = round(math.sqrt(1.25) * width) if arm == "plain" else width
    network = nn.Sequential()
    network.add_module("inputs", drawn_linear(sizes[0], hidden_width, generator))
    for index in range(depth):
        layer = (
            ResidualLayer(width, round(0.625 * width), depth, generator)
            if arm == "residual"
            else Layer(hidden_width, hidden_width, generator)
        )
        network.add_module(f"layer{index}", layer)
    network.add_module("outputs", drawn_linear(hidden_width, sizes[1], generator))
    if arm in ("plain", "residual"):
        return network
    correction = structured.Correction(scale=config.correction) if arm == "structured" else None
    converted = structured.convert(
        network,
        [f"{name}.linear" for name in hidden_layers(network)],
        config.structure,
        correction,
        generator=generator,
    )
    assert isinstance(converted, nn.Sequential)
    return converted


def hidden_layers(network: nn.Module) -> list[str]:
    """Names of the hidden layers, in the order in which they run."""
    return [name for name, _ in network.named_children() if name.startswith("layer")]

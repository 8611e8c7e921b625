"""Layers of deep networks whose signals neither grow nor shrink with depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """``tanh(W x + b)``, at the scale at which signals neither grow nor shrink with depth."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = drawn_linear(n_in, n_out, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Read the layer below."""
        return torch.tanh(self.linear(x))


def drawn_linear(n_in: int, n_out: int, generator: torch.Generator, *, gain: float = 1.0) -> nn.Linear:
    """An affine map of normal weights with variance ``gain^2 / n_in``, biases zero (Glorot & Bengio 2010, eq. 10)."""
    linear = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.normal_(0, gain / math.sqrt(n_in), generator=generator)
        linear.bias.zero_()
    return linear

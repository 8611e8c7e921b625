"""Multilayer perceptrons, on numbers or on tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn


class Perceptron(nn.Sequential):
    """Linear maps with an activation between them; drawn uniform within 1/sqrt(fan in), as torch does.

    Args:
        widths: numbers of neurons, input to output.
        generator: draws weights and biases.
        activation: of every layer but the last.
        embedding: ``(tokens, width)``: inputs are token indices, embedded and laid side by side.
    """

    def __init__(
        self,
        widths: Sequence[int],
        generator: torch.Generator,
        *,
        activation: Callable[[], nn.Module] = nn.SiLU,
        embedding: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if embedding is not None:
            vectors = torch.randn(embedding, generator=generator)
            self.add_module("embed", nn.Embedding.from_pretrained(vectors, freeze=False))
            self.add_module("flatten", nn.Flatten())
        for layer, (n_in, n_out) in enumerate(pairwise(widths)):
            if layer:
                self.add_module(f"activation{layer}", activation())
            self.add_module(f"linear{layer}", _linear(n_in, n_out, generator))


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
    return linear

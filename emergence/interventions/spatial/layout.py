"""Where the neurons of a layer sit: on a line, a grid or a ring, inside the unit cube."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Layout(Protocol):
    """Anything that gives ``n`` neurons their places; write your own for a cortex."""

    def positions(self, n: int) -> Float[Tensor, "neuron dim"]:
        """Coordinates, one row a neuron.

        Raises:
            ValueError: ``n`` neurons do not fit.
        """
        ...


@dataclass(frozen=True)
class Line:
    """Evenly spaced on [0, 1], half a gap from the ends: ``x_i = (i + 1/2) / n`` (Liu, Gan & Tegmark 2023, sec. 2)."""

    def positions(self, n: int) -> Float[Tensor, "neuron dim"]:
        """One coordinate a neuron."""
        return _cells((n,))


@dataclass(frozen=True)
class Grid:
    """Cell centres of a grid that fills the unit square or cube, the last axis running fastest.

    Attributes:
        shape: cells along each axis; None takes two axes as near to a square as ``n`` allows, and refuses a number of
            neurons whose best rectangle is more than four times as long as it is wide.
    """

    shape: tuple[int, ...] | None = None

    def positions(self, n: int) -> Float[Tensor, "neuron dim"]:
        """As many coordinates a neuron as the grid has axes."""
        if self.shape is None:
            return _cells(_near_square(n))
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise ValueError(f"shape must have one to three positive numbers, got {self.shape}")
        if math.prod(self.shape) != n:
            raise ValueError(f"a grid of shape {self.shape} has {math.prod(self.shape)} places, not {n}")
        return _cells(self.shape)


@dataclass(frozen=True)
class Ring:
    """Evenly spaced on a circle about the middle of the unit square.

    Attributes:
        radius: of the circle; 1/4 as for the output layer of the method's MNIST example.
    """

    radius: float = 0.25

    def positions(self, n: int) -> Float[Tensor, "neuron dim"]:
        """Two coordinates a neuron."""
        if not 0 < self.radius <= 0.5:
            raise ValueError(f"radius must be above 0 and at most 0.5, got {self.radius}")
        angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
        return 0.5 + self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)


LayoutName = Literal["line", "grid", "ring"]
LAYOUTS: dict[str, Layout] = {"line": Line(), "grid": Grid(), "ring": Ring()}


def _cells(shape: tuple[int, ...]) -> Float[Tensor, "neuron dim"]:
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)


def _near_square(n: int) -> tuple[int, int]:
    rows = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
    if n > 4 * rows**2:
        raise ValueError(f"{n} neurons fill no grid near a square; give Grid(shape=...), a line or a ring")
    return rows, n // rows

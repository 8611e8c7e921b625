"""What a structure is: settings that make a map from free numbers to a weight matrix."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Shaping(nn.Module):
    """A parametrisation for ``torch.nn.utils.parametrize``: the last two axes are a matrix, those before count many.

    ``right_inverse`` takes any matrix to the free numbers of the structured matrix nearest to it in Frobenius norm,
    so assigning to a converted weight projects. What is computed here stays in the precision of the weights, also
    under autocast: half precision would break what the structure promises.
    """

    def forward(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        """The weight as the layer sees it."""
        kind = free[0].device.type
        if not torch.is_autocast_enabled(kind):
            return self.shaped(*free)
        with torch.autocast(kind, enabled=False):
            return self.shaped(*free)

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        """The structured matrix made of the free numbers."""
        raise NotImplementedError

    def right_inverse(self, weight: Float[Tensor, "*matrix row column"]) -> Tensor | tuple[Tensor, ...]:
        """Free numbers of the structured matrix nearest to ``weight``."""
        raise NotImplementedError


@runtime_checkable
class Structure(Protocol):
    """Settings of a structure; write your own for one that is missing."""

    def shaping(self, weight: Float[Tensor, "*matrix row column"], generator: torch.Generator) -> Shaping:
        """A parametrisation for a weight of this shape, type and device.

        Raises:
            ValueError: the structure does not fit the shape.
        """
        ...


def check_square(weight: Tensor, structure: str) -> None:
    """Refuse a matrix that is not square."""
    rows, columns = weight.shape[-2:]
    if rows != columns:
        raise ValueError(
            f"structure {structure!r} needs square weights, got {rows} by {columns}; 'orthogonal' takes any shape"
        )

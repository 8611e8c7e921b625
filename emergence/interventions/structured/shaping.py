"""What a structure is: settings that make a map from free numbers to a weight matrix."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

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


class Retracting(Shaping):
    """A structure that is made of a free matrix which training itself keeps on it.

    In training mode the free matrix is first moved onto the structure, if a step has moved it away, and then used as
    it is: the gradient is the one by the entries of the weight, the move is a retraction (Absil, Mahony & Sepulchre
    2008, Optimization Algorithms on Matrix Manifolds, section 4.1), and to first order in the step both together are a
    step along the structure. It costs a fraction of differentiating through the structure. In evaluation mode, and
    for free numbers that are not the module's own parameter (``torch.func``), nothing moves and gradients of any
    order pass through the structure.
    """

    last: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("last", torch.full_like(weight, torch.nan), persistent=False)

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        """The free matrix on the structure, or the map to there."""
        (matrix,) = free
        if self.training and isinstance(matrix, nn.Parameter):
            self._settle_uncompiled(matrix)
            return matrix
        return self.mapped(matrix)

    @torch.no_grad()
    def _settle(self, matrix: nn.Parameter) -> None:
        if not torch.equal(matrix, self.last):  # a second pass before the step must find what the first one used
            self.last.copy_(self.retracted(matrix))
            matrix.copy_(self.last)

    _settle_uncompiled: Any = torch.compiler.disable(_settle)  # its choices depend on the numbers

    def mapped(self, matrix: Float[Tensor, "*matrix row column"]) -> Float[Tensor, "*matrix row column"]:
        """The structured matrix of a free one, differentiable."""
        raise NotImplementedError

    def retracted(self, matrix: Float[Tensor, "*matrix row column"]) -> Float[Tensor, "*matrix row column"]:
        """The structured matrix of a free one that is a step away from the structure, no gradient needed."""
        return self.mapped(matrix)


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

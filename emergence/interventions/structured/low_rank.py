"""Weights that are a product of two thin matrices, and a diagonal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .shaping import Shaping

_SWEEPS = 50
"""Alternations at conversion; each lowers the distance, most of it in the first few."""


@dataclass(frozen=True)
class LowRankDiagonal:
    """``U V' + D``: rank ``rank`` beside a diagonal, stored as ``rank (rows + columns) + min(rows, columns)`` numbers.

    The diagonal of a rectangular weight is that of its leading square block. Conversion alternates the truncated
    singular value decomposition of ``W - D`` (the nearest product for this diagonal) with the diagonal of ``W - U V'``
    (the nearest diagonal for this product), beginning with no diagonal: the distance falls with every step, to a
    minimum that need not be the lowest.

    Attributes:
        rank: at most the shorter side of the weight.
    """

    rank: int = 8

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """The shorter side must be at least the rank."""
        rows, columns = weight.shape[-2:]
        if self.rank > min(rows, columns):
            raise ValueError(f"rank={self.rank} must be at most the shorter side of a weight, got {rows} by {columns}")
        return _LowRankDiagonal(self.rank, rows, columns)


class _LowRankDiagonal(Shaping):
    def __init__(self, rank: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rank, self.rows, self.columns = rank, rows, columns

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        u, v, d = free
        return u @ v.mT + self._diagonal(d)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Product and diagonal, each in turn the nearest given the other."""
        target = weight.detach().double()
        d = torch.zeros_like(target.diagonal(dim1=-2, dim2=-1))
        u, v = self._product(target)
        for _ in range(_SWEEPS):
            d = (target - u @ v.mT).diagonal(dim1=-2, dim2=-1)
            u, v = self._product(target - self._diagonal(d))
        return u.to(weight), v.to(weight), d.to(weight)

    def _product(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Truncated decomposition, the singular values shared out evenly."""
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        root = s[..., None, : self.rank].sqrt()
        return u[..., : self.rank] * root, vh[..., : self.rank, :].mT * root

    def _diagonal(self, d: Tensor) -> Float[Tensor, "*matrix row column"]:
        n = d.shape[-1]
        return torch.nn.functional.pad(d.diag_embed(), (0, self.columns - n, 0, self.rows - n))

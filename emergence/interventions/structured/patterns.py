"""Weights with a pattern of zeros or of equal numbers: antisymmetric, block diagonal, circulant, masked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from .shaping import Shaping, check_square


@dataclass(frozen=True)
class Antisymmetric:
    """``(M - M') / 2 - damping I``: eigenvalues on the line of real part ``-damping``; square weights.

    Chang et al. 2019 (AntisymmetricRNN, arXiv 1902.09689), eq. 13, there as the drift of a recurrent network.

    Attributes:
        damping: zero or positive.
    """

    damping: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"damping must be zero or positive and finite, got {self.damping}")

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Square weights only."""
        check_square(weight, "antisymmetric")
        return _Antisymmetric(weight, self.damping)


class _Antisymmetric(Shaping):
    damping: Tensor

    def __init__(self, weight: Tensor, damping: float) -> None:
        super().__init__()
        eye = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        self.register_buffer("damping", damping * eye, persistent=False)

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix n n"]:
        (matrix,) = free
        return (matrix - matrix.mT) / 2 - self.damping

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The antisymmetric part; the diagonal is given."""
        return (weight - weight.mT) / 2


@dataclass(frozen=True)
class BlockDiagonal:
    """Groups of inputs that each feed a group of outputs of their own, and nothing between; only blocks are stored.

    Attributes:
        n_blocks: must divide rows and columns.
    """

    n_blocks: int = 4

    def __post_init__(self) -> None:
        if self.n_blocks < 1:
            raise ValueError(f"n_blocks must be at least 1, got {self.n_blocks}")

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Both sides must be multiples of the number of blocks."""
        rows, columns = weight.shape[-2:]
        if rows % self.n_blocks or columns % self.n_blocks:
            raise ValueError(f"n_blocks={self.n_blocks} must divide both sides of a weight, got {rows} by {columns}")
        return _BlockDiagonal(self.n_blocks)


class _BlockDiagonal(Shaping):
    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.n_blocks = n_blocks

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        (blocks,) = free
        spread = rearrange(blocks, "... block p q -> ... p q block").diag_embed()
        return rearrange(spread, "... p q row column -> ... (row p) (column q)")

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The blocks, as they are."""
        pieces = rearrange(
            weight, "... (row p) (column q) -> ... p q row column", row=self.n_blocks, column=self.n_blocks
        )
        return rearrange(pieces.diagonal(dim1=-2, dim2=-1), "... p q block -> ... block p q").contiguous()


@dataclass(frozen=True)
class Circulant:
    """Every row is the one above moved on by one, ``W[i, j] = row[(j - i) mod n]``; square weights, one row stored.

    Applied as a plain matrix: at the widths of our layers that is faster than two Fourier transforms.
    """

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Square weights only."""
        check_square(weight, "circulant")
        return _Circulant()


class _Circulant(Shaping):
    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix n n"]:
        (row,) = free
        windows = torch.cat([row, row], dim=-1).unfold(-1, row.shape[-1], 1)
        return windows[..., 1:, :].flip(-2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Mean along each wrapped diagonal."""
        place = torch.arange(weight.shape[-1], device=weight.device)
        return weight[..., place, (place + place[:, None]) % len(place)].mean(-1)


@dataclass(frozen=True)
class Masked:
    """Connections that are there or not, for good.

    Attributes:
        mask: of the weight's shape or of its last two axes, true where a connection is; None draws one.
        density: chance that a connection is there, where the mask is drawn.
    """

    mask: Bool[Tensor, "*matrix row column"] | None = field(default=None, compare=False)
    density: float = 0.5

    def __post_init__(self) -> None:
        if self.mask is not None and not (isinstance(self.mask, Tensor) and self.mask.dtype == torch.bool):
            raise TypeError("mask must be a tensor of bool, or None for one drawn at random")
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be above 0 and at most 1, got {self.density}")

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """The mask must fit the weight."""
        if self.mask is None:
            drawn = torch.rand(weight.shape, generator=generator, device=generator.device)
            return _Masked((drawn < self.density).to(weight.device))
        if self.mask.shape not in (weight.shape, weight.shape[-2:]):
            raise ValueError(f"mask has shape {tuple(self.mask.shape)}, the weight {tuple(weight.shape)}")
        return _Masked(self.mask.detach().clone().to(weight.device))


class _Masked(Shaping):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        (matrix,) = free
        return matrix * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight where the mask is."""
        return weight * self.mask

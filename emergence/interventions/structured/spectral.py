"""Weights whose largest singular value is bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .shaping import Shaping

_BLOCK = 4
"""Directions followed. One alone loses the largest value where many are close, which is what training makes of them."""

_DEPTH = 3
"""Powers of ``W'W`` applied to them in a forward pass; so chosen, s1 stays within 1 % over training (see the tests)."""


@dataclass(frozen=True)
class Spectral:
    """Largest singular value at most ``bound``: ``W / max(1, s1 / bound)``.

    Unlike ``torch.nn.utils.parametrizations.spectral_norm`` (Miyato et al. 2018, arXiv 1802.05957), which always
    divides, this only shrinks. ``s1`` comes from a block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477,
    algorithm 2) that starts at the directions of the step before, kept in a buffer while the module trains; in
    evaluation mode it changes nothing. The gradient of ``s1`` is exact; of its second derivative, the part from the
    turning of its direction is left out.

    Attributes:
        bound: of the largest singular value.
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound must be positive and finite, got {self.bound}")

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Any shape will do."""
        return _Bounded(weight, self.bound)


class _Bounded(Shaping):
    directions: Tensor

    def __init__(self, weight: Tensor, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.is_wide = weight.shape[-2] < weight.shape[-1]
        shorter = min(weight.shape[-2:])
        self.register_buffer("directions", weight.new_zeros(*weight.shape[:-2], shorter, min(_BLOCK, shorter)))

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        (weight,) = free
        tall = weight.mT if self.is_wide else weight
        with torch.no_grad():
            directions = _leading_directions(tall, self.directions)
            if self.training:
                self.directions.copy_(directions)
        square = (tall @ directions[..., -1:]).square().sum((-2, -1), keepdim=True)
        return weight * (square / self.bound**2).clamp(min=1).rsqrt()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Clip the singular values: the nearest matrix inside the spectral ball."""
        u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        vectors = u if self.is_wide else vh.mT
        self.directions.copy_(vectors[..., : self.directions.shape[-1]].flip(-1))
        return ((u * s.clamp(max=self.bound)[..., None, :]) @ vh).to(weight)


def _leading_directions(
    tall: Float[Tensor, "*matrix row column"], start: Float[Tensor, "*matrix column block"]
) -> Float[Tensor, "*matrix column block"]:
    """Right singular vectors of the largest singular values, ascending: the best in the Krylov space of ``start``."""
    powers = [start]
    for _ in range(_DEPTH):
        powers.append(tall.mT @ (tall @ powers[-1]))
    basis = torch.linalg.qr(torch.cat(powers, dim=-1)).Q
    image = tall @ basis
    vectors = torch.linalg.eigh(image.mT @ image).eigenvectors
    return basis @ vectors[..., -start.shape[-1] :]

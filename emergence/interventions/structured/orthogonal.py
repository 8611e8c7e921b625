"""Orthogonal weights: the polar factor of a free matrix, to which training keeps bringing it back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .shaping import Retracting, Shaping

_ROUNDS = 6
"""Of the iteration where gradients pass through it: 1e-6 from singular values of 0.1 times the largest on."""

_NEAR = 0.3
"""Frobenius norm of ``E`` below which one round is the last in training. At width 128, steps of Adam at a rate of 0.001
had 0.29 in the median and 0.31 at most; where one round was the last, 1.4e-4 was left in spectral norm. Every step
begins at what the one before left, so nothing adds up."""


@dataclass(frozen=True)
class Orthogonal:
    r"""Orthonormal columns, or rows where there are fewer of them: every singular value is one.

    The polar factor :math:`M (M'M)^{-1/2}` of the free matrix ``M``, which is the orthogonal matrix nearest to it. In
    training ``M`` is moved there before each step, see ``Retracting``; in evaluation the factor is differentiable, and
    the directions of ``M`` that leave it as it is are flat. The sign of the determinant stays, unless a step is so
    long that it crosses a singular matrix. Weight decay does nothing.

    Computed by rounds of ``M <- M (I - E/2 + 3 E^2 / 8)`` with ``E = M'M - I``, each of which leaves ``5/8 E^3``
    (Bjorck & Bowie 1971, SIAM J. Numer. Anal. 8, 358, with the series of the inverse square root to second order).

    Cost: in training three products of matrices a round, one or two rounds a step, none of them differentiated; in
    evaluation 19, and twice that in a backward pass.
    """

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Any shape will do."""
        return _Polar(weight)


class _Polar(Retracting):
    identity: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        rows, columns = weight.shape[-2:]
        self.is_wide = rows < columns
        identity = torch.eye(min(rows, columns), dtype=weight.dtype, device=weight.device)
        self.register_buffer("identity", identity, persistent=False)

    def mapped(self, matrix: Tensor) -> Float[Tensor, "*matrix row column"]:
        """Polar factor of any matrix of full rank; its scale does not matter, so no gradient passes through it."""
        tall = matrix.mT if self.is_wide else matrix
        largest = torch.linalg.matrix_norm(self._excess(tall.detach()), keepdim=True).add(1).sqrt()
        tall = tall / largest
        for _ in range(_ROUNDS):
            tall = self._nearer(tall, self._excess(tall))
        return tall.mT if self.is_wide else tall

    def retracted(self, matrix: Tensor) -> Float[Tensor, "*matrix row column"]:
        """As many rounds as the step was long, one or two; nearly singular matrices take their singular vectors."""
        tall = matrix.mT if self.is_wide else matrix
        excess = self._excess(tall)
        if (deviation := _size(excess)) >= 1:
            tall = tall / math.sqrt(1 + deviation)
            excess = self._excess(tall)
        for _ in range(_ROUNDS):
            tall, deviation = self._nearer(tall, excess), _size(excess)
            if not deviation >= _NEAR:
                return tall.mT if self.is_wide else tall
            excess = self._excess(tall)
        return self.right_inverse(matrix)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The polar factor: every orthogonal matrix is its own."""
        u, _, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        return (u @ vh).to(weight)

    def _excess(self, tall: Tensor) -> Tensor:
        return tall.mT @ tall - self.identity

    def _nearer(self, tall: Tensor, excess: Tensor) -> Tensor:
        return tall + tall @ (excess @ (0.375 * excess - 0.5 * self.identity))


def _size(excess: Float[Tensor, "*matrix n n"]) -> float:
    return float(torch.linalg.matrix_norm(excess).max())

"""Orthogonal weights, by a Cayley transform about the matrix they started from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .shaping import Shaping


@dataclass(frozen=True)
class Orthogonal:
    r"""Orthonormal columns, or rows where there are fewer of them: every singular value is one.

    Cayley transform about a fixed orthogonal matrix :math:`Q_0` (the polar factor of the weight converted, which is
    the nearest orthogonal matrix), in the form for tall matrices that inverts only the shorter side (Trockman & Kolter
    2021, arXiv 2104.07167, section 4; the base point is ours)::

        Q = 2 (Q0 + Y) (I + X + Y'Y)^-1 - Q0,    X = (B - B')/2,    B = Q0' M,    Y = M - Q0 B

    with ``M`` the free matrix, shaped as the weight and zero at the start; square weights take ``B = M``, ``Y = 0``.
    It reaches all orthogonal matrices but those at a half turn from ``Q0`` (which are limits), so the sign of the
    determinant stays. Weight decay on ``M`` pulls towards ``Q0``.

    Cost: one inverse and one product of the shorter side forward, three products backward; four products more, three
    of them ``rows x columns x shorter side``, where the weight is not square.
    """

    def shaping(self, weight: Tensor, generator: torch.Generator) -> Shaping:
        """Any shape will do."""
        return _Cayley(weight)


class _Cayley(Shaping):
    base: Tensor
    identity: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.shape[-2:]
        self.is_wide, self.is_square = rows < columns, rows == columns
        self.register_buffer("base", torch.zeros_like(weight))
        identity = torch.eye(min(rows, columns), dtype=weight.dtype, device=weight.device)
        self.register_buffer("identity", identity, persistent=False)

    def shaped(self, *free: Tensor) -> Float[Tensor, "*matrix row column"]:
        (m,) = free
        if self.is_square:
            return self.base @ torch.linalg.inv_ex(self.identity + (m - m.mT) / 2).inverse * 2 - self.base
        m, q0 = (m.mT, self.base.mT) if self.is_wide else (m, self.base)
        b = q0.mT @ m
        y = m - q0 @ b
        inverse = torch.linalg.inv_ex(self.identity + (b - b.mT) / 2 + y.mT @ y).inverse
        q = 2 * ((q0 + y) @ inverse) - q0
        return q.mT if self.is_wide else q

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Begin anew at the polar factor."""
        u, _, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        self.base.copy_(u @ vh)
        return torch.zeros_like(weight)

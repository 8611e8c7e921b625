"""Lanczos with full reorthogonalisation: the one kernel under eigenvalues and spectral density."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class SymmetricOperator(Protocol):
    """A symmetric linear map; ``eps`` is the relative rounding of its products, ``dtype`` that of the vectors."""

    n_entries: int
    eps: float
    device: torch.device
    dtype: torch.dtype

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product with a vector."""
        ...


class Krylov:
    """Orthonormal basis grown by products with a symmetric operator A, and A projected on it.

    A chain begins at ``start`` and grows by ``step``: the newest vector is multiplied, the product is
    orthogonalised twice against *every* earlier vector ("twice is enough") and its remainder becomes the next
    vector. So no Ritz value appears twice unless the eigenvalue is multiple. A later chain starts from a fresh
    vector orthogonal to all that came before; it finds the further copies of multiple eigenvalues, which one
    chain cannot see.

    Args:
        operator: A. A remainder below 30 times its rounding ends a chain (a missed end is harmless: the chain goes on
            from a random direction, all but uncoupled). The basis has its dtype: for float32 models a float64 basis
            doubles memory and time and changed no eigenvalue by more than float32 rounding.

    Cost:
        Storage of one vector a step; step m adds 8 m n_entries flops to the product.

    References:
        Paige 1972, "Computational variants of the Lanczos method", J. Inst. Math. Appl. 10:373; Parlett 1998,
        "The Symmetric Eigenvalue Problem", 6.9 (twice is enough), 13.2 (residuals). We keep the projection
        as a dense matrix rather than a tridiagonal one, which lets chains be joined.
    """

    def __init__(self, operator: SymmetricOperator) -> None:
        self._operator, self._n_entries = operator, operator.n_entries
        shape = (min(32, self._n_entries), self._n_entries)
        self._basis = torch.empty(shape, dtype=operator.dtype, device=operator.device)
        self._columns: list[np.ndarray] = []  # coefficients of A v_j on the basis as it was after step j
        self._multiplied: list[int] = []
        self._size = 0
        self._head: int | None = None
        self._scale = 0.0

    @property
    def n_steps(self) -> int:
        """Products spent."""
        return len(self._multiplied)

    @property
    def is_complete(self) -> bool:
        """Whether the multiplied vectors span the whole space."""
        return self.n_steps == self._n_entries

    def start(self, vector: Float[Tensor, " n_entries"]) -> bool:
        """Begin a chain at the part of ``vector`` outside the basis; False if no product is left to make."""
        vector = vector.to(self._basis)
        rest, _ = self._orthogonalised(vector)
        rest, _ = self._orthogonalised(rest)
        left = float(rest.norm())
        if self._size < self._n_entries and left > 1e3 * torch.finfo(vector.dtype).eps * float(vector.norm()):
            self._head = self._append(rest / left)
            return True
        waiting = sorted(set(range(self._size)) - set(self._multiplied))  # ends of abandoned chains
        self._head = waiting[0] if waiting else None
        return bool(waiting)

    @property
    def newest(self) -> Float[Tensor, " n_entries"]:
        """The vector to multiply next."""
        assert self._head is not None, "start a chain first"
        return self._basis[self._head]

    def step(self) -> bool:
        """Multiply the newest vector; False when its chain ends because the subspace is invariant."""
        return self.extend(self._operator(self.newest))

    def extend(self, product: Float[Tensor, " n_entries"]) -> bool:
        """A step whose product was computed outside, together with those of other chains."""
        assert self._head is not None, "start a chain first"
        norm = float(product.norm())
        self._scale = max(self._scale, norm)
        rest, first = self._orthogonalised(product)
        rest, second = self._orthogonalised(rest)
        left = float(rest.norm())
        column = first + second
        self._multiplied.append(self._head)
        if self._size == self._n_entries or left <= 30 * self._operator.eps * self._scale:
            self._columns.append(column)
            self._head = None
            return False
        self._columns.append(np.append(column, left))
        self._head = self._append(rest / left)
        return True

    def ritz(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
        """Ritz values theta ascending, the norms |A y - theta y| of their vectors y, and the coefficients of each y.

        The coefficients stand in columns, over the multiplied vectors of the basis.
        """
        known = np.zeros((self._size, self.n_steps))
        for j, column in enumerate(self._columns):
            known[: column.size, j] = column
        projected = known[self._multiplied]
        values, coefficients = np.linalg.eigh(projected, UPLO="U")
        outside = np.delete(known, self._multiplied, axis=0)
        return values, np.linalg.norm(outside @ coefficients, axis=0), coefficients

    def recurrence(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Diagonal and off-diagonal of a single chain; the last off-diagonal is the remainder, 0 if it closed."""
        diagonal = np.array([column[j] for j, column in enumerate(self._columns)])
        offdiagonal = np.array(
            [column[j + 1] if column.size > j + 1 else 0.0 for j, column in enumerate(self._columns)]
        )
        return diagonal, offdiagonal

    def vectors(self, coefficients: Float[np.ndarray, "m k"]) -> Float[Tensor, "k n_entries"]:
        """Ritz vectors from their coefficients."""
        weights = torch.from_numpy(np.ascontiguousarray(coefficients.T)).to(self._basis)
        rows = self._basis[: self._size]
        if self._size > self.n_steps:
            rows = rows[self._multiplied]
        return weights @ rows

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, np.ndarray]:
        basis = self._basis[: self._size]
        coefficients = basis @ vector
        return torch.addmv(vector, basis.T, coefficients, alpha=-1), coefficients.double().cpu().numpy()

    def _append(self, vector: Tensor) -> int:
        if self._size == len(self._basis):
            larger = self._basis.new_empty(min(2 * self._size, self._n_entries), self._n_entries)
            larger[: self._size] = self._basis
            self._basis = larger
        self._basis[self._size] = vector
        self._size += 1
        return self._size - 1

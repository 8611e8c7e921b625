"""Extreme eigenpairs of the Hessian, each with its residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from ..parameters import Parameters
from ..protocols import Batches, LossFn
from .graphs import Matrix
from .lanczos import Krylov
from .operator import MEMORY_BUDGET, CurvatureOperator, curvature_operator

Which = Literal["largest", "smallest", "magnitude"]

CHECK_STEPS = 10
"""Length of the fresh chain that must find nothing new. Our choice: a copy missed by the first chain that stands
20 % of the spectrum's width above what remains is amplified 2,900-fold (Chebyshev, T_10(1.4)), enough to stand out
among 10^6 entries."""

_ORDER = {"largest": lambda v: -v, "smallest": lambda v: v, "magnitude": lambda v: -np.abs(v)}


@dataclass(frozen=True)
class Eigenvalues:
    """Extreme eigenpairs of a Hessian, those asked for first.

    Attributes:
        values: Ritz values, in units of loss per squared parameter.
        vectors: unit vectors over the chosen entries, in ``model.named_parameters()`` order; the largest
            component is positive.
        residuals: |H v - value v| / |value|, from the Lanczos relation, and no less than the rounding of a product,
            eps |H|. An eigenvalue lies within residual * |value| of the value; away from its neighbours the error is of
            the order of the residual squared.
        converged: residual below the tolerance, or below what the model's precision can resolve. Exclude the others.
        is_multiplicity_checked: a fresh chain, orthogonal to the first, found no further eigenvalue among the wanted.
        n_matvecs: Hessian-vector products spent.
        n_entries: dimension of the Hessian.
        which: end of the spectrum.
        tolerance: bound on the residuals asked for.
        max_matvecs: the cap on products.
    """

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "k n_entries"]
    residuals: Float[np.ndarray, " k"]
    converged: Bool[np.ndarray, " k"]
    is_multiplicity_checked: bool
    n_matvecs: int
    n_entries: int
    which: Which
    tolerance: float
    max_matvecs: int


def top_eigenvalues(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    k: int,
    parameters: Parameters = None,
    generator: torch.Generator,
    which: Which = "largest",
    tolerance: float = 1e-4,
    max_matvecs: int | None = None,
    matrix: Matrix = "hessian",
    memory_budget: int = MEMORY_BUDGET,
) -> Eigenvalues:
    """Largest eigenvalues of the loss Hessian with eigenvectors, by Lanczos with full reorthogonalisation.

    H v = lambda v for H = d2L / dw2, L(w) the mean of ``loss_fn`` over the batches, over the chosen entries of w.
    The first value is the sharpness when ``parameters`` is None.

    Args:
        model: any torch module, float32 or float64.
        batches: re-iterable, all weighted alike.
        loss_fn: scalar mean loss of a batch.
        k: number of eigenpairs, 1 to the number of chosen entries.
        parameters: names, glob patterns or masks; None takes all trainable parameters.
        generator: draws the start vectors.
        which: "largest" and "smallest" are algebraic, in signed order (a saddle's most negative curvature is "smallest"
            with k=1); "magnitude" orders by absolute value.
        tolerance: bound on each residual, relative to its value. 1e-4 is our choice: on five networks of 243 to
            1,769 parameters values came out good to 4e-8 in float64, for at most a tenth more products than 1e-3.
        max_matvecs: cap on the products; by default the larger of 200 and 20 k.
        matrix: "hessian", or "ggn" for the Gauss-Newton matrix of a ``SplitLoss``.
        memory_budget: bytes of gradient graph kept between products.

    Returns:
        The eigenpairs. Those that did not converge within the cap are flagged, not dropped.

    Raises:
        ValueError: ``k`` or another number out of range, or a loss or model that cannot be probed
            (see ``curvature_operator``).
        TypeError: ``batches`` can be iterated only once.

    Cost:
        For k = 20, 43 to 108 products on those networks and 86 on a 100,000-parameter transformer, the last 10 of them
        the check for missed copies of multiple eigenvalues; a product costs about 2.5 forward+backward passes
        (``CurvatureOperator``). One vector of memory a product.

    References:
        Parlett 1998, "The Symmetric Eigenvalue Problem", 13.2. We depart from ARPACK in not restarting, and in
        starting a second, orthogonal chain to find multiple eigenvalues.
    """
    check_request(which, tolerance)
    opened = curvature_operator(
        model, batches, loss_fn=loss_fn, parameters=parameters, matrix=matrix, memory_budget=memory_budget
    )
    with opened as operator:
        return extreme_pairs(operator, k, which, tolerance, max_matvecs, generator)


def check_request(which: Which, tolerance: float) -> None:
    """Refuse an unknown end of the spectrum or a tolerance out of range."""
    if which not in _ORDER:
        raise ValueError(f"which must be one of {', '.join(_ORDER)}; got {which!r}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")


def _checked_cap(k: int, n_entries: int, max_matvecs: int | None) -> int:
    if not 1 <= k <= n_entries:
        raise ValueError(f"k must lie between 1 and the {n_entries} chosen entries, got {k}")
    cap = max(200, 20 * k) if max_matvecs is None else max_matvecs
    if cap < k:
        raise ValueError(f"max_matvecs must be at least k = {k}, got {max_matvecs}")
    return min(cap, n_entries)


def extreme_pairs(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tolerance: float,
    max_matvecs: int | None,
    generator: torch.Generator,
) -> Eigenvalues:
    """The extreme eigenpairs of an open operator."""
    cap, spent = _checked_cap(k, operator.n_entries, max_matvecs), operator.n_matvecs
    krylov = Krylov(operator)
    settled: np.ndarray | None = None  # wanted values when the running check chain began
    n_checked, is_checked = 0, False
    is_alive = krylov.start(operator.random_normal(generator))
    while is_alive and krylov.n_steps < cap:
        is_growing = krylov.step()
        n_checked += 1
        if krylov.n_steps >= k and (not is_growing or krylov.n_steps % (1 + krylov.n_steps // 50) == 0):
            values, _, _, converged, rounding = _wanted(krylov, k, which, tolerance, operator.eps)
            if converged.all():
                is_same = settled is not None and np.allclose(values, settled, rtol=tolerance, atol=rounding)
                is_checked = krylov.is_complete or (is_same and (n_checked >= CHECK_STEPS or not is_growing))
                if is_checked:
                    break
                if not is_same:
                    settled, n_checked, is_growing = values, 0, False
        is_alive = is_growing or krylov.start(operator.random_normal(generator))
    values, residuals, coefficients, converged, _ = _wanted(krylov, k, which, tolerance, operator.eps)
    vectors = krylov.vectors(coefficients).double().cpu().numpy()
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], axis=1))
    return Eigenvalues(
        values=values,
        vectors=vectors * signs,
        residuals=residuals,
        converged=converged,
        is_multiplicity_checked=is_checked or krylov.is_complete,
        n_matvecs=operator.n_matvecs - spent,
        n_entries=operator.n_entries,
        which=which,
        tolerance=tolerance,
        max_matvecs=cap,
    )


def _wanted(
    krylov: Krylov, k: int, which: Which, tolerance: float, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """The k wanted Ritz values, relative residuals, coefficients, which have converged, and the rounding of values."""
    values, norms, coefficients = krylov.ritz()
    unit = eps * float(np.abs(values).max())
    order = np.argsort(_ORDER[which](values), kind="stable")[:k]
    values, norms = values[order], np.hypot(norms[order], unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = np.where(norms == 0, 0.0, norms / np.abs(values))
    return values, residuals, coefficients[:, order], (residuals <= tolerance) | (norms <= 10 * unit), 10 * unit

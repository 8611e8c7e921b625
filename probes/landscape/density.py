"""Spectral density of the Hessian by stochastic Lanczos quadrature, with bounds on what it resolves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ..parameters import Parameters
from ..protocols import Batches, LossFn
from .hvp import MEMORY_BUDGET, HessianOperator, hessian_operator
from .lanczos import Krylov


@dataclass(frozen=True)
class SpectralDensity:
    """Eigenvalue distribution of a Hessian, one quadrature rule a probe.

    A probe z sees the measure with mass (z . v_i)^2 / |z|^2 at each eigenvalue lambda_i; its mean over probes is
    1 / n_entries at each. After m products m nodes integrate polynomials up to degree 2 m - 1 exactly.

    Attributes:
        nodes: Ritz values, ascending; NaN beyond the end of a chain that closed early (it is then exact).
        weights: their shares, summing to 1 over a probe; 0 where the node is NaN.
        diagonals: of each probe's tridiagonal matrix; NaN beyond the end of a chain.
        offdiagonals: element j couples vectors j and j + 1, the last one couples to the vector not multiplied;
            0 ends a chain that closed.
        n_matvecs: Hessian-vector products spent.
        n_entries: dimension of the Hessian.
    """

    nodes: Float[np.ndarray, "n_probes n_steps"]
    weights: Float[np.ndarray, "n_probes n_steps"]
    diagonals: Float[np.ndarray, "n_probes n_steps"]
    offdiagonals: Float[np.ndarray, "n_probes n_steps"]
    n_matvecs: int
    n_entries: int

    def moments(self, power: int) -> Float[np.ndarray, " n_probes"]:
        """Mean of lambda^power over the eigenvalues, one estimate a probe; times ``n_entries`` it is tr H^power."""
        return np.nansum(self.weights * self.nodes**power, axis=1)

    def density(
        self, grid: Float[np.ndarray, " n_points"], width: float | None = None
    ) -> tuple[Float[np.ndarray, " n_points"], Float[np.ndarray, " n_points"]]:
        """Density on a grid, each node a Gaussian, and its standard error between probes (NaN for one probe).

        Args:
            grid: eigenvalues at which to evaluate.
            width: standard deviation of the Gaussian; 1 % of the range of the nodes by default, our choice for
                figures. For shares of eigenvalues use ``cumulative_bounds``, which needs no width.
        """
        if width is None:
            width = 0.01 * float(np.nanmax(self.nodes) - np.nanmin(self.nodes)) or 1e-12
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        nodes = np.where(np.isnan(self.nodes), 0.0, self.nodes)
        kernel = np.exp(-0.5 * ((grid[:, None, None] - nodes) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        per_probe = (kernel * self.weights).sum(axis=2)  # n_points n_probes
        return per_probe.mean(axis=1), standard_error(per_probe.T)

    def cumulative_bounds(
        self, points: Float[np.ndarray, " n_points"]
    ) -> tuple[Float[np.ndarray, "n_probes n_points"], Float[np.ndarray, "n_probes n_points"]]:
        """Sharpest lower and upper bound on each probe's share of eigenvalues below each point.

        The rule with one more node, prescribed at the point (Gauss-Radau), brackets the probe's measure: the weights
        left of the point, without and with the point's own. The middle of the two is the estimate; their distance is
        what the products could not resolve.

        References:
            Golub and Meurant 2010, "Matrices, Moments and Quadrature with Applications", 6.2 (Radau matrix);
            Szego 1939, "Orthogonal Polynomials", 3.41 (Chebyshev-Markov-Stieltjes separation).
        """
        rules = [
            [_radau_bounds(diagonal, offdiagonal, float(x)) for x in points]
            for diagonal, offdiagonal in zip(self.diagonals, self.offdiagonals, strict=True)
        ]
        bounds = np.array(rules).reshape(len(self.diagonals), len(points), 2)
        return bounds[..., 0], bounds[..., 1]

    def cumulative(self, points: Float[np.ndarray, " n_points"]) -> Float[np.ndarray, " n_points"]:
        """Share of eigenvalues below each point: the middle of ``cumulative_bounds``, averaged over probes."""
        lower, upper = self.cumulative_bounds(points)
        return (0.5 * (lower + upper)).mean(axis=0)


def spectral_density(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    n_probes: int,
    n_steps: int,
    parameters: Parameters = None,
    generator: torch.Generator,
    memory_budget: int = MEMORY_BUDGET,
) -> SpectralDensity:
    """Estimate the spectral density of the loss Hessian by stochastic Lanczos quadrature.

    Args:
        model: any torch module.
        batches: re-iterable, all weighted alike.
        loss_fn: scalar mean loss of a batch.
        n_probes: number of random sign vectors; 2 or more give a standard error. Its size falls as
            1 / sqrt(n_probes n_entries).
        n_steps: Lanczos steps a probe, the resolution; near the ends of the spectrum details of width
            (range / n_steps^2) are told apart, in its middle only (range / n_steps).
        parameters: names, glob patterns or masks; None takes all trainable parameters.
        generator: draws the probes.
        memory_budget: bytes of gradient graph kept between products.

    Returns:
        Nodes and weights of every probe. Full reorthogonalisation: no eigenvalue appears twice.

    Raises:
        ValueError: ``n_probes`` or ``n_steps`` below 1, or a loss or model that cannot be probed
            (see ``hessian_operator``).
        TypeError: ``batches`` can be iterated only once.

    Cost:
        ``n_probes * n_steps`` products of about 2.5 forward+backward passes each; ``n_steps`` vectors of memory.

    References:
        Golub and Welsch 1969, Math. Comp. 23:221; Ubaru, Chen, Saad 2017, SIAM J. Matrix Anal. Appl. 38:1075;
        Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159. They draw normal vectors; signs have the smaller variance.
    """
    for name, number in (("n_probes", n_probes), ("n_steps", n_steps)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    with hessian_operator(
        model, batches, loss_fn=loss_fn, parameters=parameters, memory_budget=memory_budget
    ) as hessian:
        rules = [_quadrature(hessian, n_steps, generator) for _ in range(n_probes)]
        nodes, weights, diagonals, offdiagonals = (np.stack(columns) for columns in zip(*rules, strict=True))
        return SpectralDensity(
            nodes=nodes,
            weights=weights,
            diagonals=diagonals,
            offdiagonals=offdiagonals,
            n_matvecs=hessian.n_matvecs,
            n_entries=hessian.n_entries,
        )


def standard_error(samples: Float[np.ndarray, "n_probes ..."]) -> Float[np.ndarray, " ..."]:
    """Standard error of the mean over the first axis; NaN for a single sample."""
    n = len(samples)
    if n < 2:
        return np.full(samples.shape[1:], np.nan)
    return np.asarray(samples.std(axis=0, ddof=1) / np.sqrt(n))


def _quadrature(hessian: HessianOperator, n_steps: int, generator: torch.Generator) -> tuple[np.ndarray, ...]:
    """Nodes, weights, diagonal and off-diagonal of one probe, padded to ``n_steps``."""
    krylov = Krylov(hessian)
    krylov.start(hessian.random_signs(generator))
    while krylov.n_steps < n_steps and krylov.step():
        pass
    nodes, _, coefficients = krylov.ritz()
    diagonal, offdiagonal = krylov.recurrence()
    weights = coefficients[0] ** 2
    missing = n_steps - len(nodes)
    padded = [np.pad(a, (0, missing), constant_values=np.nan) for a in (nodes, diagonal, offdiagonal)]
    return padded[0], np.pad(weights / weights.sum(), (0, missing)), padded[1], padded[2]


def _radau_bounds(diagonal: np.ndarray, offdiagonal: np.ndarray, x: float) -> tuple[float, float]:
    """Bounds on one probe's mass below x, from its rule with an extra node prescribed at x."""
    m = int(np.count_nonzero(~np.isnan(diagonal)))
    a, b = diagonal[:m], offdiagonal[:m]
    gauss = np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1)
    nodes, vectors = np.linalg.eigh(gauss)
    tiny = np.finfo(np.float64).tiny
    gaps = np.where(nodes == x, tiny, nodes - x)
    if b[-1] == 0:  # closed chain: the rule is the probe's measure
        return float((vectors[0] ** 2)[nodes < x].sum()), float((vectors[0] ** 2)[nodes <= x].sum())
    extra = x + b[-1] ** 2 * float((vectors[-1] ** 2 / gaps).sum())
    radau = np.diag(np.append(a, extra)) + np.diag(b, 1) + np.diag(b, -1)
    nodes, vectors = np.linalg.eigh(radau)
    weights, i = vectors[0] ** 2, int(np.abs(nodes - x).argmin())
    return float(weights[:i].sum()), float(weights[: i + 1].sum())

"""Spectral density of the Hessian by stochastic Lanczos quadrature, with bounds on what it resolves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ..parameters import Parameters
from ..protocols import Batches, LossFn
from .graphs import Matrix
from .lanczos import Krylov
from .operator import MEMORY_BUDGET, CurvatureOperator, curvature_operator


@dataclass(frozen=True)
class SpectralDensity:
    """Eigenvalue distribution of a Hessian or Gauss-Newton matrix, one quadrature rule a probe.

    A probe z sees the measure with mass (z . v_i)^2 / |z|^2 at each eigenvalue lambda_i; its mean over probes is
    1 / n_entries at each. After m products m nodes integrate polynomials up to degree 2 m - 1 exactly.

    Attributes:
        nodes: Ritz values, ascending; NaN beyond the end of a chain that closed early (it is then exact).
        weights: their shares, summing to 1 over a probe; 0 where the node is NaN.
        diagonals: of each probe's tridiagonal matrix; NaN beyond the end of a chain.
        offdiagonals: element j couples vectors j and j + 1, the last one couples to the vector not multiplied;
            0 ends a chain that closed.
        n_matvecs: products spent.
        n_entries: dimension of the matrix.
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

    def shortened(self, n_steps: int) -> SpectralDensity:
        """The density that the first ``n_steps`` of each chain give; a chain that closed is exact and kept whole."""
        n_padded = self.nodes.shape[1]
        nodes, weights = self.nodes.copy(), self.weights.copy()
        for i, (a, b) in enumerate(zip(self.diagonals, self.offdiagonals, strict=True)):
            if np.isnan(b).any() or b[-1] == 0:
                continue
            padding = (0, n_padded - n_steps)
            values, first = _gauss_rule(a[:n_steps], b[: n_steps - 1])
            nodes[i], weights[i] = np.pad(values, padding, constant_values=np.nan), np.pad(first, padding)
        return replace(self, nodes=nodes, weights=weights)

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
    matrix: Matrix = "hessian",
    memory_budget: int = MEMORY_BUDGET,
    vectors_at_once: int | None = None,
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
        matrix: "hessian", or "ggn" for the Gauss-Newton matrix of a ``SplitLoss``.
        memory_budget: bytes of gradient graph kept between products.
        vectors_at_once: probes that grow side by side, see ``curvature_operator``.

    Returns:
        Nodes and weights of every probe. Full reorthogonalisation: no eigenvalue appears twice.

    Raises:
        ValueError: ``n_probes`` or ``n_steps`` below 1, or a loss or model that cannot be probed
            (see ``curvature_operator``).
        TypeError: ``batches`` can be iterated only once.

    Cost:
        ``n_probes * n_steps`` products of about 2.5 forward+backward passes each; ``n_steps`` vectors of memory for
        each probe that grows at a time.

    References:
        Golub and Welsch 1969, Math. Comp. 23:221; Ubaru, Chen, Saad 2017, SIAM J. Matrix Anal. Appl. 38:1075;
        Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159. They draw normal vectors; signs have the smaller variance.
    """
    check_sizes(n_probes, n_steps)
    opened = curvature_operator(
        model,
        batches,
        loss_fn=loss_fn,
        parameters=parameters,
        matrix=matrix,
        memory_budget=memory_budget,
        vectors_at_once=vectors_at_once,
    )
    with opened as operator:
        return lanczos_quadrature(operator, n_probes, n_steps, generator)


def check_sizes(n_probes: int, n_steps: int, least_probes: int = 1) -> None:
    """Refuse numbers of probes and steps out of range."""
    for name, number, least in (("n_probes", n_probes, least_probes), ("n_steps", n_steps, 1)):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")


def lanczos_quadrature(
    operator: CurvatureOperator, n_probes: int, n_steps: int, generator: torch.Generator
) -> SpectralDensity:
    """The spectral density of an open operator."""
    rules: list[tuple[np.ndarray, ...]] = []
    spent = operator.n_matvecs
    while len(rules) < n_probes:
        n_chains = min(operator.vectors_at_once, n_probes - len(rules))
        rules += [_quadrature(chain, n_steps) for chain in _grown(operator, n_chains, n_steps, generator)]
    nodes, weights, diagonals, offdiagonals = (np.stack(columns) for columns in zip(*rules, strict=True))
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        diagonals=diagonals,
        offdiagonals=offdiagonals,
        n_matvecs=operator.n_matvecs - spent,
        n_entries=operator.n_entries,
    )


def standard_error(samples: Float[np.ndarray, "n_probes ..."]) -> Float[np.ndarray, " ..."]:
    """Standard error of the mean over the first axis; NaN for a single sample."""
    n = len(samples)
    if n < 2:
        return np.full(samples.shape[1:], np.nan)
    return np.asarray(samples.std(axis=0, ddof=1) / np.sqrt(n))


def _grown(operator: CurvatureOperator, n_chains: int, n_steps: int, generator: torch.Generator) -> list[Krylov]:
    """Chains of random starts, their products taken together."""
    chains = [Krylov(operator) for _ in range(n_chains)]
    for chain in chains:
        chain.start(operator.random_signs(generator))
    growing = chains
    for _ in range(n_steps):
        if growing:
            products = operator.products(torch.stack([chain.newest for chain in growing]))
            growing = [chain for chain, product in zip(growing, products, strict=True) if chain.extend(product)]
    return chains


def _quadrature(chain: Krylov, n_steps: int) -> tuple[np.ndarray, ...]:
    """Nodes, weights, diagonal and off-diagonal of one probe, padded to ``n_steps``."""
    nodes, _, coefficients = chain.ritz()
    diagonal, offdiagonal = chain.recurrence()
    weights = coefficients[0] ** 2
    missing = n_steps - len(nodes)
    padded = [np.pad(a, (0, missing), constant_values=np.nan) for a in (nodes, diagonal, offdiagonal)]
    return padded[0], np.pad(weights / weights.sum(), (0, missing)), padded[1], padded[2]


def _gauss_rule(diagonal: np.ndarray, offdiagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a tridiagonal matrix."""
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(offdiagonal, 1) + np.diag(offdiagonal, -1))
    return nodes, vectors[0] ** 2


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
    nodes, weights = _gauss_rule(np.append(a, extra), b)
    i = int(np.abs(nodes - x).argmin())
    return float(weights[:i].sum()), float(weights[: i + 1].sum())

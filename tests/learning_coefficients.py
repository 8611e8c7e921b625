"""Models whose learning coefficient is published, and what it should read at finite nbeta where that is known.

All losses are population losses, ``K(w) = |f(w) - f(w*)|²/2``, so that nothing but nbeta is finite.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor, nn

DTYPE = torch.float64


@dataclass(frozen=True)
class Known:
    """A model at its w*, its loss, and its published coefficient with multiplicity."""

    name: str
    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    coefficient: float
    multiplicity: int


class Point(nn.Module):
    """A bare parameter vector at the origin."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(n, dtype=DTYPE))


class LinearNetwork(nn.Module):
    """A product of matrices that equals a projection of the given rank; what it does not need is zero."""

    def __init__(self, widths: Sequence[int], rank: int) -> None:
        super().__init__()
        self.layers = nn.ParameterList()
        for n_in, n_out in pairwise(widths):
            W = torch.zeros(n_out, n_in, dtype=DTYPE)
            W[:rank, :rank] = torch.eye(rank, dtype=DTYPE)
            self.layers.append(nn.Parameter(W))
        self.register_buffer("target", self.product().detach().clone())

    def product(self) -> Tensor:
        total = self.layers[0]
        for W in list(self.layers)[1:]:
            total = W @ total
        return total


def network_loss(model: Any, batch: Any) -> Tensor:
    return 0.5 * (model.product() - model.target).square().sum()


def regular(n: int) -> Known:
    """A quadratic minimum: half the dimension."""
    return Known(f"regular {n}", Point(n), lambda m, b: 0.5 * m.w.square().sum(), n / 2, 1)


def crossing(a: int, b: int) -> Known:
    """``x^a y^b`` with even powers: the smaller of 1/a and 1/b, twofold if they are equal (Watanabe 2009, ch. 4)."""
    return Known(
        f"x^{a} y^{b}", Point(2), lambda m, batch: m.w[0] ** a * m.w[1] ** b, 1 / max(a, b), 2 if a == b else 1
    )


def linear_network(*widths: int, rank: int) -> Known:
    coefficient, multiplicity = deep_linear_coefficient(widths, rank)
    name = f"linear {'-'.join(map(str, widths))} rank {rank}"
    return Known(name, LinearNetwork(widths, rank), network_loss, coefficient, multiplicity)


def reduced_rank_coefficient(widths: Sequence[int], rank: int) -> tuple[float, int]:
    """Learning coefficient and multiplicity of ``y = B A x`` at true rank r; widths are those in, hidden and out.

    References: Aoyagi and Watanabe 2005, Stochastic complexities of reduced rank regression in Bayesian estimation,
    Neural Networks 18, main theorem.
    """
    (M, H, N), r = widths, rank
    if N + r > M + H:
        return (H * M - H * r + N * r) / 2, 1
    if M + r > N + H:
        return (H * N - H * r + M * r) / 2, 1
    if H + r > M + N:
        return M * N / 2, 1
    eighths = 2 * (H + r) * (M + N) - (M - N) ** 2 - (H + r) ** 2
    is_odd = (M + H + N + r) % 2
    return (eighths + is_odd) / 8, 1 + is_odd


def deep_linear_coefficient(widths: Sequence[int], rank: int) -> tuple[float, int]:
    """Learning coefficient and multiplicity of a product of matrices at true rank r.

    References: Aoyagi 2024, Consideration on the learning efficiency of multiple-layered neural networks with linear
    units, Neural Networks 172, theorem 1.
    """
    M = [width - rank for width in widths]
    chosen = _bottleneck(M)
    ell, total = len(chosen) - 1, sum(chosen)
    ceiling = math.ceil(total / ell)
    a = total - (ceiling - 1) * ell
    pairs = sum(x * y for x, y in combinations(chosen, 2))
    value = (rank * (widths[0] + widths[-1]) - rank**2) / 2
    value += a * (ell - a) / (4 * ell) - (ell - 1) / (4 * ell) * total**2 + pairs / 2
    return value, a * (ell - a) + 1


def _bottleneck(M: Sequence[int]) -> list[int]:
    """The theorem's set: the narrowest widths that satisfy its three inequalities."""
    ordered = sorted(M)
    for n in range(2, len(ordered) + 1):
        inside, outside = ordered[:n], ordered[n:]
        ell, total = n - 1, sum(inside)
        if total >= ell * inside[-1] and (not outside or (inside[-1] < outside[0] and total < ell * outside[0])):
            return inside
    raise ValueError(f"no bottleneck among {M}")


def exact_reduced_rank(widths: Sequence[int], nbeta: np.ndarray, localization: float = 1.0) -> np.ndarray:
    """``nbeta E[K]`` at rank 0 and finite nbeta, under the localized posterior, by quadrature; at most 2 hidden units.

    B is Gaussian given A, so it integrates out: ``Z = E det(1 + nbeta A A'/γ)^(-N/2)`` over the eigenvalues x of the
    Wishart matrix ``A A'``, and ``nbeta E[K] = N/2 E sum nbeta x / (γ + nbeta x)`` under the same weight.
    """
    n_in, n_hidden, n_out = widths
    if n_hidden not in (1, 2) or n_in < n_hidden:
        raise ValueError("quadrature is for one or two hidden units, no more than inputs")
    log_x = np.linspace(np.log(1e-14), np.log(200.0), 1500 if n_hidden == 1 else 700)
    x = np.exp(log_x) / localization
    log_density = (n_in - n_hidden - 1) / 2 * np.log(x) - localization * x / 2 + np.log(x)  # dx = x d(log x)
    values = []
    for b in np.atleast_1d(nbeta):
        log_weight = log_density - n_out / 2 * np.log1p(b * x / localization)
        share = n_out / 2 * b * x / (localization + b * x)
        if n_hidden == 2:
            log_weight, share = log_weight[:, None] + log_weight, share[:, None] + share
            with np.errstate(divide="ignore"):
                log_weight = log_weight + np.log(np.abs(x[:, None] - x))
        weight = np.exp(log_weight - log_weight.max())
        values.append((weight * share).sum() / weight.sum())
    return np.array(values)


def exact_crossing(a: int, b: int, nbeta: np.ndarray, localization: float = 1.0) -> np.ndarray:
    """``nbeta E[x^a y^b]`` under the localized posterior, by quadrature on a logarithmic grid."""
    log_w = np.linspace(np.log(1e-8), np.log(12.0), 2000)
    w = np.exp(log_w) / math.sqrt(localization)
    log_prior = log_w - localization * w**2 / 2
    values = []
    for beta in np.atleast_1d(nbeta):
        potential = beta * w[:, None] ** a * w**b
        weight = np.exp(log_prior[:, None] + log_prior - potential)
        values.append((weight * potential).sum() / weight.sum())
    return np.array(values)


def boltzmann(
    loss: Callable[[float], float], nbeta: float, localization: float, weight: Callable[[float], float] = lambda w: 1.0
) -> float:
    """``nbeta E[loss(w)]`` under ``weight exp(-nbeta loss - localization w²/2)`` on the line, by quadrature."""

    def density(w: float) -> float:
        return weight(w) * math.exp(-nbeta * loss(w) - localization * w**2 / 2)

    top = quad(lambda w: nbeta * loss(w) * density(w), 0, 4, epsabs=1e-12, limit=400)[0]
    return top / quad(density, 0, 4, epsabs=1e-12, limit=400)[0]

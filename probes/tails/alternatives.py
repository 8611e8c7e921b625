"""Other distributions of a tail, fitted by maximum likelihood and compared with the power law.

All are written in ``v = log(x / xmin)``, where a power law is a straight line: an unnormalised log density in v, and
the log of its integral from v to infinity. There the lognormal, the stretched exponential and the truncated power law
pass smoothly into the power law as their second parameter vanishes, so a fit that runs there stays finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, erfc, erfcx, ndtr, zeta

_HEAD = 50
"""Terms of a discrete sum taken one by one; the rest is an integral with two Euler-Maclaurin terms, good to 1e-8."""

_NO_DIFFERENCE = 0.01
"""Log likelihood ratios smaller than this tell nothing: the other law has run into the power law."""

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(80)


@dataclass(frozen=True)
class TailComparison:
    """The power law against one other distribution of the same tail.

    Attributes:
        log_likelihood_ratio: log likelihood of the power law less that of the other; positive favors the power law.
        p_value: chance of so large a ratio in size if both were equally close to the data (Vuong); for the truncated
            power law, which contains the power law, the chance of so negative a ratio if the power law held. One if
            the ratio is below 0.01 in size.
        parameters: named parameters of the other distribution.
        converged: whether its fit converged.
    """

    log_likelihood_ratio: float
    p_value: float
    parameters: dict[str, float]
    converged: bool


@dataclass(frozen=True)
class Alternative:
    """One distribution, in ``v = log(x / xmin)``.

    Attributes:
        log_density: v and parameters to the log of the unnormalised density in v.
        log_mass: v and parameters to the log of its integral from v on.
        starts: values of v and the power law's exponent to start parameters.
        bounds: ends of the search box.
        describe: parameters and xmin to the named parameters of the textbook formula.
    """

    log_density: Callable[[np.ndarray, np.ndarray], np.ndarray]
    log_mass: Callable[[float, np.ndarray], float]
    starts: Callable[[np.ndarray, float], list[tuple[float, ...]]]
    bounds: tuple[tuple[float, float], ...]
    describe: Callable[[np.ndarray, float], dict[str, float]]


def _log_erfcx(x: float) -> float:
    return float(np.log(erfcx(x)) if x > -5.0 else x * x + np.log(erfc(x)))


def _lognormal_mass(start: float, theta: np.ndarray) -> float:
    slope, curvature = theta[0], np.exp(theta[1])
    here = slope + 2.0 * curvature * start
    return float(
        -slope * start
        - curvature * start**2
        + 0.5 * np.log(np.pi / (4.0 * curvature))
        + _log_erfcx(here / (2.0 * np.sqrt(curvature)))
    )


def _describe_lognormal(theta: np.ndarray, xmin: float) -> dict[str, float]:
    curvature = float(np.exp(theta[1]))
    return {"mu": float(np.log(xmin) - theta[0] / (2.0 * curvature)), "sigma": (2.0 * curvature) ** -0.5}


def _describe_stretched(theta: np.ndarray, xmin: float) -> dict[str, float]:
    slope, beta = np.exp(theta)
    return {"rate": float(slope / beta * xmin**-beta), "beta": float(beta)}


def _truncated_mass(start: float, theta: np.ndarray) -> float:
    """By Gauss-Legendre quadrature up to where the integrand has fallen by e^-45."""
    slope, cutoff = theta[0] - 1.0, np.exp(theta[1])
    here = cutoff * np.exp(start)
    reach = np.log1p(45.0 / here)
    end = min(45.0 / slope, reach) if slope * reach > 45.0 else np.log1p((45.0 + 2.0 * max(-slope, 0.0) * reach) / here)
    s = 0.5 * end * (_NODES + 1.0)
    exponent = -slope * s - here * np.expm1(s)
    top = exponent.max()
    integral = np.log(0.5 * end * (np.exp(exponent - top) @ _NODE_WEIGHTS)) + top
    return float(-slope * start - cutoff * np.expm1(start) + integral)


ALTERNATIVES: dict[str, Alternative] = {
    "exponential": Alternative(
        lambda v, q: v - np.exp(q[0]) * np.expm1(v),
        lambda start, q: float(-np.exp(q[0]) * np.expm1(start) - q[0]),
        lambda v, alpha: [(-np.log(np.expm1(v).mean()),)],
        ((-35.0, 10.0),),
        lambda q, xmin: {"rate": float(np.exp(q[0]) / xmin)},
    ),
    "lognormal": Alternative(
        lambda v, q: -q[0] * v - np.exp(q[1]) * v**2,
        _lognormal_mass,
        lambda v, alpha: [(alpha - 1.0, -6.0), (-v.mean() / v.var(), -np.log(2.0 * v.var()))],
        ((-200.0, 200.0), (-18.0, 8.0)),
        _describe_lognormal,
    ),
    "stretched_exponential": Alternative(
        lambda v, q: np.exp(q[1]) * v - np.exp(q[0] - q[1]) * np.expm1(np.exp(q[1]) * v),
        lambda start, q: float(-np.exp(q[0] - q[1]) * np.expm1(np.exp(q[1]) * start) - q[0]),
        lambda v, alpha: [(np.log(alpha - 1.0), -4.0), (-np.log(np.expm1(v).mean()), 0.0)],
        ((-35.0, 10.0), (-9.0, 2.0)),
        _describe_stretched,
    ),
    "truncated_power_law": Alternative(
        lambda v, q: -(q[0] - 1.0) * v - np.exp(q[1]) * np.expm1(v),
        _truncated_mass,
        lambda v, alpha: [(alpha, -np.log(np.expm1(v).mean()) - 5.0), (0.5, -np.log(np.expm1(v).mean()))],
        ((-5.0, 60.0), (-35.0, 10.0)),
        lambda q, xmin: {"alpha": float(q[0]), "rate": float(np.exp(q[1]) / xmin)},
    ),
}
"""The distributions a tail is compared with, by name; densities in x::

exponential             exp(-rate x)
lognormal               exp(-(log x - mu)^2 / (2 sigma^2)) / x
stretched_exponential   x^(beta - 1) exp(-rate x^beta)
truncated_power_law     x^-alpha exp(-rate x)
"""


def compare_tail(name: str, tail: np.ndarray, xmin: float, alpha: float, *, discrete: bool) -> TailComparison:
    """Fit one alternative to the samples at or above xmin and compare it with the power law."""
    from scipy.optimize import minimize  # late: it takes as long to import as all other probes

    alternative = ALTERNATIVES[name]
    v = np.log(tail / xmin)

    def log_probability(theta: np.ndarray) -> np.ndarray:
        continuous = alternative.log_mass(0.0, theta) + np.log(xmin)
        normaliser = _log_sum(alternative, theta, xmin) if discrete else continuous
        return alternative.log_density(v, theta) - v - normaliser

    fits = [
        minimize(lambda theta: -log_probability(theta).mean(), start, method="L-BFGS-B", bounds=alternative.bounds)
        for start in alternative.starts(v, alpha)
    ]
    best = min(fits, key=lambda fit: fit.fun)
    pointwise = _power_law(tail, xmin, alpha, discrete) - log_probability(best.x)
    ratio = float(pointwise.sum())
    if name == "truncated_power_law":
        # the power law lies on the edge of its parameters: half the time the ratio is zero (Self and Liang 1987)
        p_value = 0.5 * float(chdtrc(1, -2.0 * ratio)) if ratio < -_NO_DIFFERENCE else 1.0
    else:
        spread = float(pointwise.std()) * np.sqrt(len(tail))
        p_value = 2.0 * float(ndtr(-abs(ratio) / spread)) if abs(ratio) > _NO_DIFFERENCE else 1.0
    return TailComparison(ratio, p_value, alternative.describe(best.x, xmin), bool(best.success))


def _power_law(x: np.ndarray, xmin: float, alpha: float, discrete: bool) -> np.ndarray:
    """Log probability of each sample under the power law."""
    if discrete:
        return -alpha * np.log(x) - np.log(zeta(alpha, xmin))
    return np.log((alpha - 1.0) / xmin) - alpha * np.log(x / xmin)


def _log_sum(alternative: Alternative, theta: np.ndarray, xmin: float) -> float:
    """Log of the sum over whole numbers from xmin of the density in x (in units of 1 / xmin)."""

    def term(x: np.ndarray) -> np.ndarray:
        v = np.log(x / xmin)
        return alternative.log_density(v, theta) - v

    last = xmin + _HEAD
    head = term(xmin + np.arange(_HEAD))
    top = float(head.max())
    at, before, after = np.exp(term(last + np.array([0.0, -0.5, 0.5])) - top)
    rest = xmin * np.exp(alternative.log_mass(float(np.log(last / xmin)), theta) - top)
    return top + float(np.log(np.exp(head - top).sum() + rest + 0.5 * at - (after - before) / 12.0))

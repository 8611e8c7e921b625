"""One law for the curves of several seeds, and how its exponent varies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from probes.curves import (
    EVIDENCE_OF_CHANGE,
    LEVEL,
    SMALLEST_EXPONENT,
    WEIGHT_THRESHOLD,
    Comparison,
    checked_curve,
    compare_laws,
)

from .estimate import DEFAULT_LAWS, LawFit, checked_laws, least_points, record
from .random_effects import random_effects

_NAN = float("nan")


@dataclass(frozen=True)
class LawPopulation:
    """The law of several curves, and the population of its exponents.

    Attributes:
        preferred: one law for all curves, or "undecided".
        reason: why it is undecided; empty if decided.
        weights: law to weight of all curves together, summing to one; NaN if a curve is constant.
        exponent: center of the power law's exponents in the population of seeds; NaN with fewer than two usable curves.
        interval: its 95 % interval, for the population, not for these seeds.
        spread: standard deviation of the true exponents between seeds, to first order; zero if errors explain the
            scatter.
        spread_interval: its 95 % interval.
        p_value: chance of as much scatter between the exponents if all seeds had one.
        usable: for each curve, whether its exponent has a finite interval and so takes part.
        fits: the fit of each curve.
        settings: laws and n_bootstrap.
    """

    preferred: str
    reason: str
    weights: dict[str, float]
    exponent: float
    interval: tuple[float, float]
    spread: float
    spread_interval: tuple[float, float]
    p_value: float
    usable: tuple[bool, ...]
    fits: tuple[LawFit, ...]
    settings: dict[str, object]


def fit_laws(
    curves: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    sigmas: Sequence[ArrayLike | float | int] | None = None,
    laws: Sequence[str] = DEFAULT_LAWS,
    n_bootstrap: int = 400,
    rng: np.random.Generator,
) -> LawPopulation:
    """Fit curve laws to one quantity of several seeds: one law for all, an exponent for each and for their population.

    Weights are the products of the curves' weights (see ``fit_law``): all seeds share one law, each with parameters of
    its own. A law is preferred if its joint weight reaches 0.85, no curve alone prefers another, the curves together
    are told from constants, and, for a power law, each curve spans a decade of it.

    The exponents are random effects: normal about the population's center, each measured with the error that its own
    interval tells. The population's interval so grows with the scatter between seeds, which the intervals of the
    single fits do not know. All on the scale ``arcsinh(p / 0.15)``, logarithmic but for the smallest exponents: errors
    grow with the exponent, and a mean weighted by them on the plain scale comes out low and covers 89 %.

    Args:
        curves: (t, y) of each seed, as for ``fit_law``; lengths may differ. At least two; five give a population
            interval that is worth having.
        sigmas: standard errors of the values of each curve, or None.
        laws: names of the laws to compare.
        n_bootstrap: resampled curves for each interval, at least 40.
        rng: source of the resampling.

    Returns:
        The law, the population of exponents, and the fit of each curve.

    Raises:
        ValueError: as ``fit_law``, with the number of the curve; fewer than two curves; sigmas of another number.

    Cost:
        That of ``fit_law`` for each curve.

    References:
        DerSimonian and Laird 1986, doi:10.1016/0197-2456(86)90046-2 (the model); estimators as in ``random_effects``.
    """
    names = checked_laws(laws)
    if n_bootstrap < 40:
        raise ValueError(f"n_bootstrap must be at least 40: the errors come from the intervals; got {n_bootstrap}")
    curves = list(curves)
    if len(curves) < 2:
        raise ValueError(f"curves must hold (t, y) of at least two seeds; got {len(curves)}: use fit_law for one")
    if sigmas is not None and len(sigmas) != len(curves):
        raise ValueError(f"sigmas must have one entry a curve ({len(curves)}); got {len(sigmas)}")
    checked = []
    for i, (t, y) in enumerate(curves):
        try:
            sigma = None if sigmas is None else sigmas[i]
            checked.append(checked_curve(t, y, sigma=sigma, n_points=least_points(names)))
        except ValueError as error:
            raise ValueError(f"curve {i}: {error}") from error
    comparisons = [compare_laws(curve, names) for curve in checked]
    fits = [record(curve, c, n_bootstrap=n_bootstrap, rng=rng) for curve, c in zip(checked, comparisons, strict=True)]
    weights = _joint_weights(comparisons)
    preferred, reason = _verdict(weights, comparisons, fits)
    intervals = np.array([fit.interval for fit in fits])
    usable = np.isfinite(intervals[:, 0]) & np.isfinite(intervals[:, 1])
    exponents = np.array([fit.exponent for fit in fits])
    exponent, interval, spread, spread_interval, p_value = _population(exponents[usable], intervals[usable])
    return LawPopulation(
        preferred=preferred,
        reason=reason,
        weights=weights,
        exponent=exponent,
        interval=interval,
        spread=spread,
        spread_interval=spread_interval,
        p_value=p_value,
        usable=tuple(bool(u) for u in usable),
        fits=tuple(fits),
        settings={"laws": names, "n_bootstrap": n_bootstrap},
    )


def _population(
    exponents: np.ndarray, intervals: np.ndarray
) -> tuple[float, tuple[float, float], float, tuple[float, float], float]:
    """Center, its interval, spread, its interval and p-value of the population; NaN from fewer than two exponents."""
    if len(exponents) < 2:
        return _NAN, (_NAN, _NAN), _NAN, (_NAN, _NAN), _NAN
    scale = SMALLEST_EXPONENT
    errors = np.diff(np.arcsinh(intervals / scale), axis=1)[:, 0] / (2.0 * float(ndtri(0.5 + LEVEL / 2.0)))
    effects = random_effects(np.arcsinh(exponents / scale), errors)
    center, low, high = (scale * float(np.sinh(u)) for u in (effects.mean, *effects.interval))
    slope = float(np.hypot(center, scale))  # of the exponent by its inverse hyperbolic sine
    low_spread, high_spread = effects.spread_interval
    return center, (low, high), slope * effects.spread, (slope * low_spread, slope * high_spread), effects.p_value


def _joint_weights(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Product of the curves' weights, normalised, in logarithms."""
    names = tuple(comparisons[0].weights)
    logs = sum(np.log(np.maximum([c.weights[name] for name in names], 1e-300)) for c in comparisons)
    relative = np.exp(logs - np.max(logs))
    return dict(zip(names, (relative / relative.sum()).tolist(), strict=True))


def _verdict(weights: dict[str, float], comparisons: Sequence[Comparison], fits: Sequence[LawFit]) -> tuple[str, str]:
    """The law of all curves, or why there is none."""
    constant = [i for i, c in enumerate(comparisons) if not c.solutions]
    if constant:
        return "undecided", f"curve {constant[0]} is constant"
    best = max(weights, key=lambda name: weights[name])
    if sum(c.gain for c in comparisons) < EVIDENCE_OF_CHANGE:
        return "undecided", "the curves are not told from constants"
    if weights[best] < WEIGHT_THRESHOLD:
        return "undecided", f"the best common law, {best}, has weight {weights[best]:.2f}, below {WEIGHT_THRESHOLD:g}"
    for i, c in enumerate(comparisons):
        if c.preferred not in (best, "undecided"):
            return "undecided", f"curve {i} alone prefers {c.preferred}"
    solutions = [c.solutions[best] for c in comparisons]
    spans = [s.decades(np.array(fit.window[:2])) for s, fit in zip(solutions, fits, strict=True)]
    if solutions[0].law.n_exponents and min(spans) < 1.0:
        return "undecided", f"a power law over {min(spans):.2f} decades, less than one, is no evidence"
    return best, ""

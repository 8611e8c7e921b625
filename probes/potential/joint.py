"""Power-law relaxation of a loss and an observable at once, with one onset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from probes.curves import Comparison, Curve, Problem, delays, power, profile_interval, resampled_noise

Interval = tuple[float, float]

Exponents = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Shape parameters ``(batch, parameter)`` to the exponents of loss and observable."""

_EXPONENT_BOX = (0.02, 8.0)
_DEGREE_BOX = (2.2, 42.0)
_N_PARAMETERS = 7  # two exponents, t0, two offsets, two amplitudes


@dataclass(frozen=True)
class JointFit:
    """Joint power-law fits of loss and observable with one onset."""

    exponents: tuple[float, float]
    exponent_intervals: tuple[Interval, Interval]
    ratio_interval: Interval
    k: float
    k_interval: Interval
    t0: float
    decades: float
    p_value: float


def fit_joint(
    curves: tuple[Curve, ...], comparisons: tuple[Comparison, ...], m: float, n_bootstrap: int, rng: np.random.Generator
) -> JointFit:
    """Fit both power laws with one onset: exponents free, ratio and exponent, and one degree."""
    t, n = curves[0].t, curves[0].n
    separate = [c.solutions["power_law"] for c in comparisons]
    scales = [
        np.sqrt(max(s.rss / (n - 4), 1.0 if c.scale_known else 1e-300)) for s, c in zip(separate, curves, strict=True)
    ]
    weight = np.stack([curve.weight / scale for curve, scale in zip(curves, scales, strict=True)])
    y = np.stack([curve.y for curve in curves])
    ends = delays(t)[[0, -1]]

    def problem(exponents: Exponents, lower: tuple[float, ...], upper: tuple[float, ...], n_free: int) -> Problem:
        def shape(theta: np.ndarray) -> np.ndarray:
            loss, observable = exponents(theta)
            last = theta[:, -1]
            return np.stack([power(t, np.column_stack([p, last])) for p in (loss, observable)], axis=1)

        low, high = np.array([*lower, ends[0]]), np.array([*upper, ends[1]])
        return Problem(shape, weight, low, high, lambda ys: np.empty((len(ys), 0, len(low))), 2 * n - n_free, 0.0)

    def multi_start(p: Problem, *start: float) -> tuple[np.ndarray, float]:
        found = [p.minimise(y[None], np.array([*start, d])) for d in np.linspace(ends[0], ends[1], 9)]
        best = min(found, key=lambda s: float(s.rss[0]))
        return best.theta[0], float(best.rss[0])

    p_min, p_max = _EXPONENT_BOX
    k_min, k_max = np.log(_DEGREE_BOX[0] - 2.0), np.log(_DEGREE_BOX[1] - 2.0)
    free = problem(lambda q: (q[:, 0], q[:, 1]), (p_min, p_min), (p_max, p_max), _N_PARAMETERS)
    ratio = problem(
        lambda q: (np.exp(q[:, 0]) * q[:, 1], q[:, 1]), (np.log(0.05), p_min), (np.log(50.0), p_max), _N_PARAMETERS
    )
    one_k = problem(
        lambda q: (1.0 + 2.0 * np.exp(-q[:, 0]), m * np.exp(-q[:, 0])), (k_min,), (k_max,), _N_PARAMETERS - 1
    )
    theta, rss = multi_start(free, float(separate[0].theta[0]), float(separate[1].theta[0]))
    constrained, constrained_rss = min(
        (multi_start(one_k, np.log(k - 2.0)) for k in (2.5, 4.0, 8.0)), key=lambda found: found[1]
    )
    intervals = []
    for p, best, index in (
        (free, theta, 0),
        (free, theta, 1),
        (ratio, np.array([np.log(theta[0] / theta[1]), theta[1], theta[2]]), 0),
        (one_k, constrained, 0),
    ):
        drawn = _resample(p, best, y, weight, comparisons, n_bootstrap, rng)
        intervals.append(profile_interval(p, y, best, index, drawn, p.minimise(drawn, best)))
    f = float(free.ratio(constrained_rss, min(rss, constrained_rss)))
    lead = float(np.exp(theta[2]))
    return JointFit(
        exponents=(float(theta[0]), float(theta[1])),
        exponent_intervals=(intervals[0], intervals[1]),
        ratio_interval=(float(np.exp(intervals[2][0])), float(np.exp(intervals[2][1]))),
        k=2.0 + float(np.exp(constrained[0])),
        k_interval=(2.0 + float(np.exp(intervals[3][0])), 2.0 + float(np.exp(intervals[3][1]))),
        t0=float(t[0]) - lead,
        decades=min(curves[0].window[2], float(np.log10(1.0 + np.ptp(t) / lead))),
        p_value=float(fdtrc(1, free.freedom, f)),
    )


def _resample(
    problem: Problem,
    theta: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    comparisons: tuple[Comparison, ...],
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Curves drawn around a joint fit, ``(resample, curve, point)``."""
    fitted = problem.fitted(theta, y)
    noise = [
        resampled_noise(row, comparison.rho, 4, n, rng)
        for row, comparison in zip((y - fitted) * weight, comparisons, strict=True)
    ]
    return fitted + np.stack(noise, axis=1) / weight

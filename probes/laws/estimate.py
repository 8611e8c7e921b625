"""Which law a training curve follows: power law, exponential, stretched exponential, logarithm or logistic."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probes.curves import (
    LARGEST_EXPONENT,
    LAWS,
    Comparison,
    Curve,
    LawSolution,
    Problem,
    checked_curve,
    compare_laws,
    delays,
    grid_rss,
    law_errors,
    power,
    profile_interval,
    resampled_noise,
)

SYNONYMS = {"shifted_power_law": "power_law"}
"""Names of the literature for laws that have another name here."""

DEFAULT_LAWS = ("power_law", "exponential", "stretched_exponential", "logarithmic", "logistic")


@dataclass(frozen=True)
class LawFit:
    """The laws a curve was compared with, and the power-law exponent with its interval.

    Attributes:
        preferred: a law, or "undecided".
        reason: why it is undecided; empty if decided.
        exponent: p of ``y_inf + a (t - t0)^-p``, negative for growth. The power law's own best p **whatever law is
            preferred**: evidence of a power law only if ``preferred == "power_law"``. Of the unshifted power law if
            only that was among the laws; NaN if neither was, and for a constant curve.
        interval: 95 % interval of the exponent; an infinite end means that the data do not bound it inside
            [-4, 4]. NaN with the exponent.
        window: first clock value, last clock value, decades between them.
        decades: decades of ``t - t0`` that the power law was seen over, at most those of the window; NaN with the
            exponent.
        weights: law to weight, summing to one; NaN for a constant curve.
        parameters: law to named parameters of its formula (see ``fit_law``); empty for a constant curve.
        standard_errors: law to linearised standard error of each parameter; empty for a constant curve.
        residual_rms: law to root mean square of the residuals, in units of y; empty for a constant curve.
        serial_correlation: lag-one correlation of the residuals of the closest law, 0 if not significant.
        converged: law to whether its fit met its tolerance away from the ends of the search box.
        n_points: number of points.
        settings: laws, n_bootstrap and whether standard errors were given.
    """

    preferred: str
    reason: str
    exponent: float
    interval: tuple[float, float]
    window: tuple[float, float, float]
    decades: float
    weights: dict[str, float]
    parameters: dict[str, dict[str, float]]
    standard_errors: dict[str, dict[str, float]]
    residual_rms: dict[str, float]
    serial_correlation: float
    converged: dict[str, bool]
    n_points: int
    settings: dict[str, object]


def fit_law(
    t: Float[np.ndarray, " point"] | ArrayLike,
    y: Float[np.ndarray, " point"] | ArrayLike,
    *,
    sigma: Float[np.ndarray, " point"] | ArrayLike | float | int | None = None,
    laws: Sequence[str] = DEFAULT_LAWS,
    n_bootstrap: int = 400,
    rng: np.random.Generator,
) -> LawFit:
    """Fit curve laws to y(t) and say which one it follows, or that the data do not tell.

    The laws (a, y_inf and the like may have any sign; growth and decay alike)::

        power_law               y = y_inf + a (t - t0)^(-p)      t0 < t[0], 0.15 <= |p| <= 4; p < 0 is growth
        exponential             y = y_inf + a exp(-t / T)
        stretched_exponential   y = y_inf + a exp(-(t / T)^beta)        0.2 <= beta <= 0.85
        logarithmic             y = a + b log(t + t0)
        logistic                y = y_0 + a / (1 + exp(-(t - t_mid) / width))      in t; t_mid inside the window
        log_logistic            y = y_0 + a / (1 + (t / t_mid)^(-1 / width)), not a default: its tail is a power law
        finite_time_power_law   y = y_inf + a (t_c - t)^(-p)     t_c > t[-1], not a default
        unshifted_power_law     y = y_inf + a t^(-p)             power_law with t0 = 0, not a default
        broken_power_law        y = y_inf + a u^(-p_early) ((1 + u^(1 / width)) / 2)^(-(p_late - p_early) width),
                                u = t / t_break, 0.1 <= width <= 1, half a decade or more from either end; not a default

    ``power_law`` is what the literature of scaling laws calls a *shifted* power law with a limit, and goes by that name
    too (``shifted_power_law``). The three power laws contain each other: with t0 = 0 it is the unshifted one, which a
    broken one with two equal exponents is as well. Compared together they share the weight until the data resolve what
    the larger one adds, so name one of them unless that is the question.

    The ranges of p and beta keep laws apart that are limits of each other: p -> infinity is an exponential, p -> 0 a
    logarithm, beta -> 1 an exponential. Offset and amplitude are solved in closed form, the other parameters by a
    grid over their whole range and Levenberg-Marquardt from its best points.

    Choice: weights ``exp(-BIC / 2)``, normalised. BIC and not AICc because it was measured better on planted curves:
    at equal error rates it decides more often, since AICc can never reject a law that has the true one as a limit. A
    law is preferred if its weight reaches 0.85, it beats a constant by 10 in BIC, and, for a power law, both the
    window and t - t0 span a decade. Otherwise "undecided".
    Serially correlated residuals, from the noise or because no law fits, count as fewer points.

    Interval: the exponents whose profile F statistic ``(RSS(p) - RSS_min) / s^2`` stays below its own 95 % quantile,
    which is bootstrapped by refitting curves resampled from the fitted power law (residuals, or first-order
    autoregressive if they are serially correlated). Profile intervals follow the curved valley in (p, t0), where a
    percentile interval undercovers.

    Args:
        t: clock, positive and ascending. For training curves the summed learning rate (over 1 - momentum), since
            gradient flow is a law in that time, not in steps.
        y: measured values.
        sigma: standard error of each value, or one for all; None: equal errors, estimated from the residuals. Given
            errors are widened if no law reaches them, never narrowed.
        laws: names of the laws to compare.
        n_bootstrap: resampled curves for the interval, 0 for none (interval NaN); 400 (our choice) leaves the 95 %
            quantile of F a relative error of about 10 %, 5 % on the width.
        rng: source of the resampling.

    Returns:
        The preferred law, weights, all parameters, the exponent and its interval.

    Raises:
        ValueError: t, y or sigma hold NaN, differ in length, are not ordered or not positive; there are fewer points
            than the largest law has parameters plus two; a law is unknown, repeated or none; n_bootstrap
            is between 1 and 39.

    Cost:
        About 0.08 s of one core for 30 points (0.02 s of it for the laws), 0.3 s for 200, 1.4 s for 1000.

    References:
        Golub and Pereyra 1973, doi:10.1137/0710036 (variable projection). Caballero et al. 2022, arXiv:2210.14891,
        equation 1 with one break (broken power law; we scale it to one at the break). Schwarz 1978,
        doi:10.1214/aos/1176344136 (BIC). Burnham and Anderson 2002, section 2.9 (weights). Davison and Hinkley 1997,
        section 5.4 (bootstrap-calibrated likelihood intervals).
    """
    names = checked_laws(laws)
    if n_bootstrap != 0 and n_bootstrap < 40:
        raise ValueError(f"n_bootstrap must be 0 (no interval) or at least 40; got {n_bootstrap}")
    curve = checked_curve(t, y, sigma=sigma, n_points=least_points(names))
    return record(curve, compare_laws(curve, names), n_bootstrap=n_bootstrap, rng=rng)


def least_points(names: Sequence[str]) -> int:
    """Fewest points of a curve that these laws are fitted to."""
    return max(LAWS[name].n_parameters for name in names) + 2


def record(curve: Curve, comparison: Comparison, *, n_bootstrap: int, rng: np.random.Generator) -> LawFit:
    """Result of a comparison, with the interval of the power law's exponent."""
    solutions = comparison.solutions
    exponent, decades, interval = float("nan"), float("nan"), (float("nan"), float("nan"))
    power_law = solutions.get("power_law", solutions.get("unshifted_power_law"))
    if power_law is not None:
        exponent, decades = float(power_law.theta[0]), power_law.decades(curve.t)
        if n_bootstrap:
            interval = _exponent_interval(curve, power_law, comparison.rho, n_bootstrap, rng)
    return LawFit(
        preferred=comparison.preferred,
        reason=comparison.reason,
        exponent=exponent,
        interval=interval,
        window=curve.window,
        decades=decades,
        weights=comparison.weights,
        parameters={name: s.parameters(curve.t) for name, s in solutions.items()},
        standard_errors={
            name: law_errors(curve, s, _variance(curve, s.rss, s.law.n_parameters)) for name, s in solutions.items()
        },
        residual_rms={
            name: float(np.sqrt(np.mean((curve.y - s.values(curve.t)) ** 2))) for name, s in solutions.items()
        },
        serial_correlation=comparison.rho,
        converged={name: s.converged for name, s in solutions.items()},
        n_points=curve.n,
        settings={"laws": tuple(comparison.weights), "n_bootstrap": n_bootstrap, "sigma_given": curve.scale_known},
    )


def checked_laws(laws: Sequence[str]) -> tuple[str, ...]:
    """The names of the laws, each known and given once."""
    names = tuple(SYNONYMS.get(name, name) for name in ((laws,) if isinstance(laws, str) else laws))
    if not names:
        raise ValueError(f"laws is empty; choose from {', '.join(LAWS)}")
    for name in names:
        if name not in LAWS:
            near = difflib.get_close_matches(str(name), LAWS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown law {name!r}; did you mean {near!r}? Known: {', '.join(LAWS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"laws names one twice: {', '.join(names)}")
    return names


def _variance(curve: Curve, rss: float, n_parameters: int) -> float:
    """Squared factor on the standard errors: from the residuals; never below 1 when standard errors were given."""
    variance = rss / (curve.n - n_parameters)
    return max(variance, 1.0) if curve.scale_known else variance


def _exponent_interval(
    curve: Curve, solution: LawSolution, rho: float, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Profile interval of a power law's exponent; the profile runs through p = 0, the logarithm."""
    shifted, n_free = solution.law.name == "power_law", solution.law.n_parameters
    theta = solution.theta if shifted else np.append(solution.theta, np.log(curve.t[0]))
    delay = delays(curve.t, 24) if shifted else theta[1:]  # an empty box holds t0 at zero
    exponents = np.linspace(-LARGEST_EXPONENT, LARGEST_EXPONENT, 33)
    grid = np.stack(np.meshgrid(exponents, delay, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = curve.weight[None]

    def shape(theta: np.ndarray) -> np.ndarray:
        return power(curve.t, theta)[:, None, :]

    shapes = shape(grid)
    problem = Problem(
        shape=shape,
        weight=weight,
        lower=grid[0],
        upper=grid[-1],
        starts=lambda ys: grid[grid_rss(shapes, ys, weight).argmin(axis=1)][:, None, :],
        freedom=curve.n - n_free,
        least_variance=1.0 if curve.scale_known else 0.0,
    )
    fitted = solution.values(curve.t)
    residuals = (curve.y - fitted) * curve.weight
    residuals *= np.sqrt(_variance(curve, solution.rss, n_free) * (curve.n - n_free) / max(solution.rss, 1e-300))
    noise = resampled_noise(residuals, rho, n_free, n_bootstrap, rng)
    resampled = (fitted + noise / curve.weight)[:, None, :]
    free = problem.minimise(resampled, theta)
    return profile_interval(problem, curve.y[None], theta, 0, resampled, free)

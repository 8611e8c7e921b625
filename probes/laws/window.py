"""Where on a curve a law begins to hold, by a rule that does not look at the law's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probes.curves import Curve, checked_curve, compare_laws, significant_correlation

from .estimate import DEFAULT_LAWS, checked_laws, least_points

_N_STARTS = 12


@dataclass(frozen=True)
class LawWindow:
    """The window of a curve in which one of the laws holds.

    Attributes:
        start: index of its first point; 0 if there is a ``reason``.
        window: first clock value, last clock value, decades between them.
        law: the law closest to the curve in the window. For its parameters and for the choice of a law see ``fit_law``.
        reason: why no window was found, and all points were kept; empty if one was.
        tried: index of each start that was tried, from the first point on.
        correlations: lag-one correlation of the residuals from each of them.
        thresholds: largest correlation that independent errors explain.
    """

    start: int
    window: tuple[float, float, float]
    law: str
    reason: str
    tried: tuple[int, ...]
    correlations: tuple[float, ...]
    thresholds: tuple[float, ...]


def choose_window(
    t: Float[np.ndarray, " point"] | ArrayLike,
    y: Float[np.ndarray, " point"] | ArrayLike,
    *,
    sigma: Float[np.ndarray, " point"] | ArrayLike | float | int | None = None,
    laws: Sequence[str] = DEFAULT_LAWS,
) -> LawWindow:
    """Find the longest window, up to the last point, in which one of the laws leaves nothing but noise.

    Rule: starts are tried from the first point on, twelve at even distances in points, as long as a quarter of the
    points and one decade of the clock remain. The first is taken from which the residuals of the closest law are not
    serially correlated (one-sided 1 %). A plateau before an onset, or a transient that no law describes, leaves runs
    of residuals of one sign.

    The rule asks whether *some* law fits, not which, and reads no exponent; so the fit that follows keeps its
    coverage: of 300 curves of 60 points with 2 % noise, 94 % where the law held from the start, 95 % where a plateau
    came first. What it cannot see is a transient that a law absorbs: one that only bends the start of a power law is
    taken up by its t0, and shifts the exponent.

    The errors must be independent. Correlated noise leaves no window, and the result says so.

    Args:
        t: clock, as for ``fit_law``.
        y: measured values.
        sigma: standard errors, or None.
        laws: names of the laws of which one must hold.

    Returns:
        The window; fit ``t[start:]``, ``y[start:]``.

    Raises:
        ValueError: as ``fit_law``.

    Cost:
        One comparison of the laws for each start tried: about 0.03 s of one core, most often one.
    """
    names = checked_laws(laws)
    curve = checked_curve(t, y, sigma=sigma, n_points=least_points(names))
    kept = max(least_points(names), curve.n // 4)
    starts = np.unique(np.linspace(0, curve.n - kept, _N_STARTS).astype(int))
    tried, correlations, thresholds = [], [], []
    for start in starts[curve.t[starts] <= 0.1 * curve.t[-1]].tolist():
        part = Curve(curve.t[start:], curve.y[start:], curve.weight[start:], curve.scale_known)
        if part.constant:
            break
        closest = min(compare_laws(part, names).solutions.values(), key=lambda s: s.rss)
        residuals = (part.y - closest.values(part.t)) * part.weight
        correlation, threshold = significant_correlation(residuals, closest.law.n_parameters)
        tried.append(start)
        correlations.append(correlation)
        thresholds.append(threshold)
        if correlation <= threshold:
            facts = tuple(tried), tuple(correlations), tuple(thresholds)
            return LawWindow(start, part.window, closest.law.name, "", *facts)
    reason = "no law leaves uncorrelated residuals from any start"
    if not tried:
        reason = "the curve is constant" if curve.constant else "the curve spans less than a decade"
    return LawWindow(0, curve.window, "", reason, tuple(tried), tuple(correlations), tuple(thresholds))

"""The degree of an effective potential by every route there is, and whether the routes agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from probes.curves import LEVEL

from .estimate import CONSISTENCY, EffectivePotential, llc_cross_check
from .joint import Interval

WIDEST = 2.0
"""Upper over lower end of the widest interval of a degree that counts as agreement (our choice: it tells 2 from 4)."""

_NAN = float("nan")


@dataclass(frozen=True)
class DegreeReport:
    """The degree k of ``U = U* + c x^k`` by route: "loss", "observable", "ratio" and "llc".

    Attributes:
        verdict: "agree", "disagree" or "undecided".
        reason: what disagrees, or why nothing can be said; empty if the routes agree.
        degrees: route to degree; NaN where a route gives none.
        intervals: route to 95 % interval.
        p_values: "curves": chance of loss and observable differing as much if one degree held; "llc": of the LLC
            differing as much from the curves' common degree. NaN where there is nothing to compare.
    """

    verdict: str
    reason: str
    degrees: dict[str, float]
    intervals: dict[str, Interval]
    p_values: dict[str, float]


def compare_degrees(
    potential: EffectivePotential,
    *,
    llc_value: float | int | None = None,
    llc_standard_error: float | int | None = None,
) -> DegreeReport:
    """Gather the degree of a potential by every route and say whether they agree.

    ==========  ===================================================================================
    loss        ``2 p / (p - 1)`` of the exponent p of the loss excess; 2 if it is exponential
    observable  ``2 + m / p`` of the exponent p of the observable of order m; 2 if it is exponential
    ratio       ``m p_loss / p_observable``, or of the rates: needs no onset and no law of its own
    llc         ``1 / lambda`` of what the direction adds to the learning coefficient
    ==========  ===================================================================================

    Routes disagree if a p-value is below 0.01. They agree if none is, the potential is decided, and the interval of its
    degree and that of the LLC each span less than a factor of two: wide intervals agree with anything.

    Args:
        potential: from ``fit_effective_potential``.
        llc_value: what the direction adds to the LLC, as for ``llc_cross_check``; None leaves that route out.
        llc_standard_error: its standard error.

    Returns:
        Degrees, intervals, p-values and the verdict.

    Raises:
        ValueError: only one of the LLC's value and standard error is given, or one is out of range.

    References:
        As ``fit_effective_potential`` and ``llc_cross_check``.
    """
    if (llc_value is None) != (llc_standard_error is None):
        raise ValueError(
            f"llc_value and llc_standard_error belong together; got {llc_value} and {llc_standard_error}: "
            "give both or none"
        )
    quadratic, m = potential.preferred == "exponential", potential.observable_order
    two = (2.0, (2.0, 2.0))
    routes = {
        "loss": two if quadratic else (potential.k_from_loss, potential.k_from_loss_interval),
        "observable": two if quadratic else (potential.k_from_observable, potential.k_from_observable_interval),
        "ratio": (m * potential.k_over_m, (m * potential.k_over_m_interval[0], m * potential.k_over_m_interval[1])),
        "llc": (_NAN, (_NAN, _NAN)),
    }
    p_values = {"curves": _ratio_is_two(*routes["ratio"]) if quadratic else potential.consistency_p_value, "llc": _NAN}
    if llc_value is not None and llc_standard_error is not None:
        p_values["llc"] = llc_cross_check(potential, llc_value, llc_standard_error).p_value
        routes["llc"] = _degree_of_llc(float(llc_value), float(llc_standard_error))
    verdict, reason = _verdict(potential, routes["llc"][1], p_values, with_llc=llc_value is not None)
    return DegreeReport(
        verdict, reason, {r: k for r, (k, _) in routes.items()}, {r: ends for r, (_, ends) in routes.items()}, p_values
    )


def _ratio_is_two(ratio: float, interval: Interval) -> float:
    """Two-sided p-value of a log-normal ratio against two."""
    error = float(np.log(interval[1] / interval[0])) / (2.0 * _quantile())
    return float(2.0 * ndtr(-abs(np.log(ratio / 2.0)) / error))


def _degree_of_llc(value: float, error: float) -> tuple[float, Interval]:
    """One over the learning coefficient; no upper end where zero is not excluded."""
    low, high = value - _quantile() * error, value + _quantile() * error

    def degree(coefficient: float) -> float:
        return 1.0 / coefficient if coefficient > 0 else float("inf")

    return degree(value), (degree(high), degree(low))


def _quantile() -> float:
    return float(ndtri(0.5 + LEVEL / 2.0))


def _verdict(
    potential: EffectivePotential, llc_interval: Interval, p_values: dict[str, float], *, with_llc: bool
) -> tuple[str, str]:
    if p_values["curves"] < CONSISTENCY:
        return "disagree", f"loss and observable have no common degree (p = {p_values['curves']:.2g})"
    if potential.preferred == "undecided":
        return "undecided", f"the potential is undecided: {potential.reason}"
    if p_values["llc"] < CONSISTENCY:
        return "disagree", f"the LLC has another degree than the curves (p = {p_values['llc']:.2g})"
    intervals = {"curves": potential.k_interval} | ({"llc": llc_interval} if with_llc else {})
    for route, (low, high) in intervals.items():
        if not high <= WIDEST * low:
            return "undecided", f"the degree by the {route} lies anywhere between {low:.3g} and {high:.3g}"
    return "agree", ""

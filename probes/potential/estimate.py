"""The effective potential behind a relaxation: its degree from a loss and an observable, checked against the LLC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from probes.curves import LAWS, LEVEL, WEIGHT_THRESHOLD, Comparison, Curve, checked_curve, compare_laws, law_errors

from .joint import Interval, JointFit, fit_joint

_NAN = float("nan")
_COMPARED = ("power_law", "exponential", "stretched_exponential", "logarithmic", "logistic")
CONSISTENCY = 0.01
"""Least p-value of degrees that agree (our choice)."""


@dataclass(frozen=True)
class EffectivePotential:
    """The degree k of ``U = U* + c x^k`` read from a relaxation.

    Attributes:
        preferred: "power_law" (degenerate, k > 2), "exponential" (quadratic, k = 2) or "undecided".
        reason: why it is undecided; empty if decided.
        k: the degree, from both curves together given ``observable_order``; 2 for an exponential; NaN if undecided.
        k_interval: its 95 % interval.
        loss_exponent: exponent of the loss excess, k / (k - 2); NaN unless both curves decay.
        loss_interval: its 95 % interval.
        relaxation_exponent: exponent of the observable, m / (k - 2); NaN unless both curves decay.
        relaxation_interval: its 95 % interval.
        k_over_m: ratio of the two exponents, or of the two rates for an exponential; needs no assumption on m.
        k_over_m_interval: its 95 % interval.
        k_from_loss: ``2 p / (p - 1)`` of the loss exponent p; infinite for p <= 1.
        k_from_loss_interval: its 95 % interval.
        k_from_observable: ``2 + m / p`` of the relaxation exponent p.
        k_from_observable_interval: its 95 % interval.
        observable_order: m, as given.
        t0: the common onset of the power laws.
        consistency_p_value: F test of "one k and the given m" against two free exponents.
        weights: law to weight, loss and observable together.
        window: first clock value, last clock value, decades between them.
        n_points: points of each curve.
        settings: n_bootstrap and whether standard errors were given.
    """

    preferred: str
    reason: str
    k: float
    k_interval: Interval
    loss_exponent: float
    loss_interval: Interval
    relaxation_exponent: float
    relaxation_interval: Interval
    k_over_m: float
    k_over_m_interval: Interval
    k_from_loss: float
    k_from_loss_interval: Interval
    k_from_observable: float
    k_from_observable_interval: Interval
    observable_order: float
    t0: float
    consistency_p_value: float
    weights: dict[str, float]
    window: tuple[float, float, float]
    n_points: int
    settings: dict[str, object]


@dataclass(frozen=True)
class LLCCrossCheck:
    """A potential's degree against a learning coefficient.

    Attributes:
        predicted: 1 / k of the potential; NaN if the potential is undecided.
        predicted_standard_error: half the length of its 95 % interval over 1.96.
        measured: the LLC contribution given.
        measured_standard_error: its standard error, as given.
        z: measured less predicted, over the combined standard error.
        p_value: two-sided, normal.
    """

    predicted: float
    predicted_standard_error: float
    measured: float
    measured_standard_error: float
    z: float
    p_value: float


def fit_effective_potential(
    t: Float[np.ndarray, " point"] | ArrayLike,
    loss: Float[np.ndarray, " point"] | ArrayLike,
    observable: Float[np.ndarray, " point"] | ArrayLike,
    *,
    loss_sigma: Float[np.ndarray, " point"] | ArrayLike | float | int | None = None,
    observable_sigma: Float[np.ndarray, " point"] | ArrayLike | float | int | None = None,
    observable_order: float | int = 1.0,
    n_bootstrap: int = 200,
    rng: np.random.Generator,
) -> EffectivePotential:
    """Read the degree of the potential an order parameter relaxes in from its loss and an observable.

    Gradient flow ``dx/dt = -U'(x)`` in ``U = U* + c x^k``, k > 2, gives, with one onset t0 for both::

        loss       = U* + c x^k   ~  (t - t0)^(-k / (k - 2))
        observable = q* + a x^m   ~  (t - t0)^(-m / (k - 2))

    and k = 2 gives exponentials. Both curves are fitted at once with a common t0, first with two free exponents (their
    ratio is k / m, without an assumption on m), then with one k and the given m. A potential is preferred if the
    product of the two curves' law weights (they share one law) puts 0.85 on the power law or on the exponential,
    neither curve alone prefers another, a power law spans a decade of t - t0, and one k explains both exponents
    (F test, p >= 0.01). Otherwise "undecided", which includes a plain Adam run at constant speed.

    Args:
        t: clock, positive and ascending: the summed learning rate (over 1 - momentum).
        loss: loss at each time; its excess over the fitted limit must be that of the order parameter alone.
        observable: a quantity that moves with the order parameter, such as a head score.
        loss_sigma: standard errors of the loss, or one for all; None: estimated from residuals.
        observable_sigma: standard errors of the observable, likewise.
        observable_order: m, the power of the order parameter the observable measures (our choice: 1).
        n_bootstrap: curves resampled for each interval (our choice).
        rng: source of the resampling.

    Returns:
        Exponents, their ratio, the implied degrees, and what is preferred.

    Raises:
        ValueError: as ``fit_law`` for each curve; a constant curve; observable_order not positive; n_bootstrap < 40.

    Cost:
        About 0.3 s of one core for 30 points, 0.6 s for 150.

    References:
        Closed forms: Hirsch, Smale and Devaney, separable equations; applied to training in Hitchcock et al. 2025,
        arXiv:2504.11830 (the power law; the relations above are our derivation).
    """
    if not (np.isfinite(observable_order) and observable_order > 0):
        raise ValueError(f"observable_order must be positive; got {observable_order}")
    if n_bootstrap < 40:
        raise ValueError(f"n_bootstrap must be at least 40 for a 95 % interval; got {n_bootstrap}")
    n_points = max(LAWS[name].n_parameters for name in _COMPARED) + 2
    curves = (
        checked_curve(t, loss, sigma=loss_sigma, n_points=n_points, name="loss", sigma_name="loss_sigma"),
        checked_curve(
            t, observable, sigma=observable_sigma, n_points=n_points, name="observable", sigma_name="observable_sigma"
        ),
    )
    for name, curve in zip(("loss", "observable"), curves, strict=True):
        if curve.constant:
            raise ValueError(f"{name} is constant ({curve.y[0]:g}); there is no relaxation to read")
    comparisons = tuple(compare_laws(curve, _COMPARED) for curve in curves)
    weights = _joint_weights(comparisons)
    joint = None
    if all(c.solutions["power_law"].theta[0] > 0 for c in comparisons):
        joint = fit_joint(curves, comparisons, float(observable_order), n_bootstrap, rng)
    preferred, reason = _verdict(weights, comparisons, joint)
    settings: dict[str, object] = {"n_bootstrap": n_bootstrap, "sigma_given": tuple(c.scale_known for c in curves)}
    return _record(preferred, reason, joint, curves, comparisons, float(observable_order), weights, settings)


def llc_cross_check(
    potential: EffectivePotential, llc_value: float | int, llc_standard_error: float | int
) -> LLCCrossCheck:
    """Compare 1 / k of a potential with a measured learning coefficient contribution.

    A one-dimensional direction with ``U = c x^k`` adds ``1 / k`` to the learning coefficient (1/2 if quadratic).

    Args:
        potential: from ``fit_effective_potential``.
        llc_value: what the direction adds to the LLC: a difference between checkpoints, or a restricted LLC.
        llc_standard_error: its standard error, positive.

    Returns:
        Prediction, measurement and z score; NaN where the potential is undecided.

    Raises:
        ValueError: a value is not finite or the standard error is not positive.

    References:
        Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, section 2.4 (normal crossings).
    """
    if not np.isfinite(llc_value):
        raise ValueError(f"llc_value must be finite; got {llc_value}")
    if not (np.isfinite(llc_standard_error) and llc_standard_error > 0):
        raise ValueError(f"llc_standard_error must be positive; got {llc_standard_error}")
    low, high = potential.k_interval
    error = (1.0 / low - 1.0 / high) / (2.0 * float(ndtri(0.5 + LEVEL / 2.0)))
    z = (llc_value - 1.0 / potential.k) / float(np.hypot(error, llc_standard_error))
    p_value = float(2.0 * ndtr(-abs(z)))
    return LLCCrossCheck(1.0 / potential.k, error, float(llc_value), float(llc_standard_error), z, p_value)


def _joint_weights(comparisons: tuple[Comparison, ...]) -> dict[str, float]:
    """Product of the curves' weights, normalised: the evidence for one law behind both."""
    product = np.prod([[c.weights[name] for name in _COMPARED] for c in comparisons], axis=0)
    total = product.sum()
    return dict(zip(_COMPARED, (product / total if total > 0 else np.full(len(product), _NAN)).tolist(), strict=True))


def _verdict(weights: dict[str, float], comparisons: tuple[Comparison, ...], joint: JointFit | None) -> tuple[str, str]:
    """What is preferred, and if nothing, why."""
    best = max(weights, key=lambda name: weights[name])
    others = [c.preferred for c in comparisons if c.preferred not in (best, "undecided")]
    if not weights[best] >= WEIGHT_THRESHOLD:
        return "undecided", f"the best common law, {best}, has weight {weights[best]:.2f}, below {WEIGHT_THRESHOLD:g}"
    if best not in ("power_law", "exponential"):
        return "undecided", f"the common law is {best}, which no potential x^k gives"
    if others:
        return "undecided", f"one curve alone prefers {others[0]}"
    if any(c.gain < c.needed_gain for c in comparisons):
        return "undecided", "a curve is not told from a constant"
    if best == "exponential":
        return best, ""
    if joint is None:
        return "undecided", "a power law that grows is no relaxation"
    if joint.decades < 1.0:
        return "undecided", f"a power law over {joint.decades:.2f} decades, less than one, is no evidence"
    if joint.p_value < CONSISTENCY:
        return (
            "undecided",
            f"no one degree explains both exponents (p = {joint.p_value:.2g}): another observable_order?",
        )
    return best, ""


def _rate_ratio(curves: tuple[Curve, ...], comparisons: tuple[Comparison, ...]) -> tuple[float, Interval]:
    """Rate of the loss over rate of the observable, with a normal interval of its logarithm."""
    scales, errors = [], []
    for curve, comparison in zip(curves, comparisons, strict=True):
        solution = comparison.solutions["exponential"]
        variance = max(solution.rss / (curve.n - 3), 1.0 if curve.scale_known else 0.0)
        scales.append(solution.parameters(curve.t)["T"])
        errors.append(law_errors(curve, solution, variance)["T"])
    value = scales[1] / scales[0]
    half = float(ndtri(0.5 + LEVEL / 2.0)) * float(np.hypot(errors[0] / scales[0], errors[1] / scales[1]))
    return value, (value * float(np.exp(-half)), value * float(np.exp(half)))


def _degree_from_loss(p: float) -> float:
    """``2 p / (p - 1)``, infinite for p <= 1; the limit 2 for an infinite p."""
    if p <= 1.0:
        return float("inf")
    return 2.0 if np.isinf(p) else 2.0 * p / (p - 1.0)


def _degree_from_observable(p: float, m: float) -> float:
    """``2 + m / p``; infinite for an exponent that may be zero."""
    return 2.0 + m / p if p > 0 else float("inf")


def _record(
    preferred: str,
    reason: str,
    joint: JointFit | None,
    curves: tuple[Curve, ...],
    comparisons: tuple[Comparison, ...],
    m: float,
    weights: dict[str, float],
    settings: dict[str, object],
) -> EffectivePotential:
    """Assemble the result: degrees by monotone transformation of the exponents' intervals."""
    unknown = (_NAN, _NAN)
    k, k_interval = _NAN, unknown
    p, intervals, ratio, ratio_interval, t0, p_value = unknown, (unknown, unknown), _NAN, unknown, _NAN, _NAN
    if joint is not None and preferred != "exponential":
        p, intervals, t0, p_value = joint.exponents, joint.exponent_intervals, joint.t0, joint.p_value
        ratio, ratio_interval = p[0] / p[1], joint.ratio_interval
    if preferred == "power_law" and joint is not None:
        k, k_interval = joint.k, joint.k_interval
    elif preferred == "exponential":
        k, k_interval = 2.0, (2.0, 2.0)
        ratio, ratio_interval = _rate_ratio(curves, comparisons)
    known = not np.isnan(p[0])
    return EffectivePotential(
        preferred=preferred,
        reason=reason,
        k=k,
        k_interval=k_interval,
        loss_exponent=p[0],
        loss_interval=intervals[0],
        relaxation_exponent=p[1],
        relaxation_interval=intervals[1],
        k_over_m=ratio,
        k_over_m_interval=ratio_interval,
        k_from_loss=_degree_from_loss(p[0]) if known else _NAN,
        k_from_loss_interval=(_degree_from_loss(intervals[0][1]), _degree_from_loss(intervals[0][0]))
        if known
        else unknown,
        k_from_observable=_degree_from_observable(p[1], m) if known else _NAN,
        k_from_observable_interval=(
            _degree_from_observable(intervals[1][1], m),
            _degree_from_observable(intervals[1][0], m),
        )
        if known
        else unknown,
        observable_order=m,
        t0=t0,
        consistency_p_value=p_value,
        weights=weights,
        window=curves[0].window,
        n_points=curves[0].n,
        settings=settings,
    )

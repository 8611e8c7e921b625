"""When a flat curve began to rise or fall, with an interval, or that it never did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .curves import Curve, checked_curve, lag_correlation, resampled_noise

SIGNIFICANCE = 0.01
"""Largest p-value of a found onset (our choice)."""

MIN_FLAT = 3
"""Points the flat stretch must hold for the curve to have been seen flat (our choice)."""

PROFILE_LEVEL = 0.98
"""Quantile of the interval's F statistic. Our choice, measured: real onsets are none of the eight shapes exactly. Over
ramps, relaxations, cubic steps, power laws and logistics at 5 % noise, 0.95 covered 91 %, 0.98 covers 95 %."""

_N_COARSE, _N_FINE, _N_DURATIONS = 48, 50, 14
_ROUNDING = 1e-14  # share of the sum of squares below which a residual one is rounding, and may come out negative
_N_PARAMETERS = 5  # level, onset, duration, two slopes


@dataclass(frozen=True)
class Onset:
    """When a curve began to change.

    Attributes:
        found: whether an onset was found.
        step: clock value of the onset; NaN when none was found.
        interval: 95 % interval of the onset; NaN when none was found.
        p_value: chance of as large an F statistic in a curve without change; at least 1 / (n_permutations + 1).
        reason: why none was found; empty when one was.
        direction: +1 for a rise after the onset, -1 for a fall, NaN when none was found.
        shape: the closest change after the onset, "ramp", "relaxation", "slow relaxation" or "smooth step", and its
            clock, as in "ramp in log t"; empty when none was found.
        baseline: level before the onset; NaN when none was found.
        statistic: the F statistic of change against no change; NaN for a constant curve.
        serial_correlation: lag-one correlation of the residuals, 0 if not significant.
        n_points: number of points.
        settings: n_bootstrap, n_permutations.
    """

    found: bool
    step: float
    interval: tuple[float, float]
    p_value: float
    reason: str
    direction: float
    shape: str
    baseline: float
    statistic: float
    serial_correlation: float
    n_points: int
    settings: dict[str, object]


@dataclass(frozen=True)
class _Family:
    """One kind of change after the onset, straight in t or in log t.

    Attributes:
        name: kind and clock.
        log: whether the clock is log t.
        shape: time since the onset and duration to curves ``(..., point, direction)``.
    """

    name: str
    log: bool
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _ramp(after: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Two straight lines, the second from one duration on and of free slope."""
    return np.stack(np.broadcast_arrays(after, np.maximum(after - duration, 0.0)), axis=-1)


def _relaxation(after: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Exponential approach; a duration is three time constants."""
    return -np.expm1(-3.0 * after / duration)[..., None]


def _slow_relaxation(after: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Hyperbolic approach, the tail of a power law; a duration is three time constants."""
    scaled = 3.0 * after / duration
    return (scaled / (1.0 + scaled))[..., None]


def _smooth_step(after: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Cubic step with zero slope at both ends."""
    u = np.minimum(after / duration, 1.0)
    return (u * u * (3.0 - 2.0 * u))[..., None]


_FAMILIES = tuple(
    _Family(f"{kind} in {'log t' if log else 't'}", log, shape)
    for log in (False, True)
    for kind, shape in (
        ("ramp", _ramp),
        ("relaxation", _relaxation),
        ("slow relaxation", _slow_relaxation),
        ("smooth step", _smooth_step),
    )
)


@dataclass(frozen=True)
class _Grid:
    """Candidate onsets and, for each family, durations; with the orthonormal directions of the shapes.

    Attributes:
        onsets: clock values ``(onset,)``.
        durations: by family, ``(duration,)`` in its clock.
        directions: by family, ``(onset, duration, point, direction)``, orthogonal to the constant.
    """

    onsets: np.ndarray
    durations: tuple[np.ndarray, ...]
    directions: tuple[np.ndarray, ...]

    @classmethod
    def build(cls, t: np.ndarray, onsets: np.ndarray, durations: tuple[np.ndarray, ...]) -> _Grid:
        directions = []
        for family, lasting in zip(_FAMILIES, durations, strict=True):
            x, start = (np.log(t), np.log(onsets)) if family.log else (t, onsets)
            after = np.maximum(x - start[:, None], 0.0)[:, None, :]  # (onset, 1, point)
            directions.append(_orthonormal(family.shape(after, lasting[:, None])))
        return cls(onsets, durations, tuple(directions))

    def profiles(self, y: np.ndarray) -> np.ndarray:
        """Least residual sum of squares over durations, ``(family, curve, onset)`` from ``(curve, point)``."""
        return np.stack([_rss(y, directions).min(axis=-1) for directions in self.directions])

    def fit(self, y: np.ndarray) -> tuple[int, int, np.ndarray]:
        """Family, onset index and fitted values ``(point,)`` of the closest shape to one curve."""
        rss = self.profiles(y[None])[:, 0]
        family, onset = (int(i) for i in np.unravel_index(rss.argmin(), rss.shape))
        directions = self.directions[family][onset]
        along = np.einsum("p,epd->ed", y - y.mean(), directions)
        end = int((along**2).sum(axis=-1).argmax())
        return family, onset, y.mean() + directions[end] @ along[end]


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Center ``(..., point, direction)`` and make its directions orthonormal; a vanishing one becomes zero."""
    columns = columns - columns.mean(axis=-2, keepdims=True)
    result = np.zeros_like(columns)
    for d in range(columns.shape[-1]):
        column = columns[..., d]
        size = np.linalg.norm(column, axis=-1, keepdims=True)
        for earlier in range(d):
            other = result[..., earlier]
            column = column - other * (column * other).sum(axis=-1, keepdims=True)
        norm = np.linalg.norm(column, axis=-1, keepdims=True)
        result[..., d] = np.where(norm > 1e-7 * size, column / np.maximum(norm, 1e-300), 0.0)
    return result


def _rss(y: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Residual sum of squares of each curve at each shape, ``(curve, onset, duration)``."""
    y = y - y.mean(axis=-1, keepdims=True)
    total = (y**2).sum(axis=-1)
    explained = np.empty((len(y), *directions.shape[:2]))
    for i, block in enumerate(directions):  # (duration, point, direction)
        along = (y @ block.transpose(1, 0, 2).reshape(block.shape[1], -1)).reshape(len(y), len(block), -1)
        explained[:, i] = (along**2).sum(axis=-1)
    return np.maximum(total[:, None, None] - explained, _ROUNDING * total[:, None, None])


def _coarse_grid(t: np.ndarray) -> _Grid:
    """Onsets over the points' indices, two a gap or 48 at most, to four points short of the end; all durations."""
    last = len(t) - 4
    onsets = np.interp(np.linspace(0.0, last, min(2 * last + 1, _N_COARSE)), np.arange(len(t)), t)
    spans = (np.ptp(np.log(t)) if family.log else np.ptp(t) for family in _FAMILIES)
    return _Grid.build(t, onsets, tuple(span * np.geomspace(0.02, 2.0, _N_DURATIONS) for span in spans))


def _fine_grid(t: np.ndarray, y: np.ndarray, coarse: _Grid, freedom: int) -> _Grid:
    """Onsets and durations around those of the coarse grid that the data may still prefer (F below 25)."""
    rss = np.stack([_rss(y[None], directions)[0] for directions in coarse.directions])  # (family, onset, duration)
    plausible = rss <= rss.min() * (1.0 + 25.0 / freedom)
    first, last = _extent(plausible.any(axis=(0, 2)), len(coarse.onsets))
    onsets = np.interp(np.linspace(first, last, _N_FINE), np.arange(len(coarse.onsets)), coarse.onsets)
    durations = []
    for family, lasting in enumerate(coarse.durations):
        best = rss[family] <= max(rss.min() * (1.0 + 25.0 / freedom), rss[family].min())
        low, high = _extent(best.any(axis=0), len(lasting))
        durations.append(np.geomspace(lasting[low], lasting[high], _N_DURATIONS))
    return _Grid.build(t, onsets, tuple(durations))


def _extent(chosen: np.ndarray, n: int) -> tuple[int, int]:
    """First and last chosen index, widened by one."""
    inside = np.flatnonzero(chosen)
    return max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 1, n - 1)


def _refined(onsets: np.ndarray, rss: np.ndarray, best: int) -> float:
    """Minimum of the parabola through the best candidate and its neighbors."""
    if not 0 < best < len(onsets) - 1:
        return float(onsets[best])
    before, here, after = rss[best - 1 : best + 2]
    bend = before - 2.0 * here + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(np.interp(best + shift, np.arange(len(onsets)), onsets))


def _interval(onsets: np.ndarray, excess: np.ndarray) -> tuple[float, float]:
    """Ends of the accepted onsets, interpolated to where the excess passes zero."""
    inside = np.flatnonzero(excess <= 0)
    ends = []
    for i, direction in ((inside[0], -1), (inside[-1], +1)):
        j = i + direction
        if not 0 <= j < len(onsets):
            ends.append(float(onsets[i]))
            continue
        share = excess[j] / (excess[j] - excess[i]) if excess[j] > excess[i] else 0.0
        ends.append(float(onsets[j] + share * (onsets[i] - onsets[j])))
    return ends[0], ends[1]


def detect_onset(
    t: Float[np.ndarray, " point"] | ArrayLike,
    y: Float[np.ndarray, " point"] | ArrayLike,
    *,
    n_bootstrap: int = 300,
    n_permutations: int = 499,
    rng: np.random.Generator,
) -> Onset:
    """Find when a flat curve began to rise or fall.

    The onset is the start of the least squares curve that is constant up to it and then one of

    * a ramp that may turn once into another straight line (a plateau, say),
    * a relaxation ``1 - exp(-(x - onset) / w)``, or a slow one ``1 - 1 / (1 + (x - onset) / w)``,
    * a cubic step ``3 u^2 - 2 u^3``, which starts and ends with zero slope,

    with x either t or log t. The closest of the eight counts, and the interval allows for all. So a curve that is
    exactly flat up to some time has its onset there, whether it then leaves with a kink or smoothly. A logistic is
    never exactly flat: its onset is the start of the cubic step closest to it, 3.52 widths before its middle, where it
    has made 2.9 % of its rise.

    p-value: the F statistic of the closest family against a constant, compared with its values on permuted curves
    (or, if the residuals are serially correlated, on first-order autoregressive noise like them). No onset is found
    if it exceeds 0.01, or if the curve was already changing within its first three points.

    Interval: the onsets whose residual sum of squares exceeds the least by no more than the 98 % quantile of that
    excess at the fitted onset over curves resampled from the fit; 98 to cover 95 % of shapes that are not exactly ours.

    Args:
        t: clock or step, positive and ascending.
        y: measured values.
        n_bootstrap: resampled curves for the interval (our choice).
        n_permutations: permuted curves for the p-value (our choice: the smallest p-value is 0.002).
        rng: source of both.

    Returns:
        The onset, or why there is none.

    Raises:
        ValueError: t or y hold NaN, differ in length, are not ordered or not positive; fewer than 10 points;
            n_bootstrap < 40 or n_permutations < 99.

    Cost:
        About 0.1 s of one core for 30 points, 0.2 s for 150, 1 s and 100 MB for 1000.

    References:
        Hinkley 1971, doi:10.1093/biomet/58.3.495 (two-phase regression). Davison and Hinkley 1997, section 5.4
        (bootstrap-calibrated intervals). The families and the definition for sigmoids are our choice.
    """
    if n_bootstrap < 40:
        raise ValueError(f"n_bootstrap must be at least 40 for a 95 % interval; got {n_bootstrap}")
    if n_permutations < 99:
        raise ValueError(f"n_permutations must be at least 99 for a p-value of 0.01; got {n_permutations}")
    curve = checked_curve(t, y, n_points=10)
    settings: dict[str, object] = {"n_bootstrap": n_bootstrap, "n_permutations": n_permutations}
    if curve.constant:
        return _none(curve, 1.0, "the curve is constant", settings)
    coarse = _coarse_grid(curve.t)
    freedom = curve.n - _N_PARAMETERS
    _, start, fitted = coarse.fit(curve.y)
    rho = lag_correlation(curve.y - fitted, _N_PARAMETERS)
    statistic = float(_explained(curve.y[None], coarse)[0])
    if rho:
        null = resampled_noise(curve.y - fitted, rho, _N_PARAMETERS, n_permutations, rng)
    else:
        null = rng.permuted(np.tile(curve.y, (n_permutations, 1)), axis=1)
    p_value = float((1 + (_explained(null, coarse) >= statistic).sum()) / (1 + n_permutations))
    if p_value > SIGNIFICANCE:
        return _none(curve, p_value, f"p = {p_value:.3g} against no change", settings, statistic, rho)
    if coarse.onsets[start] < curve.t[MIN_FLAT - 1]:
        return _none(curve, p_value, "already changing within the first three points", settings, statistic, rho)
    fine = _fine_grid(curve.t, curve.y, coarse, freedom)
    family, best, fitted = fine.fit(curve.y)
    profile = fine.profiles(curve.y[None])[:, 0].min(axis=0)
    resampled = fitted + resampled_noise(curve.y - fitted, rho, _N_PARAMETERS, n_bootstrap, rng)
    drawn = fine.profiles(resampled).min(axis=0)  # (resample, onset)
    critical = float(np.quantile(_excess(drawn, freedom)[:, best], PROFILE_LEVEL, method="higher"))
    interval = _interval(fine.onsets, _excess(profile[None], freedom)[0] - critical)
    step = float(np.clip(_refined(fine.onsets, profile, best), *interval))
    before, after = curve.y[curve.t <= step], fitted[curve.t > step]
    return Onset(
        found=True,
        step=step,
        interval=interval,
        p_value=p_value,
        reason="",
        direction=float(np.sign(after[0] - fitted[0])),
        shape=_FAMILIES[family].name,
        baseline=float(before.mean()),
        statistic=statistic,
        serial_correlation=rho,
        n_points=curve.n,
        settings=settings,
    )


def _explained(y: np.ndarray, grid: _Grid) -> np.ndarray:
    """Explained over unexplained sum of squares of each curve ``(curve, point)``, at its closest shape."""
    total = ((y - y.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    rss = np.maximum(grid.profiles(y).min(axis=(0, 2)), 1e-300)
    return (total - rss) / rss


def _excess(rss: np.ndarray, freedom: int) -> np.ndarray:
    """F statistic of each onset against the best, ``(curve, onset)``."""
    least = np.maximum(rss.min(axis=1, keepdims=True), 1e-300)
    return (rss - least) / least * freedom


def _none(
    curve: Curve,
    p_value: float,
    reason: str,
    settings: dict[str, object],
    statistic: float = float("nan"),
    rho: float = 0.0,
) -> Onset:
    """The answer that no onset was found."""
    nan = float("nan")
    return Onset(False, nan, (nan, nan), p_value, reason, nan, "", nan, float(statistic), rho, curve.n, settings)

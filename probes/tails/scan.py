"""Power-law tails by maximum likelihood, the tail's begin by least Kolmogorov-Smirnov distance; and draws from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import zeta

_STRIDE = 16
_LARGEST_ALPHA = 60.0
_TABLE = 10_000


@dataclass(frozen=True)
class Tail:
    """A power law fitted above a threshold.

    Attributes:
        xmin: where the tail begins.
        alpha: exponent of the density ``x^-alpha``.
        distance: largest distance between the distribution functions of the tail's samples and of the law.
        n_tail: number of samples at or above ``xmin``.
    """

    xmin: float
    alpha: float
    distance: float
    n_tail: int


def scan_tail(samples: np.ndarray, *, discrete: bool, xmin: float | None, min_tail: int) -> Tail | None:
    """Fit the tail above ``xmin``, or above the sample value whose tail lies closest to its power law.

    Args:
        samples: positive values ``(sample,)``.
        discrete: whether they are whole numbers.
        xmin: a given threshold; None scans the sample values.
        min_tail: fewest samples of a tail that is tried.

    Returns:
        The tail; None if no candidate leaves ``min_tail`` samples with two distinct values.
    """
    values, counts = np.unique(samples if xmin is None else samples[samples >= xmin], return_counts=True)
    above = np.cumsum(counts[::-1])[::-1]
    n_candidates = min(int(np.searchsorted(-above, -min_tail, side="right")), len(values) - 1)
    if n_candidates < 1:
        return None
    if xmin is not None:
        n_candidates, begin = 1, np.ceil(xmin) if discrete else xmin
        if values[0] > begin:  # the law begins at xmin, where no sample need lie
            values, above, counts = np.append(begin, values), np.append(above[0], above), np.append(0, counts)
    best, alpha, distance = (_scan_discrete if discrete else _scan_continuous)(values, counts, above, n_candidates)
    return Tail(float(values[best]), alpha, distance, int(above[best]))


def _mean_log_excess(log: np.ndarray, counts: np.ndarray, above: np.ndarray, n: int) -> np.ndarray:
    """Mean of ``log(x / xmin)`` above each of the first n values."""
    return np.cumsum((counts * log)[::-1])[::-1][:n] / above[:n] - log[:n]


def _scan_continuous(
    values: np.ndarray, counts: np.ndarray, above: np.ndarray, n_candidates: int
) -> tuple[int, float, float]:
    """Index, exponent and distance of the best threshold.

    Each candidate's distance is bounded from below on every 16th point; only those whose bound lies below the least
    distance found so far are computed in full, so the answer is that of the full scan.
    """
    log = np.log(values)
    rate = 1.0 / _mean_log_excess(log, counts, above, n_candidates)

    some = np.arange(0, len(values), _STRIDE)
    beyond = np.minimum(log[:n_candidates, None] - log[some], 0.0) * rate[:, None]
    gap = np.abs(np.exp(beyond) - np.minimum(above[some] / above[:n_candidates, None], 1.0))
    bound = gap.max(axis=1)  # points below the candidate have both functions at one
    best, least = -1, np.inf
    for i in np.argsort(bound):
        if bound[i] > least:
            break
        found = float(np.abs(np.exp(rate[i] * (log[i] - log[i:])) - above[i:] / above[i]).max())
        if found < least:
            best, least = int(i), found
    return best, 1.0 + float(rate[best]), least


def _scan_discrete(
    values: np.ndarray, counts: np.ndarray, above: np.ndarray, n_candidates: int
) -> tuple[int, float, float]:
    """Index, exponent and distance of the best threshold, by the zeta distribution."""
    excess = _mean_log_excess(np.log(values), counts, above, n_candidates)
    alphas = discrete_exponent(values[:n_candidates], excess)
    beyond = np.append(above[1:], 0)  # samples above each value
    distances = np.empty(n_candidates)
    for i, alpha in enumerate(alphas):
        whole = zeta(alpha, values[i])
        # both functions are steps: they part most just before or at a sample value
        before = np.abs(zeta(alpha, values[i:]) / whole - above[i:] / above[i]).max()
        after = np.abs(zeta(alpha, values[i:] + 1.0) / whole - beyond[i:] / above[i]).max()
        distances[i] = max(before, after)
    best = int(distances.argmin())
    return best, float(alphas[best]), float(distances[best])


def discrete_exponent(xmin: np.ndarray, mean_log_excess: np.ndarray) -> np.ndarray:
    """Maximum likelihood exponents of zeta distributions from xmin, by Newton's method in ``log(alpha - 1)``."""
    step = 1e-4
    highest = np.log(_LARGEST_ALPHA - 1.0)
    u = np.log(np.minimum(1.0 / (mean_log_excess + np.log(xmin / (xmin - 0.5))), _LARGEST_ALPHA - 2.0))

    def objective(u: np.ndarray) -> np.ndarray:
        alpha = 1.0 + np.exp(u)
        return np.log(zeta(alpha, xmin)) + alpha * (np.log(xmin) + mean_log_excess)

    for _ in range(12):
        low, here, high = (objective(u + shift) for shift in (-step, 0.0, step))
        slope, bend = (high - low) / (2.0 * step), (high - 2.0 * here + low) / step**2
        u = np.minimum(u - np.clip(slope / np.maximum(np.abs(bend), 1e-12), -1.0, 1.0), highest)
    return 1.0 + np.exp(u)


def draw_tail(tail: Tail, n: int, *, discrete: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw n values of the fitted power law."""
    left = 1.0 - rng.random(n)  # in (0, 1]: the share of the law above the draw
    if not discrete:
        return tail.xmin * left ** (-1.0 / (tail.alpha - 1.0))
    table = tail.xmin + np.arange(_TABLE)
    share = zeta(tail.alpha, table) / zeta(tail.alpha, tail.xmin)  # falls from one
    draws = tail.xmin + np.searchsorted(-share, -left, side="right") - 1.0
    far = draws >= table[-1]  # beyond the table the sum over the law is its integral, to 1e-4 of the gaps
    ratio = (left[far] / share[-1]) ** (-1.0 / (tail.alpha - 1.0))
    draws[far] = np.floor((table[-1] - 0.5) * ratio + 0.5)
    return draws

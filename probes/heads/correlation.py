"""Correlation over pairs, of values and of ranks, and what each pair adds to it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

ROUNDING = 1e-12
"""Relative differences of attention below this are not data."""


def pearson(a: Float[np.ndarray, " pair"], b: Float[np.ndarray, " pair"]) -> tuple[float, Float[np.ndarray, " pair"]]:
    """Correlation coefficient and its influence; NaN if one of the two does not vary (but for rounding)."""
    if any(np.ptp(x) <= ROUNDING * np.abs(x).max() for x in (a, b)):
        return float("nan"), np.full(len(a), np.nan)
    a, b = (x - x.mean() for x in (a, b))
    a, b = (x / np.sqrt((x * x).mean()) for x in (a, b))
    value = float((a * b).mean())
    return value, (a * b - value * (a * a + b * b) / 2) / len(a)


def spearman(a: Float[np.ndarray, " pair"], b: Float[np.ndarray, " pair"]) -> tuple[float, Float[np.ndarray, " pair"]]:
    """The same between ranks, ties halfway; a pair also moves the ranks of those above it."""
    (u, of_a), (v, of_b) = _ranks(a), _ranks(b)
    if not (u.any() and v.any()):
        return float("nan"), np.full(len(a), np.nan)
    su, sv = np.sqrt((u * u).mean()), np.sqrt((v * v).mean())
    value = float((u * v).mean() / (su * sv))
    along = u * v + _mean_above(of_a, v) + _mean_above(of_b, u)
    width_a, width_b = u * u + 2 * _mean_above(of_a, u), v * v + 2 * _mean_above(of_b, v)
    influence = along / (su * sv) - value * (width_a / su**2 + width_b / sv**2) / 2
    return value, (influence - influence.mean()) / len(a)


def _ranks(x: Float[np.ndarray, " pair"]) -> tuple[Float[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Share of the values below (ties half), about its mean, and the number of each value among the distinct ones."""
    _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2) / len(x) - 0.5)[index], index


def _mean_above(index: Int[np.ndarray, " pair"], y: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Sum of y over the pairs that rank above (ties half), over all pairs."""
    totals = np.bincount(index, weights=y)
    return ((np.cumsum(totals[::-1])[::-1] - totals / 2) / len(y))[index]

"""Attention against distance: the radius score, the radial function, the connected correlation and its length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats

from .pairs import Groups, Pairs, Pattern, binned_sums, checked_pattern, error_of_sum, others


@dataclass(frozen=True)
class RadiusScore:
    """Attention that falls within a radius, beside what uniform attention would put there.

    Attributes:
        score: mean over queries of the attention to others nearer than ``radius``.
        chance: the same if each query spread the attention it gives to others evenly over them.
        excess: (score - chance) / (1 - chance).
        standard_error: of the excess, from groups of scenes.
        radius: in the units of the distances.
    """

    score: Float[np.ndarray, " head"]
    chance: Float[np.ndarray, " head"]
    excess: Float[np.ndarray, " head"]
    standard_error: Float[np.ndarray, " head"]
    radius: float


@dataclass(frozen=True)
class RadialAttention:
    """Attention against distance.

    Attributes:
        edges: bin edges of the distance.
        g: mean attention of pairs in a bin times (particles - 1): 1 for uniform attention, NaN in an empty bin.
        standard_error: of ``g``, from groups of scenes.
        n_pairs: ordered pairs in each bin.
    """

    edges: Float[np.ndarray, " edge"]
    g: Float[np.ndarray, "head bin"]
    standard_error: Float[np.ndarray, "head bin"]
    n_pairs: Int[np.ndarray, " bin"]

    @property
    def centers(self) -> Float[np.ndarray, " bin"]:
        """Middle of each bin."""
        return (self.edges[1:] + self.edges[:-1]) / 2


@dataclass(frozen=True)
class DistanceCorrelation:
    """The connected attention-distance correlation and its length.

    Attributes:
        edges: bin edges of the distance.
        connected: mean attention at a distance minus mean attention, C(r); NaN in an empty bin.
        standard_error: of ``connected``, from groups of scenes.
        pearson: correlation over pairs of attention with distance; negative where the near are preferred.
        spearman: the same between ranks.
        length: xi of the fit C(r) = a exp(-r / xi) + c; NaN where C does not decay or the fit is unresolved.
        length_standard_error: from the curvature of the fit.
    """

    edges: Float[np.ndarray, " edge"]
    connected: Float[np.ndarray, "head bin"]
    standard_error: Float[np.ndarray, "head bin"]
    pearson: Float[np.ndarray, " head"]
    spearman: Float[np.ndarray, " head"]
    length: Float[np.ndarray, " head"]
    length_standard_error: Float[np.ndarray, " head"]


def radius_score(pattern: Pattern, distances: Pairs, *, radius: float, groups: Groups | None = None) -> RadiusScore:
    """Attention to the particles within a radius, and its excess over uniform attention.

    The score of arXiv 2504.11830 as we understand it from public summaries; its radius, and whether a particle's
    attention to itself counts, are not known. Here it does not count.

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair.
        radius: in the units of ``distances``.
        groups: label of the independent unit each scene belongs to.

    Raises:
        ValueError: shapes that disagree, NaN, or a radius that is not positive.
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    attention, pairs = checked_pattern(pattern, distances, "distances"), others(distances.shape[-1])
    near = (distances < radius) & pairs
    score = (attention * near[:, None]).sum(-1).mean(-1)
    share = near.sum(-1) / (distances.shape[-1] - 1)
    chance = ((attention * pairs).sum(-1) * share[:, None]).mean(-1)
    mean_score, mean_chance = score.mean(0), chance.mean(0)
    room = np.where(mean_chance < 1, 1 - mean_chance, np.nan)  # all within the radius: no room for an excess
    excess = (mean_score - mean_chance) / room
    influence = (score - chance - excess * (1 - chance)) / room / len(score)
    return RadiusScore(mean_score, mean_chance, excess, error_of_sum(influence, groups), float(radius))


def radial_attention(
    pattern: Pattern, distances: Pairs, *, edges: Float[np.ndarray, " edge"], groups: Groups | None = None
) -> RadialAttention:
    """Mean attention against distance, g(r) = <A | r> (particles - 1): the pair distribution's analogue.

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair, any unit; surfaces or centres.
        edges: ascending bin edges; pairs outside are left out.
        groups: label of the independent unit each scene belongs to.
    """
    attention = checked_pattern(pattern, distances, "distances")
    sums, counts = binned_sums(attention, distances, edges)
    total = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / total
        error = error_of_sum(np.nan_to_num(sums - mean * counts[:, None]), groups) / total
    n_others = distances.shape[-1] - 1
    error = np.where(total > 0, error, np.nan)
    return RadialAttention(np.asarray(edges, dtype=np.float64), mean * n_others, error * n_others, total.astype(int))


def distance_correlation(
    pattern: Pattern, distances: Pairs, *, edges: Float[np.ndarray, " edge"], groups: Groups | None = None
) -> DistanceCorrelation:
    """The connected function C(r) = <A | r> - <A> and its correlation length.

    Named after arXiv 2504.11830, whose exact formula is not public; this is the connected correlation of statistical
    mechanics. The offset c of the fit a exp(-r / xi) + c is needed because C averages to zero over pairs.

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair.
        edges: ascending bin edges.
        groups: label of the independent unit each scene belongs to.
    """
    radial = radial_attention(pattern, distances, edges=edges, groups=groups)
    pairs, n_others = others(distances.shape[-1]), distances.shape[-1] - 1
    attention = pattern[:, :, pairs].transpose(1, 0, 2).reshape(pattern.shape[1], -1).astype(np.float64)
    distance = distances[:, pairs].ravel()
    connected = radial.g / n_others - attention.mean(axis=1, keepdims=True)
    error = radial.standard_error / n_others
    distance_ranks = stats.rankdata(distance)
    lengths = np.array([_decay_length(radial.centers, c, e) for c, e in zip(connected, error, strict=True)])
    return DistanceCorrelation(
        edges=radial.edges,
        connected=connected,
        standard_error=error,
        pearson=np.array([_pearson(a, distance) for a in attention]),
        spearman=np.array([_pearson(stats.rankdata(a), distance_ranks) for a in attention]),
        length=lengths[:, 0],
        length_standard_error=lengths[:, 1],
    )


def _pearson(a: Float[np.ndarray, " pair"], b: Float[np.ndarray, " pair"]) -> float:
    """Correlation coefficient; NaN if one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _decay_length(
    r: Float[np.ndarray, " bin"], connected: Float[np.ndarray, " bin"], error: Float[np.ndarray, " bin"]
) -> tuple[float, float]:
    """Fit a exp(-r / xi) + c from the peak outward; NaN where nothing decays or the data do not say how fast."""
    known = np.isfinite(connected) & (error > 0)
    r, c, e = r[known], connected[known], error[known]
    if len(r) < 5:
        return np.nan, np.nan
    span, peak = r[-1] - r[0], int(np.argmax(c))  # inside the contact distance pairs are few; decay begins at the peak
    r, c, e = r[peak:] - r[peak], c[peak:], e[peak:]
    if len(r) < 4:
        return np.nan, np.nan

    def residuals(p: np.ndarray) -> np.ndarray:
        return (p[0] * np.exp(-r / np.exp(p[1])) + p[2] - c) / e

    fit = optimize.least_squares(
        residuals,
        (c[0] - c[-1], np.log(span / 5), c[-1]),
        x_scale=(max(c[0] - c[-1], 1e-12), 1.0, max(abs(c[-1]), 1e-12)),
        bounds=([-np.inf, np.log(span) - 10, -np.inf], [np.inf, np.log(span) + 3, np.inf]),
    )
    relative = np.sqrt(np.linalg.pinv(fit.jac.T @ fit.jac)[1, 1])
    xi = float(np.exp(fit.x[1]))
    resolved = fit.success and fit.x[0] > 0 and xi < span and 0 < relative < 1
    return (xi, xi * relative) if resolved else (np.nan, np.nan)

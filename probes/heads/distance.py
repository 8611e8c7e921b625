"""Attention against distance: the radius score, the radial function, the connected correlation and its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..groups import Groups, correlation_interval, error_of_sum, interval, student_quantile
from .correlation import ROUNDING, pearson, spearman
from .pairs import Pairs, Pattern, binned_sums, checked_pattern, others

RESOLVED = 2.0
"""Standard errors that the length of a decay must be above zero, our choice: noise alone then passes for
a decay in fewer than 1 case of 100 (20 bins, 90 scenes of 10 particles)."""


@dataclass(frozen=True)
class RadiusScore:
    """Attention that falls within a radius, beside what uniform attention would put there.

    Attributes:
        score: mean over queries of the attention to others nearer than ``radius``.
        chance: the same if each query spread the attention it gives to others evenly over them.
        excess: (score - chance) / (1 - chance); 0 for uniform attention, NaN if all particles are within the radius.
        standard_error: of the excess, from groups of scenes.
        interval: 95 % of the excess, Student's t (groups - 1); shape (head, 2), NaN for a single group.
        radius: in the units of the distances.
    """

    score: Float[np.ndarray, " head"]
    chance: Float[np.ndarray, " head"]
    excess: Float[np.ndarray, " head"]
    standard_error: Float[np.ndarray, " head"]
    interval: Float[np.ndarray, "head 2"]
    radius: float


@dataclass(frozen=True)
class RadialAttention:
    """Attention against distance.

    Attributes:
        edges: bin edges of the distance.
        g: mean attention of pairs in a bin over that of all pairs; NaN in an empty bin.
        standard_error: of ``g``, from groups of scenes.
        interval: 95 % of ``g``, Student's t (groups - 1); shape (head, bin, 2).
        n_pairs: ordered pairs in each bin, over all scenes.
    """

    edges: Float[np.ndarray, " edge"]
    g: Float[np.ndarray, "head bin"]
    standard_error: Float[np.ndarray, "head bin"]
    interval: Float[np.ndarray, "head bin 2"]
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
        interval: 95 % of ``connected``, Student's t (groups - 1); shape (head, bin, 2).
        pearson: correlation over pairs of attention with distance; negative where the near are preferred.
        pearson_interval: 95 % over groups of scenes, symmetric on Fisher's scale; shape (head, 2).
        spearman: the same between ranks.
        spearman_interval: the same for it.
        length: xi of the fit C(r) = a exp(-r / xi) + c; NaN where C does not decay or the fit is unresolved.
        length_standard_error: the scatter of groups of scenes carried through the fit.
        length_interval: 95 %, Student's t (groups - 1) on the log of the length; shape (head, 2).
    """

    edges: Float[np.ndarray, " edge"]
    connected: Float[np.ndarray, "head bin"]
    standard_error: Float[np.ndarray, "head bin"]
    interval: Float[np.ndarray, "head bin 2"]
    pearson: Float[np.ndarray, " head"]
    pearson_interval: Float[np.ndarray, "head 2"]
    spearman: Float[np.ndarray, " head"]
    spearman_interval: Float[np.ndarray, "head 2"]
    length: Float[np.ndarray, " head"]
    length_standard_error: Float[np.ndarray, " head"]
    length_interval: Float[np.ndarray, "head 2"]

    @property
    def centers(self) -> Float[np.ndarray, " bin"]:
        """Middle of each bin."""
        return (self.edges[1:] + self.edges[:-1]) / 2


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
    room = np.where(mean_chance < 1 - ROUNDING, 1 - mean_chance, np.nan)  # all within the radius: no room for an excess
    excess = (mean_score - mean_chance) / room
    influence = (score - chance - excess * (1 - chance)) / room / len(score)
    error, ends = error_of_sum(influence, groups), interval(excess, influence, groups)
    return RadiusScore(mean_score, mean_chance, excess, error, ends, float(radius))


def radial_attention(
    pattern: Pattern, distances: Pairs, *, edges: Float[np.ndarray, " edge"], groups: Groups | None = None
) -> RadialAttention:
    """Mean attention against distance, g(r) = <A | r> / <A>: the analogue of the pair distribution.

    It is 1 for uniform attention, whatever part of it a particle keeps to itself. Where it keeps none,
    <A> = 1 / (particles - 1).

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair, any unit; surfaces or centres.
        edges: ascending bin edges; pairs outside are left out of g (a pair at the last edge is outside).
        groups: label of the independent unit each scene belongs to.

    Raises:
        ValueError: shapes that disagree, NaN, or edges that do not ascend.
    """
    means = _binned_means(checked_pattern(pattern, distances, "distances"), distances, edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        g = means.in_bin / means.overall
        influence = (means.in_bin_influence - g * means.overall_influence) / means.overall
    error, ends = error_of_sum(influence, groups), interval(g, influence, groups)
    return RadialAttention(np.asarray(edges, dtype=np.float64), g, error, ends, means.n_pairs)


def distance_correlation(
    pattern: Pattern, distances: Pairs, *, edges: Float[np.ndarray, " edge"], groups: Groups | None = None
) -> DistanceCorrelation:
    """The connected function C(r) = <A | r> - <A> and its correlation length.

    Named after arXiv 2504.11830, whose exact formula is not public; this is the connected correlation of statistical
    mechanics. The offset c of the fit a exp(-r / xi) + c is needed because C averages to zero over pairs.

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair.
        edges: ascending bin edges; the fit needs at least five bins that hold pairs.
        groups: label of the independent unit each scene belongs to.

    Raises:
        ValueError: shapes that disagree, NaN, or edges that do not ascend.

    Cost: a sort of the pairs a head (for the ranks), a least-squares fit of three parameters a head.
    """
    attention = checked_pattern(pattern, distances, "distances")
    means = _binned_means(attention, distances, edges)
    connected = means.in_bin - means.overall
    influence = means.in_bin_influence - means.overall_influence
    error = error_of_sum(influence, groups)
    pairs = others(distances.shape[-1])
    distance = distances[:, pairs].ravel()
    in_range = distance[(edges[0] <= distance) & (distance < edges[-1])]
    with np.errstate(invalid="ignore"):  # the middle of a bin would do but for its slope in pair density
        r = np.histogram(in_range, edges, weights=in_range)[0] / means.n_pairs
    lengths = np.array(
        [
            _decay_length(
                r, connected[head], error[head], influence[:, head], groups, ROUNDING * abs(means.overall[head, 0])
            )
            for head in range(attention.shape[1])
        ]
    )
    of_pairs = attention[:, :, pairs].transpose(1, 0, 2).reshape(attention.shape[1], -1)
    (linear, linear_ends), (of_ranks, rank_ends) = (
        _over_pairs(measure, of_pairs, distance, len(attention), groups) for measure in (pearson, spearman)
    )
    half = student_quantile(groups, len(attention)) * lengths[:, 1] / lengths[:, 0]
    return DistanceCorrelation(
        edges=np.asarray(edges, dtype=np.float64),
        connected=connected,
        standard_error=error,
        interval=interval(connected, influence, groups),
        pearson=linear,
        pearson_interval=linear_ends,
        spearman=of_ranks,
        spearman_interval=rank_ends,
        length=lengths[:, 0],
        length_standard_error=lengths[:, 1],
        length_interval=lengths[:, :1] * np.exp(np.stack([-half, half], axis=-1)),
    )


def _over_pairs(
    measure: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]],
    of_pairs: Float[np.ndarray, "head scene_pair"],
    distance: Float[np.ndarray, " scene_pair"],
    n_scenes: int,
    groups: Groups | None,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, "head 2"]]:
    """A correlation of each head, with its interval."""
    found = [measure(a, distance) for a in of_pairs]
    value = np.array([v for v, _ in found])
    of_scene = np.array([influence.reshape(n_scenes, -1).sum(axis=-1) for _, influence in found]).T
    return value, correlation_interval(value, of_scene, groups)


@dataclass(frozen=True)
class _BinnedMeans:
    """Mean attention in each bin and over all pairs, and what each scene adds to the deviation of these means."""

    in_bin: Float[np.ndarray, "head bin"]
    overall: Float[np.ndarray, "head 1"]
    in_bin_influence: Float[np.ndarray, "scene head bin"]
    overall_influence: Float[np.ndarray, "scene head 1"]
    n_pairs: Int[np.ndarray, " bin"]


def _binned_means(attention: np.ndarray, distances: np.ndarray, edges: np.ndarray) -> _BinnedMeans:
    sums, counts = binned_sums(attention, distances, edges)
    total = counts.sum(axis=0)
    per_scene = attention.sum(axis=(-2, -1))[..., None] / (attention.shape[-1] * (attention.shape[-1] - 1))
    overall = per_scene.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty bin has no mean
        in_bin = sums.sum(axis=0) / total
        in_bin_influence = (sums - in_bin * counts[:, None]) / total
    return _BinnedMeans(in_bin, overall, in_bin_influence, (per_scene - overall) / len(attention), total.astype(int))


def _decay_length(
    r: Float[np.ndarray, " bin"],
    connected: Float[np.ndarray, " bin"],
    error: Float[np.ndarray, " bin"],
    influence: Float[np.ndarray, "scene bin"],
    groups: Groups | None,
    smallest_error: float,
) -> tuple[float, float]:
    """Fit a exp(-r / xi) + c from the peak outward; NaN where nothing decays or the data do not say how fast.

    Bins are not independent (rows of attention sum to one), so the error of xi is that of the linear map from C to
    log xi at the fit, applied to what each group of scenes adds to C.
    """
    known = np.isfinite(connected) & (error > smallest_error)
    r, c, e, influence = r[known], connected[known], error[known], influence[:, known]
    if len(r) < 5:
        return np.nan, np.nan
    span, peak = r[-1] - r[0], int(np.argmax(c))  # inside the contact distance pairs are few; decay begins at the peak
    r, c, e, influence = r[peak:] - r[peak], c[peak:], e[peak:], influence[:, peak:]
    if len(r) < 4:
        return np.nan, np.nan

    def residuals(p: np.ndarray) -> np.ndarray:
        return (p[0] * np.exp(-r / np.exp(p[1])) + p[2] - c) / e

    from scipy.optimize import least_squares  # late: it takes as long to import as all other probes

    fit = least_squares(
        residuals,
        (c[0] - c[-1], np.log(span / 5), c[-1]),
        x_scale=(max(c[0] - c[-1], 1e-12), 1.0, max(abs(c[-1]), 1e-12)),
        bounds=([-np.inf, np.log(span) - 10, -np.inf], [np.inf, np.log(span) + 3, np.inf]),
    )
    relative = float(error_of_sum(influence @ (np.linalg.pinv(fit.jac)[1] / e), groups))
    xi = float(np.exp(fit.x[1]))
    decays = fit.success and fit.x[0] > 0 and RESOLVED * relative < 1
    on_scale = np.diff(r).min() / 2 < xi < span  # a single high bin is no decay, nor is a straight line
    return (xi, xi * relative) if decays and on_scale else (np.nan, np.nan)

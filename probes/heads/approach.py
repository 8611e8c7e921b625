"""Does a head prefer the pairs that approach? Distance alone cannot tell a coming collision from a past one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..groups import Groups, error_of_sum, student_quantile
from .pairs import PairLabels, Pairs, Pattern, binned_sums, checked_labels, checked_pattern


@dataclass(frozen=True)
class ApproachPreference:
    """Attention to approaching and to receding pairs at equal distance.

    Attributes:
        edges: bin edges of the distance.
        approaching: mean attention to approaching pairs in each bin, NaN where a bin lacks one of the two kinds.
        receding: the same for receding pairs.
        ratio: mean attention to approaching over receding pairs, both averaged over the same distances; infinite
            where receding pairs get none.
        interval: 95 %, Student's t (groups - 1) for the log of the ratio; shape (head, 2), NaN where the ratio is 0
            or infinite or there is a single group.
    """

    edges: Float[np.ndarray, " edge"]
    approaching: Float[np.ndarray, "head bin"]
    receding: Float[np.ndarray, "head bin"]
    ratio: Float[np.ndarray, " head"]
    interval: Float[np.ndarray, "head 2"]


def approach_preference(
    pattern: Pattern,
    distances: Pairs,
    approaching: PairLabels,
    *,
    edges: Float[np.ndarray, " edge"],
    groups: Groups | None = None,
) -> ApproachPreference:
    """Compare attention to approaching and receding pairs, bin by bin of distance.

    The two means are averaged over bins with the same weights (the share of approaching pairs in the bin), so a head
    that knows distance alone has ratio 1 up to the width of a bin.

    Args:
        pattern: attention, shape (scene, head, query, key).
        distances: between the pair.
        approaching: whether the distance is shrinking.
        edges: ascending bin edges.
        groups: label of the independent unit each scene belongs to.

    Raises:
        ValueError: shapes that disagree, NaN, edges that do not ascend, or no bin that holds pairs of both kinds.
        TypeError: approaching that is not bool.
    """
    attention = checked_pattern(pattern, distances, "distances")
    coming = checked_labels(approaching, pattern, "approaching")
    kinds = [binned_sums(attention, np.where(mask, distances, np.inf), edges) for mask in (coming, ~coming)]
    totals = [counts.sum(axis=0) for _, counts in kinds]
    both = (totals[0] > 0) & (totals[1] > 0)
    if not both.any():
        raise ValueError("approaching: no distance bin holds both approaching and receding pairs; widen the bins")
    n_coming = kinds[0][1][:, both]
    weight = totals[0][both] / totals[0][both].sum()
    weight_influence = (n_coming - weight * n_coming.sum(axis=1, keepdims=True)) / totals[0][both].sum()
    curves = np.full((2, attention.shape[1], len(both)), np.nan)
    matched, influence = [], []
    for curve, (sums, counts), total in zip(curves, kinds, totals, strict=True):
        mean = sums.sum(axis=0)[:, both] / total[both]
        curve[:, both] = mean
        matched.append(mean @ weight)
        deviation = (sums[..., both] - mean * counts[:, None, both]) / total[both]
        influence.append(deviation @ weight + weight_influence @ mean.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = matched[0] / matched[1]
        error = error_of_sum(influence[0] / matched[0] - influence[1] / matched[1], groups)
        half = student_quantile(groups, len(attention)) * error
        interval = np.exp(np.log(ratio)[:, None] + np.stack([-half, half], axis=1))
    interval[~((ratio > 0) & np.isfinite(ratio))] = np.nan
    return ApproachPreference(np.asarray(edges, dtype=np.float64), curves[0], curves[1], ratio, interval)

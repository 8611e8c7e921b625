"""Does a head prefer the pairs that approach? Distance alone cannot tell a coming collision from a past one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .pairs import Groups, PairLabels, Pairs, Pattern, binned_sums, checked_pattern, error_of_sum


@dataclass(frozen=True)
class ApproachPreference:
    """Attention to approaching and to receding pairs at equal distance.

    Attributes:
        edges: bin edges of the distance.
        approaching: mean attention to approaching pairs in each bin, NaN where a bin lacks one of the two kinds.
        receding: the same for receding pairs.
        ratio: mean attention to approaching over receding pairs, both averaged over the same distances.
        interval: 95 %, normal for the log of the ratio; shape (head, 2).
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
        ValueError: shapes that disagree, or no bin that holds pairs of both kinds.
    """
    attention = checked_pattern(pattern, distances, "distances")
    kinds = [binned_sums(attention, np.where(mask, distances, np.inf), edges) for mask in (approaching, ~approaching)]
    totals = [counts.sum(axis=0) for _, counts in kinds]
    both = (totals[0] > 0) & (totals[1] > 0)
    if not both.any():
        raise ValueError("approaching: no distance bin holds both approaching and receding pairs; widen the bins")
    weight = totals[0][both] / totals[0][both].sum()
    means, logs, influences = [], [], []
    for (sums, counts), total in zip(kinds, totals, strict=True):
        mean = sums.sum(axis=0)[:, both] / total[both]
        matched = mean @ weight
        deviation = (sums[..., both] - mean * counts[:, None, both]) / total[both] @ weight
        means.append(np.full((attention.shape[1], len(both)), np.nan))
        means[-1][:, both] = mean
        logs.append(np.log(matched))
        influences.append(deviation / matched)
    log_ratio = logs[0] - logs[1]
    half = 1.959964 * error_of_sum(influences[0] - influences[1], groups)
    return ApproachPreference(
        edges=np.asarray(edges, dtype=np.float64),
        approaching=means[0],
        receding=means[1],
        ratio=np.exp(log_ratio),
        interval=np.exp(log_ratio[:, None] + np.stack([-half, half], axis=1)),
    )

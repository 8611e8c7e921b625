"""Attention as a detector of collisions: average precision, and its null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from .pairs import Groups, PairLabels, Pattern, checked_pattern, error_of_sum, others


@dataclass(frozen=True)
class AveragePrecision:
    """How well attention ranks the pairs that collide.

    Attributes:
        value: average precision of each head, pooled over scenes and queries.
        standard_error: infinitesimal jackknife over groups of scenes.
        interval: 95 %, normal on the logit scale so that it stays in [0, 1]; shape (head, 2).
        chance: share of pairs in contact, the value of a random ranking.
        n_pairs: ordered pairs that were ranked.
        n_contacts: how many of them are in contact.
    """

    value: Float[np.ndarray, " head"]
    standard_error: Float[np.ndarray, " head"]
    interval: Float[np.ndarray, "head 2"]
    chance: float
    n_pairs: int
    n_contacts: int


@dataclass(frozen=True)
class PermutationNull:
    """Average precision when contacts are dealt out anew among the possible partners of each particle.

    Attributes:
        observed: average precision of each head.
        null: the same under each permutation, shape (permutation, head).
        p_value: (1 + number of null values at least as large) / (1 + number of permutations).
    """

    observed: Float[np.ndarray, " head"]
    null: Float[np.ndarray, "permutation head"]
    p_value: Float[np.ndarray, " head"]


def contact_average_precision(
    pattern: Pattern, contacts: PairLabels, *, groups: Groups | None = None
) -> AveragePrecision:
    r"""Average precision of each head's attention as a detector of the pairs that will collide.

    Pairs (query, key), query != key, of all scenes are ranked together by attention; then
    :math:`AP = \sum_k (R_k - R_{k-1}) P_k` over the distinct attention values, R recall and P precision. Ties share one
    step, so a constant pattern scores exactly chance. Any score may stand in for attention: minus the distance gives
    the nearest-neighbour baseline.

    Args:
        pattern: attention or another score, shape (scene, head, query, key).
        contacts: whether the pair collides, from the simulator's log.
        groups: label of the independent unit each scene belongs to (its box); None takes scenes for independent.

    Raises:
        ValueError: shapes that disagree, NaN, or no contact at all.

    Cost: one sort a head.

    References:
        Efron 2014, "Estimation and accuracy after model selection", eq. 3.5, for the infinitesimal jackknife; the
        derivative of AP with respect to the weight of a pair is ours.
    """
    scores, labels = _ranked_pairs(pattern, contacts)
    value, influence = zip(*(_precision_and_influence(s, labels.ravel()) for s in scores), strict=True)
    value = np.array(value)
    per_scene = np.array(influence).reshape(len(scores), *labels.shape).sum(axis=-1).T
    error = error_of_sum(per_scene, groups)
    return AveragePrecision(
        value=value,
        standard_error=error,
        interval=_logit_interval(value, error),
        chance=float(labels.mean()),
        n_pairs=labels.size,
        n_contacts=int(labels.sum()),
    )


def permutation_null(
    pattern: Pattern, contacts: PairLabels, *, rng: np.random.Generator, n_permutations: int = 999
) -> PermutationNull:
    """Test average precision against contacts shuffled within scenes.

    Each permutation deals every particle's contacts out anew among its possible partners in the scene. How many
    contacts a particle has, and how sharp its attention is, stay; only *which* partner is forgotten.

    Args:
        pattern: attention, as in ``contact_average_precision``.
        contacts: whether the pair collides.
        rng: draws the permutations.
        n_permutations: 999 puts the smallest p-value at 0.001.

    Cost: a sort of the pairs a head, then a sort of the contacts a head and permutation.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    scores, labels = _ranked_pairs(pattern, contacts)
    ranks = [_ranks(s) for s in scores]
    observed = np.array([_average_precision(r[labels.ravel()]) for r in ranks])
    rows = labels.reshape(-1, contacts.shape[-1] - 1)
    colliding = np.flatnonzero(rows.any(axis=-1))
    null = np.empty((n_permutations, len(scores)))
    for replica in null:
        row, key = np.nonzero(rng.permuted(rows[colliding], axis=-1))
        positives = colliding[row] * rows.shape[1] + key
        replica[:] = [_average_precision(r[positives]) for r in ranks]
    return PermutationNull(observed, null, (1 + (null >= observed).sum(axis=0)) / (1 + n_permutations))


def _ranked_pairs(
    pattern: np.ndarray, contacts: np.ndarray
) -> tuple[Float[np.ndarray, "head scene_pair"], Bool[np.ndarray, "scene pair"]]:
    """Scores and labels of the pairs of different particles."""
    scores = checked_pattern(pattern, contacts, "contacts")
    pairs = others(contacts.shape[-1])
    labels = contacts[:, pairs]
    if not labels.any():
        raise ValueError(f"contacts holds no contact among {labels.size} pairs; average precision is not defined")
    return scores[:, :, pairs].transpose(1, 0, 2).reshape(scores.shape[1], -1), labels


def _ranks(scores: Float[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
    """How many pairs score at least as high, for each pair."""
    order = np.argsort(-scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.repeat(ends + 1, np.diff(ends, prepend=-1))
    return ranks


def _average_precision(ranks_of_positives: Int[np.ndarray, " positive"]) -> float:
    """Mean over the positives of the precision at the score of each."""
    ranks = np.sort(ranks_of_positives)
    return float((np.searchsorted(ranks, ranks, side="right") / ranks).mean())


def _precision_and_influence(
    scores: Float[np.ndarray, " pair"], labels: Bool[np.ndarray, " pair"]
) -> tuple[float, Float[np.ndarray, " pair"]]:
    r"""Average precision and its derivative with respect to the weight of each pair.

    With N pairs and T hits at or above a score, and H hits in all, :math:`AP = \sum_k y_k T_k / (N_k H)`, so
    :math:`H\,dAP/dw_j = y_j (T_j / N_j - AP) + \sum_{k\ below\ j} y_k (y_j / N_k - T_k / N_k^2)`.
    """
    ranks = _ranks(scores)
    counts = np.bincount(ranks, minlength=len(scores) + 1)
    hits = np.bincount(ranks, weights=labels, minlength=len(scores) + 1)
    n, t, total = np.maximum(np.cumsum(counts), 1), np.cumsum(hits), hits.sum()
    value = float((hits * t / n).sum() / total)
    below_hits = np.cumsum((hits / n)[::-1])[::-1]
    below_cost = np.cumsum((hits * t / n**2)[::-1])[::-1]
    influence = labels * ((t / n)[ranks] - value + below_hits[ranks]) - below_cost[ranks]
    return value, influence / total


def _logit_interval(value: np.ndarray, error: np.ndarray) -> Float[np.ndarray, "head 2"]:
    inside = np.clip(value, 1e-12, 1 - 1e-12)
    half = 1.959964 * error / (inside * (1 - inside))
    center = np.log(inside / (1 - inside))
    return 1 / (1 + np.exp(-(center[:, None] + np.stack([-half, half], axis=1))))

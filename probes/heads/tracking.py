"""What does a head track? Its attention against any quantity of a pair, ranked and held against a null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from ..groups import Groups, correlation_interval, group_index, interval
from .pairs import Pattern, checked_pattern, others

MOST_BINS = 24
"""Bins of attention and of a quantity for the mutual information, at most; 24 equal shares of two Gaussians hold 97 %
of their mutual information at a correlation of 0.6. Our choice, as is the next."""

PAIRS_PER_CELL = 20
"""Pairs a cell of the joint table holds on average at least; fewer pairs make fewer bins."""


@dataclass(frozen=True)
class Association:
    """One measure of how attention goes with each quantity.

    Attributes:
        value: shape (quantity, head).
        interval: 95 % over groups of scenes, shape (quantity, head, 2); NaN for a single group.
        p_value: (1 + permutations at least as extreme) / (1 + permutations), this test by itself.
        corrected_p_value: the same for the most extreme of all heads, quantities and both measures.
    """

    value: Float[np.ndarray, "quantity head"]
    interval: Float[np.ndarray, "quantity head 2"]
    p_value: Float[np.ndarray, "quantity head"]
    corrected_p_value: Float[np.ndarray, "quantity head"]


@dataclass(frozen=True)
class HeadTracking:
    """What each head's attention goes with.

    Attributes:
        quantities: names, in the order of the first axis of what follows.
        is_boolean: which of them are yes or no.
        rank_correlation: do the partners of a query with more of the quantity get more attention? From -1 to 1.
        mutual_information: in nats, any dependence, monotone or not.
        n_pairs: ordered pairs on which each quantity is defined.
        n_undefined: pairs left out because it is NaN or infinite there.
        n_permutations: of the null.
    """

    quantities: tuple[str, ...]
    is_boolean: Bool[np.ndarray, " quantity"]
    rank_correlation: Association
    mutual_information: Association
    n_pairs: Int[np.ndarray, " quantity"]
    n_undefined: Int[np.ndarray, " quantity"]
    n_permutations: int

    @property
    def auc(self) -> Float[np.ndarray, "quantity head"]:
        """Chance that a partner of a query with the property gets more attention than one without (ties half).

        It is (1 + rank correlation) / 2; NaN for a quantity that is not boolean.
        """
        return np.where(self.is_boolean[:, None], (1 + self.rank_correlation.value) / 2, np.nan)

    @property
    def auc_interval(self) -> Float[np.ndarray, "quantity head 2"]:
        """95 % over groups of scenes."""
        return np.where(self.is_boolean[:, None, None], (1 + self.rank_correlation.interval) / 2, np.nan)

    def ranking(self, head: int, *, level: float = 0.05) -> list[str]:
        """Quantities that a head tracks beyond the corrected null in either measure, best first; may be empty.

        The order is that of mutual information, as it compares yes-or-no with numbers: a quantity through which alone
        attention depends on another one has at least as much of it (data processing inequality). A correlation
        does not: attention that falls with distance tells contacts apart better than distances.
        """
        measures = (self.rank_correlation, self.mutual_information)
        p = np.minimum(*(measure.corrected_p_value[:, head] for measure in measures))
        best_first = np.argsort(-self.mutual_information.value[:, head], kind="stable")
        return [self.quantities[q] for q in best_first if p[q] <= level]


def what_heads_track(
    pattern: Pattern,
    quantities: Mapping[str, np.ndarray],
    *,
    rng: np.random.Generator,
    groups: Groups | None = None,
    n_permutations: int = 999,
) -> HeadTracking:
    r"""Measure how attention goes with physical quantities of a pair: distance, closing speed, contact, impulse.

    *Rank correlation.* Attention and quantity are ranked among the partners of each query, as a softmax makes the
    weights of one row comparable, not those of two. With centred ranks a, b divided by their number,
    :math:`r = \sum a b / \sum a^* b`, where a* is attention in the very order of the quantity. It is Spearman's
    coefficient of a row for values without ties and 2 AUC - 1 for a boolean quantity; rows weigh about as the number
    of comparisons they allow.

    *Mutual information.* Over all pairs together, attention and quantity each cut into bins of equal shares (a table
    of at most 24 x 24, on average at least 20 pairs a cell), less the Miller-Madow bias
    (occupied cells - rows - columns + 1) / 2n. Bins only lose information, so it is a lower bound; level shifts of
    whole rows count here, and not in the rank correlation.

    *Null.* The particles of each group are relabelled, quantity (i, j) going to (p(i), p(j)): whom a query attends to
    is shuffled, and what each particle is like, how alike the two directions of a pair are, and what persists from
    scene to scene stay. Both measures are held against the same permutations. The corrected p-value is that
    of Westfall and Young (single step, largest standardised value of all heads, quantities and both measures): the
    chance that any is so extreme when none is tracked is at most p, whatever the dependence between them. Where a
    quantity is undefined, the test (not the value) ranks attention among all partners.

    Args:
        pattern: attention, shape (scene, head, query, key). Heads of several layers, or of many checkpoints, can be
            joined along the head axis: they share permutations.
        quantities: name to array (scene, query, key), numbers or bool; NaN and infinity mark pairs on which the
            quantity is undefined (no time to contact for pairs that part), which are left out and counted.
        rng: draws the permutations.
        groups: label of the independent unit each scene belongs to (its box); particle i must then be the same
            particle in all its scenes. None takes scenes for independent.
        n_permutations: 999 (our choice) puts the smallest p-value at 0.001.

    Raises:
        ValueError: shapes that disagree, a pattern that is not finite, no quantity, no permutation, or a quantity that
            does not vary among the partners of any query.
        TypeError: a quantity that is neither real nor bool.

    Cost: two sorts of the pairs a head; then one count of the pairs a head, quantity and permutation.

    References:
        Miller 1955, "Note on the bias of information estimates"; Westfall & Young 1993, "Resampling-based multiple
        testing", ch. 2; Mantel 1967, "The detection of disease clustering", for relabelling; Phipson & Smyth 2010,
        "Permutation P-values should never be zero". Intervals are the infinitesimal jackknife over groups.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    if not quantities:
        raise ValueError("quantities is empty; give at least one array (scene, query, key)")
    attention = _partners(checked_pattern(pattern, np.zeros(pattern.shape[:1] + pattern.shape[2:]), "pattern"))
    values = np.stack([_checked_quantity(name, array, pattern) for name, array in quantities.items()])
    defined = np.isfinite(values)
    scores = np.stack([_ranks(v, d) for v, d in zip(values, defined, strict=True)])
    for name, score in zip(quantities, scores, strict=True):
        if not score.any():
            raise ValueError(f"quantities[{name!r}] does not vary among the partners of any query; leave it out")
    cells = _Cells.of(attention, values, defined)
    correlation, correlation_interval_ = _rank_correlation(attention, scores, defined, groups)
    information, information_interval = cells.with_interval(groups)
    p, corrected = _p_values(attention, scores, cells, groups, rng, n_permutations)
    return HeadTracking(
        quantities=tuple(quantities),
        is_boolean=np.array([array.dtype == np.bool_ for array in quantities.values()]),
        rank_correlation=Association(correlation, correlation_interval_, p[0], corrected[0]),
        mutual_information=Association(information, information_interval, p[1], corrected[1]),
        n_pairs=defined.sum(axis=(1, 2, 3)),
        n_undefined=(~defined).sum(axis=(1, 2, 3)),
        n_permutations=n_permutations,
    )


def _partners(pairs: np.ndarray) -> Float[np.ndarray, "*rows partner"]:
    """Leave out the key that is the query itself."""
    n = pairs.shape[-1]
    return pairs[..., others(n)].reshape(*pairs.shape[:-1], n - 1)


def _checked_quantity(name: str, array: np.ndarray, pattern: np.ndarray) -> Float[np.ndarray, "scene query partner"]:
    expected = (pattern.shape[0], *pattern.shape[2:])
    if array.shape != expected:
        raise ValueError(
            f"quantities[{name!r}] must have shape {expected} to match pattern {pattern.shape}, got {array.shape}"
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"quantities[{name!r}] must be real or bool, got {array.dtype}")
    return _partners(array.astype(np.float64))


def _ranks(values: np.ndarray, defined: np.ndarray) -> Float[np.ndarray, "*rows partner"]:
    """Ranks among the defined partners of a query, over their number and about their mean; 0 where undefined."""
    n_defined = np.maximum(defined.sum(axis=-1, keepdims=True), 1)
    from scipy.stats import rankdata  # late: it takes as long to import as all other probes

    ranks = rankdata(np.where(defined, values, np.inf), axis=-1)  # the undefined come last
    return np.where(defined, (ranks - (n_defined + 1) / 2) / n_defined, 0.0)


def _rank_correlation(
    attention: Float[np.ndarray, "scene head query partner"],
    scores: Float[np.ndarray, "quantity scene query partner"],
    defined: Bool[np.ndarray, "quantity scene query partner"],
    groups: np.ndarray | None,
) -> tuple[Float[np.ndarray, "quantity head"], Float[np.ndarray, "quantity head 2"]]:
    """Sum over scenes of what is in order, over the most that could be."""
    n_scenes, n_heads = attention.shape[:2]
    reached, most = np.empty((n_scenes, len(scores), n_heads)), np.empty((n_scenes, len(scores), 1))
    ranks_of_all = _ranks(attention, np.ones(attention.shape, dtype=bool))
    for q, (score, known) in enumerate(zip(scores, defined, strict=True)):
        ranks = ranks_of_all if known.all() else _ranks(attention, np.broadcast_to(known[:, None], attention.shape))
        reached[:, q] = np.einsum("shqk,sqk->sh", ranks, score)
        ordered = np.sort(np.where(known, score, np.inf), axis=-1)
        place = _ranks(np.broadcast_to(np.arange(score.shape[-1]), score.shape), np.isfinite(ordered))
        most[:, q, 0] = (place * np.where(np.isfinite(ordered), ordered, 0.0)).sum(axis=(-2, -1))
    value = reached.sum(axis=0) / most.sum(axis=0)
    influence = (reached - value * most) / most.sum(axis=0)
    return value, correlation_interval(value, influence, groups)


@dataclass(frozen=True)
class _Cells:
    """Bins of attention and of each quantity; the last bin of a quantity holds the pairs where it is undefined.

    ``of_quantity`` is offset so that the sum of the two bins numbers the cells of all quantities' tables in a row.
    """

    of_attention: Int[np.ndarray, "head scene_pair"]
    of_quantity: Int[np.ndarray, "quantity scene query partner"]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, attention: np.ndarray, values: np.ndarray, defined: np.ndarray) -> _Cells:
        n_bins = int(np.clip(np.sqrt(values[0].size / PAIRS_PER_CELL), 2, MOST_BINS))
        by_head = attention.swapaxes(0, 1).reshape(attention.shape[1], -1)
        of_attention = np.stack([_equal_shares(a, n_bins) for a in by_head]) * (n_bins + 1)
        of_quantity = np.full(values.shape, n_bins)
        for q, (value, known) in enumerate(zip(values, defined, strict=True)):
            of_quantity[q, known] = _equal_shares(value[known], n_bins)
            of_quantity[q] += q * n_bins * (n_bins + 1)
        return cls(of_attention, of_quantity, (len(values), n_bins, n_bins + 1))

    def counts(self, of_quantity: Int[np.ndarray, "quantity scene_pair"], head: int) -> Float[np.ndarray, "q a b"]:
        """Joint table of each quantity with the attention of a head."""
        cells = (of_quantity + self.of_attention[head]).ravel()
        counts = np.bincount(cells, minlength=int(np.prod(self.shape))).reshape(self.shape)
        return counts[..., :-1].astype(np.float64)

    def with_interval(
        self, groups: np.ndarray | None
    ) -> tuple[Float[np.ndarray, "quantity head"], Float[np.ndarray, "quantity head 2"]]:
        """Mutual information; its influence is the log ratio of a pair's cell, the bins taken as fixed."""
        n_quantities, n_scenes = self.of_quantity.shape[:2]
        flat = self.of_quantity.reshape(n_quantities, -1)
        value, influence = np.empty((2, n_quantities, len(self.of_attention), n_scenes))
        for head, of_attention in enumerate(self.of_attention):
            counts = self.counts(flat, head)
            value[:, head] = _information(counts)[:, None]
            n = counts.sum(axis=(1, 2), keepdims=True)
            expected = counts.sum(axis=2, keepdims=True) * counts.sum(axis=1, keepdims=True) / n
            ratio = np.log(np.divide(counts, expected, out=np.ones_like(counts), where=counts > 0))
            about_mean = np.zeros(self.shape)  # and nothing for the undefined
            about_mean[..., :-1] = (ratio - (counts * ratio).sum(axis=(1, 2), keepdims=True) / n) / n
            of_pair = about_mean.ravel()[flat + of_attention]
            influence[:, head] = of_pair.reshape(n_quantities, n_scenes, -1).sum(axis=-1)
        return value[..., 0], interval(value[..., 0], np.moveaxis(influence, -1, 0), groups)


def _equal_shares(values: Float[np.ndarray, " pair"], n_bins: int) -> Int[np.ndarray, " pair"]:
    """Bins that hold equal shares of the values; ties stay together."""
    from scipy.stats import rankdata  # late: it takes as long to import as all other probes

    return (n_bins * (rankdata(values) - 0.5) / len(values)).astype(np.int64)


def _information(counts: Float[np.ndarray, "table a b"]) -> Float[np.ndarray, " table"]:
    """Mutual information of tables of counts, in nats, less the Miller-Madow bias."""
    a, b = counts.sum(axis=2), counts.sum(axis=1)
    n = a.sum(axis=1)
    plug_in = (
        special.xlogy(counts, counts).sum(axis=(1, 2))
        - special.xlogy(a, a).sum(axis=1)
        - special.xlogy(b, b).sum(axis=1)
    ) / n + np.log(n)
    occupied = (counts > 0).sum(axis=(1, 2)) - (a > 0).sum(axis=1) - (b > 0).sum(axis=1) + 1
    return plug_in - occupied / (2 * n)


def _p_values(
    attention: Float[np.ndarray, "scene head query partner"],
    scores: Float[np.ndarray, "quantity scene query partner"],
    cells: _Cells,
    groups: np.ndarray | None,
    rng: np.random.Generator,
    n_permutations: int,
) -> tuple[Float[np.ndarray, "measure quantity head"], Float[np.ndarray, "measure quantity head"]]:
    """Each test's p-value, and the one corrected for all of them; measures are rank correlation and information."""
    n_scenes, n_heads, n_particles, _ = attention.shape
    group, n_groups = group_index(groups, n_scenes)
    ranks = _ranks(attention, np.ones(attention.shape, dtype=bool)).swapaxes(0, 1).reshape(n_heads, -1)
    flat_scores, flat_cells = (array.reshape(len(scores), -1) for array in (scores, cells.of_quantity))
    query, key = np.nonzero(others(n_particles))
    first = np.arange(n_scenes)[:, None] * len(query)
    labels = np.tile(np.arange(n_particles), (n_groups, 1))
    measured = np.empty((1 + n_permutations, 2, len(scores), n_heads))
    for replica in measured:
        i, j = labels[group][:, query], labels[group][:, key]
        source = (first + i * (n_particles - 1) + j - (j > i)).ravel()  # a row skips self, keys beyond move up by one
        replica[0] = np.abs(flat_scores[:, source] @ ranks.T)
        taken = flat_cells[:, source]
        for head in range(n_heads):
            replica[1, :, head] = _information(cells.counts(taken, head))
        labels = rng.permuted(labels, axis=-1)  # the first round was the observed order
    return _compared(measured)


def _compared(
    measured: Float[np.ndarray, "permutation measure quantity head"],
) -> tuple[Float[np.ndarray, "measure quantity head"], Float[np.ndarray, "measure quantity head"]]:
    """p-values of the first row among all, alone and against the largest of each row.

    Standardised with the observed among the permutations, so that all rows are treated alike.
    """
    center = measured.mean(axis=0) * np.array([0.0, 1.0])[:, None, None]  # a rank correlation is 0 under the null
    spread = np.sqrt(((measured - center) ** 2).mean(axis=0))
    z = np.divide(measured - center, spread, out=np.zeros_like(measured), where=spread > 1e-12)
    observed = z[0] - 1e-9  # equal arrangements may differ by rounding
    largest = z.max(axis=(1, 2, 3))
    return (z >= observed).mean(axis=0), (largest[:, None, None, None] >= observed).mean(axis=0)

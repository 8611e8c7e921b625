"""Functional clusters: units that are busy in the same tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from .arrays import finite_array
from .shuffle_test import check_count

SUBSAMPLE = 0.8
"""Share of the active units in a subsample, as Ben-Hur et al. 2002 (section 2)."""


@dataclass(frozen=True)
class FunctionalClusters:
    """Units grouped by the tasks in which they vary.

    Attributes:
        labels: cluster of each unit, 0 to ``n_clusters - 1``; inactive units hold ``n_clusters``, no cluster's number.
        active: units whose variance summed over tasks exceeds ``threshold``.
        normalized: variance of each unit over its maximum over tasks; NaN in inactive units.
        candidates: numbers of clusters that were tried.
        silhouette: mean silhouette of each candidate, between -1 and 1.
        stability: of each subsample of the active units, the adjusted Rand index between its own clusters (their
            number chosen anew) and these; 1 where they agree, 0 where they agree as chance would.
        n_clusters_of_subsamples: number chosen by each subsample.
        threshold: as given.
    """

    labels: Int[np.ndarray, " unit"]
    active: Bool[np.ndarray, " unit"]
    normalized: Float[np.ndarray, "task unit"]
    candidates: Int[np.ndarray, " candidate"]
    silhouette: Float[np.ndarray, " candidate"]
    stability: Float[np.ndarray, " subsample"]
    n_clusters_of_subsamples: Int[np.ndarray, " subsample"]
    threshold: float

    @property
    def n_clusters(self) -> int:
        """The candidate of the largest silhouette."""
        return int(self.candidates[self.silhouette.argmax()])

    @property
    def sizes(self) -> Int[np.ndarray, " cluster"]:
        """Units in each cluster."""
        return np.bincount(self.labels[self.active], minlength=self.n_clusters)

    @property
    def profile(self) -> Float[np.ndarray, "cluster task"]:
        """Mean normalized variance of each cluster in each task."""
        return np.stack([self.normalized[:, self.labels == c].mean(axis=1) for c in range(self.n_clusters)])

    @property
    def preferred_task(self) -> Int[np.ndarray, " cluster"]:
        """Task of the largest profile, which does not fall from cluster to cluster."""
        return self.profile.argmax(axis=1)

    @property
    def stability_interval(self) -> Float[np.ndarray, " 2"]:
        """Central 95 % of the stability."""
        return np.quantile(self.stability, [0.025, 0.975])


def functional_clusters(
    variance: Any,
    *,
    rng: np.random.Generator,
    threshold: float = 1e-3,
    n_clusters: Iterable[int] = range(2, 20),
    n_subsamples: int = 100,
) -> FunctionalClusters:
    """Group units by the tasks in which they vary, and say how far the grouping can be trusted.

    Silent units are set aside, each other unit is divided by its maximum over tasks, and Ward's tree over the units is
    cut where the mean silhouette is largest. Clusters are numbered by the task they prefer.

    The silhouette cannot answer "one cluster": it finds two or more in anything. Read ``stability`` beside it, and for
    the noise of the trials compare, by ``partition_agreement``, the clusters of two halves of the trials.

    Args:
        variance: shape (task, unit), of ``task_variance``.
        rng: draws the subsamples.
        threshold: on the variance of a unit summed over tasks. The public code below uses 1e-6, too low where a
            penalty on the weights leaves silent units a shelf of 1e-7 to 1e-5 under a gap up to 0.1: 1e-3 lies in
            that gap (our choice; units of the variance).
        n_clusters: candidates, those of the public code; any not below the size of a subsample is passed over.
        n_subsamples: 100 as Ben-Hur et al.; subsamples are drawn without replacement because a unit drawn twice is a
            cluster by itself.

    Raises:
        ValueError: negative variance, NaN, a negative threshold, candidates below 2 or none, fewer than 4 active
            units, or active units that are all alike.

    Cost: one Ward tree and one silhouette a candidate, for every subsample: 2 s for 130 units and 100 subsamples.

    References:
        Yang et al. 2019, Nature Neuroscience 22, Methods, in the form of the public neurogym/ngym_usage (yang19), which
        takes Ward's tree. Rousseeuw 1987, "Silhouettes". Ben-Hur, Elisseeff &
        Guyon 2002, "A stability based method for discovering structure in clustered data" (they score by other
        indices at a fixed number of clusters). Hubert & Arabie 1985, eq. 5, for the adjusted Rand index.
    """
    table = finite_array("variance", variance, "task unit")
    candidates = np.array(sorted(set(n_clusters)), dtype=np.int64)
    _check_settings(table, threshold, candidates, n_subsamples)
    active = table.sum(axis=0) > threshold
    if active.sum() < 4:
        raise ValueError(
            f"variance must exceed threshold = {threshold:g} in at least 4 units, got {active.sum()} of {active.size}; "
            "lower the threshold or give more units"
        )
    profiles = (table[:, active] / table[:, active].max(axis=0)).T
    if np.ptp(profiles, axis=0).max() == 0:
        raise ValueError(f"variance of the {active.sum()} active units is the same but for scale; nothing to cluster")
    size = round(SUBSAMPLE * len(profiles))
    candidates = candidates[candidates < size]
    if len(candidates) == 0:
        raise ValueError(f"n_clusters must hold a number below {size}, the units in a subsample of {len(profiles)}")
    of_units, silhouette = _best_cut(profiles, candidates)
    of_units = _by_preferred_task(profiles, of_units)
    chosen = int(of_units.max()) + 1
    subsamples = [rng.choice(len(profiles), size, replace=False) for _ in range(n_subsamples)]
    stability, numbers = _stability(profiles, of_units, candidates, subsamples)
    labels = np.full(active.size, chosen)
    labels[active] = of_units
    normalized = np.full(table.shape, np.nan)
    normalized[:, active] = profiles.T
    return FunctionalClusters(
        labels, active, normalized, candidates, silhouette, stability, numbers, threshold=float(threshold)
    )


def _best_cut(
    profiles: Float[np.ndarray, "unit task"], candidates: Int[np.ndarray, " candidate"]
) -> tuple[Int[np.ndarray, " unit"], Float[np.ndarray, " candidate"]]:
    """Cut Ward's tree at the candidate of the largest silhouette; also return every silhouette."""
    from scipy.cluster.hierarchy import cut_tree, linkage  # late: both cost more to import than all other probes
    from scipy.spatial.distance import pdist, squareform
    from sklearn.metrics import silhouette_score

    distances = squareform(pdist(profiles))
    cuts = cut_tree(linkage(profiles, "ward"), n_clusters=candidates.tolist())  # unlike fcluster, exact under ties
    silhouette = np.array([silhouette_score(distances, cut, metric="precomputed") for cut in cuts.T])
    return cuts[:, silhouette.argmax()], silhouette


def _by_preferred_task(profiles: np.ndarray, labels: Int[np.ndarray, " unit"]) -> Int[np.ndarray, " unit"]:
    """Number clusters by the task they prefer, the larger first among equals."""
    n = int(labels.max()) + 1
    preferred = np.array([profiles[labels == c].mean(axis=0).argmax() for c in range(n)])
    order = np.lexsort(np.stack([-np.bincount(labels), preferred]))  # the last key counts first
    return np.argsort(order)[labels]


def _stability(
    profiles: np.ndarray, labels: np.ndarray, candidates: np.ndarray, subsamples: list[Int[np.ndarray, " drawn"]]
) -> tuple[Float[np.ndarray, " subsample"], Int[np.ndarray, " subsample"]]:
    """Cluster each subsample anew, and compare with the clusters of all units."""
    from sklearn.metrics import adjusted_rand_score

    cuts = [_best_cut(profiles[units], candidates)[0] for units in subsamples]
    agreement = [adjusted_rand_score(labels[units], cut) for units, cut in zip(subsamples, cuts, strict=True)]
    return np.array(agreement), np.array([cut.max() + 1 for cut in cuts])


def _check_settings(table: np.ndarray, threshold: float, candidates: np.ndarray, n_subsamples: int) -> None:
    if (table < 0).any():
        where = tuple(np.argwhere(table < 0)[0].tolist())
        raise ValueError(f"variance must not be negative, got {table[where]:g} at {where}")
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative, got {threshold}")
    if len(candidates) == 0 or candidates[0] < 2:
        raise ValueError(f"n_clusters must be numbers of at least 2, got {candidates.tolist()}")
    check_count("n_subsamples", n_subsamples, 2)

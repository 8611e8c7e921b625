"""Where functional clusters lie: isolated units and the spread of a cluster, beside shuffled labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from .arrays import finite_array, label_array
from .clusters import FunctionalClusters
from .shuffle_test import ShuffleTest, check_count

Labels = Int[np.ndarray, "shuffle unit"]


def isolated_fraction(
    labels: FunctionalClusters | Any, positions: Any | None, *, rng: np.random.Generator, n_shuffles: int = 10_000
) -> ShuffleTest:
    """Share of active units none of whose grid neighbours is of their cluster; few where modules are anatomical.

    Neighbours are one cell apart along one axis: two on a line, four in the plane, six in space. A silent neighbour
    counts as none. The null deals the labels out anew among the active positions only; dealing over the whole grid
    would also credit the mere compactness of the active patch.

    Args:
        labels: of ``functional_clusters``, whose inactive units are left out, or one whole number a unit.
        positions: cell of every unit (inactive ones included), whole numbers, shape (unit, 1 to 3). None lists the
            active units by index and closes the gaps: neighbours are then the next on either side, our reading of
            the figures of Liu et al. 2023, whose published ratios it approaches. Take the plane as the measure.
        rng: draws the shuffles.
        n_shuffles: about that of the published histograms.

    Raises:
        ValueError: positions that match the labels in no way, share a cell or lie between cells, a single cluster,
            or fewer than two active units.

    Cost: ``n_shuffles`` times units comparisons a direction, 0.1 s for 130 units.

    References:
        Liu, Khona, Fiete & Tegmark 2023, "Growing brains", arXiv 2310.07711 (definition inferred from its figures).
    """
    index, cells = _placed(labels, positions)
    if (cells != np.round(cells)).any():
        raise ValueError("positions must be whole numbers, the cells of a grid; multiply by the cells per unit length")
    return _shuffled(index, _isolated(_neighbours(cells)), rng, n_shuffles, "isolated fraction of the active units")


def cluster_spread(
    labels: FunctionalClusters | Any,
    positions: Any | None,
    *,
    rng: np.random.Generator,
    n_shuffles: int = 10_000,
    over: Literal["units", "clusters"] = "units",
) -> ShuffleTest:
    r"""How far the units of a cluster lie from its centroid, beside labels shuffled among the active positions.

    With :math:`s_c` the sum of squared distances of the units of cluster c to their centroid and :math:`n_c` their
    number, the spread is :math:`\sum_c s_c` over units, or :math:`\sum_c s_c / n_c` over clusters. The mean of its
    null is :math:`(N - K) S^2` or :math:`\sum_c (1 - 1/n_c) S^2` for K clusters of N units, :math:`S^2` the
    unbiased variance of the active positions; on a line without gaps :math:`S^2 = N (N + 1) / 12`.

    Args:
        labels: as in ``isolated_fraction``.
        positions: as there, but any numbers. None takes the rank among the active units as the position; with
            ``over="clusters"`` that is our reading of the published "variance of indices within clusters".
        rng: draws the shuffles.
        n_shuffles: about that of the published histograms.
        over: units weighs a cluster by its size, and is the sharper test; clusters weighs all alike.

    Returns:
        In squared units of the positions: cells².

    Raises:
        ValueError: as ``isolated_fraction``, but positions need be neither whole nor distinct.

    Cost: ``n_shuffles`` times units times clusters, 0.2 s for 130 units in 7 clusters.

    References:
        Liu et al. 2023, arXiv 2310.07711, as ``isolated_fraction``.
    """
    if over not in ("units", "clusters"):
        raise ValueError(f"over must be 'units' or 'clusters', got {over!r}")
    index, places = _placed(labels, positions)
    spread = _spread(places - places.mean(axis=0), np.bincount(index), over)
    return _shuffled(index, spread, rng, n_shuffles, f"spread within clusters, summed over {over} (cells²)")


def _placed(
    labels: FunctionalClusters | Any, positions: Any | None
) -> tuple[Int[np.ndarray, " active"], Float[np.ndarray, "active dim"]]:
    """Labels and positions of the active units."""
    if isinstance(labels, FunctionalClusters):
        active, given = labels.active, labels.labels[labels.active]
    else:
        active, given = np.ones(len(labels), dtype=bool), labels
    index, n_clusters = label_array("labels", given)
    if n_clusters < 2:
        raise ValueError(f"labels put all {len(index)} active units in one cluster; shuffling them changes nothing")
    if positions is None:
        return index, np.arange(len(index), dtype=np.float64)[:, None]
    places = finite_array("positions", positions, "unit dim")
    if len(places) != len(active):
        raise ValueError(f"positions must give the place of each of the {len(active)} units, got {len(places)}")
    if not 1 <= places.shape[1] <= 3:
        raise ValueError(f"positions must have shape (unit, 1 to 3), got {places.shape}")
    return index, places[active]


def _shuffled(
    index: np.ndarray, measure: Callable[[Labels], np.ndarray], rng: np.random.Generator, n_shuffles: int, unit: str
) -> ShuffleTest:
    """Measure the labels as they are and shuffled."""
    check_count("n_shuffles", n_shuffles, 2)
    shuffles = rng.permuted(np.tile(index.astype(np.int16), (n_shuffles, 1)), axis=1)
    return ShuffleTest(float(measure(index[None])[0]), measure(shuffles), "less", unit)


def _neighbours(cells: Float[np.ndarray, "unit dim"]) -> Int[np.ndarray, "direction unit"]:
    """Number of the unit one cell away in each direction, the number of units where there is none."""
    at = {tuple(cell): unit for unit, cell in enumerate(cells.tolist())}
    if len(at) < len(cells):
        raise ValueError(f"positions must differ from unit to unit, got {len(cells) - len(at)} cells taken twice")
    steps = np.concatenate([np.eye(cells.shape[1]), -np.eye(cells.shape[1])])
    return np.array([[at.get(tuple(cell), len(cells)) for cell in (cells + step).tolist()] for step in steps])


def _isolated(neighbours: Int[np.ndarray, "direction unit"]) -> Callable[[Labels], Float[np.ndarray, " shuffle"]]:
    def measure(labels: Labels) -> Float[np.ndarray, " shuffle"]:
        nobody = np.full((len(labels), 1), -1, dtype=labels.dtype)
        padded = np.concatenate([labels, nobody], axis=1)
        has_mate = np.zeros(labels.shape, dtype=bool)
        for unit in neighbours:
            has_mate |= padded[:, unit] == labels
        return 1 - has_mate.mean(axis=1)

    return measure


def _spread(
    places: Float[np.ndarray, "unit dim"], sizes: Int[np.ndarray, " cluster"], over: str
) -> Callable[[Labels], Float[np.ndarray, " shuffle"]]:
    moments = np.concatenate([places, (places**2).sum(axis=1, keepdims=True)], axis=1)

    def measure(labels: Labels) -> Float[np.ndarray, " shuffle"]:
        total = np.zeros(len(labels))
        for cluster, size in enumerate(sizes):
            sums = (labels == cluster).astype(np.float64) @ moments
            within = sums[:, -1] - (sums[:, :-1] ** 2).sum(axis=1) / size
            total += within if over == "units" else within / size
        return total

    return measure

"""Modularity of the graph of weights, beside graphs of the same degrees and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from .arrays import finite_array
from .rewiring import rewired
from .shuffle_test import ShuffleTest, check_count
from .wiring import NEGLIGIBLE

Graph = Float[np.ndarray, "unit unit"]


@dataclass(frozen=True)
class GraphModularity:
    """Communities of the weight graph and how modular they are.

    Attributes:
        labels: community of each unit, 0 to ``n_communities - 1`` from the largest down; units without a connection
            hold ``n_communities``, no community's number.
        connected: units with a connection above ``threshold``.
        test: Newman's Q of the best run beside that of rewired graphs, searched as hard.
        q_of_runs: Q of every run; their spread is the uncertainty of the search.
        agreement_of_runs: adjusted Rand index of the best run with each other one. Partitions far apart may have
            nearly the same Q (Good et al. 2010): below about 0.8 (our choice) the labels are one answer of many.
        threshold: as given.
    """

    labels: Int[np.ndarray, " unit"]
    connected: Bool[np.ndarray, " unit"]
    test: ShuffleTest
    q_of_runs: Float[np.ndarray, " run"]
    agreement_of_runs: Float[np.ndarray, " other"]
    threshold: float

    @property
    def q(self) -> float:
        """Newman's Q of the best run."""
        return self.test.observed

    @property
    def n_communities(self) -> int:
        """Communities of connected units."""
        return int(self.labels[self.connected].max()) + 1


def newman_q(weight: Any, labels: Any) -> float:
    r"""Newman's modularity of a partition of an undirected weighted graph.

    :math:`Q = \sum_c [S_{cc} / 2m - (k_c / 2m)^2]` with :math:`S_{cc}` the weights within community c (both
    directions), :math:`k_c` the summed strength of its units and :math:`2m` that of all.

    Args:
        weight: symmetric, not negative, shape (unit, unit).
        labels: community of each unit.

    Raises:
        ValueError: not square, not symmetric, negative or all zero weights, or as many labels as are no units.

    References:
        Newman 2004, "Analysis of weighted networks", Phys. Rev. E 70, 056131, eq. 3.
    """
    graph = finite_array("weight", weight, "unit unit")
    if graph.shape[0] != graph.shape[1] or not np.allclose(graph, graph.T) or (graph < 0).any() or not graph.any():
        raise ValueError(
            f"weight must be square, symmetric, not negative and not all zero, got shape {graph.shape}; "
            "abs(w) + abs(w).T makes a graph of recurrent weights"
        )
    communities = np.asarray(labels)
    if communities.shape != (len(graph),):
        raise ValueError(f"labels must name the community of each of the {len(graph)} units, got {communities.shape}")
    member = (communities[:, None] == np.unique(communities)).astype(np.float64)  # unit community
    within, strength = np.einsum("ic,ij,jc->c", member, graph, member, optimize=True), graph.sum(axis=0) @ member
    return float((within / graph.sum() - (strength / graph.sum()) ** 2).sum())


def graph_modularity(
    weight: Any,
    *,
    rng: np.random.Generator,
    layers: Any | None = None,
    threshold: float = NEGLIGIBLE,
    n_runs: int = 3,
    n_shuffles: int = 99,
) -> GraphModularity:
    """Find communities in the graph of |w| (Louvain) and test their modularity against rewired graphs.

    The graph is undirected, |w| + |w| transposed where either is above the threshold, without self-connections. Each
    rewired graph keeps how many connections every unit has and the set of weights, not which weight goes where; it is
    searched by as many runs, since Q grows with the search. For a graph in which all pairs are connected that null
    shuffles the weights; for one of equal weights it is the degree-preserving rewiring usual in brain networks.

    Args:
        weight: shape (unit, unit), (post, pre). A feed-forward net is one matrix over the units of all its layers.
        rng: seeds Louvain and draws the rewired graphs.
        layers: number of the layer of each unit, so that rewiring keeps every connection between the same two layers;
            None for a recurrent net. Without it the null of a layered net would hold connections within layers, where
            the net can have none, and its Q would be that of other graphs.
        threshold: |w| at or below it is no connection; as in ``wiring_length``.
        n_runs: Louvain from different orders of the units; 3 is our choice, ``q_of_runs`` shows whether it is enough.
        n_shuffles: 99 (our choice) puts the smallest p-value at 0.01.

    Raises:
        ValueError: weights not square, NaN, a negative threshold, fewer than 3 connections between different units,
            or layers that do not match.

    Cost: ``n_runs`` times (1 + ``n_shuffles``) runs of Louvain, each 10 ms for 130 units at a tenth of all connections,
        0.5 s for 400 units all connected.

    References:
        Newman 2004, Phys. Rev. E 70, 056131. Blondel et al. 2008, arXiv 0803.0476 (networkx' implementation). Maslov &
        Sneppen 2002 and Rubinov & Sporns 2010, "Complex network measures of brain connectivity", for the null. Good,
        de Montjoye & Clauset 2010, arXiv 0910.0165, for the many partitions of nearly the same Q.
    """
    graph = _graph(weight, threshold)
    groups = np.zeros(len(graph), dtype=np.int64) if layers is None else np.asarray(layers)
    if groups.shape != (len(graph),):
        raise ValueError(f"layers must give the layer of each of the {len(graph)} units, got shape {groups.shape}")
    check_count("n_runs", n_runs, 1)
    check_count("n_shuffles", n_shuffles, 2)
    connected = graph.sum(axis=0) > 0
    kept = graph[np.ix_(connected, connected)]
    runs = [_louvain(kept, rng) for _ in range(n_runs)]
    q_of_runs = np.array([newman_q(kept, run) for run in runs])
    best = int(q_of_runs.argmax())
    null = [_best_q(rewired(kept, groups[connected], rng=rng), n_runs, rng) for _ in range(n_shuffles)]
    labels = np.full(len(graph), runs[best].max() + 1)
    labels[connected] = runs[best]
    return GraphModularity(
        labels=labels,
        connected=connected,
        test=ShuffleTest(float(q_of_runs[best]), np.array(null), "greater", "Newman's Q"),
        q_of_runs=q_of_runs,
        agreement_of_runs=_agreement(runs[best], runs[:best] + runs[best + 1 :]),
        threshold=float(threshold),
    )


def _graph(weight: Any, threshold: float) -> Graph:
    strength = abs(finite_array("weight", weight, "post pre"))
    if strength.shape[0] != strength.shape[1]:
        raise ValueError(
            f"weight must be square over the units of the net, got {strength.shape}; put the matrix of a feed-forward "
            "layer into one over the units of both its layers, and give layers"
        )
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative, got {threshold}")
    strength[strength <= threshold] = 0.0
    np.fill_diagonal(strength, 0.0)
    graph = strength + strength.T
    n_connections = int((graph > 0).sum()) // 2
    if n_connections < 3:
        raise ValueError(f"weight must connect at least 3 pairs above threshold = {threshold:g}, got {n_connections}")
    return graph


def _louvain(graph: Graph, rng: np.random.Generator) -> Int[np.ndarray, " unit"]:
    """One run, communities numbered from the largest down."""
    import networkx as nx  # late: 0.2 s

    found = nx.community.louvain_communities(nx.from_numpy_array(graph), seed=int(rng.integers(2**31)))
    labels = np.empty(len(graph), dtype=np.int64)
    for number, community in enumerate(sorted(found, key=lambda members: (-len(members), min(members)))):
        labels[list(community)] = number
    return labels


def _best_q(graph: Graph, n_runs: int, rng: np.random.Generator) -> float:
    return max(newman_q(graph, _louvain(graph, rng)) for _ in range(n_runs))


def _agreement(best: np.ndarray, others: list[np.ndarray]) -> Float[np.ndarray, " other"]:
    from sklearn.metrics import adjusted_rand_score  # late, as networkx

    return np.array([adjusted_rand_score(best, other) for other in others])

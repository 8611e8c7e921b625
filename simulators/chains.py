"""Which collision led to which: the order that the log gives to events that share a particle."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from .labels import event_intervals
from .state import Trajectories


@dataclass(frozen=True, eq=False)
class CollisionChains:
    """The causal graph of a log, one entry an event, in the order of the log.

    Attributes:
        parent_i: row of the collision before in which particle i took part, -1 for none in the window, (event,).
        parent_j: likewise for j; -1 for walls, (event,).
        generation: longest path back through parents: 0 for an event without any, (event,).
        chain: number of the connected part of the graph, counted from 0 in the order of first events, (event,).
    """

    parent_i: Int64[np.ndarray, " event"]
    parent_j: Int64[np.ndarray, " event"]
    generation: Int64[np.ndarray, " event"]
    chain: Int64[np.ndarray, " event"]


def collision_chains(trajectories: Trajectories, *, intervals: int | None = None) -> CollisionChains:
    """Link each collision to those just before it of the same particles, within windows of consecutive intervals.

    Each window starts afresh at its first frame, so ``generation`` counts how many collisions deep the causes reach
    since that frame: a model that sees frame k and predicts frame ``k + intervals`` must follow that many in turn.

    Args:
        trajectories: a run with its log; collisions with walls count, ghost discs link where overlaps begin.
        intervals: intervals between frames in a window, counted from frame 0; a last window may be shorter. None for
            the whole run as one.

    Returns:
        Parents, generation and chain of every event.

    Raises:
        ValueError: ``intervals`` below 1.

    Cost:
        O(events log events), and one round of array operations a generation.
    """
    log = trajectories.collisions
    if intervals is not None and intervals < 1:
        raise ValueError(f"intervals must be at least 1, got {intervals}")
    window = event_intervals(trajectories) // (intervals or trajectories.positions.shape[1])
    rows = np.arange(len(log))
    pair = log.j >= 0
    event = np.concatenate([rows, rows[pair]])
    particle = np.concatenate([log.i, log.j[pair]])
    order = np.lexsort((event, particle, window[event], log.system[event]))  # a particle's visits in turn
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for key in (log.system[event], window[event], particle):
        same &= key[order][1:] == key[order][:-1]
    parents = np.full(len(event), -1)
    parents[order[1:][same]] = event[order[:-1][same]]
    parent_i, parent_j = parents[: len(log)], np.full(len(log), -1)
    parent_j[pair] = parents[len(log) :]
    return CollisionChains(parent_i, parent_j, _generation(parent_i, parent_j), _chain(parent_i, parent_j))


def _generation(parent_i: np.ndarray, parent_j: np.ndarray) -> np.ndarray:
    """Return the longest path to each event, taking up events once all their parents are placed."""
    parent, child = _links(parent_i, parent_j)
    order = np.argsort(parent, kind="stable")
    child = child[order]
    first = np.searchsorted(parent[order], np.arange(len(parent_i) + 1))  # the children of an event lie together
    waiting = np.bincount(child, minlength=len(parent_i))
    generation = np.zeros(len(parent_i), dtype=np.int64)
    ready, depth = np.flatnonzero(waiting == 0), 0
    while len(ready):
        generation[ready] = depth
        counts = first[ready + 1] - first[ready]  # two at most
        reached = np.concatenate([child[first[ready[counts > k]] + k] for k in range(2)])
        reached, links = np.unique(reached, return_counts=True)
        waiting[reached] -= links
        ready, depth = reached[waiting[reached] == 0], depth + 1
    return generation


def _chain(parent_i: np.ndarray, parent_j: np.ndarray) -> np.ndarray:
    """Return which connected part each event belongs to."""
    # here: this import takes longer than all of simulators
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    parent, child = _links(parent_i, parent_j)
    graph = coo_array((np.ones(len(parent), dtype=np.bool_), (parent, child)), shape=(len(parent_i),) * 2)
    _, part = connected_components(graph, directed=False)
    _, first, inverse = np.unique(part, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _links(parent_i: np.ndarray, parent_j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (parent, child) of each link; two events that share both particles are linked twice."""
    rows = np.arange(len(parent_i))
    parent, child = np.concatenate([parent_i, parent_j]), np.concatenate([rows, rows])
    return parent[parent >= 0], child[parent >= 0]

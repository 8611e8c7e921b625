"""Graphs with the same degrees and the same weights, and nothing else in common."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

SWAPS_PER_EDGE = 10
"""Swaps tried for each connection, the iterations of the Brain Connectivity Toolbox (Rubinov & Sporns 2010)."""


def rewired(
    graph: Float[np.ndarray, "unit unit"], groups: Int[np.ndarray, " unit"], *, rng: np.random.Generator
) -> Float[np.ndarray, "unit unit"]:
    """Rewire a symmetric weighted graph: every unit keeps its number of connections, the weights are dealt out anew.

    Args:
        graph: symmetric, not negative, zero diagonal.
        groups: of each unit; a connection stays between the same two groups.
        rng: draws the swaps and deals the weights.

    Returns:
        A graph drawn nearly at random from all those of these degrees.
    """
    pairs = _pairs_of_groups(groups)
    result = np.zeros_like(graph)
    for pair in np.unique(pairs[pairs >= 0]):
        allowed = pairs == pair
        present = allowed & (graph > 0)
        if present.any():
            new = np.argwhere(np.triu(_swapped(present, allowed, rng)))
            result[new[:, 0], new[:, 1]] = rng.permutation(graph[np.triu(present)])
    return result + result.T


def _pairs_of_groups(groups: Int[np.ndarray, " unit"]) -> Int[np.ndarray, "unit unit"]:
    """Number of the unordered pair of groups that each pair of units belongs to, -1 on the diagonal."""
    group = np.unique(groups, return_inverse=True)[1]
    low, high = np.minimum.outer(group, group), np.maximum.outer(group, group)
    pairs = low * (group.max() + 1) + high
    np.fill_diagonal(pairs, -1)
    return pairs


def _swapped(
    present: Bool[np.ndarray, "unit unit"], allowed: Bool[np.ndarray, "unit unit"], rng: np.random.Generator
) -> Bool[np.ndarray, "unit unit"]:
    """Swap ends, a-b and c-d to a-d and c-b, wherever both new connections are allowed and absent.

    In a graph with most pairs connected the absent connections swap instead: the same moves, seldom refused.
    """
    is_dense = 2 * present.sum() > allowed.sum()
    moving = allowed & ~present if is_dense else present
    edges = np.argwhere(np.triu(moving)).tolist()
    if edges:
        free = (allowed & ~moving).tolist()
        n_tries = SWAPS_PER_EDGE * len(edges)
        drawn = rng.integers(len(edges), size=(n_tries, 2)).tolist()
        flips = (rng.random(n_tries) < 0.5).tolist()
        for (first, second), flip in zip(drawn, flips, strict=True):
            (a, b), (c, d) = edges[first], edges[second]
            if flip:
                c, d = d, c
            if free[a][d] and free[c][b]:
                for x, y, is_free in ((a, b, True), (c, d, True), (a, d, False), (c, b, False)):
                    free[x][y] = free[y][x] = is_free
                edges[first], edges[second] = [a, d], [c, b]
        moving = allowed & ~np.array(free)
    return allowed & ~moving if is_dense else moving

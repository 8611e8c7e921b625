"""Patterns and pairs: checks at the boundary, sums over pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Pattern = Float[np.ndarray, "scene head query key"]
Pairs = Float[np.ndarray, "scene query key"]
PairLabels = Bool[np.ndarray, "scene query key"]


def checked_pattern(pattern: np.ndarray, pairs: np.ndarray, name: str) -> Float[np.ndarray, "scene head query key"]:
    """Return a copy of the pattern in float64, zero at self; refuse shapes that disagree, NaN and infinities.

    What a particle gives to itself is left out of everything, so any value may stand there, NaN included.
    """
    if pattern.ndim != 4 or pattern.shape[2] != pattern.shape[3]:
        raise ValueError(f"pattern must have shape (scene, head, query, key) with queries = keys, got {pattern.shape}")
    expected = (pattern.shape[0], *pattern.shape[2:])
    if pairs.shape != expected:
        raise ValueError(f"{name} must have shape {expected} to match pattern {pattern.shape}, got {pairs.shape}")
    if pattern.shape[-1] < 2:
        raise ValueError("pattern must have at least 2 keys: a lone particle has no partner")
    if len(pattern) == 0:
        raise ValueError(f"pattern must hold at least 1 scene, got shape {pattern.shape}")
    pairs_of_two = others(pattern.shape[-1])
    for what, array in (("pattern", pattern), (name, pairs)):
        bad = ~np.isfinite(array) & pairs_of_two
        if bad.any():
            where = tuple(np.argwhere(bad)[0].tolist())
            raise ValueError(f"{what} must be finite; {bad.sum()} entries are not, first {array[where]} at {where}")
    return np.where(pairs_of_two, pattern, 0.0).astype(np.float64, copy=False)


def checked_labels(labels: np.ndarray, pattern: np.ndarray, name: str) -> Bool[np.ndarray, "scene query key"]:
    """Return the labels, False at self; refuse a shape that does not match the pattern, and numbers."""
    expected = (pattern.shape[0], *pattern.shape[2:])
    if labels.shape != expected:
        raise ValueError(f"{name} must have shape {expected} to match pattern {pattern.shape}, got {labels.shape}")
    if labels.dtype != np.bool_:
        raise TypeError(f"{name} must be bool, got {labels.dtype}; compare with a threshold first")
    return labels & others(pattern.shape[-1])


def others(n_particles: int) -> Bool[np.ndarray, "query key"]:
    """Pairs of two different particles."""
    return ~np.eye(n_particles, dtype=bool)


def binned_sums(
    attention: np.ndarray, distances: np.ndarray, edges: np.ndarray
) -> tuple[Float[np.ndarray, "scene head bin"], Float[np.ndarray, "scene bin"]]:
    """Attention summed, and pairs counted, in bins of distance (left edge in, right edge out); self left out."""
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        raise ValueError(f"edges must ascend, be finite and hold at least 2 values, got {edges.tolist()}")
    pairs = others(distances.shape[-1])
    in_bin = (np.searchsorted(edges, distances[:, pairs], side="right") - 1)[..., None] == np.arange(len(edges) - 1)
    return attention[:, :, pairs] @ in_bin.astype(np.float64), in_bin.sum(axis=1).astype(np.float64)

"""The length of a network's wiring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import finite_array

NEGLIGIBLE = 1e-3
"""Largest |w| that is taken for no connection (our choice). In the figures of arXiv 2310.07711 the summed |w| of a unit
falls from 0.1 to 1e-5 within ten ranks, from the units in use to the silent ones; 1e-3 lies in that gap."""


@dataclass(frozen=True)
class WiringLength:
    """How much wire the connections of a network take, in both forms.

    Attributes:
        count: summed length of the connections above the threshold, in units of the distances.
        weighted: sum of |w| times length over all connections.
        n_connections: those above the threshold.
        mean_length: of a connection above the threshold; NaN where there is none.
        random_length: mean distance of all pairs (post, pre), that of as many connections dealt out at random.
        threshold: as given.
    """

    count: float
    weighted: float
    n_connections: int
    mean_length: float
    random_length: float
    threshold: float


def wiring_length(weight: Any, distances: Any, *, threshold: float = NEGLIGIBLE) -> WiringLength:
    """Length of the wiring: of the connections there are, and of all weighted by their strength.

    Both are exact for the weights given; their uncertainty is that from seed to seed. The count form depends on the
    threshold: report it with the number, or over a decade of thresholds.

    Args:
        weight: shape (post, pre), recurrent or feed-forward.
        distances: of each pair, same shape. The published values fit grid cells: for ``cells`` of shape (unit, 2),
            ``scipy.spatial.distance.cdist(cells, cells, "cityblock")`` gives Manhattan, ``"euclidean"`` straight lines.
        threshold: |w| above which a connection counts. ``NEGLIGIBLE`` says where the default comes from.

    Raises:
        ValueError: shapes that disagree, NaN, negative distances, or a negative threshold.

    References:
        Liu et al. 2023, arXiv 2310.07711: that its wiring length is the count form is inferred from its magnitude
        (all pairs of a 20 x 20 grid make 2.13e6 cells by Manhattan, 1.67e6 straight). Liu, Gan & Tegmark 2023,
        arXiv 2305.08746, for the weighted form, which is the penalty of the training.

    Example:
        >>> wire = wiring_length([[0.0, 2.0], [0.0, 0.0]], [[0.0, 3.0], [3.0, 0.0]])
        >>> wire.count, wire.weighted
        (3.0, 6.0)
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative, got {threshold}")
    strength = abs(finite_array("weight", weight, "post pre"))
    length = finite_array("distances", distances, "post pre")
    if length.shape != strength.shape:
        raise ValueError(f"distances must have the shape of weight, {strength.shape}, got {length.shape}")
    if (length < 0).any():
        raise ValueError(f"distances must not be negative, got {length.min():g}")
    present = strength > threshold
    count, n_connections = float(length[present].sum()), int(present.sum())
    return WiringLength(
        count=count,
        weighted=float((strength * length).sum()),
        n_connections=n_connections,
        mean_length=count / n_connections if n_connections else np.nan,
        random_length=float(length.mean()),
        threshold=float(threshold),
    )

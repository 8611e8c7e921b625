"""Groups of scenes are the independent units: errors and intervals of sums over scenes.

Scenes cut from one simulated box, or frames of one film, are not independent; whole groups are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

Groups = Int[np.ndarray, " scene"]


def group_index(groups: np.ndarray | None, n_scenes: int) -> tuple[Int[np.ndarray, " scene"], int]:
    """Number the groups from 0; None makes every scene a group of its own."""
    if groups is None:
        return np.arange(n_scenes), n_scenes
    if len(groups) != n_scenes:
        raise ValueError(f"groups must label each of the {n_scenes} scenes, got {len(groups)} labels")
    labels, index = np.unique(groups, return_inverse=True)
    return index, len(labels)


def student_quantile(groups: np.ndarray | None, n_scenes: int) -> float:
    """Half width of a 95 % interval in standard errors: Student's t with one degree of freedom less than groups."""
    return float(stdtrit(group_index(groups, n_scenes)[1] - 1, 0.975))


def error_of_sum(influence: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Standard error of a sum over the first axis, when scenes of one group move together.

    ``influence`` holds what each scene adds to the deviation of the estimate (its terms sum to zero); the sum over a
    group is one independent draw of it. NaN for fewer than two groups.
    """
    index, n_groups = group_index(groups, len(influence))
    if n_groups < 2:
        return np.full(influence.shape[1:], np.nan)
    totals = np.zeros((n_groups, *influence.shape[1:]))
    np.add.at(totals, index, influence)
    return np.asarray(np.sqrt((totals**2).sum(axis=0) * n_groups / (n_groups - 1)))


def interval(value: np.ndarray, influence: np.ndarray, groups: np.ndarray | None) -> Float[np.ndarray, "*shape 2"]:
    """95 % interval of an estimate from its influence, Student's t; NaN for fewer than two groups."""
    half = student_quantile(groups, len(influence)) * error_of_sum(influence, groups)
    return np.stack([value - half, value + half], axis=-1)


def correlation_interval(
    value: np.ndarray, influence: np.ndarray, groups: np.ndarray | None
) -> Float[np.ndarray, "*shape 2"]:
    """The same for a number between -1 and 1: symmetric on Fisher's scale, artanh, so that it stays inside.

    It shrinks to the value where that is -1 or 1: a perfect order does not say how perfect.
    """
    half = student_quantile(groups, len(influence)) * error_of_sum(influence, groups)
    inside = np.clip(value, -1 + 1e-12, 1 - 1e-12)
    half = half / (1 - inside**2)
    ends = np.tanh(np.arctanh(inside)[..., None] + np.stack([-half, half], axis=-1))
    return np.where((half == 0)[..., None], np.asarray(value)[..., None], ends)

"""What learning a new task costs the old ones, and whether modules spare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

from .arrays import finite_array


@dataclass(frozen=True)
class Interference:
    """Accuracy that old tasks lose while a new one is learnt, and how arms differ in it.

    Attributes:
        arms: names; the first is the reference.
        drop: accuracy lost, before less after.
        mean: over old tasks and seeds, of each arm, all cells.
        interval: 95 % of the mean over seeds, Student's t; NaN for one seed.
        matched: cells in which an arm may be compared with the reference: they began within ``tolerance`` of each
            other (and, where given, learnt the new task within it).
        difference: drop of the arm less that of the reference, the mean over seeds of the mean over matched tasks;
            negative where the arm interferes less. The reference's own is 0; NaN without a matched cell.
        difference_interval: 95 % over seeds, paired, Student's t; NaN for fewer than two seeds with a matched cell.
        n_seeds_matched: seeds with a matched cell.
        tolerance: as given.
    """

    arms: tuple[str, ...]
    drop: Float[np.ndarray, "arm seed task"]
    mean: Float[np.ndarray, " arm"]
    interval: Float[np.ndarray, "arm 2"]
    matched: Bool[np.ndarray, "arm seed task"]
    difference: Float[np.ndarray, " arm"]
    difference_interval: Float[np.ndarray, "arm 2"]
    n_seeds_matched: Int[np.ndarray, " arm"]
    tolerance: float


def interference(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    learnt: Mapping[str, Any] | None = None,
    tolerance: float = 0.05,
) -> Interference:
    """Compare arms of training in how much of the old tasks a new task costs, seed by seed at matched performance.

    Arms that know the old tasks less well have less to lose, and arms that hardly learn the new one disturb less; a
    comparison is of use only where both are alike. Seeds are the independent units: tasks of one network are not.
    Intervals are Student's t: a percentile bootstrap over 5 seeds covers 84 % for a nominal 95 % (2,000 normal worlds).

    Args:
        before: accuracy in the old tasks before the new one is learnt, arm to array (seed, task); the first arm is
            the reference, and row i of every arm is the same seed.
        after: the same afterwards, same arms and shapes.
        learnt: accuracy in the new task afterwards, arm to array (seed,); None takes the arms as alike in it.
        tolerance: largest difference in accuracy of cells that count as matched; 0.05 is our choice.

    Raises:
        ValueError: no arm, arms or shapes that disagree, NaN, or a negative tolerance.

    References:
        McCloskey & Cohen 1989 and French 1999, "Catastrophic forgetting in connectionist networks", for the
        phenomenon. Chaudhry et al. 2018, arXiv 1801.10112, section 3.2, for forgetting as this drop.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    arms = tuple(before)
    first, second = _stacked("before", before, arms, "seed task"), _stacked("after", after, arms, "seed task")
    if first.shape != second.shape:
        raise ValueError(f"before and after must have one shape, got {first.shape[1:]} and {second.shape[1:]}")
    alike = abs(first - first[0]) <= tolerance
    if learnt is not None:
        new = _stacked("learnt", learnt, arms, "seed")
        if new.shape != first.shape[:2]:
            raise ValueError(f"learnt must hold one number for each of {first.shape[1]} seeds, got {new.shape[1]}")
        alike &= (abs(new - new[0]) <= tolerance)[..., None]
    drop = first - second
    paired = [_mean_over_tasks(of_arm, cells) for of_arm, cells in zip(drop - drop[0], alike, strict=True)]
    mean, interval = _over_seeds(list(drop.mean(axis=-1)))
    difference, difference_interval = _over_seeds(paired)
    return Interference(
        arms=arms,
        drop=drop,
        mean=mean,
        interval=interval,
        matched=alike,
        difference=difference,
        difference_interval=difference_interval,
        n_seeds_matched=np.array([len(seeds) for seeds in paired]),
        tolerance=float(tolerance),
    )


def _stacked(name: str, of_arms: Mapping[str, Any], arms: tuple[str, ...], shape: str) -> np.ndarray:
    if not arms or tuple(sorted(of_arms)) != tuple(sorted(arms)):
        raise ValueError(f"{name} must hold the arms {sorted(arms)} of before, at least one, got {sorted(of_arms)}")
    arrays = [finite_array(f"{name}[{arm!r}]", of_arms[arm], shape) for arm in arms]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"the arms of {name} must have one shape, got {[array.shape for array in arrays]}")
    return np.stack(arrays)


def _mean_over_tasks(values: np.ndarray, cells: np.ndarray) -> Float[np.ndarray, " kept"]:
    """Mean of each seed over its cells, of the seeds that have any."""
    kept = cells.any(axis=1)
    return (values * cells).sum(axis=1)[kept] / cells.sum(axis=1)[kept]


def _over_seeds(arms: list[np.ndarray]) -> tuple[Float[np.ndarray, " arm"], Float[np.ndarray, "arm 2"]]:
    """Mean over seeds with its 95 % interval."""
    mean, ends = np.full(len(arms), np.nan), np.full((len(arms), 2), np.nan)
    for arm, seeds in enumerate(arms):
        if len(seeds):
            mean[arm] = seeds.mean()
        if len(seeds) > 1:
            half = stdtrit(len(seeds) - 1, 0.975) * seeds.std(ddof=1) / np.sqrt(len(seeds))
            ends[arm] = mean[arm] - half, mean[arm] + half
    return mean, ends

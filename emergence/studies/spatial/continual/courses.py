"""How old accuracy falls while new accuracy rises, and both at matched accuracy in the new tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ....interventions.spatial import ArmName
from .config import ContinualStudyConfig

N_LEVELS = 50


@dataclass(frozen=True)
class Course:
    """One run while it learns the new tasks.

    Attributes:
        arm, seed: of the run.
        steps: on the new tasks, from 0.
        old: accuracy in each old task.
        new: in the new ones, their mean.
    """

    arm: ArmName
    seed: int
    steps: Float[np.ndarray, " step"]
    old: Float[np.ndarray, "step task"]
    new: Float[np.ndarray, " step"]

    def first_at(self, level: float) -> tuple[float, Float[np.ndarray, " task"]] | None:
        """Step and old accuracies where the new accuracy first reaches a level; None where it never does.

        Linear between two checkpoints, in log (1 + step) and in accuracy.
        """
        reached = np.flatnonzero(self.new >= level)
        if not len(reached):
            return None
        after = reached[0]
        before = max(after - 1, 0)
        rise = self.new[after] - self.new[before]
        share = (level - self.new[before]) / rise if rise > 0 else 1.0
        old = self.old[before] + share * (self.old[after] - self.old[before])
        log_steps = np.log1p(self.steps)
        return float(np.expm1(log_steps[before] + share * (log_steps[after] - log_steps[before]))), old

    def mean_old_at(self, levels: Float[np.ndarray, " level"]) -> Float[np.ndarray, "level task"]:
        """Old accuracies at several levels; NaN where one is never reached."""
        found = [self.first_at(float(level)) for level in levels]
        missing = np.full(self.old.shape[1], np.nan)
        return np.array([missing if at is None else at[1] for at in found])


def courses(table: pd.DataFrame, config: ContinualStudyConfig, later_price: float) -> list[Course]:
    """All runs of a condition, in the order of arms and seeds; arms without a price are in each."""
    found = []
    for run in config.runs:
        price = later_price if later_price in config.prices_later(run.arm) else 1.0
        rows: Any = table[(table.arm == run.arm) & (table.seed == run.seed) & (table.later_price == price)]
        accuracy = rows.pivot(index="step", columns="task", values="accuracy")
        old, new = (accuracy[list(names)].to_numpy() for names in (config.old_tasks, config.new_tasks))
        found.append(Course(run.arm, run.seed, accuracy.index.to_numpy(dtype=float), old, new.mean(axis=1)))
    return found


def matched_accuracy(runs: list[Course], config: ContinualStudyConfig) -> float | None:
    """The threshold of the settings, or the highest whole percent that every run reaches.

    None where that is no more than some run had before it learnt: nothing could be compared there.
    """
    if config.threshold is not None:
        return config.threshold
    reached = np.floor(100 * min(run.new.max() for run in runs) + 1e-9) / 100
    return float(reached) if reached > highest_before(runs) else None


def highest_before(runs: list[Course]) -> float:
    """Accuracy in the new tasks before they were learnt, of the run that had most."""
    return float(max(run.new[0] for run in runs))


def levels_to(threshold: float, runs: list[Course]) -> Float[np.ndarray, " level"]:
    """Accuracies in the new tasks from what some run had before, to the threshold."""
    start = min(highest_before(runs), threshold)
    return np.linspace(start, threshold, N_LEVELS + 1)[1:]

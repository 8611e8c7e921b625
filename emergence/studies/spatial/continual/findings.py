"""From the table of a continual study to its findings: what was lost at matched accuracy, arm against arm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes import interference

from ....findings import without_nan
from ....interventions.spatial import ArmName
from ..findings import mean_interval
from .config import ContinualStudyConfig
from .courses import Course, courses, highest_before, levels_to, matched_accuracy

QUANTITIES = ("drop", "drop_on_the_way")
"""Old accuracy lost where the new tasks first reach the threshold; and the mean of that over the way there."""


def summarize(table: pd.DataFrame, config: ContinualStudyConfig) -> dict[str, Any]:
    """Findings of a study.

    ``before``: old accuracy of each arm at the end of the first stage; ``conditions``: one a later price of wire, with
    the threshold, each arm's losses there, and ``differences`` of the full method from L1 and none, seed by seed over
    the old tasks in which both began alike (``probes.interference``). Intervals are Student's, 95 % over seeds.
    """
    first = courses(table, config, config.later_prices[0])
    strengths = {run.arm: run.strength for run in config.runs}
    return without_nan(
        {
            "example": config.example,
            "old": list(config.old_tasks),
            "new": list(config.new_tasks),
            "seeds": list(config.seeds),
            "tolerance": config.tolerance,
            "before": [
                {"arm": arm, "strength": strengths[arm], "accuracy": mean_interval(_before(first, arm).mean(axis=1))}
                for arm in config.arms
            ],
            "before_differences": [
                {"arm": "full", "less": other, **_difference_before(first, other)} for other in _others(config)
            ],
            "conditions": [
                _condition(courses(table, config, later_price), config, later_price)
                for later_price in config.later_prices
            ],
        }
    )


def _condition(runs: list[Course], config: ContinualStudyConfig, later_price: float) -> dict[str, Any]:
    threshold = matched_accuracy(runs, config)
    found: dict[str, Any] = {
        "later_price": later_price,
        "threshold": threshold,
        "highest_before": highest_before(runs),
        "arms": [],
        "differences": [],
    }
    if threshold is None:
        return found
    after = {quantity: _after(runs, threshold, quantity) for quantity in QUANTITIES}
    for arm in config.arms:
        drops = {
            quantity: (_before(runs, arm) - _of(runs, arm, values)).mean(axis=1) for quantity, values in after.items()
        }
        reached = [at for run in runs if run.arm == arm and (at := run.first_at(threshold)) is not None]
        found["arms"].append(
            {
                "arm": arm,
                "n_reached": len(reached),
                "steps": mean_interval(np.array([step for step, _ in reached])),
                **{quantity: mean_interval(values) for quantity, values in drops.items()},
            }
        )
    found["differences"] = [
        {"quantity": quantity, "arm": "full", "less": other, **_difference(runs, values, other, config)}
        for other in _others(config)
        for quantity, values in after.items()
    ]
    return found


def _others(config: ContinualStudyConfig) -> list[ArmName]:
    """Arms that the full method is compared with."""
    return [arm for arm in config.arms if arm in ("l1", "none") and "full" in config.arms]


def _difference_before(runs: list[Course], other: ArmName) -> dict[str, Any]:
    """Of old accuracy at the end of the first stage, seed by seed."""
    found = mean_interval((_before(runs, "full") - _before(runs, other)).mean(axis=1))
    return {name: found[name] for name in ("mean", "interval")}


def _after(runs: list[Course], threshold: float, quantity: str) -> list[np.ndarray]:
    """Old accuracies of each run that a drop leads to; NaN where the threshold is never reached."""
    levels = np.array([threshold]) if quantity == "drop" else levels_to(threshold, runs)
    return [run.mean_old_at(levels).mean(axis=0) for run in runs]


def _difference(
    runs: list[Course], after: list[np.ndarray], other: ArmName, config: ContinualStudyConfig
) -> dict[str, Any]:
    """Of the full method less another arm, over the seeds in which both reached the threshold."""
    arms: tuple[ArmName, ArmName] = (other, "full")
    ends = {arm: _of(runs, arm, after) for arm in arms}
    both = np.isfinite(ends[other] + ends["full"]).all(axis=1)
    if not both.any():
        return {"mean": None, "interval": [None, None], "n_seeds": 0, "n_matched": 0, "n_cells": 0}
    found = interference(
        {arm: _before(runs, arm)[both] for arm in arms},
        {arm: ends[arm][both] for arm in arms},
        tolerance=config.tolerance,
    )
    return {
        "mean": found.difference[1],
        "interval": found.difference_interval[1].tolist(),
        "n_seeds": int(found.n_seeds_matched[1]),
        "n_matched": int(found.matched[1].sum()),
        "n_cells": found.matched[1].size,
    }


def _before(runs: list[Course], arm: ArmName) -> np.ndarray:
    """Old accuracies at the end of the first stage, (seed, task)."""
    return _of(runs, arm, [run.old[0] for run in runs])


def _of(runs: list[Course], arm: ArmName, values: list[np.ndarray]) -> np.ndarray:
    """The rows of an arm, (seed, task)."""
    return np.array([value for run, value in zip(runs, values, strict=True) if run.arm == arm])

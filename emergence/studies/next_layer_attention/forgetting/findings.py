"""From the table of a study of forgetting to its findings: each rule at its own best learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ....findings import without_nan
from ...compare.findings import paired, sides
from ...spatial.findings import mean_interval
from ...tuning import chosen_rates
from ..findings import REFERENCE
from .config import ForgettingStudyConfig

QUANTITIES = {
    "first_accuracy": "first task when left",
    "second_drop": "of it lost to the second",
    "drop": "lost of a task at the end",
    "average": "accuracy over tasks at the end",
    "steps": "steps a task",
    "learnt": "share of tasks learnt",
}
TOLERANCE = 0.02
"""Difference of first-task accuracy within which rules count as matched: eight pictures of the permuted test; ours."""


def at_chosen_rates(table: pd.DataFrame) -> Any:
    """The rows of each rule at its own best learning rate."""
    return table.merge(chosen_rates(table, ["rule"]))


def accuracies(rows: Any) -> np.ndarray:
    """``R[after, of]``: accuracy in each task after each, a mean over what is given.

    Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), section 2.
    """
    found = rows[rows.quantity == "accuracy"]
    return found.pivot_table(index="after", columns="of", values="value").to_numpy()


def summarize(table: pd.DataFrame, config: ForgettingStudyConfig) -> dict[str, Any]:
    """Findings: means over seeds with intervals, and differences from backpropagation, paired by seed."""
    rates: Any = chosen_rates(table, ["rule"]).set_index("rule").learning_rate
    runs: Any = over_rates(table)
    by_rule = {rule: runs.loc[rule, rates[rule]] for rule in config.rules}
    entries = []
    for rule, found in by_rule.items():
        entry: dict[str, Any] = {"rule": rule, "learning_rate": float(rates[rule])}
        for quantity in QUANTITIES:
            entry[quantity] = mean_interval(found[quantity].to_numpy(float))
            if rule != REFERENCE and REFERENCE in by_rule:
                entry[f"{quantity}_difference"] = paired(found[quantity] - by_rule[REFERENCE][quantity])
        if "first_accuracy_difference" in entry:
            entry["is_matched"] = abs(entry["first_accuracy_difference"]["mean"]) <= TOLERANCE
        entries.append(entry)
    return without_nan({"task": config.task, "seeds": list(config.seeds), "rules": entries})


def over_rates(table: pd.DataFrame) -> pd.DataFrame:
    """What every network kept and lost: a row a rule, rate and seed, a column a quantity."""
    runs = table.groupby(["rule", "learning_rate", "seed"])
    return pd.DataFrame({key: of_run(rows) for key, rows in runs}).T.rename_axis(["rule", "learning_rate", "seed"])


def of_run(rows: Any) -> dict[str, float]:
    """What one network kept and lost."""
    kept = accuracies(rows)
    left, last = np.diag(kept), kept[-1]
    return {
        "first_accuracy": kept[0, 0],
        "second_drop": kept[0, 0] - kept[1, 0],
        "drop": (left - last)[:-1].mean(),
        "average": last.mean(),
        "steps": rows[rows.quantity == "steps"].value.mean(),
        "learnt": rows[rows.quantity == "is_learnt"].value.mean(),
    }


def first_over_second(rows: Any, levels: np.ndarray) -> np.ndarray:
    """First-task accuracy when second-task accuracy first reached each level; NaN where it never did."""
    curves = [rows[rows.quantity == name].sort_values("step").value.to_numpy() for name in ("first", "second")]
    first, best = curves[0], np.maximum.accumulate(curves[1])
    reached = np.searchsorted(best, levels)
    return np.where(reached < len(first), first[np.minimum(reached, len(first) - 1)], np.nan)


def wins(summary: dict[str, Any], quantity: str) -> dict[str, tuple[int, int, int]]:
    """Whether each rule has less, undecided, or more than backpropagation, by the interval of the difference."""
    return sides(summary["rules"], f"{quantity}_difference", "rule")

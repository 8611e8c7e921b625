"""From the table of a study of next-layer attention to its findings: each rule at its own best learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...findings import without_nan
from ..compare.findings import paired, sides
from ..spatial.findings import mean_interval
from ..tuning import chosen_rates
from .config import NextLayerStudyConfig

QUANTITIES = {
    "error": "error on test",
    "steps_to_half": "steps to half the first error",
    "alignment": "cosine to the true gradient, mean over layers",
    "alignment_first": "cosine, first layer",
    "error_silenced": "error with 30 % of neurons silenced",
    "silenced_rise": "rise of the error by silencing them",
}
SHOWN_SHARE = 0.3
"""Of neurons silenced, at which robustness is told; all shares are in the table."""
CROSSING = {
    "activities": "numbers forwards, an example",
    "signals": "numbers backwards, an example",
    "copied_weights": "weights copied, a step",
}
CELL = ["rule", "depth", "drop"]
REFERENCE = "backpropagation"


def at_chosen_rates(table: pd.DataFrame) -> Any:
    """The rows of each rule, depth and drop at their own best learning rate."""
    return table.merge(chosen_rates(table, CELL))


def seed_table(rows: Any) -> pd.DataFrame:
    """One row a rule, depth, drop and seed, one column a quantity; what was not found or not measured is NaN."""
    found = [
        {**dict(zip([*CELL, "seed"], key, strict=True)), **_of_run(of_run)}
        for key, of_run in rows.groupby([*CELL, "seed"], sort=False)
    ]
    return pd.DataFrame(found)


def summarize(table: pd.DataFrame, config: NextLayerStudyConfig) -> dict[str, Any]:
    """Findings: means over seeds with intervals, and differences from backpropagation, paired by seed."""
    rows = at_chosen_rates(table)
    by_cell: dict[Any, Any] = {key: of_cell.set_index("seed") for key, of_cell in seed_table(rows).groupby(CELL)}
    entries = []
    for rule, depth, drop in ((r, d, p) for p in config.drops for d in config.depths for r in config.rules):
        ours, true = by_cell[rule, depth, drop], by_cell.get((REFERENCE, depth, drop))
        entry: dict[str, Any] = {"rule": rule, "depth": depth, "drop": drop}
        entry["learning_rate"] = float(ours.learning_rate.iloc[0])
        entry |= {name: ours[name].iloc[0] for name in CROSSING}
        for quantity in QUANTITIES:
            entry[quantity] = mean_interval(ours[quantity].to_numpy(float))
            if true is not None and rule != REFERENCE:
                entry[f"{quantity}_difference"] = paired(ours[quantity] - true[quantity])
        entries.append(entry)
    return without_nan({"task": config.task, "seeds": list(config.seeds), "rules": entries})


def wins(summary: dict[str, Any], quantity: str) -> dict[str, tuple[int, int, int]]:
    """How often each rule is better, undecided and worse than backpropagation: by intervals of the difference."""
    return sides(summary["rules"], f"{quantity}_difference", "rule")


def steps_to_half(steps: np.ndarray, errors: np.ndarray) -> float:
    """The step at which the error first falls below half of what it was at step 0; NaN if it never does.

    Interpolated in the logarithm of the step between checkpoints; before the first of them that has one, that one.

    Args:
        steps: of the checkpoints, ascending from 0.
        errors: at each.
    """
    half = errors[0] / 2
    below = np.flatnonzero(errors < half)
    if not len(below):
        return np.nan
    after = int(below[0])
    if after == 1:
        return float(steps[1])
    before = after - 1
    share = (errors[before] - half) / (errors[before] - errors[after])
    return float(steps[before] * (steps[after] / steps[before]) ** share)


def _of_run(rows: Any) -> dict[str, float]:
    ended = rows[rows.moment == "end"]
    numbers = ended[ended.coordinate.isna()].set_index("quantity").value
    silenced = ended[(ended.quantity == "error_silenced") & (ended.coordinate == SHOWN_SHARE)].value.mean()
    alignment = ended[ended.quantity == "alignment"].sort_values("coordinate").value
    curve = rows[rows.quantity == "error"].sort_values("step")
    error = numbers.get("error", np.nan)
    return {
        "learning_rate": rows.learning_rate.iloc[0],
        "error": error,
        "steps_to_half": steps_to_half(curve.step.to_numpy(), curve.value.to_numpy()) if len(curve) else np.nan,
        "alignment": alignment.mean(),
        "alignment_first": alignment.iloc[0] if len(alignment) else np.nan,
        "error_silenced": silenced,
        "silenced_rise": silenced - error,
        **{name: numbers.get(name, np.nan) for name in CROSSING},
    }

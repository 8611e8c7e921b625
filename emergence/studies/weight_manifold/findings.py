"""From the table of a study of weight manifolds to its findings: each arm at its own best learning rate."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...findings import without_nan
from ..compare.findings import paired
from ..spatial.findings import mean_interval
from ..tuning import chosen_rates
from .config import ManifoldStudyConfig

QUANTITIES = {
    "error_learnt": "contexts learnt",
    "error_interpolation": "between them",
    "error_extrapolation": "beyond them",
}


def at_chosen_rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each arm at its own best learning rate."""
    return table.merge(chosen_rates(table, ["arm"]))


def summarize(table: pd.DataFrame, config: ManifoldStudyConfig) -> dict[str, Any]:
    """Mean errors over seeds with intervals, and how the manifold differs from each other arm, paired by seed."""
    rows: Any = at_chosen_rates(table)
    by_seed = rows[rows.quantity.isin(list(QUANTITIES))].pivot_table(
        index=["arm", "seed"], columns="quantity", values="value"
    )
    measured = set(by_seed.index.get_level_values("arm"))
    entries = []
    for arm in (arm for arm in config.arms if arm in measured):
        of_arm = rows[rows.arm == arm]
        entry: dict[str, Any] = {"arm": arm, "learning_rate": float(of_arm.learning_rate.iloc[0])}
        entry["n_parameters"] = int(of_arm.n_parameters.iloc[0])
        for quantity in QUANTITIES:
            values = by_seed.loc[arm][quantity]
            entry[quantity] = mean_interval(values.to_numpy(float))
            if arm != "manifold" and "manifold" in measured:
                entry[f"{quantity}_difference"] = paired(by_seed.loc["manifold"][quantity] - values)
        entries.append(entry)
    return without_nan({"task": config.task, "seeds": list(config.seeds), "arms": entries})

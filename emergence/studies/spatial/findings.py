"""From the table of a spatial study to its findings: means over seeds with intervals, and paired comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...findings import without_nan
from .config import SpatialStudyConfig

QUANTITIES = (
    "error",
    "n_active",
    "n_connections",
    "wiring_count",
    "wiring_weighted",
    "graph_modularity",
    "isolated",
    "isolated_by_index",
    "cluster_spread",
    "n_clusters",
    "agreement",
)


def summarize(table: pd.DataFrame, config: SpatialStudyConfig) -> dict[str, Any]:
    """Findings of a study: one entry an arm and price, with each quantity's mean, 95 % interval and values by seed.

    Quantities with a null also have how many of its standard deviations they lie from its mean, and in how many seeds
    they lie below or above its central 95 %; a seed in which no shuffle changes the number has no such distance.
    """
    numbers: Any = table[table.coordinate.isna()]  # pandas' types cannot tell a table from a column
    arms = []
    for arm, strength in numbers[["arm", "strength"]].drop_duplicates().itertuples(index=False):
        rows = numbers[(numbers.arm == arm) & (numbers.strength == strength)]
        arms.append({"arm": arm, "strength": float(strength), **_arm(rows)})
    return without_nan({"example": config.example, "seeds": list(config.seeds), "arms": arms})


def _arm(rows: pd.DataFrame) -> dict[str, Any]:
    values = rows.pivot(index="seed", columns="quantity", values="value")
    errors = rows.pivot(index="seed", columns="quantity", values="standard_error")
    found: dict[str, Any] = {}
    for name in QUANTITIES:
        if name not in values:
            continue
        observed = values[name].to_numpy()
        found[name] = mean_interval(observed)
        if f"{name}_null" in values:
            null, low, high = (values[f"{name}_null{end}"].to_numpy() for end in ("", "_low", "_high"))
            spread = errors[f"{name}_null"].to_numpy()
            found[f"{name}_z"] = mean_interval((observed - null) / np.where(spread > 1e-9 * abs(null), spread, np.nan))
            found[f"{name}_below_null"] = int((observed < low).sum())
            found[f"{name}_above_null"] = int((observed > high).sum())
    return found


def mean_interval(values: np.ndarray) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval, which needs two; NaN (not measured) is left out and counted."""
    found = values[np.isfinite(values)]
    n = len(found)
    mean = found.mean() if n else np.nan
    half = stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return {"mean": mean, "interval": [mean - half, mean + half], "values": values.tolist(), "n": n}

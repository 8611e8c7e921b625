"""From the table of a structured study to its findings: each arm at its own best learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes import conditioning_bound

from ...findings import without_nan
from ..compare.findings import paired, sides
from ..spatial.findings import mean_interval
from ..tuning import chosen_rates
from .config import StructuredStudyConfig

QUANTITIES = {
    "error": "error on test",
    "train_loss": "training loss",
    "gradient_ratio": "log10 gradient, largest over smallest",
    "condition": "log10 condition number of the hidden layers",
    "condition_without_tanh": "log10 condition, tanh left out, worst input",
    "sensitivity": "sensitivity to noise on the input",
    "noise_rise": "rise of the loss, noise at a layer",
    "noise_rise_worst": "rise of the loss, at the worst layer",
    "correction_ratio": "correction's share of a layer's output",
}
SHOWN_SCALE = 0.1
"""Noise, in units of what it is added to, at which sensitivity and robustness are told; all are in the table."""
CELL = ["arm", "depth", "width"]


def seed_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, depth, width, moment and seed, at the chosen rate; one column a quantity, layers averaged."""
    at_rate = table.merge(chosen_rates(table, CELL))
    shown: Any = at_rate[at_rate.quantity.isin(list(QUANTITIES))]
    per_scale = shown.quantity.isin(["sensitivity", "noise_rise", "noise_rise_worst"])
    shown = shown[~per_scale | (shown.coordinate == SHOWN_SCALE)]
    index = [*CELL, "learning_rate", "n_parameters", "moment", "seed"]
    return shown.pivot_table(index=index, columns="quantity", values="value").reset_index()


def summarize(table: pd.DataFrame, config: StructuredStudyConfig) -> dict[str, Any]:
    """Findings: means over seeds with intervals at the end of training, and differences of the structured arm."""
    seeds: Any = seed_table(table)  # pandas' types cannot tell a table from a column
    ended = seeds[seeds.moment == "end"]
    quantities = [q for q in QUANTITIES if q in ended]
    entries = []
    for (arm, depth, width), rows in ended.groupby(CELL, sort=False):
        entry: dict[str, Any] = {"arm": arm, "depth": int(depth), "width": int(width)}
        entry["learning_rate"] = float(rows.learning_rate.iloc[0])
        entry["n_parameters"] = int(rows.n_parameters.iloc[0])
        entry["condition_bound"] = float(np.log10(conditioning_bound(config.correction, int(depth))))
        ours = ended[(ended.arm == "structured") & (ended.depth == depth) & (ended.width == width)].set_index("seed")
        for quantity in quantities:
            entry[quantity] = mean_interval(rows[quantity].to_numpy(float))
            if arm != "structured" and len(ours):
                entry[f"{quantity}_difference"] = paired(ours[quantity] - rows.set_index("seed")[quantity])
        entries.append(entry)
    return without_nan({"task": config.task, "seeds": list(config.seeds), "arms": entries})


def wins(summary: dict[str, Any], quantity: str) -> dict[str, tuple[int, int, int]]:
    """How often structured layers are better, undecided and worse than each control: by intervals of the difference."""
    return sides(summary["arms"], f"{quantity}_difference", "arm")

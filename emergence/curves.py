"""Look-up in the table of measurements: one quantity of one head over training, or at one step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


class Curves:
    """Look-up of one arm and seed in the table of measurements."""

    def __init__(self, table: pd.DataFrame, arm: str, seed: int) -> None:
        self.table: Any = table.query("arm == @arm and seed == @seed")  # pandas has no types to speak of
        numbers = self.table[self.table["coordinate"].isna()].sort_values("step")
        self._series = {
            (quantity, *(None if pd.isna(i) else int(i) for i in place)): rows
            for (quantity, *place), rows in numbers.groupby(["quantity", "layer", "head"], dropna=False, sort=False)
        }

    def over_steps(
        self, quantity: str, layer: int | None = None, head: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, values and standard errors of one quantity, ascending in step."""
        rows = self._series.get((quantity, layer, head))
        if rows is None:
            return np.array([], dtype=int), np.array([]), np.array([])
        return rows["step"].to_numpy(), rows["value"].to_numpy(), rows["standard_error"].to_numpy()

    def at(self, quantity: str, step: int, layer: int | None = None, head: int | None = None) -> float:
        """One value; NaN if it was not measured."""
        steps, values, _ = self.over_steps(quantity, layer, head)
        return float(values[steps == step][0]) if (steps == step).any() else math.nan

    def error_at(self, quantity: str, step: int, layer: int | None = None, head: int | None = None) -> float:
        """Its standard error."""
        steps, _, errors = self.over_steps(quantity, layer, head)
        return float(errors[steps == step][0]) if (steps == step).any() else math.nan

    def curve(self, quantity: str, step: int, layer: int | None = None, head: int | None = None) -> Any:
        """Rows of a quantity with a coordinate at one step, a DataFrame ascending in the coordinate."""
        rows = self.table[(self.table["quantity"] == quantity) & (self.table["step"] == step)]
        rows = rows[rows["layer"].isna()] if layer is None else rows[(rows["layer"] == layer) & (rows["head"] == head)]
        return rows.sort_values("coordinate")

    def places(self, quantity: str) -> list[tuple[int | None, int | None]]:
        """Where a quantity was measured: (layer, head), both None for the whole model."""
        return [(layer, head) for name, layer, head in self._series if name == quantity]

    @property
    def steps(self) -> np.ndarray:
        """Steps at which the loss was measured."""
        return self.over_steps("loss_all")[0]

"""The same learning rates for every arm, and for each its own best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def chosen_rates(table: pd.DataFrame, cell: Sequence[str]) -> pd.DataFrame:
    """The learning rate of every cell with the least validation error at the end, a mean over seeds.

    Args:
        table: columns of ``cell``, learning_rate, moment, quantity, value.
        cell: columns that make one arm, such as arm, depth and width.
    """
    last: Any = table[(table.quantity == "validation_error") & (table.moment == "end")]
    means = last.groupby([*cell, "learning_rate"]).value.mean().reset_index()
    return means.loc[means.groupby(list(cell)).value.idxmin(), [*cell, "learning_rate"]]

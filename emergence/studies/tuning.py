"""The same learning rates for every arm, and for each its own best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

CRITERIA = ["validation_error", "validation_loss"]
"""The first decides; the second where the first is equal, as the fraction mistaken of a few hundred examples may be."""


def chosen_rates(table: pd.DataFrame, cell: Sequence[str]) -> pd.DataFrame:
    """The learning rate of every cell with the least validation error at the end, a mean over seeds.

    Args:
        table: columns of ``cell``, learning_rate, moment, quantity, value; ``validation_loss`` may be missing.
        cell: columns that make one arm, such as arm, depth and width.
    """
    last: Any = table[table.quantity.isin(CRITERIA) & (table.moment == "end")]
    means = last.pivot_table(index=[*cell, "learning_rate"], columns="quantity", values="value")
    ordered = means.reindex(columns=CRITERIA).sort_values(CRITERIA).reset_index()
    return ordered.drop_duplicates(list(cell))[[*cell, "learning_rate"]]

"""One number of a layout beside the same number of many shuffles of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-9
"""Relative difference within which two values are the same: sums in another order."""


@dataclass(frozen=True)
class ShuffleTest:
    """An observed number against its null, tested on one side.

    Attributes:
        observed: the number of the layout as it is.
        null: the same of every shuffle.
        alternative: the side on which the observed number would show modules.
        unit: of the numbers, for a plot's axis.
    """

    observed: float
    null: Float[np.ndarray, " shuffle"]
    alternative: Literal["less", "greater"]
    unit: str = ""

    @property
    def null_mean(self) -> float:
        """Mean of the null."""
        return float(self.null.mean())

    @property
    def null_sd(self) -> float:
        """Standard deviation of the null."""
        return float(self.null.std(ddof=1))

    @property
    def null_band(self) -> Float[np.ndarray, " 2"]:
        """Central 95 % of the null."""
        return np.quantile(self.null, [0.025, 0.975])

    @property
    def z(self) -> float:
        """Null standard deviations from the null mean; NaN where no shuffle changes the number."""
        scale = self.null_sd
        same = scale <= ROUNDING * max(abs(self.null_mean), abs(self.observed))
        return np.nan if same else (self.observed - self.null_mean) / scale

    @property
    def p_value(self) -> float:
        """(1 + shuffles at least as extreme) / (1 + shuffles), Phipson & Smyth 2010; ties count as extreme."""
        slack = ROUNDING * max(abs(self.null_mean), abs(self.observed))
        if self.alternative == "less":
            n_extreme = (self.null <= self.observed + slack).sum()
        else:
            n_extreme = (self.null >= self.observed - slack).sum()
        return float((1 + n_extreme) / (1 + len(self.null)))


def check_count(name: str, n: int, least: int) -> None:
    """Refuse too few of something."""
    if n < least:
        raise ValueError(f"{name} must be at least {least}, got {n}")

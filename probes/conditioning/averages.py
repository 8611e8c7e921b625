"""Means over independent units, with their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..groups import error_of_sum, interval


@dataclass(frozen=True)
class Average:
    """A mean over the first axis.

    Attributes:
        value: the mean.
        standard_error: of the mean; NaN for a single unit.
        interval: 95 %, Student's t, the two ends on the last axis; NaN for a single unit.
    """

    value: Float[np.ndarray, ...]
    standard_error: Float[np.ndarray, ...]
    interval: Float[np.ndarray, "... 2"]


def average(values: Float[np.ndarray, "unit ..."]) -> Average:
    """Mean over independent units, batches or inputs."""
    mean = np.asarray(values.mean(axis=0))
    influence = (values - mean) / len(values)
    return Average(mean, error_of_sum(influence, None), interval(mean, influence, None))

"""Plain arrays at the door: numpy or torch in, finite float64 out, refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor


def finite_array(name: str, values: Any, shape: str) -> Float[np.ndarray, ...]:
    """Return ``values`` as float64, with as many axes as ``shape`` has words.

    Raises:
        ValueError: another number of axes, an empty array, NaN or infinity.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != len(shape.split()) or array.size == 0:
        raise ValueError(f"{name} must have shape ({', '.join(shape.split())}) and not be empty, got {array.shape}")
    if not np.isfinite(array).all():
        where = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{name} must be finite, got {array[where]} at {where}")
    return array


def label_array(name: str, labels: Any) -> tuple[Int[np.ndarray, " unit"], int]:
    """Number the distinct labels from 0; return the numbers, and how many there are.

    Raises:
        ValueError: not one axis, or fewer than two units.
        TypeError: labels that are no whole numbers.
    """
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must have shape (unit,) with at least 2 units, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be whole numbers, got {array.dtype}")
    distinct, index = np.unique(array, return_inverse=True)
    return index, len(distinct)

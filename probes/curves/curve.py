"""A measured curve: clock, values and weights, checked once at the boundary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Curve:
    """A checked curve.

    Attributes:
        t: clock ``(point,)``, positive and ascending.
        y: values ``(point,)``.
        weight: 1 / standard error ``(point,)``; ones when none was given.
        scale_known: whether standard errors were given.
    """

    t: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    scale_known: bool

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.t)

    @property
    def constant(self) -> bool:
        """Whether the values do not vary beyond rounding."""
        return float(np.ptp(self.y)) <= 1e-12 * float(np.abs(self.y).max())

    @property
    def window(self) -> tuple[float, float, float]:
        """First clock value, last clock value, decades between them."""
        return float(self.t[0]), float(self.t[-1]), float(np.log10(self.t[-1] / self.t[0]))


def checked_array(name: str, values: ArrayLike) -> np.ndarray:
    """Return a finite float64 vector.

    Raises:
        ValueError: it is not numeric, not one-dimensional, or holds NaN or infinity.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a vector of numbers; got {type(values).__name__} ({error})") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector, one value a point; got shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} must be finite; {bad.size} of {array.size} values are not, the first is {array[bad[0]]} at index "
            f"{bad[0]}: drop these points"
        )
    return array


def checked_curve(
    t: ArrayLike,
    y: ArrayLike,
    *,
    sigma: ArrayLike | float | int | None = None,
    n_points: int,
    name: str = "y",
    sigma_name: str = "sigma",
) -> Curve:
    """Check clock, values and standard errors together.

    Args:
        t: clock, positive and strictly ascending.
        y: values, one a point.
        sigma: standard error of each value, or one for all, or None.
        n_points: the fewest points allowed.
        name: what to call ``y`` in a message.
        sigma_name: what to call ``sigma`` in a message.

    Raises:
        ValueError: a shape, order, sign or number is wrong.
    """
    clock, values = checked_array("t", t), checked_array(name, y)
    if clock.shape != values.shape:
        raise ValueError(f"t and {name} must have one value a point each; got {clock.size} and {values.size} values")
    if clock.size < n_points:
        raise ValueError(f"at least {n_points} points are needed here; got {clock.size}: save more checkpoints")
    if clock[0] <= 0:
        raise ValueError(f"t must be positive; the first value is {clock[0]:g}: drop the point at initialisation")
    back = np.flatnonzero(np.diff(clock) <= 0)
    if back.size:
        i = int(back[0])
        raise ValueError(
            f"t must ascend strictly; t[{i}] = {clock[i]:g} is followed by {clock[i + 1]:g}: sort, drop repeats"
        )
    if sigma is None:
        return Curve(clock, values, np.ones_like(values), scale_known=False)
    errors = checked_array(sigma_name, np.broadcast_to(sigma, values.shape) if np.ndim(sigma) == 0 else sigma)
    if errors.shape != values.shape:
        raise ValueError(
            f"{sigma_name} must have one value a point ({values.size}) or be one number; got {errors.size} values"
        )
    if (errors <= 0).any():
        raise ValueError(
            f"{sigma_name} must be positive; the smallest is {errors.min():g}: pass None if errors are unknown"
        )
    return Curve(clock, values, 1.0 / errors, scale_known=True)

"""Arguments at the door: refused in one line, before any work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Scales = Sequence[float] | Float[np.ndarray, " scale"]
"""Sizes of a noise, relative."""


def finite_inputs(inputs: Tensor, name: str = "inputs") -> Tensor:
    """Return the inputs, cut from any graph.

    Raises:
        TypeError: no tensor of real floating-point numbers.
        ValueError: none at all, or one that is not finite.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"{name} must be a tensor with examples on the first axis, got {type(inputs).__name__}")
    if not inputs.is_floating_point():
        raise TypeError(f"{name} must be real floating-point numbers, got {inputs.dtype}; a nearby input must exist")
    if inputs.ndim == 0 or inputs.numel() == 0:
        raise ValueError(f"{name} must have shape (example, ...) and not be empty, got {tuple(inputs.shape)}")
    check_finite(name, inputs)
    return inputs.detach()


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity, and say where the first one is."""
    bad = ~torch.isfinite(values)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{name} must be finite, got {values[where].item()} at {where}")


def one_an_example(name: str, values: object, n_examples: int) -> Tensor:
    """Return what the model gave, examples on the first axis.

    Raises:
        TypeError: no tensor.
        ValueError: another first axis, or values that are not finite.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}; wrap the model to return one")
    if values.ndim == 0 or len(values) != n_examples:
        raise ValueError(f"{name} must have the {n_examples} examples on the first axis, got {tuple(values.shape)}")
    check_finite(name, values.detach())
    return values


def positive_scales(scales: Scales) -> Float[np.ndarray, " scale"]:
    """Return the scales of a noise as an array.

    Raises:
        ValueError: none, more than one axis, or one that is not positive and finite.
    """
    array = np.asarray(scales, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"scales must be a sequence of at least one number, got shape {array.shape}")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"scales must be positive and finite, got {array.tolist()}")
    return array


def check_count(name: str, n: int, least: int) -> None:
    """Refuse too few of something."""
    if n < least:
        raise ValueError(f"{name} must be at least {least}, got {n}")

"""Where on the manifold a forward pass is: read at the door of the model, seen by its layers until it returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from .manifolds import WeightManifold

_COEFFICIENTS: ContextVar[Tensor | None] = ContextVar("coefficients", default=None)


@contextmanager
def at_coefficients(coefficients: Tensor) -> Iterator[None]:
    """Let the layers see ``f(s)``, of shape (batch, k), or (k,) for one point."""
    token = _COEFFICIENTS.set(coefficients)
    try:
        yield
    finally:
        _COEFFICIENTS.reset(token)


def current_coefficients(layer: str, x: Tensor) -> Tensor:
    """The ``f(s)`` of this forward pass.

    Raises:
        ValueError: outside a call with a context, or the layer's input has another batch.
    """
    coefficients = _COEFFICIENTS.get()
    if coefficients is None:
        raise ValueError(
            f"a {layer} on a manifold was called without context; call m(x, context), or use at(m, context)"
        )
    if coefficients.dim() == 2 and (x.dim() < 2 or len(x) != len(coefficients)):
        raise ValueError(
            f"context has {len(coefficients)} points, but a {layer} on a manifold got input of shape {tuple(x.shape)}; "
            "its first axis must be the batch"
        )
    return coefficients.to(x.dtype)


def read_context(manifold: WeightManifold, context: Tensor | float | Sequence[float], like: Tensor) -> Tensor:
    """Bring contexts into the shape that the manifold's basis takes, on the device of ``like``.

    Raises:
        TypeError: not numbers.
        ValueError: a wrong shape, numbers that are not finite, or outside the manifold.
    """
    if not isinstance(context, Tensor):
        context = _from_numbers(context)
    if not context.is_floating_point():
        raise TypeError(f"context must be a tensor of floating point, got {context.dtype}; use context.float()")
    shape, n = tuple(context.shape), manifold.n_context
    name = type(manifold).__name__
    if n == 1 and (shape == (1,) or (len(shape) == 2 and shape[1] == 1)):
        context = context.squeeze(-1)
    elif len(shape) > (1 if n == 1 else 2) or (n > 1 and shape[-1:] != (n,)):
        allowed = "(batch,), (batch, 1)" if n == 1 else f"(batch, {n})"
        raise ValueError(f"context on {name} must have shape {allowed} or be one point of {n} number(s), got {shape}")
    if not torch.compiler.is_compiling() and not _is_transformed(context):
        _check_range(context.detach(), manifold)
    return context.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))


def _from_numbers(context: object) -> Tensor:
    try:
        return torch.as_tensor(context, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"context must be a tensor or numbers, got {type(context).__name__}") from None


def _is_transformed(context: Tensor) -> bool:
    """Whether it stands for many values, or for none yet, inside ``torch.func``: then they cannot be looked at."""
    return torch._C._functorch.is_functorch_wrapped_tensor(context)  # type: ignore[reportAttributeAccessIssue]


def _check_range(context: Tensor, manifold: WeightManifold) -> None:
    if manifold.is_periodic:
        if not context.isfinite().all():
            raise ValueError(f"context must be finite, got {_first(context, ~context.isfinite())}")
        return
    is_outside = ~((context >= 0) & (context <= 1))  # NaN too
    if is_outside.any():
        raise ValueError(
            f"context on {type(manifold).__name__} must lie in [0, 1], got {_first(context, is_outside)}; rescale it"
        )


def _first(context: Tensor, where: Tensor) -> float:
    return context[where].flatten()[0].item()

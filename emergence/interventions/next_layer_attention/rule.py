"""The rule: a linear map as ever forwards, another matrix in the place of its weights on the way back.

``d_i = phi'(z_i) sum over j of F'(w_ij) d_j`` differs from the chain rule in one place only, the gradient that a linear
map gives to its input. Gradients of its weight and bias are the usual ones, made of the signal that arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .broadcast import Broadcast, OutputError
from .feedback import Feedback
from .linear_maps import LinearMap


@dataclass(frozen=True, eq=False)
class Route:
    """How signals leave one weight of a converted model.

    Attributes:
        name: of the weight in the model.
        feedback: what they pass through.
        drop: chance that one is lost.
        generator: draws which.
        broadcast: brings the output's error, where feedback is direct.
    """

    name: str
    feedback: Feedback
    drop: float = 0.0
    generator: torch.Generator | None = None
    broadcast: Broadcast | None = None

    def drawn(self, signal: Tensor) -> Tensor:
        """What arrives of a signal: some numbers are lost, the others grow by ``1 / (1 - drop)``."""
        if self.drop == 0:
            return signal
        _check_no_transform(signal, "drop", "torch.func.vmap")
        assert self.generator is not None
        chance = torch.rand(signal.shape, generator=self.generator, device=self.generator.device)
        return signal * (chance >= self.drop).to(signal) / (1 - self.drop)


@dataclass(frozen=True)
class Use:
    """What crossed one weight in a forward pass, for ``messages``."""

    route: Route
    x: Tensor
    weight: Tensor
    outputs: Tensor


_USES: ContextVar[list[Use] | None] = ContextVar("uses", default=None)


@contextmanager
def recorded_uses() -> Iterator[list[Use]]:
    """The uses of converted weights in here, in their order."""
    uses: list[Use] = []
    token = _USES.set(uses)
    try:
        yield uses
    finally:
        _USES.reset(token)


def heard(
    linear_map: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None, random: Tensor | None, route: Route
) -> Tensor:
    """A linear map of ``x`` whose gradient follows the route.

    Raises:
        ValueError: inside ``torch.func``, where feedback is direct.
    """
    if not torch.is_grad_enabled():
        return linear_map.outputs(x, weight, bias)
    error = None
    if route.broadcast is not None and x.requires_grad:
        _check_no_transform(x, "direct feedback alignment", "torch.func")
        error = route.broadcast.current
        error.waiting.append((route.name, linear_map, x.shape))
    in_func = torch._C._are_functorch_transforms_active()  # type: ignore[reportAttributeAccessIssue]
    outputs: Any = (_HeardInFunc if in_func else _Heard).apply(x, weight, bias, random, linear_map, route, error)
    uses = _USES.get()
    if uses is not None:
        uses.append(Use(route, x, weight, outputs))
    return outputs


class _Heard(Function):
    """Outside ``torch.func``: the form that torch calls with least ado, which counts in narrow layers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, random: Tensor | None,
        linear_map: LinearMap, route: Route, error: OutputError | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, random)
        ctx.call = linear_map, route, error
        return linear_map.outputs(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _backward(ctx, *grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ValueError(_ONCE)


class _HeardInFunc(Function):
    """The same in the form that ``torch.func`` can batch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, random: Tensor | None,
        linear_map: LinearMap, route: Route, error: OutputError | None,
    ) -> Tensor:  # fmt: skip
        return linear_map.outputs(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _, random, *ctx.call = inputs
        ctx.save_for_backward(x, weight, random)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _backward(ctx, *grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ValueError(_ONCE)


def _backward(ctx: Any, signal: Tensor) -> Any:
    # where gradients of gradients are recorded, they pass a function that refuses; elsewhere it would cost time
    send: Any = _SentBack.apply if torch.is_grad_enabled() else _sent_back
    return *send(signal, *ctx.saved_tensors, ctx.needs_input_grad, *ctx.call), None, None, None, None


_ONCE = "the next-layer rule is no gradient of a loss and has no second or forward derivative; measure on export(m)"


def _sent_back(
    signal: Tensor, x: Tensor, weight: Tensor, random: Tensor | None, needed: tuple[bool, ...],
    linear_map: LinearMap, route: Route, error: OutputError | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of x, weight and bias; torch brings them to their precision, which autocast changed forwards."""
    for_x, for_weight, for_bias, *_ = needed
    return (
        _to_sources(signal, x, weight, random, linear_map, route, error) if for_x else None,
        linear_map.to_weight(signal, x.to(signal), weight) if for_weight else None,
        linear_map.to_bias(signal) if for_bias else None,
    )


class _SentBack(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return _sent_back(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise ValueError(_ONCE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ValueError(_ONCE)


def _to_sources(
    signal: Tensor, x: Tensor, weight: Tensor, random: Tensor | None,
    linear_map: LinearMap, route: Route, error: OutputError | None,
) -> Tensor:  # fmt: skip
    """What neurons hear from the next layer."""
    matrix = route.feedback.matrix(weight, random)
    if error is not None:
        return error.projected(route.name, linear_map, matrix, x.shape, route.drawn)
    return linear_map.to_sources(route.drawn(signal), x.to(signal), matrix.to(signal))


def _check_no_transform(t: Tensor, what: str, where: str) -> None:
    if torch._C._functorch.is_functorch_wrapped_tensor(t):  # type: ignore[reportAttributeAccessIssue]
        raise ValueError(f"{what} does not work inside {where}; take gradients by backward()")

"""What a neuron wants much of: the attention that the neurons of the next layer pay it through their weights.

Everywhere here a weight is ``(listener, source, ...)`` as torch's layers hold it: ``w[j, i]`` is how much listener j
hears of neuron i. A convolution's kernel is one listener's weights to all it hears. Derivatives are worked out in
place and in few calls: in wide layers new memory costs more than the arithmetic, in narrow ones each call does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class NeuronAttention(Protocol):
    """Attention of listeners to sources; write your own for one that is missing."""

    def paid(self, weight: Float[Tensor, "listener source *kernel"]) -> Float[Tensor, "listener source *kernel"]:
        """``A_ij``: what listener j pays source i."""
        ...

    def derivative(self, weight: Float[Tensor, "listener source *kernel"]) -> Float[Tensor, "listener source *kernel"]:
        """``F'_ij = dA_ij / dw_ij``, a neuron's own attention by the weights to that neuron alone."""
        ...


@dataclass(frozen=True)
class Squared:
    """``w^2 / 2``: its derivative is the weight, so the rule is error backpropagation."""

    def paid(self, weight: Tensor) -> Tensor:
        """Half the square."""
        return weight.square() / 2

    def derivative(self, weight: Tensor) -> Tensor:
        """The weight itself."""
        return weight


@dataclass(frozen=True)
class Absolute:
    """``|w|``: only the sign of a weight matters on the way back; it is zero at a weight of zero."""

    def paid(self, weight: Tensor) -> Tensor:
        """The size."""
        return weight.abs()

    def derivative(self, weight: Tensor) -> Tensor:
        """The sign."""
        return weight.sign()


@dataclass(frozen=True)
class Power:
    """``|w|^p / p``: between the two above for p between 1 and 2; beyond 2 strong weights count for more.

    Attributes:
        p: at least 1; below, the derivative is infinite at a weight of zero.
    """

    p: float = 1.5

    def __post_init__(self) -> None:
        if not 1 <= self.p < math.inf:
            raise ValueError(f"p must be at least 1 and finite, got {self.p}")

    def paid(self, weight: Tensor) -> Tensor:
        """A power of the size."""
        return weight.abs().pow(self.p) / self.p

    def derivative(self, weight: Tensor) -> Tensor:
        """``sign(w) |w|^(p - 1)``."""
        return weight.abs().pow_(self.p - 1).mul_(weight.sign())


@dataclass(frozen=True)
class Normalised:
    """``w_ij^2`` over the listener's total: what each listener has to give sums to one.

    ``F'_ij = 2 w_ij / S_j (1 - A_ij)`` with ``S_j`` the sum over sources of ``w_ij^2``; zero for a listener whose
    weights are all zero.
    """

    def paid(self, weight: Tensor) -> Tensor:
        """Shares of one."""
        square = weight.square()
        return square * _inverse_total(square)

    def derivative(self, weight: Tensor) -> Tensor:
        """By a neuron's own weight, the others' held."""
        square = weight.square()
        inverse = _inverse_total(square)
        return square.mul_(-2 * inverse).add_(2).mul_(weight).mul_(inverse)


@dataclass(frozen=True)
class Competitive:
    """Softmax over a listener's sources of ``|w| / temperature``: sources compete for it.

    ``F'_ij = sign(w_ij) A_ij (1 - A_ij) / temperature``: a source that a listener is lost to, or that has it already,
    hears nothing from it.

    Attributes:
        temperature: in units of the weights. Far above their size the rule is that of ``|w|``. Ours is the size of
            weights in a layer of a hundred inputs.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")

    def paid(self, weight: Tensor) -> Tensor:
        """Shares of one."""
        return _shares(weight.abs().mul_(1 / self.temperature))

    def derivative(self, weight: Tensor) -> Tensor:
        """By a neuron's own weight, the others' held."""
        slope = weight.sign().mul_(1 / self.temperature)
        share = _shares(weight * slope)
        return torch.ops.aten.sigmoid_backward(slope, share)  # slope * share * (1 - share)


@dataclass(frozen=True)
class Elementwise:
    """A function of one weight, differentiable by autograd; ``convert`` makes it of a callable.

    Attributes:
        function: takes a tensor of any shape, returns one of the same shape.
    """

    function: Callable[[Tensor], Tensor]

    def paid(self, weight: Tensor) -> Tensor:
        """The function."""
        return self.function(weight)

    def derivative(self, weight: Tensor) -> Tensor:
        """By autograd."""
        if torch._C._are_functorch_transforms_active():  # type: ignore[reportAttributeAccessIssue]
            return torch.func.grad(lambda w: self.function(w).sum())(weight)
        with torch.enable_grad():  # twice as fast
            free = weight.detach().requires_grad_()
            paid = self.function(free)
            return torch.autograd.grad(paid, free, torch.ones_like(paid))[0]


ATTENTIONS: dict[str, NeuronAttention] = {
    "squared": Squared(),
    "absolute": Absolute(),
    "power": Power(),
    "normalised": Normalised(),
    "competitive": Competitive(),
}
"""The attentions with their default settings. Which of them the paper uses is not known."""


def matched_norm(matrix: Tensor, weight: Tensor) -> Tensor:
    """``matrix`` at the Frobenius norm of ``weight``, or zero where it is zero."""
    if matrix is weight:
        return weight
    scale = torch.linalg.vector_norm(weight) / torch.linalg.vector_norm(matrix)
    return matrix * scale.nan_to_num_(nan=0.0, posinf=0.0)


def check_attention(attention: NeuronAttention, weight: Tensor, name: str) -> None:
    """Refuse an attention that has no finite derivative at these weights.

    Raises:
        TypeError: a callable that fails, or is not differentiable.
        ValueError: it is not elementwise or finite, or its derivative has another shape, is not finite, or is zero
            everywhere.
    """
    weight = weight.detach()
    if isinstance(attention, Elementwise):
        _check_function(attention.function, weight)
    derivative = attention.derivative(weight)
    if derivative.shape != weight.shape:
        shapes = f"{tuple(derivative.shape)} for a weight of shape {tuple(weight.shape)}"
        raise ValueError(f"attention must have a derivative of the weight's shape, got {shapes}")
    _check_finite("derivatives", derivative, weight)
    if isinstance(attention, Elementwise) and weight.any() and not derivative.any():
        raise ValueError(f"attention has a derivative of zero at every weight of {name}; nothing would be learned")


def _check_function(function: Callable[[Tensor], Tensor], weight: Tensor) -> None:
    free = weight.clone().requires_grad_()
    try:
        with torch.enable_grad():
            paid = function(free)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise TypeError(f"attention must be a differentiable function of a weight, it failed: {reason}") from error
    if not isinstance(paid, Tensor) or paid.shape != weight.shape:
        got = f"shape {tuple(paid.shape)}" if isinstance(paid, Tensor) else type(paid).__name__
        raise ValueError(f"attention must be elementwise: of shape {tuple(weight.shape)} here, got {got}")
    if not paid.requires_grad:
        raise TypeError("attention must be differentiable by torch, got numbers without a gradient")
    _check_finite("values", paid.detach(), weight)
    flat, expected = weight.flatten(), paid.detach().flatten()
    for k in {0, len(flat) // 2, len(flat) - 1}:
        alone = function(torch.stack([flat[k], 2 * flat[k] + 1]))[0]  # in other company
        if not torch.allclose(alone, expected[k], rtol=1e-4, equal_nan=True):
            raise ValueError(
                "attention must be elementwise, but its value at a weight depends on others; see Competitive()"
            )


def _check_finite(what: str, numbers: Tensor, weight: Tensor) -> None:
    if not numbers.isfinite().all():
        where = weight[~numbers.isfinite()][0].item()
        raise ValueError(f"attention must have finite {what}, got none at a weight of {where:.4g}; smooth it there")


def _shares(score: Tensor) -> Tensor:
    """Softmax over each listener's sources."""
    return score.softmax(1) if score.dim() == 2 else score.flatten(1).softmax(1).view_as(score)


def _inverse_total(square: Tensor) -> Tensor:
    """One over each listener's sum, or zero."""
    total = square.sum(tuple(range(1, square.dim())), keepdim=True)
    return total.reciprocal_().nan_to_num_(nan=0.0, posinf=0.0)

"""A small nonlinear branch beside a structured layer, and how much of the output it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from .shaping import Retracting


@dataclass(frozen=True)
class Correction:
    """``scale phi(x)``, added to a layer's output: ``phi(x) = U tanh(V x + c)``, both matrices of norm at most one.

    So phi is 1-Lipschitz, and the Jacobian of an orthogonal layer has its singular values in
    ``[1 - scale, 1 + scale]``. The norms are held by the Schatten 4-norm, ``(sum of s^4)^(1/4) <= 1``, which is never
    below the largest singular value, so the bound is strict; it needs no iteration and costs less than ``Spectral``.
    The form of phi is not known from the method's abstract; this one is ours.

    Attributes:
        width: of the hidden layer; None takes an eighth of the smaller of input and output.
        scale: bound on the size of the branch's Jacobian; below one it cannot undo an orthogonal layer.
    """

    width: int | None = None
    scale: float = 0.1

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}; correction=None leaves it out")


class _Contraction(Retracting):
    """``W / max(1, (sum of s^4)^(1/4))``: norm at most one."""

    def mapped(self, matrix: Tensor) -> Float[Tensor, "row column"]:
        gram = matrix @ matrix.mT if matrix.shape[-2] < matrix.shape[-1] else matrix.mT @ matrix
        return matrix * gram.square().sum().clamp(min=1).pow(-0.25)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Any matrix may be free."""
        return weight


class Branch(nn.Module):
    """The correction at work. It begins at zero, so that a converted layer begins at the structure alone."""

    def __init__(self, n_in: int, n_out: int, settings: Correction, like: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        width = settings.width or max(1, min(n_in, n_out) // 8)
        self.scale = settings.scale
        self.inner = _linear(n_in, width, like, bias=True)
        self.outer = _linear(width, n_out, like, bias=False)
        drawn = torch.randn(width, n_in, generator=generator, device=generator.device, dtype=like.dtype)
        with torch.no_grad():
            self.inner.weight.copy_(drawn / math.sqrt(n_in))
        for linear in (self.inner, self.outer):
            register_parametrization(linear, "weight", _Contraction(linear.weight))
        self.last: tuple[Tensor, Tensor, Tensor | None] | None = None

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """What is added to the layer's output."""
        return nn.functional.linear(torch.tanh(self.inner(x)), self.scale * self.outer.weight)

    def ratio(self) -> Float[Tensor, ""] | None:
        """Mean square of the correction over that of the structure, in the last forward pass of training."""
        if self.last is None:
            return None
        correction, output, bias = self.last
        if bias is not None:
            output = output - (bias if output.requires_grad else bias.detach())
        return correction.square().mean() / output.square().mean()

    def __getstate__(self) -> dict[str, Any]:
        """Copies do not take along what was seen last: it hangs in the graph of a step."""
        return self.__dict__ | {"last": None}


def attach(module: nn.Module, branch: Branch) -> None:
    """Let ``branch`` run beside ``module``, from its input to its output."""
    module.correction = branch
    module.register_forward_hook(_correct, prepend=True, with_kwargs=True)  # first, so that all others see the sum


def _correct(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
    branch: Any = module.correction
    x = args[0] if args else next(iter(kwargs.values()))
    correction = branch(x)
    if module.training:
        branch.last = correction, output, module.bias if isinstance(module, nn.Linear) else None
    return output + correction


def correction_ratios(model: nn.Module) -> dict[str, Float[Tensor, ""]]:
    """How much of each layer's output is correction: ``E|a phi|^2 / E|S x|^2``, in the last forward pass of training.

    ``S x`` is the layer's output before correction, without the bias of a linear layer. The ratios are differentiable
    until the step's graph is freed by ``backward``; a copy of the model has none before it runs.

    Returns:
        Name of the layer to ratio; zero is structure alone.

    Raises:
        ValueError: no layer has a correction, or one has not run in training mode yet.

    Cost: two means a layer, when called. A training pass keeps the layer's two outputs until the next one.
    """
    branches = {name: branch for name, module in model.named_modules() if (branch := branch_of(module))}
    if not branches:
        raise ValueError("model has no correction; convert it with correction=Correction()")
    ratios = {}
    for name, branch in branches.items():
        if (ratio := branch.ratio()) is None:
            raise ValueError(
                f"the correction of {name!r} has not run in training mode yet; call model.train()(x) first"
            )
        ratios[name] = ratio
    return ratios


def correction_penalty(model: nn.Module) -> Float[Tensor, ""]:
    """Mean of ``correction_ratios`` over layers; add a multiple of it to the loss. Raises what that raises."""
    ratios = correction_ratios(model)
    return torch.stack(list(ratios.values())).mean()


def branch_of(module: nn.Module) -> Branch | None:
    """The correction that runs beside this module, if there is one."""
    branch = getattr(module, "correction", None)
    return branch if isinstance(branch, Branch) else None


def _linear(n_in: int, n_out: int, like: Tensor, *, bias: bool) -> nn.Linear:
    """A linear layer of zeros, which draws nothing from the global generator."""
    linear = nn.Linear(n_in, n_out, bias=bias, device="meta", dtype=like.dtype).to_empty(device=like.device)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear

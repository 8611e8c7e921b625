"""From a plain model to one whose weights follow a context, and back to a plain one at a single context."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from probes.isolation import check_values

from ..layers import check_own_weights, matching_layers
from .context import at_coefficients, read_context
from .layers import OnManifold, combined, manifold_class
from .manifolds import WeightManifold, named_manifold

_KINDS = "nn.Linear, nn.Conv1d to 3d, norms with weights, or attention and MLP of the particle transformer"


class ManifoldModel(nn.Module):
    """A model with some weights on a manifold, called with the context of each example; ``convert`` makes it.

    Attributes:
        model: the given model, the chosen layers replaced.
        manifold: where their weights are.
    """

    def __init__(self, model: nn.Module, manifold: WeightManifold) -> None:
        super().__init__()
        self.model, self.manifold = model, manifold

    def forward(
        self, x: Any, context: Tensor | float | Sequence[float] | None = None, *inputs: Any, **options: Any
    ) -> Any:
        """``model(x, *inputs, **options)``, each example by the weights at its context.

        Args:
            x: first input of the model; its first axis, and that of every converted layer's input, is the batch.
            context: of shape (batch,) or (batch, n_context), or one point for the whole batch.
            inputs: further ones of the model.
            options: of the model.

        Raises:
            TypeError: a context that is no tensor of floating point.
            ValueError: context missing, of another shape or batch than the input's, not finite or off the manifold.
        """
        coefficients = self.coefficients(context)
        if isinstance(x, Tensor) and coefficients.dim() == 2 and (x.dim() == 0 or len(x) != len(coefficients)):
            raise ValueError(f"context has {len(coefficients)} points, the input has shape {tuple(x.shape)}")
        with at_coefficients(coefficients):
            return self.model(x, *inputs, **options)

    def coefficients(self, context: Tensor | float | Sequence[float] | None) -> Tensor:
        """How much of each point is in the weights: (batch, k), or (k,) at one context."""
        if context is None:
            raise ValueError("context is missing; call the model as m(x, context)")
        like = next(points_of(self))
        return self.manifold.basis(read_context(self.manifold, context, like))


def convert(
    model: nn.Module,
    layers: str | Iterable[str],
    manifold: WeightManifold | str = "line",
    *,
    spread: float = 0.0,
    generator: torch.Generator,
) -> ManifoldModel:
    """Let weights and biases of layers be functions of a context: ``W(s) = sum over k of f_k(s) P_k``.

    Benjamin et al. 2025 (arXiv 2505.22994). What is learned are the K points P of each weight; ``precondition`` gives
    their gradients the metric of the method. At the start the weights are the given ones at every context.

    Args:
        model: any torch module; it is left as it is.
        layers: names or glob patterns of ``nn.Linear``, ``nn.Conv1d`` to ``3d``, ``nn.LayerNorm``, ``nn.RMSNorm``,
            ``nn.GroupNorm``, ``nn.BatchNorm1d`` to ``3d`` (with one set of statistics for all contexts), and
            ``"blocks.*.attn"`` and ``"blocks.*.mlp"`` of our particle transformer.
        manifold: a name from ``MANIFOLDS``, or settings such as ``Spline(n_points=8)``.
        spread: size of normal noise on the points at the start, in root mean squares of each weight: on the axes, or
            on every point where none is an axis (end and control points). The start is not known from the paper; ours
            is at zero, from where axes move all the same.
        generator: draws that noise.

    Returns:
        A copy to be called as ``m(x, context)``. A parameter of shape ``(...)`` became one of ``(K, ...)``; names are
        those of the given model after ``model.``. Its layers find the context during that call alone: gradient
        checkpointing may wrap the whole of it, not parts within.

    Raises:
        TypeError: wrong kinds of arguments.
        ValueError: no such layer or manifold, a model that is on a manifold already, or a layer that shares its weight
            or has weights that are not finite.

    Cost: K times the numbers; a training step, at most about K times that of the plain model. See
    ``tests/benchmarks/bench_weight_manifold.py``.
    """
    check_values(model)
    chosen = named_manifold(manifold)
    if not 0 <= spread < float("inf"):
        raise ValueError(f"spread must be zero or positive and finite, got {spread}")
    if is_manifold(model):
        raise ValueError("model is on a manifold already; convert the plain model, or take at(m, context)")
    known = [name for name, module in model.named_modules() if manifold_class(module)]
    names = matching_layers(layers, known, _KINDS)
    check_own_weights(model, names, lambda module: module.parameters(recurse=False))
    copied = copy.deepcopy(model)
    for module in (copied.get_submodule(name) for name in names):
        for name, parameter in module.named_parameters(recurse=False):
            points = _starting_points(parameter.detach(), chosen, spread, generator)
            setattr(module, name, nn.Parameter(points, parameter.requires_grad))
        module.__class__ = cast(Any, manifold_class(module))
    for module in copied.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # no fast path, which reads weights past their layers
    converted = ManifoldModel(copied, chosen)
    converted.training = model.training  # of the parts, the flags are copied
    return converted


def _starting_points(weight: Tensor, manifold: WeightManifold, spread: float, generator: torch.Generator) -> Tensor:
    constant = torch.tensor(manifold.constant, dtype=weight.dtype, device=weight.device)
    points = torch.stack([c * weight for c in constant])
    if spread == 0:
        return points
    is_drawn = constant == 0 if (constant == 0).any() else torch.ones_like(constant, dtype=torch.bool)
    size = spread * weight.square().mean().sqrt()
    drawn = torch.randn(points.shape, generator=generator, device=generator.device, dtype=weight.dtype)
    points[is_drawn] += size * drawn.to(weight.device)[is_drawn]
    return points


def at(m: nn.Module, context: Tensor | float | Sequence[float]) -> nn.Module:
    """The ordinary model at one point of the manifold: plain classes and parameters, so every probe runs on it.

    Args:
        m: from ``convert``; it is left as it is.
        context: one point.

    Raises:
        TypeError: ``m`` is not from ``convert``.
        ValueError: not one point, or off the manifold.
    """
    coefficients = _manifold_model(m).coefficients(context).detach()
    if coefficients.dim() != 1:
        raise ValueError(f"context must be one point, got {len(coefficients)}; take at(m, context) of each")
    plain = copy.deepcopy(_manifold_model(m).model)
    for module in layers_of(plain):
        for name, points in module.named_parameters(recurse=False):
            weight = combined(points.detach(), coefficients.to(points.dtype))
            setattr(module, name, nn.Parameter(weight, points.requires_grad))
        module.__class__ = cast(Any, module.plain)
    return plain


def manifold_of(m: nn.Module) -> WeightManifold:
    """The manifold that a converted model is on.

    Raises:
        TypeError: ``m`` is not from ``convert``.
    """
    return _manifold_model(m).manifold


def is_manifold(model: nn.Module) -> bool:
    """Whether the model, or some part of it, is on a manifold."""
    return any(isinstance(module, OnManifold) for module in model.modules())


def layers_of(model: nn.Module) -> list[OnManifold]:
    """The layers on a manifold."""
    return [module for module in model.modules() if isinstance(module, OnManifold)]


def points_of(model: nn.Module) -> Iterator[nn.Parameter]:
    """The points of every weight, of shape (k, ...)."""
    return (points for module in layers_of(model) for points in module.parameters(recurse=False))


def _manifold_model(m: nn.Module) -> ManifoldModel:
    if not isinstance(m, ManifoldModel):
        raise TypeError(f"m must be a model from convert, got {type(m).__name__}")
    return m

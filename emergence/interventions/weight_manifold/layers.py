"""Layers on a manifold: the K points of a layer stand side by side as one wide layer, and its outputs are mixed.

``y_b = sum over k of f_k(s_b) (P_k x_b)``, so a batch of many contexts takes one product and no weight of its own for
each example; at one context for all, the weights themselves are combined first. Mixing outputs was the fastest of
five ways we timed (scaling inputs needs copies of the weights, forwards and backwards).
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .context import current_coefficients


class OnManifold(nn.Module):
    """A layer whose parameters have one more axis in front, the points; ``plain`` is the class it was."""

    plain: ClassVar[type[nn.Module]]


def combined(points: Float[Tensor, "k ..."], coefficients: Float[Tensor, "*batch k"]) -> Tensor:
    """``sum over k of f_k P_k``: the weight at one context, or small ones (of a norm) at each."""
    return torch.tensordot(coefficients, points, 1)


def combined_or_none(points: Tensor | None, coefficients: Tensor) -> Tensor | None:
    """The same for a bias that may not be there."""
    return None if points is None else combined(points, coefficients)


def mixed(outputs: Tensor, coefficients: Float[Tensor, "batch k"], axis: int) -> Tensor:
    """Sum the outputs of the points, which lie along ``axis``, by each example's coefficients."""
    shape = [1] * outputs.dim()
    shape[0], shape[axis] = coefficients.shape
    return (outputs * coefficients.view(shape)).sum(axis)


class ManifoldLinear(OnManifold, nn.Linear):
    """Points of weight and bias are ``(k, out, in)`` and ``(k, out)``."""

    plain = nn.Linear

    def forward(self, input: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """Each example at its own context."""
        f = current_coefficients("Linear", input)
        if f.dim() == 1:
            return F.linear(input, combined(self.weight, f), combined_or_none(self.bias, f))
        bias = None if self.bias is None else self.bias.flatten()
        outputs = F.linear(input, self.weight.flatten(0, 1), bias)  # ... (k out)
        return mixed(outputs.unflatten(-1, self.weight.shape[:2]), f, outputs.dim() - 1)


class _ManifoldConv(OnManifold, nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        """Each example at its own context."""
        f = current_coefficients(self.plain.__name__, input)
        convolve = cast(Any, self)._conv_forward
        if f.dim() == 1:
            return convolve(input, combined(self.weight, f), combined_or_none(self.bias, f))
        if input.dim() != self.weight.dim() - 1:
            raise ValueError(f"context has {len(f)} points, but a {self.plain.__name__} got one example without batch")
        bias = None if self.bias is None else self._side_by_side(self.bias)
        outputs = convolve(input, self._side_by_side(self.weight), bias)  # batch (group k out) ...
        apart = outputs.unflatten(1, (self.groups, len(self.weight), -1))
        return mixed(apart, f, 2).flatten(1, 2)

    def _side_by_side(self, points: Float[Tensor, "k channel ..."]) -> Tensor:
        """The outputs of all points within each group of channels, since a group reads inputs of its own."""
        return points.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 2)


class ManifoldConv1d(_ManifoldConv, nn.Conv1d):
    """Points of weight and bias are ``(k, out, in, width)`` and ``(k, out)``."""

    plain = nn.Conv1d


class ManifoldConv2d(_ManifoldConv, nn.Conv2d):
    """Points of weight and bias are ``(k, out, in, height, width)`` and ``(k, out)``."""

    plain = nn.Conv2d


class ManifoldConv3d(_ManifoldConv, nn.Conv3d):
    """Points of weight and bias are ``(k, out, in, depth, height, width)`` and ``(k, out)``."""

    plain = nn.Conv3d


class _ManifoldNorm(OnManifold):
    """Normalise without scale and shift, then apply those of each example's context: vectors, not matrices."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """Each example at its own context."""
        f = current_coefficients(self.plain.__name__, input)
        y = self.normalized(input) * self._over(input, combined(self.weight, f))
        shift = combined_or_none(self.bias, f)
        return y if shift is None else y + self._over(input, shift)

    def normalized(self, x: Tensor) -> Tensor:
        """Without scale and shift."""
        raise NotImplementedError

    def _over(self, x: Tensor, scale: Tensor) -> Tensor:
        """Shaped so that it multiplies ``x``: here along the channels, the second axis."""
        return scale.view(*scale.shape, *[1] * (x.dim() - 2))


class _OverTrailing(_ManifoldNorm):
    def _over(self, x: Tensor, scale: Tensor) -> Tensor:
        """Along the last axes, those that are normalised; a scale for each example has the batch in front."""
        n_trailing = self.weight.dim() - 1
        if scale.dim() == n_trailing:
            return scale
        return scale.view(len(scale), *[1] * (x.dim() - 1 - n_trailing), *scale.shape[1:])


class ManifoldLayerNorm(_OverTrailing, nn.LayerNorm):
    """Points have the normalised shape."""

    plain = nn.LayerNorm

    def normalized(self, x: Tensor) -> Tensor:
        """Mean zero, variance one."""
        return F.layer_norm(x, self.normalized_shape, None, None, self.eps)


class ManifoldRMSNorm(_OverTrailing, nn.RMSNorm):  # type: ignore[reportIncompatibleMethodOverride]  # it says x
    """Points have the normalised shape."""

    plain = nn.RMSNorm
    bias = None

    def normalized(self, x: Tensor) -> Tensor:
        """Mean square one."""
        return F.rms_norm(x, self.normalized_shape, None, self.eps)


class ManifoldGroupNorm(_ManifoldNorm, nn.GroupNorm):
    """Points have one number a channel."""

    plain = nn.GroupNorm

    def normalized(self, x: Tensor) -> Tensor:
        """Mean zero, variance one in each group."""
        return F.group_norm(x, self.num_groups, None, None, self.eps)


class _ManifoldBatchNorm(_ManifoldNorm, nn.modules.batchnorm._BatchNorm):
    """The statistics are those of all contexts together: what the paper does here is not known."""

    def normalized(self, x: Tensor) -> Tensor:
        """By statistics of the batch, or by the running ones in evaluation mode."""
        self._check_input_dim(x)
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        is_running = self.track_running_stats or not self.training
        mean, variance = (self.running_mean, self.running_var) if is_running else (None, None)
        by_batch = self.training or mean is None
        return F.batch_norm(x, mean, variance, None, None, by_batch, momentum or 0.0, self.eps)


class ManifoldBatchNorm1d(_ManifoldBatchNorm, nn.BatchNorm1d):
    """Points have one number a channel."""

    plain = nn.BatchNorm1d


class ManifoldBatchNorm2d(_ManifoldBatchNorm, nn.BatchNorm2d):
    """Points have one number a channel."""

    plain = nn.BatchNorm2d


class ManifoldBatchNorm3d(_ManifoldBatchNorm, nn.BatchNorm3d):
    """Points have one number a channel."""

    plain = nn.BatchNorm3d


LAYERS: dict[type[nn.Module], type[OnManifold]] = {
    cls.plain: cls
    for cls in (
        ManifoldLinear, ManifoldConv1d, ManifoldConv2d, ManifoldConv3d, ManifoldLayerNorm, ManifoldRMSNorm,
        ManifoldGroupNorm, ManifoldBatchNorm1d, ManifoldBatchNorm2d, ManifoldBatchNorm3d,
    )
}  # fmt: skip
"""Torch's layers to those on a manifold."""


def manifold_class(module: nn.Module) -> type[OnManifold] | None:
    """The class that takes this module's place; None for kinds we do not know and for layers without parameters."""
    if not any(p is not None for p in module._parameters.values()):
        return None
    if type(module).__module__ == "emergence.model":  # elsewhere TransformerLens would take its seconds to load
        from .particles import PARTICLE_LAYERS

        return PARTICLE_LAYERS.get(type(module))
    return LAYERS.get(type(module))  # not subclasses: torch's attention reads the weight of its own past its forward

"""Layers whose neurons hear from the next layer by a rule; forwards they are the plain ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .linear_maps import DENSE, Convolution, LinearMap
from .rule import Route, heard


class NextLayer(nn.Module):
    """A layer on the rule.

    Attributes:
        plain: the class it was.
        weights: names of its parameters that are linear maps.
        routes: how signals leave each of them.
    """

    plain: ClassVar[type[nn.Module]]
    weights: ClassVar[tuple[str, ...]] = ("weight",)
    routes: dict[str, Route]

    def hear(self, name: str, linear_map: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map of one of its weights."""
        return heard(linear_map, x, weight, bias, self._buffers.get(buffer_name(name)), self.routes[name])

    @classmethod
    def listeners(cls, module: nn.Module, name: str) -> Tensor:
        """A weight of ``module`` as ``(listener, source, ...)``."""
        return getattr(module, name)

    @classmethod
    def n_sources(cls, module: Any, name: str) -> int:
        """Neurons, or channels, that it hears."""
        return cls.listeners(module, name).shape[1] * getattr(module, "groups", 1)


def buffer_name(weight: str) -> str:
    """Where a weight's random feedback is kept."""
    return f"feedback_{weight}"


class NextLayerLinear(NextLayer, nn.Linear):
    """``nn.Linear``."""

    plain = nn.Linear

    def forward(self, input: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """The plain layer's."""
        return self.hear("weight", DENSE, input, self.weight, self.bias)


class _NextLayerConv(NextLayer, nn.modules.conv._ConvNd):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The plain layer's; what is put around the input lies outside the rule."""
        sides = self._reversed_padding_repeated_twice
        before, after = sides[-2::-2], sides[::-2]  # of each axis in order
        if self.padding_mode != "zeros":
            input = F.pad(input, sides, mode=self.padding_mode)
            before = (0,) * len(before)
        elif before != after:  # "same" with an even kernel: torch puts the one more at the end
            extra = [side for b, a in zip(before[::-1], after[::-1], strict=True) for side in (0, a - b)]
            input = F.pad(input, extra)
        convolution = Convolution(self.stride, tuple(before), self.dilation, self.groups)
        if input.dim() == weight.dim():
            return self.hear("weight", convolution, input, weight, bias)
        return self.hear("weight", convolution, input[None], weight, bias)[0]


class NextLayerConv1d(_NextLayerConv, nn.Conv1d):
    """``nn.Conv1d``."""

    plain = nn.Conv1d


class NextLayerConv2d(_NextLayerConv, nn.Conv2d):
    """``nn.Conv2d``."""

    plain = nn.Conv2d


class NextLayerConv3d(_NextLayerConv, nn.Conv3d):
    """``nn.Conv3d``."""

    plain = nn.Conv3d


LAYERS: dict[type[nn.Module], type[NextLayer]] = {
    cls.plain: cls for cls in (NextLayerLinear, NextLayerConv1d, NextLayerConv2d, NextLayerConv3d)
}
"""Torch's layers to those on the rule."""


def next_layer_class(module: nn.Module) -> type[NextLayer] | None:
    """The class that takes this module's place; None for kinds we do not know."""
    if type(module).__module__ == "emergence.model":  # elsewhere TransformerLens would take its seconds to load
        from .particles import PARTICLE_LAYERS

        return PARTICLE_LAYERS.get(type(module))
    return LAYERS.get(type(module))  # not subclasses: torch's attention reads the weight of its own past its forward

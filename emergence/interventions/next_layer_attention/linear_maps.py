"""The two kinds of linear maps of torch, and what their gradients are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class LinearMap:
    """A map with weights ``(listener, source, ...)``."""

    def outputs(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Its value."""
        raise NotImplementedError

    def to_sources(self, signal: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
        """The gradient of ``x`` if ``matrix`` were the weight."""
        raise NotImplementedError

    def to_weight(self, signal: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient of the weight."""
        raise NotImplementedError

    def to_bias(self, signal: Tensor) -> Tensor:
        """The gradient of the bias."""
        raise NotImplementedError

    def n_sources(self, x_shape: torch.Size) -> int:
        """Neurons, or channels of them, that it hears."""
        raise NotImplementedError

    def over_positions(self, projected: Tensor, x_shape: torch.Size) -> Tensor | None:
        """``projected``, sources last, in the shape of ``x``; None if it does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dense(LinearMap):
    """``F.linear``."""

    def outputs(
        self, x: Float[Tensor, "*batch source"], weight: Float[Tensor, "listener source"], bias: Tensor | None
    ) -> Float[Tensor, "*batch listener"]:
        """Its value."""
        return F.linear(x, weight, bias)

    def to_sources(self, signal: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
        """A product with the matrix."""
        return signal @ matrix

    def to_weight(self, signal: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The outer product, summed over the batch."""
        return _rows(signal).T @ _rows(x)

    def to_bias(self, signal: Tensor) -> Tensor:
        """The sum over the batch."""
        return _rows(signal).sum(0)

    def n_sources(self, x_shape: torch.Size) -> int:
        """The last axis."""
        return x_shape[-1]

    def over_positions(self, projected: Tensor, x_shape: torch.Size) -> Tensor | None:
        """As it is, or the same at every position between batch and sources."""
        if projected.shape == x_shape:
            return projected
        if projected.dim() != 2 or len(x_shape) < 3 or projected.shape != (x_shape[0], x_shape[-1]):
            return None
        return projected.view(x_shape[0], *[1] * (len(x_shape) - 2), x_shape[-1]).expand(x_shape)


def _rows(t: Float[Tensor, "*batch n"]) -> Float[Tensor, "rows n"]:
    return t if t.dim() == 2 else t.reshape(-1, t.shape[-1])


DENSE = Dense()


@dataclass(frozen=True)
class Convolution(LinearMap):
    """``F.conv1d`` to ``conv3d`` with zeros around.

    Attributes:
        stride: along each axis, as are the next two.
        padding: on both sides.
        dilation: of the kernel.
        groups: of channels.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def outputs(
        self, x: Float[Tensor, "batch channel *space"], weight: Float[Tensor, "listener source *kernel"],
        bias: Tensor | None,
    ) -> Float[Tensor, "batch listener *place"]:  # fmt: skip
        """Its value."""
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def to_sources(self, signal: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
        """A transposed convolution with the matrix."""
        return self._gradients(signal, x, matrix, (True, False, False))[0]

    def to_weight(self, signal: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The correlation of signals with inputs."""
        return self._gradients(signal, x, weight, (False, True, False))[1]

    def to_bias(self, signal: Tensor) -> Tensor:
        """The sum over batch and places."""
        return signal.sum((0, *range(2, signal.dim())))

    def n_sources(self, x_shape: torch.Size) -> int:
        """The second axis."""
        return x_shape[1]

    def over_positions(self, projected: Tensor, x_shape: torch.Size) -> Tensor | None:
        """The same at every place."""
        if projected.shape != x_shape[:2]:
            return None
        return projected.view(*x_shape[:2], *[1] * (len(x_shape) - 2)).expand(x_shape)

    def _gradients(self, signal: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            signal, x, weight, None, self.stride, self.padding, self.dilation, False, [0] * len(self.stride),
            self.groups, wanted,
        )  # fmt: skip

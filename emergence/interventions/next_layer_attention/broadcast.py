"""The error at the model's output, brought to every layer of the same forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from .linear_maps import LinearMap


class OutputError:
    """The gradient by the output of one forward pass: layers note that they wait for it, the output announces it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, LinearMap, torch.Size]] = []
        self.value: Tensor | None = None

    def projected(self, name: str, linear_map: LinearMap, matrix: Tensor, x_shape: torch.Size, drawn: Any) -> Tensor:
        """``e B`` in the shape of a layer's input.

        Raises:
            ValueError: no error has come from the output.
        """
        if self.value is None:
            raise ValueError(
                f"layer {name!r} waits for the error at the model's output, and none came; "
                "call the converted model as a whole, with a loss of its output"
            )
        found = linear_map.over_positions(drawn(self.value) @ matrix.to(self.value.dtype), x_shape)
        assert found is not None  # checked when the output was there
        return found


class Broadcast:
    """A forward hook of the model; it gives the layers the ``OutputError`` of the pass under way.

    Attributes:
        n_outputs: that the random matrices were drawn for.
        current: of the pass under way.
    """

    def __init__(self, n_outputs: int) -> None:
        self.n_outputs = n_outputs
        self.current = OutputError()

    def __call__(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        """Listen for the gradient by the output; the next pass gets an error of its own.

        Raises:
            TypeError: the output is no tensor.
            ValueError: its shape does not fit the random matrices or the layers.
        """
        error, self.current = self.current, OutputError()
        if not error.waiting:
            return output
        if not isinstance(output, Tensor):
            raise TypeError(f"direct feedback needs a model with one tensor as output, got {type(output).__name__}")
        if output.dim() < 2 or output.shape[-1] != self.n_outputs:
            raise ValueError(
                f"direct feedback was drawn for outputs of shape (batch, ..., {self.n_outputs}), got "
                f"{tuple(output.shape)}; give DirectFeedbackAlignment(n_outputs=...)"
            )
        for name, linear_map, x_shape in error.waiting:
            if not _fits(output.shape, linear_map, x_shape):
                raise ValueError(
                    f"direct feedback cannot reach layer {name!r}: its input has shape {tuple(x_shape)}, the output "
                    f"{tuple(output.shape)}; both need the batch first, and the output no positions the input lacks"
                )
        return _Announced.apply(output, error) if output.requires_grad else output


def _fits(output_shape: torch.Size, linear_map: LinearMap, x_shape: torch.Size) -> bool:
    if len(x_shape) < 2:
        return False
    projected = torch.empty(*output_shape[:-1], linear_map.n_sources(x_shape), device="meta")
    return linear_map.over_positions(projected, x_shape) is not None


class _Announced(Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, error: OutputError) -> Tensor:
        ctx.error = error
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (signal,) = grads
        ctx.error.value = signal.detach()
        return signal, None

"""What a batch keeps between products: graphs that turn a direction into curvature by reverse mode alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..objective import SplitLoss
from ..protocols import LossFn
from .second_order import graph_nodes, refused_custom_functions

Matrix = Literal["hessian", "ggn"]
"""The Hessian of the loss, or its generalised Gauss-Newton matrix, J^T H_out J."""


class HessianGraph:
    """H v as the derivative of the gradient in the direction v: its graph is built once, then walked backwards.

    Attributes:
        n_bytes: memory of what is kept.

    References:
        Pearlmutter 1994, "Fast exact multiplication by the Hessian", Neural Computation 6:147. We run his operator
        as reverse over reverse, not as forward over reverse.
    """

    def __init__(self, model: nn.Module, batch: Any, loss_fn: LossFn, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        loss = loss_fn(model, batch)
        _require_graph(loss, "loss_fn returned a loss")
        with refused_custom_functions(loss):
            seed = torch.ones_like(loss, requires_grad=True)
            self._gradient = torch.autograd.grad(loss, tensors, seed, create_graph=True, materialize_grads=True)
        self.n_bytes = _held_bytes(self._gradient) + sum(g.nbytes for g in self._gradient)

    def product(self, directions: Sequence[Tensor], *, retain: bool, is_batched: bool) -> list[Tensor]:
        """H v, or with ``is_batched`` several v on the first axis; ``retain`` allows another call."""
        return _pull_back(self._gradient, self._tensors, directions, retain=retain, is_batched=is_batched)


class GaussNewtonGraph:
    """G v = J^T H_out J v, J the derivative of the output in the tensors, H_out that of the loss in the output.

    J v is the derivative of the linear map u -> J^T u in the direction v, so that reverse mode is enough and every
    layer that can be differentiated twice will do.

    Attributes:
        n_bytes: memory of what is kept.

    References:
        Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent", Neural
        Computation 14:1723, for G v; Townsend 2017, "A new trick for calculating Jacobian vector products", for J v.
    """

    def __init__(self, model: nn.Module, batch: Any, loss_fn: SplitLoss, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._output = loss_fn.output_fn(model, batch)
        if not isinstance(self._output, Tensor):
            raise ValueError(f"output_fn must return a tensor, got {type(self._output).__name__}; pick one out of it")
        _require_graph(self._output, "output_fn returned an output")
        self._leaf = self._output.detach().requires_grad_()
        loss = loss_fn.output_loss_fn(self._leaf, batch)
        _require_graph(loss, "output_loss_fn returned a loss", "output")
        with refused_custom_functions(loss):
            seed = torch.ones_like(loss, requires_grad=True)
            (self._slope,) = torch.autograd.grad(loss, self._leaf, seed, create_graph=True)
        with refused_custom_functions(self._output):
            self._cotangent = torch.zeros_like(self._output, requires_grad=True)
            self._pulled = torch.autograd.grad(
                self._output, tensors, self._cotangent, create_graph=True, materialize_grads=True
            )
        kept = (*self._pulled, self._output, self._slope)
        self.n_bytes = _held_bytes(kept) + sum(t.nbytes for t in kept)

    def product(self, directions: Sequence[Tensor], *, retain: bool, is_batched: bool) -> list[Tensor]:
        """J^T (H_out (J v)), with arguments as for the Hessian."""
        tangent = _pull_back(self._pulled, [self._cotangent], directions, retain=True, is_batched=is_batched)
        curved = _pull_back([self._slope], [self._leaf], tangent, retain=retain, is_batched=is_batched)
        return _pull_back([self._output], self._tensors, curved, retain=retain, is_batched=is_batched)


def _pull_back(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], weights: Sequence[Tensor], *, retain: bool, is_batched: bool
) -> list[Tensor]:
    """Derivative of the weighted outputs in the inputs, zero where nothing depends on them."""
    pairs = [(output, weight) for output, weight in zip(outputs, weights, strict=True) if output.requires_grad]
    leading = weights[0].shape[:1] if is_batched else ()
    if not pairs:  # a map linear in the inputs
        return [x.new_zeros(*leading, *x.shape) for x in inputs]
    outputs, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(
        outputs, inputs, weights, retain_graph=retain, allow_unused=True, is_grads_batched=is_batched
    )
    return [x.new_zeros(*leading, *x.shape) if g is None else g for g, x in zip(found, inputs, strict=True)]


def _require_graph(result: Tensor, what: str, on: str = "parameter") -> None:
    if not result.requires_grad:
        raise ValueError(f"{what} that depends on no {on} (detached, or computed under no_grad?)")


def _held_bytes(results: Sequence[Tensor]) -> int:
    """Bytes of the tensors saved in a graph, found by walking it; parameters and inputs count as well.

    Saved-tensor hooks would be shorter, but in torch 2.13 a graph built under them is not freed.
    """
    storages: dict[int, int] = {}
    fields: dict[type, list[str]] = {}
    for node in graph_nodes(results):
        kind = type(node)
        if kind not in fields:
            fields[kind] = [name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors"]
        for name in fields[kind]:
            saved = getattr(node, name)
            for tensor in saved if isinstance(saved, (tuple, list)) else [saved]:
                if isinstance(tensor, Tensor):
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())

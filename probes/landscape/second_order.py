"""Name what cannot be differentiated twice: the smallest submodule that fails on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from ..protocols import LossFn

_REMEDIES = {
    "is not implemented": "use attention or a loss without a fused kernel: explicit softmax, or "
    "scaled_dot_product_attention, which is run here with its math backend",
    "double backward": "use an operation that can be differentiated twice, and no compiled model",
    "custom function": "write its backward with differentiable operations on what save_for_backward kept",
    "inplace operation": "let the forward pass write into no tensor that it used before, a cache for instance",
    "use_reentrant": "call torch.utils.checkpoint with use_reentrant=False",
}
"""What an error of torch says when second derivatives fail, and what to do."""


@contextmanager
def second_order_errors(model: nn.Module, batch: Any, loss_fn: LossFn) -> Iterator[None]:
    """Say which submodule of the model, or the loss itself, has no second derivative, and what to do."""
    try:
        yield
    except RuntimeError as error:
        remedy = _remedy(error)
        if remedy is None:
            raise
        reason = shorten(str(error).strip().partition("\n")[0], 160, placeholder=" ...")
        culprit = _culprit(model, batch, loss_fn)
        raise ValueError(
            f"the loss cannot be differentiated twice, because of {culprit} ({reason}); {remedy}"
        ) from error


def _remedy(error: RuntimeError) -> str | None:
    return next((remedy for mark, remedy in _REMEDIES.items() if mark in str(error)), None)


@contextmanager
def refused_custom_functions(result: Tensor) -> Iterator[None]:
    """Watch the custom functions behind ``result`` while it is differentiated inside, from a seed that has a graph.

    One that leaves the graph in its backward gives a right gradient and, without any error, a Hessian that lacks its
    part. So does one marked as once differentiable: the node that would complain has no way to the parameters, and
    the engine leaves it out (torch 2.13).

    Raises:
        RuntimeError: there was one, for ``second_order_errors`` to explain.
    """
    faults: list[str] = []
    for node in graph_nodes([result]):
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            node.register_hook(_watching(node, faults))
    yield
    if faults:
        raise RuntimeError(faults[0])


def _watching(node: Any, faults: list[str]) -> Callable[[Sequence[Tensor | None], Sequence[Tensor | None]], None]:
    name, edges = node.name().removesuffix("Backward"), [function for function, _ in node.next_functions]

    def hook(to_inputs: Sequence[Tensor | None], _to_outputs: Sequence[Tensor | None]) -> None:
        for g, edge in zip(to_inputs, edges, strict=True):
            if g is None or edge is None:  # no part of the loss, or an input that needs no gradient
                continue
            if g.grad_fn is None:
                faults.append(f"the backward of the custom function {name} leaves the graph: detach, numpy or no_grad")
            elif g.grad_fn.name() == "torch::autograd::Error":
                faults.append(f"the custom function {name} is marked once_differentiable")

    return hook


def graph_nodes(results: Sequence[Tensor]) -> list[Any]:
    """All nodes of the graph behind some tensors."""
    found = [t.grad_fn for t in results if t.grad_fn is not None]
    seen = set(found)
    for node in found:  # grows while it is walked
        following = {function for function, _ in node.next_functions if function is not None} - seen
        seen |= following
        found.extend(following)
    return found


def _culprit(model: nn.Module, batch: Any, loss_fn: LossFn) -> str:
    """The innermost submodule that fails on the inputs it got; where none does, it is the loss function."""
    modules = dict(model.named_modules())
    with sdpa_kernel(SDPBackend.MATH):
        calls = _recorded_calls(modules, model, batch, loss_fn)
        for name in sorted(calls, key=lambda name: name.count(".") + bool(name), reverse=True):
            if not _is_twice_differentiable(modules[name], *calls[name]):
                where = f"submodule {name!r}" if name else "the forward of the model"
                return f"{where} ({type(modules[name]).__name__})"
    return "loss_fn itself"


def _recorded_calls(
    modules: dict[str, nn.Module], model: nn.Module, batch: Any, loss_fn: LossFn
) -> dict[str, tuple[tuple, dict]]:
    """Arguments of each submodule's first call."""
    calls: dict[str, tuple[tuple, dict]] = {}

    def recording(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            calls.setdefault(name, tree_map(_copied, (args, kwargs)))

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            handle = module.register_forward_pre_hook(recording(name), with_kwargs=True)
            hooks.callback(handle.remove)
        loss_fn(model, batch)
    return calls


def _copied(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _is_twice_differentiable(module: nn.Module, args: tuple, kwargs: dict) -> bool:
    """Differentiate a submodule alone, twice, after a second call that shows what is overwritten between calls."""
    leaves: list[Tensor] = [p for p in module.parameters() if p.requires_grad]

    def fresh(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        leaves.append(x.clone().requires_grad_())
        return leaves[-1].clone()  # not a leaf, so that it may be written into

    try:
        args, kwargs = tree_map(fresh, (args, kwargs))
        with torch.enable_grad():
            outputs = [t for t in tree_leaves(module(*args, **kwargs)) if isinstance(t, Tensor) and t.requires_grad]
            module(*args, **kwargs)
            cotangents = [torch.ones_like(t, requires_grad=True) for t in outputs]
            if not outputs:
                return True
            with ExitStack() as watched:
                for output in outputs:
                    watched.enter_context(refused_custom_functions(output))
                slopes = torch.autograd.grad(outputs, leaves, cotangents, create_graph=True, materialize_grads=True)
            curved = [g for g in slopes if g.requires_grad]
            if curved:
                ones = [torch.ones_like(g) for g in curved]
                torch.autograd.grad(curved, [*leaves, *cotangents], ones, allow_unused=True)
    except RuntimeError as error:
        return _remedy(error) is None
    return True

"""Attention patterns of models that are not ours: TransformerLens, Hugging Face, plain PyTorch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .hooking import record_outputs
from .isolation import isolated

SIGNATURE = tuple(inspect.signature(nn.MultiheadAttention.forward).parameters)[1:]
PATTERN = re.compile(r"blocks\.\d+\.attn\.hook_pattern")


@torch.no_grad()
def attention_patterns(model: nn.Module, inputs: Iterable[Any]) -> list[Float[np.ndarray, "scene head query key"]]:
    """Attention of each layer, whichever way the model hands it out.

    In this order: submodules named ``blocks.0.attn.hook_pattern`` as in TransformerLens; ``output_attentions`` of a
    Hugging Face model, whose attention is switched to the eager kind for the call; ``nn.MultiheadAttention``, which is
    asked for the weights of each head while what it returns to the model stays the same.

    Args:
        model: left as it was found.
        inputs: one positional argument a call; a dict is keyword arguments, as Hugging Face tokenizers make.

    Returns:
        One array a layer, in the order of the forward pass, joined over inputs along the first axis.

    Raises:
        ValueError: no such layer, no inputs, or a layer that returned no pattern (a fused path went around it).
        TypeError: a bare tensor or dict as inputs.

    Cost: one forward pass an input.
    """
    if isinstance(inputs, (Tensor, Mapping)):
        raise TypeError(f"inputs must be several inputs, got one {type(inputs).__name__}; put it in a list")
    batches = list(inputs)
    if not batches:
        raise ValueError("inputs is empty; give at least one")
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if PATTERN.fullmatch(name)]
    if names:
        recorded = record_outputs(model, batches, names)
        layers = list(recorded.values())
    elif hasattr(model, "set_attn_implementation"):
        layers = _hugging_face(model, batches)
    else:
        layers = _multihead(model, batches)
    return [layer.cpu().numpy() for layer in layers]


def _hugging_face(model: Any, batches: list[Any]) -> list[Tensor]:
    before = model.config._attn_implementation
    with isolated(model), _taken_back(model):
        model.set_attn_implementation("eager")  # the fused kinds have no pattern to return
        try:
            found = [_called(model, x, output_attentions=True).attentions for x in batches]
        finally:
            model.set_attn_implementation(before)
    if not all(found) or any(layer is None for layers in found for layer in layers):
        raise ValueError(
            f"{type(model).__name__} returned no attentions; load it with attn_implementation='eager', "
            "or name the submodule that returns its pattern to record_outputs"
        )
    return [torch.cat(layers) for layers in zip(*found, strict=True)]


@contextmanager
def _taken_back(model: nn.Module) -> Iterator[None]:
    """Remove what the library hangs on its modules at the first such call: hooks, and the mark that they are there."""
    before = [(module, set(module.__dict__), set(module._forward_hooks)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, hooks in before:
            for name in set(module.__dict__) - attributes:
                del module.__dict__[name]
            for hook in set(module._forward_hooks) - hooks:
                del module._forward_hooks[hook]


def _multihead(model: nn.Module, batches: list[Any]) -> list[Tensor]:
    attention = {name: m for name, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)}
    if not attention:
        raise ValueError(
            f"{type(model).__name__} hands out no attention pattern: it has no blocks.*.attn.hook_pattern, no "
            "output_attentions and no nn.MultiheadAttention; name the submodule that returns it to record_outputs"
        )
    seen: dict[str, list[Tensor]] = {name: [] for name in attention}
    with isolated(model), ExitStack() as hooks:
        for name, module in attention.items():
            hooks.enter_context(_weights_of_each_head(module, seen[name]))
        for x in batches:
            _called(model, x)
    for name, weights in seen.items():
        if len(weights) != len(batches):
            raise ValueError(
                f"{name!r} returned {len(weights)} patterns in {len(batches)} forward passes; "
                "is there a fused path around it, or is it used in several places?"
            )
    return [torch.cat(weights) for weights in seen.values()]


@contextmanager
def _weights_of_each_head(module: nn.MultiheadAttention, seen: list[Tensor]) -> Iterator[None]:
    """Ask for the weights by head and keep them; the caller gets what it asked for."""
    asked: list[tuple[bool, bool]] = []

    def before(_module: nn.Module, args: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        given = dict(zip(SIGNATURE, args, strict=False)) | options
        asked.append((given.pop("need_weights", True), given.pop("average_attn_weights", True)))
        return (), given | {"need_weights": True, "average_attn_weights": False}

    def after(_module: nn.Module, _args: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        mixed, weights = output
        if weights.ndim != 4:
            raise ValueError(
                f"nn.MultiheadAttention must be given batches of scenes, got weights {tuple(weights.shape)}"
            )
        seen.append(weights)
        needed, averaged = asked.pop()
        return mixed, None if not needed else weights.mean(dim=1) if averaged else weights

    handles = module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _called(model: nn.Module, x: Any, **options: Any) -> Any:
    return model(**x, **options) if isinstance(x, Mapping) else model(x, **options)

"""Read or replace what a named submodule returns, for the length of a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .isolation import isolated


def named_submodule(model: nn.Module, name: str) -> nn.Module:
    """Find a submodule.

    Raises:
        ValueError: there is none of that name; the message lists those with the same last part.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        alike = [n for n in modules if n.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        raise ValueError(f"model has no submodule {name!r}; alike: {', '.join(alike) or 'none'}")
    return modules[name]


@contextmanager
def replaced_output(model: nn.Module, name: str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the rest of the model see ``replace(output)`` instead of the output of submodule ``name``."""
    handle = named_submodule(model, name).register_forward_hook(_returning(replace))
    try:
        yield
    finally:
        handle.remove()


def _returning(replace: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Tensor]:
    return lambda _module, _args, output: replace(output)


@torch.no_grad()
def record_outputs(model: nn.Module, inputs: Iterable[Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Run the model and collect what the named submodules returned, joined along the first axis.

    Attention patterns of a TransformerLens-style model, for instance:
    ``record_outputs(model, [features], ["blocks.0.attn.hook_pattern"])``.

    Args:
        model: any torch module; it is left as it was found.
        inputs: one positional argument a call, such as batches of features.
        names: submodules whose output is a tensor with the batch on the first axis.

    Raises:
        ValueError: an unknown name, or a submodule that was never called (a fused path skipped it, perhaps).
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        named_submodule(model, name).register_forward_hook(
            _returning(lambda output, name=name: seen[name].append(output.detach()) or output)
        )
        for name in names
    ]
    try:
        with isolated(model):
            for x in inputs:
                model(x)
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name, outputs in seen.items() if not outputs]
    if silent:
        raise ValueError(
            f"submodule {silent[0]!r} was not called in the forward pass; is there a fused path around it?"
        )
    return {name: torch.cat(outputs) for name, outputs in seen.items()}

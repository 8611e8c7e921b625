"""Read or replace what a named submodule returns, for the length of a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .isolation import isolated


def named_submodule(model: nn.Module, name: str) -> nn.Module:
    """Find a submodule.

    Raises:
        ValueError: there is none of that name; the message lists those with the same last part, or spelled alike.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:  # an error may look at every name; a call may not
        modules = [n for n, _ in model.named_modules(remove_duplicate=False)]
    alike = [n for n in modules if n.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    alike = alike or get_close_matches(name, modules, n=5) or [n for n in modules if n][:5]
    raise ValueError(f"model has no submodule {name!r}; alike: {', '.join(alike) or 'none, it has no submodules'}")


def matching_submodules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the submodules that a name or glob pattern takes (``fnmatch``: a star also takes dots).

    Raises:
        ValueError: a name or pattern that matches none; the message lists names alike.
    """
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            named_submodule(model, pattern)  # refuses, with the names alike
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@contextmanager
def replaced_output(model: nn.Module, name: str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the rest of the model see ``replace(output)`` instead of the output of submodule ``name``.

    Raises:
        ValueError: no such submodule, or the block ends and the submodule was never called: nothing was replaced.
        TypeError: the submodule returned something other than a tensor.
    """
    n_calls = 0

    def hook(_module: nn.Module, _args: Any, output: Any) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return replace(_tensor(output, name))

    handle = named_submodule(model, name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if n_calls == 0:
        raise _never_called(name)


@torch.no_grad()
def record_outputs(model: nn.Module, inputs: Iterable[Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Run the model and collect what the named submodules returned, joined along the first axis.

    Attention patterns of a TransformerLens-style model, for instance:
    ``record_outputs(model, [features], ["blocks.0.attn.hook_pattern"])``.

    Args:
        model: any torch module; it is left as it was found.
        inputs: one positional argument a call, such as batches of features.
        names: submodules whose output is a tensor with the batch on the first axis.

    Returns:
        Name to a copy of the outputs.

    Raises:
        ValueError: an unknown name, no inputs, or a submodule that was not called once a forward pass (a fused path
            skipped it, or the model uses it in several places).
        TypeError: a submodule that returns no tensor, a bare string as names, or a bare tensor as inputs.

    Cost: one forward pass an input.
    """
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of names, got the string {names!r}; put it in a list")
    if isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs must be several inputs, got one tensor of shape {tuple(inputs.shape)}; put it in a list"
        )
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    n_passes = 0
    with isolated(model), ExitStack() as hooks:
        for name, outputs in seen.items():
            handle = named_submodule(model, name).register_forward_hook(_appending(name, outputs))
            hooks.callback(handle.remove)
        for x in inputs:
            model(x)
            n_passes += 1
    if n_passes == 0:
        raise ValueError("inputs is empty; give at least one")
    for name, outputs in seen.items():
        if not outputs:
            raise _never_called(name)
        if len(outputs) != n_passes:
            raise ValueError(
                f"submodule {name!r} was called {len(outputs)} times in {n_passes} forward passes; "
                "give each of its uses a submodule of its own"
            )
    return {name: torch.cat(outputs) if n_passes > 1 else outputs[0] for name, outputs in seen.items()}


def _appending(name: str, outputs: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        outputs.append(_tensor(output, name).detach().clone())  # later layers may write into it

    return hook


def _tensor(output: Any, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"submodule {name!r} must return a tensor, got {type(output).__name__}; name one inside it")
    return output


def _never_called(name: str) -> ValueError:
    return ValueError(f"submodule {name!r} was not called in the forward pass; is there a fused path around it?")

"""Which layers are looked at, in the order of the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..hooking import matching_submodules, replaced_output
from ..isolation import isolated


def called_in_order(model: nn.Module, layers: Sequence[str], run: Callable[[], Any]) -> tuple[str, ...]:
    """Names of the layers in the order in which they return during one ``run`` of the model.

    Args:
        model: left as it was found.
        layers: names or glob patterns of submodules.
        run: one forward pass.

    Raises:
        TypeError: a bare string, or a layer that returns no tensor.
        ValueError: no layer, an unknown one, one that is not called, or one that is called several times.
    """
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names or patterns, got the string {layers!r}; put it in a list")
    names = matching_submodules(model, list(layers))
    if not names:
        raise ValueError("layers is empty; name at least one submodule")
    calls: list[str] = []

    def noting(name: str) -> Callable[[Tensor], Tensor]:
        def note(output: Tensor) -> Tensor:
            calls.append(name)
            return output

        return note

    with isolated(model), ExitStack() as hooks:
        for name in names:
            hooks.enter_context(replaced_output(model, name, noting(name)))
        run()
    for name in names:
        if calls.count(name) > 1:
            raise ValueError(
                f"layer {name!r} is called {calls.count(name)} times in one evaluation; "
                "give each of its uses a submodule of its own"
            )
    return tuple(calls)

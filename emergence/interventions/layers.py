"""Layers asked for by name or pattern, and what is wrong with them, for methods that replace their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn


def matching_layers(layers: str | Iterable[str], known: Sequence[str], kinds: str) -> list[str]:
    """Which of the ``known`` names were asked for, in their order.

    Args:
        layers: names or glob patterns.
        known: layers that can be converted.
        kinds: what can be, in words, for a model that has none.

    Raises:
        TypeError: ``layers`` holds something other than names.
        ValueError: a name or pattern matches nothing.
    """
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns:
        raise ValueError("layers is empty; give names or patterns of layers")
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"layers must hold names or patterns, got {type(pattern).__name__}")
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            hint = _hint(pattern, known, kinds)
            raise ValueError(f"layers: {pattern!r} matches no layer that can be converted; {hint}")
        chosen.update(found)
    return [name for name in known if name in chosen]


def _hint(pattern: str, known: Sequence[str], kinds: str) -> str:
    if not known:
        return f"the model has none ({kinds})"
    near = get_close_matches(pattern, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def check_own_weights(
    model: nn.Module, names: Iterable[str], weights_of: Callable[[nn.Module], Iterable[Tensor]]
) -> None:
    """Refuse layers whose weights are shared with others or not finite."""
    owners: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, []).append(name)
    for name in names:
        for weight in weights_of(model.get_submodule(name)):
            if len(owners[weight]) > 1:
                raise ValueError(f"layer {name!r} shares a weight: {' and '.join(owners[weight])}; untie them first")
            if not weight.isfinite().all():
                raise ValueError(
                    f"layer {name!r} holds weights that are not finite; convert a model before it diverges"
                )

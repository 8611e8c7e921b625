"""Which parts of a model can be converted, and which of them were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from probes.isolation import check_values

from .correction import branch_of

_NAMED = (("W_Q", "W_K", "W_V", "W_O"), ("W_in", "W_out"))
"""TransformerLens' names of the weights of an attention layer and of an MLP; inputs on the last but one axis."""


def weight_names(module: nn.Module) -> tuple[str, ...]:
    """The weights of a module that take a structure; none where it is of no kind we know."""
    if type(module) is nn.Linear or (isinstance(module, nn.Linear) and is_parametrized(module)):
        return ("weight",)  # subclasses may never be called: torch's attention reads the weight of its own
    own = {*module._parameters, *getattr(module, "parametrizations", ())}
    return next((names for names in _NAMED if own.issuperset(names)), ())


def ends(module: nn.Module) -> tuple[int, int]:
    """Sizes of a convertible module's input and output."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    first, *_, last = weight_names(module)
    return getattr(module, first).shape[-2], getattr(module, last).shape[-1]


def find_layers(model: nn.Module, layers: str | Iterable[str]) -> list[str]:
    """Names of the modules to convert, in the model's order.

    Raises:
        TypeError: ``layers`` holds something other than names.
        ValueError: a name or pattern matches nothing that can be converted, or what it matches was converted before,
            shares a weight or holds one that is not finite.
    """
    check_values(model)
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns:
        raise ValueError("layers is empty; give names or patterns of layers")
    branches = [branch for module in model.modules() if (branch := branch_of(module))]
    inside = {part for branch in branches for part in branch.modules()}
    known = [name for name, module in model.named_modules() if weight_names(module) and module not in inside]
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"layers must hold names or patterns, got {type(pattern).__name__}")
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(f"layers: {pattern!r} matches no layer that can be converted; {_hint(pattern, known)}")
        chosen.update(found)
    names = [name for name in known if name in chosen]
    _check_weights(model, names)
    return names


def _hint(pattern: str, known: Sequence[str]) -> str:
    if not known:
        return "the model has none (nn.Linear, or TransformerLens' W_Q W_K W_V W_O or W_in W_out)"
    near = get_close_matches(pattern, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _check_weights(model: nn.Module, names: Sequence[str]) -> None:
    owners: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, []).append(name)
    for name in names:
        module = model.get_submodule(name)
        if is_parametrized(module) or branch_of(module):
            raise ValueError(f"layer {name!r} is converted already; convert the plain model, or export it first")
        for weight in (getattr(module, kind) for kind in weight_names(module)):
            if len(owners[weight]) > 1:
                raise ValueError(f"layer {name!r} shares a weight: {' and '.join(owners[weight])}; untie them first")
            if not weight.isfinite().all():
                raise ValueError(
                    f"layer {name!r} holds weights that are not finite; convert a model before it diverges"
                )

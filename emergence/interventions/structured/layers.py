"""Which parts of a model can be converted, and which of them were asked for."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from probes.isolation import check_values

from ..layers import check_own_weights, matching_layers
from .correction import branch_of

_NAMED = (("W_Q", "W_K", "W_V", "W_O"), ("W_in", "W_out"))
"""TransformerLens' names of the weights of an attention layer and of an MLP; inputs on the last but one axis."""

_KINDS = "nn.Linear, or TransformerLens' W_Q W_K W_V W_O or W_in W_out"


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
    branches = [branch for module in model.modules() if (branch := branch_of(module))]
    inside = {part for branch in branches for part in branch.modules()}
    known = [name for name, module in model.named_modules() if weight_names(module) and module not in inside]
    names = matching_layers(layers, known, _KINDS)
    for name in names:
        module = model.get_submodule(name)
        if is_parametrized(module) or branch_of(module):
            raise ValueError(f"layer {name!r} is converted already; convert the plain model, or export it first")
    check_own_weights(model, names, lambda module: [getattr(module, kind) for kind in weight_names(module)])
    return names

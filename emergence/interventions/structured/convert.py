"""From plain layers to structured ones, and back to plain ones with the same function."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations

from ..naming import by_name
from ..settings import StructureName
from .correction import Branch, Correction, attach
from .layers import ends, find_layers, weight_names
from .shaping import Shaping, Structure
from .structures import STRUCTURES

_DEFAULT_CORRECTION = Correction()


def convert(
    model: nn.Module,
    layers: str | Iterable[str],
    structure: Structure | StructureName = "orthogonal",
    correction: Correction | None = _DEFAULT_CORRECTION,
    *,
    generator: torch.Generator,
) -> nn.Module:
    """Replace free weights by structured ones with a correction beside them: ``S(W) x + b + a phi(x)``.

    Nikooroo & Engel 2025 (arXiv 2508.00127). Their abstract and figure give two parallel branches from the layer's
    input, a shaping operator on the weight and a learned nonlinear map; operators, map and start are ours. The copy
    begins at the structured matrices nearest to the weights (Frobenius norm) and at a correction of zero, so
    converting a trained model projects it.

    Args:
        model: any torch module; it is left as it is.
        layers: names or glob patterns of ``nn.Linear`` modules, or of attention layers and MLPs whose weights carry
            TransformerLens' names (``"blocks.*.attn"``, ``"blocks.*.mlp"``). All weights of such a module are
            shaped, those of attention head by head, and one correction runs from its input to its output.
        structure: a name from ``STRUCTURES``, or settings such as ``Spectral(bound=0.9)``. Orthogonal is the default
            because it fits every shape.
        correction: settings of phi; None is structure alone.
        generator: draws the first map of phi and random masks.

    Returns:
        A copy in which the layers keep their names, ``weight``, ``bias`` and sizes; the free numbers are
        ``parametrizations.weight.original``. Save it by ``state_dict`` and load into a model converted alike.

    Raises:
        TypeError: wrong kinds of arguments.
        ValueError: no such layer, a shape that the structure does not fit, an unknown structure, or a layer that is
            converted already, shares its weight, or has weights that are not finite.

    Cost: a copy, and a singular value decomposition a weight (fifty for ``low_rank_diagonal``). Training costs more
    than with plain layers; see ``tests/benchmarks/bench_structured.py``.
    """
    chosen = by_name("structure", structure, STRUCTURES, Structure)
    if correction is not None and not isinstance(correction, Correction):
        raise TypeError(f"correction must be Correction(...) or None, got {type(correction).__name__}")
    names = find_layers(model, layers)
    shapings = {
        (name, kind): _shaping(model, name, kind, chosen, generator)
        for name in names
        for kind in weight_names(model.get_submodule(name))
    }
    converted = copy.deepcopy(model)
    for (name, kind), shaping in shapings.items():
        module = converted.get_submodule(name)
        register_parametrization(module, kind, shaping)
        cast(nn.ModuleDict, module.parametrizations).train(module.training)
    if correction is not None:
        for name in names:
            _correct(converted.get_submodule(name), correction, generator)
    return converted


def _shaping(model: nn.Module, name: str, kind: str, structure: Structure, generator: torch.Generator) -> Shaping:
    try:
        return structure.shaping(getattr(model.get_submodule(name), kind).detach(), generator)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from None


def _correct(module: nn.Module, settings: Correction, generator: torch.Generator) -> None:
    like = next(module.parameters())
    branch = Branch(*ends(module), settings, like, generator)
    attach(module, branch.train(module.training))


def export(model: nn.Module) -> nn.Module:
    """Write the structured weights out as plain ones: the same function, none of the structure's cost.

    Args:
        model: from ``convert``; it is left as it is.

    Returns:
        A copy in which every shaped weight is a parameter of its own, so that linear layers are ``nn.Linear`` again.
        Corrections keep running beside their layers, as two linear layers with a tanh between. Trained on, it would
        leave the structure.

    Raises:
        ValueError: nothing in the model is structured.
    """
    if not is_structured(model):
        raise ValueError("model has no structured layer to export; it is plain already")
    exported = copy.deepcopy(model)
    for module in exported.modules():
        if isinstance(module, Shaping):
            module.eval()  # in training mode a look at the weight may move it
    for module, kinds in [(module, _shaped(module)) for module in exported.modules()]:
        if kinds:
            _own_class(module)
        for kind in kinds:
            remove_parametrizations(module, kind, leave_parametrized=True)
    return exported


def _own_class(module: nn.Module) -> None:
    """Part from the class that torch made for a parametrised module.

    It holds the weights' properties, and a copy shares it with its original: removing them would take them from both.
    """
    cls = type(module)
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = cast(Any, type(cls.__name__, cls.__bases__, body))


def is_structured(model: nn.Module) -> bool:
    """Whether some weight of the model takes its shape from a structure."""
    return any(_shaped(module) for module in model.modules())


def _shaped(module: nn.Module) -> list[str]:
    """Names of the weights of this very module that are structured."""
    if not is_parametrized(module):
        return []
    chains = cast(dict[str, nn.ModuleList], dict(cast(nn.ModuleDict, module.parametrizations)))
    return [kind for kind, chain in chains.items() if isinstance(chain[0], Shaping)]

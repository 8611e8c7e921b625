"""Place the neurons of a model in space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.isolation import check_values, isolated

from ..naming import by_name
from .layout import LAYOUTS, Layout, LayoutName
from .stack import read_stack
from .transformer import is_transformer, read_transformer
from .wiring import Connection, Population, Wiring


@dataclass(frozen=True)
class Placement:
    """Where each neuron sits, and what wire costs.

    Attributes:
        wiring: populations of neurons and the weights between them.
        positions: of each population that has a place, in the unit cube. Those of inputs and outputs are exchanged in
            place by ``spatial.swap``; of the others the neurons move and the places stay.
        locality: cost of a weight of one per unit of distance (``f`` of Liu, Gan & Tegmark 2023).
        layer_gap: its cost besides, whatever the distance: plain L1 (``l0`` there).
        reduction: a weight matrix counts with the sum or the mean of its entries. The two need very different
            strengths.
    """

    wiring: Wiring
    positions: dict[str, Float[Tensor, "neuron dim"]]
    locality: float
    layer_gap: float
    reduction: Literal["sum", "mean"]

    def distances(self, connection: Connection) -> Float[Tensor, "target source"]:
        """Manhattan distances of a connection in the plane of the layers; zero where an end has no place."""
        to, start = (self.positions.get(end or "") for end in (connection.target, connection.source))
        if to is None or start is None:
            return torch.zeros(1, 1, dtype=torch.float64, device=next(iter(self.positions.values())).device)
        return torch.cdist(to, start, p=1)

    def magnitudes(self, connection: Connection, weights: Tensor) -> Float[Tensor, "target source"]:
        """Absolute weights of a connection as a matrix; tokens of an embedding are its columns."""
        n_source = 0 if connection.source is None else self.wiring.populations[connection.source].size
        return connection.matrix(weights, self.wiring.populations[connection.target].size, n_source).abs()

    def share(self, weights: Tensor) -> float:
        """What an entry of a tensor counts: 1, or its share of the mean."""
        return 1.0 if self.reduction == "sum" else 1.0 / weights.numel()


def place(
    model: nn.Module,
    layout: Layout | LayoutName | Mapping[str, Layout | LayoutName | None],
    *,
    layers: Sequence[str] | None = None,
    wiring: Wiring | None = None,
    inputs: Layout | LayoutName | None = None,
    outputs: Layout | LayoutName | None = None,
    locality: float = 1.0,
    layer_gap: float = 0.1,
    reduction: Literal["sum", "mean"] = "sum",
    example: object = None,
) -> Placement:
    """Place the neurons of a stack of layers, or of a transformer with TransformerLens' names.

    Args:
        model: linear, recurrent, embedding, norm and ``nn.TransformerEncoderLayer`` modules, each reading what the
            one before wrote, with functions of single neurons in between.
        layout: of every population: a name, a layout, or one for each by name, ``"*"`` for those not named; None leaves
            a population without a place, and its weights pay the layer gap alone.
        layers: names of modules in order; None takes all. Neurons that no layer in the list computes or reads
            are unaffected.
        wiring: your own, for a model whose modules do not tell.
        inputs: layout of what the first layer reads; None takes ``layout``.
        outputs: layout of what the last layer writes; None takes ``layout``.
        locality: cost per unit of distance. Defaults of the cost are those of the symbolic examples of Liu, Gan &
            Tegmark 2023 (BIMT, arXiv 2305.08746).
        layer_gap: cost besides, whatever the distance.
        reduction: sum or mean over a weight matrix.
        example: an input. With one, every population is permuted once, and the model refused if what it returns
            depends on that: then something reads the neurons otherwise than the layers tell.

    Returns:
        The placement; the model is as it was.

    Raises:
        ValueError: no such layer, neurons that do not fit the layout, shared weights, sizes that disagree, a kind of
            layer that cannot be placed, layouts of different dimension, or a model that fails on ``example``.
        TypeError: no module, or no layout.

    Cost: a pass over the module names; with ``example`` one forward pass and one for each population.

    Example:
        >>> placement = place(model, "grid")
        >>> loss = task_loss + 1e-3 * wiring_cost(model, placement)
    """
    check_values(model)
    _check_cost(locality, layer_gap, reduction)
    _refuse_shared(model)
    if wiring is None:
        wiring = read_transformer(model) if layers is None and is_transformer(model) else read_stack(model, layers)
    device = next(model.parameters()).device
    positions = {name: position.to(device) for name, position in _positions(wiring, layout, inputs, outputs).items()}
    placement = Placement(wiring, positions, locality, layer_gap, reduction)
    if example is not None:
        _check_exchange(model, placement, example)
    return placement


def keep_numbers(placement: Placement) -> Placement:
    """Let ``swap`` exchange places instead of weights: the same cost and function, and every head keeps its number."""
    wiring = placement.wiring
    populations = {name: replace(population, is_terminal=True) for name, population in wiring.populations.items()}
    return replace(placement, wiring=replace(wiring, populations=populations))


def permute(
    model: nn.Module, population: Population, order: Tensor, extra: Sequence[Mapping[str, Tensor]] = ()
) -> None:
    """Let place i of a population hold the neuron that place ``order[i]`` held; ``extra`` tensors, by name, along."""
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for axis in population.axes:
            for tensors in (held, *extra):
                if axis.tensor in tensors:
                    axis.permute_(tensors[axis.tensor], order)


def _positions(
    wiring: Wiring,
    layout: Layout | LayoutName | Mapping[str, Layout | LayoutName | None],
    inputs: Layout | LayoutName | None,
    outputs: Layout | LayoutName | None,
) -> dict[str, Tensor]:
    chosen: dict[str, Layout | LayoutName | None] = dict(layout) if isinstance(layout, Mapping) else {"*": layout}
    if unknown := sorted(set(chosen) - set(wiring.populations) - {"*"}):
        raise ValueError(f"layout names no population {unknown[0]!r}; there are {', '.join(wiring.populations)}")
    terminals = [name for name, population in wiring.populations.items() if population.is_terminal]
    if inputs is not None:
        chosen[terminals[0]] = inputs
    if outputs is not None:
        chosen[terminals[-1]] = outputs
    found = {}
    for name, population in wiring.populations.items():
        if name not in chosen and "*" not in chosen:
            raise ValueError(f"layout must name every population or have '*'; {name!r} is missing")
        wanted = chosen[name] if name in chosen else chosen["*"]
        if wanted is None:
            continue
        try:
            found[name] = by_name("layout", wanted, LAYOUTS, Layout).positions(population.size)
        except ValueError as error:
            raise ValueError(f"population {name!r}: {error}") from None
    if not found:
        raise ValueError("layout must give a place to at least one population, got None for all")
    return _same_dimension(found)


def _same_dimension(positions: dict[str, Tensor]) -> dict[str, Tensor]:
    """A line among grids lies in the middle of the plane: missing coordinates are 1/2."""
    dim = max(p.shape[1] for p in positions.values())
    return {name: torch.cat([p, p.new_full((len(p), dim - p.shape[1]), 0.5)], dim=1) for name, p in positions.items()}


def _check_cost(locality: float, layer_gap: float, reduction: str) -> None:
    for name, value in (("locality", locality), ("layer_gap", layer_gap)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be zero or positive and finite, got {value}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")


def _refuse_shared(model: nn.Module) -> None:
    """Weights in two places would be permuted twice."""
    first: dict[nn.Parameter, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter in first:
            raise ValueError(f"{first[parameter]} and {name} share their weights; a neuron can have one place only")
        first[parameter] = name


def _check_exchange(model: nn.Module, placement: Placement, example: object) -> None:
    """Reverse each population in turn and look whether the model returns the same."""
    with isolated(model), torch.no_grad():
        before = _as_tensor(model(example))
        for name, population in placement.wiring.populations.items():
            if population.is_terminal:
                continue
            order = torch.arange(population.size).view(population.n_blocks, -1).flip(1).flatten()
            order = order.to(next(model.parameters()).device)
            permute(model, population, order)
            after = _as_tensor(model(example))
            permute(model, population, order)  # its own inverse
            change = (after - before).abs().max().item()
            if not change <= 1e-4 * max(1.0, before.abs().max().item()):
                raise ValueError(
                    f"exchanging neurons of {name!r} changes what the model returns by {change:.2g}: something reads "
                    "them that the layers do not tell; name the layers of one plain stack, or hand in a wiring"
                )


def _as_tensor(output: object) -> Tensor:
    while isinstance(output, tuple | list):
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"model must return a tensor, or a tuple that starts with one, got {type(output).__name__}")
    return output.detach().clone()

"""Exchange neurons that would need less wire in each other's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .placement import Placement, permute
from .wiring import Connection, Population

_LEAST_SAVING = 1e-12
"""Of the wire the exchanged neurons need: below that, rounding would exchange equals for ever."""


@dataclass(frozen=True)
class Swaps:
    """What one round moved.

    Attributes:
        moved: ``(population, place, place)`` of each exchange in turn; heads are named ``LAYER heads``.
        saved: the fall of ``wiring_cost``, as predicted before the weights were moved.
        orders: for each population that changed, the place each neuron came from.
    """

    moved: tuple[tuple[str, int, int], ...]
    saved: float
    orders: dict[str, Int[Tensor, " neuron"]]


@torch.no_grad()
def swap(
    model: nn.Module,
    placement: Placement,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    n_candidates: int | None = 30,
) -> Swaps:
    """Exchange neurons, in place, wherever that shortens the wire; the function of the network stays the same.

    Each population in turn: its most important neurons (the sum of absolute weights in and out), one by one, change
    places with that neuron of the population with which they save most. Heads of an attention layer are exchanged whole
    before the neurons inside them. Liu, Gan & Tegmark 2023 (arXiv 2305.08746), sec. 2.3, with two departures: all
    exchanges are priced at once in closed form, and the optimizer's moments travel with the weights.

    For recurrent weights, with ``S = |W| + |W|^T``, zero diagonal, and D the distances of the places, the exchange of j
    and k changes the cost by ``(S D)_jk + (S D)_kj - (S D)_jj - (S D)_kk + 2 S_jk D_jk`` (derived here).

    Args:
        model: the one that was placed.
        placement: from ``spatial.place``; the places of inputs and outputs move in it, since the order of their weights
            belongs to the world outside.
        optimizer: its state for the exchanged weights is exchanged along.
        n_candidates: the most important neurons of each population that may move, 30 in the larger examples of the
            method; None tries all.

    Returns:
        What moved and what was saved. Saved is never negative.

    Raises:
        ValueError: the model is another one than was placed, holds weights that are not finite, or
            ``n_candidates`` is below 1.

    Cost: for n neurons connected to m, one product of (n, m) by (m, n), and n^2 for each candidate.
    """
    if n_candidates is not None and n_candidates < 1:
        raise ValueError(f"n_candidates must be at least 1, or None for all, got {n_candidates}")
    weights = _weights(model, placement)
    state = _state_by_name(model, optimizer)
    moved: list[tuple[str, int, int]] = []
    saved, orders = 0.0, {}
    for group in _in_turn(placement):
        prices = [_Prices(weights, placement, population) for population in group]
        moves, saving = _exchange_blocks(prices, n_candidates) if group[0].n_blocks > 1 else ([], 0.0)
        for price in prices:
            found, more = price.exchange_neurons(n_candidates)
            moves += found
            saving += more
        if not moves:
            continue
        moved += moves
        saved += saving
        for price in prices:
            orders[price.population.name] = price.order
            _apply(model, placement, price.population, price.order, state)
    return Swaps(tuple(moved), saved, orders)


def _in_turn(placement: Placement) -> Iterator[list[Population]]:
    """Placed populations in order; those of one attention layer together, whose heads are exchanged together."""
    populations = [p for name, p in placement.wiring.populations.items() if name in placement.positions]
    seen: set[str] = set()
    for population in populations:
        if not population.layer:
            yield [population]
        elif population.layer not in seen:
            seen.add(population.layer)
            yield [p for p in populations if p.layer == population.layer]


class _Prices:
    """What the neurons of a population would pay elsewhere; kept by place, so rows move with each exchange.

    Attributes:
        elsewhere: cost of the wire to other populations, of the neuron now at a place (row) at each place (column).
        inside: ``|W| + |W|^T`` of the recurrent weights times their price; the diagonal costs nothing anywhere.
        importance: sum of absolute weights in and out.
        order: the neuron that is at each place by now.
        at_home: what the neuron at each place pays there.
    """

    def __init__(self, weights: dict[str, Tensor], placement: Placement, population: Population) -> None:
        places = placement.positions[population.name]
        n = population.size
        self.population, self.size = population, n // population.n_blocks
        self.elsewhere, self.inside = places.new_zeros(n, n), places.new_zeros(n, n)
        self.importance = places.new_zeros(n)
        self.order = torch.arange(n, device=places.device)
        self.distance = torch.cdist(places, places, p=1)
        for connection in placement.wiring.connections:
            if population.name in (connection.source, connection.target):
                self._add(connection, weights[connection.tensor], placement)
        self.inside.fill_diagonal_(0.0)
        self.is_recurrent = bool(self.inside.any())
        self.at_home = self.elsewhere.diagonal() + (self.inside * self.distance).sum(1)
        self.least = _LEAST_SAVING * float(self.elsewhere.abs().max() + self.inside.sum(1).max())

    def _add(self, connection: Connection, w: Tensor, placement: Placement) -> None:
        name = self.population.name
        magnitudes = placement.magnitudes(connection, w).to(self.distance)
        price = placement.locality * placement.share(w)
        if connection.target == name:
            self.importance += magnitudes.sum(1)
        if connection.source == name:
            self.importance += magnitudes.sum(0)
        if connection.source == connection.target:
            self.inside += price * (magnitudes + magnitudes.T)
        elif {connection.source, connection.target} <= placement.positions.keys():
            distances = placement.distances(connection)
            into = connection.target == name
            self.elsewhere += price * (magnitudes @ distances.T if into else magnitudes.T @ distances)

    def changes(self, place: int) -> Float[Tensor, " place"]:
        """Change of the cost when the neuron at ``place`` is exchanged with that at each other place."""
        change = self.elsewhere[place] + self.elsewhere[:, place] - self.at_home - self.at_home[place]
        if self.is_recurrent:
            change += self.inside[place] @ self.distance + self.inside @ self.distance[place]
            change += 2 * self.inside[place] * self.distance[place]
        change[place] = 0.0
        return change

    def exchange_neurons(self, n_candidates: int | None) -> tuple[list[tuple[str, int, int]], float]:
        """Move the most important neurons, each to the best place inside its block."""
        moved, saved = [], 0.0
        for neuron in self.importance.argsort(descending=True, stable=True)[:n_candidates].tolist():
            place = int((self.order == neuron).nonzero())
            start = place - place % self.size
            change = self.changes(place)[start : start + self.size]
            best = int(change.argmin())
            if change[best] < -self.least:
                moved.append((self.population.name, place, start + best))
                saved -= float(change[best])
                self.move([place, start + best], [start + best, place])
        return moved, saved

    def between_blocks(self) -> Float[Tensor, "head place"]:
        """Cost of the wire of each head in the place of each head."""
        n = self.population.n_blocks
        return torch.einsum("hipi->hp", self.elsewhere.view(n, self.size, n, self.size))

    def exchange_blocks(self, a: int, b: int) -> None:
        """Let two heads change places."""
        first, second = (list(range(h * self.size, (h + 1) * self.size)) for h in (a, b))
        self.move(first + second, second + first)

    def move(self, places: list[int], sources: list[int]) -> None:
        """Let ``places`` hold the neurons of ``sources``; what the others pay changes only by their wire to these."""
        paid = self._paid_to(places)
        for rows in (self.order, self.elsewhere, self.inside):
            rows[places] = rows[sources]
        self.inside[:, places] = self.inside[:, sources]
        self.at_home += self._paid_to(places) - paid
        moved = (self.inside[places] * self.distance[places]).sum(1)
        self.at_home[places] = self.elsewhere[places, places] + moved

    def _paid_to(self, places: list[int]) -> Float[Tensor, " place"]:
        """What each neuron pays for its wire to some places; both tables are symmetric, and rows are quick to read."""
        return (self.inside[places] * self.distance[places]).sum(0)


def _exchange_blocks(prices: list[_Prices], n_candidates: int | None) -> tuple[list[tuple[str, int, int]], float]:
    """Move the most important heads of an attention layer, each to the best place among the heads."""
    n_blocks, layer = prices[0].population.n_blocks, prices[0].population.layer
    importance = sum(p.importance.view(n_blocks, -1).sum(1) for p in prices)
    assert isinstance(importance, Tensor)
    head_at = list(range(n_blocks))
    moved, saved = [], 0.0
    for head in importance.argsort(descending=True, stable=True)[:n_candidates].tolist():
        cost = sum(p.between_blocks() for p in prices)
        assert isinstance(cost, Tensor)
        place = head_at.index(head)
        change = cost[place] - cost[place, place] + cost[:, place] - cost.diagonal()
        best = int(change.argmin())
        if change[best] < -_LEAST_SAVING * float(cost.max()):
            for p in prices:
                p.exchange_blocks(place, best)
            head_at[place], head_at[best] = head_at[best], head_at[place]
            moved.append((f"{layer} heads", place, best))
            saved -= float(change[best])
    return moved, saved


def _apply(
    model: nn.Module, placement: Placement, population: Population, order: Tensor, state: list[dict[str, Tensor]]
) -> None:
    """Permute the weights; of inputs and outputs the places instead."""
    if population.is_terminal:
        positions = placement.positions[population.name]
        positions[order] = positions.clone()
    else:
        permute(model, population, order, state)


def _weights(model: nn.Module, placement: Placement) -> dict[str, Tensor]:
    """The weights by name, checked to be those placed."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for connection in placement.wiring.connections:
        if connection.tensor not in weights:
            raise ValueError(f"model has no parameter {connection.tensor}; give the model that was placed")
        if not weights[connection.tensor].isfinite().all():
            raise ValueError(f"{connection.tensor} holds values that are not finite; an exchange cannot be priced")
    return weights


def _state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[dict[str, Tensor]]:
    """Gradients and the optimizer's tensors of a parameter's shape (moments, momentum), one mapping a kind."""
    named = dict(model.named_parameters())
    kinds: dict[str, dict[str, Tensor]] = {"grad": {name: p.grad for name, p in named.items() if p.grad is not None}}
    if optimizer is not None:
        for name, p in named.items():
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    kinds.setdefault(key, {})[name] = value
    return list(kinds.values())

"""What is measured at a checkpoint of a spatial study: error, wire, and modules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes import (
    Measurement,
    cluster_spread,
    functional_clusters,
    graph_modularity,
    isolated_fraction,
    partition_agreement,
    task_variance,
    wiring_length,
)
from probes.modularity import FunctionalClusters, ShuffleTest
from simulators import TASKS, cognitive_trials

from ...interventions.spatial import Placement
from ...recurrent import ContinuousTimeRNN
from ...tasks import Task
from ...tasks.cognitive import task_accuracy
from ...tasks.examples import ExampleTask

ACTIVE = 1e-3
"""Summed task variance above which a unit of the recurrent network counts as active (``functional_clusters``)."""


def measure_at(
    model: nn.Module, placement: Placement, task: Task, *, rng: np.random.Generator, n_trials: int, n_shuffles: int
) -> Iterator[Measurement]:
    """Everything there is to say of one network."""
    yield from _wire(model, placement)
    if isinstance(model, ContinuousTimeRNN):
        yield from _cognitive(model, placement, rng, n_trials)
        weights, layers = model.cell.weight_hh.detach().double().numpy(), None
    else:
        assert isinstance(task, ExampleTask)
        yield Measurement("error", task.error(model))
        weights, layers = whole_graph(model, placement)
        yield Measurement("n_active", float(_connected_through(weights, layers).sum()))
    if _has_graph(weights):
        yield from _test(
            "graph_modularity", graph_modularity(weights, rng=rng, layers=layers, n_shuffles=n_shuffles).test
        )


def cognitive_clusters(model: nn.Module, rng: np.random.Generator, n_trials: int) -> FunctionalClusters | None:
    """Functional clusters of the units; None where fewer than four are active."""
    variance = task_variance([activity(model, task, rng, n_trials) for task in TASKS])
    if (variance.sum(0) > ACTIVE).sum() < 4:
        return None
    return functional_clusters(variance, rng=rng, threshold=ACTIVE)


@torch.no_grad()
def activity(
    model: nn.Module, task: str, rng: np.random.Generator, n_trials: int
) -> Float[np.ndarray, "trial time unit"]:
    """Rates of all units over the time that all trials of a task have in common."""
    assert isinstance(model, ContinuousTimeRNN)
    trials = cognitive_trials(task, n_trials, rng=rng)
    rates = model.rates(torch.from_numpy(trials.inputs[:, : trials.length.min()]))
    return rates.double().numpy()


def whole_graph(model: nn.Module, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """All neurons in one square matrix of |w|, (post, pre), and the layer of each."""
    populations = placement.wiring.populations
    sizes = [p.size for p in populations.values()]
    starts = dict(zip(populations, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    weights = dict(model.named_parameters())
    graph = np.zeros((sum(sizes), sum(sizes)))
    for connection in placement.wiring.connections:
        if connection.source is not None:
            row, column = starts[connection.target], starts[connection.source]
            block = placement.magnitudes(connection, weights[connection.tensor].detach()).double().numpy()
            graph[row : row + block.shape[0], column : column + block.shape[1]] += block
    return graph, np.repeat(np.arange(len(sizes)), sizes)


def _connected_through(graph: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Hidden neurons with a connection in and one out."""
    present = graph > ACTIVE
    hidden = (layers > 0) & (layers < layers.max())
    return hidden & present.any(1) & present.any(0)


def _wire(model: nn.Module, placement: Placement) -> Iterator[Measurement]:
    """Wire between placed populations, in units of the gap between neighbours of the larger one."""
    weights = dict(model.named_parameters())
    count = weighted = n_connections = 0.0
    for connection in placement.wiring.connections:
        if not {connection.source, connection.target} <= placement.positions.keys():
            continue
        magnitudes = placement.magnitudes(connection, weights[connection.tensor].detach())
        distances = placement.distances(connection) * _gaps(placement, connection.target, connection.source)
        wire = wiring_length(magnitudes, distances)
        count, weighted = count + wire.count, weighted + wire.weighted
        n_connections += wire.n_connections
    yield Measurement("wiring_count", count)
    yield Measurement("wiring_weighted", weighted)
    yield Measurement("n_connections", n_connections)


def _gaps(placement: Placement, *populations: str | None) -> int:
    """Neighbours' gaps along a side of the unit square or line."""
    largest = max((placement.positions[name] for name in populations if name), key=len)
    return round(len(largest) ** (1 / largest.shape[1]))


def _cognitive(
    model: nn.Module, placement: Placement, rng: np.random.Generator, n_trials: int
) -> Iterator[Measurement]:
    accuracy = task_accuracy(model, rng=rng, n_trials=n_trials)
    yield Measurement("error", 1 - float(accuracy.mean()))
    for task, share in enumerate(accuracy):
        yield Measurement(
            "accuracy", float(share), float(np.sqrt(share * (1 - share) / n_trials)), coordinate=float(task)
        )
    clusters = cognitive_clusters(model, rng, n_trials)
    yield Measurement("n_active", 0.0 if clusters is None else float(clusters.active.sum()))
    if clusters is None:
        return
    yield Measurement("n_clusters", float(clusters.n_clusters))
    yield Measurement("cluster_stability", float(clusters.stability.mean()), float(clusters.stability.std()))
    cells = grid_cells(placement.positions["cell"])
    for name, positions in (("", cells), ("_by_index", None)):
        yield from _test(f"isolated{name}", isolated_fraction(clusters, positions, rng=rng))
    yield from _test("cluster_spread", cluster_spread(clusters, cells, rng=rng))
    yield from _test("index_variance", cluster_spread(clusters, None, over="clusters", rng=rng))
    weights = model.get_parameter("cell.weight_hh").detach().double().numpy()
    yield from _agreement(weights, clusters, rng)


def _agreement(weights: np.ndarray, clusters: FunctionalClusters, rng: np.random.Generator) -> Iterator[Measurement]:
    """Functional clusters against communities of the graph between active units."""
    active = clusters.active
    between = weights[np.ix_(active, active)]
    if not _has_graph(between):
        return
    communities = graph_modularity(between, rng=rng, n_shuffles=2).labels
    if len(set(communities.tolist())) > 1:  # one community agrees with everything
        rand = partition_agreement(clusters.labels[active], communities, rng=rng).adjusted_rand
        yield Measurement("agreement", rand.value, rand.standard_error)


def _has_graph(weights: np.ndarray) -> bool:
    """Whether there are ten connections between different units, to look for communities in."""
    return bool((abs(weights - np.diag(np.diag(weights))) > ACTIVE).sum() >= 10)


def grid_cells(positions: Tensor) -> np.ndarray:
    """Row and column of each neuron of a square grid."""
    side = round(len(positions) ** 0.5)
    return (positions.numpy() * side - 0.5).round().astype(np.int64)


def _test(name: str, test: ShuffleTest) -> Iterator[Measurement]:
    low, high = test.null_band
    yield Measurement(name, test.observed)
    yield Measurement(f"{name}_null", test.null_mean, test.null_sd)
    yield Measurement(f"{name}_null_low", low)
    yield Measurement(f"{name}_null_high", high)
    yield Measurement(f"{name}_p_value", test.p_value)

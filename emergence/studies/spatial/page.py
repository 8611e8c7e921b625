"""The page of a spatial study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.plots.axes import theme
from simulators import TASKS

from ...tasks.examples import ExampleTask
from ..page import Section, saved_figure, write_method_page
from .config import SpatialRun, SpatialStudyConfig
from .figures import ARM_LABELS, N_WIRES, draw_grid, draw_layers, family_legend, save_animation, tradeoff_figure
from .measuring import cognitive_clusters
from .published import published_table
from .training import TrainedRun, trained_run

N_FRAMES = 24
COSTS = {
    "error": "error",
    "n_active": "active neurons",
    "n_connections": "connections",
    "wiring_count": "wire (gaps)",
    "wiring_weighted": "Σ |w| d (gaps)",
}
MODULES = {
    "graph_modularity": "modularity Q",
    "graph_modularity_z": "Q, z against rewired",
    "n_clusters": "functional clusters",
    "isolated": "isolated units",
    "isolated_z": "isolated, z against shuffled",
    "cluster_spread_z": "cluster spread, z",
    "agreement": "function and anatomy, adjusted Rand",
}


def write_page(folder: Path, config: SpatialStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figures and tell what was found."""
    runs = [trained_run(folder, run, config.example_settings()) for run in _shown(config)]
    with theme():
        network = saved_figure(_networks(runs), folder, "network")
        save_animation(_frames(runs[-1]), folder / "figures" / "training.gif")
        sections = [
            Section(
                "The network in space",
                "Each neuron at its place, each connection as a wire: thicker is stronger. One run of each arm, from "
                "the same initial weights. figures/training.gif shows how the last of them came to be.",
                network,
                _network_caption(config),
            ),
            Section(
                "What it costs",
                f"Means over {len(config.seeds)} seeds with Student's 95 % intervals. Connections below 0.001 count "
                "as none; a gap is the distance of neighbours.",
                table=_rows(summary, COSTS),
            ),
            Section(
                "Is it modular?",
                "Modularity of the graph of |w| against graphs with as many connections at every neuron"
                + (
                    "; units isolated from their functional cluster on the grid, and how far clusters spread, against "
                    "clusters shuffled among active units (below zero: together)."
                    if config.example == "cognitive"
                    else "."
                ),
                table=_rows(summary, MODULES),
            ),
        ]
        if len(table.groupby(["arm", "strength", "seed"])) > len(config.seeds):
            figure = saved_figure(tradeoff_figure(table), folder, "tradeoff")
            sections.append(
                Section("Error against neurons and wire", "", figure, "One dot a run; lines join the means of an arm.")
            )
    if config.example == "cognitive":
        sections += [_accuracy_section(table, config), published_table(summary)]
    write_method_page(
        folder,
        config,
        title=f"Neurons in space: {config.example.replace('-', ' ')}",
        subtitle=f"Brain-inspired modular training, seeds {', '.join(map(str, config.seeds))}.",
        verdict=verdict(summary),
        sections=sections,
    )


def verdict(summary: dict[str, Any]) -> str:
    """The finding in a sentence or two."""
    full = [entry for entry in summary["arms"] if entry["arm"] == "full"]
    if not full:
        return "The full method was not among the arms."
    best = min(full, key=lambda entry: entry["error"]["mean"])
    sentence = f"With distance and swaps the error is {_cost(best)}."
    for arm, name in (("l1", "L1 at the price nearest in error"), ("none", "No penalty")):
        if others := [entry for entry in summary["arms"] if entry["arm"] == arm]:
            nearest = min(others, key=lambda entry: abs(entry["error"]["mean"] - best["error"]["mean"]))
            sentence += f" {name}: {_cost(nearest)}."
    return sentence


def _cost(entry: dict[str, Any]) -> str:
    error, neurons, wire = (_number(entry[name]["mean"]) for name in ("error", "n_active", "wiring_count"))
    return f"{error} on {neurons} active neurons and {wire} gaps of wire"


def _shown(config: SpatialStudyConfig) -> list[SpatialRun]:
    """One run of each arm: the first seed, the price nearest to the example's own."""
    price = min(config.strengths, key=lambda s: abs(np.log(s)))
    return [SpatialRun(arm, price if arm != "none" else 1.0, config.seeds[0]) for arm in config.arms]


def _networks(runs: list[TrainedRun]) -> Figure:
    figure = Figure(figsize=(3.4 * len(runs) + 0.8, 3.6), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for ax, trained in zip(axes, runs, strict=True):
        _draw(ax, trained, trained.checkpoints.steps[-1], legend=trained is runs[-1])
        ax.set_title(ARM_LABELS[trained.run.arm], fontsize=11)
    return figure


def _frames(trained: TrainedRun) -> list[Figure]:
    steps = trained.checkpoints.steps
    chosen = sorted({steps[i] for i in np.linspace(0, len(steps) - 1, N_FRAMES).round().astype(int)})
    frames = []
    for step in chosen:
        figure = Figure(figsize=(5, 4.2), layout="constrained")
        ax = figure.subplots()
        _draw(ax, trained, step, legend=True)
        ax.set_title(f"step {step:,}", fontsize=11)
        frames.append(figure)
    return frames


def _draw(ax: Axes, trained: TrainedRun, step: int, *, legend: bool) -> None:
    model, placement = trained.load(step)
    task = trained.task
    if isinstance(task, ExampleTask):
        draw_layers(ax, model, placement, (task.input_names, task.target_names))
    else:
        draw_grid(ax, model, placement, cognitive_clusters(model, np.random.default_rng(0), 50))
        if legend:
            family_legend(ax)


def _network_caption(config: SpatialStudyConfig) -> str:
    if config.example == "cognitive":
        return (
            "Large dots: active units, in the colour of the tasks in which they vary most. "
            f"Wires: the {N_WIRES} strongest."
        )
    return "Blue: positive weights; orange: negative."


def _rows(summary: dict[str, Any], columns: dict[str, str]) -> list[list[str]]:
    names = [name for name in columns if any(name in entry for entry in summary["arms"])]
    rows = [["arm", "price", *(columns[name] for name in names)]]
    for entry in summary["arms"]:
        price = "" if entry["arm"] == "none" else f"{entry['strength']:g}"
        rows.append([ARM_LABELS[entry["arm"]], price, *(_cell(entry.get(name)) for name in names)])
    return rows


def _accuracy_section(table: pd.DataFrame, config: SpatialStudyConfig) -> Section:
    accuracy = table[table.quantity == "accuracy"]
    means = accuracy.groupby(["arm", "strength", "coordinate"], sort=False).value.mean().unstack("coordinate")
    rows = [["task", *(f"{ARM_LABELS[arm]} {strength:g}" for arm, strength in means.index)]]
    for index, task in enumerate(TASKS):
        rows.append([task, *(f"{value:.3f}" for value in means[float(index)])])
    rows.append(["mean", *(f"{value:.3f}" for value in means.mean(axis=1))])
    return Section(
        "Accuracy by task",
        f"Share of {config.n_trials} trials answered rightly at the last time step, mean over seeds.",
        table=rows,
    )


def _cell(quantity: dict[str, Any] | None) -> str:
    if quantity is None or quantity["mean"] is None:
        return "–"
    low, high = quantity["interval"]
    spread = "" if low is None else f"\n[{_number(low)}, {_number(high)}]"
    return _number(quantity["mean"]) + spread


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

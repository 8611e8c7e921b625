"""Figures of a spatial study: the network drawn in space, what arms cost, and how the network came to be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image
from torch import nn

from probes.modularity import FunctionalClusters
from simulators import TASKS

from ...files import write_aside
from ...interventions.spatial import Placement
from .measuring import ACTIVE, grid_cells

ARM_LABELS = {
    "none": "no penalty",
    "l1": "L1",
    "l1_local": "L1 + distance",
    "l1_swap": "L1 + swaps",
    "full": "L1 + distance + swaps",
}
N_WIRES = 400
"""Of a recurrent network, the strongest."""
POSITIVE, NEGATIVE = "#1d4ed8", "#c2410c"
_FAMILIES = {"go": "#0072b2", "anti": "#d55e00", "decision": "#009e73", "matching": "#cc79a7"}


def arm_colors() -> dict[str, tuple[float, float, float]]:
    """One colour an arm, the same in every figure."""
    return dict(zip(ARM_LABELS, [(0.5, 0.5, 0.5), *sns.color_palette("colorblind", 4)], strict=True))


def draw_layers(ax: Axes, model: nn.Module, placement: Placement, names: tuple[Sequence[str], Sequence[str]]) -> None:
    """Draw a feed-forward network on lines: layers from bottom to top, weights as wires as thick as they are strong."""
    populations = [name for name in placement.wiring.populations if name in placement.positions]
    height = {name: level for level, name in enumerate(populations)}
    weights = dict(model.named_parameters())
    for connection in placement.wiring.connections:
        if connection.source is None:
            continue
        sizes = (placement.wiring.populations[end].size for end in (connection.target, connection.source))
        matrix = connection.matrix(weights[connection.tensor].detach(), *sizes)
        _wires(
            ax,
            matrix,
            placement.positions[connection.source],
            placement.positions[connection.target],
            (height[connection.source], height[connection.target]),
        )
    for name in populations:
        x = placement.positions[name][:, 0]
        ax.scatter(x, np.full(len(x), height[name]), s=12, color="0.15", zorder=3, linewidth=0)
    for level, labels, side in ((0, names[0], "top"), (len(populations) - 1, names[1], "bottom")):
        for x, label in zip(placement.positions[populations[level]][:, 0].tolist(), labels, strict=False):
            ax.annotate(
                label,
                (x, level),
                (0, -6 if side == "top" else 6),
                textcoords="offset points",
                ha="center",
                va=side,
                fontsize=8,
            )
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.5, len(populations) - 0.5)
    ax.set_axis_off()


def _wires(ax: Axes, matrix: torch.Tensor, start: torch.Tensor, end: torch.Tensor, levels: tuple[int, int]) -> None:
    strength = matrix.abs() / matrix.abs().max().clamp_min(1e-12)
    to, source = (strength > 0.01).nonzero(as_tuple=True)
    segments = [
        [(start[j, 0].item(), levels[0]), (end[i, 0].item(), levels[1])]
        for i, j in zip(to.tolist(), source.tolist(), strict=True)
    ]
    chosen = strength[to, source]
    colors = [POSITIVE if positive else NEGATIVE for positive in (matrix[to, source] > 0).tolist()]
    ax.add_collection(LineCollection(segments, linewidths=(2.2 * chosen).tolist(), colors=colors, alpha=0.8))


def draw_grid(ax: Axes, model: nn.Module, placement: Placement, clusters: FunctionalClusters | None) -> None:
    """Draw a recurrent network on its grid: active units coloured by the tasks they vary most in, and strong wires."""
    cells = grid_cells(placement.positions["cell"])
    ax.scatter(cells[:, 1], cells[:, 0], s=3, color="0.85", linewidth=0)
    if clusters is not None:
        weights = model.get_parameter("cell.weight_hh").detach().abs().numpy()
        shown = weights * np.outer(clusters.active, clusters.active) * (1 - np.eye(len(weights)))
        strongest = np.argwhere((shown > ACTIVE) & (shown >= np.sort(shown, axis=None)[-N_WIRES:][0]))
        segments = [[cells[j][::-1], cells[i][::-1]] for i, j in strongest]
        widths = [0.2 + 1.3 * shown[i, j] / shown.max() for i, j in strongest]
        ax.add_collection(LineCollection(segments, linewidths=widths, colors="0.45", alpha=0.35, zorder=1))
        preferred = clusters.normalized.argmax(axis=0)
        active = np.flatnonzero(clusters.active)
        colors = [_FAMILIES[task_family(TASKS[preferred[unit]])] for unit in active]
        ax.scatter(cells[active, 1], cells[active, 0], s=26, c=colors, zorder=2, linewidth=0)
    side = cells.max() + 1
    ax.set_xlim(-0.7, side - 0.3)
    ax.set_ylim(side - 0.3, -0.7)
    ax.set_aspect("equal")
    ax.set_axis_off()


def task_family(task: str) -> str:
    """Of the four families of the twenty tasks."""
    if task in ("dms", "dnms", "dmc", "dnmc"):
        return "matching"
    if "dm" in task:
        return "decision"
    return "anti" if "anti" in task else "go"


def family_legend(ax: Axes) -> None:
    """Name the colours of the units."""
    for family, color in _FAMILIES.items():
        ax.scatter([], [], s=26, color=color, label=family)
    ax.legend(title="units vary most in", loc="center left", bbox_to_anchor=(1.0, 0.5))


def tradeoff_figure(table: pd.DataFrame) -> Figure:
    """Error against active neurons and against wire: one dot a run, a line through the means of an arm's prices."""
    wide = table[table.coordinate.isna()].pivot(index=["arm", "strength", "seed"], columns="quantity", values="value")
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (quantity, label) in zip(
        axes,
        (("n_active", "active neurons"), ("wiring_count", "wire (neighbours' gaps)")),
        strict=True,
    ):
        for arm, color in arm_colors().items():
            if arm not in wide.index.get_level_values("arm"):
                continue
            runs = wide.loc[arm]
            means = runs.groupby("strength").mean().sort_values(quantity)
            ax.plot(means[quantity], means["error"], color=color, linewidth=1.2, alpha=0.7)
            ax.scatter(runs[quantity], runs["error"], s=22, color=color, label=ARM_LABELS[arm], linewidth=0)
        ax.set_xlabel(label)
        if _spans_a_decade(wide[quantity].to_numpy()):
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
    if _spans_a_decade(wide["error"].to_numpy()):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_minor_formatter(NullFormatter())
    else:
        axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("error on test")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _spans_a_decade(values: np.ndarray) -> bool:
    """Whether a logarithmic axis has labels to show."""
    return bool(values.min() > 0 and values.max() > 10 * values.min())


def save_animation(frames: Sequence[Figure], path: Path) -> None:
    """Write figures as the frames of a GIF."""
    pictures = []
    for figure in frames:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE))
    durations = [160] * (len(pictures) - 1) + [2000]
    write_aside(
        path,
        lambda aside: pictures[0].save(aside, save_all=True, append_images=pictures[1:], duration=durations, loop=0),
    )

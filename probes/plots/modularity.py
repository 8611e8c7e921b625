"""Modules: clusters of units, where they lie, and what breaks without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from ..modularity import ClusterAblation, FunctionalClusters, ShuffleTest
from .axes import GRAY, own_axes, palette

CELL = 0.92
"""Side of a unit on the map, in cells: a little less than one, so that neighbours show apart."""


def plot_shuffle_test(test: ShuffleTest, *, ax: Axes | None = None) -> Axes:
    """Draw the null of a layout as a histogram with its 95 % band, and the observed number as a line."""
    ax = own_axes(ax)
    low, high = test.null_band
    ax.axvspan(low, high, color=GRAY, alpha=0.15, linewidth=0, label="null, central 95 %")
    counts, edges = np.histogram(test.null, _edges(test.null))
    ax.stairs(counts, edges, fill=True, color=GRAY, label=f"null, {len(test.null):,} shuffles")
    ax.axvline(test.observed, color=palette(4)[3], linewidth=2, label="observed")
    ax.set_title(f"observed {test.observed:.4g}, z = {test.z:.2g}, one-sided p = {test.p_value:.2g}")
    ax.set_xlabel(test.unit)
    ax.set_ylabel("shuffles")
    ax.set_ylim(0, 1.2 * counts.max())
    ax.legend(loc="upper center", ncols=3, columnspacing=1.2)
    return ax


def plot_functional_clusters(
    clusters: FunctionalClusters, *, tasks: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the normalized variance of every active unit in every task, units sorted by cluster.

    The title gives the silhouette of the number chosen, and the 95 % range of the stability under subsampling.

    Args:
        clusters: of ``functional_clusters``.
        tasks: names, in the order of the variance.
        ax: where to draw.
    """
    ax = own_axes(ax)
    order = np.argsort(clusters.labels, kind="stable")[: int(clusters.active.sum())]
    sns.heatmap(
        clusters.normalized[:, order],
        vmin=0,
        vmax=1,
        cmap="rocket_r",
        xticklabels=False,
        yticklabels=_names_of_tasks(len(clusters.normalized), tasks),
        cbar_kws={"label": "task variance / unit's maximum"},
        ax=ax,
    )
    ends = np.cumsum(clusters.sizes)
    ax.vlines(ends[:-1], *ax.get_ylim(), color="black", linewidth=0.8)
    ax.set_xticks(ends - clusters.sizes / 2, [str(c) for c in range(clusters.n_clusters)])
    ax.tick_params(axis="y", labelrotation=0, labelsize=8)
    ax.tick_params(axis="x", length=0)
    low, high = clusters.stability_interval
    ax.set_title(
        f"{clusters.n_clusters} clusters, silhouette {clusters.silhouette.max():.2f}, "
        f"stability (adjusted Rand) {np.median(clusters.stability):.2f} [{low:.2f}, {high:.2f}]"
    )
    ax.set_xlabel(f"cluster ({len(order)} active units)")
    return ax


def plot_cluster_map(clusters: FunctionalClusters, positions: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the units where they lie in the plane, active ones in the colour of their cluster, silent ones as dots.

    Args:
        clusters: of ``functional_clusters``.
        positions: cell (row, column) of every unit, shape (unit, 2).
        ax: where to draw.

    Raises:
        ValueError: positions of another shape.
    """
    places = np.asarray(positions)
    if places.shape != (len(clusters.labels), 2):
        raise ValueError(f"positions must have shape ({len(clusters.labels)}, 2) to be drawn, got {places.shape}")
    ax = own_axes(ax)
    silent = places[~clusters.active]
    ax.plot(silent[:, 1], silent[:, 0], ".", color=GRAY, markersize=1.5)
    colors = palette(clusters.n_clusters)
    for (row, column), label in zip(places[clusters.active], clusters.labels[clusters.active], strict=True):
        corner = column - CELL / 2, row - CELL / 2
        ax.add_patch(Rectangle(corner, CELL, CELL, color=colors[label], linewidth=0))
    ax.set_aspect("equal")
    ax.set_xlim(places[:, 1].min() - 0.7, places[:, 1].max() + 0.7)
    ax.set_ylim(places[:, 0].max() + 0.7, places[:, 0].min() - 0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("column (cells)")
    ax.set_ylabel("row (cells)")
    handles = [Patch(color=color, label=str(c)) for c, color in enumerate(colors)]
    ax.legend(handles=handles, title="cluster", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def plot_cluster_ablation(ablation: ClusterAblation, *, level: float = 0.05, ax: Axes | None = None) -> Axes:
    """Draw the accuracy that every task loses without every cluster, with its standard error beneath.

    A frame stands where the cluster serves the task; a star where it loses more than random sets of as many units.

    Args:
        ablation: of ``cluster_ablation``.
        level: largest p-value that gets a star, not corrected for the number of cells.
        ax: where to draw.
    """
    if ax is None:
        n_clusters, n_tasks = ablation.drop.shape
        size = (2.5 + 0.55 * n_tasks, 1.8 + 0.45 * n_clusters)  # room for the numbers in the cells
        ax = Figure(figsize=size, layout="constrained").subplots()
    stars = np.where(ablation.p_value <= level, "*", "")
    notes = [
        [f"{drop:.2f}{star}\n±{error:.2f}" for drop, star, error in zip(*row, strict=True)]
        for row in zip(ablation.drop, stars, ablation.standard_error, strict=True)
    ]
    limit = max(abs(ablation.drop).max(), 1e-9)
    sns.heatmap(
        ablation.drop,
        vmin=-limit,
        vmax=limit,
        cmap="vlag",
        annot=np.array(notes),
        fmt="",
        annot_kws={"fontsize": 7},
        xticklabels=list(ablation.tasks),
        yticklabels=[str(c) for c in range(len(ablation.drop))],
        cbar_kws={"label": "accuracy lost"},
        ax=ax,
    )
    for cluster, task in np.argwhere(ablation.serves):
        ax.add_patch(Rectangle((task, cluster), 1, 1, fill=False, edgecolor="black", linewidth=1.6))
    rotation = 45 if len(ablation.tasks) > 6 else 0
    ax.set_xticks(ax.get_xticks(), list(ablation.tasks), rotation=rotation, ha="right" if rotation else "center")
    ax.tick_params(axis="y", labelrotation=0)
    ax.set_xlabel("task")
    ax.set_ylabel("cluster silenced")
    ax.set_title(f"framed: task served; * p ≤ {level:g} against {ablation.null_drop.shape[1]} random sets; ± SE")
    return ax


def _edges(null: np.ndarray) -> np.ndarray:
    """Edges of bins: one bin a value for a null on a lattice, such as a share of units, which would alias in others."""
    values = np.unique(null.round(12))
    step = np.diff(values).min(initial=np.inf)
    if np.ptp(values) <= 120 * step < np.inf:
        return np.arange(values[0] - step / 2, values[-1] + step, step)
    return np.histogram_bin_edges(null, "auto")


def _names_of_tasks(n_tasks: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [f"task {task}" for task in range(n_tasks)]
    if len(names) != n_tasks:
        raise ValueError(f"tasks must name each of the {n_tasks} tasks, got {len(names)}")
    return list(names)

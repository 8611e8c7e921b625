"""Figures of a comparison: the best head over training, and every quantity of every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from probes.plots.axes import step_axis

from ...run import Run
from .findings import QUANTITIES, best_head_curve


def colors(names: list[str]) -> dict[str, Any]:
    """One colour a run, the same in both figures."""
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def onset_figure(runs: dict[str, Run]) -> Figure:
    """Contact average precision over training of the head that ends best: thin lines are seeds, thick ones means."""
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    ax = figure.subplots()
    for (name, run), color in zip(runs.items(), colors(list(runs)).values(), strict=True):
        lines: list[Any] = []
        for seed in run.config.seeds:
            steps, values = best_head_curve(run, seed)
            ax.plot(steps, values, color=color, linewidth=0.7, alpha=0.45)
            lines.append(pd.Series(values, steps))
        mean: Any = pd.concat(lines, axis=1).mean(axis=1)
        ax.plot(mean.index, mean.to_numpy(), color=color, linewidth=2.2, label=name)
    step_axis(ax, np.unique(np.concatenate([line.get_xdata() for line in ax.lines])))
    ax.set_ylim(0, 1)
    ax.set_ylabel("contact average precision\nof the best head")
    ax.legend(loc="upper left")
    return figure


def quantities_figure(table: Any, summary: dict[str, Any]) -> Figure:
    """A panel a quantity: a dot a seed, and the mean with its 95 % interval."""
    names = [entry["run"] for entry in summary["runs"]]
    shown = [q for q in QUANTITIES if table[q].notna().any()]
    n_rows = -(-len(shown) // 3)
    figure = Figure(figsize=(10, 0.9 + n_rows * (0.75 + 0.28 * len(names))), layout="constrained")
    axes = figure.subplots(n_rows, 3, squeeze=False)
    palette = colors(names)
    for ax, quantity in zip(axes.flat, shown, strict=False):
        for row, entry in enumerate(summary["runs"]):
            values = table[table.run == entry["run"]][quantity].to_numpy(float)
            color = palette[entry["run"]]
            ax.scatter(values, np.full(len(values), row - 0.18), s=12, color=color, alpha=0.5, linewidth=0)
            mean, (low, high) = entry[quantity]["mean"], entry[quantity]["interval"]
            if mean is not None:
                ax.plot(mean, row + 0.12, "o", color=color, markersize=5)
            if low is not None:
                ax.plot([low, high], [row + 0.12] * 2, color=color, linewidth=2)
        ax.set_yticks(range(len(names)), names if ax in axes[:, 0] else [""] * len(names))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(QUANTITIES[quantity], fontsize=10)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    return figure

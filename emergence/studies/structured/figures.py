"""Figures of a structured study: every quantity over depth, arm by arm."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from .config import ARMS
from .findings import QUANTITIES

ARM_LABELS = {
    "plain": "affine",
    "residual": "skip connections",
    "structure": "structure alone",
    "structured": "structure + correction",
}


def over_depth_figure(summary: dict[str, Any], width: int) -> Figure:
    """A panel a quantity; points are means over seeds, bars their 95 % intervals."""
    entries = [entry for entry in summary["arms"] if entry["width"] == width]
    shown = [q for q in QUANTITIES if any(q in entry for entry in entries)]
    n_rows = -(-len(shown) // 3)
    figure = Figure(figsize=(10.5, 2.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 3, squeeze=False)
    colors = dict(zip(ARMS, sns.color_palette("colorblind", len(ARMS)), strict=True))
    for ax, quantity in zip(axes.flat, shown, strict=False):
        for place, arm in enumerate(ARMS):
            of_arm = [entry for entry in entries if entry["arm"] == arm and _mean(entry, quantity) is not None]
            depths = np.array([entry["depth"] for entry in of_arm]) * 1.04 ** (place - 1.5)  # side by side
            means = [_mean(entry, quantity) for entry in of_arm]
            ax.plot(depths, means, "o-", color=colors[arm], label=ARM_LABELS[arm], markersize=4, linewidth=1.4)
            bars = [(x, entry[quantity]["interval"]) for x, entry in zip(depths, of_arm, strict=True)]
            for x, (low, high) in bars:
                if low is not None:
                    ax.plot([x, x], [low, high], color=colors[arm], linewidth=1)
        if quantity == "condition_without_tanh":
            bound = sorted({(entry["depth"], entry["condition_bound"]) for entry in entries})
            ax.plot(*zip(*bound, strict=True), "--", color="0.5", linewidth=1, label="bound")
        _axes(ax, quantity, sorted({entry["depth"] for entry in entries}))
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes.flat), key=lambda found: len(found[0]))
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    return figure


def _axes(ax: Any, quantity: str, depths: list[int]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(depths, [str(d) for d in depths])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("hidden layers")
    ax.set_title(QUANTITIES[quantity], fontsize=10)
    values = np.concatenate([line.get_ydata() for line in ax.lines])
    if "log10" not in QUANTITIES[quantity] and values.min() > 0 and values.max() > 10 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())


def _mean(entry: dict[str, Any], quantity: str) -> float | None:
    return entry[quantity]["mean"] if quantity in entry else None

"""Figures of a study of next-layer attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from probes.plots.axes import palette

from ..spatial.findings import mean_interval
from .config import RULES, NextLayerStudyConfig
from .findings import at_chosen_rates

RULE_LABELS: dict[str, str] = {
    "backpropagation": "backpropagation",
    "squared": "attention w²",
    "absolute": "attention |w|",
    "power": "attention |w|^1.5",
    "normalised": "attention normalised",
    "competitive": "attention competitive",
    "sign_symmetric": "sign-symmetric",
    "feedback_alignment": "feedback alignment",
    "direct_feedback_alignment": "direct feedback alignment",
}
PANELS = {
    "error": "error on test",
    "steps_to_half": "steps to half the first error",
    "alignment": "cosine to the true gradient",
}
TRUE_GRADIENT = ("backpropagation", "squared")
"""Rules whose gradient is the true one, so that every cosine is one unless messages are lost."""
_HUES = palette(10)
_STYLES: dict[str, Any] = {
    "backpropagation": {"color": "0.1", "marker": "o", "zorder": 3},
    "squared": {"color": _HUES[7], "marker": "s"},
    "absolute": {"color": _HUES[0], "marker": "^"},
    "power": {"color": _HUES[9], "marker": "v"},
    "normalised": {"color": _HUES[2], "marker": "D"},
    "competitive": {"color": _HUES[1], "marker": "P"},
    "sign_symmetric": {"color": _HUES[5], "marker": "<"},
    "feedback_alignment": {"color": _HUES[3], "marker": "X"},
    "direct_feedback_alignment": {"color": _HUES[4], "marker": "*"},
}


def rule_style(rule: str) -> dict[str, Any]:
    """The colour and marker of a rule, the same in all figures."""
    return _STYLES[rule]


def over_depth_figure(summary: dict[str, Any], drop: float) -> Figure:
    """Error, speed and alignment, a panel each; points are means over seeds, bars their 95 % intervals."""
    entries = [entry for entry in summary["rules"] if entry["drop"] == drop]
    depths = sorted({entry["depth"] for entry in entries})
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for ax, (quantity, label) in zip(axes, PANELS.items(), strict=True):
        ax.set_xscale("log")
        ax.set_xticks(depths, [str(depth) for depth in depths])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("hidden layers")
        ax.set_title(label)
        _lines(ax, {(entry["rule"], entry["depth"]): entry[quantity] for entry in entries})
        if quantity == "alignment":
            ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for ax in axes[:2]:
        _same_y_axis([ax])
    _legend(figure, axes[0])
    return figure


def alignment_figure(table: pd.DataFrame, config: NextLayerStudyConfig) -> Figure | None:
    """Cosines layer by layer over training, a panel a rule, at the middle depth; None where all learn by the truth."""
    rules = [rule for rule in config.rules if config.drops[0] > 0 or rule not in TRUE_GRADIENT]
    if not rules:
        return None
    rows = at_chosen_rates(table)
    rows = rows[
        (rows.quantity == "alignment") & (rows.depth == middle_depth(config)) & (rows["drop"] == config.drops[0])
    ]
    columns = min(3, len(rules))
    n_rows = -(-len(rules) // columns)
    figure = Figure(figsize=(1.2 + 3.2 * columns, 0.3 + 2.7 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, columns, sharey=True, squeeze=False)
    colors = ScalarMappable(Normalize(-1, 1), "PuOr")
    for ax, rule in zip(axes.flat, rules, strict=False):
        grid = rows[rows.rule == rule].pivot_table(index="coordinate", columns="step", values="value")
        if not grid.empty:  # a rule that diverged at every rate has none
            ax.pcolormesh(grid, cmap=colors.cmap, norm=colors.norm)
        ax.set_xticks(np.arange(0, grid.shape[1], 2) + 0.5, [f"{step:,}" for step in grid.columns[::2]], fontsize=8)
        layers = np.arange(0, len(grid), 1 + len(grid) // 12)
        ax.set_yticks(layers + 0.5, [str(layer + 1) for layer in layers], fontsize=8)
        ax.set_title(RULE_LABELS[rule])
        ax.set_xlabel("training step")
    for ax in axes[:, 0]:
        ax.set_ylabel("layer, inputs first")
    for ax in axes.flat[len(rules) :]:
        ax.set_visible(False)
    figure.colorbar(colors, ax=axes, label="cosine to the true gradient")
    return figure


def silenced_figure(table: pd.DataFrame, config: NextLayerStudyConfig) -> Figure:
    """Error over the share of neurons silenced, a panel a depth."""
    rows = at_chosen_rates(table)
    rows = rows[(rows.moment == "end") & rows.quantity.isin(["error", "error_silenced"])]
    rows = rows[rows["drop"] == config.drops[0]].assign(coordinate=rows.coordinate.fillna(0.0))
    return _depth_panels(rows, config, "coordinate", "share of neurons silenced")


def lost_figure(table: pd.DataFrame, config: NextLayerStudyConfig) -> Figure:
    """Error over the chance that a message is lost while a network learns, a panel a depth."""
    rows = at_chosen_rates(table)
    rows = rows[(rows.moment == "end") & (rows.quantity == "error")]
    return _depth_panels(rows, config, "drop", "chance that a message is lost")


def middle_depth(config: NextLayerStudyConfig) -> int:
    """The depth at which layers are shown one by one."""
    return sorted(config.depths)[len(config.depths) // 2]


def _depth_panels(rows: Any, config: NextLayerStudyConfig, x: str, label: str) -> Figure:
    depths = sorted(config.depths)
    figure = Figure(figsize=(max(6.5, 1 + 2.3 * len(depths)), 3.9), layout="constrained")
    axes = list(figure.subplots(1, len(depths), squeeze=False)[0])
    for ax, depth in zip(axes, depths, strict=True):
        points = rows[rows.depth == depth].groupby(["rule", x], sort=False).value
        _lines(ax, {key: mean_interval(values.to_numpy(float)) for key, values in points})
        places = sorted(rows[x].unique())
        ax.set_xticks(places, [f"{place:g}" for place in places])
        ax.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}")
    axes[0].set_ylabel("error on test")
    _same_y_axis(axes)
    figure.supxlabel(label, fontsize=11)
    _legend(figure, axes[0])
    return figure


def _lines(ax: Axes, found: dict[Any, dict[str, Any]]) -> None:
    """A line a rule through its means, side by side so that their intervals can be told apart."""
    rules = [rule for rule in RULES if rule in {rule for rule, _ in found}]
    places = sorted({float(x) for _, x in found})
    for rule, shift in zip(rules, np.linspace(-0.5, 0.5, len(rules) + 2)[1:-1], strict=True):
        of_rule = [(_beside(x, shift, places, ax.get_xscale()), found.get((rule, x))) for x in places]
        known = [(x, each) for x, each in of_rule if each is not None and _is_number(each["mean"])]
        style: Any = rule_style(rule)  # pyright takes unpacked names for any argument
        xs, means = [x for x, _ in known], [each["mean"] for _, each in known]
        ax.plot(xs, means, label=RULE_LABELS[rule], markersize=5, linewidth=1.3, **style)
        for x, each in known:
            if _is_number(each["interval"][0]):
                ax.plot([x, x], each["interval"], linewidth=1, **{**style, "marker": "None"})


def _beside(x: float, shift: float, places: list[float], scale: str) -> float:
    """Where a point is drawn: within a sixth of the way to its nearest neighbours."""
    if scale == "log":
        return x * 1.2**shift
    gap = float(min(np.diff(places), default=1.0))
    return x + shift * gap / 3


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _same_y_axis(axes: Sequence[Axes]) -> None:
    """One range for all panels: logarithmic where their means span more than a factor of ten, from zero elsewhere.

    Matplotlib's own sharing warns when a figure with logarithmic axes is cleared.
    """
    lines = [line for ax in axes for line in ax.lines if line.get_marker() != "None"]
    means = [float(mean) for line in lines for mean in np.asarray(line.get_ydata())]
    is_wide = bool(means) and 0 < 10 * min(means) < max(means)
    for ax in axes if is_wide else ():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    low = min(means) / 2 if is_wide else 0  # an interval may reach to zero and below
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)

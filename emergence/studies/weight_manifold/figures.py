"""Figures of a study of weight manifolds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .config import ARMS, ManifoldStudyConfig, TaskName
from .contexts import CONTEXTS
from .findings import QUANTITIES, at_chosen_rates, best_heads, walked_rows
from .walk import WALKED

ARM_LABELS: dict[str, str] = {
    "manifold": "manifold",
    "plain_gradient": "manifold, no metric",
    "wrong_topology": "manifold, wrong topology",
    "plain": "not told",
    "raw": "context as input",
    "raw_wide": "context as input, wide",
    "basis": "basis as input",
    "basis_wide": "basis as input, wide",
    "film": "FiLM",
    "separate": "separate networks",
}
CONTEXT_LABELS: dict[TaskName, str] = {
    "rotated-digits": "context: turns",
    "noisy-digits": "context: noise over the range of a pixel",
    "gravity-strength": "context: strength of gravity",
    "gravity-direction": "context: direction of gravity (turns)",
    "direction-and-restitution": "context: direction of gravity (turns),\nat restitution 0.7",
}
LANDSCAPE_LABELS = {
    "llc": "learning coefficient",
    "hessian_trace": "trace of the Hessian",
    "hessian_top": "largest eigenvalue",
}
_SHADES = {"interpolation": "0.93", "extrapolation": "0.85"}
_COLORS: dict[str, Any] = dict(zip(ARMS, sns.color_palette("tab10", len(ARMS)), strict=True))


def over_context_figure(table: pd.DataFrame, config: ManifoldStudyConfig) -> Figure:
    """Error at every context, a mean over seeds; grey where contexts were held out."""
    rows: Any = at_chosen_rates(table)
    curves = rows[rows.quantity == "error"].groupby(["arm", "coordinate"]).value.mean()
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    ax = figure.subplots()
    _context_axis(ax, config.task)
    for arm in (arm for arm in config.arms if arm in curves.index.get_level_values("arm")):
        curve, width = curves[arm], 2.5 if arm == "manifold" else 1.2
        ax.plot(curve.index, curve, color=_COLORS[arm], label=ARM_LABELS[arm], linewidth=width)
    ax.set_ylim(0, None)
    ax.set_ylabel(error_label(config))
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def error_label(config: ManifoldStudyConfig) -> str:
    """What the error is."""
    return "fraction of digits mistaken" if "digits" in config.task else "error, over the variance of the change"


def errors_figure(summary: dict[str, Any]) -> Figure:
    """A panel a kind of context: a dot a seed, and the mean with its interval."""
    figure = Figure(figsize=(10, 0.9 + 0.33 * len(summary["arms"])), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES), sharey=True)
    for ax, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        for row, entry in enumerate(summary["arms"]):
            found, color = entry[quantity], _COLORS[entry["arm"]]
            ax.scatter(found["values"], np.full(len(found["values"]), row - 0.2), s=10, color=color, alpha=0.5)
            ax.plot(found["mean"], row + 0.1, "o", color=color, markersize=5)
            if found["interval"][0] is not None:
                ax.plot(found["interval"], [row + 0.1] * 2, color=color, linewidth=2)
        ax.set_title(label, fontsize=10)
        ax.set_xlabel("error")
    axes[0].set_yticks(range(len(summary["arms"])), [ARM_LABELS[entry["arm"]] for entry in summary["arms"]])
    axes[0].invert_yaxis()
    return figure


def heads_figure(table: pd.DataFrame, config: ManifoldStudyConfig) -> Figure:
    """Contact AP of all heads along the walk (first seed), of the best head (every seed), and over training."""
    rows = walked_rows(table)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    heads, best, training = figure.subplots(1, 3)
    first = rows[(rows.arm == "manifold") & (rows.seed == config.seeds[0])]
    scores = first[(first.quantity == "contact_ap") & (first.moment == "end")]
    grid = scores.pivot_table(index=["layer", "head"], columns="coordinate", values="value")
    places = grid.columns.to_numpy(float)
    edges = np.linspace(places[0] - np.diff(places)[0] / 2, places[-1] + np.diff(places)[0] / 2, len(places) + 1)
    image = heads.pcolormesh(edges, np.arange(len(grid) + 1), grid, cmap="viridis", vmin=0, vmax=1)
    heads.set_yticks(np.arange(len(grid)) + 0.5, [f"{layer:.0f}.{head:.0f}" for layer, head in grid.index])
    heads.set_ylabel("head")
    heads.set_title("manifold, one seed", fontsize=10)
    figure.colorbar(image, ax=heads, label="contact AP")
    for ax in (heads, best):
        _context_axis(ax, config.task, shaded=ax is best)
    for arm in (arm for arm in WALKED if arm in config.arms):
        of_arm = rows[rows.arm == arm]
        curves = [best_heads(of_seed).set_index("coordinate").value for _, of_seed in of_arm.groupby("seed")]
        _mean_and_seeds(best, pd.concat(curves, axis=1), arm)
        followed = of_arm[(of_arm.quantity == "contact_ap") & (of_arm.step > 0)]
        followed = followed[followed.coordinate.isin(followed[followed.moment == "training"].coordinate)]
        highest = followed.groupby(["seed", "coordinate", "step"]).value.max()
        _mean_and_seeds(training, highest.groupby(["step", "seed"]).mean().unstack(), arm)
    near = rows[(rows.quantity == "nearest_neighbor_ap") & (rows.moment == "end")].groupby("coordinate").value.mean()
    best.plot(near.index, near, color="0.4", linestyle=":", label="nearest neighbour")
    best.set_title("best head", fontsize=10)
    best.set_ylim(0, 1)
    best.legend(fontsize=8)
    training.set_title("best head, mean over stations", fontsize=10)
    training.set_xscale("log")
    training.set_xlabel("step")
    training.set_ylim(0, 1)
    return figure


def landscape_figure(table: pd.DataFrame, config: ManifoldStudyConfig) -> Figure:
    """Learning coefficient and curvature along the walk."""
    rows = walked_rows(table)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(LANDSCAPE_LABELS))
    for ax, (quantity, label) in zip(axes, LANDSCAPE_LABELS.items(), strict=True):
        _context_axis(ax, config.task)
        for arm in (arm for arm in WALKED if arm in config.arms):
            found = rows[(rows.arm == arm) & (rows.quantity == quantity)]
            _mean_and_seeds(ax, found.pivot_table(index="coordinate", columns="seed", values="value"), arm)
        ax.set_title(label, fontsize=10)
        ax.set_ylim(0, None)
    axes[-1].legend(fontsize=8)
    return figure


def _mean_and_seeds(ax: Axes, curves: Any, arm: str) -> None:
    ax.plot(curves.index, curves, color=_COLORS[arm], linewidth=0.6, alpha=0.4)
    ax.plot(curves.index, curves.mean(axis=1), color=_COLORS[arm], linewidth=2, marker=".", label=ARM_LABELS[arm])


def _context_axis(ax: Axes, task: TaskName, *, shaded: bool = True) -> None:
    for kind, shade in _SHADES.items() if shaded else ():
        for low, high in getattr(CONTEXTS[task][0], kind):
            ax.axvspan(low, high, color=shade, linewidth=0)
    ax.set_xlim(0, 1)
    ax.set_xlabel(CONTEXT_LABELS[task])

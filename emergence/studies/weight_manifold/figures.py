"""Figures of a study of weight manifolds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .config import ARMS, ManifoldStudyConfig
from .findings import QUANTITIES, at_chosen_rates
from .task import CONTEXTS

ARM_LABELS: dict[str, str] = {
    "manifold": "manifold",
    "plain_gradient": "manifold, no metric",
    "wrong_topology": "manifold, wrong topology",
    "raw": "context as input",
    "raw_wide": "context as input, wide",
    "basis": "basis as input",
    "basis_wide": "basis as input, wide",
    "film": "FiLM",
    "separate": "separate networks",
}
_SHADES = {"interpolation": "0.93", "extrapolation": "0.85"}


def over_context_figure(table: pd.DataFrame, config: ManifoldStudyConfig) -> Figure:
    """Error at every context, a mean over seeds; grey where contexts were held out."""
    rows: Any = at_chosen_rates(table)
    curves = rows[rows.quantity == "error"].groupby(["arm", "coordinate"]).value.mean()
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    ax = figure.subplots()
    for kind, shade in _SHADES.items():
        for low, high in getattr(CONTEXTS[config.task], kind):
            ax.axvspan(low, high, color=shade, linewidth=0)
    colors: dict[str, Any] = dict(zip(ARMS, sns.color_palette("colorblind", len(ARMS)), strict=True))
    for arm in (arm for arm in config.arms if arm in curves.index.get_level_values("arm")):
        curve = curves[arm]
        ax.plot(
            curve.index, curve, color=colors[arm], label=ARM_LABELS[arm], linewidth=2.5 if arm == "manifold" else 1.2
        )
    ax.set_xlim(0, 1)
    ax.set_ylim(0, None)
    ax.set_xlabel("context: turns" if config.task == "rotated-digits" else "context: noise over the range of a pixel")
    ax.set_ylabel("fraction of digits mistaken")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def errors_figure(summary: dict[str, Any]) -> Figure:
    """A panel a kind of context: a dot a seed, and the mean with its interval."""
    figure = Figure(figsize=(10, 0.9 + 0.33 * len(summary["arms"])), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES), sharey=True)
    colors: dict[str, Any] = dict(zip(ARMS, sns.color_palette("colorblind", len(ARMS)), strict=True))
    for ax, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        for row, entry in enumerate(summary["arms"]):
            found, color = entry[quantity], colors[entry["arm"]]
            ax.scatter(found["values"], np.full(len(found["values"]), row - 0.2), s=10, color=color, alpha=0.5)
            ax.plot(found["mean"], row + 0.1, "o", color=color, markersize=5)
            if found["interval"][0] is not None:
                ax.plot(found["interval"], [row + 0.1] * 2, color=color, linewidth=2)
        ax.set_title(label, fontsize=10)
        ax.set_xlabel("error")
    axes[0].set_yticks(range(len(summary["arms"])), [ARM_LABELS[entry["arm"]] for entry in summary["arms"]])
    axes[0].invert_yaxis()
    return figure

"""Figures of a study of forgetting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ...spatial.findings import mean_interval
from ..figures import RULE_LABELS, rule_style
from .config import ForgettingStudyConfig
from .findings import accuracies, at_chosen_rates, first_over_second, over_rates

PANELS = {
    "first_accuracy": "accuracy in the first task\nwhen it was left",
    "drop": "accuracy lost of a task\nby the end, mean over tasks",
    "average": "accuracy at the end,\nmean over tasks",
    "steps": "steps a task took",
}


def rules_figure(summary: dict[str, Any]) -> Figure:
    """A panel a quantity, a row a rule: dots are seeds, the large one their mean with its 95 % interval."""
    entries = summary["rules"]
    figure = Figure(figsize=(11.5, 0.9 + 0.38 * len(entries)), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, (quantity, label) in zip(axes, PANELS.items(), strict=True):
        for row, entry in enumerate(entries):
            found, color = entry[quantity], rule_style(entry["rule"])["color"]
            seeds = [value for value in found["values"] if value is not None]
            ax.scatter(seeds, [row - 0.2] * len(seeds), s=12, color=color, alpha=0.5, linewidth=0)
            if found["mean"] is not None:
                ax.plot(found["mean"], row + 0.1, "o", color=color, markersize=5.5)
            if found["interval"][0] is not None:
                ax.plot(found["interval"], [row + 0.1] * 2, color=color, linewidth=2)
        ax.set_title(label, fontsize=10)
        ax.grid(axis="x", color="0.92", linewidth=0.8)
    axes[0].set_yticks(range(len(entries)), [RULE_LABELS[entry["rule"]] for entry in entries])
    axes[0].set_ylim(len(entries) - 0.5, -0.6)
    return figure


def rates_figure(table: pd.DataFrame) -> Figure:
    """Steps, and accuracy at the end, over the learning rate: means over seeds with their 95 % intervals."""
    runs = over_rates(table)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    rules = list(dict.fromkeys(table.rule))
    for ax, quantity in zip(axes, ("average", "steps"), strict=True):
        for place, rule in enumerate(rules):
            means = {
                rate: mean_interval(of.to_numpy(float))
                for rate, of in runs.loc[rule].groupby("learning_rate")[quantity]
            }
            shift = 1.05 ** (place - (len(rules) - 1) / 2)  # side by side, so that intervals can be told apart
            style: Any = {**rule_style(rule), "markersize": 5}
            ax.plot(
                [shift * rate for rate in means], [m["mean"] for m in means.values()], label=RULE_LABELS[rule], **style
            )
            for rate, found in means.items():
                if np.isfinite(found["interval"][0]):
                    ax.plot([shift * rate] * 2, found["interval"], color=style["color"], linewidth=1)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_title(PANELS[quantity].replace("\n", " "), fontsize=10)
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def second_task_figure(table: pd.DataFrame, config: ForgettingStudyConfig) -> Figure:
    """First-task accuracy against second-task accuracy while the second is learnt: means over seeds that got there."""
    rows = at_chosen_rates(table)
    chance = 0.5 if config.task == "split-digits" else 0.1
    levels = np.linspace(chance, config.criterion, 40)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    ax = figure.subplots()
    for rule in config.rules:
        of_rule = rows[rows.rule == rule]
        curves = np.array([first_over_second(run, levels) for _, run in of_rule.groupby("seed")])
        has_all = ~np.isnan(curves).any(0)
        style = {**rule_style(rule), "markevery": 6, "markersize": 5}
        ax.plot(levels[has_all], curves[:, has_all].mean(0), label=RULE_LABELS[rule], linewidth=1.6, **style)
        if len(curves) > 1:
            error = curves[:, has_all].std(0, ddof=1) / np.sqrt(len(curves))
            low, high = curves[:, has_all].mean(0) - error, curves[:, has_all].mean(0) + error
            ax.fill_between(levels[has_all], low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.axhline(chance, color="0.7", linestyle="--", linewidth=1)
    ax.set_xlabel("accuracy in the second task, as it is learnt")
    ax.set_ylabel("accuracy left in the first")
    figure.legend(loc="outside right center")
    return figure


def kept_figure(table: pd.DataFrame, config: ForgettingStudyConfig) -> Figure:
    """A panel a rule: accuracy in each task (columns) after each task (rows), means over seeds."""
    rows = at_chosen_rates(table)
    n_columns = min(3, len(config.rules))
    n_rows = -(-len(config.rules) // n_columns)
    figure = Figure(figsize=(1 + 3 * n_columns, 0.4 + 2.6 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    colors = ScalarMappable(Normalize(0, 1), "viridis")
    places = np.arange(config.n_tasks)
    for ax, rule in zip(axes.flat, config.rules, strict=False):
        kept = accuracies(rows[rows.rule == rule])
        ax.pcolormesh(kept, cmap=colors.cmap, norm=colors.norm)
        for (after, of), value in np.ndenumerate(kept):
            ax.text(of + 0.5, after + 0.5, f"{100 * value:.0f}", ha="center", va="center", fontsize=8,
                    color="white" if value < 0.6 else "black")  # fmt: skip
        ax.set_title(RULE_LABELS[rule], fontsize=10)
        ax.set_xticks(places + 0.5, [str(place + 1) for place in places])
        ax.set_yticks(places + 0.5, [str(place + 1) for place in places])
        ax.set_ylim(config.n_tasks, 0)
    for ax in axes[:, 0]:
        ax.set_ylabel("after task")
    for ax in axes[-1]:
        ax.set_xlabel("accuracy in task (%)")
    for ax in axes.flat[len(config.rules) :]:
        ax.set_visible(False)
    figure.colorbar(colors, ax=axes, label="accuracy")
    return figure

"""The figure of a continual study: old accuracy against new, and what was lost where arms are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.plots.axes import whiskers

from ..figures import ARM_LABELS, arm_colors
from .courses import Course, levels_to


def interference_figure(conditions: list[tuple[dict[str, Any], list[Course]]]) -> Figure:
    """A row a condition: the courses of all runs, and bars with intervals."""
    figure = Figure(figsize=(9.2, 3.4 * len(conditions)), layout="constrained")
    axes = figure.subplots(len(conditions), 2, squeeze=False, width_ratios=(1.25, 1))
    for (condition, runs), (left, right) in zip(conditions, axes, strict=True):
        draw_courses(left, condition, runs)
        draw_drops(right, condition)
        left.set_title(condition_name(condition["later_price"]))
    return figure


def condition_name(later_price: float) -> str:
    """What wire costs while the new tasks are learnt, in words."""
    if later_price == 1:
        return "wire costs what it did"
    return "wire costs nothing any more" if later_price == 0 else f"wire costs {later_price:g} times what it did"


def draw_courses(ax: Axes, condition: dict[str, Any], runs: list[Course]) -> None:
    """Old accuracy against new: a thin line a seed, a thick one for their mean where all have been."""
    for arm, color in arm_colors().items():
        of_arm = [run for run in runs if run.arm == arm]
        if not of_arm:
            continue
        for run in of_arm:
            ax.plot(run.new, run.old.mean(axis=1), color=color, linewidth=0.8, alpha=0.35)
        levels = levels_to(min(run.new.max() for run in of_arm), of_arm)
        mean = np.mean([run.mean_old_at(levels).mean(axis=1) for run in of_arm], axis=0)
        ax.plot(levels, mean, color=color, linewidth=2.2, label=ARM_LABELS[arm])
    if condition["threshold"] is not None:
        ax.axvline(condition["threshold"], color="0.3", linewidth=0.8, linestyle="--")
    ax.set_xlabel("accuracy in the new tasks")
    ax.set_ylabel("accuracy in the old tasks")
    ax.legend(loc="upper right")


def draw_drops(ax: Axes, condition: dict[str, Any]) -> None:
    """Bars of what each arm lost, with 95 % intervals and a dot a seed: full at the threshold, pale on the way."""
    colors = arm_colors()
    for place, entry in enumerate(condition["arms"]):
        for offset, quantity, alpha in ((-0.2, "drop", 0.9), (0.2, "drop_on_the_way", 0.45)):
            found = entry[quantity]
            if found["mean"] is None:
                continue
            x = place + offset
            ax.bar(x, found["mean"], 0.36, color=colors[entry["arm"]], alpha=alpha, linewidth=0)
            if found["interval"][0] is not None:
                length = whiskers([found["mean"]], [found["interval"]])
                ax.errorbar([x], [found["mean"]], length, color="0.2", capsize=3, linewidth=1)
            seeds = [value for value in found["values"] if value is not None]
            ax.scatter([x] * len(seeds), seeds, s=10, color="0.2", zorder=3, linewidth=0)
    ax.set_xticks(range(len(condition["arms"])), [ARM_LABELS[entry["arm"]] for entry in condition["arms"]])
    ax.tick_params(axis="x", labelsize=8)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.3), min(high, 1.3))  # two seeds have intervals far wider than any loss
    ax.set_ylabel("accuracy lost in the old tasks")

"""The figures of a study, in the order the page tells them; each draws from the table and the findings alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..curves import Curves
from ..learning_laws import training_times
from ..run import Run
from .scene import draw_scenes
from .style import CONTACT, FREE, GRAY, WALL, head_colors, save, step_axis, theme


def draw_figures(run: Run, summary: dict[str, Any], folder: Path) -> list[str]:
    """Write every figure as SVG and PNG; returns their names in order."""
    seed = run.config.seeds[0]
    curves = Curves(run.measurements, "discs", seed)
    heads = [h for h in summary["heads"] if h["seed"] == seed]
    best = max(heads, key=lambda h: h["contact_ap"])
    drawings: dict[str, Callable[[], Figure]] = {
        "scenes": lambda: draw_scenes(run, curves, best),
        "loss": lambda: loss_figure(curves),
        "heads": lambda: heads_figure(run, curves, heads),
        "attention": lambda: attention_figure(curves, best),
        "causes": lambda: causes_figure(curves, heads, int(curves.steps[-1])),
        "landscape": lambda: landscape_figure(run, curves, summary, best),
        "laws": lambda: laws_figure(run, curves, [law for law in summary["laws"] if law["seed"] == seed]),
    }
    with theme():
        for name, draw in drawings.items():
            save(draw(), folder, name)
    return list(drawings)


def band(ax: Axes, x: Any, y: Any, error: Any, color: Any, label: str | None = None, **line: Any) -> None:
    """A line with its 95 % band."""
    ax.plot(x, y, color=color, label=label, **line)
    ax.fill_between(x, y - 1.96 * error, y + 1.96 * error, color=color, alpha=0.18, linewidth=0)


def loss_figure(curves: Curves) -> Figure:
    """Loss by kind of particle, beside what free flight alone would get."""
    figure = Figure(figsize=(7, 3.8))
    ax = figure.subplots()
    for name, color, label in (("contact", CONTACT, "colliding"), ("wall", WALL, "wall only"), ("free", FREE, "free")):
        steps, values, errors = curves.over_steps(f"loss_{name}")
        band(ax, steps, values, errors, color, f"{label} particles")
        baseline = curves.at(f"ballistic_loss_{name}", int(steps[-1]))
        if baseline > 1e-6:
            ax.axhline(baseline, color=color, linestyle=":", linewidth=1.2)
    ax.plot([], [], color=GRAY, linestyle=":", label="free-flight prediction")
    ax.set_yscale("log")
    ax.set_ylabel("mean squared error\n(units of target variance)")
    ax.set_title("Loss on particles that collide, hit a wall, or fly free")
    step_axis(ax, steps)
    ax.legend(loc="lower left")
    return figure


def heads_figure(run: Run, curves: Curves, heads: list[dict[str, Any]]) -> Figure:
    """Contact average precision of every head over training, with baselines, onsets and the ghost control."""
    figure = Figure(figsize=(7.5, 4.6))
    ax = figure.subplots()
    colors = head_colors(run.config.model.n_layers, run.config.model.n_heads)
    for h in heads:
        key = h["layer"], h["head"]
        steps, values, errors = curves.over_steps("contact_ap", *key)
        band(ax, steps, values, errors, colors[key], f"head {h['layer']}.{h['head']}")
        if h["is_contact_head"] and h["onset_step"] is not None:
            low, high = h["onset_interval"]
            y = float(np.interp(math.log1p(h["onset_step"]), np.log1p(steps), values))
            ax.plot([low, high], [y, y], color=colors[key], linewidth=5, alpha=0.35, solid_capstyle="butt")
            ax.plot(h["onset_step"], y, marker="o", color=colors[key], markeredgecolor="white", markersize=7)
    step = int(curves.steps[-1])
    for quantity, label, style, lift in (
        ("free_flight_ap", "free-flight geometry", (0, (5, 1)), 3),
        ("nearest_neighbor_ap", "nearest neighbour", "--", 3),
        ("chance_ap", "chance", ":", -10),
    ):
        y = curves.at(quantity, step)
        ax.axhline(y, color="black", linewidth=0.9, linestyle=style)
        ax.annotate(label, (1, y), (4, lift), textcoords="offset points", fontsize=8)
    if run.config.ghost_control:
        ghosts = Curves(run.measurements, "ghosts", run.config.seeds[0])
        for layer, head in colors:
            steps, values, _ = ghosts.over_steps("contact_ap", layer, head)
            ax.plot(steps, values, color=GRAY, linewidth=0.8, linestyle="-.", alpha=0.8)
        ax.plot([], [], color=GRAY, linewidth=0.8, linestyle="-.", label="ghost control")
    ax.set_ylim(0, 1)
    ax.set_ylabel("contact average precision")
    ax.set_title("Each head as a detector of collisions (95 % bands; dots: onsets of contact heads)")
    step_axis(ax, curves.steps)
    ax.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def attention_figure(curves: Curves, best: dict[str, Any]) -> Figure:
    """Attention of the best head against distance, over training, and by approach at the end."""
    figure = Figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2)
    steps = curves.steps
    chosen = sorted({int(steps[i]) for i in np.linspace(0, len(steps) - 1, 5).round().astype(int)})
    import seaborn as sns

    for step, color in zip(chosen, sns.color_palette("flare", len(chosen)), strict=True):
        rows = curves.curve("radial_attention", step, best["layer"], best["head"]).dropna(subset=["value"])
        band(left, rows["coordinate"], rows["value"], rows["standard_error"], color, f"step {step:,}")
    left.axhline(1, color="black", linewidth=0.9, linestyle=":")
    left.set_xlabel("distance r (box lengths)")
    left.set_ylabel("radial attention g(r)")
    left.set_title(f"Head {best['layer']}.{best['head']}: attention against distance")
    left.legend()
    for name, color in (("approaching", CONTACT), ("receding", FREE)):
        rows = curves.curve(f"attention_{name}", chosen[-1], best["layer"], best["head"]).dropna(subset=["value"])
        right.plot(rows["coordinate"], rows["value"], color=color, label=f"{name} pairs", marker=".")
    right.set_xlabel("distance r (box lengths)")
    right.set_ylabel("mean attention")
    right.set_title(f"At equal distance, step {chosen[-1]:,}")
    right.legend()
    return figure


def causes_figure(curves: Curves, heads: list[dict[str, Any]], step: int) -> Figure:
    """Edge knock-outs and head ablations."""
    figure = Figure(figsize=(9.5, 3.9))
    left, right = figure.subplots(1, 2)
    x = np.arange(len(heads))
    labels = [f"{h['layer']}.{h['head']}" for h in heads]
    for shift, (name, label, color) in zip(
        (-0.2, 0.2),
        (("partner", "to the true partner", CONTACT), ("nonpartner", "to the nearest other", GRAY)),
        strict=True,
    ):
        _bars(left, x + shift, 0.4, curves, heads, f"edge_knockout_{name}", step, label, color)
    baseline = curves.at("knockout_baseline_loss", step)
    left.axhline(0.3 * baseline, color="black", linewidth=0.9, linestyle=":")
    left.annotate("30 % of the loss", (x[0] - 0.4, 0.3 * baseline), (0, 3), textcoords="offset points", fontsize=8)
    left.set_ylabel("added loss of that particle")
    left.set_title(f"Cutting one attention edge (loss uncut {baseline:.2f})")
    for shift, (name, label, color) in zip(
        (-0.2, 0.2), (("contact", "colliding", CONTACT), ("free", "free", FREE)), strict=True
    ):
        _bars(right, x + shift, 0.4, curves, heads, f"resample_ablation_{name}", step, f"{label} particles", color)
    right.set_ylabel("added loss")
    right.set_title("Resample-ablating the whole head")
    for ax in (left, right):
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(x, labels)
        ax.set_xlabel("head (layer.head)")
        ax.legend()
    return figure


def _bars(
    ax: Axes, x: Any, width: float, curves: Curves, heads: Any, quantity: str, step: int, label: str, color: Any
) -> None:
    at = [(h["layer"], h["head"]) for h in heads]
    values = [curves.at(quantity, step, *key) for key in at]
    errors = [1.96 * curves.error_at(quantity, step, *key) for key in at]
    ax.bar(x, values, width, yerr=errors, color=color, label=label, error_kw={"linewidth": 1})


def landscape_figure(run: Run, curves: Curves, summary: dict[str, Any], best: dict[str, Any]) -> Figure:
    """Learning coefficients and curvature over the same steps as the best head's precision."""
    figure = Figure(figsize=(7.5, 8))
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    colors = head_colors(run.config.model.n_layers, run.config.model.n_heads)
    key = best["layer"], best["head"]
    steps, values, errors = curves.over_steps("contact_ap", *key)
    band(top, steps, values, errors, colors[key])
    top.set_ylabel(f"contact AP, head {key[0]}.{key[1]}")
    top.set_title("Emergence, learning coefficient and curvature on one axis (band: onset interval)")
    steps, values, errors = curves.over_steps("llc")
    middle.errorbar(steps, values, 1.96 * errors, color="black", marker="o", capsize=3, label="whole model")
    middle.set_ylabel("LLC of the whole model")
    heads_axis = middle.twinx()
    heads_axis.spines["right"].set_visible(True)
    for at, color in colors.items():
        steps, values, errors = curves.over_steps("llc", *at)
        heads_axis.errorbar(
            steps, values, 1.96 * errors, color=color, marker=".", linewidth=1, capsize=2, label=f"head {at[0]}.{at[1]}"
        )
    heads_axis.set_ylabel("LLC of one head")
    middle.legend(loc="upper left")
    heads_axis.legend(loc="center left", bbox_to_anchor=(1.12, 0.5))
    rows = [h for h in summary["hessian"] if h["seed"] == run.config.seeds[0]]
    at_steps = [h["step"] for h in rows]
    bottom.plot(at_steps, [h["top"] for h in rows], color=CONTACT, marker="o", label="largest eigenvalue")
    bottom.errorbar(
        at_steps,
        [h["trace"] for h in rows],
        [1.96 * (h["trace_standard_error"] or 0) for h in rows],
        color=FREE,
        marker="s",
        capsize=3,
        label="trace",
    )
    bottom.set_yscale("log")
    bottom.set_ylabel("curvature")
    share = bottom.twinx()
    share.spines["right"].set_visible(True)
    share.plot(at_steps, [h["near_null_share"] for h in rows], color=GRAY, marker="^", label="near-null share (right)")
    share.set_ylim(0, 1)
    share.set_ylabel("near-null share")
    handles = [line for ax in (bottom, share) for line in ax.get_legend_handles_labels()[0]]
    names = [name for ax in (bottom, share) for name in ax.get_legend_handles_labels()[1]]
    bottom.legend(handles, names, loc="lower left")
    for ax in (top, middle, bottom):
        if best.get("onset_step") is not None:
            ax.axvspan(*best["onset_interval"], color=colors[key], alpha=0.15, linewidth=0)
            ax.axvline(best["onset_step"], color=colors[key], linewidth=1)
    step_axis(bottom, curves.steps)
    return figure


def laws_figure(run: Run, curves: Curves, laws: list[dict[str, Any]]) -> Figure:
    """Each quantity against the clock, the window of the fit, and how the laws compare."""
    figure = Figure(figsize=(9.5, 3.8 * max(1, len(laws))))
    if not laws:
        figure.text(0.5, 0.5, "too few checkpoints for a law", ha="center")
        return figure
    rows = figure.subplots(len(laws), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), law in zip(rows, laws, strict=True):
        name, _, at = law["quantity"].partition(" ")
        key = tuple(int(i) for i in at.split(".")) if at else (None, None)
        steps, values, errors = curves.over_steps(name, *key)
        times = training_times(run, law["seed"], steps)
        left.errorbar(times[1:], values[1:], 1.96 * errors[1:], color=GRAY, marker=".", linestyle="", label="measured")
        low, high, decades = law["window"]
        left.axvspan(low, high, color=CONTACT, alpha=0.08, linewidth=0)
        left.set_xscale("log")
        left.set_xlabel("training time (sum of learning rates)")
        left.set_ylabel(law["quantity"])
        verdict = law["preferred"].replace("_", " ")
        left.set_title(f"{law['quantity']}: {verdict} over {decades:.1f} decades (shaded)")
        weights = sorted(((w or 0.0, k) for k, w in law["weights"].items()), reverse=True)
        names = [k.replace("_", " ") for _, k in weights]
        right.barh(names, [w for w, _ in weights], color=[CONTACT, *[GRAY] * (len(weights) - 1)])
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.set_xlabel("weight among the laws")
        right.set_title("Which law the points prefer")
    return figure

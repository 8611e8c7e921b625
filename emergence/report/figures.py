"""The figures of a study, in the order the page tells them; each draws from the table and the findings alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes import law_values
from probes.plots.axes import GRAY, band, step_axis, theme

from ..curves import Curves
from ..learning_laws import training_times
from ..run import Run
from .scene import draw_scenes
from .style import CONTACT, FREE, WALL, head_colors, save


def draw_figures(run: Run, summary: dict[str, Any], folder: Path) -> list[str]:
    """Write every figure as SVG and PNG; returns their names in order."""
    seed = run.config.seeds[0]
    curves = Curves(run.measurements, "discs", seed)
    heads = [h for h in summary["heads"] if h["seed"] == seed]
    best = max(heads, key=lambda h: h["contact_ap"])
    strongest = max(heads, key=lambda h: (h["is_contact_head"], h["edge_knockout_partner"] or 0))
    drawings: dict[str, Callable[[], Figure]] = {
        "scenes": lambda: draw_scenes(run, curves, strongest),
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
    top, middle, bottom = panels = figure.subplots(3, 1, sharex=True)
    colors = head_colors(run.config.model.n_layers, run.config.model.n_heads)
    key = best["layer"], best["head"]
    band(top, *curves.over_steps("contact_ap", *key), colors[key])
    top.set_ylabel(f"contact AP, head {key[0]}.{key[1]}")
    top.set_title("Emergence, learning coefficient and curvature on one axis (band: onset interval)")
    _llc_panel(middle, curves, colors)
    _curvature_panel(bottom, [h for h in summary["hessian"] if h["seed"] == run.config.seeds[0]])
    for ax in panels:
        if best["onset_step"] is not None:
            ax.axvspan(*best["onset_interval"], color=colors[key], alpha=0.15, linewidth=0)
            ax.axvline(best["onset_step"], color=colors[key], linewidth=1)
    step_axis(bottom, curves.steps)
    return figure


def _llc_panel(ax: Axes, curves: Curves, colors: dict[tuple[int, int], Any]) -> None:
    """The whole model on the left axis, heads on the right one."""
    steps, values, errors = curves.over_steps("llc")
    ax.errorbar(steps, values, 1.96 * errors, color="black", marker="o", capsize=3, label="whole model")
    ax.set_ylabel("LLC of the whole model")
    ax.legend(loc="upper left")
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    for (layer, head), color in colors.items():
        steps, values, errors = curves.over_steps("llc", layer, head)
        style: dict[str, Any] = {"color": color, "marker": ".", "linewidth": 1, "capsize": 2}
        right.errorbar(steps, values, 1.96 * errors, label=f"head {layer}.{head}", **style)
    right.set_ylabel("LLC of one head")
    right.legend(loc="center left", bbox_to_anchor=(1.2, 0.5))


def _curvature_panel(ax: Axes, rows: list[dict[str, Any]]) -> None:
    """Largest eigenvalue and trace on the left axis, share of near-null directions on the right one."""
    steps = [row["step"] for row in rows]
    ax.plot(steps, [row["top"] for row in rows], color=CONTACT, marker="o", label="largest eigenvalue")
    errors = [1.96 * (row["trace_standard_error"] or 0) for row in rows]
    style: dict[str, Any] = {"capsize": 3, "linestyle": "-"}
    ax.errorbar(steps, [row["trace"] for row in rows], errors, color=FREE, marker="s", label="trace", **style)
    ax.set_yscale("log")
    ax.set_ylabel("curvature")
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    shares = np.array([row["near_null_share"] for row in rows])
    ends = np.array([row["near_null_interval"] for row in rows])
    label = "near-null share (right)"
    right.errorbar(steps, shares, np.abs(ends.T - shares), color=GRAY, marker="^", label=label, **style)
    right.set_ylabel("near-null share")
    handles, names = (a + b for a, b in zip(*(axis.get_legend_handles_labels() for axis in (ax, right)), strict=True))
    ax.legend(handles, names, loc="center left", bbox_to_anchor=(1.2, 0.5))


def laws_figure(run: Run, curves: Curves, laws: list[dict[str, Any]]) -> Figure:
    """Each quantity against the clock, the laws fitted since the onset, and how they compare."""
    figure = Figure(figsize=(9.5, 3.6 * len(laws)))
    for (left, right), law in zip(figure.subplots(len(laws), 2, squeeze=False, width_ratios=(3, 2)), laws, strict=True):
        name, _, at = law["quantity"].partition(" ")
        place = tuple(int(i) for i in at.split(".")) if at else (None, None)
        steps, values, errors = (a[1:] for a in curves.over_steps(name, *place))  # a log clock has no zero
        times = training_times(run, law["seed"], steps)
        left.errorbar(times, values, 1.96 * errors, color=GRAY, marker=".", linestyle="", label="measured")
        left.set_xscale("log")
        left.set_xlabel("training time (sum of learning rates)")
        left.set_ylabel(law["quantity"])
        verdict = law["preferred"].replace("_", " ")
        left.set_title(f"{law['quantity']}: {verdict}")
        _fitted_laws(left, right, law)
    return figure


def _fitted_laws(left: Axes, right: Axes, law: dict[str, Any]) -> None:
    """Fitted curves over their window, and the weights of the laws in the same colors."""
    if not law["parameters"]:
        right.set_axis_off()
        right.text(0, 0.5, "no fit: " + law["reason"].replace("; ", ";\n"), fontsize=9, va="center")
        return
    low, high, decades = law["window"]
    t = np.geomspace(low, high, 200)
    ranked = sorted(law["weights"], key=lambda name: -(law["weights"][name] or 0))
    colors = dict(zip(ranked, sns.color_palette("colorblind", len(ranked)), strict=True))
    for name in reversed(ranked):
        best = name == ranked[0]
        left.plot(t, law_values(name, t, law["parameters"][name]), color=colors[name], linewidth=2.2 if best else 1)
    left.axvspan(low, high, color=GRAY, alpha=0.08, linewidth=0)
    labels = [name.replace("_", " ") for name in ranked]
    right.barh(labels, [law["weights"][name] or 0 for name in ranked], color=[colors[name] for name in ranked])
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.set_xlabel("weight among the laws")
    right.set_title(f"Since the onset, {decades:.1f} decades")

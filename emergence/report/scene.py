"""A scene as the network sees it, with the attention of one head drawn as lines between particles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ..curves import Curves
from ..data import Transitions
from ..measuring import attention_patterns
from ..run import Run
from .style import CONTACT, FREE

LEAST_ATTENTION = 0.05
"""Weakest line drawn, relative to the strongest."""


def draw_scenes(run: Run, curves: Curves, head: dict[str, Any], n_checkpoints: int = 4) -> Figure:
    """The same scene at several checkpoints: a head turning from everywhere to the coming collisions."""
    _, data = run.transitions("discs")
    checkpoints = run.checkpoints(run.config.seeds[0])
    scene = _typical_scene(data, checkpoints.load(int(curves.steps[-1])), head)
    steps = _telling_steps(curves, head, n_checkpoints)
    figure = Figure(figsize=(3.1 * len(steps), 3.7))
    for ax, step in zip(figure.subplots(1, len(steps)), steps, strict=True):
        pattern = attention_patterns(checkpoints.load(step), data, torch.tensor([scene]))[head["layer"]][
            0, head["head"]
        ]
        draw_scene(
            ax,
            data.positions[scene].cpu().numpy(),
            data.velocities[scene].cpu().numpy() * run.config.data.frame_interval,
            data.radii[scene].cpu().numpy(),
            data.contacts[scene].cpu().numpy(),
            pattern,
            run.config.data.system.box,
        )
        precision = curves.at("contact_ap", step, head["layer"], head["head"])
        ax.set_title(f"step {step:,}: precision {precision:.2f}")
    figure.suptitle(
        f"Attention of head {head['layer']}.{head['head']} (lines) and the pairs that will collide (orange)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return figure


def draw_scene(
    ax: Axes, positions: Any, flights: Any, radii: Any, contacts: Any, pattern: Any, box: tuple[float, ...]
) -> None:
    """Discs, where they would fly within the interval, and attention; planar systems and projections of spatial ones.

    Line width and opacity grow with attention, relative to the strongest edge of the scene; orange lines join pairs
    that will collide.
    """
    x, flight = positions[:, [0, -1]], flights[:, [0, -1]]
    colliding = contacts.any(axis=1)
    for center, radius, hit in zip(x, radii, colliding, strict=True):
        ax.add_patch(
            Circle(center, radius, facecolor="#fed7aa" if hit else "#e5e7eb", edgecolor="#9ca3af", linewidth=0.6)
        )
    ax.quiver(
        *x.T, *flight.T, angles="xy", scale_units="xy", scale=1, width=0.006, color="#374151", zorder=3, headwidth=4
    )
    weights = np.where(np.eye(len(x), dtype=bool), 0.0, pattern)
    weights = weights / weights.max()  # attention kept for oneself can leave little to see
    query, key = np.nonzero(weights > LEAST_ATTENTION)
    weight = weights[query, key]
    colors = np.array(
        [[*_rgb(CONTACT if contacts[q, k] else FREE), w] for q, k, w in zip(query, key, weight, strict=True)]
    )
    ax.add_collection(
        LineCollection(list(np.stack([x[query], x[key]], axis=1)), colors=colors, linewidths=0.5 + 4 * weight)
    )
    ax.set_xlim(0, box[0])
    ax.set_ylim(0, box[-1])
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)


def _typical_scene(data: Transitions, model: Any, head: dict[str, Any]) -> int:
    """Of the scenes with two separate collisions, the one whose partners get the median attention: not the best one."""
    degrees = data.contacts.sum(dim=-1)
    fit = ((degrees <= 1).all(dim=-1) & (degrees.sum(dim=-1) == 4)).nonzero().flatten()[:200]
    if len(fit) == 0:
        return int(degrees.sum(dim=-1).argmax())
    pattern = attention_patterns(model, data, fit)[head["layer"]][:, head["head"]]
    attention = (pattern * data.contacts[fit].cpu().numpy()).sum(axis=(1, 2))
    return int(fit[np.argsort(attention)[len(fit) // 2]])


def _telling_steps(curves: Curves, head: dict[str, Any], n: int) -> list[int]:
    """First and last step, and those between whose precision divides the rise evenly."""
    steps, values, _ = curves.over_steps("contact_ap", head["layer"], head["head"])
    targets = np.linspace(values[0], values[-1], n)
    between = [int(np.argmin(np.abs(values - target))) for target in targets[1:-1]]
    return sorted({int(steps[i]) for i in (0, *between, len(steps) - 1)})


def _rgb(color: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)

"""One look for every figure: a theme, a colour a head that it keeps across panels, a log axis of training steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GRAY = "#6b7280"
CONTACT, FREE, WALL = "#c2410c", "#2563eb", "#7c3aed"


@contextmanager
def theme() -> Iterator[None]:
    """Seaborn's theme for the length of a block; the caller's settings come back afterwards."""
    settings: dict[Any, Any] = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("notebook", font_scale=0.9),
        "svg.fonttype": "none",
        "svg.hashsalt": "emergence-lab",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 160,
    }
    with mpl.rc_context(settings):
        yield


def head_colors(n_layers: int, n_heads: int) -> dict[tuple[int, int], Any]:
    """Colour-blind safe: one hue a head of the last layer, grays for the layers before."""
    colors = {}
    vivid = sns.color_palette("colorblind", n_heads)
    for layer in range(n_layers):
        for head in range(n_heads):
            shade = 0.45 + 0.4 * head / max(1, n_heads - 1)
            colors[layer, head] = vivid[head] if layer == n_layers - 1 else (shade, shade, shade)
    return colors


def step_axis(ax: Axes, steps: Any) -> None:
    """Log axis of training steps that also has room for step 0."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(-0.1, max(steps) * 1.15)
    ax.set_xlabel("training step")
    ticks = [0, *(10**k for k in range(12) if 10**k <= max(steps))]
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
    ax.minorticks_off()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png; equal figures give equal bytes."""
    from ..files import write_aside

    write_aside(folder / f"{name}.svg", lambda path: figure.savefig(path, metadata={"Date": None}))
    write_aside(folder / f"{name}.png", lambda path: figure.savefig(path, metadata={"Software": None}))
    figure.clear()

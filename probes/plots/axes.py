"""What all plots share: a theme that prints well, bands, colours that do not rely on hue, a log axis of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GRAY = "#6b7280"
NORMAL_95 = 1.959964
"""Half width of a 95 % interval in standard errors, for results that carry no interval of their own."""


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


def own_axes(ax: Axes | None) -> Axes:
    """Return ``ax``, or the axes of a new figure that belongs to nobody's window."""
    return Figure(figsize=(6, 3.8), layout="constrained").subplots() if ax is None else ax


def palette(n: int) -> list[Any]:
    """Return colours that the colour-blind tell apart, as many as they can; a gradient for more."""
    return list(sns.color_palette("colorblind" if n <= 10 else "viridis", n))


def band(ax: Axes, x: Any, y: Any, error: Any, color: Any, label: str | None = None, **line: Any) -> None:
    """Draw a line with its 95 % band; ``error`` is a standard error."""
    x, y, half = np.asarray(x), np.asarray(y), NORMAL_95 * np.asarray(error)
    ax.plot(x, y, color=color, label=label, **line)
    ax.fill_between(x, y - half, y + half, color=color, alpha=0.18, linewidth=0)


def whiskers(value: Any, interval: Any) -> np.ndarray:
    """Return the lengths below and above a value that ``errorbar`` wants, from intervals ``(..., 2)``."""
    value, interval = np.asarray(value), np.asarray(interval)
    return np.abs(np.stack([value - interval[..., 0], interval[..., 1] - value]))


def step_axis(ax: Axes, steps: Sequence[int] | np.ndarray) -> None:
    """Make the x axis one of training steps: logarithmic, with room for step 0."""
    last = max(steps)
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(-0.1, last * 1.15)
    ax.set_xlabel("training step")
    decades = range(int(np.ceil(np.log10(last + 1))) + 1)
    ticks = [0, *(10**k for k in decades if 10**k <= last)]
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
    ax.minorticks_off()


def names_of_heads(n_heads: int, names: Sequence[str] | None) -> list[str]:
    """Return labels of heads, ``head 0`` and so on where none are given."""
    if names is None:
        return [f"head {head}" for head in range(n_heads)]
    if len(names) != n_heads:
        raise ValueError(f"names must label each of the {n_heads} heads, got {len(names)}")
    return list(names)

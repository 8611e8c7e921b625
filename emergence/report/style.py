"""One look for the report's figures: a colour a head that it keeps across panels, and files of equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

CONTACT, FREE, WALL = "#c2410c", "#2563eb", "#7c3aed"


def head_colors(n_layers: int, n_heads: int) -> dict[tuple[int, int], Any]:
    """Colour-blind safe: one hue a head of the last layer, grays for the layers before."""
    colors = {}
    vivid = sns.color_palette("colorblind", n_heads)
    for layer in range(n_layers):
        for head in range(n_heads):
            shade = 0.45 + 0.4 * head / max(1, n_heads - 1)
            colors[layer, head] = vivid[head] if layer == n_layers - 1 else (shade, shade, shade)
    return colors


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png; equal figures give equal bytes."""
    from ..files import write_aside

    write_aside(folder / f"{name}.svg", lambda path: figure.savefig(path, metadata={"Date": None}))
    write_aside(folder / f"{name}.png", lambda path: figure.savefig(path, metadata={"Software": None}))
    figure.clear()

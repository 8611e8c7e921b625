"""What heads track, and what recovers when an activation is patched in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from ..heads.tracking import HeadTracking
from ..landscape.blocks import BlockCurvature
from ..patching import Patching
from .axes import names_of_heads, own_axes, palette, whiskers


def plot_head_tracking(
    tracking: HeadTracking, *, names: Sequence[str] | None = None, level: float = 0.05, ax: Axes | None = None
) -> Axes:
    """Draw the rank correlation of every head with every quantity; a star stands where it passes the corrected null.

    Args:
        tracking: of ``what_heads_track``.
        names: of the heads.
        level: largest corrected p-value that gets a star.
        ax: where to draw.
    """
    ax = own_axes(ax)
    measure = tracking.rank_correlation
    stars = np.where(measure.corrected_p_value <= level, "*", "")
    notes = np.char.add(np.char.mod("%.2f", measure.value), stars)
    sns.heatmap(
        measure.value,
        vmin=-1,
        vmax=1,
        cmap="vlag",
        annot=notes,
        fmt="",
        annot_kws={"fontsize": 8},
        xticklabels=names_of_heads(measure.value.shape[1], names),
        yticklabels=[name.replace("_", " ") for name in tracking.quantities],
        cbar_kws={"label": "rank correlation with attention"},
        ax=ax,
    )
    ax.tick_params(axis="y", labelrotation=0)
    ax.set_xlabel("head")
    ax.set_title(f"* corrected p ≤ {level:g} ({tracking.n_permutations} permutations)")
    return ax


def plot_patching(patching: Patching, *, ax: Axes | None = None) -> Axes:
    """Draw the effect that each patched site recovers, with 95 % intervals: 0 as corrupted, 1 as clean."""
    ax = own_axes(ax)
    y = np.arange(len(patching.sites))
    lengths = whiskers(patching.recovered, patching.interval)
    ax.errorbar(patching.recovered, y, xerr=lengths, fmt="o", color=palette(1)[0], capsize=3)
    for at, label in ((0, "corrupted"), (1, "clean")):
        ax.axvline(at, color="black", linewidth=0.9, linestyle=":")
        ax.annotate(label, (at, 1), (2, 2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8)
    ax.set_yticks(y, patching.sites)
    ax.invert_yaxis()
    ax.margins(y=0.1)
    ax.set_xlabel("recovered effect (95 %)")
    return ax


def plot_hessian_blocks(blocks: Mapping[str, BlockCurvature], *, ax: Axes | None = None) -> Axes:
    """Draw the leading eigenvalues of every block, a column a block; those that did not converge are hollow."""
    ax = own_axes(ax)
    for at, (block, color) in enumerate(zip(blocks.values(), palette(len(blocks)), strict=True)):
        values, converged = block.eigenvalues.values, block.eigenvalues.converged
        for sound, fill in ((converged, "full"), (~converged, "none")):
            ax.plot(np.full(sound.sum(), at), values[sound], "_", color=color, markersize=16, markeredgewidth=2)
            ax.plot(np.full(sound.sum(), at), values[sound], "o", color=color, fillstyle=fill, markersize=4)
    ax.set_xticks(range(len(blocks)), list(blocks), rotation=45 if len(blocks) > 6 else 0)
    ax.margins(x=0.1)
    ax.set_ylabel("eigenvalue of the block")
    ax.set_xlabel("block")
    return ax

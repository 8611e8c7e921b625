"""Heads: what they attend to, and what breaks without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..causal import EdgeKnockout, HeadAblation
from ..heads.approach import ApproachPreference
from ..heads.contact import AveragePrecision, PermutationNull
from ..heads.distance import DistanceCorrelation, RadialAttention
from .axes import GRAY, NORMAL_95, band, names_of_heads, own_axes, palette, whiskers


def plot_average_precision(
    precision: AveragePrecision,
    *,
    null: PermutationNull | None = None,
    baselines: Mapping[str, float] | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how well each head ranks colliding pairs, with 95 % intervals, chance and the permutation null.

    Args:
        precision: of ``contact_average_precision``.
        null: of ``permutation_null`` on the same patterns; its values are drawn as a cloud.
        baselines: further lines, such as that of the nearest neighbour.
        names: of the heads.
        ax: where to draw.
    """
    ax = own_axes(ax)
    x = np.arange(len(precision.value))
    lengths = whiskers(precision.value, precision.interval)
    if null is not None:
        ax.plot(np.broadcast_to(x, null.null.shape), null.null, "_", color=GRAY, alpha=0.15, markersize=14)
        ax.plot([], [], "_", color=GRAY, markersize=14, label="partners permuted")
    ax.errorbar(x, precision.value, lengths, fmt="o", color=palette(1)[0], capsize=3, label="head, 95 %")
    for (name, value), style in zip(
        {"chance": precision.chance, **(baselines or {})}.items(), (":", "--", "-.", (0, (5, 1))) * 9, strict=False
    ):
        ax.axhline(value, color="black", linewidth=0.9, linestyle=style, label=name)
    _head_axis(ax, x, names)
    ax.set_ylim(0, 1)
    ax.set_ylabel("contact average precision")
    ax.legend()
    return ax


def plot_radial_attention(
    radial: RadialAttention,
    *,
    names: Sequence[str] | None = None,
    unit: str = "box lengths",
    ax: Axes | None = None,
) -> Axes:
    """Draw mean attention against distance over that of all pairs, g(r), with 95 % bands."""
    ax = own_axes(ax)
    for label, color, g, error in _per_head(names, radial.g, radial.standard_error):
        band(ax, radial.centers, g, error, color, label)
    ax.axhline(1, color="black", linewidth=0.9, linestyle=":")
    ax.set_xlabel(f"distance r ({unit})")
    ax.set_ylabel("radial attention g(r)")
    ax.legend()
    return ax


def plot_distance_correlation(
    correlation: DistanceCorrelation,
    *,
    names: Sequence[str] | None = None,
    unit: str = "box lengths",
    ax: Axes | None = None,
) -> Axes:
    """Draw the connected attention-distance correlation C(r) with 95 % bands; the legend gives correlation lengths."""
    ax = own_axes(ax)
    for head, (label, color, c, error) in enumerate(
        _per_head(names, correlation.connected, correlation.standard_error)
    ):
        length, spread = correlation.length[head], correlation.length_standard_error[head]
        known = f", ξ = {length:.3g} ± {NORMAL_95 * spread:.1g}" if np.isfinite(length) else ""
        band(ax, correlation.centers, c, error, color, label + known)
    ax.axhline(0, color="black", linewidth=0.9, linestyle=":")
    ax.set_xlabel(f"distance r ({unit})")
    ax.set_ylabel("connected correlation C(r)")
    ax.legend()
    return ax


def plot_approach_preference(
    preference: ApproachPreference, *, head: int, unit: str = "box lengths", ax: Axes | None = None
) -> Axes:
    """Draw one head's attention to approaching and to receding pairs at equal distance."""
    ax = own_axes(ax)
    centers = (preference.edges[1:] + preference.edges[:-1]) / 2
    approaching, receding = palette(4)[3], palette(1)[0]
    ax.plot(centers, preference.approaching[head], marker=".", color=approaching, label="approaching pairs")
    ax.plot(centers, preference.receding[head], marker=".", color=receding, label="receding pairs")
    low, high = preference.interval[head]
    ax.set_title(f"ratio {preference.ratio[head]:.3g} [{low:.3g}, {high:.3g}]")
    ax.set_xlabel(f"distance r ({unit})")
    ax.set_ylabel("mean attention")
    ax.legend()
    return ax


def plot_edge_knockout(cuts: Mapping[str, EdgeKnockout], *, ax: Axes | None = None) -> Axes:
    """Draw the loss added by cutting one attention edge, of each head, for one or several kinds of edges.

    Args:
        cuts: name of the kind (such as ``"to the true partner"``) to the result of ``edge_knockout``.
        ax: where to draw.
    """
    return _grouped_bars(
        own_axes(ax),
        {name: (cut.mean, cut.standard_error) for name, cut in cuts.items()},
        "added loss of the query",
    )


def plot_head_ablation(ablation: HeadAblation, *, ax: Axes | None = None) -> Axes:
    """Draw the loss added by silencing each head, for each group of queries."""
    values = {name: (ablation.increase[name], ablation.standard_error[name]) for name in ablation.increase}
    return _grouped_bars(own_axes(ax), values, f"added loss ({ablation.kind} ablation)")


def _grouped_bars(ax: Axes, values: Mapping[str, tuple[Any, Any]], ylabel: str) -> Axes:
    """Bars of each head ``(layer, head)``, side by side for each name, with 95 % whiskers."""
    width, (first, _) = 0.8 / len(values), next(iter(values.values()))
    labels = [f"{layer}.{head}" for layer, head in np.ndindex(first.shape)]
    for i, ((name, (mean, error)), color) in enumerate(zip(values.items(), palette(len(values)), strict=True)):
        x = np.arange(mean.size) + (i - (len(values) - 1) / 2) * width
        ax.bar(
            x, mean.ravel(), width, yerr=NORMAL_95 * error.ravel(), color=color, label=name, error_kw={"linewidth": 1}
        )
    ax.set_xticks(np.arange(len(labels)), labels)
    ax.set_xlabel("head (layer.head)")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_ylabel(ylabel)
    ax.legend()
    return ax


def _per_head(names: Sequence[str] | None, *arrays: np.ndarray) -> zip[tuple[Any, ...]]:
    """Label, colour and row of each head."""
    n_heads = len(arrays[0])
    return zip(names_of_heads(n_heads, names), palette(n_heads), *arrays, strict=True)


def _head_axis(ax: Axes, x: np.ndarray, names: Sequence[str] | None) -> None:
    ax.set_xticks(x, names_of_heads(len(x), names))
    ax.set_xlabel("head")
    ax.margins(x=0.1)

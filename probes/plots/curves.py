"""Curves over training: the laws they follow, when they began, and any quantity of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ..laws import LawFit, law_values
from ..onset import Onset
from ..potential.estimate import EffectivePotential
from ..tails import TailFit
from .axes import GRAY, NORMAL_95, band, own_axes, palette, step_axis


def plot_law_fit(
    t: ArrayLike, y: ArrayLike, fit: LawFit, *, sigma: ArrayLike | float | int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a curve and the laws fitted to it, the likeliest thick; the title gives verdict and exponent.

    Args:
        t: clock, as given to ``fit_law``.
        y: values.
        fit: its result.
        sigma: standard error of each value.
        ax: where to draw.
    """
    ax = own_axes(ax)
    t, y = np.asarray(t, dtype=float), np.asarray(y, dtype=float)
    errors = None if sigma is None else NORMAL_95 * np.broadcast_to(sigma, y.shape)
    ax.errorbar(t, y, errors, fmt=".", color=GRAY, label="measured")
    if fit.parameters:
        smooth = np.geomspace(fit.window[0], fit.window[1], 300)
        ranked = sorted(fit.weights, key=lambda law: -fit.weights[law])
        for rank, (law, color) in enumerate(zip(ranked, palette(len(ranked)), strict=True)):
            values = law_values(law, smooth, fit.parameters[law])
            label = f"{law.replace('_', ' ')}, weight {fit.weights[law]:.2f}"
            ax.plot(smooth, values, color=color, linewidth=2.2 if rank == 0 else 1, label=label, zorder=3 - 0.1 * rank)
    ax.set_xscale("log")
    low, high = fit.interval
    exponent = f", p = {fit.exponent:.3g} [{low:.3g}, {high:.3g}]" if fit.preferred == "power_law" else ""
    ax.set_title(f"{fit.preferred.replace('_', ' ')}{exponent}, {fit.window[2]:.1f} decades")
    ax.set_xlabel("clock t")
    ax.set_ylabel("y")
    ax.legend()
    return ax


def plot_onset(t: ArrayLike, y: ArrayLike, onset: Onset, *, ax: Axes | None = None) -> Axes:
    """Draw a curve with its onset and 95 % interval, or with the reason why none was found."""
    ax = own_axes(ax)
    ax.plot(np.asarray(t), np.asarray(y), ".-", color=palette(1)[0], linewidth=0.8)
    if onset.found:
        color = palette(4)[3]
        ax.axvspan(*onset.interval, color=color, alpha=0.2, linewidth=0)
        low, high = onset.interval
        ax.axvline(onset.step, color=color, label=f"onset {onset.step:.4g} [{low:.4g}, {high:.4g}]")
        ax.axhline(onset.baseline, color=GRAY, linewidth=0.9, linestyle=":", label="level before")
        ax.set_title(f"{onset.shape}, p = {onset.p_value:.3g}")
        ax.legend()
    else:
        ax.set_title(f"no onset: {onset.reason}")
    ax.set_xscale("log")
    ax.set_xlabel("clock t")
    ax.set_ylabel("y")
    return ax


def plot_effective_potential(potential: EffectivePotential, *, ax: Axes | None = None) -> Axes:
    """Draw the degree k of U = U* + c x^k, as the loss, the observable and both together say, with 95 % intervals."""
    ax = own_axes(ax)
    rows = {
        "both": (potential.k, potential.k_interval),
        "loss excess": (potential.k_from_loss, potential.k_from_loss_interval),
        "observable": (potential.k_from_observable, potential.k_from_observable_interval),
    }
    known = [end for value, ends in rows.values() for end in (value, *ends) if np.isfinite(end)]
    far = 1.15 * max(known, default=4.0)
    for at, (value, (low, high)) in enumerate(rows.values()):
        if np.isfinite(low):
            ax.plot([low, min(high, far)], [at, at], color=GRAY, linewidth=4, alpha=0.5, solid_capstyle="butt")
            if not np.isfinite(high):
                ax.plot(far, at, ">", color=GRAY)
        if np.isfinite(value):
            ax.plot(value, at, "o", color=palette(1)[0])
    for degree, name in ((2, "quadratic"), (4, "quartic")):
        ax.axvline(degree, color="black", linewidth=0.9, linestyle=":")
        ax.annotate(
            name, (degree, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8
        )
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.margins(y=0.25)
    ax.set_xlabel("degree k of the potential (95 %)")
    why = f": {potential.reason}" if potential.reason else f", agreement p = {potential.consistency_p_value:.2g}"
    ax.set_title(f"{potential.preferred.replace('_', ' ')}{why}")
    return ax


def plot_over_steps(table: Any, quantity: str, *, ax: Axes | None = None) -> Axes:
    """Draw a quantity of a sweep's table over training steps, a line a probe, seed, layer, head and coordinate.

    Args:
        table: of ``sweep_checkpoints``, or some of its rows.
        quantity: which to draw; numbers with a standard error get a 95 % band.
        ax: where to draw.

    Raises:
        ValueError: the table has no such quantity.
    """
    rows = table[table["quantity"] == quantity]
    if rows.empty:
        known = ", ".join(sorted(set(table["quantity"])))
        raise ValueError(f"quantity must be one of {known}; got {quantity!r}")
    ax = own_axes(ax)
    told = [key for key in ("probe", "seed", "layer", "head", "coordinate") if rows[key].nunique(dropna=False) > 1]
    lines = [((), rows)] if not told else list(rows.groupby(told, dropna=False, sort=True))
    for (place, line), color in zip(lines, palette(len(lines)), strict=True):
        name = dict(zip(told, place, strict=True))
        label = ", ".join(str(value) if key == "probe" else f"{key} {value:g}" for key, value in name.items())
        line = line.sort_values("step")
        band(ax, line["step"], line["value"], line["standard_error"], color, label or None, marker=".")
    if len(lines) > 6:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    elif told:
        ax.legend()
    step_axis(ax, rows["step"].to_numpy())
    ax.set_ylabel(quantity.replace("_", " "))
    return ax


def plot_tail(samples: ArrayLike, fit: TailFit, *, ax: Axes | None = None) -> Axes:
    """Draw the share of samples at or above a value, and the power law fitted to the tail.

    Args:
        samples: as given to ``fit_tail``.
        fit: its result.
        ax: where to draw.
    """
    ax = own_axes(ax)
    ordered = np.sort(np.asarray(samples, dtype=float))
    share = 1 - np.arange(len(ordered)) / len(ordered)
    ax.plot(ordered, share, ".", color=GRAY, markersize=3, label="samples")
    x = np.geomspace(fit.xmin, ordered[-1], 100)
    tail = fit.n_tail / fit.n_samples * (x / fit.xmin) ** (1 - fit.alpha)
    low, high = fit.alpha_interval
    label = f"α = {fit.alpha:.3g} [{low:.3g}, {high:.3g}], {fit.decades:.1f} decades"
    ax.plot(x, tail, color=palette(1)[0], linewidth=2, label=label)
    ax.axvline(fit.xmin, color="black", linewidth=0.9, linestyle=":", label=f"tail begins, {fit.n_tail} samples")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_title(f"goodness of fit p = {fit.p_value:.2g}")
    ax.set_xlabel("x")
    ax.set_ylabel("share of samples ≥ x")
    ax.legend()
    return ax

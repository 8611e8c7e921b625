"""The learning coefficient: what the chains did, how step size and localization matter, scopes side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from ..llc import LLCCalibration, LLCEstimate
from .axes import GRAY, NORMAL_95, own_axes, palette, whiskers


def plot_llc_traces(estimate: LLCEstimate, *, ax: Axes | None = None) -> Axes:
    """Draw each chain's running excess loss times nbeta, burn-in shaded, with the estimate and its 95 % interval."""
    ax = own_axes(ax)
    burnin, kept = estimate.burnin_trace, estimate.loss_trace
    n_burnin, n_draws = burnin.shape[1], kept.shape[1]
    whole = estimate.settings.nbeta * (np.concatenate([burnin, kept], axis=1) - estimate.init_loss)
    steps = np.arange(1, n_burnin + n_draws + 1)
    for chain, color in zip(whole, palette(len(whole)), strict=True):
        ax.plot(steps, chain, color=color, linewidth=0.7, alpha=0.7)
    if n_burnin:
        ax.axvspan(0, n_burnin, color=GRAY, alpha=0.12, linewidth=0, label="discarded")
    low, high = estimate.interval
    ax.axhspan(low, high, color="black", alpha=0.2, linewidth=0)
    label = f"λ̂ = {estimate.value:.4g} [{low:.4g}, {high:.4g}]"
    ax.plot([n_burnin, n_burnin + n_draws], [estimate.value] * 2, color="black", label=label)
    ax.set_title(f"R-hat {estimate.rhat:.3f}, {estimate.ess:.0f} effective draws, {estimate.n_diverged} diverged")
    ax.set_xlabel("Langevin step")
    ax.set_ylabel("nβ (L(w) - L(w*))")
    ax.legend()
    return ax


def plot_llc_calibration(calibration: LLCCalibration, *, ax: Axes | None = None) -> Axes:
    """Draw λ̂ against step size, a line a localization; cells with a fault are hollow."""
    ax = own_axes(ax)
    sound = calibration.fault == ""
    for column, color in enumerate(palette(len(calibration.localizations))):
        label = f"γ = {calibration.localizations[column]:g}"
        value, error = calibration.value[:, column], NORMAL_95 * calibration.standard_error[:, column]
        ax.errorbar(calibration.step_sizes, value, error, color=color, linewidth=1, capsize=2, label=label)
        for ok, fill in ((sound[:, column], "full"), (~sound[:, column], "none")):
            ax.plot(calibration.step_sizes[ok], value[ok], "o", color=color, fillstyle=fill)
    if calibration.is_found:
        ax.axvline(calibration.step_size, color="black", linewidth=0.9, linestyle=":", label="recommended")
    ax.plot([], [], "o", color=GRAY, fillstyle="none", label="not sound")
    ax.set_xscale("log")
    ax.set_xlabel("step size ε")
    ax.set_ylabel("λ̂")
    ax.legend()
    return ax


def plot_llcs(estimates: Mapping[str, LLCEstimate], *, ax: Axes | None = None) -> Axes:
    """Draw the estimates of several scopes with 95 % intervals; those with warnings are hollow."""
    ax = own_axes(ax)
    y = np.arange(len(estimates))
    for at, estimate in zip(y, estimates.values(), strict=True):
        lengths = whiskers([estimate.value], [estimate.interval])
        fill = "none" if estimate.warnings else "full"
        ax.errorbar([estimate.value], [at], xerr=lengths, fmt="o", color=palette(1)[0], fillstyle=fill, capsize=3)
    if any(estimate.warnings for estimate in estimates.values()):
        ax.plot([], [], "o", color=palette(1)[0], fillstyle="none", label="has warnings")
        ax.legend()
    ax.set_yticks(y, list(estimates))
    ax.invert_yaxis()
    ax.margins(y=0.1)
    ax.set_xlabel("learning coefficient λ̂ (95 %)")
    return ax

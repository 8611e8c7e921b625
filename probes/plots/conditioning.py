"""Conditioning across depth: gradients, Jacobians, sensitivity, noise at a layer, branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..conditioning import BranchRatio, GradientConditioning, JacobianSpectrum, LayerRobustness, Sensitivity
from .axes import GRAY, own_axes, palette, whiskers


def plot_gradient_conditioning(gradients: GradientConditioning, *, ax: Axes | None = None) -> Axes:
    """Draw the gradient norm of every layer with its 95 % interval; the title gives ratio and slope with theirs."""
    ax = own_axes(ax)
    _whiskered(ax, gradients.layers, gradients.mean, gradients.interval)
    ax.set_yscale("log")
    ax.set_xlabel("layer, in the order of the forward pass")
    ax.set_ylabel("|dLoss / d(output)|\n(loss per unit of activation)")
    ratio, slope = _between("{:.3g}", gradients.ratio_interval), _between("{:.2g}", gradients.slope_interval)
    ax.set_title(f"largest / smallest {gradients.ratio:.3g} {ratio}\nln slope a layer {gradients.slope:.2g} {slope}")
    return ax


def plot_jacobian_spectrum(spectrum: JacobianSpectrum, *, ax: Axes | None = None) -> Axes:
    """Draw the singular values of every layer by rank: mean over inputs with its 95 % interval as a band.

    Ranks are in parts of their number, so layers of any size share the axis. Values beneath a billionth of the
    largest are out of sight. The legend gives the geometric mean of the condition number with its 95 % interval.
    """
    ax = own_axes(ax)
    averages = [spectrum.mean_spectrum(layer) for layer in spectrum.layers]
    top = max(float(mean.value.max()) for mean in averages)
    rows = zip(spectrum.layers, averages, palette(len(averages)), strict=True)
    for i, (layer, mean, color) in enumerate(rows):
        part = (np.arange(len(mean.value)) + 0.5) / len(mean.value)
        condition = f"{spectrum.geometric_mean[i]:.3g} {_between('{:.3g}', spectrum.geometric_mean_interval[i])}"
        ax.plot(part, mean.value, ".-", color=color, label=f"{layer}: condition {condition.strip()}")
        low = np.maximum(mean.interval[:, 0], 1e-12 * top)  # what a logarithmic axis can show
        ax.fill_between(part, low, mean.interval[:, 1], color=color, alpha=0.18, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-9 * top))
    ax.set_xlim(0, 1)
    ax.set_xlabel("rank / number of singular values")
    ax.set_ylabel("singular value of d out / d in\n(output per input)")
    _legend(ax, len(averages))
    return ax


def plot_perturbation_sensitivity(sensitivity: Sensitivity, *, ax: Axes | None = None) -> Axes:
    """Draw the sensitivity against the size of the noise with its 95 % interval; thin lines are single inputs."""
    ax = own_axes(ax)
    order = np.argsort(sensitivity.scales)
    scales, value, interval = sensitivity.scales[order], sensitivity.value[order], sensitivity.interval[order]
    shown = sensitivity.per_input[order][:, :50]
    ax.plot(scales, shown, color=GRAY, linewidth=0.6, alpha=0.4)
    ax.plot([], [], color=GRAY, linewidth=0.6, label=f"{shown.shape[1]} single inputs")
    n_inputs = sensitivity.per_input.shape[1]
    label = f"mean of {n_inputs} inputs, 95 %"
    ax.errorbar(scales, value, whiskers(value, interval), fmt="o-", color=palette(1)[0], capsize=3, label=label)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("root mean square of the noise / of the inputs")
    ax.set_ylabel("E |f(x + d) - f(x)| / |d|\n(output per input)")
    ax.legend()
    return ax


def plot_layer_robustness(robustness: LayerRobustness, *, ax: Axes | None = None) -> Axes:
    """Draw the loss that noise at each layer adds, with 95 % intervals, one colour a size of the noise."""
    ax = own_axes(ax)
    largest, widths = np.abs(robustness.rise).max(), np.ptp(robustness.interval, axis=-1)
    linear = max(np.median(widths) if np.isfinite(widths).all() else 0.0, 1e-3 * largest)
    if largest > 10 * linear:  # many sizes: logarithmic beyond what the noise hides
        ax.set_yscale("symlog", linthresh=linear)
    rows = zip(robustness.scales, robustness.rise.T, np.moveaxis(robustness.interval, 1, 0), strict=True)
    colors = palette(len(robustness.scales))
    shifts = np.linspace(-0.2, 0.2, len(colors)) if len(colors) > 1 else [0.0]
    for (scale, rise, interval), color, shift in zip(rows, colors, shifts, strict=True):
        _whiskered(ax, robustness.layers, rise, interval, shift=shift, color=color, label=f"{scale:g}")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("layer, in the order of the forward pass")
    ax.set_ylabel("loss with noise - loss without (loss)")
    ax.set_title(f"loss without noise {robustness.clean:.3g}, {robustness.n_draws} draws; 95 % intervals over batches")
    ax.legend(title="noise / output\n(root mean square)", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def plot_branch_ratio(ratio: BranchRatio, *, ax: Axes | None = None) -> Axes:
    """Draw the power of each layer's branch over that of its trunk, with its 95 % interval."""
    ax = own_axes(ax)
    _whiskered(ax, ratio.layers, ratio.value, ratio.interval)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("layer")
    ax.set_ylabel("E |branch|² / E |trunk|²")
    ax.set_title(f"95 % intervals over {len(ratio.branch_power)} batches")
    return ax


def _whiskered(
    ax: Axes, layers: Sequence[str], value: np.ndarray, interval: np.ndarray, *, shift: float = 0.0, **style: Any
) -> None:
    """Points with their intervals, a layer at each whole number."""
    places = np.arange(len(layers))
    style = {"color": palette(1)[0], **style}
    ax.errorbar(places + shift, value, whiskers(value, interval), fmt="o", capsize=3, **style)
    is_long = sum(map(len, layers)) > 50
    ax.set_xticks(places, list(layers), rotation=35 if is_long else 0, ha="right" if is_long else "center")
    ax.set_xlim(-0.5, len(layers) - 0.5)


def _between(number: str, interval: Any) -> str:
    """An interval in brackets, nothing where it is unknown."""
    low, high = (float(end) for end in interval)
    return f"[{number.format(low)}, {number.format(high)}]" if np.isfinite([low, high]).all() else ""


def _legend(ax: Axes, n_entries: int) -> None:
    if n_entries > 6:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7)
    else:
        ax.legend()

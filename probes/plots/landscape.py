"""Curvature: eigenvalues, spectral density, the share of flat directions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..landscape import Degeneracy, Eigenvalues, SpectralDensity
from .axes import GRAY, own_axes, palette


def plot_eigenvalues(eigenvalues: Eigenvalues, *, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues by rank with their residual bounds; those that did not converge are hollow."""
    ax = own_axes(ax)
    ranks, values = np.arange(1, len(eigenvalues.values) + 1), eigenvalues.values
    bounds = eigenvalues.residuals * np.abs(values)
    for sound, fill, label in (
        (eigenvalues.converged, "full", None),
        (~eigenvalues.converged, "none", "not converged"),
    ):
        if sound.any():
            style = {"fmt": "o", "fillstyle": fill, "color": palette(1)[0], "capsize": 2, "label": label}
            ax.errorbar(ranks[sound], values[sound], bounds[sound], **style)
    if (~eigenvalues.converged).any():
        ax.legend()
    if (values > 0).all():
        ax.set_yscale("log")
    else:
        ax.axhline(0, color="black", linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"rank ({eigenvalues.which})")
    ax.set_ylabel("Hessian eigenvalue")
    return ax


def plot_spectral_density(
    density: SpectralDensity, *, width: float = 0.01, n_points: int = 1000, ax: Axes | None = None
) -> Axes:
    """Draw the eigenvalue density on a log scale, each node a Gaussian; thin lines are single probes.

    Args:
        density: of ``spectral_density``.
        width: standard deviation of a node's Gaussian, relative to the range of eigenvalues.
        n_points: of the curve.
        ax: where to draw.
    """
    ax = own_axes(ax)
    low, high = float(np.nanmin(density.nodes)), float(np.nanmax(density.nodes))
    sigma = width * max(high - low, np.finfo(float).tiny)
    points = np.linspace(low - 4 * sigma, high + 4 * sigma, n_points)
    nodes, weights = np.nan_to_num(density.nodes), density.weights
    bumps = np.exp(-0.5 * ((points[:, None, None] - nodes) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    each = (bumps * weights).sum(axis=-1)  # (point, probe)
    mean = each.mean(axis=1)
    if each.shape[1] > 1:
        ax.plot(points, each, color=GRAY, linewidth=0.6, alpha=0.6)
        ax.plot([], [], color=GRAY, linewidth=0.6, label="single probes")
    ax.plot(points, mean, color=palette(1)[0], label=f"mean of {each.shape[1]} probes")
    ax.set_yscale("log")
    resolvable = 0.1 / (density.n_entries * sigma * np.sqrt(2 * np.pi))  # a tenth of one eigenvalue's peak
    ax.set_ylim(max(resolvable, mean.max() * 1e-9), mean.max() * 3)
    ax.set_xlabel("Hessian eigenvalue")
    ax.set_ylabel("density")
    ax.legend()
    return ax


def plot_near_null_share(density: SpectralDensity, flat: Degeneracy, *, ax: Axes | None = None) -> Axes:
    """Draw the share of eigenvalues below a threshold, for all thresholds: bounds of the quadrature, and the one asked.

    Args:
        density: of ``spectral_density``.
        flat: ``degeneracy`` of it.
        ax: where to draw.
    """
    ax = own_axes(ax)
    thresholds = np.geomspace(1e-6, 1.0, 121) * flat.largest
    lower, upper = density.cumulative_bounds(np.concatenate([-thresholds[::-1], thresholds]))
    n = len(thresholds)
    inner = np.clip(lower[:, n:] - upper[:, n - 1 :: -1], 0, 1).mean(axis=0)
    outer = np.clip(upper[:, n:] - lower[:, n - 1 :: -1], 0, 1).mean(axis=0)
    relative, color = thresholds / flat.largest, palette(1)[0]
    ax.fill_between(relative, inner, outer, color=color, alpha=0.25, linewidth=0, label="quadrature bounds")
    ax.plot(relative, 0.5 * (inner + outer), color=color)
    low, high = flat.near_null_interval
    share = flat.near_null_share
    label = f"{share:.3g} [{low:.3g}, {high:.3g}]"
    lengths = [[max(share - low, 0)], [max(high - share, 0)]]
    ax.errorbar(flat.relative_threshold, share, lengths, fmt="o", color="black", capsize=3, label=label)
    ax.set_xscale("log")
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("threshold / largest |eigenvalue|")
    ax.set_ylabel("share of flatter directions")
    ax.legend()
    return ax

"""How flat the loss is: near-null directions and the number of directions that carry curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .density import SpectralDensity, standard_error


@dataclass(frozen=True)
class Degeneracy:
    """Counts of flat directions of a Hessian, from its spectral density.

    Attributes:
        near_null_share: share of eigenvalues with |lambda| < threshold.
        near_null_standard_error: between probes; NaN for one probe.
        near_null_resolution: half the width of the bounds that quadrature puts on the share: what more probes cannot
            mend, but more Lanczos steps or a larger threshold can.
        near_null_interval: the bounds, widened by the between-probe confidence interval on either side.
        negative_share: share of eigenvalues at or below -threshold.
        negative_standard_error: between probes.
        participation_ratio: (tr H)^2 / tr H^2, the number of equal eigenvalues with the same two moments.
        participation_standard_error: by jackknife over probes.
        threshold: absolute, in units of loss per squared parameter.
        relative_threshold: as asked for, relative to the largest |eigenvalue|.
        largest: the largest |Ritz value|, its reference.
        level: confidence level of the interval.
        n_entries: dimension of the Hessian.
        n_matvecs: products spent on the density.
    """

    near_null_share: float
    near_null_standard_error: float
    near_null_resolution: float
    near_null_interval: tuple[float, float]
    negative_share: float
    negative_standard_error: float
    participation_ratio: float
    participation_standard_error: float
    threshold: float
    relative_threshold: float
    largest: float
    level: float
    n_entries: int
    n_matvecs: int


def degeneracy(density: SpectralDensity, *, relative_threshold: float = 1e-4, level: float = 0.95) -> Degeneracy:
    """Count near-null directions: the share of Hessian eigenvalues with |lambda| < relative_threshold * max |lambda|.

    Counting Ritz values inside the threshold is not enough: where eigenvalues crowd on both sides of the threshold a
    single node stands for many of them and the count jumps (0.40 for a true 0.09 at 40 steps on an 1,800-parameter
    network, with a between-probe error of 0.05). So the share is the middle of sharp quadrature bounds, and the
    bounds are reported.

    Args:
        density: from ``spectral_density``; 2 or more probes for errors, 80 steps or more for small thresholds.
        relative_threshold: 1e-4 is our choice: above the rounding of float32 products (1e-7 relative) by a margin, and
            small against the outliers of trained networks. If the resolution is poor, take 1e-3 or 1e-2.
        level: confidence level of the interval.

    Returns:
        Shares and participation ratio with their uncertainties. A Hessian that is zero on all probes has share 1 and a
        NaN participation ratio.

    Raises:
        ValueError: ``relative_threshold`` or ``level`` outside (0, 1).

    Cost:
        No product; two eigenproblems of size ``n_steps`` a probe.

    References:
        Sagun et al. 2017, arXiv:1706.04454, for the near-null bulk; the bounds are those of
        ``SpectralDensity.cumulative_bounds``.
    """
    for name, number in (("relative_threshold", relative_threshold), ("level", level)):
        if not 0 < number < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {number}")
    largest = float(np.nanmax(np.abs(density.nodes)))
    threshold = relative_threshold * largest
    if largest > 0:
        lower, upper = density.cumulative_bounds(np.array([-threshold, threshold]))
        inner = np.maximum(lower[:, 1] - upper[:, 0], 0.0)
        outer = upper[:, 1] - lower[:, 0]
        negative = 0.5 * (lower[:, 0] + upper[:, 0])
        share = 0.5 * (lower + upper) @ np.array([-1.0, 1.0])
    else:
        inner = outer = share = np.ones(len(density.nodes))
        negative = np.zeros(len(density.nodes))
    participation, participation_error = _participation(density)
    quantile = float(stats.t.ppf((1 + level) / 2, len(share) - 1)) if len(share) > 1 else np.nan
    low = inner.mean() - quantile * standard_error(inner)
    high = outer.mean() + quantile * standard_error(outer)
    return Degeneracy(
        near_null_share=float(share.mean()),
        near_null_standard_error=float(standard_error(share)),
        near_null_resolution=float(0.5 * (outer - inner).mean()),
        near_null_interval=(float(np.clip(low, 0.0, 1.0)), float(np.clip(high, 0.0, 1.0))),
        negative_share=float(negative.mean()),
        negative_standard_error=float(standard_error(negative)),
        participation_ratio=participation,
        participation_standard_error=participation_error,
        threshold=threshold,
        relative_threshold=relative_threshold,
        largest=largest,
        level=level,
        n_entries=density.n_entries,
        n_matvecs=density.n_matvecs,
    )


def _participation(density: SpectralDensity) -> tuple[float, float]:
    """(tr H)^2 / tr H^2 from the mean moments, and its jackknife standard error."""
    first, second = density.moments(1), density.moments(2)
    n = len(first)
    if second.sum() == 0:
        return np.nan, np.nan
    value = density.n_entries * first.mean() ** 2 / second.mean()
    if n < 2:
        return float(value), np.nan
    left_out = [np.delete(moment, i).mean() for moment in (first, second) for i in range(n)]
    replicates = density.n_entries * np.array(left_out[:n]) ** 2 / np.array(left_out[n:])
    return float(value), float(np.sqrt((n - 1) / n * ((replicates - replicates.mean()) ** 2).sum()))

"""Choosing step size and localization: the LLC as a surface over both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from ..parameters import Parameters
from ..protocols import Batches, LossFn
from .estimate import MAX_RHAT, LLCEstimate, run_llcs
from .sampler import SgldOptions

PLATEAU_TOLERANCE = 0.05
"""Relative difference to the next smaller step that still counts as flat; our choice."""


@dataclass(frozen=True)
class LLCCalibration:
    """Short estimates over a grid, and the setting they recommend.

    Rows follow ``step_sizes`` (ascending), columns ``localizations`` (ascending).

    Attributes:
        step_sizes: the grid's step sizes.
        localizations: the grid's localizations.
        value: λ̂ per cell; NaN where every chain diverged.
        standard_error: of ``value``.
        rhat: R-hat per cell.
        n_diverged: diverged chains per cell.
        step_size: recommended step size; NaN if no cell lies on a plateau.
        localization: recommended localization; NaN with it.
        n_gradients: minibatch gradients spent.
    """

    step_sizes: Float[np.ndarray, " step_size"]
    localizations: Float[np.ndarray, " localization"]
    value: Float[np.ndarray, "step_size localization"]
    standard_error: Float[np.ndarray, "step_size localization"]
    rhat: Float[np.ndarray, "step_size localization"]
    n_diverged: Int[np.ndarray, "step_size localization"]
    step_size: float
    localization: float
    n_gradients: int

    @property
    def is_found(self) -> bool:
        """A plateau exists; otherwise widen the grid or lengthen the chains."""
        return math.isfinite(self.step_size)


def calibrate_llc(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    nbeta: float,
    step_sizes: Sequence[float] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    localizations: Sequence[float] = (1.0, 10.0, 100.0),
    n_chains: int = 4,
    n_draws: int = 200,
    n_burnin: int = 200,
    parameters: Parameters = None,
    generator: torch.Generator,
) -> LLCCalibration:
    """Map λ̂ over step size and localization, and recommend the largest step on the plateau.

    Too small a step has not relaxed within the burn-in (R-hat high, λ̂ drifting); too large a one inflates λ̂ in
    proportion, then diverges. Between lies a plateau. A cell is on it if it and its smaller neighbour are sound (no
    diverged chain, R-hat at most 1.1, λ̂ not negative) and their λ̂ agree within 5 % or two standard errors. The
    recommendation is the smallest localization with such a cell, and its largest step.

    Args:
        model: at w*, see ``estimate_llc``, as for all arguments not explained here.
        batches: see ``estimate_llc``.
        loss_fn: see ``estimate_llc``.
        nbeta: see ``estimate_llc``; fixed, because it decides what is measured.
        step_sizes: at least two. Default: the sweep of neighbouring studies, 1e-5 to 1e-3, with half-decades.
        localizations: default from the same sweeps.
        n_chains: per cell.
        n_draws: per cell; short, our choice.
        n_burnin: per cell.
        parameters: see ``estimate_llc``.
        generator: see ``estimate_llc``; each cell draws anew.

    Raises:
        ValueError: fewer than two step sizes, no localization, or a number out of range.

    Cost: ``len(step_sizes) len(localizations) n_chains (n_burnin + n_draws)`` minibatch gradients.

    References: Lau et al. 2023, arXiv 2308.12108, appendix on hyperparameters, recommends such sweeps; the rule for
    the plateau is ours.
    """
    rows, columns = np.array(sorted(step_sizes), dtype=float), np.array(sorted(localizations), dtype=float)
    if len(rows) < 2 or len(columns) < 1:
        raise ValueError(f"need at least 2 step_sizes and 1 localization, got {len(rows)} and {len(columns)}")
    grid = [
        [SgldOptions(nbeta, float(e), float(g), n_chains, n_draws, n_burnin) for g in columns] for e in rows
    ]  # checked whole before any work
    scopes = {"model": parameters}
    cells = [
        [
            run_llcs(model, batches, scopes=scopes, loss_fn=loss_fn, options=options, generator=generator)["model"]
            for options in row
        ]
        for row in grid
    ]
    step_size, localization = recommend(cells)
    return LLCCalibration(
        step_sizes=rows,
        localizations=columns,
        value=np.array([[c.value for c in row] for row in cells]),
        standard_error=np.array([[c.standard_error for c in row] for row in cells]),
        rhat=np.array([[c.rhat for c in row] for row in cells]),
        n_diverged=np.array([[c.n_diverged for c in row] for row in cells]),
        step_size=step_size,
        localization=localization,
        n_gradients=sum(c.n_gradients for row in cells for c in row),
    )


def recommend(cells: Sequence[Sequence[LLCEstimate]]) -> tuple[float, float]:
    """Step size and localization of the preferred cell, by the rule of ``calibrate_llc``; NaN where there is none."""
    for column in zip(*cells, strict=True):
        for smaller, cell in reversed(list(pairwise(column))):
            if _sound(smaller) and _sound(cell) and _agree(smaller, cell):
                return cell.settings.step_size, cell.settings.localization
    return math.nan, math.nan


def _sound(cell: LLCEstimate) -> bool:
    return cell.n_diverged == 0 and cell.rhat <= MAX_RHAT and not cell.is_negative


def _agree(a: LLCEstimate, b: LLCEstimate) -> bool:
    error = math.hypot(a.standard_error, b.standard_error)
    return abs(a.value - b.value) <= max(2.0 * error, PLATEAU_TOLERANCE * abs(a.value))

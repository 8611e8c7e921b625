"""Choosing step size and localization: the LLC as a surface over both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import nn

from ..parameters import Parameters
from ..protocols import Batches, LossFn
from .estimate import run_llcs
from .options import Rmsprop, SgldOptions
from .result import LLCEstimate

PLATEAU_TOLERANCE = 0.05
"""Relative difference to the next smaller step that still counts as flat; our choice."""

_LADDER = tuple(2.0**-k for k in range(31))
"""Steps tried, longest first, when none are given: 1 to 1e-9."""

_N_RUNGS = 5
"""Steps of the grid when none are given, each half the one before; our choice. Short chains mix on few rungs only."""

_ADVICE = {
    "diverged": "try smaller step_sizes",
    "above d/2": "try smaller step_sizes or larger localizations",
    "step too large": "try smaller step_sizes or larger batches",
    "negative": "w* is no local minimum of this loss: train further, or raise localizations",
    "not mixed": "raise n_burnin and n_draws, or localizations",
    "drift": "raise n_burnin",
    "short burn-in": "raise n_burnin",
    "few draws": "raise n_draws",
    "not flat": "raise n_draws, or try smaller step_sizes",
    "alone": "give step_sizes closer together",
}


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
        acceptance: Metropolis-Hastings acceptance per cell.
        step_excess: what the finite step adds to λ̂, per cell.
        n_diverged: diverged chains per cell.
        fault: the first name among the cell's ``LLCEstimate.faults``, empty for a sound cell.
        step_size: recommended step size; NaN if no cell lies on a plateau.
        localization: recommended localization; NaN with it.
        verdict: the recommendation and what it rests on, or why there is none and what to try.
        n_gradients: minibatch gradients spent.
    """

    step_sizes: Float[np.ndarray, " step_size"]
    localizations: Float[np.ndarray, " localization"]
    value: Float[np.ndarray, "step_size localization"]
    standard_error: Float[np.ndarray, "step_size localization"]
    rhat: Float[np.ndarray, "step_size localization"]
    acceptance: Float[np.ndarray, "step_size localization"]
    step_excess: Float[np.ndarray, "step_size localization"]
    n_diverged: Int[np.ndarray, "step_size localization"]
    fault: Shaped[np.ndarray, "step_size localization"]
    step_size: float
    localization: float
    verdict: str
    n_gradients: int

    @property
    def is_found(self) -> bool:
        """A plateau exists; otherwise ``verdict`` says what to try."""
        return math.isfinite(self.step_size)


class Recommendation(NamedTuple):
    """Step size and localization, NaN where there is none, and the reasons."""

    step_size: float
    localization: float
    verdict: str


def calibrate_llc(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    nbeta: float,
    step_sizes: Sequence[float] | None = None,
    localizations: Sequence[float] = (1.0, 10.0, 100.0),
    n_chains: int = 4,
    n_draws: int = 200,
    n_burnin: int = 200,
    parameters: Parameters = None,
    preconditioner: Rmsprop | None = None,
    generator: torch.Generator,
) -> LLCCalibration:
    """Map λ̂ over step size and localization, and choose the smallest localization and largest step on a plateau.

    Too small a step has not relaxed within the burn-in (R-hat high, λ̂ drifting); too large a one inflates λ̂ in
    proportion, then diverges. Between lies a plateau. A cell is on it if it and its smaller neighbour are sound
    (``LLCEstimate.is_sound``: no diverged chain, R-hat at most 1.1, no drift, enough effective draws, not negative,
    at most a tenth of λ̂ owed to the step) and their λ̂ agree within 5 % or two standard errors. Acceptance is
    reported and not asked for: at equal bias of λ̂ it falls with the number of entries.

    Args:
        model: at w*, see ``estimate_llc``, as for all arguments not explained here.
        batches: see ``estimate_llc``.
        loss_fn: see ``estimate_llc``.
        nbeta: see ``estimate_llc``; fixed, because it decides what is measured.
        step_sizes: at least two; None for five, each half of the one before, from the longest that short chains
            stand.
        localizations: default from the sweeps of neighbouring studies.
        n_chains: per cell.
        n_draws: per cell; short, our choice.
        n_burnin: per cell.
        parameters: see ``estimate_llc``.
        preconditioner: see ``estimate_llc``.
        generator: see ``estimate_llc``; each cell draws anew.

    Raises:
        ValueError: fewer than two step sizes, no localization, or a number out of range.

    Cost: ``len(step_sizes) len(localizations) n_chains (n_burnin + n_draws)`` minibatch gradients, and ``32
    n_chains`` for each halving from 1 to find the longest step.

    References: Lau et al. 2023, arXiv 2308.12108, appendix on hyperparameters, recommends such sweeps; the rule for
    the plateau is ours.
    """
    if len(localizations) < 1 or (step_sizes is not None and len(step_sizes) < 2):
        given = "automatic" if step_sizes is None else len(step_sizes)
        raise ValueError(f"need at least 2 step_sizes and 1 localization, got {given} and {len(localizations)}")
    columns = sorted(float(g) for g in localizations)
    base = SgldOptions(nbeta, _LADDER[0], columns[-1], n_chains, n_draws, n_burnin, preconditioner)
    for localization in columns:
        for step_size in step_sizes or ():
            replace(base, step_size=step_size, localization=localization)  # refuses what is out of range

    def run(options: SgldOptions) -> LLCEstimate:
        scopes = {"model": parameters}
        return run_llcs(model, batches, scopes=scopes, loss_fn=loss_fn, options=options, generator=generator)["model"]

    tried = _descend(run, base) if step_sizes is None else []
    rows = sorted(float(e) for e in step_sizes or _rungs(tried[-1].settings.step_size))
    cells = [[run(replace(base, step_size=e, localization=g)) for g in columns] for e in rows]
    step_size, localization, verdict = recommend(cells)
    return LLCCalibration(
        step_sizes=np.array(rows),
        localizations=np.array(columns),
        value=_surface(cells, "value"),
        standard_error=_surface(cells, "standard_error"),
        rhat=_surface(cells, "rhat"),
        acceptance=_surface(cells, "acceptance"),
        step_excess=_surface(cells, "step_excess"),
        n_diverged=_surface(cells, "n_diverged"),
        fault=np.array([[_fault(c) for c in row] for row in cells]),
        step_size=step_size,
        localization=localization,
        verdict=verdict,
        n_gradients=sum(c.n_gradients for c in (*tried, *(c for row in cells for c in row))),
    )


def recommend(cells: Sequence[Sequence[LLCEstimate]]) -> Recommendation:
    """The preferred cell by the rule of ``calibrate_llc``; rows ascend in step size, columns in localization."""
    reasons = Counter()
    for column in zip(*cells, strict=True):
        for smaller, cell in reversed(list(pairwise(column))):
            fault = _fault(cell) or ("alone" if _fault(smaller) else "") or _disagreement(smaller, cell)
            if not fault:
                return Recommendation(cell.settings.step_size, cell.settings.localization, _praise(smaller, cell))
            reasons[fault] += 1
        reasons[_fault(column[0]) or "alone"] += 1  # nothing below to compare it with
    found = ", ".join(f"{n} {fault}" for fault, n in reasons.most_common())
    advice = _ADVICE["negative" if reasons["negative"] else reasons.most_common(1)[0][0]]
    return Recommendation(math.nan, math.nan, f"no plateau among {reasons.total()} cells ({found}): {advice}")


def _descend(run: Callable[[SgldOptions], LLCEstimate], base: SgldOptions) -> list[LLCEstimate]:
    """Short runs down the ladder, at the strongest pull, to the first step that is not near its stability limit.

    Along a stiff direction the step's share of λ̂ is ε/4 times its stiffness from the first steps on, and 1 at the
    limit; the grid begins at half of it.
    """
    n_burnin = base.n_burnin if base.preconditioner else 12
    tried = []
    for step_size in _LADDER:
        tried.append(run(replace(base, step_size=step_size, n_draws=20, n_burnin=n_burnin)))
        if tried[-1].n_diverged == 0 and tried[-1].step_excess < 0.5 * abs(tried[-1].value):
            break
    return tried


def _rungs(longest: float) -> list[float]:
    return [longest * 2.0**-k for k in range(_N_RUNGS)]


def _surface(cells: Sequence[Sequence[LLCEstimate]], name: str) -> np.ndarray:
    return np.array([[getattr(c, name) for c in row] for row in cells])


def _fault(cell: LLCEstimate) -> str:
    return next(iter(cell.faults), "")


def _disagreement(smaller: LLCEstimate, cell: LLCEstimate) -> str:
    error = math.hypot(smaller.standard_error, cell.standard_error)
    is_flat = abs(smaller.value - cell.value) <= max(2.0 * error, PLATEAU_TOLERANCE * abs(smaller.value))
    return "" if is_flat else "not flat"


def _praise(smaller: LLCEstimate, cell: LLCEstimate) -> str:
    at, below = cell.settings, smaller.settings
    return (
        f"step_size {at.step_size:.3g} at localization {at.localization:g}: llc {cell.value:.3g} ± "
        f"{cell.standard_error:.2g}, {smaller.value:.3g} at step_size {below.step_size:.3g}; R-hat {cell.rhat:.2f}, "
        f"acceptance {cell.acceptance:.2f}, {100 * cell.step_excess / cell.value:.0f} % owed to the step"
    )

"""The local learning coefficient of a model, and of any parts of it, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ..objective import checked_batches
from ..parameters import Parameters, select_parameters
from ..protocols import Batches, LossFn
from .diagnostics import MeanEstimate, mean_estimate, split_rhat
from .sampler import ScopeTrace, SgldOptions, SgldRun, sample_losses

MAX_RHAT = 1.1
"""R-hat above which an estimate carries a warning; our choice (Vehtari et al. 2021 ask 1.01 of long chains)."""


class ChainsDiverged(RuntimeError):
    """Every chain left the neighbourhood of w*; there is no number to give."""


@dataclass(frozen=True)
class LLCEstimate:
    """A local learning coefficient with its error and the facts needed to trust it.

    Diverged chains are left out of every number here and counted.

    Attributes:
        value: λ̂; NaN if every chain diverged.
        standard_error: of ``value``, from autocorrelation within chains and spread between them, the larger.
        interval: 95 % interval for the sampled mean (Student's t). It does not cover the bias of a large step or
            of too short a burn-in.
        per_chain: λ̂ of each chain, NaN where it diverged.
        rhat: rank-normalised split R-hat of the losses.
        ess: draws, over all chains, the sample is worth for the mean.
        n_diverged: chains excluded: not finite, or beyond ``divergence_bound``.
        init_loss: L(w*), mean over all batches.
        loss_trace: ``init_loss + L_b(w_t) - L_b(w*)`` of each kept draw, so ``nbeta (trace - init_loss)`` averages
            to λ̂. Rows of diverged chains are kept for inspection.
        burnin_trace: the same before the kept draws.
        n_entries: scalars that moved; the LLC of a minimum is at most half of it.
        n_gradients: minibatch gradients spent.
        vectorized: False if chains had to be evaluated one after another.
        settings: the options used.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    per_chain: Float[np.ndarray, " chain"]
    rhat: float
    ess: float
    n_diverged: int
    init_loss: float
    loss_trace: Float[np.ndarray, "chain draw"]
    burnin_trace: Float[np.ndarray, "chain step"]
    n_entries: int
    n_gradients: int
    vectorized: bool
    settings: SgldOptions

    @property
    def is_negative(self) -> bool:
        """λ̂ < 0: the chains found lower losses, so w* is no local minimum (or the noise is larger than λ̂)."""
        return self.value < 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the number, one sentence each; empty for a sound estimate."""
        found = []
        if self.n_diverged:
            found.append(f"{self.n_diverged} of {len(self.per_chain)} chains diverged: step_size is too large")
        if self.is_negative:
            found.append("negative: w* is no local minimum of this loss, or there are too few draws")
        if self.rhat > MAX_RHAT:
            found.append(f"R-hat {self.rhat:.2f} exceeds {MAX_RHAT}: chains have not mixed; raise n_burnin and n_draws")
        return tuple(found)


def wbic_nbeta(n_samples: int) -> float:
    """Inverse temperature times samples, n / ln n: the nβ at which the posterior mean loss reads the free energy.

    Args:
        n_samples: size of the **data set**, not of a minibatch.

    References: Watanabe 2013, A widely applicable Bayesian information criterion, arXiv 1208.6338, theorem 4.

    Example:
        >>> round(wbic_nbeta(1000), 3)
        144.765
    """
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples}")
    return n_samples / math.log(n_samples)


def estimate_llc(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    nbeta: float,
    step_size: float,
    localization: float,
    n_chains: int,
    n_draws: int,
    n_burnin: int,
    parameters: Parameters = None,
    generator: torch.Generator,
) -> LLCEstimate:
    """Estimate the local learning coefficient at the model's parameters by SGLD.

        λ̂ = nbeta (E[L(w)] - L(w*)),   w ~ exp(-nbeta L(w) - localization |w - w*|² / 2)

    The same numbers as ``estimate_llcs`` with the one scope ``"model"``.

    Args:
        model: at w*, which should be near a local minimum. Left as found.
        batches: re-iterable, equal sizes; tuples, NamedTuples or dicts of tensors of equal shapes vectorise.
        loss_fn: ``loss_fn(model, batch)``, the mean over the batch of a negative log-likelihood. A squared error is
            one only after division by twice the noise variance; any other scale multiplies λ̂.
        nbeta: n·β; ``wbic_nbeta(n_samples)`` is the usual choice. Compare only estimates of equal nbeta.
        step_size: ε, see ``SgldOptions`` for its bias and its limit; ``calibrate_llc`` helps to choose.
        localization: γ; the pull to w* keeps flat directions near, and biases their share of λ̂ down.
        n_chains: independent chains; 4 or more let R-hat and the error mean something.
        n_draws: draws kept of each chain, all of them averaged.
        n_burnin: steps first discarded. A direction of curvature h relaxes in about
            ``2 / (step_size (nbeta h + localization))`` steps: discard several times the slowest.
        parameters: which entries move, see ``Parameters``; the others stay at w* ("weight-refined" LLC).
        generator: source of noise and of minibatch indices; equal states give equal bits.

    Returns:
        The estimate; read its ``warnings``.

    Raises:
        ChainsDiverged: all chains diverged.
        ValueError: an option out of range, no batches, a loss that is not a finite, repeatable scalar.

    Cost: ``n_chains (n_burnin + n_draws)`` minibatch gradients and one forward pass over all batches.

    References: Lau et al. 2023, arXiv 2308.12108, eq. 8 and algorithm 1; Wang et al. 2024, arXiv 2410.02984, for
    refinement by weights. We differ: L(w*) is over all batches, and each draw's minibatch loss is paired with that
    minibatch's loss at w*, so that the minibatch's level cancels.
    """
    scopes = {"model": parameters}
    return estimate_llcs(
        model,
        batches,
        scopes=scopes,
        loss_fn=loss_fn,
        nbeta=nbeta,
        step_size=step_size,
        localization=localization,
        n_chains=n_chains,
        n_draws=n_draws,
        n_burnin=n_burnin,
        generator=generator,
    )["model"]


def estimate_llcs(
    model: nn.Module,
    batches: Batches,
    *,
    scopes: Mapping[str, Parameters],
    loss_fn: LossFn,
    nbeta: float,
    step_size: float,
    localization: float,
    n_chains: int,
    n_draws: int,
    n_burnin: int,
    generator: torch.Generator,
) -> dict[str, LLCEstimate]:
    """Estimate the LLC of several scopes, say the whole model and every head, in one vectorised run.

    Args:
        model: see ``estimate_llc``, as for all arguments but ``scopes``.
        batches: see ``estimate_llc``.
        scopes: name to the entries that move. A scope's random numbers follow from the generator's state and its
            name alone, so its estimate is the same (to rounding) with or without other scopes beside it.
        loss_fn: see ``estimate_llc``.
        nbeta: see ``estimate_llc``.
        step_size: see ``estimate_llc``.
        localization: see ``estimate_llc``.
        n_chains: chains of each scope.
        n_draws: see ``estimate_llc``.
        n_burnin: see ``estimate_llc``.
        generator: see ``estimate_llc``.

    Returns:
        One estimate a scope, in the order given. A scope all of whose chains diverged has the value NaN.

    Raises:
        ChainsDiverged: all chains of all scopes diverged.
        ValueError: as ``estimate_llc``; or no scope is given, or a scope matches nothing.
    """
    options = SgldOptions(
        nbeta=nbeta,
        step_size=step_size,
        localization=localization,
        n_chains=n_chains,
        n_draws=n_draws,
        n_burnin=n_burnin,
    )
    estimates = run_llcs(model, batches, scopes=scopes, loss_fn=loss_fn, options=options, generator=generator)
    if all(e.n_diverged == n_chains for e in estimates.values()):
        raise ChainsDiverged(
            f"all {n_chains} chains of {', '.join(estimates)} diverged at step_size {step_size:g}, nbeta {nbeta:g}, "
            f"localization {localization:g}; try step_size {step_size / 10:g}"
        )
    return estimates


def run_llcs(
    model: nn.Module,
    batches: Batches,
    *,
    scopes: Mapping[str, Parameters],
    loss_fn: LossFn,
    options: SgldOptions,
    generator: torch.Generator,
) -> dict[str, LLCEstimate]:
    """``estimate_llcs`` that returns NaN, rather than raise, where everything diverged."""
    if not scopes:
        raise ValueError("scopes is empty; give at least one name with its parameters")
    sequence = checked_batches(batches)
    selections = {name: select_parameters(model, parameters) for name, parameters in scopes.items()}
    run = sample_losses(model, sequence, loss_fn=loss_fn, scopes=selections, options=options, generator=generator)
    return {
        name: _summarize(trace, run, n_entries=selections[name].n_entries, options=options)
        for name, trace in run.traces.items()
    }


def _summarize(trace: ScopeTrace, run: SgldRun, *, n_entries: int, options: SgldOptions) -> LLCEstimate:
    kept = trace.excess[:, options.n_burnin :]
    sound = options.nbeta * kept[~trace.diverged]
    nothing = MeanEstimate(value=math.nan, standard_error=math.nan, dof=math.nan, ess=0.0)
    mean = mean_estimate(sound) if len(sound) else nothing
    per_chain = np.full(options.n_chains, math.nan)
    per_chain[~trace.diverged] = sound.mean(axis=1)
    return LLCEstimate(
        value=mean.value,
        standard_error=mean.standard_error,
        interval=mean.interval(),
        per_chain=per_chain,
        rhat=split_rhat(sound) if len(sound) else math.nan,
        ess=mean.ess,
        n_diverged=int(trace.diverged.sum()),
        init_loss=run.init_loss,
        loss_trace=run.init_loss + kept,
        burnin_trace=run.init_loss + trace.excess[:, : options.n_burnin],
        n_entries=n_entries,
        n_gradients=trace.excess.size,
        vectorized=run.vectorized,
        settings=options,
    )

"""The local learning coefficient of a model, and of any parts of it, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..objective import checked_batches
from ..parameters import Parameters, select_parameters
from ..protocols import Batches, LossFn
from .diagnostics import MeanEstimate, drift_p_value, mean_estimate, split_rhat
from .options import Rmsprop, SgldOptions
from .result import LLCEstimate, ObservedLLC
from .sampler import ScopeTrace, SgldRun, sample_losses


class ChainsDiverged(RuntimeError):
    """Every chain left the neighbourhood of w*; there is no number to give."""


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
    preconditioner: Rmsprop | None = None,
    observed_loss_fns: Mapping[str, LossFn] | None = None,
    compiled: bool = False,
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
        preconditioner: None for plain SGLD; ``Rmsprop()`` gives each entry a step of its own.
        observed_loss_fns: name to another loss O of the same model and batches, recorded along the same chains: say
            the loss of the colliding particles alone. ``observed[name]`` is ``nbeta (E[O(w)] - O(w*))`` with w from
            the posterior of ``loss_fn``, so a loss that is a weighted sum of such parts has the weighted sum of their
            values. That is not the data-refined LLC of Wang et al. 2024, whose posterior is that of the other data
            too: for it give those data's loss as ``loss_fn``.
        compiled: evaluate loss and gradient by ``torch.compile``, which needs a C++ compiler on a CPU. The first call
            of a process compiles, for tens of seconds; later calls with a model, loss and batches of the same form
            and as many chains take what was compiled, so it is for sweeps over checkpoints. Same numbers to rounding.
            ``loss_fn`` runs once to be written down: what it reads from outside the batch is taken for constant.
        generator: source of noise and of minibatch indices; equal states give equal bits.

    Returns:
        The estimate; read its ``warnings``.

    Raises:
        ChainsDiverged: all chains diverged.
        ValueError: an option out of range, no batches, a loss that is not a finite, repeatable scalar, or one that
            cannot be compiled if it is to be.

    Cost: ``n_chains (n_burnin + n_draws)`` minibatch gradients, one more for each forty draws of a chain, at most
    ten, for ``acceptance`` and ``step_excess``; one forward pass over all batches, and ``n_chains n_draws`` minibatch
    forward passes an observed loss.

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
        preconditioner=preconditioner,
        observed_loss_fns=observed_loss_fns,
        compiled=compiled,
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
    preconditioner: Rmsprop | None = None,
    observed_loss_fns: Mapping[str, LossFn] | None = None,
    compiled: bool = False,
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
        preconditioner: see ``estimate_llc``.
        observed_loss_fns: see ``estimate_llc``.
        compiled: see ``estimate_llc``; one function for each set of tensors that scopes lie in.
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
        preconditioner=preconditioner,
        compiled=compiled,
    )
    estimates = run_llcs(
        model,
        batches,
        scopes=scopes,
        loss_fn=loss_fn,
        observed_loss_fns=observed_loss_fns,
        options=options,
        generator=generator,
    )
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
    observed_loss_fns: Mapping[str, LossFn] | None = None,
    options: SgldOptions,
    generator: torch.Generator,
) -> dict[str, LLCEstimate]:
    """``estimate_llcs`` that returns NaN, rather than raise, where everything diverged."""
    if not scopes:
        raise ValueError("scopes is empty; give at least one name with its parameters")
    sequence = checked_batches(batches)
    selections = {name: select_parameters(model, parameters) for name, parameters in scopes.items()}
    run = sample_losses(
        model,
        sequence,
        loss_fn=loss_fn,
        observed_loss_fns=observed_loss_fns or {},
        scopes=selections,
        options=options,
        generator=generator,
    )
    return {
        name: _summarize(trace, run, n_entries=selections[name].n_entries, options=options)
        for name, trace in run.traces.items()
    }


def _summarize(trace: ScopeTrace, run: SgldRun, *, n_entries: int, options: SgldOptions) -> LLCEstimate:
    kept, is_sound = trace.excess[:, options.n_burnin :], ~trace.diverged
    sound = options.nbeta * kept[is_sound]
    mean = _mean(sound)
    per_chain = np.full(options.n_chains, math.nan)
    per_chain[is_sound] = sound.mean(axis=1)
    return LLCEstimate(
        value=mean.value,
        standard_error=mean.standard_error,
        interval=mean.interval(),
        per_chain=per_chain,
        rhat=split_rhat(sound) if len(sound) else math.nan,
        ess=mean.ess,
        drift_p=drift_p_value(sound) if len(sound) else math.nan,
        acceptance=_acceptance(trace.log_acceptance[is_sound]),
        step_excess=float(trace.step_excess[is_sound].mean()) if len(sound) else math.nan,
        n_diverged=int(trace.diverged.sum()),
        init_loss=run.init_loss,
        loss_trace=run.init_loss + kept,
        burnin_trace=run.init_loss + trace.excess[:, : options.n_burnin],
        observed={
            name: _observed(options.nbeta, excess, is_sound, run.observed_init_losses[name])
            for name, excess in trace.observed.items()
        },
        n_entries=n_entries,
        n_gradients=trace.excess.size + trace.log_acceptance.size,
        vectorized=run.vectorized,
        settings=options,
    )


def _mean(draws: np.ndarray) -> MeanEstimate:
    if not len(draws):
        return MeanEstimate(value=math.nan, standard_error=math.nan, dof=math.nan, ess=0.0)
    return mean_estimate(draws)


def _acceptance(logs: np.ndarray) -> float:
    """Mean acceptance; a ratio that is no number (the step left the finite losses) is never accepted."""
    return float(np.nan_to_num(np.exp(np.minimum(logs, 0.0)), nan=0.0).mean()) if len(logs) else math.nan


def _observed(nbeta: float, excess: np.ndarray, is_sound: np.ndarray, init_loss: float) -> ObservedLLC:
    mean = _mean(nbeta * excess[is_sound])
    return ObservedLLC(
        value=mean.value,
        standard_error=mean.standard_error,
        interval=mean.interval(),
        ess=mean.ess,
        init_loss=init_loss,
        loss_trace=init_loss + excess,
    )

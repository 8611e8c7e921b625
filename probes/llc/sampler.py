"""Stochastic gradient Langevin dynamics around a point: many chains, many scopes, one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..isolation import isolated
from ..objective import batch_losses
from ..parameters import ParameterSelection, group_by_tensors
from ..protocols import LossFn
from .ensemble import BatchTable, Ensemble
from .options import SgldOptions
from .walkers import Walkers

MAX_CHECKS = 10
"""Steps of a chain that are checked against Metropolis: one in forty draws, at least 1, at most these; our choice."""


@dataclass(frozen=True)
class ScopeTrace:
    """What the chains of one scope saw, burn-in included.

    Attributes:
        excess: ``L_b(w_t) - L_b(w*)`` on the chain's minibatch of that step, ``(chain, step)``. Pairing removes
            the minibatch's own level from the estimate (a control variate).
        observed: the same of each observed loss, at the kept draws only, ``(chain, draw)``.
        log_acceptance: log Metropolis-Hastings ratio of the checked steps, ``(chain, check)``.
        step_excess: see ``LLCEstimate.step_excess``, ``(chain, check)``.
        diverged: chains that left the finite numbers or passed ``divergence_bound``, ``(chain,)``.
    """

    excess: Float[np.ndarray, "chain step"]
    observed: Mapping[str, Float[np.ndarray, "chain draw"]]
    log_acceptance: Float[np.ndarray, "chain check"]
    step_excess: Float[np.ndarray, "chain check"]
    diverged: Bool[np.ndarray, " chain"]


@dataclass(frozen=True)
class SgldRun:
    """All traces of one run, and the losses at w* over all batches."""

    init_loss: float
    observed_init_losses: Mapping[str, float]
    traces: Mapping[str, ScopeTrace]
    vectorized: bool


def divergence_bound(n_entries: int) -> float:
    """Largest ``nbeta (L(w_t) - L(w*))`` a sound chain can show: ``100 + 5 n_entries``.

    A quadratic loss gives draws of mean ``n_entries / 2`` and variance ``n_entries / 2``, a degenerate one less; ten
    times that mean, and 100 for few entries, is out of reach (our choice). Downwards the same holds with ten times
    ``|L(w*)|`` added, so that a loss that cannot be negative never trips it: finding a lower loss is not divergence.
    """
    return 100.0 + 5.0 * n_entries


@torch.no_grad()
def sample_losses(
    model: nn.Module,
    batches: Sequence[Any],
    *,
    loss_fn: LossFn,
    observed_loss_fns: Mapping[str, LossFn],
    scopes: Mapping[str, ParameterSelection],
    options: SgldOptions,
    generator: torch.Generator,
) -> SgldRun:
    """Run all chains of all scopes; only a scope's own entries move, noise included.

    Minibatches are drawn with replacement, each independent of where its chain is, so that their mean loss is that of
    all data. By epochs a chain meets those it has not just learnt from, and λ̂ reads higher: 111.2 ± 0.4 for
    109.6 ± 0.4 on the transformer of ``bench_llc.py`` with 64 batches of 8, 16 chains, 200 draws, 8 seeds.

    Scopes with the same tensors (the heads of one layer) are one ensemble, so their chains share each vectorised
    evaluation. A scope's random numbers depend on the generator's state and the scope's name alone.

    Cost: ``n_burnin + n_draws`` gradients a chain and at most ``MAX_CHECKS`` more, one forward pass a draw for each
    observed loss, one a batch for each loss; memory as for a forward pass of all chains at once, cut into turns above
    1 GiB.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with isolated(model):
        base = batch_losses(model, batches, loss_fn)
        observed_base = {name: _observed_losses(model, batches, name, f) for name, f in observed_loss_fns.items()}
        table = BatchTable(batches)
        groups = []
        for names, members in group_by_tensors(scopes).items():
            n_copies = len(members) * options.n_chains
            ensemble = Ensemble(model, loss_fn, table, names, n_copies, observed_loss_fns, options.compiled)
            walkers = [
                Walkers(model, i, name, scopes[name], ensemble, options, seed, len(batches), observed_loss_fns)
                for i, name in enumerate(members)
            ]
            groups.append(_Group(ensemble, walkers, options, base, observed_base))
        for step in range(options.n_burnin + options.n_draws):
            for group in groups:
                group.take_step(step)
    init_loss = base.double().mean().item()
    traces = {w.name: _trace(w, init_loss, options) for group in groups for w in group.walkers}
    return SgldRun(
        init_loss=init_loss,
        observed_init_losses={name: losses.double().mean().item() for name, losses in observed_base.items()},
        traces={name: traces[name] for name in scopes},
        vectorized=all(group.ensemble.vectorized for group in groups),
    )


def checked_steps(options: SgldOptions) -> list[int]:
    """The steps after which the same minibatch is evaluated again, so that Metropolis' ratio is known."""
    n = min(MAX_CHECKS, max(1, options.n_draws // 40))
    return [options.n_burnin + (2 * i + 1) * options.n_draws // (2 * n) for i in range(n)]


def _observed_losses(model: nn.Module, batches: Sequence[Any], name: str, loss_fn: LossFn) -> Tensor:
    try:
        return batch_losses(model, batches, loss_fn)
    except ValueError as error:
        raise ValueError(f"observed_loss_fns[{name!r}]: {error}") from error


class _Group:
    """Scopes of the same tensors: one ensemble, and the walkers that share it."""

    def __init__(
        self,
        ensemble: Ensemble,
        walkers: Sequence[Walkers],
        options: SgldOptions,
        base: Tensor,
        observed_base: Mapping[str, Tensor],
    ) -> None:
        self.ensemble = ensemble
        self.walkers = walkers
        self._options = options
        self._base = base.to(ensemble.center)
        self._observed_base = {name: losses.to(ensemble.center) for name, losses in observed_base.items()}
        self._checked = set(checked_steps(options))
        held = options.preconditioner is not None and not options.preconditioner.adapts_while_drawing
        self._last_adapting = options.n_burnin if held else options.n_burnin + options.n_draws

    def take_step(self, step: int) -> None:
        """Evaluate all chains on their minibatches, note what they see, and move them."""
        index = torch.cat([w.index[step] for w in self.walkers])
        excess, gradients = self._evaluate(index)
        self._observe(index, step - self._options.n_burnin)
        starts = [w.place(e, gradients) for w, e in self._shares(excess)] if step in self._checked else []
        for w, e in self._shares(excess):
            w.excess[step] = e
            w.move(gradients, adapts=step < self._last_adapting)
        if starts:
            excess, gradients = self._evaluate(index)
            for (w, e), start in zip(self._shares(excess), starts, strict=True):
                w.check(start, w.place(e, gradients))

    def _evaluate(self, index: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradients = self.ensemble.losses_and_gradients(index)
        return losses - self._base[index], gradients

    def _observe(self, index: Tensor, draw: int) -> None:
        if draw < 0:
            return
        for name, losses in self.ensemble.observed_losses(index).items():
            for w, e in self._shares(losses - self._observed_base[name][index]):
                w.observed[name][draw] = e

    def _shares(self, per_copy: Tensor) -> zip[tuple[Walkers, Tensor]]:
        return zip(self.walkers, per_copy.split(self._options.n_chains), strict=True)


def _trace(walkers: Walkers, init_loss: float, options: SgldOptions) -> ScopeTrace:
    excess = _by_chain(walkers.excess)
    above = divergence_bound(walkers.n_entries) / options.nbeta
    below = above + 10.0 * abs(init_loss)
    sound = np.isfinite(excess) & (-below < excess) & (excess < above)
    return ScopeTrace(
        excess=excess,
        observed={name: _by_chain(trace) for name, trace in walkers.observed.items()},
        log_acceptance=_by_chain(torch.stack(walkers.acceptance)),
        step_excess=_by_chain(torch.stack(walkers.step_excess)),
        diverged=np.any(~sound, axis=1),
    )


def _by_chain(rows: Tensor) -> np.ndarray:
    return rows.T.double().cpu().numpy()

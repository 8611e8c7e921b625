"""Stochastic gradient Langevin dynamics around a point: many chains, many scopes, one run."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..isolation import isolated
from ..objective import batch_losses
from ..parameters import ParameterSelection
from ..protocols import LossFn
from .ensemble import BatchTable, Ensemble


@dataclass(frozen=True)
class SgldOptions:
    """How the localized posterior is sampled.

    The posterior is ``exp(-nbeta L(w) - localization |w - w*|^2 / 2)``; one step is

        w <- w - step_size/2 [nbeta grad L_b(w) + localization (w - w*)] + sqrt(step_size) N(0, I).

    Attributes:
        nbeta: inverse temperature times number of samples; ``wbic_nbeta(n_samples)`` gives the usual choice.
        step_size: ε. Stable below ``4 / (nbeta h + localization)`` with h the largest curvature of the loss; the
            variance along curvature h comes out ``1 / (1 - ε (nbeta h + localization)/4)`` times too large.
        localization: γ, the strength of the pull to w*.
        n_chains: independent chains, all started at w*.
        n_draws: draws kept of each chain.
        n_burnin: steps before the first kept draw.
    """

    nbeta: float
    step_size: float
    localization: float
    n_chains: int
    n_draws: int
    n_burnin: int

    def __post_init__(self) -> None:
        for name, value, ok in (
            ("nbeta", self.nbeta, self.nbeta > 0),
            ("step_size", self.step_size, self.step_size > 0),
            ("localization", self.localization, self.localization >= 0),
        ):
            if not (ok and math.isfinite(value)):
                bound = "not negative" if name == "localization" else "positive"
                raise ValueError(f"{name} must be finite and {bound}, got {value}")
        for name, value, least in (
            ("n_chains", self.n_chains, 1),
            ("n_draws", self.n_draws, 4),
            ("n_burnin", self.n_burnin, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class ScopeTrace:
    """What the chains of one scope saw, burn-in included.

    Attributes:
        excess: ``L_b(w_t) - L_b(w*)`` on the chain's minibatch of that step, ``(chain, step)``. Pairing removes
            the minibatch's own level from the estimate (a control variate).
        diverged: chains that left the finite numbers or passed ``divergence_bound``, ``(chain,)``.
    """

    excess: Float[np.ndarray, "chain step"]
    diverged: Bool[np.ndarray, " chain"]


@dataclass(frozen=True)
class SgldRun:
    """All traces of one run, and the loss at w* over all batches."""

    init_loss: float
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
    scopes: Mapping[str, ParameterSelection],
    options: SgldOptions,
    generator: torch.Generator,
) -> SgldRun:
    """Run all chains of all scopes; only a scope's own entries move, noise included.

    Scopes with the same tensors (the heads of one layer) are one ensemble, so their chains share each vectorised
    evaluation. A scope's random numbers depend on the generator's state and the scope's name alone.

    Cost: ``n_burnin + n_draws`` gradients a chain, one forward pass a batch; memory as for a forward pass of all
    chains at once, cut into turns above 1 GiB.
    """
    n_steps = options.n_burnin + options.n_draws
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with isolated(model):
        base = batch_losses(model, batches, loss_fn)
        table = BatchTable(batches)
        ensembles = []
        for names, members in _by_tensors(scopes).items():
            ensemble = Ensemble(model, loss_fn, table, names, len(members) * options.n_chains)
            walkers = [
                _Walkers(model, i, name, selection, ensemble, options, seed, len(batches))
                for i, (name, selection) in enumerate(members.items())
            ]
            ensembles.append((ensemble, walkers))
        for step in range(n_steps):
            for ensemble, walkers in ensembles:
                index = torch.cat([w.index[step] for w in walkers])
                losses, gradients = ensemble.losses_and_gradients(index)
                excess = (losses - base.to(losses)[index]).split(options.n_chains)
                for w, e in zip(walkers, excess, strict=True):
                    w.excess[step] = e
                    w.move(gradients)
    init_loss = base.double().mean().item()
    traces = {w.name: w.trace(init_loss) for _, walkers in ensembles for w in walkers}
    return SgldRun(
        init_loss=init_loss,
        traces={name: traces[name] for name in scopes},
        vectorized=all(ensemble.vectorized for ensemble, _ in ensembles),
    )


def _by_tensors(scopes: Mapping[str, ParameterSelection]) -> dict[tuple[str, ...], dict[str, ParameterSelection]]:
    groups: dict[tuple[str, ...], dict[str, ParameterSelection]] = {}
    for name, selection in scopes.items():
        groups.setdefault(selection.names, {})[name] = selection
    return groups


class _Walkers:
    """The chains of one scope: their rows of the ensemble, their columns, their random numbers."""

    def __init__(
        self,
        model: nn.Module,
        position: int,
        name: str,
        selection: ParameterSelection,
        ensemble: Ensemble,
        options: SgldOptions,
        seed: int,
        n_batches: int,
    ) -> None:
        n, device = options.n_chains, ensemble.center.device
        self.name = name
        self._options = options
        self._n_entries = selection.n_entries
        self._rows = slice(position * n, (position + 1) * n)
        self._positions = ensemble.positions[self._rows]
        self._columns = _columns(selection, model)
        self._center = ensemble.center if self._columns is None else ensemble.center[self._columns]
        self._noise = ensemble.center.new_empty(n, selection.n_entries)
        self._generator = torch.Generator(device).manual_seed(seed ^ zlib.crc32(name.encode()))
        n_steps = options.n_burnin + options.n_draws
        self.index = torch.randint(n_batches, (n_steps, n), generator=self._generator, device=device)
        self.excess = ensemble.center.new_empty(n_steps, n)

    def move(self, gradients: Tensor) -> None:
        """One step of the dynamics, in place."""
        o, rows = self._options, gradients[self._rows]
        if self._columns is None:
            w = self._positions
        else:
            w, rows = (t.index_select(1, self._columns) for t in (self._positions, rows))
        w.lerp_(self._center, 0.5 * o.step_size * o.localization)
        w.add_(rows, alpha=-0.5 * o.step_size * o.nbeta)
        w.add_(self._noise.normal_(generator=self._generator), alpha=math.sqrt(o.step_size))
        if self._columns is not None:
            self._positions.index_copy_(1, self._columns, w)

    def trace(self, init_loss: float) -> ScopeTrace:
        excess = self.excess.T.double().cpu().numpy()
        above = divergence_bound(self._n_entries) / self._options.nbeta
        below = above + 10.0 * abs(init_loss)
        sound = np.isfinite(excess) & (-below < excess) & (excess < above)
        return ScopeTrace(excess=excess, diverged=np.any(~sound, axis=1))


def _columns(selection: ParameterSelection, model: nn.Module) -> Tensor | None:
    """Positions of the chosen entries in the flat row of the tensors that hold them; None when all are chosen."""
    tensors = [p.detach() for p in selection.tensors(model)]
    if selection.n_entries == sum(t.numel() for t in tensors):
        return None
    chosen = selection.scatter(tensors[0].new_ones(selection.n_entries), tensors)
    return torch.cat([t.flatten() for t in chosen]).nonzero()[:, 0]

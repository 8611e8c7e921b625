"""The chains of one scope: how they move, and how far a step is from one that Metropolis would accept."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..parameters import ParameterSelection
from .ensemble import Ensemble
from .options import SgldOptions


@dataclass(frozen=True)
class Place:
    """Where the chains are, on the minibatch they have just seen; U is the potential of the posterior.

    Attributes:
        position: w, ``(chain, entry)``.
        gradient: gradient of the loss.
        force: gradient of U.
        potential: U, up to a constant of the minibatch.
    """

    position: Tensor
    gradient: Tensor
    force: Tensor
    potential: Tensor


def log_acceptance(start: Place, end: Place, scale: Tensor | float, step_size: float) -> Float[Tensor, " chain"]:
    """Log of the Metropolis-Hastings ratio of a Langevin step, both ends on the same minibatch.

    The two potentials and the two Gaussian proposals, with like terms cancelled by hand: what is left is the error
    of the trapezoidal rule for the work along the step, and ``ε/8`` times the change of the squared force.

    References: Roberts and Tweedie 1996, Bernoulli 2, section 1.4.1 (MALA).
    """
    work = 0.5 * ((end.position - start.position) * (start.force + end.force)).sum(1)
    squares = ((start.force - end.force) * scale * (start.force + end.force)).sum(1)
    return start.potential - end.potential + work + step_size / 8 * squares


class Walkers:
    """The chains of one scope: their rows of the ensemble, their columns, their random numbers, what they saw.

    Attributes:
        name: of the scope.
        n_entries: scalars that move.
        index: the minibatch of each step and chain.
        excess: ``L_b(w_t) - L_b(w*)``, ``(step, chain)``.
        observed: the same of each observed loss at each kept draw, ``(draw, chain)``.
        acceptance: log Metropolis-Hastings ratios of the checked steps, a tensor a check.
        step_excess: ``ε/8 nbeta grad L · G grad U`` at the checked steps, a tensor a check.
    """

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
        observed: Iterable[str],
    ) -> None:
        n, center = options.n_chains, ensemble.center
        self.name = name
        self.n_entries = selection.n_entries
        self._options = options
        self._rows = slice(position * n, (position + 1) * n)
        self._positions = ensemble.positions[self._rows]
        self._columns = _columns(selection, model)
        self._center = center if self._columns is None else center[self._columns]
        self._noise = center.new_empty(n, selection.n_entries)
        self._square = None if options.preconditioner is None else torch.zeros_like(self._noise)
        self._scale: Tensor | float = 1.0
        self._generator = torch.Generator(center.device).manual_seed(seed ^ zlib.crc32(name.encode()))
        n_steps = options.n_burnin + options.n_draws
        self.index = torch.randint(n_batches, (n_steps, n), generator=self._generator, device=center.device)
        self.excess = center.new_empty(n_steps, n)
        self.observed = {loss: center.new_empty(options.n_draws, n) for loss in observed}
        self.acceptance: list[Tensor] = []
        self.step_excess: list[Tensor] = []

    def move(self, gradients: Tensor, *, adapts: bool) -> None:
        """One step of the dynamics, in place."""
        o = self._options
        w, g = self._own(self._positions), self._own(gradients[self._rows])
        noise = self._noise.normal_(generator=self._generator)
        if self._square is None or o.preconditioner is None:
            w.lerp_(self._center, 0.5 * o.step_size * o.localization)
            w.add_(g, alpha=-0.5 * o.step_size * o.nbeta)
            w.add_(noise, alpha=math.sqrt(o.step_size))
        else:
            if adapts:
                self._square.lerp_(g.square(), 1 - o.preconditioner.decay)
                self._scale = o.preconditioner.scale(self._square)
            assert isinstance(self._scale, Tensor)
            w.addcmul_(self._scale, self._force(w, g), value=-0.5 * o.step_size)
            w.addcmul_(self._scale.sqrt(), noise, value=math.sqrt(o.step_size))
        if self._columns is not None:
            self._positions.index_copy_(1, self._columns, w)

    def place(self, excess: Tensor, gradients: Tensor) -> Place:
        """Where the chains are now, given their losses above w* and the gradients of the whole ensemble."""
        o = self._options
        w, g = self._own(self._positions).clone(), self._own(gradients[self._rows])
        potential = o.nbeta * excess + 0.5 * o.localization * (w - self._center).square().sum(1)
        return Place(position=w, gradient=g, force=self._force(w, g), potential=potential)

    def check(self, start: Place, end: Place) -> None:
        """Record what Metropolis would say of the step just taken, and how much its length heats the chains."""
        o = self._options
        self.acceptance.append(log_acceptance(start, end, self._scale, o.step_size))
        heat = (start.gradient * self._scale * start.force).sum(1)
        self.step_excess.append(o.step_size / 8 * o.nbeta * heat)

    def _force(self, w: Tensor, gradient: Tensor) -> Tensor:
        return self._options.nbeta * gradient + self._options.localization * (w - self._center)

    def _own(self, rows: Tensor) -> Tensor:
        return rows if self._columns is None else rows.index_select(1, self._columns)


def _columns(selection: ParameterSelection, model: nn.Module) -> Tensor | None:
    """Positions of the chosen entries in the flat row of the tensors that hold them; None when all are chosen."""
    tensors = [p.detach() for p in selection.tensors(model)]
    if selection.n_entries == sum(t.numel() for t in tensors):
        return None
    chosen = selection.scatter(tensors[0].new_ones(selection.n_entries), tensors)
    return torch.cat([t.flatten() for t in chosen]).nonzero()[:, 0]

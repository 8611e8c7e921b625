"""Spatial training in the one loop: a price on wire that changes with time, and a round of swaps now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..intervention import Intervention
from ..settings import Spatial
from .cost import wiring_cost
from .placement import Placement
from .swaps import swap


class SpatialTraining(Intervention):
    """Spatial training of one model for ``n_steps`` steps; ``placement`` moves with its swaps."""

    def __init__(self, model: nn.Module, placement: Placement, settings: Spatial, n_steps: int) -> None:
        self.model, self.placement, self.settings, self.n_steps = model, placement, settings, n_steps
        is_local = settings.arm in ("l1_local", "full")
        self.priced = placement if is_local else replace(placement, locality=0.0)
        self.swaps = settings.arm in ("l1_swap", "full")

    def penalty(self, step: int) -> Tensor | None:
        """The wiring cost, at its price of the moment."""
        strength = self.settings.strength_at(step, self.n_steps)
        if strength == 0:
            return None
        biases = (step - 1) / self.n_steps >= self.settings.biases_from
        return strength * wiring_cost(self.model, self.priced, biases=biases)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """A round of swaps every ``swap_every`` steps."""
        if self.swaps and step % self.settings.swap_every == 0:
            swap(self.model, self.placement, optimizer, n_candidates=self.settings.n_candidates)

    def state(self) -> dict[str, Tensor]:
        """Places of inputs and outputs, which move; the others' neurons moved in the weights."""
        populations, positions = self.placement.wiring.populations, self.placement.positions
        return {name: place for name, place in positions.items() if populations[name].is_terminal}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back."""
        for name, positions in state.items():
            self.placement.positions[name].copy_(positions)

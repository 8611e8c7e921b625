"""Spatial training in the one loop: a price on wire that changes with time, and a round of swaps now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..intervention import Intervention
from .cost import wiring_cost
from .placement import Placement
from .swaps import swap

ArmName = Literal["none", "l1", "l1_local", "l1_swap", "full"]
ARMS: tuple[ArmName, ...] = ("none", "l1", "l1_local", "l1_swap", "full")
"""No price, plain L1, L1 with distance, L1 with swaps, and all of it: the arms of Liu, Gan & Tegmark 2023."""


@dataclass(frozen=True)
class SpatialConfig:
    """How wire is priced over training.

    Attributes:
        arm: which parts are on, see ``ARMS``. Swaps go by distance in every arm that has them.
        strength: of the cost beside the loss (``lambda``).
        schedule: ``(fraction of training, factor on strength)``, each from its fraction on.
        swap_every: steps between rounds of swaps.
        n_candidates: the most important neurons of each population that may move in a round.
        biases_from: fraction of training before which biases are free.
    """

    arm: ArmName = "full"
    strength: float = 1e-3
    schedule: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    swap_every: int = 200
    n_candidates: int = 30
    biases_from: float = 0.0

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"spatial.arm must be one of {', '.join(ARMS)}, got {self.arm!r}")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"spatial.strength must be zero or positive and finite, got {self.strength}")
        fractions = [fraction for fraction, _ in self.schedule]
        if not fractions or fractions[0] != 0.0 or fractions != sorted(fractions) or fractions[-1] >= 1:
            raise ValueError(f"spatial.schedule must begin at 0.0 and rise below 1, got {self.schedule}")
        for name in ("swap_every", "n_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"spatial.{name} must be at least 1, got {getattr(self, name)}")

    def strength_at(self, step: int, n_steps: int) -> float:
        """The price during the update that leads to ``step``."""
        if self.arm == "none":
            return 0.0
        done = (step - 1) / n_steps
        return self.strength * [factor for fraction, factor in self.schedule if fraction <= done][-1]


class SpatialTraining(Intervention):
    """Spatial training of one model for ``n_steps`` steps; ``placement`` moves with its swaps."""

    def __init__(self, model: nn.Module, placement: Placement, config: SpatialConfig, n_steps: int) -> None:
        self.model, self.placement, self.config, self.n_steps = model, placement, config, n_steps
        is_local = config.arm in ("l1_local", "full")
        self.priced = placement if is_local else replace(placement, locality=0.0)
        self.swaps = config.arm in ("l1_swap", "full")

    def penalty(self, step: int) -> Tensor | None:
        """The wiring cost, at its price of the moment."""
        strength = self.config.strength_at(step, self.n_steps)
        if strength == 0:
            return None
        biases = (step - 1) / self.n_steps >= self.config.biases_from
        return strength * wiring_cost(self.model, self.priced, biases=biases)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """A round of swaps every ``swap_every`` steps."""
        if self.swaps and step % self.config.swap_every == 0:
            swap(self.model, self.placement, optimizer, n_candidates=self.config.n_candidates)

    def state(self) -> dict[str, Tensor]:
        """Places of inputs and outputs, which move; the others' neurons moved in the weights."""
        populations, positions = self.placement.wiring.populations, self.placement.positions
        return {name: place for name, place in positions.items() if populations[name].is_terminal}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back."""
        for name, positions in state.items():
            self.placement.positions[name].copy_(positions)

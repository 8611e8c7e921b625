"""Trajectories from elsewhere: what is known of their system."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .system import require, require_box, take_numbers


@dataclass(frozen=True)
class ImportedSystem:
    """Particles that another program moved; its law is not known here, so no engine runs it.

    Attributes:
        n_particles: particles a system.
        dim: 2 or 3.
        box: side lengths; positions are counted from the corner at 0.
        boundary: ``"walls"``, ``"periodic"`` or ``"open"``, for all axes or one for each.
        format: where the trajectories came from.

    Raises:
        ValueError: a value outside the ranges above.
    """

    n_particles: int
    dim: int
    box: tuple[float, ...]
    boundary: str | tuple[str, ...] = "open"
    format: str = "unknown"

    engines: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        take_numbers(self, integers=("n_particles", "dim"), vectors=("box",))
        require(self, ("n_particles", "at least 1", self.n_particles >= 1))
        require_box(self)

    @property
    def preferred_engine(self) -> str:
        """The engine of imported trajectories, which is none of ours."""
        return "imported"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Nothing is known to be conserved."""
        return ()

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Refuse: there is no distribution to draw from."""
        raise ValueError("imported trajectories have no start states to draw; simulate a system such as HardSpheres")

    def check_state(self, state: ParticleState) -> None:
        """Refuse: there is no law to go on with."""
        raise ValueError("imported trajectories have no law to go on with; simulate a system such as HardSpheres")

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return NaN: the forces are not known."""
        return np.full(state.positions.shape[0], math.nan)

"""Atoms of a simple fluid: the Lennard-Jones potential, smoothly cut off."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .pairs import longest_step_of, require_inside, sum_over_pairs, where
from .system import boundaries, require, require_box, take_numbers


class CutLennardJones(NamedTuple):
    """Constants of ``4 epsilon (s^12 - s^6) + bend r^2 + shift`` with ``s = sigma / r``."""

    epsilon: float
    sigma_squared: float
    cutoff_squared: float
    bend: float

    @staticmethod
    @no_type_check
    def pair_force(law, squared):
        """Return 24 epsilon (2 s^12 - s^6) / r^2 - 2 bend, and nothing beyond the cutoff or at the same place."""
        inverse = 1.0 / squared
        s2 = law.sigma_squared * inverse
        s6 = s2 * s2 * s2
        force = 24.0 * law.epsilon * inverse * s6 * (2.0 * s6 - 1.0) - 2.0 * law.bend
        return where((squared > 0.0) & (squared < law.cutoff_squared), force, 0.0)


@dataclass(frozen=True)
class LennardJones:
    """Atoms that repel each other at short distance and attract each other at longer.

    The potential ``4 epsilon ((sigma / r)^12 - (sigma / r)^6)`` is bent by a term in r^2 and a constant, so that both
    the potential and its force vanish at the cutoff and energy is conserved to second order in the step. A potential
    that is merely shifted has a jump of force there.

    Attributes:
        n_particles: atoms a system.
        dim: 2 or 3.
        number_density: atoms an area (dim 2) or volume (dim 3); the box is a square or cube.
        temperature: of the drawn velocities, an energy (k_B = 1).
        epsilon: depth of the well, an energy.
        sigma: where the uncut potential is zero, a length.
        cutoff_in_sigma: where the force ends, in units of sigma. 2.5 is the custom of the field.
        mass: of an atom.
        boundary: ``"periodic"`` or ``"walls"``, for all axes or one for each.
        time_step: longest step; None takes 0.005 sigma sqrt(mass / e), e the larger of epsilon and temperature, the
            custom of the field.

    Radii are half of sigma, so the log tells when a pair comes within sigma.

    Raises:
        ValueError: a value outside the ranges above, a box too narrow for the cutoff or the walls. When it runs: a
            ``time_step`` unstable where two atoms of four times the thermal energy meet.

    References:
        Stoddard and Ford 1973, doi:10.1103/PhysRevA.8.1504 (the term in r^2).

    Example:
        >>> LennardJones(n_particles=100, number_density=0.25).box
        (20.0, 20.0)
    """

    n_particles: int = 64
    dim: int = 2
    number_density: float = 0.4
    temperature: float = 1.0
    epsilon: float = 1.0
    sigma: float = 1.0
    cutoff_in_sigma: float = 2.5
    mass: float = 1.0
    boundary: str | tuple[str, ...] = "periodic"
    time_step: float | None = None

    engines: ClassVar[tuple[str, ...]] = ("smooth_forces",)

    def __post_init__(self) -> None:
        floats = ("number_density", "temperature", "epsilon", "sigma", "cutoff_in_sigma", "mass")
        take_numbers(self, integers=("n_particles", "dim"), floats=floats, optional=("time_step",))
        require(
            self,
            ("n_particles", "at least 1", self.n_particles >= 1),
            ("dim", "2 or 3", self.dim in (2, 3)),
            ("number_density", "positive and finite", 0 < self.number_density < math.inf),
            ("temperature", "zero or more, and finite", 0 <= self.temperature < math.inf),
            ("epsilon", "positive and finite", 0 < self.epsilon < math.inf),
            ("sigma", "positive and finite", 0 < self.sigma < math.inf),
            (
                "cutoff_in_sigma",
                "above 2^(1/6), the bottom of the well, and finite",
                2 ** (1 / 6) < self.cutoff_in_sigma < math.inf,
            ),
            ("mass", "positive and finite", 0 < self.mass < math.inf),
            ("time_step", "None, or positive and finite", self.time_step is None or 0 < self.time_step < math.inf),
        )
        require_box(self, allowed=("periodic", "walls"))
        self._check_room()

    def _check_room(self) -> None:
        """Refuse a box narrower than two cutoffs, in which a pair would meet twice, or a lattice too tight."""
        side = self.box[0]
        if "periodic" in boundaries(self) and side < 2 * self.cutoff:
            raise ValueError(
                f"n_particles={self.n_particles} at number_density={self.number_density} fill a box of side "
                f"{side:.6g}, expected at least two cutoffs, {2 * self.cutoff:.6g}; raise n_particles or lower "
                "number_density or cutoff_in_sigma"
            )
        if side / self._sites < 0.85 * self.sigma:
            raise ValueError(
                f"number_density={self.number_density} leaves {side / self._sites:.6g} between the sites of the start "
                f"lattice, expected at least 0.85 sigma = {0.85 * self.sigma:.6g}; lower number_density"
            )

    @property
    def _sites(self) -> int:
        """Sites along a side of the start lattice."""
        return math.ceil(self.n_particles ** (1 / self.dim) - 1e-9)

    @property
    def box(self) -> tuple[float, ...]:
        """Side lengths, from the density."""
        return ((self.n_particles / self.number_density) ** (1 / self.dim),) * self.dim

    @property
    def cutoff(self) -> float:
        """The distance at which the force ends."""
        return self.cutoff_in_sigma * self.sigma

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "smooth_forces"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy, and without walls momentum."""
        return ("energy",) if "walls" in boundaries(self) else ("energy", "momentum")

    @property
    def law(self) -> CutLennardJones:
        """The force."""
        s6 = self.cutoff_in_sigma**-6
        bend = 12 * self.epsilon * s6 * (2 * s6 - 1) / self.cutoff**2
        return CutLennardJones(self.epsilon, self.sigma**2, self.cutoff**2, bend)

    @property
    def default_step(self) -> float:
        """The custom of the field, shorter where it is hot."""
        return 0.005 * self.sigma * math.sqrt(self.mass / max(self.epsilon, self.temperature))

    def longest_step(self, state: ParticleState) -> float:
        """Return the step unstable at the place where a pair's potential is four times the thermal energy."""
        s6 = 0.5 * (1 + math.sqrt(1 + 4 * self.temperature / self.epsilon))
        curvature = 4 * self.epsilon * (156 * s6**2 - 42 * s6) * s6 ** (1 / 3) / self.sigma**2
        return longest_step_of(math.sqrt(2 * curvature / float(state.masses.min())))

    def couplings(self, state: ParticleState) -> Float64[np.ndarray, "system 1 particle"]:
        """Return ones: all pairs are alike."""
        return np.ones((len(state.masses), 1, self.n_particles))

    def pair_energy(self, squared: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Return the potential of pairs at these squared distances."""
        bend = self.law.bend
        s6, end = (self.sigma**2 / squared) ** 3, self.cutoff_in_sigma**-6
        shift = -4 * self.epsilon * (end**2 - end) - bend * self.cutoff**2
        return np.where(squared < self.cutoff**2, 4 * self.epsilon * (s6**2 - s6) + bend * squared + shift, 0.0)

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy of all pairs, zero beyond the cutoff."""
        return sum_over_pairs(self, state, lambda squared, i: self.pair_energy(squared))

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw atoms on random sites of a square or cubic lattice, with normal velocities and no momentum.

        The lattice melts or evaporates as the run goes on, and the temperature changes with the potential energy.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems.
        """
        shape = (n_systems, self.n_particles)
        site = rng.permuted(np.tile(np.arange(self._sites**self.dim), (n_systems, 1)), axis=1)[:, : self.n_particles]
        grid = np.stack(np.unravel_index(site, (self._sites,) * self.dim), axis=-1)
        positions = (grid + 0.5) * (self.box[0] / self._sites)
        velocities = math.sqrt(self.temperature / self.mass) * rng.standard_normal((*shape, self.dim))
        if self.n_particles > 1:
            velocities -= velocities.mean(axis=1, keepdims=True)
        return ParticleState(positions, velocities, np.full(shape, self.sigma / 2), np.full(shape, self.mass))

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state of another shape, or with an atom outside the box.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: the text names system and particle.
        """
        require_inside(self, state)

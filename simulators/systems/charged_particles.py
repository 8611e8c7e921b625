"""Charges that repel and attract each other, in electric and magnetic fields."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .pairs import (
    default_step_of,
    draw_about_center,
    draw_directions,
    fastest_pair,
    inverse_cube,
    longest_step_of,
    require_inside,
    sum_over_pairs,
)
from .system import boundaries, require, require_box, take_numbers


class SoftenedCoulomb(NamedTuple):
    """Coulomb's constant, the square of the softening length, and the electric field."""

    coulomb_constant: float
    softening_squared: float
    field_x: float
    field_y: float
    field_z: float

    @staticmethod
    @no_type_check
    def pair_force(law, squared):
        """Return k / (r^2 + softening^2)^(3/2)."""
        return law.coulomb_constant * inverse_cube(squared + law.softening_squared)

    @staticmethod
    @no_type_check
    def external_force(law, axis, strength, x, y, z):
        """Return charge times electric field."""
        if axis == 0:
            return strength * law.field_x
        return strength * (law.field_y if axis == 1 else law.field_z)


@dataclass(frozen=True)
class ChargedParticles:
    """Charges with the potential ``k q_i q_j / sqrt(r^2 + softening^2)`` in uniform fields, without radiation.

    In two dimensions the charges move in a plane of ordinary space, so the force falls with the square of the distance,
    as in the data of Kipf et al.; the magnetic field then stands on the plane. Along periodic axes only the nearest
    image of a partner acts, without an Ewald sum: its force jumps where another image becomes the nearest.

    Attributes:
        n_particles: charges a system. 5, the speed, the scale of places, k and the box are those of Kipf et al.
        dim: 2 or 3.
        coulomb_constant: k, energy length / charge^2.
        softening: a length, positive. Kipf et al. clip the force instead, at 100, which it has at a distance of 0.1.
        charge: magnitude of every charge.
        positive_share: probability that a drawn charge is positive, in [0, 1].
        electric_field: uniform, one entry an axis.
        magnetic_field: uniform, along z: turns a velocity clockwise, for a positive charge, at ``q B / m``.
        mass: of a particle.
        radius: of a particle, for walls and the log; the force does not know it.
        placement_scale: standard deviation of drawn places about the middle of the box.
        speed: of every drawn particle, in a random direction.
        box: side lengths.
        boundary: ``"walls"``, ``"periodic"`` or ``"open"``, for all axes or one for each.
        time_step: longest step; None takes a fiftieth of the shortest period: of a turn in the magnetic field, or of
            all charges within one softening length.

    Raises:
        ValueError: a value outside the ranges above. When it runs: a ``time_step`` for which a pair of the start state
            is unstable, 2 over its angular frequency, or that turns a velocity by more than 2 in radians.

    References:
        Kipf, Fetaya, Wang, Welling and Zemel 2018, arXiv:1802.04687, and the script of its authors.

    Example:
        >>> ChargedParticles(boundary="open").conserved
        ('energy', 'momentum', 'angular_momentum')
    """

    n_particles: int = 5
    dim: int = 2
    coulomb_constant: float = 1.0
    softening: float = 0.1
    charge: float = 1.0
    positive_share: float = 0.5
    electric_field: tuple[float, ...] = (0.0, 0.0)
    magnetic_field: float = 0.0
    mass: float = 1.0
    radius: float = 0.05
    placement_scale: float = 1.0
    speed: float = 0.5
    box: tuple[float, ...] = (10.0, 10.0)
    boundary: str | tuple[str, ...] = "walls"
    time_step: float | None = None

    engines: ClassVar[tuple[str, ...]] = ("smooth_forces",)

    def __post_init__(self) -> None:
        positive = ("coulomb_constant", "softening", "charge", "mass", "radius", "placement_scale")
        take_numbers(
            self,
            integers=("n_particles", "dim"),
            floats=(*positive, "positive_share", "magnetic_field", "speed"),
            vectors=("electric_field", "box"),
            optional=("time_step",),
        )
        require(
            self,
            ("n_particles", "at least 1", self.n_particles >= 1),
            *((name, "positive and finite", 0 < getattr(self, name) < math.inf) for name in positive),
            ("softening", "at least 1e-100, or forces overflow", self.softening >= 1e-100),
            ("positive_share", "in [0, 1]", 0 <= self.positive_share <= 1),
            ("electric_field", "finite", all(math.isfinite(entry) for entry in self.electric_field)),
            ("magnetic_field", "finite", math.isfinite(self.magnetic_field)),
            ("speed", "zero or more, and finite", 0 <= self.speed < math.inf),
            ("time_step", "None, or positive and finite", self.time_step is None or 0 < self.time_step < math.inf),
        )
        require_box(self, vectors=("electric_field", "box"))
        require(self, ("radius", f"at most a quarter of the sides of box={self.box}", 4 * self.radius <= min(self.box)))

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "smooth_forces"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy, unless a field drives particles around a periodic box; momenta where nothing acts from outside."""
        kinds = boundaries(self)
        around = any(kind == "periodic" and field for kind, field in zip(kinds, self.electric_field, strict=True))
        energy = () if around else ("energy",)
        if "walls" in kinds or self.magnetic_field or any(self.electric_field):
            return energy
        return (*energy, "momentum") if "periodic" in kinds else (*energy, "momentum", "angular_momentum")

    @property
    def law(self) -> SoftenedCoulomb:
        """The forces."""
        x, y, z = (*self.electric_field, 0.0)[:3]
        return SoftenedCoulomb(self.coulomb_constant, self.softening**2, x, y, z)

    @property
    def cutoff(self) -> float:
        """Coulomb's force has no end."""
        return math.inf

    @property
    def default_step(self) -> float:
        """A fiftieth of the shortest period."""
        stiffness = self.n_particles * self.coulomb_constant * self.charge**2 / self.softening**3
        return default_step_of(
            max(math.sqrt(stiffness / self.mass), self.charge * abs(self.magnetic_field) / self.mass)
        )

    def longest_step(self, state: ParticleState) -> float:
        """Return the step at which a pair of this state, or a turn, becomes unstable."""
        charges, eps = _charges(state), self.softening

        def rate(squared: np.ndarray, i: int) -> np.ndarray:
            product = self.coulomb_constant * np.abs(charges[:, i : i + 1] * charges[:, i + 1 :])
            inverse_mass = 1 / state.masses[:, i : i + 1] + 1 / state.masses[:, i + 1 :]
            return np.sqrt(product * inverse_mass / (squared + eps**2) ** 1.5)

        turn = float(np.abs(charges * self.magnetic_field / state.masses).max())
        return longest_step_of(max(turn, fastest_pair(self, state, rate)))

    def couplings(self, state: ParticleState) -> Float64[np.ndarray, "system 1 particle"]:
        """Return the charges."""
        return _charges(state)[:, None, :]

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy of all pairs, zero at infinite distance, and in the electric field, zero at the origin."""
        q, eps = _charges(state), self.softening
        pairs = sum_over_pairs(
            self, state, lambda squared, i: q[:, i : i + 1] * q[:, i + 1 :] / np.sqrt(squared + eps**2)
        )
        return self.coulomb_constant * pairs - (q * (state.positions @ np.array(self.electric_field))).sum(axis=1)

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw charges of random sign about the middle of the box, all of the same speed.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems.
        """
        shape = (n_systems, self.n_particles)
        charges = np.where(rng.uniform(size=shape) < self.positive_share, self.charge, -self.charge)
        positions = draw_about_center(self, n_systems, self.placement_scale, self.radius, rng=rng)
        velocities = self.speed * draw_directions(self, n_systems, rng=rng)
        return ParticleState(
            positions, velocities, np.full(shape, self.radius), np.full(shape, self.mass), charges=charges
        )

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state without charges, of another shape, or with a particle outside the box.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: the text names system and particle.
        """
        _charges(state)
        require_inside(self, state)


def _charges(state: ParticleState) -> Float64[np.ndarray, "system particle"]:
    if state.charges is None:
        raise ValueError("initial must have charges (system, particle), got None")
    return state.charges

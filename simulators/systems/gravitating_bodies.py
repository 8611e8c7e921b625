"""Point masses that attract each other: Newton's law with softening."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .pairs import default_step_of, fastest_pair, inverse_cube, longest_step_of, require_inside, sum_over_pairs
from .system import boundaries, require, require_box, take_numbers


class SoftenedGravity(NamedTuple):
    """The square of the softening length; G is in the couplings."""

    softening_squared: float

    @staticmethod
    @no_type_check
    def pair_force(law, squared):
        """Return - 1 / (r^2 + softening^2)^(3/2)."""
        return -inverse_cube(squared + law.softening_squared)


@dataclass(frozen=True)
class GravitatingBodies:
    """Bodies that attract each other with the potential ``- G m_i m_j / sqrt(r^2 + softening^2)``, in any dimension.

    In two dimensions the bodies move in a plane of ordinary space: the same force.

    A drawn system is a cluster at rest as a whole: uniform in a ball as wide as the smallest side of the box, normal
    velocities scaled so that the kinetic energy is ``virial_ratio`` times the binding energy. At 0.5 it keeps its
    size, at 0 it collapses.

    Attributes:
        n_particles: bodies a system, at least 2.
        dim: 2 or 3.
        gravitational_constant: G, length^3 / (mass time^2).
        softening: a length, positive (Aarseth's, Plummer's). Bodies closer than it hardly attract each other.
        mass: mean mass of a body.
        mass_spread: masses are uniform in ``mass * (1 ± mass_spread)``, in [0, 1).
        virial_ratio: kinetic over binding energy of a drawn system, in [0, 1): below 1 it is bound.
        box: side lengths of the region of the start; walls stand there.
        boundary: ``"open"`` or ``"walls"``, for all axes or one for each.
        time_step: longest step; None takes a fiftieth of the shortest period there could be, that of all bodies
            within one softening length, ``sqrt(softening^3 / (G M))`` with the total mass M.

    The radii of drawn bodies are half the softening length, so the log tells when a pair comes within it.

    Raises:
        ValueError: a value outside the ranges above. When it runs: a ``time_step`` for which a pair of the start state
            is unstable, 2 over its angular frequency.

    References:
        Aarseth 1963, doi:10.1093/mnras/126.3.223 (softening).

    Example:
        >>> GravitatingBodies().conserved
        ('energy', 'momentum', 'angular_momentum')
    """

    n_particles: int = 16
    dim: int = 3
    gravitational_constant: float = 1.0
    softening: float = 0.1
    mass: float = 1.0
    mass_spread: float = 0.0
    virial_ratio: float = 0.5
    box: tuple[float, ...] = (8.0, 8.0, 8.0)
    boundary: str | tuple[str, ...] = "open"
    time_step: float | None = None

    engines: ClassVar[tuple[str, ...]] = ("smooth_forces",)

    def __post_init__(self) -> None:
        floats = ("gravitational_constant", "softening", "mass", "mass_spread", "virial_ratio")
        take_numbers(self, integers=("n_particles", "dim"), floats=floats, vectors=("box",), optional=("time_step",))
        require(
            self,
            ("n_particles", "at least 2", self.n_particles >= 2),
            ("gravitational_constant", "positive and finite", 0 < self.gravitational_constant < math.inf),
            ("softening", "positive and finite", 0 < self.softening < math.inf),
            ("softening", "at least 1e-100, or forces overflow", self.softening >= 1e-100),
            ("mass", "positive and finite", 0 < self.mass < math.inf),
            ("mass_spread", "in [0, 1)", 0 <= self.mass_spread < 1),
            ("virial_ratio", "in [0, 1)", 0 <= self.virial_ratio < 1),
            ("time_step", "None, or positive and finite", self.time_step is None or 0 < self.time_step < math.inf),
        )
        require_box(self, allowed=("open", "walls"))
        if "walls" in boundaries(self) and self.softening >= min(self.box):
            raise ValueError(f"softening must be below the sides of box={self.box}, got {self.softening}")

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "smooth_forces"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy, and without walls momentum and angular momentum."""
        return ("energy",) if "walls" in boundaries(self) else ("energy", "momentum", "angular_momentum")

    @property
    def law(self) -> SoftenedGravity:
        """The force."""
        return SoftenedGravity(self.softening**2)

    @property
    def cutoff(self) -> float:
        """Gravity has no end."""
        return math.inf

    @property
    def default_step(self) -> float:
        """A fiftieth of the shortest period."""
        total = self.n_particles * self.mass * (1 + self.mass_spread)
        return default_step_of(math.sqrt(self.gravitational_constant * total / self.softening**3))

    def longest_step(self, state: ParticleState) -> float:
        """Return the step at which a pair of this state becomes unstable."""
        eps = self.softening

        def rate(squared: np.ndarray, i: int) -> np.ndarray:
            total = state.masses[:, i : i + 1] + state.masses[:, i + 1 :]
            return np.sqrt(self.gravitational_constant * total / (squared + eps**2) ** 1.5)

        return longest_step_of(fastest_pair(self, state, rate))

    def couplings(self, state: ParticleState) -> Float64[np.ndarray, "system 1 particle"]:
        """Return the masses times the root of G."""
        return math.sqrt(self.gravitational_constant) * state.masses[:, None, :]

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy of attraction, zero at infinite distance."""
        m, eps = state.masses, self.softening
        energy = sum_over_pairs(
            self, state, lambda squared, i: m[:, i : i + 1] * m[:, i + 1 :] / np.sqrt(squared + eps**2)
        )
        return -self.gravitational_constant * energy

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw bound clusters at rest as a whole, their centres of mass in the middle of the box.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems.
        """
        shape = (n_systems, self.n_particles)
        masses = self.mass * (1 + self.mass_spread * rng.uniform(-1.0, 1.0, shape))
        share = masses[..., None] / masses.sum(axis=1)[:, None, None]
        radii = np.full(shape, self.softening / 2)
        direction = rng.standard_normal((*shape, self.dim))
        direction /= np.sqrt((direction**2).sum(axis=-1, keepdims=True))
        # within half a side the centre of mass cannot move anyone beyond a wall
        largest = min(self.box) / 4 if "walls" in boundaries(self) else min(self.box) / 2
        distance = (largest - self.softening / 2 * ("walls" in boundaries(self))) * rng.uniform(0, 1, shape) ** (
            1 / self.dim
        )
        positions = direction * distance[..., None]
        positions += np.array(self.box) / 2 - (share * positions).sum(axis=1, keepdims=True)
        velocities = rng.standard_normal((*shape, self.dim))
        velocities -= (share * velocities).sum(axis=1, keepdims=True)
        state = ParticleState(positions, velocities, radii, masses)
        kinetic = 0.5 * (masses[..., None] * velocities**2).sum(axis=(1, 2))
        scale = np.sqrt(self.virial_ratio * -self.potential_energy(state) / kinetic)
        return ParticleState(positions, velocities * scale[:, None, None], radii, masses)

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state of another shape, or with a body beyond a wall.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: the text names system and particle.
        """
        require_inside(self, state)

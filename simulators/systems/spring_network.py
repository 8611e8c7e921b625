"""Particles tied by springs that nobody sees."""

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
    longest_step_of,
    require_inside,
    sum_over_pairs,
    where,
)
from .system import boundaries, require, require_box, take_numbers


class Hooke(NamedTuple):
    """The length at which a spring is at rest."""

    natural_length: float

    @staticmethod
    @no_type_check
    def pair_force(law, squared):
        """Return natural length / r - 1, for a stiffness of 1, and no push at the same place."""
        if law.natural_length == 0.0:
            return -1.0
        return where(squared > 0.0, law.natural_length / math.sqrt(squared), 0.0) - 1.0


@dataclass(frozen=True)
class SpringNetwork:
    """Particles of which each pair is tied by a spring with some probability: ``k (r - natural_length)^2 / 2``.

    Which pairs are tied is drawn with the state and kept in ``edges``, which hold the stiffness: what a model that sees
    the motion should find out.

    With a natural length the force jumps where two tied particles pass through each other, so energy there errs by more
    than the square of the step; without one (as in Kipf et al.) it does not, walls included.

    Attributes:
        n_particles: particles a system. 5 and the defaults from here on are those of Kipf et al.
        dim: 2 or 3.
        stiffness: k of every spring.
        edge_probability: that a pair is tied, in [0, 1].
        natural_length: at which a spring is at rest, zero or more.
        mass: of a particle.
        radius: of a particle, for walls and the log; springs do not know it. Our choice, theirs are points.
        placement_scale: standard deviation of drawn places about the middle of the box.
        speed: of every drawn particle, in a random direction.
        box: side lengths.
        boundary: ``"walls"`` or ``"open"``, for all axes or one for each.
        time_step: longest step; None takes a fiftieth of the shortest period there could be, that of a network
            of all pairs, ``sqrt(n_particles k / mass)``.

    Raises:
        ValueError: a value outside the ranges above. When it runs: a ``time_step`` for which the springs of the start
            state are unstable.

    References:
        Kipf, Fetaya, Wang, Welling and Zemel 2018, arXiv:1802.04687, and the script of its authors, whose step is
        first order at walls.

    Example:
        >>> SpringNetwork(boundary="open").conserved
        ('energy', 'momentum', 'angular_momentum')
    """

    n_particles: int = 5
    dim: int = 2
    stiffness: float = 0.1
    edge_probability: float = 0.5
    natural_length: float = 0.0
    mass: float = 1.0
    radius: float = 0.05
    placement_scale: float = 0.5
    speed: float = 0.5
    box: tuple[float, ...] = (10.0, 10.0)
    boundary: str | tuple[str, ...] = "walls"
    time_step: float | None = None

    engines: ClassVar[tuple[str, ...]] = ("smooth_forces",)

    def __post_init__(self) -> None:
        positive = ("stiffness", "mass", "radius", "placement_scale")
        floats = (*positive, "edge_probability", "natural_length", "speed")
        take_numbers(self, integers=("n_particles", "dim"), floats=floats, vectors=("box",), optional=("time_step",))
        require(
            self,
            ("n_particles", "at least 1", self.n_particles >= 1),
            *((name, "positive and finite", 0 < getattr(self, name) < math.inf) for name in positive),
            ("edge_probability", "in [0, 1]", 0 <= self.edge_probability <= 1),
            ("natural_length", "zero or more, and finite", 0 <= self.natural_length < math.inf),
            ("speed", "zero or more, and finite", 0 <= self.speed < math.inf),
            ("time_step", "None, or positive and finite", self.time_step is None or 0 < self.time_step < math.inf),
        )
        require_box(self, allowed=("walls", "open"))
        require(self, ("radius", f"at most a quarter of the sides of box={self.box}", 4 * self.radius <= min(self.box)))

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "smooth_forces"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy, and without walls momentum and angular momentum."""
        return ("energy",) if "walls" in boundaries(self) else ("energy", "momentum", "angular_momentum")

    @property
    def law(self) -> Hooke:
        """The force."""
        return Hooke(self.natural_length)

    @property
    def cutoff(self) -> float:
        """Springs reach everywhere."""
        return math.inf

    @property
    def default_step(self) -> float:
        """A fiftieth of the shortest period."""
        return default_step_of(math.sqrt(self.n_particles * self.stiffness / self.mass))

    def longest_step(self, state: ParticleState) -> float:
        """Return the step at which the fastest mode becomes unstable: the Laplacian of the network over the masses."""
        edges = _edges(state)
        laplacian = np.eye(self.n_particles) * edges.sum(axis=2)[:, :, None] - edges
        root = np.sqrt(state.masses)
        squares = np.linalg.eigvalsh(laplacian / (root[:, :, None] * root[:, None, :]))
        return longest_step_of(math.sqrt(max(float(squares.max()), 0.0)))

    def couplings(self, state: ParticleState) -> Float64[np.ndarray, "system particle particle"]:
        """Return the stiffness of each pair."""
        return _edges(state)

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy of all springs, zero at their natural length."""
        edges, length = _edges(state), self.natural_length
        return 0.5 * sum_over_pairs(
            self, state, lambda squared, i: edges[:, i, i + 1 :] * (np.sqrt(squared) - length) ** 2
        )

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw springs, then particles about the middle of the box, all of the same speed.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems, with ``edges``.
        """
        shape = (n_systems, self.n_particles)
        tied = np.triu(rng.uniform(size=(*shape, self.n_particles)) < self.edge_probability, k=1)
        edges = self.stiffness * (tied | tied.swapaxes(1, 2))
        positions = draw_about_center(self, n_systems, self.placement_scale, self.radius, rng=rng)
        velocities = self.speed * draw_directions(self, n_systems, rng=rng)
        return ParticleState(positions, velocities, np.full(shape, self.radius), np.full(shape, self.mass), edges=edges)

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state without edges, with negative ones, or with a particle outside the box.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: the text names system and particle.
        """
        edges = _edges(state)
        if (edges < 0).any():
            system, i, j = (int(index) for index in np.argwhere(edges < 0)[0])
            raise ValueError(
                f"initial: edges must be zero or more; system {system}, particles {i} and {j}: {edges[system, i, j]}"
            )
        require_inside(self, state)


def _edges(state: ParticleState) -> Float64[np.ndarray, "system particle particle"]:
    if state.edges is None:
        raise ValueError("initial must have edges (system, particle, particle), got None")
    return state.edges

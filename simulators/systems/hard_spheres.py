"""Hard discs and spheres: free flight and instantaneous collisions."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from simulators.placement import place_without_overlap
from simulators.state import ParticleState

from .system import require, require_box, require_shape, take_numbers, volume

_ROUNDING = 1e-9  # share of a diameter by which a given state may overlap: rounding in a frame used as a start


@dataclass(frozen=True)
class HardSpheres:
    """Hard discs (dim 2) or spheres (dim 3) in a closed box under uniform gravity, without friction or spin.

    Between collisions every particle flies freely. A collision exchanges the impulse ``(1 + e) mu v_n`` along the
    line of centres, ``mu = m_i m_j / (m_i + m_j)``, ``v_n`` the speed of approach; a wall is infinitely heavy.

    Inelastic collapse (restitution below 1 lets infinitely many collisions fall into a finite time) is cut by the TC
    model: a collision within ``contact_time`` of the previous collision of either partner is elastic. Beyond the
    model, a particle that would leave a wall so slowly that gravity brings it back within half a ``contact_time``
    leaves just fast enough for that (elastic systems: only one that would not leave at all), so a resting particle
    costs at most two events a contact time. Such collisions are logged with ``forced``.

    Attributes:
        n_particles: particles a system.
        dim: 2 or 3; box and gravity need as many entries.
        radius: mean radius. Default of the project's first trial: ten discs fill a ninth of the box.
        radius_spread: radii are uniform in ``radius * (1 ± radius_spread)``, in [0, 1).
        density: mass over area (dim 2) or volume (dim 3); masses follow from radii.
        gravity: acceleration, length over time squared.
        restitution: e in [0, 1], 1 is elastic; walls have the same.
        box: side lengths; walls at 0 and at each length.
        boundary: ``"walls"``, the only one so far.
        velocity_scale: standard deviation of each component of a drawn velocity.
        interacting: False gives ghost discs, which pass through each other but feel the walls: the control. Their
            log holds every begin of an overlap with the impulse they would have exchanged.
        contact_time: t_c, a time. Default: a disc of the default system goes 0.16 between collisions, so that all but
            one in a thousand keep their restitution; an eighth of 1e-3 dissipates the same to 1 % (tested). No effect
            on elastic systems, unless a particle rests on a wall.

    Raises:
        ValueError: a value outside the ranges above, or particles that cannot fit into the box.

    References:
        Luding and McNamara 1998, "How to handle the inelastic collapse of a dissipative hard-sphere gas with the TC
        model", doi:10.1007/s100350050017.

    Example:
        >>> round(HardSpheres().packing_fraction, 3)
        0.116
    """

    n_particles: int = 10
    dim: int = 2
    radius: float = 0.06
    radius_spread: float = 0.3
    density: float = 1.0
    gravity: tuple[float, ...] = (0.0, -1.0)
    restitution: float = 1.0
    box: tuple[float, ...] = (1.0, 1.0)
    boundary: str = "walls"
    velocity_scale: float = 0.7
    interacting: bool = True
    contact_time: float = 1e-4

    engines: ClassVar[tuple[str, ...]] = ("event_driven",)

    def __post_init__(self) -> None:
        take_numbers(
            self,
            integers=("n_particles", "dim"),
            floats=("radius", "radius_spread", "density", "restitution", "velocity_scale", "contact_time"),
            vectors=("gravity", "box"),
        )
        require(
            self,
            ("n_particles", "at least 1", self.n_particles >= 1),
            ("radius", "positive and finite", 0 < self.radius < math.inf),
            ("radius_spread", "in [0, 1)", 0 <= self.radius_spread < 1),
            ("density", "positive and finite", 0 < self.density < math.inf),
            ("restitution", "in [0, 1]", 0 <= self.restitution <= 1),
            ("velocity_scale", "zero or more, and finite", 0 <= self.velocity_scale < math.inf),
            ("contact_time", "positive and finite", 0 < self.contact_time < math.inf),
            ("gravity", "finite", all(math.isfinite(g) for g in self.gravity)),
            ("interacting", "True or False", isinstance(self.interacting, bool)),
        )
        require_box(self, allowed=("walls",), vectors=("gravity", "box"))
        self._check_room()

    def _check_room(self) -> None:
        """Refuse what cannot fit, whatever the draw."""
        widest = 2 * self.radius * (1 + self.radius_spread)
        if widest >= min(self.box):
            raise ValueError(
                f"radius must leave every particle room to move: diameters reach {widest:.6g}, the box is "
                f"{min(self.box):.6g} wide; lower radius or radius_spread, or enlarge box"
            )
        if self.packing_fraction >= 1:
            raise ValueError(
                f"n_particles={self.n_particles} of radius {self.radius} cannot fit: packing fraction "
                f"{self.packing_fraction:.3f}, expected below 1; lower n_particles or radius, or enlarge box"
            )

    @property
    def packing_fraction(self) -> float:
        """Expected share of the box that particles fill."""
        spread = 1 + self.radius_spread**2 * (self.dim - 1) * self.dim / 6  # E[(r / radius)^dim]
        return float(self.n_particles * volume(self.radius, self.dim) * spread / math.prod(self.box))

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "event_driven"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy, in elastic systems."""
        return ("energy",) if self.restitution == 1 else ()

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy in the field of gravity, zero at the origin."""
        return -(state.masses * (state.positions @ np.array(self.gravity))).sum(axis=1)

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw start states: radii, then places without overlaps, then normal velocities.

        Ghost discs are drawn as interacting ones, so that both arms of a comparison share their starts.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems.

        Raises:
            ValueError: no overlap-free placement was found; the text names the packing fraction.
        """
        shape = (n_systems, self.n_particles)
        radii = self.radius * (1 + self.radius_spread * rng.uniform(-1.0, 1.0, shape))
        positions = place_without_overlap(radii, self.box, rng=rng)
        velocities = self.velocity_scale * rng.standard_normal((*shape, self.dim))
        return ParticleState(positions, velocities, radii, self.density * volume(radii, self.dim))

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state that this system cannot have.

        Overlaps up to 1e-9 of a diameter pass as rounding, so a stored frame can be a start; ghosts may overlap.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: another number of particles or dimensions, a particle outside the box, an overlap; the text
                names system and particles.
        """
        require_shape(self, state)
        reach = state.radii[..., None] * (1 - 2 * _ROUNDING)
        outside = ((state.positions < reach) | (state.positions > np.array(self.box) - reach)).any(axis=-1)
        if outside.any():
            system, i = (int(index) for index in np.argwhere(outside)[0])
            raise ValueError(
                f"initial: system {system}, particle {i} is outside the box {self.box}: centre "
                f"{state.positions[system, i].tolist()}, radius {state.radii[system, i]:.6g}; move it inside"
            )
        if self.interacting:
            _check_overlaps(state)


def _check_overlaps(state: ParticleState) -> None:
    """Refuse the first pair whose centres are closer than the sum of their radii."""
    for i in range(state.positions.shape[1] - 1):
        separation = state.positions[:, i + 1 :] - state.positions[:, i : i + 1]
        distance = np.sqrt((separation**2).sum(axis=-1))
        reach = state.radii[:, i + 1 :] + state.radii[:, i : i + 1]
        overlap = distance < reach * (1 - _ROUNDING)
        if overlap.any():
            system, other = (int(index) for index in np.argwhere(overlap)[0])
            raise ValueError(
                f"initial: system {system}, particles {i} and {i + 1 + other} overlap: distance "
                f"{distance[system, other]:.6g}, expected at least {reach[system, other]:.6g}; move them apart"
            )

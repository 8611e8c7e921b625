"""Hard discs and spheres: free flight and instantaneous collisions."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .spheres import draw_spheres, packing_fraction, refuse_overlaps, require_room
from .system import periodic_axes, refuse_outside, require, require_box, require_shape, take_numbers

_ROUNDING = 1e-9  # share of a diameter by which a given state may overlap: rounding in a frame used as a start


@dataclass(frozen=True)
class HardSpheres:
    """Hard discs (dim 2) or spheres (dim 3) in a box under uniform gravity, without friction or spin.

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
        box: side lengths; walls at 0 and at each length. A periodic side is longer than two diameters, so that no
            pair meets across both ends.
        boundary: ``"walls"`` or ``"periodic"``, for all axes or one for each. No gravity along periodic axes: nothing
            would stop the fall.
        velocity_scale: standard deviation of each component of a drawn velocity.
        interacting: False gives ghost discs, which pass through each other but feel the walls: the control. Their
            log holds every begin of an overlap with the impulse they would have exchanged.
        contact_time: t_c, a time. Default: a disc of the default system goes 0.16 between collisions, so that all but
            one in a thousand keep their restitution; an eighth of 1e-3 dissipates the same to 1 % (tested). No effect
            on elastic systems, unless a particle rests on a wall.
        restitution_velocity: v_0, a speed below which collisions are less dissipative: e is
            ``1 - (1 - restitution) * (v_n / v_0) ** 0.75`` there and ``restitution`` above; 0 keeps it constant.

    Raises:
        ValueError: a value outside the ranges above, or particles that cannot fit into the box.

    References:
        Bizon, Shattuck, Swift, McCormick and Swinney 1998, "Patterns in 3D vertically oscillated granular layers:
        simulation and experiment", doi:10.1103/PhysRevLett.80.57, for the restitution that depends on velocity.
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
    boundary: str | tuple[str, ...] = "walls"
    velocity_scale: float = 0.7
    interacting: bool = True
    contact_time: float = 1e-4
    restitution_velocity: float = 0.0

    engines: ClassVar[tuple[str, ...]] = ("event_driven", "event_driven_cells", "event_driven_warp")

    def __post_init__(self) -> None:
        take_numbers(
            self,
            integers=("n_particles", "dim"),
            floats=(
                "radius",
                "radius_spread",
                "density",
                "restitution",
                "velocity_scale",
                "contact_time",
                "restitution_velocity",
            ),
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
            ("restitution_velocity", "zero or more, and finite", 0 <= self.restitution_velocity < math.inf),
            ("gravity", "finite", all(math.isfinite(g) for g in self.gravity)),
            ("interacting", "True or False", isinstance(self.interacting, bool)),
        )
        require_box(self, allowed=("walls", "periodic"), vectors=("gravity", "box"))
        periodic = periodic_axes(self)
        require(
            self, ("gravity", f"0 along periodic axes ({self.boundary})", not np.array(self.gravity)[periodic].any())
        )
        require_room(self)

    @property
    def packing_fraction(self) -> float:
        """Expected share of the box that particles fill."""
        return packing_fraction(self)

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes: with cells from 64 particles on, ghosts without."""
        return "event_driven_cells" if self.interacting and self.n_particles >= 64 else "event_driven"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy in elastic systems, momentum where all sides are periodic."""
        no_walls = bool(periodic_axes(self).all())
        lossless = self.restitution == 1 or (no_walls and not self.interacting)
        return (("energy",) if lossless else ()) + (("momentum",) if no_walls else ())

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
        return draw_spheres(self, n_systems, rng=rng)

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
        periodic = periodic_axes(self)
        box = np.array(self.box)
        self._check_wrapping(state)
        reach = np.where(periodic, 0.0, state.radii[..., None] * (1 - 2 * _ROUNDING))
        outside = ((state.positions < reach) | (state.positions > box - reach)).any(axis=-1)
        outside |= (periodic & (state.positions == box)).any(axis=-1)
        refuse_outside(self, state, outside)
        if self.interacting:
            refuse_overlaps(state, self, lambda r_i, r_j: _ROUNDING * (r_i + r_j))

    def _check_wrapping(self, state: ParticleState) -> None:
        """Refuse discs that would reach across half a periodic side: a pair could meet at both ends at once."""
        sides = np.array(self.box)[periodic_axes(self)]
        widest = 2 * float(state.radii.max())
        if len(sides) and 2 * widest >= sides.min():
            system, i = (int(index) for index in np.argwhere(state.radii == state.radii.max())[0])
            raise ValueError(
                f"initial: system {system}, particle {i} has diameter {widest:.6g}, expected less than half of the "
                f"periodic side {sides.min():.6g}; lower its radius, or enlarge box"
            )

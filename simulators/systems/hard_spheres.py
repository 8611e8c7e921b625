"""Hard discs and spheres: free flight and instantaneous collisions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from simulators.placement import place_without_overlap
from simulators.state import ParticleState

from .system import (
    System,
    boundaries,
    minimum_image,
    periodic_axes,
    require,
    require_box,
    require_shape,
    take_numbers,
    volume,
)

_ROUNDING = 1e-9  # share of a diameter by which a given state may overlap: rounding in a frame used as a start
_FEW = 64  # particles up to which all pairs are looked at


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
        self._check_room()

    def _check_room(self) -> None:
        """Refuse what cannot fit, whatever the draw."""
        widest = 2 * self.radius * (1 + self.radius_spread)
        for side, kind in zip(self.box, boundaries(self), strict=True):
            needed = 2 * widest if kind == "periodic" else widest
            if needed >= side:
                raise ValueError(
                    f"radius must leave every particle room to move: diameters reach {widest:.6g}, so the box must be "
                    f"wider than {needed:.6g} between {kind}, got {side:.6g}; lower radius or radius_spread, or "
                    "enlarge box"
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
        """The engine that ``engine="auto"`` takes: with cells from 64 particles on, ghosts without."""
        return "event_driven_cells" if self.interacting and self.n_particles >= 64 else "event_driven"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy in elastic systems, momentum where all sides are periodic."""
        # not by periodic_axes(self): checking that self is a System asks for this property
        no_walls = ({self.boundary} if isinstance(self.boundary, str) else set(self.boundary)) == {"periodic"}
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
        shape = (n_systems, self.n_particles)
        radii = self.radius * (1 + self.radius_spread * rng.uniform(-1.0, 1.0, shape))
        positions = place_without_overlap(radii, self.box, rng=rng, periodic=periodic_axes(self))
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
        periodic = periodic_axes(self)
        box = np.array(self.box)
        self._check_wrapping(state)
        reach = np.where(periodic, 0.0, state.radii[..., None] * (1 - 2 * _ROUNDING))
        outside = ((state.positions < reach) | (state.positions > box - reach)).any(axis=-1)
        outside |= (periodic & (state.positions == box)).any(axis=-1)
        if outside.any():
            system, i = (int(index) for index in np.argwhere(outside)[0])
            raise ValueError(
                f"initial: system {system}, particle {i} is outside the box {self.box}: centre "
                f"{state.positions[system, i].tolist()}, radius {state.radii[system, i]:.6g}; move it inside"
            )
        if self.interacting:
            check_overlaps(state, self)

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


def check_overlaps(state: ParticleState, system: System) -> None:
    """Refuse a pair of bodies whose centres are closer than the sum of their radii, beyond rounding.

    Args:
        state: any number of systems, places along periodic axes in [0, length).
        system: its box and boundary.

    Raises:
        ValueError: the text names the first such pair.

    Cost:
        All pairs up to 64 particles a system, beyond that a tree of neighbours: a second for 1e5 particles.
    """
    n_systems, n_particles = state.radii.shape
    if n_particles <= _FEW:
        i, j = np.triu_indices(n_particles, 1)
        for first in range(n_particles - 1):
            pairs = i == first
            _refuse_overlap(state, system, slice(None), i[pairs], j[pairs])
        return
    for which in range(n_systems):
        for i, j in close_pairs(state.positions[which], state.radii[which], system):
            _refuse_overlap(state, system, slice(which, which + 1), i, j)


def _refuse_overlap(state: ParticleState, system: System, systems: slice, i: np.ndarray, j: np.ndarray) -> None:
    """Refuse the first of these pairs that overlaps."""
    positions, radii = state.positions[systems], state.radii[systems]
    separation = minimum_image(positions[:, i] - positions[:, j], system)
    distance = np.sqrt((separation**2).sum(axis=-1))
    reach = radii[:, i] + radii[:, j]
    overlap = distance < reach * (1 - _ROUNDING)
    if overlap.any():
        which, pair = (int(index) for index in np.argwhere(overlap)[0])
        raise ValueError(
            f"initial: system {(systems.start or 0) + which}, particles {i[pair]} and {j[pair]} overlap: distance "
            f"{distance[which, pair]:.6g}, expected at least {reach[which, pair]:.6g}; move them apart"
        )


def close_pairs(positions: np.ndarray, radii: np.ndarray, system: System) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs (i, j), i < j, among which every overlap of one system is.

    Nearest neighbours come first: where these do not overlap, centres are so far apart that the later searches,
    between classes of radii within a factor of two, stay short.
    """
    from scipy.spatial import KDTree  # here: importing the package loads no scipy

    sides = np.where(periodic_axes(system), np.array(system.box), 0.0)  # 0: open to the tree
    tree = KDTree(positions, boxsize=sides)
    nearest = np.asarray(tree.query(positions, k=2)[1])
    yield _ordered(nearest[:, 0], nearest[:, 1])
    size = np.floor(np.log2(radii)).astype(int)
    classes = [np.flatnonzero(size == value) for value in np.unique(size)]
    trees = [KDTree(positions[members], boxsize=sides) for members in classes]
    for large in range(len(classes)):
        for small in range(large + 1):
            reach = radii[classes[large]].max() + radii[classes[small]].max()
            found = trees[small].sparse_distance_matrix(trees[large], reach, output_type="coo_matrix")
            i, j = classes[small][found.row], classes[large][found.col]
            yield _ordered(i[i != j], j[i != j])


def _ordered(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs with the lower index first, sorted."""
    pairs = np.stack([np.minimum(i, j), np.maximum(i, j)])
    return tuple(pairs[:, np.lexsort(pairs[::-1])])

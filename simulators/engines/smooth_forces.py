"""Velocity Verlet for systems with smooth forces: the host side of ``smooth_kernel``."""

import math
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64

from simulators.engines.smooth_kernel import run_system
from simulators.engines.smooth_records import DONE, FRESH, HASTY, STEP, Bodies, Rows, Setup
from simulators.engines.smooth_walls import MOST_BOUNCES
from simulators.engines.threads import apart, blocks_of, joined, on_threads
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems.system import System, boundaries, periodic_axes

_SYSTEMS_AT_ONCE = 4096  # bounds the working memory: some 230 bytes a particle in two dimensions
_ROWS_AT_ONCE = 1 << 20  # log rows buffered a round, shared by the systems: 56 bytes each in two dimensions
_OPEN_A_PARTICLE = 2  # room in the table of encounters at first
_SKIN = 0.2  # of the cutoff; 64 atoms in a plane take a twentieth longer at 0.15, a twentieth less at 0.3
_LIST_FROM = 36  # particles from which a list is faster: measured at 2.5 sigma and density 0.3, in a plane


class SmoothSystem(System, Protocol):
    """What a system offers to this engine, beside what every system does.

    ``law`` is a NamedTuple of constants whose class has the plain function ``pair_force(law, squared)``: the force
    between two particles over their distance, positive where they repel, for a coupling of 1; finite at distance 0. It
    may have ``external_force(law, axis, strength, x, y, z)``, the force along an axis on one particle. Both are
    compiled, so they take numbers and the module ``math`` only, and the former works on eight pairs at a time, so it
    takes ``+ - * / < > &``, ``math.sqrt``, ``where`` and ``inverse_cube`` of ``systems.pairs``, and does not branch on
    the distance. A field ``magnetic_field`` turns velocities at the rate ``strength * magnetic_field / mass`` about the
    z axis.
    """

    time_step: float | None

    @property
    def law(self) -> Any:
        """The constants and functions of the force."""
        ...

    @property
    def cutoff(self) -> float:
        """The distance beyond which pairs exert no force; infinite for a force without end."""
        ...

    @property
    def default_step(self) -> float:
        """The time step where ``time_step`` is None."""
        ...

    def longest_step(self, state: ParticleState) -> float:
        """Return the step from which on a run would diverge."""
        ...

    def couplings(self, state: ParticleState) -> Float64[np.ndarray, "system row particle"]:
        """Return strengths whose product multiplies the force (one row), or a factor for each pair."""
        ...


def run(
    system: SmoothSystem,
    start: ParticleState,
    *,
    n_frames: int,
    frame_interval: float,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> Motion:
    """Follow every system from its start state to its last frame.

    The step divides ``frame_interval``: the largest such step up to ``time_step``. Positions and velocities err by
    the square of the step, energy oscillates by it and does not drift, and steps run backward as they ran forward.

    The log holds encounters, pairs closer than the sum of their radii: ``time`` when they came so near, interpolated,
    ``overlap`` the deepest at any step, ``impulse * normal`` the momentum that i gained from j meanwhile, by
    trapezoids. So ``normal`` points from j to i where the force repels and to j where it attracts; it is zero with
    ``impulse`` where no force acts. An encounter shorter than a step may go unseen. Impacts on walls are rows of
    duration and overlap 0.

    Args:
        system: the law of motion; its particle counts and radii are those of ``start``.
        start: states the system has accepted.
        n_frames: frames, the start included.
        frame_interval: simulation time between frames.
        rows_at_once: log rows buffered over all systems; a full buffer pauses its system, which goes on at the
            same bits after the buffer was emptied, so the number changes no result.

    Returns:
        All frames and the log.

    Raises:
        ValueError: a step too long for the forces, or particles so fast that they cross the box within one.

    Cost:
        O(particles^2) a step; O(particles) with a cutoff, from some fifty particles on.

    References:
        Swope, Andersen, Berens and Wilson 1982, doi:10.1063/1.442716 (velocity Verlet). The impact on a wall and the
        turn in a magnetic field are symmetric compositions, see ``smooth_walls`` and ``smooth_kernel``; Boris 1970
        turns by an angle whose tangent is approximated, here it is exact.
    """
    setup = _setup(system, start, n_frames, frame_interval)
    n_systems, n_particles, dim = start.positions.shape
    positions = np.empty((n_systems, n_frames, n_particles, dim))
    velocities = np.empty_like(positions)

    def run_block(block: slice) -> list[np.ndarray]:
        return _run_block(system, start, block, setup, rows_at_once, positions[block], velocities[block])

    parts = on_threads(run_block, blocks_of(n_systems, _SYSTEMS_AT_ONCE))
    return Motion(positions, velocities, CollisionLog(*on_threads(joined, zip(*parts, strict=True))))


def _run_block(
    system: SmoothSystem,
    start: ParticleState,
    block: slice,
    setup: Setup,
    rows_at_once: int,
    positions: np.ndarray,
    velocities: np.ndarray,
) -> list[np.ndarray]:
    """Run some systems to their end; return the columns of their log."""
    bodies = _bodies(system, _block(start, block), setup)
    status = np.full(len(bodies.tally), FRESH)
    spare = 1  # grows where a buffer is too short for a single step
    parts: list[list[np.ndarray]] = []
    while len(active := np.flatnonzero(status != DONE)):
        rows = _empty_rows(len(active), spare * max(1, rows_at_once // len(active)), system.dim)
        before = bodies.tally[active, STEP].copy()
        for a, s in enumerate(active):
            status[s] = run_system(s, a, status[s], system.law, setup, bodies, rows, positions, velocities)
        if (status == HASTY).any():
            _refuse_haste(block.start + int(np.argmax(status == HASTY)), setup)
        parts.append(_drain(rows, block.start + active))
        stuck = (bodies.tally[active, STEP] == before) & (rows.filled[:, 0] == 0) & (status[active] != DONE)
        if stuck.any():
            spare *= 2
            bodies = _with_longer_table(bodies)
    return _gather(parts, last=setup.duration)


def _setup(system: SmoothSystem, start: ParticleState, n_frames: int, frame_interval: float) -> Setup:
    """Choose the step and whether to sum over a list."""
    wanted = system.default_step if system.time_step is None else system.time_step
    steps = max(1, math.ceil(frame_interval / wanted * (1 - 1e-12)))  # a quotient a hair above a whole number is whole
    step = frame_interval / steps
    longest = system.longest_step(start)
    if step >= longest:
        raise ValueError(
            f"time_step must be below {longest:.6g} for the forces and masses of this start state, got a step of "
            f"{step:.6g}; lower time_step"
        )
    kinds = np.array(boundaries(system))
    box = np.array(system.box)
    widest = 2 * float(start.radii.max())
    listed = math.isfinite(system.cutoff) and start.positions.shape[1] >= _LIST_FROM
    skin = _SKIN * system.cutoff if listed else 0.0
    return Setup(
        lengths=np.where(periodic_axes(system), box, 0.0),
        low=np.where(kinds == "walls", 0.0, -np.inf),
        walls=np.where(kinds == "walls", box, np.inf),
        step=step,
        steps_per_frame=steps,
        n_frames=n_frames,
        duration=(n_frames - 1) * frame_interval,
        reach=max(system.cutoff, widest) * (1 + 1e-12) + skin if listed else 0.0,
        skin=skin,
        pushed=hasattr(type(system.law), "external_force"),
    )


def _block(start: ParticleState, block: slice) -> ParticleState:
    """Return some of the systems."""
    columns: dict[str, Any] = {
        field.name: None if (column := getattr(start, field.name)) is None else column[block] for field in fields(start)
    }
    return ParticleState(**columns)


def _bodies(system: SmoothSystem, start: ParticleState, setup: Setup) -> Bodies:
    """Return the running state at time 0."""
    n_systems, n_particles, dim = start.positions.shape
    couplings = system.couplings(start).copy()  # copies throughout: a record of the user's may be read-only
    single = couplings.shape[1] == 1
    strengths = couplings[:, 0].copy() if single else start.masses.copy()
    rate = strengths * getattr(system, "magnetic_field", 0.0) / start.masses
    angle = 0.5 * setup.step * rate
    turning = np.stack([rate, np.cos(angle), np.sin(angle)], axis=1)
    largest = start.radii.max(axis=1, keepdims=True)
    position = start.positions.swapaxes(1, 2).copy()  # (system, dim, particle)
    n_open = _OPEN_A_PARTICLE * n_particles  # grows where more are near each other
    return Bodies(
        position=position,
        previous=position.copy(),
        listed=position.copy(),
        velocity=start.velocities.swapaxes(1, 2).copy(),
        acceleration=np.zeros_like(position),
        radii=start.radii.copy(),
        masses=start.masses.copy(),
        strengths=strengths,
        couplings=couplings.reshape(n_systems, -1),
        response=(strengths if single else 1.0) / start.masses,
        near=(start.radii + largest) ** 2 * (1 + 1e-12),  # no pair within reach is missed for a rounding
        turning=np.ascontiguousarray(turning if rate.any() else turning[:, :, :0]),
        crowd=np.zeros((n_systems, n_particles)),
        tally=apart(np.zeros((n_systems, 2), dtype=np.int64)),
        pair=np.zeros((n_systems, n_open, 2), dtype=np.int64),
        begin=np.zeros((n_systems, n_open)),
        deepest=np.zeros((n_systems, n_open)),
        gained=np.zeros((n_systems, n_open, dim)),
    )


def _with_longer_table(bodies: Bodies) -> Bodies:
    """Return the same state with room for twice as many encounters at a time."""
    names = ("pair", "begin", "deepest", "gained")
    longer = {name: np.concatenate([column := getattr(bodies, name), np.zeros_like(column)], axis=1) for name in names}
    return bodies._replace(**longer)


def _empty_rows(n_systems: int, capacity: int, dim: int) -> Rows:
    """Return log buffers of ``capacity`` rows a system."""
    shape = (n_systems, capacity)
    return Rows(
        time=np.empty(shape),
        i=np.empty(shape, dtype=np.int32),
        j=np.empty(shape, dtype=np.int32),
        impulse=np.empty(shape),
        normal=np.empty((*shape, dim)),
        duration=np.empty(shape),
        overlap=np.empty(shape),
        filled=apart(np.zeros((n_systems, 1), dtype=np.int64)),
    )


def _drain(rows: Rows, systems: np.ndarray) -> list[np.ndarray]:
    """Return the filled rows of these systems as the columns of ``CollisionLog`` in their order."""
    written = np.arange(rows.time.shape[1]) < rows.filled  # (system, row)
    system = systems[np.nonzero(written)[0]].astype(np.int32)
    time, i, j, impulse, normal, duration, overlap = (column[written] for column in rows[:7])
    return [system, time, i, j, impulse, normal, np.zeros(len(time), dtype=np.bool_), duration, overlap]


def _gather(parts: list[list[np.ndarray]], *, last: float) -> list[np.ndarray]:
    """Join the rounds in order of systems and time; no time is later than the last frame by a rounding error."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns[1] = np.minimum(columns[1], last)
    order = np.lexsort((columns[1], columns[0]))
    return [column.take(order, axis=0) for column in columns]


def _refuse_haste(which: int, setup: Setup) -> None:
    raise ValueError(
        f"system {which}: particles met walls more than {MOST_BOUNCES} times each in a step of {setup.step:.6g}; lower "
        "time_step or the velocities"
    )

"""Time-stepped dynamics of soft discs and spheres: the host side of ``soft_kernel``."""

import math

import numpy as np

from simulators.engines.contact_log import drained, in_order
from simulators.engines.free_flight import empty_plan
from simulators.engines.grains import (
    BODY_ROWS,
    CONTACT_COLUMNS,
    COUNTERS,
    CRAMPED,
    CROWDED,
    DIVERGED,
    DONE,
    INERTIA,
    LOGGED,
    MASS,
    ORIGIN,
    RADIUS,
    ROWS,
    RUNNING,
    SPIN,
    VELOCITY,
    ContactLaw,
    Grains,
)
from simulators.engines.neighbor_list import empty_list
from simulators.engines.soft_kernel import run_systems
from simulators.engines.threads import apart, blocks_of, joined, on_threads
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems.soft_spheres import SoftSpheres
from simulators.systems.system import boundaries, moment_of_inertia

_SYSTEMS_AT_ONCE = 16_384  # bounds the working memory
_ROWS_AT_ONCE = 1 << 16  # log rows buffered a round, shared by the systems: 5 MB, which stay in the caches
_ROWS_A_SYSTEM = 32  # at least, so that many systems do not pause all the time
_SKIN = 1.4  # of the mean radius: our choice; 1.2 to 2.4 differ by less than 5 % at 16 to 1024 discs of packing 0.2
_CELLS_FROM = 32  # particles: our choice; at 16 both ways cost the same
_ENTRIES_A_PARTICLE = 16  # of a list at first: at most 6 walls and some neighbours; it grows when needed
CONTACTS_A_PARTICLE = 3  # room at the start: discs in a pile have two each, and it grows when needed


def run(
    system: SoftSpheres,
    start: ParticleState,
    *,
    n_frames: int,
    frame_interval: float,
    rows_at_once: int = _ROWS_AT_ONCE,
    skin: float = _SKIN,
    cells_from: int = _CELLS_FROM,
) -> Motion:
    """Follow every system from its start state to its last frame.

    The step is the largest one up to ``system.step`` of which whole numbers fill a frame interval.

    Args:
        system: the law of motion; its particle counts and radii are those of ``start``.
        start: states the system has accepted.
        n_frames: frames, the start included.
        frame_interval: simulation time between frames.
        rows_at_once: log rows buffered over all systems, or up to 32 for each if that is more; a full buffer pauses its
            system, which goes on at the same bits after the buffer was emptied, so the number changes no result.
        skin: how much further than their touch the neighbour list looks, in mean radii; changes no result.
        cells_from: particles from which lists are built from cells; changes no result.

    Returns:
        All frames and the log, one row a contact.

    Raises:
        ValueError: a particle sank into another or a wall by more than its radius, or a run diverged.

    Cost:
        O(particles) every few dozen steps; in between, a step costs O(particles that touch or are about to).
    """
    n_systems, n_particles, dim = start.positions.shape
    law = _law(system, start, n_frames, frame_interval, skin, cells_from)
    positions = np.empty((n_systems, n_frames, n_particles, dim))
    velocities = np.empty_like(positions)
    turning = system.friction > 0
    spins = np.empty((n_systems, n_frames if turning else 0, n_particles, 1 if dim == 2 else 3))
    frames = (positions, velocities, spins)
    blocks = blocks_of(n_systems, _SYSTEMS_AT_ONCE)
    parts = on_threads(lambda block: _run_block(system, start, block, law, frames, rows_at_once), blocks)
    log = CollisionLog._unchecked(*on_threads(joined, zip(*parts, strict=True)))
    return Motion(positions, velocities, refuse_depth(system, start, log), spins if turning else None)


def _run_block(
    system: SoftSpheres,
    start: ParticleState,
    block: slice,
    law: ContactLaw,
    frames: tuple[np.ndarray, ...],
    rows_at_once: int,
) -> list[np.ndarray]:
    """Run some systems to their end; return the columns of their log."""
    n_particles = start.radii.shape[1]
    grains = _at_rest_in_time(start, block)
    status = np.full(len(grains.tally), RUNNING)
    capacity = _ENTRIES_A_PARTICLE * n_particles
    n_rows = max(rows_at_once, len(status) * min(rows_at_once, _ROWS_A_SYSTEM))
    rows, who = np.empty((n_rows, LOGGED)), np.empty((n_rows, 2), dtype=np.int32)
    others = (*_surroundings(system), law, *(frame[block] for frame in frames))
    parts: list[list[np.ndarray]] = []
    while len(active := np.flatnonzero(status != DONE)):
        near, plan = empty_list(n_particles, grains.contact.shape[1], capacity), empty_plan(n_particles, capacity)
        buffer = _cut(rows, len(active)), _cut(who, len(active))
        run_systems(active, status, grains, near, plan, *buffer, *others)
        parts.append(drained(*buffer, grains.tally[active, ROWS], block.start + active, law.dim))
        grains.tally[:, ROWS] = 0
        refuse_divergence(system, status == DIVERGED, block.start)
        if (status == CROWDED).any():
            grains = _with_more_contacts(grains)
        if (status == CRAMPED).any():
            capacity *= 2
    return in_order(parts)


def _law(
    system: SoftSpheres, start: ParticleState, n_frames: int, frame_interval: float, skin: float, cells_from: int
) -> ContactLaw:
    """Return what the compiled part has to know."""
    steps_per_frame = max(1, math.ceil(frame_interval / system.step - 1e-9))
    return ContactLaw(
        dim=system.dim,
        stiffness=system.stiffness,
        damping_ratio=system.damping_ratio,
        restitution=system.restitution,
        friction=system.friction,
        tangential_share=1 / 3 if system.dim == 2 else 2 / 7,
        hertz=system.contact == "hertz",
        tension=system.tension,
        interacting=system.interacting,
        amplitude=system.drive.amplitude,
        angular_frequency=system.drive.angular_frequency,
        rotation=system.drive.rotation,
        step=frame_interval / steps_per_frame,
        steps_per_frame=steps_per_frame,
        n_frames=n_frames,
        skin=skin * float(start.radii.mean()),
        widest=2 * float(start.radii.max()),
        cells_from=cells_from,
    )


def _surroundings(system: SoftSpheres) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gravity, (box lengths, periods) and which axes have walls, for three axes."""
    gravity, space, walls = np.zeros(3), np.zeros(6), np.zeros(3, dtype=np.bool_)
    for axis, kind in enumerate(boundaries(system)):
        gravity[axis] = system.gravity[axis]
        space[axis] = system.box[axis]
        space[3 + axis] = system.box[axis] if kind == "periodic" else 0.0
        walls[axis] = kind == "walls"
    return gravity, space, walls


def _at_rest_in_time(start: ParticleState, block: slice) -> Grains:
    """Return the running state at time 0, before any contact."""
    positions = start.positions[block]
    n_systems, n_particles, dim = positions.shape
    body = np.zeros((n_systems, BODY_ROWS, n_particles))
    body[:, :dim] = positions.swapaxes(1, 2)
    body[:, VELOCITY : VELOCITY + dim] = start.velocities[block].swapaxes(1, 2)
    if start.angular_velocities is not None:
        around = (
            slice(SPIN + 2, SPIN + 3) if dim == 2 else slice(SPIN, SPIN + 3)
        )  # two dimensions turn around the third
        body[:, around] = start.angular_velocities[block].swapaxes(1, 2)
    body[:, RADIUS], body[:, MASS] = start.radii[block], start.masses[block]
    body[:, INERTIA] = moment_of_inertia(start.radii[block], start.masses[block], dim)
    body[:, ORIGIN : ORIGIN + dim] = body[:, :dim]
    room = CONTACTS_A_PARTICLE * n_particles
    return Grains(
        body=body,
        fall=apart(np.zeros((n_systems, 2, 3))),
        contact=np.zeros((n_systems, room, CONTACT_COLUMNS)),
        who=np.zeros((n_systems, room, 3), dtype=np.int64),
        touched=np.zeros((n_systems, 2 * room), dtype=np.int64),
        tally=apart(np.zeros((n_systems, COUNTERS), dtype=np.int64)),
    )


def _with_more_contacts(grains: Grains) -> Grains:
    """Return the same state with twice the room for contacts."""
    contact, who, touched = (
        np.concatenate((array, np.zeros_like(array)), axis=1) for array in (grains.contact, grains.who, grains.touched)
    )
    return grains._replace(contact=contact, who=who, touched=touched)


def _cut(buffer: np.ndarray, n_systems: int) -> np.ndarray:
    """Return a buffer of rows in equal pieces, one a system."""
    room = len(buffer) // n_systems
    return buffer[: room * n_systems].reshape(n_systems, room, -1)


def refuse_divergence(system: SoftSpheres, diverged: np.ndarray, first: int) -> None:
    """Refuse a run in which numbers went out of range; ``first`` is the number of the first of these systems."""
    if diverged.any():
        raise ValueError(
            f"system {first + int(np.argmax(diverged))} diverged: a position or velocity is no finite number "
            f"(time_step={system.step:.3g}, contact_time={system.contact_time:g}); lower time_step or the speeds"
        )


def refuse_depth(system: SoftSpheres, start: ParticleState, log: CollisionLog) -> CollisionLog:
    """Return the log, unless particles sank into another or a wall by more than their radius."""
    j, overlap = log.j, log.overlap
    if overlap is None or overlap.max(initial=0.0) <= start.radii.min(initial=math.inf):
        return log
    smaller = start.radii[log.system, log.i]
    smaller = np.where(j >= 0, np.minimum(smaller, start.radii[log.system, np.maximum(j, 0)]), smaller)
    sunk = (overlap > smaller) & ((j < 0) | system.interacting)
    if sunk.any():
        row = int(np.argmax(sunk))
        raise ValueError(
            f"system {log.system[row]}: particle {log.i[row]} sank {overlap[row]:.3g} into "
            f"{'a wall' if j[row] < 0 else j[row]} from time {log.time[row]:.6g} on, more than the radius "
            f"{smaller[row]:.3g}: too soft for these speeds; lower contact_time={system.contact_time:g}"
        )
    return log

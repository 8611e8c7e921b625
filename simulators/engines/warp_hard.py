"""Exact event-driven dynamics of hard discs and spheres on a GPU: the host side of ``warp_hard_kernel``."""

from typing import Any

import numpy as np
import warp as wp

from simulators.engines.event_driven import ghosts_inside
from simulators.engines.event_rounds import MOST_FORCED, refuse_collapse, refuse_pile
from simulators.engines.warp_device import (
    ROWS_AT_ONCE,
    THREADS_A_BLOCK,
    DeviceLog,
    empty_columns,
    empty_frames,
    flags,
    on_device,
    quiet_device,
    row_capacity,
    systems_at_once,
    three,
)
from simulators.engines.warp_hard_kernel import DONE, FRESH, STUCK, Discs, run_systems
from simulators.engines.warp_rules import NEVER, Law, Rows
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems import HardSpheres
from simulators.systems.system import periodic_axes

_COLUMNS = {
    "time": wp.float64,
    "i": wp.int32,
    "j": wp.int32,
    "impulse": wp.float64,
    "normal": wp.vec3d,
    "forced": wp.bool,
}


def run(
    system: HardSpheres,
    start: ParticleState,
    *,
    n_frames: int,
    frame_interval: float,
    device: str = "cpu",
    rows_at_once: int = ROWS_AT_ONCE,
) -> Motion:
    """Follow every system from its start state to its last frame.

    Args:
        system: the law of motion; its particle counts and radii are those of ``start``.
        start: states the system has accepted.
        n_frames: frames, the start included.
        frame_interval: simulation time between frames.
        device: ``"cpu"`` (one core; slower than ``event_driven``, for tests) or ``"cuda"``.
        rows_at_once: log rows buffered over all systems; a full buffer pauses its system, which goes on at the
            same bits in a new one, so the number changes no result.

    Returns:
        All frames and the log. Bits repeat on the same device; devices and engines agree until chaos has amplified
        their rounding, some ten events a disc.

    Raises:
        ValueError: as ``event_driven.run``, or no CUDA device.

    Cost:
        O(particles) a collision and thread: for many systems of at most 64 particles.
    """
    n_systems, n_particles, dim = start.positions.shape
    positions = np.empty((n_systems, n_frames, n_particles, dim))
    velocities = np.empty_like(positions)
    logs: list[dict[str, np.ndarray]] = []
    ghost = not system.interacting
    at_once = systems_at_once(16 * n_frames * n_particles * dim + n_particles * (100 + ghost * n_particles))
    with quiet_device(device):
        law = _law(system, n_particles, n_frames, frame_interval)
        for first in range(0, n_systems, at_once):
            block = slice(first, min(first + at_once, n_systems))
            log, positions[block], velocities[block] = _run_block(system, start, block, law, rows_at_once)
            log["system"] += np.int32(first)
            logs.append(log)
    columns = {name: np.concatenate([log[name] for log in logs]) for name in logs[0]}
    columns["normal"] = np.ascontiguousarray(columns["normal"][:, :dim])
    return Motion(positions, velocities, CollisionLog(**columns))


def _run_block(
    system: HardSpheres, start: ParticleState, block: slice, law: Any, rows_at_once: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Run some systems on the device; return their log and frames."""
    discs = _at_rest_in_time(system, start, block)
    n_systems, n_particles, dim = start.positions[block].shape
    positions, velocities = (empty_frames(n_systems, law.n_frames, n_particles, dim) for _ in range(2))
    log = DeviceLog(tuple(_COLUMNS), n_systems)
    while True:
        status = discs.status.numpy()
        if (status == STUCK).any():
            refuse_collapse(block.start + int(np.argmax(status == STUCK)), system)
        n_forced = int(discs.n_forced.numpy().sum(dtype=np.int64))
        if n_forced > MOST_FORCED:
            refuse_pile(n_forced, system)
        active = np.flatnonzero(status != DONE).astype(np.int32)
        if not len(active):
            return log.columns(), positions.numpy(), velocities.numpy()
        rows = empty_columns(Rows(), _COLUMNS, row_capacity(rows_at_once, len(active)), len(active))
        threads = wp.array(active, dtype=wp.int32)
        inputs = [threads, discs, law, rows, positions, velocities]
        wp.launch(run_systems, dim=len(active), inputs=inputs, block_dim=THREADS_A_BLOCK)
        log.add(active, rows)


def _law(system: HardSpheres, n_particles: int, n_frames: int, frame_interval: float) -> Any:
    """Return the law as the device reads it."""
    law: Any = Law()
    law.gravity, law.box = three(system.gravity), three(system.box)
    law.periodic = flags(periodic_axes(system))
    law.dim, law.n_particles, law.n_frames = system.dim, n_particles, n_frames
    law.interacting = system.interacting
    law.restitution, law.restitution_velocity = system.restitution, system.restitution_velocity
    law.contact_time, law.frame_interval = system.contact_time, frame_interval
    return law


def _at_rest_in_time(system: HardSpheres, start: ParticleState, block: slice) -> Any:
    """Return the running state at time 0, with nothing predicted yet."""
    positions, radii = start.positions[block], start.radii[block]
    n_systems, n_particles = radii.shape
    shape = (n_particles, n_systems)
    discs: Any = Discs()
    discs.radii = on_device(radii)
    discs.masses = on_device(start.masses[block])
    discs.place = on_device(positions)
    discs.velocity = on_device(start.velocities[block])
    discs.struck = wp.full(shape, -float(NEVER), dtype=wp.float64)
    discs.due = wp.full(shape, float(NEVER), dtype=wp.float64)
    discs.partner = wp.zeros(shape, dtype=wp.int32)
    discs.inside = wp.array(np.moveaxis(ghosts_inside(system, positions, radii), 0, -1), dtype=wp.bool)
    for name, kind, value in (
        ("epoch", wp.float64, 0.0),
        ("burst_began", wp.float64, 0.0),
        ("frame", wp.int32, 1),
        ("events", wp.int32, 0),
        ("burst", wp.int32, 0),
        ("n_forced", wp.int32, 0),
        ("status", wp.int32, FRESH),
    ):
        setattr(discs, name, wp.full(n_systems, value, dtype=kind))
    return discs

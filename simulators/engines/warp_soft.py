"""Time-stepped dynamics of soft discs and spheres on a GPU: the host side of ``warp_soft_kernel``."""

import math
from typing import Any

import numpy as np
import warp as wp

from simulators.engines.contact_log import in_order
from simulators.engines.soft_contact import CONTACTS_A_PARTICLE, refuse_depth, refuse_divergence
from simulators.engines.warp_contacts import ContactLaw, ContactRows, Grains
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
from simulators.engines.warp_soft_kernel import CROWDED, DIVERGED, DONE, FULL, run_systems
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems.soft_spheres import SoftSpheres
from simulators.systems.system import boundaries

_STEPS_A_LAUNCH = 1000  # well under the second or two after which a desktop GPU would be reset
_COLUMNS = {
    "time": wp.float64,
    "i": wp.int32,
    "j": wp.int32,
    "impulse": wp.float64,
    "normal": wp.vec3d,
    "duration": wp.float64,
    "overlap": wp.float64,
}
_CONTACT_FIELDS = {
    "first": wp.int32,
    "second": wp.int32,
    "began": wp.float64,
    "deepest": wp.float64,
    "overlap": wp.float64,
    "normal": wp.vec3d,
    "momentum": wp.vec3d,
    "spring": wp.vec3d,
    "slip": wp.vec3d,
}


def run(
    system: SoftSpheres,
    start: ParticleState,
    *,
    n_frames: int,
    frame_interval: float,
    device: str = "cpu",
    rows_at_once: int = ROWS_AT_ONCE,
) -> Motion:
    """Follow every system from its start state to its last frame, with the law and the steps of ``soft_contact``.

    Args:
        system: the law of motion; its particle counts and radii are those of ``start``.
        start: states the system has accepted.
        n_frames: frames, the start included.
        frame_interval: simulation time between frames.
        device: ``"cpu"`` (one core; slower than ``soft_contact``, for tests) or ``"cuda"``.
        rows_at_once: log rows buffered over all systems; a full buffer pauses its system, which goes on at the
            same bits in a new one, so the number changes no result.

    Returns:
        All frames and the log, one row a contact. Bits repeat on the same device; devices and engines agree until
        chaos has amplified their rounding.

    Raises:
        ValueError: as ``soft_contact.run``, or no CUDA device.

    Cost:
        O(particles^2) a step and thread, and as many numbers of memory: for many systems of at most 64 particles.
    """
    n_systems, n_particles, dim = start.positions.shape
    positions = np.empty((n_systems, n_frames, n_particles, dim))
    velocities = np.empty_like(positions)
    turning = system.friction > 0
    spins = np.empty((n_systems, n_frames if turning else 0, n_particles, 1 if dim == 2 else 3))
    parts: list[list[np.ndarray]] = []
    frame_bytes = 8 * n_frames * n_particles * (3 * dim if turning else 2 * dim)
    at_once = systems_at_once(frame_bytes + n_particles * (4 * n_particles + 800))
    with quiet_device(device):
        law = _law(system, n_particles, n_frames, frame_interval)
        for first in range(0, n_systems, at_once):
            block = slice(first, min(first + at_once, n_systems))
            sizes = ((n_frames, dim), (n_frames, dim), spins.shape[1::2])
            frames = [empty_frames(block.stop - first, many, n_particles, width) for many, width in sizes]
            parts.append(_run_block(system, start, block, law, frames, rows_at_once))
            positions[block], velocities[block], spins[block] = (frame.numpy() for frame in frames)
    log = refuse_depth(system, start, CollisionLog(*in_order(parts)))
    return Motion(positions, velocities, log, spins if turning else None)


def _run_block(
    system: SoftSpheres, start: ParticleState, block: slice, law: Any, frames: list[Any], rows_at_once: int
) -> list[np.ndarray]:
    """Run some systems on the device; return their log as columns in the order of ``CollisionLog``."""
    grains = _at_rest_in_time(start, block)
    status = np.zeros(block.stop - block.start, dtype=np.int32)
    log = DeviceLog(tuple(_COLUMNS), len(status))
    threads, rows = _begin_round(log, status, rows_at_once)
    while (status != DONE).any() and not (status == DIVERGED).any():
        if (status == CROWDED).any():
            _make_room(grains)
        if (status == FULL).any():
            threads, rows = _begin_round(log, status, rows_at_once)
        inputs = [threads, _STEPS_A_LAUNCH, grains, law, rows, *frames]
        wp.launch(run_systems, dim=threads.size, inputs=inputs, block_dim=THREADS_A_BLOCK)
        status = grains.status.numpy()
    refuse_divergence(system, status == DIVERGED, block.start)
    flat = log.columns()
    forced = np.zeros(len(flat["time"]), dtype=np.bool_)
    normal = np.ascontiguousarray(flat["normal"][:, : law.dim])
    who = [flat["system"] + np.int32(block.start), flat["time"], flat["i"], flat["j"]]
    return [*who, flat["impulse"], normal, forced, flat["duration"], flat["overlap"]]


def _begin_round(log: DeviceLog, status: np.ndarray, rows_at_once: int) -> tuple[Any, Any]:
    """Return which systems still run, on the device, and empty buffers for their log."""
    active = np.flatnonzero(status != DONE).astype(np.int32)
    rows = empty_columns(ContactRows(), _COLUMNS, row_capacity(rows_at_once, len(active)), len(active))
    log.add(active, rows)
    return wp.array(active, dtype=wp.int32), rows


def _law(system: SoftSpheres, n_particles: int, n_frames: int, frame_interval: float) -> Any:
    """Return the law as the device reads it."""
    kinds = boundaries(system)
    law: Any = ContactLaw()
    law.gravity, law.box = three(system.gravity), three(system.box)
    law.period = three([side if kind == "periodic" else 0.0 for side, kind in zip(system.box, kinds, strict=True)])
    law.walls = flags(kind == "walls" for kind in kinds)
    law.dim, law.n_particles, law.n_frames = system.dim, n_particles, n_frames
    law.hertz, law.tension, law.interacting = system.contact == "hertz", system.tension, system.interacting
    law.stiffness, law.damping_ratio = system.stiffness, system.damping_ratio
    law.restitution, law.friction = system.restitution, system.friction
    law.amplitude, law.angular_frequency, law.rotation = system.drive
    law.steps_per_frame = max(1, math.ceil(frame_interval / system.step - 1e-9))
    law.step = frame_interval / law.steps_per_frame
    return law


def _at_rest_in_time(start: ParticleState, block: slice) -> Any:
    """Return the running state at time 0, before any contact."""
    positions, spins = start.positions[block], start.angular_velocities
    n_systems, n_particles, dim = positions.shape
    shape = (n_particles, n_systems)
    grains: Any = Grains()
    grains.radii, grains.masses = on_device(start.radii[block]), on_device(start.masses[block])
    grains.position, grains.velocity = on_device(positions), on_device(start.velocities[block])
    turning = np.zeros((n_systems, n_particles, 3))
    if spins is not None:
        turning[..., 2 if dim == 2 else slice(None)] = spins[block, :, 0] if dim == 2 else spins[block]
    grains.spin = on_device(turning)
    grains.push, grains.twist = wp.zeros(shape, dtype=wp.vec3d), wp.zeros(shape, dtype=wp.vec3d)
    grains.slot = wp.full((n_particles, n_particles + 2 * dim, n_systems), -1, dtype=wp.int32)
    for name, kind in _CONTACT_FIELDS.items():
        setattr(grains, name, wp.zeros((max(1, round(CONTACTS_A_PARTICLE * n_particles)), n_systems), dtype=kind))
    grains.n_contacts, grains.steps = wp.zeros(n_systems, dtype=wp.int32), wp.zeros(n_systems, dtype=wp.int32)
    grains.status = wp.zeros(n_systems, dtype=wp.int32)
    return grains


def _make_room(grains: Any) -> None:
    """Double the room for contacts."""
    for name, kind in _CONTACT_FIELDS.items():
        old = getattr(grains, name)
        new = wp.zeros((2 * old.shape[0], old.shape[1]), dtype=kind)
        wp.copy(new, old, count=old.size)  # the first rows of the new are all of the old
        setattr(grains, name, new)

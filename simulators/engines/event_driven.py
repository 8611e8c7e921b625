"""Exact event-driven dynamics of hard discs and spheres: the host side of ``event_kernel``."""

import numpy as np

from simulators.engines.event_kernel import run_systems
from simulators.engines.event_prediction import Discs
from simulators.engines.event_rounds import ROWS_AT_ONCE, Rounds, law_of
from simulators.engines.event_rules import NEVER
from simulators.engines.threads import apart
from simulators.state import Motion, ParticleState
from simulators.systems import HardSpheres
from simulators.systems.system import minimum_image

_SYSTEMS_AT_ONCE = 16_384  # bounds the working memory: 12 MB with ten discs


def run(
    system: HardSpheres,
    start: ParticleState,
    *,
    n_frames: int,
    frame_interval: float,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Motion:
    """Follow every system from its start state to its last frame.

    Args:
        system: the law of motion; its particle counts and radii are those of ``start``.
        start: states the system has accepted.
        n_frames: frames, the start included.
        frame_interval: simulation time between frames.
        rows_at_once: log rows after which a system pauses, and goes on at the same bits after the host has looked for
            collapse, so the number changes no result.

    Returns:
        All frames and the log.

    Raises:
        ValueError: time stands still in a system (more than 1000 collisions a disc within 1e-9 of a frame
            interval), or more than 10^7 collisions were forced: discs at rest, for which this engine is not made.

    Cost:
        O(particles) a collision; pays up to about 64 particles a system.
    """
    law = law_of(system, n_frames, frame_interval)
    rounds = Rounds(system, law, start, rows_at_once)
    return rounds.run(run_systems, lambda block: (_at_rest_in_time(system, start, block),), _SYSTEMS_AT_ONCE)


def _at_rest_in_time(system: HardSpheres, start: ParticleState, block: slice) -> Discs:
    """Return the running state at time 0, when each disc first looks for its next event."""
    positions = start.positions[block]
    n_systems, n_particles, _ = positions.shape
    tally = np.zeros((n_systems, 3), dtype=np.int64)
    tally[:, 0] = 1  # frame 0 is the start state itself
    per_disc = (n_systems, n_particles)
    discs = Discs(
        radii=start.radii[block],
        masses=start.masses[block],
        place=positions.swapaxes(1, 2),  # (system, dim, particle)
        velocity=start.velocities[block].swapaxes(1, 2),
        struck=np.full(per_disc, -NEVER),
        due=np.zeros(per_disc),
        partner=np.tile(np.arange(n_particles), (n_systems, 1)),
        inside=ghosts_inside(system, positions, start.radii[block]),
        clock=np.zeros((n_systems, 3)),
        tally=tally,
    )
    return Discs(*map(apart, discs))


def ghosts_inside(system: HardSpheres, positions: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Tell which ghosts overlap at the start, (system, particle, particle); of other discs nothing is kept."""
    n_systems, n_particles = radii.shape
    if system.interacting:
        return np.zeros((n_systems, 0, 0), dtype=np.bool_)
    inside = np.empty((n_systems, n_particles, n_particles), dtype=np.bool_)
    for i in range(n_particles):
        separation = minimum_image(positions - positions[:, i : i + 1], system)
        inside[:, i] = (separation**2).sum(axis=-1) < (radii + radii[:, i : i + 1]) ** 2
        inside[:, i, i] = False
    return inside

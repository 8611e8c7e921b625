"""Exact event-driven dynamics of many hard discs and spheres: the host side of ``cell_kernel``."""

import numpy as np

from simulators.engines.cell_kernel import run_systems
from simulators.engines.cell_search import (
    CELL,
    COLUMNS,
    MASS,
    NAME,
    PLACE,
    RADIUS,
    STRUCK,
    VELOCITY,
    Cells,
    Grid,
)
from simulators.engines.event_queue import tree_size
from simulators.engines.event_rounds import ROWS_AT_ONCE, Rounds, law_of
from simulators.engines.event_rules import NEVER, Law
from simulators.engines.threads import apart
from simulators.state import Motion, ParticleState
from simulators.systems import HardSpheres

_PARTICLES_AT_ONCE = 1 << 20  # bounds the working memory: 200 MB
_CELL_WIDTH = 1.05  # largest diameters. The fastest at 1024 discs of packing 0.2, see ``run``
_CELLS_PER_PARTICLE = 4.0  # at most: more, in dilute systems, cost memory and crossings


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
        ValueError: ghost discs; time stands still in a system (more than 1000 collisions a disc within 1e-9 of a
            frame interval), or more than 10^7 collisions were forced: discs at rest, for which this engine is not
            made.

    Cost:
        O(log(particles)) a collision, and O(particles) a frame; pays from about 64 particles a system. Caches no longer
        hold 10^5 particles, where a collision costs 1.7 times what it costs among 10^3.
    """
    if not system.interacting:
        raise ValueError('interacting must be True for engine="event_driven_cells"; run ghosts with "event_driven"')
    law = law_of(system, n_frames, frame_interval)
    grid = _grid(law, start)
    rounds = Rounds(system, law, start, rows_at_once)
    systems_at_once = max(1, _PARTICLES_AT_ONCE // start.radii.shape[1])
    return rounds.run(run_systems, lambda block: (_at_rest_in_time(start, block, grid), grid), systems_at_once)


def _grid(law: Law, start: ParticleState) -> Grid:
    """Return cells wider than the largest particle, a single layer of them in two dimensions."""
    dim = len(law.box)
    width = _least_width(start.radii, law.box)
    box, periodic = np.ones(3), np.zeros(3, dtype=np.bool_)
    box[:dim], periodic[:dim] = law.box, law.periodic
    cells = np.ones(3, dtype=np.int64)
    cells[:dim] = np.maximum(law.box // width, 1)
    levels = tree_size(start.radii.shape[1]).bit_length() - 1
    return Grid(box, periodic, cells, box / cells, soon=max(levels - 6, 0), next=max(levels - 3, 0))


def _least_width(radii: np.ndarray, box: np.ndarray) -> float:
    """Return the width below which no cell may be."""
    cell = float(box.prod()) / (_CELLS_PER_PARTICLE * radii.shape[1])
    return max(_CELL_WIDTH * 2 * float(radii.max()), cell ** (1 / len(box)))


def _at_rest_in_time(start: ParticleState, block: slice, grid: Grid) -> Cells:
    """Return the running state at time 0, with nothing predicted yet; particles lie in memory as they lie in space."""
    positions = start.positions[block]
    n_systems, n_particles, dim = positions.shape
    cell = np.zeros((n_systems, n_particles, 3), dtype=np.int32)
    cell[..., :dim] = np.clip(positions // grid.width[:dim], 0, grid.cells[:dim] - 1)
    order = np.argsort(np.ravel_multi_index(tuple(np.moveaxis(cell, -1, 0)), tuple(grid.cells)), axis=1, kind="stable")
    motion = _aligned((n_systems, n_particles, COLUMNS))
    links = motion.view(np.int32)
    each = np.arange(n_systems)[:, None]
    motion[..., PLACE : PLACE + dim] = positions[each, order]
    motion[..., VELOCITY : VELOCITY + dim] = start.velocities[block][each, order]
    motion[..., RADIUS] = start.radii[block][each, order]
    motion[..., MASS] = start.masses[block][each, order]
    motion[..., STRUCK] = -NEVER
    links[..., CELL : CELL + 3] = cell[each, order]
    links[..., NAME] = order
    nodes = (n_systems, 2 * tree_size(n_particles))
    tally = np.zeros((n_systems, 3), dtype=np.int64)
    tally[:, 0] = 1  # frame 0 is the start state itself
    return Cells(
        motion=motion,
        links=links,
        head=np.empty((n_systems, int(grid.cells.prod())), dtype=np.int32),
        times=apart(np.empty(nodes)),
        winners=apart(np.empty(nodes, dtype=np.int32)),
        clock=apart(np.zeros((n_systems, 3))),
        tally=apart(tally),
        lists=apart(np.empty(27, dtype=np.int64)),
        seen=apart(np.empty((27, 3))),
    )


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros that begin at a cache line."""
    line, size = 64, int(np.prod(shape))
    memory = np.zeros(size + line // 8)
    skip = -memory.ctypes.data % line // memory.itemsize
    return memory[skip : skip + size].reshape(shape)

"""The host side that event-driven engines share: blocks of systems on all cores, and the log they leave."""

from collections.abc import Callable

import numpy as np

from simulators.engines.event_log import LogMemory, closed_up, filled
from simulators.engines.event_rules import DONE, EPOCH, FILLED, FORCED, FRESH, NOW, PAUSE, STUCK, Law
from simulators.engines.threads import blocks_of, on_threads
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems import HardSpheres
from simulators.systems.system import periodic_axes

MOST_FORCED = 10_000_000  # some ten seconds of discs at rest; beyond lies a collapse its owner has not noticed
ROWS_AT_ONCE = 1 << 15  # a round then takes some 10 ms


def law_of(system: HardSpheres, n_frames: int, frame_interval: float) -> Law:
    """Return what the kernels need to know of a system and its run."""
    return Law(
        np.array(system.gravity),
        np.array(system.box),
        periodic_axes(system),
        system.restitution,
        system.restitution_velocity,
        system.contact_time,
        system.interacting,
        frame_interval,
        n_frames,
    )


class Rounds:
    """A run of all systems, in rounds: after so many log rows each block pauses for the host to look.

    Args:
        system: the law of motion.
        law: the same for the kernel.
        start: states the system has accepted.
        rows_at_once: of a round.
    """

    def __init__(self, system: HardSpheres, law: Law, start: ParticleState, rows_at_once: int) -> None:
        self.system, self.law, self.rows_at_once = system, law, rows_at_once
        n_systems, n_particles, dim = start.positions.shape
        self.positions = np.empty((n_systems, law.n_frames, n_particles, dim))
        self.velocities = np.empty_like(self.positions)
        self.positions[:, 0] = start.positions
        self.velocities[:, 0] = start.velocities
        self.memory = LogMemory(n_systems, dim)
        self.n_forced = np.zeros(n_systems, dtype=np.int64)  # of a block, at its first system

    def run(self, kernel: Callable, begin: Callable[[slice], tuple], systems_at_once: int) -> Motion:
        """Run all systems to their end, on as many threads as numba has; their number changes no bit.

        Args:
            kernel: runs systems from the state that ``begin`` gives until they are done or the rows full.
            begin: returns the running state at time 0 of a block of systems.
            systems_at_once: in the blocks of all threads at most; bounds the working memory.

        Raises:
            ValueError: a system is stuck, or more than 10^7 collisions were forced.
        """
        blocks = blocks_of(len(self.positions), systems_at_once)
        parts = on_threads(lambda block: self._run_block(block, kernel, begin), blocks)
        counts, *columns = zip(*parts, strict=True)
        system = np.repeat(np.arange(len(self.positions), dtype=np.int32), np.concatenate(counts))
        columns = [system, *on_threads(closed_up, columns)]
        return Motion(self.positions, self.velocities, CollisionLog._unchecked(*columns))

    def _run_block(self, block: slice, kernel: Callable, begin: Callable[[slice], tuple]) -> list[np.ndarray]:
        """Return how many rows each of some systems leaves, and the columns of these but for their system."""
        state = begin(block)
        status = np.full(block.stop - block.start, FRESH)
        rows = self.memory.first_rows(len(status))
        while (status != DONE).any():
            if rows.tally[FILLED] == len(rows.time):
                rows = self.memory.more_room(block, rows, self._progress(status, state[0].clock))
            rows.tally[PAUSE] = min(rows.tally[FILLED] + self.rows_at_once, len(rows.time))
            kernel(status, rows, *state, self.law, self.positions[block], self.velocities[block])
            if (status == STUCK).any():
                refuse_collapse(block.start + int(np.argmax(status == STUCK)), self.system)
            self.n_forced[block.start] = rows.tally[FORCED]
            if (n_forced := int(self.n_forced.sum())) > MOST_FORCED:
                refuse_pile(n_forced, self.system)
        return [np.diff(rows.ends, prepend=0), *filled(rows)]

    def _progress(self, status: np.ndarray, clock: np.ndarray) -> float:
        """Return which part of a block's work is done, by the times that its systems have reached."""
        duration = (self.law.n_frames - 1) * self.law.frame_interval
        return float(np.where(status == DONE, 1.0, (clock[:, EPOCH] + clock[:, NOW]) / duration).mean())


def refuse_collapse(which: int, system: HardSpheres) -> None:
    """Say that time stands still in a system."""
    raise ValueError(
        f"system {which}: more than 1000 collisions a disc while time stood still (restitution="
        f"{system.restitution}, contact_time={system.contact_time}); raise contact_time or give the discs more room"
    )


def refuse_pile(n_forced: int, system: HardSpheres) -> None:
    """Say that too many collisions were forced."""
    raise ValueError(
        f"{n_forced} collisions of discs at rest, expected at most {MOST_FORCED} (restitution={system.restitution}): "
        f"each bounces every contact_time={system.contact_time}; raise it, simulate less, or take SoftSpheres, whose "
        "engine is made for piles"
    )

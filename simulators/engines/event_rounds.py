"""The host side that event-driven engines share: blocks of systems on all cores, and the log they leave.

A block runs its systems one after the other, so its rows come in the order of the finished log and are written where
they stay. Only the few of a log that was outgrown, and those of several blocks, are copied once more.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np

from simulators.engines.event_rules import DONE, EPOCH, FILLED, FORCED, FRESH, PAUSE, STUCK, Law, Rows
from simulators.state import CollisionLog, Motion, ParticleState
from simulators.systems import HardSpheres
from simulators.systems.system import periodic_axes

MOST_FORCED = 10_000_000  # some ten seconds of discs at rest; beyond lies a collapse its owner has not noticed
ROWS_AT_ONCE = 1 << 15  # few, since they are the ones to copy; a round then takes some 10 ms
_BLOCKS_A_THREAD = 8  # systems differ in work: with one block each, threads would wait for the last
_SPARE_ROOM = 1.2  # over the rows that a log is expected to have: room that is never written costs no memory


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
        self.n_forced = np.zeros(n_systems, dtype=np.int64)  # of a block, at its first system

    def run(self, kernel: Callable, begin: Callable[[slice], tuple], systems_at_once: int) -> Motion:
        """Run all systems to their end, on as many threads as numba has; their number changes no bit.

        Plain threads do, since compiled code runs without the lock of Python, and compile in half the time that
        numba's own parallel loops take.

        Args:
            kernel: runs systems from the state that ``begin`` gives until they are done or the rows full.
            begin: returns the running state at time 0 of a block of systems.
            systems_at_once: in the blocks of all threads at most; bounds the working memory.

        Raises:
            ValueError: a system is stuck, or more than 10^7 collisions were forced.
        """
        n_systems, n_threads = len(self.positions), numba.get_num_threads()
        n_blocks = -(-n_systems * n_threads // systems_at_once)
        if n_threads > 1:
            n_blocks = max(n_blocks, n_threads * _BLOCKS_A_THREAD)
        n_blocks = min(n_blocks, n_systems)
        edges = [n_systems * k // n_blocks for k in range(n_blocks + 1)]
        blocks = [slice(*pair) for pair in pairwise(edges)]
        if n_threads == 1 or n_blocks == 1:
            parts = [self._run_block(block, kernel, begin) for block in blocks]
            columns = [_joined(part) for part in zip(*parts, strict=True)]
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                parts = list(pool.map(lambda block: self._run_block(block, kernel, begin), blocks))
                columns = list(pool.map(_joined, zip(*parts, strict=True)))
        return Motion(self.positions, self.velocities, CollisionLog._unchecked(*columns))

    def _run_block(self, block: slice, kernel: Callable, begin: Callable[[slice], tuple]) -> tuple[np.ndarray, ...]:
        """Return the columns of the log of some systems."""
        state = begin(block)
        status = np.full(block.stop - block.start, FRESH)
        rows = _empty_rows(self.rows_at_once, len(status), self.system.dim)
        while (status != DONE).any():
            if rows.tally[FILLED] == len(rows.time):
                rows = _with_room(rows, self._progress(status, state[0].clock))
            rows.tally[PAUSE] = min(rows.tally[FILLED] + self.rows_at_once, len(rows.time))
            kernel(status, rows, *state, self.law, self.positions[block], self.velocities[block])
            if (status == STUCK).any():
                refuse_collapse(block.start + int(np.argmax(status == STUCK)), self.system)
            self.n_forced[block.start] = rows.tally[FORCED]
            if (n_forced := int(self.n_forced.sum())) > MOST_FORCED:
                refuse_pile(n_forced, self.system)
        numbers = np.arange(block.start, block.stop, dtype=np.int32)
        return np.repeat(numbers, np.diff(rows.ends, prepend=0)), *_filled(rows)

    def _progress(self, status: np.ndarray, clock: np.ndarray) -> float:
        """Return which part of a block's work is done, by the times that its systems have reached."""
        duration = (self.law.n_frames - 1) * self.law.frame_interval
        return float(np.where(status == DONE, 1.0, clock[:, EPOCH] / duration).mean())


def _empty_rows(room: int, n_systems: int, dim: int) -> Rows:
    """Return columns with room for so many rows."""
    return Rows(
        time=np.empty(room),
        i=np.empty(room, dtype=np.int32),
        j=np.empty(room, dtype=np.int32),
        impulse=np.empty(room),
        normal=np.empty((room, dim)),
        forced=np.empty(room, dtype=np.bool_),
        tally=np.zeros(3, dtype=np.int64),
        ends=np.zeros(n_systems, dtype=np.int64),
    )


def _with_room(rows: Rows, progress: float) -> Rows:
    """Return the same rows with room for as many as the whole block is expected to leave."""
    expected = _SPARE_ROOM / max(progress, 0.001)  # times the rows so far
    wider = _empty_rows(int(max(expected, 2.0) * len(rows.time)), len(rows.ends), rows.normal.shape[1])
    for new, old in zip(_filled(wider._replace(tally=rows.tally)), _filled(rows), strict=True):
        new[:] = old
    return wider._replace(tally=rows.tally, ends=rows.ends)


def _filled(rows: Rows) -> list[np.ndarray]:
    """Return the columns as far as they are written."""
    return [column[: rows.tally[FILLED]] for column in rows[:6]]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column of all blocks; a single one stays where it is unless much more room hangs on it."""
    if len(parts) == 1 and (parts[0].base is None or 2 * len(parts[0]) > len(parts[0].base)):
        return parts[0]
    return np.concatenate(parts)


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

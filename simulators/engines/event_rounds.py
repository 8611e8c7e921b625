"""The host side that event-driven engines share: rounds of work, each with fresh log buffers, joined at the end.

A row is written once by an engine and copied once, into its place in the joined log.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit

from simulators.engines.event_rules import DONE, FRESH, STUCK, Rows
from simulators.state import CollisionLog
from simulators.systems import HardSpheres

MOST_FORCED = 10_000_000  # some ten seconds of discs at rest; beyond lies a collapse its owner has not noticed


class Rounds:
    """Runs blocks of systems to their end, and keeps the rows of each round.

    Attributes:
        parts: of each round the systems that ran, (system,), and their rows.
        n_forced: rows so far in which the rule against inelastic collapse changed the outcome.
    """

    def __init__(self, system: HardSpheres, rows_at_once: int) -> None:
        self.system, self.rows_at_once = system, rows_at_once
        self.parts: list[tuple[np.ndarray, Rows]] = []
        self.n_forced = 0

    def run(self, first: int, n_systems: int, kernel: Callable, *arguments: Any) -> None:
        """Run the systems from ``first`` on until all are done.

        Args:
            first: number of the first system.
            n_systems: how many.
            kernel: called with the indices of those not yet done, the status of all, which it renews, and empty rows;
                it pauses a system whose rows are full.
            *arguments: what else the kernel takes.

        Raises:
            ValueError: a system is stuck, or more than 10^7 collisions were forced.
        """
        status = np.full(n_systems, FRESH)
        while len(active := np.flatnonzero(status != DONE)):
            rows = _empty_rows(len(active), max(1, self.rows_at_once // len(active)), self.system.dim)
            kernel(active, status, rows, *arguments)
            if (status == STUCK).any():
                refuse_collapse(first + int(np.argmax(status == STUCK)), self.system)
            self.parts.append(((first + active).astype(np.int32), rows))
            self.n_forced += int(rows.filled[:, 1].sum())
            if self.n_forced > MOST_FORCED:
                refuse_pile(self.n_forced, self.system)

    def log(self, n_systems: int) -> CollisionLog:
        """Return the rows of all rounds, sorted by system; within one they come in order of time."""
        counts = np.zeros(n_systems, dtype=np.int64)
        for systems, rows in self.parts:
            counts[systems] += rows.filled[:, 0]
        n_events = int(counts.sum())
        log = (
            np.repeat(np.arange(n_systems, dtype=np.int32), counts),
            np.empty(n_events),
            np.empty(n_events, dtype=np.int32),
            np.empty(n_events, dtype=np.int32),
            np.empty(n_events),
            np.empty((n_events, self.system.dim)),
            np.empty(n_events, dtype=np.bool_),
        )
        place = np.cumsum(counts) - counts
        for systems, rows in self.parts:
            _copy_rows(systems, rows, place, *log[1:])
        return CollisionLog(*log)


@njit(cache=True)
@no_type_check
def _copy_rows(systems, rows, place, time, i, j, impulse, normal, forced):
    """Copy the rows of a round to where those of each system go on."""
    for a in range(systems.shape[0]):
        count = rows.filled[a, 0]
        first = place[systems[a]]
        last = first + count
        time[first:last] = rows.time[a, :count]
        i[first:last] = rows.i[a, :count]
        j[first:last] = rows.j[a, :count]
        impulse[first:last] = rows.impulse[a, :count]
        normal[first:last] = rows.normal[a, :count]
        forced[first:last] = rows.forced[a, :count]
        place[systems[a]] = last


def _empty_rows(n_systems: int, capacity: int, dim: int) -> Rows:
    """Return log buffers of ``capacity`` rows a system."""
    shape = (n_systems, capacity)
    return Rows(
        time=np.empty(shape),
        i=np.empty(shape, dtype=np.int32),
        j=np.empty(shape, dtype=np.int32),
        impulse=np.empty(shape),
        normal=np.empty((*shape, dim)),
        forced=np.empty(shape, dtype=np.bool_),
        filled=np.zeros((n_systems, 2), dtype=np.int64),
    )


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

"""Memory for the log of event-driven engines, whose rows stay where they are written.

A block runs its systems one after the other, so its rows come in the order of the finished log. Each block writes to a
stretch of its own of columns that all blocks share, and the stretches are closed up in the end: that takes no new
memory, whose first touch costs more than all else about a row.
"""

import threading
from collections.abc import Sequence

import numpy as np

from simulators.engines.event_rules import FILLED, Rows
from simulators.engines.threads import apart

_FIRST_ROWS = 1 << 12  # of a block: few, since they are copied once it is known how many there will be
_SPARE_ROOM = 1.2  # over the rows that a log is expected to have: room that is never written costs no memory
_MOST_ROWS = 1 << 25  # reserved at once: 1.5 GB of addresses; a longer log is copied when it outgrows them


class LogMemory:
    """The columns of all blocks.

    Args:
        n_systems: of all blocks.
        dim: of space.
    """

    def __init__(self, n_systems: int, dim: int) -> None:
        self.n_systems, self.dim = n_systems, dim
        self.rows_a_system = 0  # in the shared columns; the first block that knows decides
        self.columns: tuple[np.ndarray, ...] = ()
        self.lock = threading.Lock()

    def first_rows(self, n_systems: int) -> Rows:
        """Return a block's first memory."""
        tally, ends = np.zeros(3, dtype=np.int64), np.zeros(n_systems, dtype=np.int64)
        return Rows(*self._empty(_FIRST_ROWS), tally=apart(tally), ends=apart(ends))

    def more_room(self, block: slice, rows: Rows, progress: float) -> Rows:
        """Return the same rows with room for as many as the whole block is expected to leave.

        Args:
            block: the systems.
            rows: full columns.
            progress: which part of the block's work is done.
        """
        n_systems = block.stop - block.start
        n_rows = max(2 * len(rows.time), min(_MOST_ROWS, int(len(rows.time) * _SPARE_ROOM / max(progress, 1e-6))))
        with self.lock:
            if not self.columns:
                self.rows_a_system = min(-(-n_rows // n_systems), _MOST_ROWS // self.n_systems)
                self.columns = self._empty(self.rows_a_system * self.n_systems)
        stretch = slice(self.rows_a_system * block.start, self.rows_a_system * block.stop)
        if stretch.stop - stretch.start >= 2 * len(rows.time):
            columns = tuple(column[stretch] for column in self.columns)
        else:  # it has outgrown its stretch, or will
            columns = self._empty(n_rows)
        for new, old in zip(columns, filled(rows), strict=True):
            new[: len(old)] = old
        return Rows(*columns, tally=rows.tally, ends=rows.ends)

    def _empty(self, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return columns in the order of ``Rows``."""
        time, impulse, normal = np.empty(n_rows), np.empty(n_rows), np.empty((n_rows, self.dim))
        i, j = np.empty(n_rows, dtype=np.int32), np.empty(n_rows, dtype=np.int32)
        return time, i, j, impulse, normal, np.empty(n_rows, dtype=np.bool_)


def filled(rows: Rows) -> list[np.ndarray]:
    """Return the columns as far as they are written."""
    return [column[: rows.tally[FILLED]] for column in rows[:6]]


def closed_up(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column of all blocks, in the place of the shared one if that is where they are."""
    whole, n_rows = parts[0].base, sum(map(len, parts))
    if whole is None or any(part.base is not whole for part in parts):
        return np.concatenate(parts)
    flat, at = whole.reshape(-1), 0  # overlapping copies within one dimension take no memory
    for part in parts:
        flat[at : at + part.size] = part.reshape(-1)
        at += part.size
    whole.resize((n_rows, *whole.shape[1:]), refcheck=False)  # gives back the rest; nobody looks at the parts again
    return whole

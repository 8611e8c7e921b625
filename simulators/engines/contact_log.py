"""The log of contacts: from the rows that systems leave in a buffer to sorted columns."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import no_type_check

import numpy as np

from simulators.engines.grains import BEGAN, DEEPEST, DURATION, MOMENTUM, NORMAL, running


def drained(values: np.ndarray, who: np.ndarray, filled: np.ndarray, systems: np.ndarray, dim: int) -> list[np.ndarray]:
    """Return the columns of ``CollisionLog`` in their order, of rows in the order in which contacts ended.

    Args:
        values: rows as ``grains.LOGGED`` numbers, (piece, row, column).
        who: particle and partner, (piece, row, 2).
        filled: how many rows of each piece are written, (piece,).
        systems: whose piece it is, (piece,).
        dim: of space.
    """
    n_rows = int(filled.sum())
    system, forced = np.repeat(systems.astype(np.int32), filled), np.zeros(n_rows, dtype=np.bool_)
    i, j = np.empty((2, n_rows), dtype=np.int32)
    time, impulse, duration, overlap = (np.empty(n_rows) for _ in range(4))
    normal = np.empty((n_rows, dim))
    _fill_columns(values, who, filled, time, i, j, impulse, normal, duration, overlap)
    return [system, time, i, j, impulse, normal, forced, duration, overlap]


@running
@no_type_check
def _fill_columns(values, who, filled, time, i, j, impulse, normal, duration, overlap):
    """Write the columns; momentum becomes impulse and direction."""
    row, dim = 0, normal.shape[1]
    for piece in range(len(filled)):
        for k in range(filled[piece]):
            squared = 0.0
            for axis in range(dim):
                squared += values[piece, k, MOMENTUM + axis] ** 2
            size = math.sqrt(squared)
            for axis in range(dim):  # of a contact without momentum, where the two lie
                normal[row, axis] = values[piece, k, (MOMENTUM if size > 0.0 else NORMAL) + axis]
                normal[row, axis] /= size if size > 0.0 else 1.0
            time[row], impulse[row] = values[piece, k, BEGAN], size
            i[row], j[row] = who[piece, k, 0], who[piece, k, 1]
            duration[row], overlap[row] = values[piece, k, DURATION], values[piece, k, DEEPEST]
            row += 1


def in_order(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Return the columns of all parts, sorted by system, time of begin, particle and partner."""
    columns = list(zip(*parts, strict=True))
    order = _order(*map(np.concatenate, columns[:4]))
    memory = np.empty(len(order) * max(_bytes_a_row(part) for part in parts[0]), dtype=np.uint8)
    return [_taken(column, order, memory) for column in columns]


def _taken(column: Sequence[np.ndarray], order: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Return a column in order; its parts are joined in memory that all columns use in turn: new memory is dear."""
    first = column[0]
    whole = memory[: len(order) * _bytes_a_row(first)].view(first.dtype).reshape(len(order), *first.shape[1:])
    np.concatenate(column, out=whole)
    return whole.take(order, axis=0)  # three times as fast as whole[order]


def _bytes_a_row(column: np.ndarray) -> int:
    """Return how much memory a row takes."""
    return column.itemsize * math.prod(column.shape[1:])


def _order(system: np.ndarray, time: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the order by (system, time, particle, partner).

    Contacts end nearly in the order in which they began, which a stable sort of each system for itself makes use of.
    """
    order = np.argsort(system, kind="stable")
    bounds = np.searchsorted(system[order], np.arange(system.max(initial=-1) + 2))
    for begin, end in pairwise(bounds):
        of_one = order[begin:end]
        order[begin:end] = of_one[np.argsort(time[of_one], kind="stable")]
    system, time = system[order], time[order]
    tied = np.zeros(len(order), dtype=np.bool_)
    tied[1:] = (system[1:] == system[:-1]) & (time[1:] == time[:-1])
    tied[:-1] |= tied[1:]
    of_tied = order[tied]
    order[tied] = of_tied[np.lexsort((j[of_tied], i[of_tied], time[tied], system[tied]))]
    return order

"""Cells for the list of near pairs: particles sorted by cell, so that a row of cells is one stretch of them.

A row is the cells along the first axis. Each pair is looked at once, from the particle that comes first: in its own row
those after it, and of every two opposite rows beside it one.
"""

import math
from typing import no_type_check

import numpy as np

from simulators.engines.grains import RADIUS, compiled, finding


@finding
@no_type_check
def _range(x):
    """Return the smallest and the largest entry."""
    low, high = x[0], x[0]
    for k in range(x.shape[0]):
        low = x[k] if x[k] < low else low
        high = x[k] if x[k] > high else high
    return low, high


@compiled
@no_type_check
def bin_particles(body, space, skin, shape, cell, start):
    """Give every particle its cell, at least as wide as the reach of the list."""
    n = body.shape[1]
    most = max(1, int((start.shape[0] - 1.0) ** (1.0 / 3.0 if space[2] > 0.0 else 0.5)))  # empty space costs little
    _, widest = _range(body[RADIUS])
    stride = 1
    for k in range(n):
        cell[k] = 0
    for axis in range(3):
        period, x = space[3 + axis], body[axis]
        low, high = (0.0, period) if period > 0.0 else _range(x)
        cells = max(1, int(min(float(most), (high - low) / (2.0 * widest + skin))))
        if period > 0.0 and cells < 3:
            cells = 1  # else a cell would be its own neighbour twice
        shape[axis] = cells
        if cells > 1:
            _place(x, low, period, cells / (high - low), cells, stride, cell)
        stride *= cells


@compiled
@no_type_check
def _place(x, low, period, scale, cells, stride, cell):
    """Add what an axis contributes to the number of the cell."""
    for k in range(x.shape[0]):
        offset = x[k] - low
        if period > 0.0:
            offset -= period * math.floor(offset / period)
        cell[k] += stride * min(int(offset * scale), cells - 1)


@compiled
@no_type_check
def sort_particles(body, cell, home, start, shape, order, place):
    """Write positions and radii in order of cells, and where the members of each begin."""
    n, n_cells = cell.shape[0], shape[0] * shape[1] * shape[2]
    for c in range(n_cells + 1):
        start[c] = 0
    for k in range(n):
        start[np.uint64(cell[k])] += 1
    total = 0
    for c in range(n_cells + 1):
        total += start[c]
        start[c] = total
    for k in range(n - 1, -1, -1):
        c = np.uint64(cell[k])
        start[c] -= 1
        p = np.uint64(start[c])
        order[p] = k
        home[p] = cell[k]
        place[0, p], place[1, p], place[2, p], place[3, p] = body[0, k], body[1, k], body[2, k], body[RADIUS, k]


@compiled
@no_type_check
def _neighbor(cell, offset, cells, period):
    """Return the cell at this offset along an axis, -1 where there is none."""
    other = cell + offset
    if 0 <= other < cells:
        return other
    if period == 0.0 or cells == 1:
        return -1
    return cells - 1 if other < 0 else 0


@compiled
@no_type_check
def rows_beside(cy, cz, shape, space, rows):
    """Write the rows of cells beside a row, one of each two opposite ones; return how many."""
    count = 0
    for o in range(4 if shape[2] > 1 else 1):
        y, z = _neighbor(cy, 1 if o == 0 else o - 2, shape[1], space[4]), cz
        if o > 0:
            z = _neighbor(cz, 1, shape[2], space[5])
        if y >= 0 and z >= 0:
            rows[count] = (z * shape[1] + y) * shape[0]
            count += 1
    return count


@compiled
@no_type_check
def stretches(p, cx, row, rows, n_rows, cells, wrapped, start, pieces):
    """Write the stretches of particles that may be near particle ``p`` and come after it; return how many."""
    pieces[0], pieces[1] = p + 1, start[row + min(cx + 2, cells)]
    count = 1
    if wrapped and cx == cells - 1:
        pieces[2], pieces[3] = start[row], start[row + 1]
        count = 2
    for r in range(n_rows):
        begin = rows[r]
        pieces[2 * count], pieces[2 * count + 1] = start[begin + max(cx - 1, 0)], start[begin + min(cx + 2, cells)]
        count += 1
        if wrapped and (cx == 0 or cx == cells - 1):
            cell = begin + (cells - 1 if cx == 0 else 0)
            pieces[2 * count], pieces[2 * count + 1] = start[cell], start[cell + 1]
            count += 1
    return count

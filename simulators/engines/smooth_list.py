"""The list of near pairs, for forces with a cutoff: found among the neighboring cells of a grid."""

import math
from typing import no_type_check

import numpy as np

from simulators.engines.smooth_pairs import compiled, per_length, summing
from simulators.engines.smooth_records import NearPairs

_CELLS_A_PARTICLE = 4  # at most, however sparse the system


@compiled
@no_type_check
def _grid(position, lengths, reach):
    """Return origin, cells per length and cells of each axis; cells are at least ``reach`` wide."""
    dim, n = position.shape
    origin, per_cell, cells = np.zeros(3), np.zeros(3), np.ones(3, dtype=np.int64)
    most = max(3.0, math.ceil((_CELLS_A_PARTICLE * n) ** (1.0 / dim)))
    for axis in range(dim):
        low, high = 0.0, lengths[axis]
        if high == 0.0:
            low, high = position[axis, 0], position[axis, 0]
            for k in range(n):
                low, high = min(low, position[axis, k]), max(high, position[axis, k])
        extent = (high - low) * (1.0 + 1e-9) + 1e-300
        cells[axis] = max(1, int(min((high - low) / reach, most)))
        if lengths[axis] != 0.0 and cells[axis] < 3:
            cells[axis] = 1  # two cells would be neighbors on both sides
        origin[axis], per_cell[axis] = low, cells[axis] / extent
    return origin, per_cell, cells


@compiled
@no_type_check
def _sort_into_cells(position, origin, per_cell, cells):
    """Return the cell of each particle on each axis, and the particles in order of cells."""
    dim, n = position.shape
    place = np.zeros((n, 3), dtype=np.int64)
    first = np.zeros(cells[0] * cells[1] * cells[2] + 1, dtype=np.int64)
    flat = np.empty(n, dtype=np.int64)
    for k in range(n):
        for axis in range(dim):
            c = int((position[axis, k] - origin[axis]) * per_cell[axis])
            place[k, axis] = min(max(c, 0), cells[axis] - 1)
        flat[k] = place[k, 0] + cells[0] * (place[k, 1] + cells[1] * place[k, 2])
        first[flat[k] + 1] += 1
    for c in range(1, first.shape[0]):
        first[c] += first[c - 1]
    order, filled = np.empty(n, dtype=np.int64), first.copy()
    for k in range(n):
        order[filled[flat[k]]] = k
        filled[flat[k]] += 1
    return place, first, order


@compiled
@no_type_check
def _in_order(position, order):
    """Return the coordinates in order of cells, (3, particle), so that loops over cells read them in a row."""
    ordered = np.zeros((3, order.shape[0]))
    for axis in range(position.shape[0]):
        for at in range(order.shape[0]):
            ordered[axis, at] = position[axis, order[at]]
    return ordered


@summing
@no_type_check
def _append(i, xi, yi, zi, begin, end, order, x, y, z, lengths, squared_reach, squared, partners, filled):
    """Append the particles of some cells that are within reach of i and come after it."""
    width, height, depth = lengths[0], lengths[1], lengths[2]
    per_width, per_height, per_depth = per_length(width), per_length(height), per_length(depth)
    for at in range(begin, end):  # a loop of its own, for the vector registers
        dx, dy, dz = xi - x[at], yi - y[at], zi - z[at]
        dx -= width * np.rint(dx * per_width)
        dy -= height * np.rint(dy * per_height)
        dz -= depth * np.rint(dz * per_depth)
        squared[at] = dx * dx + dy * dy + dz * dz
    for at in range(begin, end):  # without branches
        partners[filled] = order[at]
        filled += (order[at] > i) & (squared[at] < squared_reach)
    return filled


@compiled
@no_type_check
def _longer(partners, n):
    """Return a buffer of more than twice the length, with the same beginning."""
    longer = np.empty(2 * partners.shape[0] + n, dtype=np.int64)
    for place in range(partners.shape[0]):
        longer[place] = partners[place]
    return longer


@compiled
@no_type_check
def _neighbor(k, cells, length):
    """Return a cell's number on its axis, -1 where there is none."""
    if length != 0.0:
        return (k + cells) % cells
    return k if k < cells else -1


@compiled
@no_type_check
def _columns(part, column, cells):
    """Return the first and last neighboring cell in a row: inside the box (part 0), or through its far or near edge."""
    if part == 0:
        return max(column - 1, 0), min(column + 1, cells - 1)
    if part == 1:
        return 0, 0 if column == cells - 1 else -1  # an end before the begin: none
    return cells - 1, cells - 1 if column == 0 else cells - 2


@compiled
@no_type_check
def list_pairs(position, lengths, reach, partners):
    """Return every pair closer than ``reach``, found among neighboring cells.

    ``partners`` is a buffer of any length; a longer one takes its place where it is too short.
    """
    dim, n = position.shape
    origin, per_cell, cells = _grid(position, lengths, reach)
    place, first, order = _sort_into_cells(position, origin, per_cell, cells)
    starts, space, here = np.zeros(n + 1, dtype=np.int64), np.zeros(3), np.zeros(3)
    for axis in range(dim):
        space[axis] = lengths[axis]
    ordered, squared, squared_reach = _in_order(position, order), np.empty(n), reach * reach
    x, y, z = ordered[0], ordered[1], ordered[2]
    side_y, side_z = min(cells[1] - 1, 1), min(cells[2] - 1, 1)
    around = space[0] != 0.0 and cells[0] > 1
    filled = 0
    for i in range(n):
        for axis in range(dim):
            here[axis] = position[axis, i]
        xi, yi, zi = here[0], here[1], here[2]
        if filled + n >= partners.shape[0]:
            partners = _longer(partners, n)
        for up in range(-side_z, side_z + 1):
            k = _neighbor(place[i, 2] + up, cells[2], space[2])
            for back in range(-side_y, side_y + 1):
                row = _neighbor(place[i, 1] + back, cells[1], space[1])
                if k < 0 or row < 0:
                    continue
                base = cells[0] * (row + cells[1] * k)
                for part in range(3 if around else 1):
                    low, high = _columns(part, place[i, 0], cells[0])
                    begin, end = first[base + low], first[base + high + 1]
                    filled = _append(
                        i, xi, yi, zi, begin, end, order, x, y, z, space, squared_reach, squared, partners, filled
                    )
        starts[i + 1] = filled
    return NearPairs(starts, partners)

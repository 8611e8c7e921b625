"""The list of near pairs, for forces with a cutoff: found among the neighboring cells of a grid."""

import math
from typing import no_type_check

import numpy as np

from simulators.engines.smooth_pairs import compiled, per_length
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
def _append(i, begin, end, order, x, y, z, lengths, squared_reach, partners, filled):
    """Append the particles of some cells that are within reach of i and come after it; without branches."""
    width, height, depth = lengths[0], lengths[1], lengths[2]
    per_width, per_height, per_depth = per_length(width), per_length(height), per_length(depth)
    xi, yi, zi = x[i], y[i], z[i]
    for at in range(begin, end):
        j = order[at]
        dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
        dx -= width * np.rint(dx * per_width)
        dy -= height * np.rint(dy * per_height)
        dz -= depth * np.rint(dz * per_depth)
        partners[filled] = j
        filled += (j > i) & (dx * dx + dy * dy + dz * dz < squared_reach)
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
def list_pairs(position, lengths, reach, partners):
    """Return every pair closer than ``reach``, found among neighboring cells.

    ``partners`` is a buffer of any length; a longer one takes its place where it is too short.
    """
    dim, n = position.shape
    origin, per_cell, cells = _grid(position, lengths, reach)
    place, first, order = _sort_into_cells(position, origin, per_cell, cells)
    starts, space = np.zeros(n + 1, dtype=np.int64), np.zeros(3)
    for axis in range(dim):
        space[axis] = lengths[axis]
    flat = np.zeros(n) if dim == 2 else position[2]
    side_x, side_y, side_z = min(cells[0] - 1, 1), min(cells[1] - 1, 1), min(cells[2] - 1, 1)
    filled = 0
    for i in range(n):
        for up in range(-side_z, side_z + 1):
            k = _neighbor(place[i, 2] + up, cells[2], space[2])
            for back in range(-side_y, side_y + 1):
                row = _neighbor(place[i, 1] + back, cells[1], space[1])
                for right in range(-side_x, side_x + 1):
                    column = _neighbor(place[i, 0] + right, cells[0], space[0])
                    if k < 0 or row < 0 or column < 0:
                        continue
                    c = column + cells[0] * (row + cells[1] * k)
                    if filled + first[c + 1] - first[c] >= partners.shape[0]:
                        partners = _longer(partners, n)
                    filled = _append(
                        i,
                        first[c],
                        first[c + 1],
                        order,
                        position[0],
                        position[1],
                        flat,
                        space,
                        reach * reach,
                        partners,
                        filled,
                    )
        starts[i + 1] = filled
    return NearPairs(starts, partners)

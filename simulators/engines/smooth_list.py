"""The list of near pairs, for forces with a cutoff: found among the neighboring cells of a grid."""

import math
from typing import NamedTuple, no_type_check

import numpy as np

from simulators.engines.smooth_lanes import WIDTH, count_from, keep_apart, lanes, load, pack, rint
from simulators.engines.smooth_pairs import compiled, per_length, summing
from simulators.engines.smooth_records import NearPairs

_CELLS_A_PARTICLE = 4  # at most, however sparse the system


class _Grid(NamedTuple):
    """Particles in order of cells; three axes, of which the last may have one cell only."""

    lengths: np.ndarray  # (3,) of periodic axes, else 0
    per_lengths: np.ndarray  # (3,) the same inverted, else 0
    cells: np.ndarray  # (3,) how many
    place: np.ndarray  # (particle, 3) the cell of each
    first: np.ndarray  # (cell + 1,) where each cell begins in the following two
    order: np.ndarray  # (particle + 8,) who stands there
    ordered: np.ndarray  # (dim, particle) coordinates, so that loops over cells read them in a row


@compiled
@no_type_check
def _cells_of(position, lengths, reach):
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
def _sort_into_cells(position, lengths, reach):
    """Return the particles in order of cells."""
    dim, n = position.shape
    origin, per_cell, cells = _cells_of(position, lengths, reach)
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
    order, filled = np.zeros(n + WIDTH, dtype=np.int32), first.copy()
    for k in range(n):
        order[filled[flat[k]]] = k
        filled[flat[k]] += 1
    sizes, per_sizes, ordered = np.zeros(3), np.zeros(3), np.empty((dim, n))
    for axis in range(dim):
        sizes[axis], per_sizes[axis] = lengths[axis], per_length(lengths[axis])
        for at in range(n):
            ordered[axis, at] = position[axis, order[at]]
    return _Grid(sizes, per_sizes, cells, place, first, order, ordered)


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
def _append(here, begin, end, grid, squared_reach, row, size):
    """Append the particles of some cells that are within reach; return the new end of the row."""
    n = grid.ordered.shape[1]
    for at in range(begin, end, WIDTH):
        squared = lanes(0.0)
        for axis in range(grid.ordered.shape[0]):
            r = here[axis] - load(grid.ordered, n * axis + at, n * axis + end)
            r -= grid.lengths[axis] * rint(r * grid.per_lengths[axis])
            squared += r * r
        size = pack(row, size, grid.order, at, (squared < squared_reach) & (count_from(at) < float(end)))
    return size


@compiled
@no_type_check
def _write_row(i, here, grid, squared_reach, row, begin):
    """Write the partners of i; return their end."""
    cells, place, first, lengths = grid.cells, grid.place, grid.first, grid.lengths
    around = lengths[0] != 0.0 and cells[0] > 1
    side_y, side_z = min(cells[1] - 1, 1), min(cells[2] - 1, 1)
    end = begin
    for up in range(-side_z, side_z + 1):
        k = _neighbor(place[i, 2] + up, cells[2], lengths[2])
        for back in range(-side_y, side_y + 1):
            line = _neighbor(place[i, 1] + back, cells[1], lengths[1])
            if k < 0 or line < 0:
                continue
            base = cells[0] * (line + cells[1] * k)
            for part in range(3 if around else 1):
                low, high = _columns(part, place[i, 0], cells[0])
                end = _append(here, first[base + low], first[base + high + 1], grid, squared_reach, row, end)
    for at in range(begin, end):
        if row[at] == i:
            row[at] = row[end - 1]
    return end - 1  # without i itself


@summing
@no_type_check
def _write_list(position, grid, squared_reach, starts, selves, partners):
    """Write the list; return whether there was room."""
    keep_apart()
    dim, n = position.shape
    width = n + WIDTH  # of a row of partners, eight of which are written at a time
    row, here, lengths = np.empty(WIDTH * width, dtype=np.int32), np.empty(3), np.empty(WIDTH, dtype=np.int64)
    for block in range(starts.shape[0] - 1):
        longest = 0
        for lane in range(WIDTH):
            i = min(WIDTH * block + lane, n - 1)  # the last particle also fills the lanes beyond it
            for axis in range(dim):
                here[axis] = position[axis, i]
            lengths[lane] = _write_row(i, here, grid, squared_reach, row, width * lane) - width * lane
            longest = max(longest, lengths[lane])
        begin = WIDTH * starts[block]
        if begin + WIDTH * longest > partners.shape[0]:
            return False
        for lane in range(WIDTH):
            i = min(WIDTH * block + lane, n - 1)
            for k in range(longest):
                partners[begin + WIDTH * k + lane] = row[width * lane + k] if k < lengths[lane] else i
            selves[i] = longest - lengths[lane]
        starts[block + 1] = starts[block] + longest
    return True


@compiled
@no_type_check
def list_pairs(position, lengths, reach, partners):
    """Return every pair closer than ``reach``, found among neighboring cells.

    ``partners`` is a buffer of any length; a longer one takes its place where it is too short.
    """
    n = position.shape[1]
    grid = _sort_into_cells(position, lengths, reach)
    starts, selves = np.zeros((n + WIDTH - 1) // WIDTH + 1, dtype=np.int64), np.empty(n)
    while not _write_list(position, grid, reach * reach, starts, selves, partners):
        partners = np.empty(2 * partners.shape[0] + WIDTH * n, dtype=np.int32)
    return NearPairs(starts, partners, selves)

"""Who meets whom first among the cells around a particle: the state of the engine with cells, and its predictions.

The box is cut into cells wider than the largest particle, so a particle can only touch those in its own cell and the
cells around it. It knows two next events: the one with a partner, and the plane it reaches first, which is a wall or
the border to the next cell. At a border it looks only into the cells that came near; all else still holds.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np

from simulators.engines.event_queue import prefetch, reschedule
from simulators.engines.event_rules import NEVER, borrowing, wall_delay

# A particle fills two cache lines, and its neighbours look only at the first: columns of Cells.motion (8 bytes each),
PLACE, VELOCITY, RADIUS, MASS, PAIR_DUE, PLANE_DUE, STRUCK = 0, 3, 6, 8, 9, 10, 11
NEXT, PREVIOUS, CELL, COUNT, PARTNER, PARTNER_COUNT, PLANE, NAME = 14, 15, 24, 27, 28, 29, 30, 31  # and of Cells.links
COLUMNS = 16
NOBODY, NO_AXIS = -1, -1


class Grid(NamedTuple):
    """The cells; every vector has three entries."""

    box: np.ndarray
    periodic: np.ndarray
    cells: np.ndarray  # along each axis
    width: np.ndarray  # of a cell
    soon: int  # levels of the event queue from a leaf up to the winner of a 64th part of all particles
    next: int  # and up to that of an 8th


class Cells(NamedTuple):
    """The running state, bit for bit, and scratch: all systems with a leading axis, or one system without it."""

    motion: np.ndarray  # (particle, 16) place, velocity, radius, mass, times of its next events and last collision
    links: np.ndarray  # (particle, 32) the same memory as int32: its cell, neighbours in the list, partner, name
    head: np.ndarray  # (cell,) first particle of each list
    times: np.ndarray  # (node,) of the event queue
    winners: np.ndarray  # (node,)
    clock: np.ndarray  # (3,) epoch; local times at which the present burst began, and of the last pause
    tally: np.ndarray  # (3,) next frame, events in this epoch, events in this burst
    lists: np.ndarray  # (27,) of the cells around a particle, those that are not empty; shared by all systems
    seen: np.ndarray  # (27, 3) where it is as seen from there


@borrowing
@no_type_check
def _fold(c, n, length):
    """Return the cell of the grid that stands for cell c, and how far away its image lies."""
    if c < 0:
        return c + n, -length
    if c >= n:
        return c - n, length
    return c, 0.0


@borrowing
@no_type_check
def _span(axis, c, ahead, step, grid):
    """Return the first and last cell to search along an axis: around c, or only that one step ahead."""
    first, last = (c + step, c + step) if axis == ahead else (c - 1, c + 1)
    if not grid.periodic[axis]:  # nothing lies behind walls
        first, last = max(first, 0), min(last, grid.cells[axis] - 1)
    return first, last


@borrowing
@no_type_check
def _search_list(i, x, y, z, k, now, best, who, motion, links):
    """Find the first partner of particle i, seen at (x, y, z), in the list that begins with k."""
    while k >= 0:
        rx = x - (motion[k, 0] + motion[k, 3] * now)
        ry = y - (motion[k, 1] + motion[k, 4] * now)
        rz = z - (motion[k, 2] + motion[k, 5] * now)
        wx = motion[i, 3] - motion[k, 3]
        wy = motion[i, 4] - motion[k, 4]
        wz = motion[i, 5] - motion[k, 5]
        reach = motion[i, RADIUS] + motion[k, RADIUS]
        gap = rx * rx + ry * ry + rz * rz - reach * reach
        approach = rx * wx + ry * wy + rz * wz
        square = approach * approach - (wx * wx + wy * wy + wz * wz) * gap
        if (approach < 0.0) & (square >= 0.0):  # one branch, seldom taken: else touch_delay
            delay = max(gap, 0.0) / (math.sqrt(square) - approach)
            if delay < best:
                best, who = delay, k
        k = links[k, NEXT]
    return best, who


@borrowing
@no_type_check
def _search(i, now, ahead, step, cells, grid):
    """Find the first partner of particle i in the cells around, or those a step ahead, if it comes before the known.

    First all cells, then all particles: so the processor reads many at a time, and need not guess which are empty.
    """
    motion, links = cells.motion, cells.links
    best, who = cells.motion[i, PAIR_DUE] - now, NOBODY
    x0, x1 = _span(0, links[i, CELL], ahead, step, grid)
    y0, y1 = _span(1, links[i, CELL + 1], ahead, step, grid)
    z0, z1 = _span(2, links[i, CELL + 2], ahead, step, grid)
    x = motion[i, 0] + motion[i, 3] * now
    y = motion[i, 1] + motion[i, 4] * now
    z = motion[i, 2] + motion[i, 5] * now
    count = 0
    for ax in range(x0, x1 + 1):
        cx, sx = _fold(ax, grid.cells[0], grid.box[0])
        for ay in range(y0, y1 + 1):
            cy, sy = _fold(ay, grid.cells[1], grid.box[1])
            row = (cx * grid.cells[1] + cy) * grid.cells[2]
            for az in range(z0, z1 + 1):
                cz, sz = _fold(az, grid.cells[2], grid.box[2])
                k = np.int64(cells.head[row + cz])
                prefetch(motion, COLUMNS * k)
                cells.lists[count] = k
                cells.seen[count, 0], cells.seen[count, 1], cells.seen[count, 2] = x - sx, y - sy, z - sz
                count += k >= 0
    for n in range(count):
        x, y, z = cells.seen[n, 0], cells.seen[n, 1], cells.seen[n, 2]
        best, who = _search_list(i, x, y, z, cells.lists[n], now, best, who, motion, links)
    if who != NOBODY:
        cells.motion[i, PAIR_DUE] = now + best
        links[i, PARTNER] = who
        links[i, PARTNER_COUNT] = links[who, COUNT]


@borrowing
@no_type_check
def search_around(i, now, cells, grid):
    """Find the next pair event of particle i afresh."""
    cells.motion[i, PAIR_DUE] = NEVER
    _search(i, now, NO_AXIS, 0, cells, grid)


@borrowing
@no_type_check
def next_plane(i, now, cells, grid, law):
    """Find the wall or the border of its cell that particle i reaches first."""
    best, plane = NEVER, 0
    radius = cells.motion[i, RADIUS]
    for axis in range(law.gravity.shape[0]):
        g, v0 = law.gravity[axis], cells.motion[i, VELOCITY + axis]
        x = cells.motion[i, PLACE + axis] + (v0 + 0.5 * g * now) * now
        v = v0 + g * now
        c = cells.links[i, CELL + axis]
        walls = not grid.periodic[axis]
        low = radius if walls and c == 0 else c * grid.width[axis]
        high = (c + 1) * grid.width[axis]
        if walls and c == grid.cells[axis] - 1:
            high = grid.box[axis] - radius
        up = v >= 0.0
        # the plane ahead comes first, unless gravity turns the particle before
        delay = wall_delay(high - x if up else x - low, -abs(v), -g if up else g)
        if delay == NEVER and g != 0.0:
            up = not up
            # on a border v is exact, and 0 or so large that the way back takes longer than the last bit of now
            delay = wall_delay(high - x if up else x - low, abs(v), -g if up else g)
        if delay < best:
            best, plane = delay, 2 * axis + up
    cells.motion[i, PLANE_DUE] = now + best
    cells.links[i, PLANE] = plane


@borrowing
@no_type_check
def _cell_of(i, links, grid):
    """Return the number of the cell of particle i."""
    return (links[i, CELL] * grid.cells[1] + links[i, CELL + 1]) * grid.cells[2] + links[i, CELL + 2]


@borrowing
@no_type_check
def _fetch_ahead(i, cells, grid):
    """Fetch what the next events of the parts of the queue around particle i will read, so that none waits for memory.

    First the particle itself, and later, when it also leads a larger part, what its columns refer to.
    """
    leaf = cells.times.shape[0] // 2 + i
    k = np.int64(cells.winners[leaf >> grid.soon])
    prefetch(cells.motion, COLUMNS * k)
    prefetch(cells.motion, COLUMNS * k + COLUMNS // 2)
    k = np.int64(cells.winners[leaf >> grid.next])
    partner = np.int64(cells.links[k, PARTNER])
    prefetch(cells.motion, COLUMNS * partner)
    prefetch(cells.motion, COLUMNS * partner + COLUMNS // 2)
    cell, row = _cell_of(k, cells.links, grid), grid.cells[1] * grid.cells[2]
    prefetch(cells.head, cell - row)
    prefetch(cells.head, cell)
    prefetch(cells.head, cell + row)
    node = cells.times.shape[0] // 2 + k
    for _ in range(3):  # the levels above are read so often that they stay in the caches
        prefetch(cells.times, node)
        prefetch(cells.winners, node)
        node >>= 1


@borrowing
@no_type_check
def queue(i, cells, grid):
    """Enter the earlier of the two next events of particle i."""
    reschedule(i, min(cells.motion[i, PAIR_DUE], cells.motion[i, PLANE_DUE]), cells.times, cells.winners)
    _fetch_ahead(i, cells, grid)


@borrowing
@no_type_check
def predict(i, now, cells, grid, law):
    """Find both next events of particle i."""
    next_plane(i, now, cells, grid, law)
    search_around(i, now, cells, grid)
    queue(i, cells, grid)


@borrowing
@no_type_check
def enter(i, cells, grid):
    """Put particle i first in the list of its cell."""
    cell = _cell_of(i, cells.links, grid)
    first = cells.head[cell]
    cells.links[i, NEXT] = first
    cells.links[i, PREVIOUS] = NOBODY
    if first >= 0:
        cells.links[first, PREVIOUS] = i
    cells.head[cell] = i


@borrowing
@no_type_check
def _leave(i, cells, grid):
    """Take particle i out of the list of its cell."""
    following, previous = cells.links[i, NEXT], cells.links[i, PREVIOUS]
    if previous >= 0:
        cells.links[previous, NEXT] = following
    else:
        cells.head[_cell_of(i, cells.links, grid)] = following
    if following >= 0:
        cells.links[following, PREVIOUS] = previous


@borrowing
@no_type_check
def cross(i, axis, step, now, cells, grid, law):
    """Move particle i to the next cell along an axis, and look into the cells that came near."""
    _leave(i, cells, grid)
    c, image = _fold(cells.links[i, CELL + axis] + step, grid.cells[axis], grid.box[axis])
    cells.links[i, CELL + axis] = c
    cells.motion[i, PLACE + axis] -= image
    enter(i, cells, grid)
    next_plane(i, now, cells, grid, law)
    _search(i, now, axis, step, cells, grid)
    queue(i, cells, grid)

"""Who is near whom: the list of near pairs and walls that the soft-contact engine asks at every step.

A list holds as long as nobody moved further than half its skin. Nobody is faster than a ceiling for a counted number
of steps; when a contact kicks a particle beyond it, or the steps are over, displacements are measured and a new term
is set or a new list built. The order of the entries is of no effect: contacts have an order of their own.
From some number of particles on, cells tell which pairs can be near; below it there is one cell.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np

from simulators.engines.grains import (
    CONTACTS,
    CRAMPED,
    DIVERGED,
    HASTY,
    POSITION,
    RADIUS,
    RUNNING,
    VELOCITY,
    compiled,
    finding,
    inlined,
    summing,
)
from simulators.engines.neighbor_cells import bin_particles, rows_beside, sort_particles, stretches
from simulators.engines.threads import apart

NO_CONTACT = -1

_MOST_STEPS = 1000  # between two looks at displacements, so that a run that diverges is noticed
_HEADROOM = 1.2  # of the speed ceiling over the present largest speed
_WORTH = 4  # steps that a list must still hold for, to be kept


class NearList(NamedTuple):
    """Working memory of a thread: forgotten in a pause and built again without effect."""

    first: np.ndarray  # (entry,) pairs, the lower index first, then walls
    second: np.ndarray  # (entry,) partner, or wall
    limit: np.ndarray  # (entry,) squared distance of touch, of pairs
    slot: np.ndarray  # (entry,) contact, or NO_CONTACT
    hits: np.ndarray  # (entry + 1,) entries that touch
    built: np.ndarray  # (3, particle) positions at which the list was built
    sorted: np.ndarray  # (4, particle) positions and radii in order of cells
    order: np.ndarray  # (particle,) who that is
    cell: np.ndarray  # (2, particle) cells, of particles and in order
    start: np.ndarray  # (cell + 1,) where the members of a cell begin
    shape: np.ndarray  # (3,) cells along each axis
    pieces: np.ndarray  # (24,) stretches of particles to look at: begin, end, begin, ...
    newest: np.ndarray  # (particle,) its latest contact, or NO_CONTACT
    older: np.ndarray  # (contact,) the one before of the same particle
    sizes: np.ndarray  # (2,) pairs; pairs and walls
    survey: np.ndarray  # (2,) squared speed ceiling; steps for which the list holds under it
    pull: np.ndarray  # (3,) the acceleration that all particles share, now


def empty_list(n: int, n_contacts: int, capacity: int) -> NearList:
    """Return working memory for a list of this many entries."""
    memory = (
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(capacity),
        np.full(capacity, NO_CONTACT),
        np.empty(capacity + 1, np.int64),
        np.empty((3, n)),
        np.empty((4, n)),
        np.empty(n, np.int64),
        np.empty((2, n), np.int64),
        np.empty(4 * n + 2, np.int64),
        np.empty(3, np.int64),
        np.empty(24, np.int64),
        np.full(n, NO_CONTACT),
        np.empty(n_contacts, np.int64),
        np.zeros(2, np.int64),
        np.zeros(2),
        np.zeros(3),
    )
    return NearList(*map(apart, memory))


@compiled
@no_type_check
def forget_list(near):
    """Let the first survey of a system find no list."""
    for axis in range(3):
        for k in range(near.built.shape[1]):
            near.built[axis, k] = 1e100


@compiled
@no_type_check
def nearest(d, period):
    """Return a separation between nearest images."""
    return d - period * np.rint(d * (1.0 / period)) if period > 0.0 else d


@compiled
@no_type_check
def _inverse(period):
    """Return one over a period, 0 along axes that have none."""
    return 1.0 / period if period > 0.0 else 0.0


@compiled
@no_type_check
def _hits_flat(x, y, first, second, limit, entry, n_pairs, hits):
    """Write which of these pairs touch, in two dimensions without periodic axes; return how many."""
    count = 0
    for e in range(n_pairs):
        i, j = np.uint64(first[e]), np.uint64(second[e])  # unsigned: a signed index is first tested for its sign
        dx, dy = x[i] - x[j], y[i] - y[j]
        hits[np.uint64(count)] = entry[e]
        count += dx * dx + dy * dy < limit[e]
    return count


@compiled
@no_type_check
def _hits_any(x, y, z, space, first, second, limit, entry, n_pairs, hits):
    """Write which of these pairs touch; return how many."""
    period_x, period_y, period_z = space[3], space[4], space[5]
    inverse_x, inverse_y, inverse_z = _inverse(period_x), _inverse(period_y), _inverse(period_z)
    count = 0
    for e in range(n_pairs):
        i, j = np.uint64(first[e]), np.uint64(second[e])
        dx, dy, dz = x[i] - x[j], y[i] - y[j], z[i] - z[j]
        dx -= period_x * np.rint(dx * inverse_x)
        dy -= period_y * np.rint(dy * inverse_y)
        dz -= period_z * np.rint(dz * inverse_z)
        hits[np.uint64(count)] = entry[e]
        count += dx * dx + dy * dy + dz * dz < limit[e]
    return count


@compiled
@no_type_check
def _wall_hits(body, space, first, second, entry, n_pairs, n_entries, hits, count):
    """Append which of these walls are touched; return how many hits there are now."""
    for e in range(n_pairs, n_entries):
        i, wall = np.uint64(first[e]), -second[e] - 1
        axis = np.uint64(wall >> 1)
        x = body[axis, i]
        gap = space[axis] - x if wall & 1 else x
        hits[count] = entry[e]
        count += gap < body[RADIUS, i]
    return count


@inlined
@no_type_check
def find_hits(flat, body, space, first, second, limit, entry, sizes, hits):
    """Write the entries of the pairs and walls among these that touch; return how many."""
    x, y, z = body[POSITION], body[POSITION + 1], body[POSITION + 2]
    if flat:
        count = _hits_flat(x, y, first, second, limit, entry, sizes[0], hits)
    else:
        count = _hits_any(x, y, z, space, first, second, limit, entry, sizes[0], hits)
    if sizes[1] == sizes[0]:
        return count
    return _wall_hits(body, space, first, second, entry, sizes[0], sizes[1], hits, count)


@summing
@no_type_check
def _in_range(x, y, z, vx, vy, vz):
    """Return whether all are numbers of sensible size."""
    total = 0.0
    for k in range(x.shape[0]):
        total += x[k] * x[k] + y[k] * y[k] + z[k] * z[k] + vx[k] * vx[k] + vy[k] * vy[k] + vz[k] * vz[k]
    return total < 1e300


@finding
@no_type_check
def _largest(x, y, z, more_x, more_y, more_z):
    """Return the largest squared length of the sums of these vectors with one."""
    most = 0.0
    for k in range(x.shape[0]):
        sum_x, sum_y, sum_z = x[k] + more_x, y[k] + more_y, z[k] + more_z
        square = sum_x * sum_x + sum_y * sum_y + sum_z * sum_z
        most = square if square > most else most
    return most


@finding
@no_type_check
def _furthest(x, y, z, from_x, from_y, from_z):
    """Return the largest squared distance from here to there."""
    most = 0.0
    for k in range(x.shape[0]):
        dx, dy, dz = x[k] - from_x[k], y[k] - from_y[k], z[k] - from_z[k]
        square = dx * dx + dy * dy + dz * dz
        most = square if square > most else most
    return most


@compiled
@no_type_check
def _survey(body, fall, near, gravity, law):
    """Write the speed ceiling and for how many steps the list holds under it; False for numbers out of range."""
    x, y, z = body[0], body[1], body[2]
    vx, vy, vz = body[VELOCITY], body[VELOCITY + 1], body[VELOCITY + 2]
    if not _in_range(x, y, z, vx, vy, vz):
        return False
    room = 0.5 * law.skin - math.sqrt(_furthest(x, y, z, near.built[0], near.built[1], near.built[2]))
    room = max(room, 0.0) / law.step
    fastest = math.sqrt(_largest(vx, vy, vz, fall[1, 0], fall[1, 1], fall[1, 2]))
    speed = max(_HEADROOM * fastest, 0.5 * law.skin / (law.step * _MOST_STEPS))
    pull = math.sqrt(gravity[0] ** 2 + gravity[1] ** 2 + gravity[2] ** 2)
    pull += law.amplitude * law.angular_frequency**2
    steps = min(room / speed, _MOST_STEPS)
    near.survey[0] = speed * speed
    near.survey[1] = min(room / (speed + pull * law.step * steps), _MOST_STEPS)
    return True


@compiled
@no_type_check
def renew(body, fall, space, walls, gravity, who, tally, law, near):
    """Set a new term for the list, or build a new one; return its status, RUNNING if all is well."""
    tally[HASTY] = 0
    if not _survey(body, fall, near, gravity, law):
        return DIVERGED
    if near.survey[1] < _WORTH:
        if not _build(body, space, walls, law, near):
            return CRAMPED
        _find_contacts(who, tally, near)
        _survey(body, fall, near, gravity, law)
    return RUNNING


@compiled
@no_type_check
def _build(body, space, walls, law, near):
    """Write all near pairs and walls and their numbers; False when the arrays are too short."""
    n, sizes = body.shape[1], near.sizes
    for axis in range(3):
        for k in range(n):
            near.built[axis, k] = body[axis, k]
    if n < law.cells_from:
        near.shape[:] = 1
        for k in range(n):
            near.cell[0, k] = 0
    else:
        bin_particles(body, space, law.skin, near.shape, near.cell[0], near.start)
    sort_particles(body, near.cell[0], near.cell[1], near.start, near.shape, near.order, near.sorted)
    sizes[0] = _list_pairs(space, law.skin, near)
    if sizes[0] < 0 or sizes[0] + 6 * n >= near.first.shape[0]:
        sizes[:] = 0
        return False
    sizes[1] = _list_walls(body, space, walls, law.skin, near.first, near.second, sizes[0])
    return True


@compiled
@no_type_check
def _list_pairs(space, skin, near):
    """Write all near pairs; return how many, or -1 when the arrays are too short."""
    shape, start, pieces, rows = near.shape, near.start, near.pieces[:20], near.pieces[20:]
    order, home, place = near.order, near.cell[1], near.sorted
    first, second, limit = near.first, near.second, near.limit
    n, cells = order.shape[0], shape[0]
    wrapped = space[3] > 0.0 and cells > 1
    count = 0
    for line in range(shape[1] * shape[2]):
        row = line * cells
        n_rows = rows_beside(line % shape[1], line // shape[1], shape, space, rows)
        for p in range(start[row], start[row + cells]):
            if count + n > first.shape[0]:
                return -1
            n_pieces = stretches(p, home[p] - row, row, rows, n_rows, cells, wrapped, start, pieces)
            count = _append(p, n_pieces, pieces, order, place, space, skin, first, second, limit, count)
    return count


@compiled
@no_type_check
def _append(p, n_pieces, pieces, order, place, space, skin, first, second, limit, count):
    """Append the near pairs of one particle, without a branch; return how many entries there are now."""
    x, y, z, radii = place[0], place[1], place[2], place[3]
    period_x, period_y, period_z = space[3], space[4], space[5]
    inverse_x, inverse_y, inverse_z = _inverse(period_x), _inverse(period_y), _inverse(period_z)
    periodic = period_x + period_y + period_z > 0.0
    i, xi, yi, zi, ri = order[p], x[p], y[p], z[p], radii[p]
    for piece in range(n_pieces):
        for q in range(np.uint64(pieces[2 * piece]), np.uint64(pieces[2 * piece + 1])):
            dx, dy, dz, touch, j = xi - x[q], yi - y[q], zi - z[q], ri + radii[q], order[q]
            if periodic:
                dx -= period_x * np.rint(dx * inverse_x)
                dy -= period_y * np.rint(dy * inverse_y)
                dz -= period_z * np.rint(dz * inverse_z)
            e = np.uint64(count)
            first[e], second[e], limit[e] = min(i, j), max(i, j), touch * touch
            count += dx * dx + dy * dy + dz * dz < (touch + skin) * (touch + skin)
    return count


@compiled
@no_type_check
def _list_walls(body, space, walls, skin, first, second, count):
    """Append all near walls; return how many entries there are now."""
    radii = body[RADIUS]
    for axis in range(3):
        if walls[axis]:
            x, length = body[axis], space[axis]
            for k in range(x.shape[0]):
                reach = radii[k] + 0.5 * skin
                first[count], second[count] = k, -(2 * axis + 1)
                count += x[k] < reach
                first[count], second[count] = k, -(2 * axis + 2)
                count += length - x[k] < reach
    return count


@compiled
@no_type_check
def _find_contacts(who, tally, near):
    """Tie the present contacts to their entries in a new list."""
    first, second, slot, newest, older = near.first, near.second, near.slot, near.newest, near.older
    for c in range(tally[CONTACTS]):
        older[c] = newest[who[c, 0]]
        newest[who[c, 0]] = c
    for e in range(near.sizes[1]):
        c = newest[np.uint64(first[e])]
        while c != NO_CONTACT and who[c, 1] != second[e]:
            c = older[c]
        slot[e] = c
        if c != NO_CONTACT:
            who[c, 2] = e
    for c in range(tally[CONTACTS]):
        newest[who[c, 0]] = NO_CONTACT

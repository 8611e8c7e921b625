"""Compiled sums of smooth forces: over all pairs, or over a list of near pairs where the force has a cutoff.

A system states its force as plain functions of the class of its law, a NamedTuple of constants; ``pair_force`` and
``external_force`` find them there, so each law gets machine code of its own and no system file loads numba.

The force between two particles is ``c f(r^2) r`` with the vector r from j to i, the law's ``pair_force`` f and their
coupling c. ``couplings`` has one row for each particle (springs), or a single row of strengths (masses, charges,
ones), and then c is the product of the two.

Speed: each loop is one function of flat arrays, all pairs are summed in both directions, which writes nothing in the
inner loop and so fills the vector registers, and near pairs are only counted.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

# sums may be reordered and products contracted, but infinities and NaN keep their meaning
_REORDER = {"reassoc", "contract", "nsz", "arcp"}
_CELLS_A_PARTICLE = 4  # at most, however sparse the system

compiled = njit(cache=True, error_model="numpy")
summing = njit(cache=True, error_model="numpy", fastmath=_REORDER)


class NearPairs(NamedTuple):
    """Each pair within the range of the list once: ``partners[first[k]:first[k + 1]]`` belong to k."""

    first: np.ndarray  # (particle + 1,)
    partners: np.ndarray  # (capacity,)


def pair_force(law, squared):
    """Return force over distance between two particles at this squared distance, positive where they repel."""
    raise NotImplementedError("for compiled functions")


def external_force(law, axis, strength, x, y, z):
    """Return the force along an axis on one particle; z is 0 in two dimensions."""
    raise NotImplementedError("for compiled functions")


@overload(pair_force, jit_options={"error_model": "numpy", "fastmath": _REORDER})
@no_type_check
def _pair_force_of(law, squared):
    return law.instance_class.pair_force if isinstance(law, types.BaseNamedTuple) else None


@overload(external_force, jit_options={"error_model": "numpy"})
@no_type_check
def _external_force_of(law, axis, strength, x, y, z):
    def none(law, axis, strength, x, y, z):
        return 0.0

    return getattr(law.instance_class, "external_force", none) if isinstance(law, types.BaseNamedTuple) else None


@compiled
@no_type_check
def nearest_image(r, length):
    """Return a separation between nearest images; ``length`` is 0 along an axis that is not periodic."""
    return r if length == 0.0 else r - length * np.rint(r / length)


@compiled
@no_type_check
def _per_length(length):
    return 0.0 if length == 0.0 else 1.0 / length


@summing
@no_type_check
def sum_plane(law, begin, end, x, y, couplings, lengths, response, near, fx, fy, count):
    """Write the accelerations of particles begin to end in two dimensions, and how many centres each has near."""
    width, height = lengths[0], lengths[1]
    per_width, per_height = _per_length(width), _per_length(height)
    wrapped = width != 0.0 or height != 0.0
    for i in range(begin, end):
        row = min(i, couplings.shape[0] - 1)
        xi, yi, range_i = x[i], y[i], near[i]
        sum_x, sum_y, within = 0.0, 0.0, 0
        for j in range(x.shape[0]):
            dx, dy = xi - x[j], yi - y[j]
            if wrapped:
                dx -= width * np.rint(dx * per_width)
                dy -= height * np.rint(dy * per_height)
            squared = dx * dx + dy * dy
            f = couplings[row, j] * pair_force(law, squared) if squared > 0.0 else 0.0
            sum_x += f * dx
            sum_y += f * dy
            within += squared < range_i
        fx[i] = response[i] * sum_x
        fy[i] = response[i] * sum_y
        count[i] = within


@summing
@no_type_check
def sum_space(law, begin, end, x, y, z, couplings, lengths, response, near, fx, fy, fz, count):
    """Do as ``sum_plane`` in three dimensions."""
    width, height, depth = lengths[0], lengths[1], lengths[2]
    per_width, per_height, per_depth = _per_length(width), _per_length(height), _per_length(depth)
    wrapped = width != 0.0 or height != 0.0 or depth != 0.0
    for i in range(begin, end):
        row = min(i, couplings.shape[0] - 1)
        xi, yi, zi, range_i = x[i], y[i], z[i], near[i]
        sum_x, sum_y, sum_z, within = 0.0, 0.0, 0.0, 0
        for j in range(x.shape[0]):
            dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
            if wrapped:
                dx -= width * np.rint(dx * per_width)
                dy -= height * np.rint(dy * per_height)
                dz -= depth * np.rint(dz * per_depth)
            squared = dx * dx + dy * dy + dz * dz
            f = couplings[row, j] * pair_force(law, squared) if squared > 0.0 else 0.0
            sum_x += f * dx
            sum_y += f * dy
            sum_z += f * dz
            within += squared < range_i
        fx[i] = response[i] * sum_x
        fy[i] = response[i] * sum_y
        fz[i] = response[i] * sum_z
        count[i] = within


@summing
@no_type_check
def sum_list_plane(law, pairs, x, y, strengths, lengths, masses, near, fx, fy, count):
    """Write the accelerations over the listed pairs in two dimensions, and above 1 where a listed partner is near."""
    width, height = lengths[0], lengths[1]
    per_width, per_height = _per_length(width), _per_length(height)
    first, partners = pairs.first, pairs.partners
    fx[:] = 0.0
    fy[:] = 0.0
    for i in range(x.shape[0]):
        xi, yi, strength, range_i = x[i], y[i], strengths[i], near[i]
        sum_x, sum_y, within = 0.0, 0.0, 1
        for place in range(first[i], first[i + 1]):
            j = partners[place]
            dx, dy = xi - x[j], yi - y[j]
            dx -= width * np.rint(dx * per_width)
            dy -= height * np.rint(dy * per_height)
            squared = dx * dx + dy * dy
            f = strength * strengths[j] * pair_force(law, squared) if squared > 0.0 else 0.0
            sum_x += f * dx
            sum_y += f * dy
            fx[j] -= f * dx
            fy[j] -= f * dy
            within += squared < range_i
        fx[i] = (fx[i] + sum_x) / masses[i]  # nobody after i has i as a partner
        fy[i] = (fy[i] + sum_y) / masses[i]
        count[i] = within


@summing
@no_type_check
def sum_list_space(law, pairs, x, y, z, strengths, lengths, masses, near, fx, fy, fz, count):
    """Do as ``sum_list_plane`` in three dimensions."""
    width, height, depth = lengths[0], lengths[1], lengths[2]
    per_width, per_height, per_depth = _per_length(width), _per_length(height), _per_length(depth)
    first, partners = pairs.first, pairs.partners
    fx[:] = 0.0
    fy[:] = 0.0
    fz[:] = 0.0
    for i in range(x.shape[0]):
        xi, yi, zi, strength, range_i = x[i], y[i], z[i], strengths[i], near[i]
        sum_x, sum_y, sum_z, within = 0.0, 0.0, 0.0, 1
        for place in range(first[i], first[i + 1]):
            j = partners[place]
            dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
            dx -= width * np.rint(dx * per_width)
            dy -= height * np.rint(dy * per_height)
            dz -= depth * np.rint(dz * per_depth)
            squared = dx * dx + dy * dy + dz * dz
            f = strength * strengths[j] * pair_force(law, squared) if squared > 0.0 else 0.0
            sum_x += f * dx
            sum_y += f * dy
            sum_z += f * dz
            fx[j] -= f * dx
            fy[j] -= f * dy
            fz[j] -= f * dz
            within += squared < range_i
        fx[i] = (fx[i] + sum_x) / masses[i]
        fy[i] = (fy[i] + sum_y) / masses[i]
        fz[i] = (fz[i] + sum_z) / masses[i]
        count[i] = within


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
    per_width, per_height, per_depth = _per_length(width), _per_length(height), _per_length(depth)
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

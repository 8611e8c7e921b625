"""Compiled sums of smooth forces: over all pairs, or over a list of near pairs where the force has a cutoff.

A system states its force as plain functions of the class of its law, a NamedTuple of constants; ``pair_force`` and
``external_force`` find them there, so each law gets machine code of its own and no system file loads numba.

The force between two particles is ``c f(r^2) r`` with the vector r from j to i, the law's ``pair_force`` f and their
coupling c. ``couplings`` has one row for each particle (springs), or a single row of strengths (masses, charges,
ones), and then c is the product of the two.

Speed: eight particles at a time meet one partner each, the same one (all pairs) or one of its own (a list). Pairs are
summed in both orders, so that nothing is written but the sums, and near pairs are only counted.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

from simulators.engines.smooth_lanes import WIDTH, gather, keep_apart, lanes, load, rint, store, total
from simulators.systems.pairs import where

# sums may be reordered and products contracted, but infinities and NaN keep their meaning
_REORDER = {"reassoc", "contract", "nsz", "arcp"}

# without what only calls from Python need, a sixth of the time to compile; ``compiled`` is inlined by force, for a call
# passes every array of a record as seven numbers
_INNER = {"cache": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled = njit(**_INNER, forceinline=True)
stepping = njit(**_INNER, forceinline=False)
summing = njit(**_INNER, forceinline=False, fastmath=_REORDER)


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
def per_length(length):
    """Return 1 / length, and 0 along an axis that is not periodic."""
    return 0.0 if length == 0.0 else 1.0 / length


class Box(NamedTuple):
    """Lengths of periodic axes and their inverses; 0 along the others."""

    wrapped: bool
    width: float
    height: float
    depth: float
    per_width: float
    per_height: float
    per_depth: float


@compiled
@no_type_check
def box_of(lengths):
    """Return the same lengths as numbers."""
    width, height, depth = lengths[0], lengths[1], lengths[2] if lengths.shape[0] == 3 else 0.0
    return Box(lengths.max() > 0.0, width, height, depth, per_length(width), per_length(height), per_length(depth))


@compiled
@no_type_check
def _add_plane(law, box, dx, dy, coupling, range_i, sum_x, sum_y, within):
    """Add a partner of each lane."""
    if box.wrapped:
        dx -= box.width * rint(dx * box.per_width)
        dy -= box.height * rint(dy * box.per_height)
    squared = dx * dx + dy * dy
    f = coupling * pair_force(law, squared)
    return sum_x + f * dx, sum_y + f * dy, within + where(squared < range_i, 1.0, 0.0)


@summing
@no_type_check
def sum_plane(law, box, pairs, position, couplings, response, near, acceleration, count):
    """Write the accelerations over all or the listed pairs in two dimensions, and how many others each has near.

    Returns:
        The sum of the latter.
    """
    keep_apart()
    n, y, starts, partners, n_near = count.shape[0], count.shape[0], pairs.starts, pairs.partners, lanes(0.0)
    for i in range(0, n, WIDTH):
        xi, yi, range_i = load(position, i, n), load(position, y + i, y + n), load(near, i, n)
        sums = lanes(0.0), lanes(0.0), lanes(0.0) - load(pairs.selves, i, n)
        if partners.shape[0] > 0:
            for k in range(WIDTH * starts[i // WIDTH], WIDTH * starts[i // WIDTH + 1], WIDTH):
                dx, dy = xi - gather(position, 0, partners, k), yi - gather(position, y, partners, k)
                sums = _add_plane(law, box, dx, dy, gather(couplings, 0, partners, k), range_i, *sums)
        else:
            for j in range(n):
                coupling = lanes(couplings[j]) if couplings.shape[0] == n else load(couplings, n * j + i, n * j + n)
                dx, dy = xi - position[0, j], yi - position[1, j]
                sums = _add_plane(law, box, dx, dy, coupling, range_i, *sums)
        store(acceleration, i, n, load(response, i, n) * sums[0])
        store(acceleration, y + i, y + n, load(response, i, n) * sums[1])
        store(count, i, n, sums[2])
        n_near += sums[2]
    return total(n_near)


@compiled
@no_type_check
def _add_space(law, box, dx, dy, dz, coupling, range_i, sum_x, sum_y, sum_z, within):
    """Do as ``_add_plane`` in three dimensions."""
    if box.wrapped:
        dx -= box.width * rint(dx * box.per_width)
        dy -= box.height * rint(dy * box.per_height)
        dz -= box.depth * rint(dz * box.per_depth)
    squared = dx * dx + dy * dy + dz * dz
    f = coupling * pair_force(law, squared)
    return sum_x + f * dx, sum_y + f * dy, sum_z + f * dz, within + where(squared < range_i, 1.0, 0.0)


@summing
@no_type_check
def sum_space(law, box, pairs, position, couplings, response, near, acceleration, count):
    """Do as ``sum_plane`` in three dimensions."""
    keep_apart()
    n, starts, partners, n_near = count.shape[0], pairs.starts, pairs.partners, lanes(0.0)
    y, z = n, 2 * n
    for i in range(0, n, WIDTH):
        xi, yi, zi = load(position, i, n), load(position, y + i, y + n), load(position, z + i, z + n)
        range_i = load(near, i, n)
        sums = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0) - load(pairs.selves, i, n)
        if partners.shape[0] > 0:
            for k in range(WIDTH * starts[i // WIDTH], WIDTH * starts[i // WIDTH + 1], WIDTH):
                dx, dy = xi - gather(position, 0, partners, k), yi - gather(position, y, partners, k)
                dz, coupling = zi - gather(position, z, partners, k), gather(couplings, 0, partners, k)
                sums = _add_space(law, box, dx, dy, dz, coupling, range_i, *sums)
        else:
            for j in range(n):
                coupling = lanes(couplings[j]) if couplings.shape[0] == n else load(couplings, n * j + i, n * j + n)
                dx, dy, dz = xi - position[0, j], yi - position[1, j], zi - position[2, j]
                sums = _add_space(law, box, dx, dy, dz, coupling, range_i, *sums)
        store(acceleration, i, n, load(response, i, n) * sums[0])
        store(acceleration, y + i, y + n, load(response, i, n) * sums[1])
        store(acceleration, z + i, z + n, load(response, i, n) * sums[2])
        store(count, i, n, sums[3])
        n_near += sums[3]
    return total(n_near)


@compiled
@no_type_check
def coupling_of(bodies, i, j):
    """Return the factor of the force between two particles."""
    couplings, n = bodies.couplings, bodies.radii.shape[0]
    return couplings[i] * couplings[j] if couplings.shape[0] == n else couplings[n * i + j]


@compiled
@no_type_check
def _external_on(law, bodies, k, axis):
    position = bodies.position
    z = position[2, k] if position.shape[0] == 3 else 0.0
    return external_force(law, axis, bodies.strengths[k], position[0, k], position[1, k], z) / bodies.masses[k]


@compiled
@no_type_check
def add_external(law, bodies):
    """Add what acts from outside to the accelerations."""
    for axis in range(bodies.position.shape[0]):
        for k in range(bodies.position.shape[1]):
            bodies.acceleration[axis, k] += _external_on(law, bodies, k, axis)


@compiled
@no_type_check
def acceleration_on(law, setup, bodies, i, axis):
    """Return the acceleration of one particle along one axis; for rare use, small so that it compiles fast."""
    position, force = bodies.position, 0.0
    for j in range(position.shape[1]):
        squared, along = 0.0, 0.0
        for a in range(position.shape[0]):
            r = nearest_image(position[a, i] - position[a, j], setup.lengths[a])
            squared += r * r
            along = r if a == axis else along
        force += coupling_of(bodies, i, j) * pair_force(law, squared) * along
    return force / bodies.masses[i] + _external_on(law, bodies, i, axis)

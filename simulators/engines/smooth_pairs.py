"""Compiled sums of smooth forces: over all pairs, or over a list of near pairs where the force has a cutoff.

A system states its force as plain functions of the class of its law, a NamedTuple of constants; ``pair_force`` and
``external_force`` find them there, so each law gets machine code of its own and no system file loads numba.

The force between two particles is ``c f(r^2) r`` with the vector r from j to i, the law's ``pair_force`` f and their
coupling c. ``couplings`` has one row for each particle (springs), or a single row of strengths (masses, charges,
ones), and then c is the product of the two.

Speed: each loop is one function of flat arrays, all pairs are summed in both directions, which writes nothing in the
inner loop and so fills the vector registers, and near pairs are only counted.
"""

from typing import no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

# sums may be reordered and products contracted, but infinities and NaN keep their meaning
_REORDER = {"reassoc", "contract", "nsz", "arcp"}

# inlined by force: a call passes every array of a record as seven numbers
compiled = njit(cache=True, error_model="numpy", forceinline=True)
summing = njit(cache=True, error_model="numpy", fastmath=_REORDER)


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


@summing
@no_type_check
def sum_plane(law, x, y, couplings, lengths, response, near, fx, fy, count):
    """Write the accelerations over all pairs in two dimensions, and how many centres each has near."""
    width, height = lengths[0], lengths[1]
    per_width, per_height = per_length(width), per_length(height)
    wrapped = width != 0.0 or height != 0.0
    for i in range(x.shape[0]):
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
def sum_space(law, x, y, z, couplings, lengths, response, near, fx, fy, fz, count):
    """Do as ``sum_plane`` in three dimensions."""
    width, height, depth = lengths[0], lengths[1], lengths[2]
    per_width, per_height, per_depth = per_length(width), per_length(height), per_length(depth)
    wrapped = width != 0.0 or height != 0.0 or depth != 0.0
    for i in range(x.shape[0]):
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
    per_width, per_height = per_length(width), per_length(height)
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
    per_width, per_height, per_depth = per_length(width), per_length(height), per_length(depth)
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
def coupling_of(bodies, i, j):
    """Return the factor of the force between two particles."""
    couplings = bodies.couplings
    return couplings[0, i] * couplings[0, j] if couplings.shape[0] == 1 else couplings[i, j]


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
        if squared > 0.0:
            force += coupling_of(bodies, i, j) * pair_force(law, squared) * along
    return force / bodies.masses[i] + _external_on(law, bodies, i, axis)

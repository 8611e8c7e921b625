"""Where and how two bodies, or a body and a wall, touch: normals, distances, relative motion, the moment of touch."""

import math
from typing import no_type_check

import numpy as np

from simulators.engines.grains import MASS, RADIUS, VELOCITY, compiled, inlined
from simulators.engines.neighbor_list import nearest


@compiled
@no_type_check
def _wall_geometry(i, wall, body, space):
    """Return the unit normal towards i, the distance along it, the distance of touch, and whether they touch."""
    axis, far, k = np.uint64(wall >> 1), wall & 1, np.uint64(i)
    distance, reach = space[axis] - body[axis, k] if far else body[axis, k], body[RADIUS, k]
    sign = -1.0 if far else 1.0
    return sign * (axis == 0), sign * (axis == 1), sign * (axis == 2), distance, reach, distance < reach


@compiled
@no_type_check
def _pair_geometry(i, j, body, space):
    """Return the same of a pair."""
    a, b = np.uint64(i), np.uint64(j)
    dx = nearest(body[0, a] - body[0, b], space[3])
    dy = nearest(body[1, a] - body[1, b], space[4])
    dz = nearest(body[2, a] - body[2, b], space[5])
    squared, reach = dx * dx + dy * dy + dz * dz, body[RADIUS, a] + body[RADIUS, b]
    distance = math.sqrt(squared)
    inverse = distance * (1.0 / max(squared, 1e-300))  # the root and the quotient at the same time
    return dx * inverse, dy * inverse, dz * inverse, distance, reach, squared < reach * reach


@inlined
@no_type_check
def geometry(i, j, body, space):
    """Return the unit normal towards i, the distance along it, the distance of touch, and whether they touch."""
    return _wall_geometry(i, -j - 1, body, space) if j < 0 else _pair_geometry(i, j, body, space)


@compiled
@no_type_check
def relative(row, i, j, body):
    """Return a vector of i minus that of its partner, or that of i where the partner is a wall."""
    x, y, z = body[row, i], body[row + 1, i], body[row + 2, i]
    if j >= 0:
        x, y, z = x - body[row, j], y - body[row + 1, j], z - body[row + 2, j]
    return x, y, z


@compiled
@no_type_check
def velocity_relative(i, j, body, fall):
    """Return the velocity of i half a step ago relative to its partner or wall."""
    x, y, z = relative(VELOCITY, i, j, body)
    return (x, y, z) if j >= 0 else (x + fall[1, 0], y + fall[1, 1], z + fall[1, 2])


@compiled
@no_type_check
def surface(row, i, j, body, arm_i, arm_j, nx, ny, nz):
    """Return what turning adds to the relative velocity (row SPIN) or acceleration (row TWIST) of the surfaces."""
    x, y, z = arm_i * body[row, i], arm_i * body[row + 1, i], arm_i * body[row + 2, i]
    if j >= 0:
        x, y, z = x + arm_j * body[row, j], y + arm_j * body[row + 1, j], z + arm_j * body[row + 2, j]
    return z * ny - y * nz, x * nz - z * nx, y * nx - x * ny


@compiled
@no_type_check
def reduced_mass(i, j, body):
    """Return the reduced mass of a pair; a wall is infinitely heavy."""
    m = body[MASS, i]
    return m if j < 0 else m * body[MASS, j] / (m + body[MASS, j])


@compiled
@no_type_check
def since_touch(i, j, body, fall, space, step):
    """Return how long ago, within the last flight at constant velocity, the pair was at the distance of touch."""
    nx, ny, nz, distance, reach, _ = geometry(i, j, body, space)
    wx, wy, wz = velocity_relative(i, j, body, fall)
    rate = wx * nx + wy * ny + wz * nz
    speed2 = rate * rate if j < 0 else wx * wx + wy * wy + wz * wz
    gap = distance * distance - reach * reach
    approach = distance * rate
    root = math.sqrt(max(approach * approach - speed2 * gap, 0.0))
    if gap >= 0.0:  # it went out
        since = gap / (approach + root)
    elif approach < 0.0:  # it came in
        since = -gap / (root - approach)
    else:
        since = (approach + root) / speed2
    return min(max(since, 0.0), step) if since == since else step

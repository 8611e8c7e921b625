"""Who meets whom first among all pairs of one system: the state of the engine for few particles, and its predictions.

Looking at all others fills the vector registers: for some dozen particles nothing that leaves some out is faster.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from simulators.engines.event_rules import NEVER, borrowing, leave_delay, next_wall, touch_delay

# reordering and finite numbers only: without them the loop and its minimum are not vectorized
_REORDERING = {"nnan", "ninf", "nsz", "arcp", "contract", "reassoc"}
vectorized = njit(cache=True, error_model="numpy", _nrt=False, fastmath=_REORDERING)  # pyright: ignore[reportCallIssue]


class Discs(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it."""

    radii: np.ndarray  # (particle,)
    masses: np.ndarray  # (particle,)
    place: np.ndarray  # (dim, particle) at the epoch, were there no collision since
    velocity: np.ndarray  # (dim, particle) at the epoch
    struck: np.ndarray  # (particle,) local time of the last collision; local time is counted from the epoch
    due: np.ndarray  # (particle,) local time of the next event
    partner: np.ndarray  # (particle,) of that event; walls are negative; itself: only to look again
    inside: np.ndarray  # (particle, particle) ghosts that overlap
    clock: np.ndarray  # (3,) epoch; local times at which the present burst began, and of the last pause
    tally: np.ndarray  # (3,) next frame, events so far, events in this burst


@vectorized
@no_type_check
def _upstream(r, w, reach, length):
    """Return the image of a separation that a pair with relative velocity w meets first: within a box before contact.

    In the direction of w it lies in [reach - length, reach), so every contact before w has carried it across
    length - 2 reach is one with this image.
    """
    sign = 1.0 if w >= 0.0 else -1.0
    ahead = sign * r
    return sign * (ahead - length * (math.floor((ahead - reach) * (1.0 / length)) + 1.0))


@vectorized
@no_type_check
def _touches_2d(i, now, x, y, u, v, radii, delays):
    """Write when disc i touches each other one, as ``touch_delay``, and return the least delay.

    Places x, y and velocities u, v are those at the epoch.
    """
    xi, yi, ui, vi, radius = x[i] + u[i] * now, y[i] + v[i] * now, u[i], v[i], radii[i]
    least = NEVER
    for k in range(radii.shape[0]):
        rx = xi - (x[k] + u[k] * now)
        ry = yi - (y[k] + v[k] * now)
        du = ui - u[k]
        dv = vi - v[k]
        reach = radius + radii[k]
        gap = rx * rx + ry * ry - reach * reach
        approach = rx * du + ry * dv  # exactly 0 for k = i
        speed = du * du + dv * dv
        square = approach * approach - speed * gap
        delay = max(gap, 0.0) / (math.sqrt(max(square, 0.0)) - approach)
        delay = delay if approach < 0.0 and square >= 0.0 else NEVER
        delays[k] = delay
        least = min(least, delay)
    return least


@vectorized
@no_type_check
def _touches_3d(i, now, x, y, z, u, v, w, radii, delays):
    """Do the same for spheres. A copy, as the loop over axes inside would cost the vectorization."""
    xi, yi, zi, ui, vi, wi = x[i] + u[i] * now, y[i] + v[i] * now, z[i] + w[i] * now, u[i], v[i], w[i]
    radius, least = radii[i], NEVER
    for k in range(radii.shape[0]):
        rx = xi - (x[k] + u[k] * now)
        ry = yi - (y[k] + v[k] * now)
        rz = zi - (z[k] + w[k] * now)
        du = ui - u[k]
        dv = vi - v[k]
        dw = wi - w[k]
        reach = radius + radii[k]
        gap = rx * rx + ry * ry + rz * rz - reach * reach
        approach = rx * du + ry * dv + rz * dw
        speed = du * du + dv * dv + dw * dw
        square = approach * approach - speed * gap
        delay = max(gap, 0.0) / (math.sqrt(max(square, 0.0)) - approach)
        delay = delay if approach < 0.0 and square >= 0.0 else NEVER
        delays[k] = delay
        least = min(least, delay)
    return least


@vectorized
@no_type_check
def _images(i, now, x, v, radii, length, images):
    """Write places at the epoch along a periodic axis from which disc i meets the others; return how long they hold."""
    xi, vi, radius = x[i] + v[i] * now, v[i], radii[i]
    fastest, widest = 0.0, 0.0
    for k in range(radii.shape[0]):
        r = xi - (x[k] + v[k] * now)
        w = vi - v[k]
        reach = radius + radii[k]
        images[k] = x[k] + (r - _upstream(r, w, reach, length))
        fastest = max(fastest, abs(w))
        widest = max(widest, reach)
    return (length - 2.0 * widest) / fastest if fastest > 0.0 else NEVER


@borrowing
@no_type_check
def _next_touch(i, now, discs, law, scratch):
    """Write when disc i touches each other one into the first row of scratch; return the least delay, and the limit.

    Beyond the limit, a pair might meet across another end of a periodic box.
    """
    place, velocity, radii, delays = discs.place, discs.velocity, discs.radii, scratch[0]
    x, y, z, limit = place[0], place[1], place[-1], NEVER
    if law.periodic[0]:
        x = scratch[1]
        limit = min(limit, _images(i, now, place[0], velocity[0], radii, law.box[0], x))
    if law.periodic[1]:
        y = scratch[2]
        limit = min(limit, _images(i, now, place[1], velocity[1], radii, law.box[1], y))
    if place.shape[0] == 2:
        return _touches_2d(i, now, x, y, velocity[0], velocity[1], radii, delays), limit
    if law.periodic[2]:
        z = scratch[3]
        limit = min(limit, _images(i, now, place[2], velocity[2], radii, law.box[2], z))
    return _touches_3d(i, now, x, y, z, velocity[0], velocity[1], velocity[2], radii, delays), limit


@vectorized
@no_type_check
def least(values):
    """Return the least of an array."""
    least = values[0]
    for k in range(values.shape[0]):
        least = min(least, values[k])
    return least


@vectorized
@no_type_check
def index(values, value):
    """Return the first index at which an array has a value."""
    first = values.shape[0]
    for k in range(values.shape[0]):
        first = min(first, k if values[k] == value else values.shape[0])
    return first


@borrowing
@no_type_check
def separation(axis, i, j, now, discs, law):
    """Return x_i - x_j along an axis, between nearest images."""
    r = discs.place[axis, i] - discs.place[axis, j] + (discs.velocity[axis, i] - discs.velocity[axis, j]) * now
    if law.periodic[axis]:
        r -= law.box[axis] * np.rint(r / law.box[axis])
    return r


@borrowing
@no_type_check
def _next_ghost_touch(i, now, discs, law, delays):
    """Write when ghost i begins or ends to overlap each other one; return as ``_next_touch``."""
    limit = NEVER
    for k in range(discs.due.shape[0]):
        delays[k] = NEVER
        if k == i:
            continue
        reach = discs.radii[i] + discs.radii[k]
        inside = discs.inside[i, k]
        gap, approach, speed = -reach * reach, 0.0, 0.0
        for axis in range(law.gravity.shape[0]):
            w = discs.velocity[axis, i] - discs.velocity[axis, k]
            r = separation(axis, i, k, now, discs, law)
            if law.periodic[axis] and w != 0.0:
                limit = min(limit, (law.box[axis] - 2.0 * reach) / abs(w))
                r = r if inside else _upstream(r, w, reach, law.box[axis])
            gap += r * r
            approach += r * w
            speed += w * w
        delays[k] = leave_delay(gap, approach, speed) if inside else touch_delay(gap, approach, speed)
    return least(delays), limit


@borrowing
@no_type_check
def predict(i, now, discs, law, scratch):
    """Find the next event of disc i; the other disc need not know, since the earlier of two predictions happens."""
    if law.interacting:
        best, limit = _next_touch(i, now, discs, law, scratch)
    else:
        best, limit = _next_ghost_touch(i, now, discs, law, scratch[0])
    who = index(scratch[0], best) if best < NEVER else i
    if limit < best:
        best, who = limit, i
    for axis in range(law.gravity.shape[0]):
        if not law.periodic[axis]:
            g = law.gravity[axis]
            v = discs.velocity[axis, i]
            x = discs.place[axis, i] + (v + 0.5 * g * now) * now
            delay, wall = next_wall(axis, x, v + g * now, discs.radii[i], law)
            if delay < best:
                best, who = delay, wall
    discs.due[i] = now + best
    discs.partner[i] = who

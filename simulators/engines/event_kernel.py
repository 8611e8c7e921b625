"""The compiled part of the event-driven engine: one system runs from collision to collision.

Each disc keeps the place and velocity from which it would have come at a common epoch had it always flown as it does
now, in a frame that falls with gravity. There all relative motion is linear, so the first partner of a disc is found in
one pass over contiguous arrays, and a collision touches only the discs that take part. Each disc also keeps its next
event and its partner in it. The epoch moves on every few dozen events, so that long runs lose no digits.

Never rename the record classes: a cache left by an older version names them, and would no longer load.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from simulators.engines.event_rules import (
    BURST_BEGAN,
    DONE,
    EPOCH,
    EVENTS,
    FILLED,
    FRAME,
    NEVER,
    PAUSE,
    RUNNING,
    STUCK,
    borrowing,
    count_event,
    leave_delay,
    log_row,
    next_wall,
    pair_impulse,
    time_goes_on,
    touch_delay,
    wall_departure,
)

_EVENTS_PER_EPOCH = 64  # places then stay within a few flights of the box, and keep 15 digits of it

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
    clock: np.ndarray  # (2,) epoch; local time at which the present burst began
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
def _least(values):
    """Return the least of an array."""
    least = values[0]
    for k in range(values.shape[0]):
        least = min(least, values[k])
    return least


@vectorized
@no_type_check
def _index(values, value):
    """Return the first index at which an array has a value."""
    first = values.shape[0]
    for k in range(values.shape[0]):
        first = min(first, k if values[k] == value else values.shape[0])
    return first


@borrowing
@no_type_check
def _separation(axis, i, j, now, discs, law):
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
            r = _separation(axis, i, k, now, discs, law)
            if law.periodic[axis] and w != 0.0:
                limit = min(limit, (law.box[axis] - 2.0 * reach) / abs(w))
                r = r if inside else _upstream(r, w, reach, law.box[axis])
            gap += r * r
            approach += r * w
            speed += w * w
        delays[k] = leave_delay(gap, approach, speed) if inside else touch_delay(gap, approach, speed)
    return _least(delays), limit


@borrowing
@no_type_check
def _predict(i, now, discs, law, scratch):
    """Find the next event of disc i; the other disc need not know, since the earlier of two predictions happens."""
    if law.interacting:
        best, limit = _next_touch(i, now, discs, law, scratch)
    else:
        best, limit = _next_ghost_touch(i, now, discs, law, scratch[0])
    who = _index(scratch[0], best) if best < NEVER else i
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


@borrowing
@no_type_check
def _meet_wall(i, wall, now, discs, law, rows):
    """Reflect disc i from a wall."""
    axis = (-wall - 1) // 2
    low = (-wall - 1) % 2 == 0
    sign = 1.0 if low else -1.0
    g = law.gravity[axis]
    arrival = max(-sign * (discs.velocity[axis, i] + g * now), 0.0)
    departure, forced = wall_departure(arrival, sign * g, now - discs.struck[i], law)
    # exactly on the wall: rounding must not leave a disc a hair behind it
    x = discs.radii[i] if low else law.box[axis] - discs.radii[i]
    v = sign * departure - g * now
    discs.velocity[axis, i] = v
    discs.place[axis, i] = x - (v + 0.5 * g * now) * now
    discs.struck[i] = now
    row = rows.tally[FILLED]
    for other in range(law.gravity.shape[0]):
        rows.normal[row, other] = sign if other == axis else 0.0
    log_row(rows, discs.clock[EPOCH] + now, i, wall, discs.masses[i] * (arrival + departure), forced)


@borrowing
@no_type_check
def _meet_disc(i, j, now, discs, law, rows):
    """Exchange momentum along the line of centres; ghosts only log what they would have exchanged."""
    row = rows.tally[FILLED]
    square, rate = 0.0, 0.0
    for axis in range(law.gravity.shape[0]):
        r = _separation(axis, i, j, now, discs, law)
        rows.normal[row, axis] = r
        square += r * r
        rate += r * (discs.velocity[axis, i] - discs.velocity[axis, j])
    if rate >= 0.0:
        return  # grazing: the last bit of approach was lost in rounding, and nothing is exchanged
    distance = math.sqrt(square)
    pause = now - max(discs.struck[i], discs.struck[j])
    impulse, forced = pair_impulse(-rate / distance, discs.masses[i], discs.masses[j], pause, law)
    for axis in range(law.gravity.shape[0]):
        rows.normal[row, axis] /= distance
        if law.interacting:
            push = impulse * rows.normal[row, axis]
            discs.velocity[axis, i] += push / discs.masses[i]
            discs.velocity[axis, j] -= push / discs.masses[j]
            discs.place[axis, i] -= push / discs.masses[i] * now
            discs.place[axis, j] += push / discs.masses[j] * now
    if law.interacting:
        discs.struck[i] = now
        discs.struck[j] = now
    log_row(rows, discs.clock[EPOCH] + now, i, j, impulse, forced)


@borrowing
@no_type_check
def _forget(partner, i, j):
    """Let those that wait for one of these look again when their time comes: it is not later than their next event."""
    for k in range(partner.shape[0]):
        partner[k] = k if (partner[k] == i) | (partner[k] == j) else partner[k]


@borrowing
@no_type_check
def _step(i, now, discs, law, rows, scratch):
    """Carry out the event of disc i, and renew the predictions that it has overthrown."""
    j = discs.partner[i]
    if j < 0:
        _meet_wall(i, j, now, discs, law, rows)
    elif j != i:
        if law.interacting or not discs.inside[i, j]:
            _meet_disc(min(i, j), max(i, j), now, discs, law, rows)
        if not law.interacting:
            discs.inside[i, j] = not discs.inside[i, j]
            discs.inside[j, i] = discs.inside[i, j]
    if j != i:
        _forget(discs.partner, i, j)
    n_struck = 2 if j >= 0 and j != i else 1
    for turn in range(n_struck):  # one call: its body is compiled into every place that calls it
        _predict(i if turn == 0 else j, now, discs, law, scratch)


@borrowing
@no_type_check
def _move_epoch(now, discs, law):
    """Count local time from a later epoch, and bring places along periodic axes back into the box."""
    shift = 2.0 ** math.floor(math.log2(now))  # few bits, so that the epoch stays exact
    discs.clock[EPOCH] += shift
    discs.clock[BURST_BEGAN] -= shift
    for k in range(discs.due.shape[0]):
        discs.struck[k] -= shift
        discs.due[k] -= shift
        for axis in range(law.gravity.shape[0]):
            g = law.gravity[axis]
            x = discs.place[axis, k] + (discs.velocity[axis, k] + 0.5 * g * shift) * shift
            if law.periodic[axis]:
                x -= law.box[axis] * math.floor(x / law.box[axis])
            discs.place[axis, k] = x
            discs.velocity[axis, k] += g * shift


@borrowing
@no_type_check
def _keep_time(now, discs, law):
    """Count the event, move the epoch after some dozen, and return False when time stands still."""
    tally = discs.tally
    count_event(now, discs.clock, tally, law)
    if tally[EVENTS] % _EVENTS_PER_EPOCH == 0 and now > 0.0:
        _move_epoch(now, discs, law)
    return time_goes_on(tally, discs.due.shape[0])


@borrowing
@no_type_check
def _write_frame(frame, discs, law, positions, velocities):
    """Write where every disc is at a frame, and how fast; along periodic axes in [0, length)."""
    now = frame * law.frame_interval - discs.clock[EPOCH]
    for axis in range(law.gravity.shape[0]):
        g, length = law.gravity[axis], law.box[axis]
        for k in range(discs.due.shape[0]):
            v = discs.velocity[axis, k]
            x = discs.place[axis, k] + (v + 0.5 * g * now) * now
            if law.periodic[axis]:
                x -= length * math.floor(x / length)
                x = x if x < length else 0.0  # a hair below 0 rounds up to the length
            positions[frame, k, axis] = x
            velocities[frame, k, axis] = v + g * now


@borrowing
@no_type_check
def _run(discs, law, rows, positions, velocities, scratch):
    """Run one system until it is done, the host is to look, or time stands still; return its status."""
    while True:
        now = _least(discs.due)
        while discs.tally[FRAME] * law.frame_interval < discs.clock[EPOCH] + now:
            _write_frame(discs.tally[FRAME], discs, law, positions, velocities)
            discs.tally[FRAME] += 1
            if discs.tally[FRAME] == law.n_frames:
                return DONE
        if rows.tally[FILLED] == rows.tally[PAUSE]:
            return RUNNING
        _step(_index(discs.due, now), now, discs, law, rows, scratch)
        if not _keep_time(now, discs, law):
            return STUCK


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def run_systems(status, rows, discs, law, positions, velocities):
    """Run one system after the other until all are done, the host is to look, or time stands still."""
    scratch = np.empty((4, discs.due.shape[1]))
    for s in range(status.shape[0]):
        if status[s] == DONE:
            continue
        one = Discs(
            discs.radii[s],
            discs.masses[s],
            discs.place[s],
            discs.velocity[s],
            discs.struck[s],
            discs.due[s],
            discs.partner[s],
            discs.inside[s],
            discs.clock[s],
            discs.tally[s],
        )
        status[s] = _run(one, law, rows, positions[s], velocities[s], scratch)
        if status[s] != DONE:
            return
        rows.ends[s] = rows.tally[FILLED]

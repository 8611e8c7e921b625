"""The compiled part of the event-driven engine: one system runs from collision to collision.

Each disc keeps the place and velocity from which it would have come at a common epoch had it always flown as it does
now, in a frame that falls with gravity. There all relative motion is linear, so the first partner of a disc is found in
one pass over contiguous arrays, and a collision touches only the discs that take part. Each disc also keeps its next
event and its partner in it. The epoch moves on every few dozen events, so that long runs lose no digits.

Never rename the record classes: a cache left by an older version names them, and would no longer load.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from simulators.engines.event_prediction import Discs, index, least, predict, separation
from simulators.engines.event_rules import (
    BURST_BEGAN,
    DONE,
    EPOCH,
    EVENTS,
    FILLED,
    FRAME,
    NOW,
    PAUSE,
    RUNNING,
    STUCK,
    borrowing,
    count_event,
    log_row,
    pair_impulse,
    time_goes_on,
    wall_departure,
)

_EVENTS_PER_EPOCH = 64  # places then stay within a few flights of the box, and keep 15 digits of it


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
        r = separation(axis, i, j, now, discs, law)
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
        predict(i if turn == 0 else j, now, discs, law, scratch)


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
        now = least(discs.due)
        while discs.tally[FRAME] * law.frame_interval < discs.clock[EPOCH] + now:
            _write_frame(discs.tally[FRAME], discs, law, positions, velocities)
            discs.tally[FRAME] += 1
            if discs.tally[FRAME] == law.n_frames:
                return DONE
        if rows.tally[FILLED] == rows.tally[PAUSE]:
            discs.clock[NOW] = now
            return RUNNING
        _step(index(discs.due, now), now, discs, law, rows, scratch)
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

"""The compiled part of the event-driven engine: one system runs from collision to collision.

Each disc keeps the place, velocity and local time at which its present flight began, so a flight is one closed form
however many frames it crosses, and frames never touch the dynamics. Each disc also keeps its next event and its
partner in it. Local time restarts now and then from a later epoch, so that long runs lose no digits.

All compiled functions live in this one file: numba's cache notices a change in it, but not in a file it imports.
Never rename its record classes: a cache left by an older version names them, and would no longer load.
``no_type_check`` keeps the run-time type checker of the tests away from functions that numba compiles.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange

NEVER = 1e300  # finite: no inf enters the arithmetic
FRESH, RUNNING, DONE, STUCK = 0, 1, 2, 3
FRAME, EVENTS, BURST = 0, 1, 2  # columns of Discs.tally
EPOCH, BURST_BEGAN = 0, 1  # columns of Discs.clock

_EVENTS_PER_EPOCH = 256  # an epoch then spans a few hundred events, and local times keep 13 digits of one flight
_BURST_LENGTH = 1000  # events a disc within 1e-9 of a frame interval: time stands still, no physical cluster does this
_BURST_SPAN = 1e-9

compiled = njit(cache=True, error_model="numpy")


class Law(NamedTuple):
    """What all systems share."""

    gravity: np.ndarray  # (dim,)
    box: np.ndarray  # (dim,)
    restitution: float
    contact_time: float
    interacting: bool
    frame_interval: float
    n_frames: int


class Discs(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it."""

    radii: np.ndarray  # (particle,)
    masses: np.ndarray  # (particle,)
    origin: np.ndarray  # (dim, particle) where the present flight began
    velocity: np.ndarray  # (dim, particle) at that place
    since: np.ndarray  # (particle,) local time of that place
    struck: np.ndarray  # (particle,) local time of the last collision
    due: np.ndarray  # (particle,) local time of the next event
    partner: np.ndarray  # (particle,) of that event; walls are negative
    inside: np.ndarray  # (particle, particle) ghosts that overlap
    clock: np.ndarray  # (2,) epoch; local time at which the present burst began
    tally: np.ndarray  # (3,) next frame, events so far, events in this burst


class Rows(NamedTuple):
    """Buffers for the log: all systems with a leading axis, or one system without it."""

    time: np.ndarray  # (row,)
    i: np.ndarray  # (row,)
    j: np.ndarray  # (row,)
    impulse: np.ndarray  # (row,)
    normal: np.ndarray  # (row, dim)
    forced: np.ndarray  # (row,)
    filled: np.ndarray  # (1,)


@compiled
@no_type_check
def _fly(discs, gravity, now, position, velocity):
    """Write where every disc is at local time ``now``, and how fast."""
    for axis in range(gravity.shape[0]):
        g = gravity[axis]
        for k in range(discs.since.shape[0]):
            s = now - discs.since[k]
            v = discs.velocity[axis, k]
            position[axis, k] = discs.origin[axis, k] + (v + 0.5 * g * s) * s
            velocity[axis, k] = v + g * s


@compiled
@no_type_check
def _wall_delay(gap, rate, pull):
    """Return the first s >= 0 at which gap + rate s + pull s^2 / 2 reaches 0 from above, without cancellation."""
    if rate >= 0.0 and pull >= 0.0:
        return NEVER
    gap = max(gap, 0.0)
    if gap == 0.0 and rate <= 0.0:
        return 0.0
    square = rate * rate - 2.0 * pull * gap
    if square < 0.0:
        return NEVER
    if rate < 0.0:
        return 2.0 * gap / (math.sqrt(square) - rate)
    return (rate + math.sqrt(square)) / -pull


@compiled
@no_type_check
def _pair_motion(i, k, position, velocity, reach):
    """Return the coefficients of |r + w s|^2 - reach^2 = gap + 2 approach s + speed s^2; gravity cancels."""
    gap, approach, speed = -reach * reach, 0.0, 0.0
    for axis in range(position.shape[0]):
        r = position[axis, i] - position[axis, k]
        w = velocity[axis, i] - velocity[axis, k]
        gap += r * r
        approach += r * w
        speed += w * w
    return gap, approach, speed


@compiled
@no_type_check
def _touch_delay(gap, approach, speed):
    """Return when a pair touches: now if it overlaps and approaches, never if it separates."""
    square = approach * approach - speed * gap
    if approach >= 0.0 or square < 0.0:
        return NEVER
    return max(gap, 0.0) / (math.sqrt(square) - approach)


@compiled
@no_type_check
def _leave_delay(gap, approach, speed):
    """Return when a pair of overlapping ghosts comes apart."""
    if speed == 0.0:
        return NEVER
    root = math.sqrt(max(approach * approach - speed * gap, 0.0))
    if approach > 0.0:
        return max(-gap, 0.0) / (approach + root)
    return (root - approach) / speed


@compiled
@no_type_check
def _next_wall(i, position, velocity, radius, law):
    """Return the delay until disc i meets a wall, and which."""
    best, wall = NEVER, i
    for axis in range(law.gravity.shape[0]):
        x, v, g = position[axis, i], velocity[axis, i], law.gravity[axis]
        low = _wall_delay(x - radius, v, g)
        high = _wall_delay(law.box[axis] - radius - x, -v, -g)
        if low < best:
            best, wall = low, -(2 * axis + 1)
        if high < best:
            best, wall = high, -(2 * axis + 2)
    return best, wall


@compiled
@no_type_check
def _predict(i, now, discs, law, position, velocity):
    """Find the next event of disc i; the other disc need not know, since the earlier of two predictions happens."""
    radii = discs.radii
    best, who = _next_wall(i, position, velocity, radii[i], law)
    for k in range(radii.shape[0]):
        if k == i:
            continue
        gap, approach, speed = _pair_motion(i, k, position, velocity, radii[i] + radii[k])
        if not law.interacting and discs.inside[i, k]:
            delay = _leave_delay(gap, approach, speed)
        else:
            delay = _touch_delay(gap, approach, speed)
        if delay < best:
            best, who = delay, k
    discs.due[i] = now + best
    discs.partner[i] = who


@compiled
@no_type_check
def _log(rows, time, i, j, impulse, forced):
    """Append a row but for its normal, which the caller has written in place."""
    row = rows.filled[0]
    rows.time[row] = time
    rows.i[row] = i
    rows.j[row] = j
    rows.impulse[row] = impulse
    rows.forced[row] = forced
    rows.filled[0] = row + 1


@compiled
@no_type_check
def _begin_flight(i, now, discs, position, velocity):
    """Let disc i fly on from where it is, with the velocity it has now."""
    for axis in range(position.shape[0]):
        discs.origin[axis, i] = position[axis, i]
        discs.velocity[axis, i] = velocity[axis, i]
    discs.since[i] = now
    discs.struck[i] = now


@compiled
@no_type_check
def _meet_wall(i, wall, now, discs, law, rows, position, velocity):
    """Reflect disc i from a wall."""
    axis = (-wall - 1) // 2
    low = (-wall - 1) % 2 == 0
    sign = 1.0 if low else -1.0
    arrival = max(-sign * velocity[axis, i], 0.0)
    forced = law.restitution < 1.0 and now - discs.struck[i] < law.contact_time
    departure = arrival if forced else law.restitution * arrival
    pull = sign * law.gravity[axis]
    slowest = -0.25 * pull * law.contact_time  # falls back after half a contact time
    if pull < 0.0 and departure <= (slowest if law.restitution < 1.0 else 0.0):
        departure = slowest
        forced = True
    # exactly on the wall: rounding must not leave a disc a hair behind it
    position[axis, i] = discs.radii[i] if low else law.box[axis] - discs.radii[i]
    velocity[axis, i] = sign * departure
    _begin_flight(i, now, discs, position, velocity)
    rows.normal[rows.filled[0], :] = 0.0
    rows.normal[rows.filled[0], axis] = sign
    _log(rows, discs.clock[EPOCH] + now, i, wall, discs.masses[i] * (arrival + departure), forced)


@compiled
@no_type_check
def _meet_disc(i, j, now, discs, law, rows, position, velocity):
    """Exchange momentum along the line of centres; ghosts only log what they would have exchanged."""
    normal = rows.normal[rows.filled[0]]
    distance, rate = 0.0, 0.0
    for axis in range(law.gravity.shape[0]):
        r = position[axis, i] - position[axis, j]
        normal[axis] = r
        distance += r * r
        rate += r * (velocity[axis, i] - velocity[axis, j])
    distance = math.sqrt(distance)
    rate /= distance
    for axis in range(law.gravity.shape[0]):
        normal[axis] /= distance
    if rate >= 0.0:
        return  # grazing: the last bit of approach was lost in rounding, and nothing is exchanged
    recent = now - max(discs.struck[i], discs.struck[j]) < law.contact_time
    forced = law.interacting and law.restitution < 1.0 and recent
    restitution = 1.0 if forced else law.restitution
    reduced = discs.masses[i] * discs.masses[j] / (discs.masses[i] + discs.masses[j])
    impulse = -(1.0 + restitution) * reduced * rate
    if law.interacting:
        for axis in range(law.gravity.shape[0]):
            velocity[axis, i] += impulse / discs.masses[i] * normal[axis]
            velocity[axis, j] -= impulse / discs.masses[j] * normal[axis]
        _begin_flight(i, now, discs, position, velocity)
        _begin_flight(j, now, discs, position, velocity)
    _log(rows, discs.clock[EPOCH] + now, i, j, impulse, forced)


@compiled
@no_type_check
def _happen(i, j, now, discs, law, rows, position, velocity):
    """Carry out the event of disc i with partner j."""
    if j < 0:
        _meet_wall(i, j, now, discs, law, rows, position, velocity)
        return
    first, second = min(i, j), max(i, j)
    leaving = discs.inside[i, j]
    if not leaving:
        _meet_disc(first, second, now, discs, law, rows, position, velocity)
    if not law.interacting:
        discs.inside[i, j] = not leaving
        discs.inside[j, i] = not leaving


@compiled
@no_type_check
def _predict_after(i, j, now, discs, law, position, velocity):
    """Renew the predictions of the discs of an event, and of those that were waiting for one of them."""
    for k in range(discs.due.shape[0]):
        waiting = discs.partner[k] == i or (j >= 0 and discs.partner[k] == j)
        if waiting and k != i and k != j:
            _predict(k, now, discs, law, position, velocity)
    _predict(i, now, discs, law, position, velocity)
    if j >= 0:
        _predict(j, now, discs, law, position, velocity)


@compiled
@no_type_check
def _keep_time(now, discs, law):
    """Count the event, restart local time after some hundred, and return False when time stands still."""
    tally, clock = discs.tally, discs.clock
    tally[EVENTS] += 1
    tally[BURST] += 1
    if now - clock[BURST_BEGAN] > _BURST_SPAN * law.frame_interval:
        clock[BURST_BEGAN] = now
        tally[BURST] = 0
    if tally[EVENTS] % _EVENTS_PER_EPOCH == 0 and now > 0.0:
        shift = 2.0 ** math.floor(math.log2(now))  # few bits, so that the epoch stays exact
        clock[EPOCH] += shift
        clock[BURST_BEGAN] -= shift
        for k in range(discs.due.shape[0]):
            discs.since[k] -= shift
            discs.struck[k] -= shift
            discs.due[k] -= shift
    return tally[BURST] < _BURST_LENGTH * discs.due.shape[0]


@compiled
@no_type_check
def _write_frames(before, discs, law, positions, velocities, position, velocity):
    """Write the frames that come before a time; return whether all are written."""
    tally = discs.tally
    while tally[FRAME] < law.n_frames and tally[FRAME] * law.frame_interval < before:
        now = tally[FRAME] * law.frame_interval - discs.clock[EPOCH]
        _fly(discs, law.gravity, now, position, velocity)
        for k in range(discs.due.shape[0]):
            for axis in range(law.gravity.shape[0]):
                positions[tally[FRAME], k, axis] = position[axis, k]
                velocities[tally[FRAME], k, axis] = velocity[axis, k]
        tally[FRAME] += 1
    return tally[FRAME] == law.n_frames


@compiled
@no_type_check
def _run(status, discs, law, rows, positions, velocities):
    """Run one system until it is done, its buffer is full, or time stands still; return its status."""
    n, dim = discs.due.shape[0], law.gravity.shape[0]
    position, velocity = np.empty((dim, n)), np.empty((dim, n))
    if status == FRESH:
        _fly(discs, law.gravity, 0.0, position, velocity)
        for k in range(n):
            _predict(k, 0.0, discs, law, position, velocity)
    while True:
        i = np.argmin(discs.due)
        now = discs.due[i]
        if _write_frames(discs.clock[EPOCH] + now, discs, law, positions, velocities, position, velocity):
            return DONE
        if rows.filled[0] == rows.time.shape[0]:
            return RUNNING
        j = discs.partner[i]
        _fly(discs, law.gravity, now, position, velocity)
        _happen(i, j, now, discs, law, rows, position, velocity)
        _predict_after(i, j, now, discs, law, position, velocity)
        if not _keep_time(now, discs, law):
            return STUCK


@njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def run_systems(active, status, discs, law, rows, positions, velocities):
    """Run the active systems on all cores, each with its own buffer; the order of the systems changes no bit."""
    for a in prange(active.shape[0]):
        s = active[a]
        one = Discs(
            discs.radii[s],
            discs.masses[s],
            discs.origin[s],
            discs.velocity[s],
            discs.since[s],
            discs.struck[s],
            discs.due[s],
            discs.partner[s],
            discs.inside[s],
            discs.clock[s],
            discs.tally[s],
        )
        log = Rows(
            rows.time[a],
            rows.i[a],
            rows.j[a],
            rows.impulse[a],
            rows.normal[a],
            rows.forced[a],
            rows.filled[a],
        )
        status[s] = _run(status[s], one, law, log, positions[s], velocities[s])

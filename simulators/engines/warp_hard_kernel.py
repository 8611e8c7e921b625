"""The device part of ``warp_hard``: ``event_kernel`` with one thread for each system.

Arrays have the system last, so that neighbouring threads read neighbouring numbers. As there, each disc keeps the place
and velocity from which it would have come at a common epoch had it always flown as it does now, in a frame that falls
with gravity, and its next event. What is added: one thread does the whole of a system, all-pairs and without a queue.
"""

# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportReturnType=false, reportArgumentType=false
# (Warp reads these functions as source; to a type checker its scalars and arrays are opaque)

from typing import no_type_check

import warp as wp

from simulators.engines.warp_rules import (
    HALF,
    NEVER,
    ONE,
    TWO,
    ZERO,
    Law,
    Rows,
    leave_delay,
    log_row,
    next_wall,
    pair_impulse,
    touch_delay,
    wall_departure,
)

FRESH, RUNNING, DONE, STUCK = (wp.constant(k) for k in range(4))  # of a system
_EVENTS_PER_EPOCH = wp.constant(64)
_BURST_LENGTH = wp.constant(1000)  # events a disc within 1e-9 of a frame interval: time stands still
_BURST_SPAN = wp.constant(wp.float64(1e-9))

wp.set_module_options({"enable_backward": False})


@wp.struct
@no_type_check
class Discs:
    """The running state, bit for bit."""

    radii: wp.array2d[wp.float64]  # (particle, system)
    masses: wp.array2d[wp.float64]
    place: wp.array2d[wp.vec3d]  # at the epoch, were there no collision since
    velocity: wp.array2d[wp.vec3d]  # at the epoch
    struck: wp.array2d[wp.float64]  # local time of the last collision; local time is counted from the epoch
    due: wp.array2d[wp.float64]  # local time of the next event
    partner: wp.array2d[wp.int32]  # of that event; walls are negative; itself: only to look again
    inside: wp.array3d[wp.bool]  # (particle, particle, system): ghosts that overlap
    epoch: wp.array[wp.float64]  # (system,)
    burst_began: wp.array[wp.float64]
    frame: wp.array[wp.int32]  # the next to write
    events: wp.array[wp.int32]  # in this epoch
    burst: wp.array[wp.int32]  # events in this burst
    n_forced: wp.array[wp.int32]
    status: wp.array[wp.int32]


@wp.func
@no_type_check
def _separation(i: wp.int32, j: wp.int32, now: wp.float64, s: wp.int32, discs: Discs):
    """Return x_i - x_j without regard to images."""
    return (discs.place[i, s] + discs.velocity[i, s] * now) - (discs.place[j, s] + discs.velocity[j, s] * now)


@wp.func
@no_type_check
def _nearest(r: wp.vec3d, law: Law):
    """Return a separation between nearest images."""
    image = r
    for axis in range(3):
        if law.periodic[axis] != 0:
            image[axis] = r[axis] - law.box[axis] * wp.rint(r[axis] / law.box[axis])
    return image


@wp.func
@no_type_check
def _upstream(r: wp.float64, w: wp.float64, reach: wp.float64, length: wp.float64):
    """Return the image of a separation that a pair with relative velocity w meets first: within a box before contact.

    In the direction of w it lies in [reach - length, reach), so every contact before w has carried it across
    length - 2 reach is one with this image.
    """
    sign = wp.where(w >= ZERO, ONE, -ONE)
    ahead = sign * r
    return sign * (ahead - length * (wp.floor((ahead - reach) / length) + ONE))


@wp.func
@no_type_check
def _pair_delay(i: wp.int32, k: wp.int32, now: wp.float64, s: wp.int32, discs: Discs, law: Law):
    """Return when disc i touches disc k, or ghosts part, and for how long that is the whole truth about this pair."""
    reach = discs.radii[i, s] + discs.radii[k, s]
    w = discs.velocity[i, s] - discs.velocity[k, s]
    r = _separation(i, k, now, s, discs)
    horizon = wp.float64(NEVER)
    overlapping = not law.interacting and discs.inside[i, k, s]
    if overlapping:
        r = _nearest(r, law)
    else:
        for axis in range(3):
            if law.periodic[axis] != 0:
                r[axis] = _upstream(r[axis], w[axis], reach, law.box[axis])
                if w[axis] != ZERO:
                    horizon = wp.min(horizon, (law.box[axis] - TWO * reach) / wp.abs(w[axis]))
    gap = wp.dot(r, r) - reach * reach
    approach = wp.dot(r, w)
    speed = wp.dot(w, w)
    delay = touch_delay(gap, approach, speed)
    if overlapping:
        delay = leave_delay(gap, approach, speed)
    return delay, horizon


@wp.func
@no_type_check
def _predict(i: wp.int32, now: wp.float64, s: wp.int32, discs: Discs, law: Law):
    """Find the next event of disc i; the other disc need not know, since the earlier of two predictions happens."""
    best = wp.float64(NEVER)
    who = wp.int32(i)
    for k in range(law.n_particles):
        if k != i:
            delay, horizon = _pair_delay(i, k, now, s, discs, law)
            if delay < best:
                best = delay
                who = k
            if horizon < best:
                best = horizon
                who = i
    for axis in range(law.dim):
        if law.periodic[axis] == 0:
            g = law.gravity[axis]
            v = discs.velocity[i, s][axis]
            x = discs.place[i, s][axis] + (v + HALF * g * now) * now
            delay, wall = next_wall(axis, x, v + g * now, discs.radii[i, s], law)
            if delay < best:
                best = delay
                who = wall
    discs.due[i, s] = now + best
    discs.partner[i, s] = who


@wp.func
@no_type_check
def _meet_wall(
    i: wp.int32, wall: wp.int32, now: wp.float64, s: wp.int32, a: wp.int32, discs: Discs, law: Law, rows: Rows
):
    """Reflect disc i from a wall."""
    axis = (-wall - 1) / 2
    low = (-wall - 1) % 2 == 0
    sign = wp.where(low, ONE, -ONE)
    g = law.gravity[axis]
    place = discs.place[i, s]
    velocity = discs.velocity[i, s]
    arrival = wp.max(-sign * (velocity[axis] + g * now), ZERO)
    departure, forced = wall_departure(arrival, sign * g, now - discs.struck[i, s], law)
    # exactly on the wall: rounding must not leave a disc a hair behind it
    x = wp.where(low, discs.radii[i, s], law.box[axis] - discs.radii[i, s])
    v = sign * departure - g * now
    velocity[axis] = v
    place[axis] = x - (v + HALF * g * now) * now
    discs.velocity[i, s] = velocity
    discs.place[i, s] = place
    discs.struck[i, s] = now
    normal = wp.vec3d(ZERO, ZERO, ZERO)
    normal[axis] = sign
    _log(discs.masses[i, s] * (arrival + departure), forced, normal, i, wall, now, s, a, discs, rows)


@wp.func
@no_type_check
def _log(
    impulse: wp.float64,
    forced: wp.bool,
    normal: wp.vec3d,
    i: wp.int32,
    j: wp.int32,
    now: wp.float64,
    s: wp.int32,
    a: wp.int32,
    discs: Discs,
    rows: Rows,
):
    """Log a collision, and count the forced ones."""
    log_row(rows, a, discs.epoch[s] + now, i, j, impulse, normal, forced)
    if forced:
        discs.n_forced[s] = discs.n_forced[s] + 1


@wp.func
@no_type_check
def _meet_disc(i: wp.int32, j: wp.int32, now: wp.float64, s: wp.int32, a: wp.int32, discs: Discs, law: Law, rows: Rows):
    """Exchange momentum along the line of centres; ghosts only log what they would have exchanged."""
    if not law.interacting and discs.inside[i, j, s]:
        discs.inside[i, j, s] = False
        discs.inside[j, i, s] = False
        return
    r = _nearest(_separation(i, j, now, s, discs), law)
    rate = wp.dot(r, discs.velocity[i, s] - discs.velocity[j, s])
    if rate >= ZERO:
        return  # grazing: the last bit of approach was lost in rounding, and nothing is exchanged
    distance = wp.length(r)
    normal = r / distance
    mass_i = discs.masses[i, s]
    mass_j = discs.masses[j, s]
    pause = now - wp.max(discs.struck[i, s], discs.struck[j, s])
    impulse, forced = pair_impulse(-rate / distance, mass_i, mass_j, pause, law)
    if law.interacting:
        kick_i = normal * (impulse / mass_i)
        kick_j = normal * (impulse / mass_j)
        discs.velocity[i, s] = discs.velocity[i, s] + kick_i
        discs.velocity[j, s] = discs.velocity[j, s] - kick_j
        discs.place[i, s] = discs.place[i, s] - kick_i * now
        discs.place[j, s] = discs.place[j, s] + kick_j * now
        discs.struck[i, s] = now
        discs.struck[j, s] = now
    else:
        discs.inside[i, j, s] = True
        discs.inside[j, i, s] = True
    _log(impulse, forced, normal, i, j, now, s, a, discs, rows)


@wp.func
@no_type_check
def _overthrown(begin: wp.int32, i: wp.int32, j: wp.int32, s: wp.int32, discs: Discs, law: Law):
    """Return the first disc from ``begin`` on whose prediction the event overthrows, or their number."""
    for k in range(begin, law.n_particles):
        other = discs.partner[k, s]
        if k == i or other == i or (j >= 0 and (k == j or other == j)):
            return k
    return law.n_particles


@wp.func
@no_type_check
def _step(i: wp.int32, now: wp.float64, s: wp.int32, a: wp.int32, discs: Discs, law: Law, rows: Rows):
    """Carry out the event of disc i, and renew the predictions that it has overthrown."""
    j = discs.partner[i, s]
    if j < 0:
        _meet_wall(i, j, now, s, a, discs, law, rows)
    elif j != i:
        _meet_disc(wp.min(i, j), wp.max(i, j), now, s, a, discs, law, rows)
    k = _overthrown(0, i, j, s, discs, law)
    while k < law.n_particles:  # threads of a warp search apart and predict together
        _predict(k, now, s, discs, law)
        k = _overthrown(k + 1, i, j, s, discs, law)


@wp.func
@no_type_check
def _move_epoch(now: wp.float64, s: wp.int32, discs: Discs, law: Law):
    """Count local time from a later epoch, and bring places along periodic axes back into the box."""
    shift = wp.float64(ONE)  # the largest power of two up to now: few bits, so that the epoch stays exact
    while shift > now:
        shift = shift * HALF
    while shift * TWO <= now:
        shift = shift * TWO
    discs.epoch[s] = discs.epoch[s] + shift
    discs.burst_began[s] = discs.burst_began[s] - shift
    for k in range(law.n_particles):
        discs.struck[k, s] = discs.struck[k, s] - shift
        discs.due[k, s] = discs.due[k, s] - shift
        v = discs.velocity[k, s]
        x = discs.place[k, s] + (v + law.gravity * (HALF * shift)) * shift
        for axis in range(3):
            if law.periodic[axis] != 0:
                x[axis] = x[axis] - law.box[axis] * wp.floor(x[axis] / law.box[axis])
        discs.place[k, s] = x
        discs.velocity[k, s] = v + law.gravity * shift


@wp.func
@no_type_check
def _keep_time(now: wp.float64, s: wp.int32, discs: Discs, law: Law):
    """Count the event, move the epoch after some dozen, and return False when time stands still."""
    discs.events[s] = discs.events[s] + 1
    discs.burst[s] = discs.burst[s] + 1
    if now - discs.burst_began[s] > _BURST_SPAN * law.frame_interval:
        discs.burst_began[s] = now
        discs.burst[s] = 0
    if discs.events[s] >= _EVENTS_PER_EPOCH and now > ZERO:
        discs.events[s] = 0
        _move_epoch(now, s, discs, law)
    return discs.burst[s] < _BURST_LENGTH * law.n_particles


@wp.func
@no_type_check
def _write_frame(
    frame: wp.int32,
    s: wp.int32,
    discs: Discs,
    law: Law,
    positions: wp.array4d[wp.float64],
    velocities: wp.array4d[wp.float64],
):
    """Write where every disc is at a frame, and how fast; along periodic axes in [0, length)."""
    now = wp.float64(frame) * law.frame_interval - discs.epoch[s]
    for k in range(law.n_particles):
        for axis in range(law.dim):
            g = law.gravity[axis]
            v = discs.velocity[k, s][axis]
            x = discs.place[k, s][axis] + (v + HALF * g * now) * now
            if law.periodic[axis] != 0:
                x = x - law.box[axis] * wp.floor(x / law.box[axis])
                x = wp.where(x < law.box[axis], x, ZERO)  # a hair below 0 rounds up to the length
            positions[s, frame, k, axis] = x
            velocities[s, frame, k, axis] = v + g * now


@wp.func
@no_type_check
def _first(s: wp.int32, discs: Discs, law: Law):
    """Return the disc whose event comes first."""
    first = wp.int32(0)
    least = discs.due[0, s]
    for k in range(1, law.n_particles):
        due = discs.due[k, s]
        if due < least:
            least = due
            first = k
    return first


@wp.kernel
@no_type_check
def run_systems(
    active: wp.array[wp.int32],
    discs: Discs,
    law: Law,
    rows: Rows,
    positions: wp.array4d[wp.float64],
    velocities: wp.array4d[wp.float64],
):
    """Run each active system until it is done, its buffer is full, or time stands still."""
    a = wp.tid()
    s = active[a]
    if discs.status[s] == FRESH:
        _write_frame(0, s, discs, law, positions, velocities)  # the start itself, whatever happens at time 0
        for k in range(law.n_particles):
            _predict(k, ZERO, s, discs, law)
        discs.status[s] = RUNNING
    going = wp.bool(True)
    while going:
        i = _first(s, discs, law)
        now = discs.due[i, s]
        while discs.frame[s] < law.n_frames and wp.float64(discs.frame[s]) * law.frame_interval < discs.epoch[s] + now:
            _write_frame(discs.frame[s], s, discs, law, positions, velocities)
            discs.frame[s] = discs.frame[s] + 1
        if discs.frame[s] == law.n_frames:
            discs.status[s] = DONE
            going = False
        elif rows.filled[a] == rows.time.shape[0]:
            going = False
        else:
            _step(i, now, s, a, discs, law, rows)
            if not _keep_time(now, s, discs, law):
                discs.status[s] = STUCK
                going = False

"""The compiled part of the engine for smooth forces: one system goes from step to step.

A step is kick - turn - drift - turn - kick: velocities change for half a step under the forces (velocity Verlet) and
turn by half an angle about the magnetic field, positions drift in straight lines, and the same in reverse order.

Walls reflect inside the drift. The drift's velocity is that of mid-step, the impact at a share s of the step, so the
velocity is first brought to the time of the impact, mirrored, and brought back: with the acceleration a at the impact,
``v -> v + a (s - 1/2) h``, mirror, ``v -> v + a (1/2 - s) h``. A plain mirror would leave an error of first order in
the step h at each impact. Both ways are the same number read forward or backward, so steps stay reversible.

Encounters, pairs closer than the sum of their radii, are followed in a table until they part; then a row is written.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange

from simulators.engines.smooth_pairs import (
    NearPairs,
    compiled,
    external_force,
    list_pairs,
    nearest_image,
    pair_force,
    sum_list_plane,
    sum_list_space,
    sum_plane,
    sum_space,
)

FRESH, READY, MOVED, DONE, HASTY = 0, 1, 2, 3, 4  # what a system does next; HASTY went through walls too often
STEP, OPEN = 0, 1  # columns of Bodies.tally
MOST_BOUNCES = 2  # from walls, a particle and step


class Setup(NamedTuple):
    """What all systems share, beside the law."""

    lengths: np.ndarray  # (dim,) of periodic axes, else 0
    low: np.ndarray  # (dim,) near walls, minus infinity where there are none
    walls: np.ndarray  # (dim,) far walls, infinity where there are none
    step: float
    steps_per_frame: int
    n_frames: int
    reach: float  # of the list of near pairs; 0 sums over all pairs
    skin: float  # what the list reaches beyond the force
    pushed: bool  # by external forces


class Bodies(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it."""

    position: np.ndarray  # (dim, particle)
    previous: np.ndarray  # (dim, particle) a step before
    listed: np.ndarray  # (dim, particle) when the list was made
    velocity: np.ndarray  # (dim, particle)
    acceleration: np.ndarray  # (dim, particle)
    radii: np.ndarray  # (particle,)
    masses: np.ndarray  # (particle,)
    strengths: np.ndarray  # (particle,) what external forces act on
    couplings: np.ndarray  # (1 or particle, particle)
    response: np.ndarray  # (particle,) acceleration a unit of summed force
    near: np.ndarray  # (particle,) square of the largest sum of radii with anyone
    turning: np.ndarray  # (3, particle) about the magnetic field: rate, cosine and sine of half a step; or (3, 0)
    crowd: np.ndarray  # (particle,) above 1 where another centre may be within reach
    tally: np.ndarray  # (2,)
    pair: np.ndarray  # (open, 2) encounters under way
    begin: np.ndarray  # (open,)
    deepest: np.ndarray  # (open,) overlap so far
    gained: np.ndarray  # (open, dim) momentum of the first of the pair so far


class Rows(NamedTuple):
    """Buffers for the log: all systems with a leading axis, or one system without it."""

    time: np.ndarray  # (row,)
    i: np.ndarray  # (row,)
    j: np.ndarray  # (row,)
    impulse: np.ndarray  # (row,)
    normal: np.ndarray  # (row, dim)
    duration: np.ndarray  # (row,)
    overlap: np.ndarray  # (row,)
    filled: np.ndarray  # (1,)


@compiled
@no_type_check
def _add_external(law, begin, end, bodies):
    """Add what acts from outside to the accelerations of particles begin to end."""
    position, acceleration = bodies.position, bodies.acceleration
    for k in range(begin, end):
        z = position[2, k] if position.shape[0] == 3 else 0.0
        for axis in range(position.shape[0]):
            force = external_force(law, axis, bodies.strengths[k], position[0, k], position[1, k], z)
            acceleration[axis, k] += force / bodies.masses[k]


@compiled
@no_type_check
def _accelerate(law, setup, begin, end, bodies):
    """Write the accelerations of particles begin to end, summed over all pairs."""
    position, acceleration, count = bodies.position, bodies.acceleration, bodies.crowd
    x, y, couplings, lengths = position[0], position[1], bodies.couplings, setup.lengths
    response, near, ax, ay = bodies.response, bodies.near, acceleration[0], acceleration[1]
    if position.shape[0] == 2:
        sum_plane(law, begin, end, x, y, couplings, lengths, response, near, ax, ay, count)
    else:
        z, az = position[2], acceleration[2]
        sum_space(law, begin, end, x, y, z, couplings, lengths, response, near, ax, ay, az, count)
    if setup.pushed:
        _add_external(law, begin, end, bodies)


@compiled
@no_type_check
def _copy(source, target):
    """Copy (dim, particle); slices would compile numpy's rules of broadcasting and their error messages."""
    for axis in range(source.shape[0]):
        for k in range(source.shape[1]):
            target[axis, k] = source[axis, k]


@compiled
@no_type_check
def _has_strayed(position, listed, lengths, skin):
    """Tell whether a particle has moved so far since the list was made that a pair may be missing."""
    farthest = 0.0
    for k in range(position.shape[1]):
        squared = 0.0
        for axis in range(position.shape[0]):
            r = nearest_image(position[axis, k] - listed[axis, k], lengths[axis])
            squared += r * r
        farthest = max(farthest, squared)
    return farthest > 0.25 * skin * skin


@compiled
@no_type_check
def _turn(vx, vy, cosine, sine):
    """Turn velocities about the magnetic field, which leaves their lengths as they are."""
    for k in range(cosine.shape[0]):
        x, y = vx[k], vy[k]
        vx[k] = cosine[k] * x + sine[k] * y
        vy[k] = cosine[k] * y - sine[k] * x


@compiled
@no_type_check
def _kick(velocity, acceleration, time):
    """Change the velocities along one axis."""
    for k in range(velocity.shape[0]):
        velocity[k] += time * acceleration[k]


@compiled
@no_type_check
def _kick_drift(position, previous, velocity, acceleration, radii, half, step, low, far):
    """Kick and move along one axis in straight lines; return how many are then beyond a wall."""
    outside = 0
    for k in range(position.shape[0]):
        v = velocity[k] + half * acceleration[k]
        x = position[k]
        velocity[k] = v
        previous[k] = x
        x += step * v
        position[k] = x
        outside += (x < low + radii[k]) | (x > far - radii[k])
    return outside


@compiled
@no_type_check
def _wrap(position, length):
    """Bring positions along one axis back into [0, length)."""
    per_length = 1.0 / length
    for k in range(position.shape[0]):
        inside = position[k] - length * np.floor(position[k] * per_length)
        inside = inside if inside >= 0.0 else 0.0
        position[k] = inside if inside < length else 0.0


@compiled
@no_type_check
def _wrap_all(position, lengths):
    """Do so along every periodic axis."""
    for axis in range(lengths.shape[0]):
        if lengths[axis] != 0.0:
            _wrap(position[axis], lengths[axis])


@compiled
@no_type_check
def _next_impact(setup, bodies, left):
    """Return who meets a wall first within the time left, on which axis, and when."""
    best, who, where = left, -1, 0
    for axis in range(setup.walls.shape[0]):
        far = setup.walls[axis]
        if far == np.inf:
            continue
        for k in range(bodies.radii.shape[0]):
            v = bodies.velocity[axis, k]
            gap = bodies.position[axis, k] - bodies.radii[k]
            if v > 0.0:
                gap = far - bodies.radii[k] - bodies.position[axis, k]
            if v != 0.0 and gap < best * abs(v):
                best, who, where = max(gap, 0.0) / abs(v), k, axis
    return who, where, best


@compiled
@no_type_check
def _mirror(v, axis, acceleration, turning, ahead):
    """Mirror a velocity of mid-step at the impact, from which mid-step is ``ahead``."""
    cosine, sine = math.cos(turning * ahead), math.sin(turning * ahead)
    before, vx, vy = v[axis], v[0], v[1]
    v[axis] -= acceleration * ahead
    v[0], v[1] = cosine * v[0] - sine * v[1], cosine * v[1] + sine * v[0]
    v[axis] *= -1.0
    v[0], v[1] = cosine * v[0] + sine * v[1], cosine * v[1] - sine * v[0]
    v[axis] += acceleration * ahead
    if v[axis] * before >= 0.0:  # grazing: too slow for this step
        v[0], v[1] = vx, vy
        v[axis] = -before


@compiled
@no_type_check
def _reflect(law, setup, bodies, rows, k, axis, now):
    """Mirror the velocity of a particle that is at a wall at time ``now`` of the step, and write the row."""
    _accelerate(law, setup, k, k + 1, bodies)
    before = bodies.velocity[axis, k]
    low = before < 0.0
    turning = bodies.turning[0, k] if bodies.turning.shape[1] else 0.0
    _mirror(bodies.velocity[:, k], axis, bodies.acceleration[axis, k], turning, 0.5 * setup.step - now)
    bodies.position[axis, k] = bodies.radii[k] if low else setup.walls[axis] - bodies.radii[k]
    row = rows.filled[0]
    rows.time[row] = bodies.tally[STEP] * setup.step + now
    rows.i[row] = k
    rows.j[row] = -(2 * axis + 1) if low else -(2 * axis + 2)
    rows.impulse[row] = bodies.masses[k] * abs(bodies.velocity[axis, k] - before)
    for a in range(setup.walls.shape[0]):
        rows.normal[row, a] = 0.0
    rows.normal[row, axis] = 1.0 if low else -1.0
    rows.duration[row] = 0.0
    rows.overlap[row] = 0.0
    rows.filled[0] = row + 1


@compiled
@no_type_check
def _drift_from_wall_to_wall(law, setup, bodies, rows):
    """Repeat the drift of a step in which somebody meets a wall, from impact to impact; False after too many."""
    dim, n = bodies.position.shape
    _copy(bodies.previous, bodies.position)
    now = 0.0
    for _ in range(MOST_BOUNCES * n):
        who, axis, wait = _next_impact(setup, bodies, setup.step - now)
        for a in range(dim):
            for k in range(n):
                bodies.position[a, k] += wait * bodies.velocity[a, k]
        now += wait
        if who < 0:
            return True
        _reflect(law, setup, bodies, rows, who, axis, now)
    return False


@compiled
@no_type_check
def _separate(position, lengths, i, j, separation):
    """Write the separation from j to i and return its square."""
    squared = 0.0
    for axis in range(lengths.shape[0]):
        r = nearest_image(position[axis, i] - position[axis, j], lengths[axis])
        separation[axis] = r
        squared += r * r
    return squared


@compiled
@no_type_check
def _share_before(r0, r1, reach):
    """Return at which share of a step a pair crosses the distance ``reach``, in straight flight from r0 to r1."""
    a, b, c = 0.0, 0.0, -reach * reach
    for axis in range(r0.shape[0]):
        w = r1[axis] - r0[axis]
        a += w * w
        b += r0[axis] * w
        c += r0[axis] * r0[axis]
    root = math.sqrt(max(b * b - a * c, 0.0))
    if c >= 0.0:  # from outside; the forms without cancellation
        return min(c / (root - b), 1.0) if root > b else 0.0
    return min((root - b) / a, 1.0) if b < 0.0 else min(-c / (b + root), 1.0)


@compiled
@no_type_check
def _gain(law, setup, bodies, k, separation, squared, weight):
    """Add what the first of an open pair gains from the second in a share of the step."""
    i, j = bodies.pair[k, 0], bodies.pair[k, 1]
    if bodies.couplings.shape[0] == 1:
        coupling = bodies.couplings[0, i] * bodies.couplings[0, j]
    else:
        coupling = bodies.couplings[i, j]
    f = weight * setup.step * coupling * pair_force(law, squared) if squared > 0.0 else 0.0
    for axis in range(separation.shape[0]):
        bodies.gained[k, axis] += f * separation[axis]


@compiled
@no_type_check
def _open(law, setup, bodies, i, j, scratch):
    """Enter a pair that has come within reach in this step, or stands so at the start; False if the table is full."""
    reach, now = bodies.radii[i] + bodies.radii[j], bodies.tally[STEP] * setup.step
    squared = _separate(bodies.position, setup.lengths, i, j, scratch[1])
    if squared >= reach * reach:
        return True
    fresh = bodies.tally[STEP] == 0
    if not fresh and _separate(bodies.previous, setup.lengths, i, j, scratch[0]) < reach * reach:
        return True
    k = bodies.tally[OPEN]
    if k == bodies.begin.shape[0]:
        return False
    left = 0.0 if fresh else 1.0 - _share_before(scratch[0], scratch[1], reach)
    bodies.pair[k, 0], bodies.pair[k, 1] = i, j
    bodies.begin[k] = now - left * setup.step
    bodies.deepest[k] = reach - math.sqrt(squared)
    for axis in range(bodies.gained.shape[1]):
        bodies.gained[k, axis] = 0.0
    # by trapezoids: the part of this step, and half of the step to come
    _gain(law, setup, bodies, k, scratch[1], squared, left + 0.5)
    bodies.tally[OPEN] = k + 1
    return True


@compiled
@no_type_check
def _open_encounters(law, setup, pairs, bodies, scratch):
    """Enter every pair that has come within reach; False if the table is full."""
    n = bodies.radii.shape[0]
    for i in range(n):
        if bodies.crowd[i] <= 1:
            continue
        listed = setup.reach > 0.0
        first, last = (pairs.first[i], pairs.first[i + 1]) if listed else (i + 1, n)
        for place in range(first, last):
            j = pairs.partners[place] if listed else place
            if not _open(law, setup, bodies, i, j, scratch):
                return False
    return True


@compiled
@no_type_check
def _close(bodies, rows, k, end):
    """Write the row of an open pair and take the last one's place in the table for it."""
    row, tally = rows.filled[0], bodies.tally
    size = 0.0
    for axis in range(bodies.gained.shape[1]):
        size += bodies.gained[k, axis] ** 2
    rows.impulse[row] = math.sqrt(size)
    for axis in range(bodies.gained.shape[1]):
        rows.normal[row, axis] = bodies.gained[k, axis] / rows.impulse[row] if size > 0.0 else 0.0
    rows.time[row] = bodies.begin[k]
    rows.i[row] = bodies.pair[k, 0]
    rows.j[row] = bodies.pair[k, 1]
    rows.duration[row] = end - bodies.begin[k]
    rows.overlap[row] = bodies.deepest[k]
    rows.filled[0] = row + 1
    last = tally[OPEN] - 1
    bodies.pair[k, 0], bodies.pair[k, 1] = bodies.pair[last, 0], bodies.pair[last, 1]
    bodies.begin[k] = bodies.begin[last]
    bodies.deepest[k] = bodies.deepest[last]
    for axis in range(bodies.gained.shape[1]):
        bodies.gained[k, axis] = bodies.gained[last, axis]
    tally[OPEN] = last


@compiled
@no_type_check
def _follow_encounters(law, setup, bodies, rows, n_known, scratch):
    """Bring the first ``n_known`` open pairs up to this step, and close those that have parted."""
    now, last = bodies.tally[STEP] * setup.step, bodies.tally[STEP] == setup.steps_per_frame * (setup.n_frames - 1)
    for k in range(n_known - 1, -1, -1):  # downward, so that only pairs already brought up take a closed one's place
        i, j = bodies.pair[k, 0], bodies.pair[k, 1]
        reach = bodies.radii[i] + bodies.radii[j]
        squared = _separate(bodies.position, setup.lengths, i, j, scratch[1])
        if squared < reach * reach:
            _gain(law, setup, bodies, k, scratch[1], squared, 1.0)
            bodies.deepest[k] = max(bodies.deepest[k], reach - math.sqrt(squared))
            continue
        _separate(bodies.previous, setup.lengths, i, j, scratch[0])
        share = _share_before(scratch[0], scratch[1], reach)
        _gain(law, setup, bodies, k, scratch[1], squared, share - 0.5)
        _close(bodies, rows, k, now - (1.0 - share) * setup.step)
    if last:
        for k in range(bodies.tally[OPEN] - 1, -1, -1):
            squared = _separate(bodies.position, setup.lengths, bodies.pair[k, 0], bodies.pair[k, 1], scratch[1])
            _gain(law, setup, bodies, k, scratch[1], squared, -0.5)
            _close(bodies, rows, k, now)


@compiled
@no_type_check
def _is_any_near(count):
    """Tell whether somebody may have another centre within reach, itself not counted."""
    near = 0
    for k in range(count.shape[0]):
        near += count[k] > 1
    return near > 0


@compiled
@no_type_check
def _write_frame(bodies, positions, velocities):
    for axis in range(bodies.position.shape[0]):
        for k in range(bodies.radii.shape[0]):
            positions[k, axis] = bodies.position[axis, k]
            velocities[k, axis] = bodies.velocity[axis, k]


@compiled
@no_type_check
def _run(s, a, status, law, setup, all_bodies, all_rows, positions, velocities):  # noqa: C901, PLR0915 (one hot loop)
    """Run system s with buffer a until it is done, a buffer is full, or it is too hasty; return its status.

    It stops only before a step (READY) or between the motion and the bookkeeping of one (MOVED), and the list of near
    pairs depends on nothing but ``bodies.listed``, so a stop changes no bit. The loop calls functions of few flat
    arrays, and hands over whole records in rare cases only: a record costs more to pass than five bodies to move.
    """
    bodies = Bodies(
        all_bodies.position[s],
        all_bodies.previous[s],
        all_bodies.listed[s],
        all_bodies.velocity[s],
        all_bodies.acceleration[s],
        all_bodies.radii[s],
        all_bodies.masses[s],
        all_bodies.strengths[s],
        all_bodies.couplings[s],
        all_bodies.response[s],
        all_bodies.near[s],
        all_bodies.turning[s],
        all_bodies.crowd[s],
        all_bodies.tally[s],
        all_bodies.pair[s],
        all_bodies.begin[s],
        all_bodies.deepest[s],
        all_bodies.gained[s],
    )
    rows = Rows(
        all_rows.time[a],
        all_rows.i[a],
        all_rows.j[a],
        all_rows.impulse[a],
        all_rows.normal[a],
        all_rows.duration[a],
        all_rows.overlap[a],
        all_rows.filled[a],
    )
    dim, n, tally, count = bodies.position.shape[0], bodies.radii.shape[0], bodies.tally, bodies.crowd
    step, half, listed, lengths = setup.step, 0.5 * setup.step, setup.reach > 0.0, setup.lengths
    x, px, vx, ax = bodies.position[0], bodies.previous[0], bodies.velocity[0], bodies.acceleration[0]
    y, py, vy, ay = bodies.position[1], bodies.previous[1], bodies.velocity[1], bodies.acceleration[1]
    d = dim - 1  # the third axis, or the second again
    z, pz, vz, az = bodies.position[d], bodies.previous[d], bodies.velocity[d], bodies.acceleration[d]
    radii, couplings, response, near, masses = (
        bodies.radii,
        bodies.couplings,
        bodies.response,
        bodies.near,
        bodies.masses,
    )
    strengths, cosine, sine = bodies.couplings[0], bodies.turning[1], bodies.turning[2]
    turned, wrapped = cosine.shape[0] > 0, lengths.max() > 0.0
    far_x, far_y, far_z = setup.walls[0], setup.walls[1], setup.walls[d]
    low_x, low_y, low_z = setup.low[0], setup.low[1], setup.low[d]
    first_half = 0.0 if turned else half  # kicked before the turn

    scratch = np.empty((2, dim))
    pairs = NearPairs(np.zeros(1, dtype=np.int64), np.zeros(8 * n, dtype=np.int64))
    if listed:
        pairs = list_pairs(bodies.listed, lengths, setup.reach, pairs.partners)
    next_frame = -(-tally[STEP] // setup.steps_per_frame)
    next_step = next_frame * setup.steps_per_frame
    if status != FRESH:
        for k in range(n):
            count[k] = 2  # look at all pairs again
    while True:
        if status == READY:
            if rows.time.shape[0] - rows.filled[0] < tally[OPEN] + MOST_BOUNCES * n:
                return READY
            if turned:
                _kick(vx, ax, half)
                _kick(vy, ay, half)
                if dim == 3:
                    _kick(vz, az, half)
                _turn(vx, vy, cosine, sine)
            outside = _kick_drift(x, px, vx, ax, radii, first_half, step, low_x, far_x)
            outside += _kick_drift(y, py, vy, ay, radii, first_half, step, low_y, far_y)
            if dim == 3:
                outside += _kick_drift(z, pz, vz, az, radii, first_half, step, low_z, far_z)
            if outside > 0 and not _drift_from_wall_to_wall(law, setup, bodies, rows):
                return HASTY
            if wrapped:
                _wrap_all(bodies.position, lengths)
            if listed and _has_strayed(bodies.position, bodies.listed, lengths, setup.skin):
                _copy(bodies.position, bodies.listed)
                pairs = list_pairs(bodies.listed, lengths, setup.reach, pairs.partners)
        if status != MOVED:
            if listed and dim == 2:
                sum_list_plane(law, pairs, x, y, strengths, lengths, masses, near, ax, ay, count)
            elif listed:
                sum_list_space(law, pairs, x, y, z, strengths, lengths, masses, near, ax, ay, az, count)
            elif dim == 2:
                sum_plane(law, 0, n, x, y, couplings, lengths, response, near, ax, ay, count)
            else:
                sum_space(law, 0, n, x, y, z, couplings, lengths, response, near, ax, ay, az, count)
            if setup.pushed:
                _add_external(law, 0, n, bodies)
        if status == READY:
            if turned:
                _turn(vx, vy, cosine, sine)
            _kick(vx, ax, half)
            _kick(vy, ay, half)
            if dim == 3:
                _kick(vz, az, half)
            tally[STEP] += 1
        if tally[OPEN] > 0 or status == MOVED or _is_any_near(count):
            n_known = tally[OPEN]
            room = _open_encounters(law, setup, pairs, bodies, scratch)
            if not room or rows.time.shape[0] - rows.filled[0] < tally[OPEN]:
                tally[OPEN] = n_known
                return MOVED
            _follow_encounters(law, setup, bodies, rows, n_known, scratch)
        status = READY
        if tally[STEP] == next_step:
            _write_frame(bodies, positions[s, next_frame], velocities[s, next_frame])
            next_frame += 1
            next_step += setup.steps_per_frame
            if next_frame == setup.n_frames:
                return DONE


@njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def run_systems(active, status, law, setup, bodies, rows, positions, velocities):
    """Run the active systems on all cores, each with its own buffers; the order of the systems changes no bit."""
    for a in prange(active.shape[0]):  # nothing else in here: what parallel loops hold takes long to compile
        s = active[a]
        status[s] = _run(s, a, status[s], law, setup, bodies, rows, positions, velocities)

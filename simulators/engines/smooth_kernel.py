"""The compiled loop of the engine for smooth forces: one system goes from step to step.

A step is kick - turn - drift - turn - kick: velocities change for half a step under the forces (velocity Verlet) and
turn by half an angle about the magnetic field, positions drift in straight lines, and the same in reverse order.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from simulators.engines.smooth_encounters import follow_encounters, open_encounters
from simulators.engines.smooth_list import list_pairs
from simulators.engines.smooth_pairs import (
    add_external,
    compiled,
    nearest_image,
    sum_list_plane,
    sum_list_space,
    sum_plane,
    sum_space,
)
from simulators.engines.smooth_records import DONE, FRESH, HASTY, MOVED, OPEN, READY, STEP, Bodies, NearPairs, Rows
from simulators.engines.smooth_walls import MOST_BOUNCES, drift_from_wall_to_wall


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


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def run_system(s, a, status, law, setup, all_bodies, all_rows, positions, velocities):  # noqa: C901, PLR0915 (one hot loop)
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
    next_frame = tally[STEP] // setup.steps_per_frame + 1
    if status != READY and tally[STEP] % setup.steps_per_frame == 0:
        next_frame -= 1  # this step's frame is not yet written
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
            if outside > 0 and not drift_from_wall_to_wall(law, setup, bodies, rows):
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
                sum_plane(law, x, y, couplings, lengths, response, near, ax, ay, count)
            else:
                sum_space(law, x, y, z, couplings, lengths, response, near, ax, ay, az, count)
            if setup.pushed:
                add_external(law, bodies)
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
            room = open_encounters(law, setup, pairs, bodies, scratch)
            if not room or rows.time.shape[0] - rows.filled[0] < tally[OPEN]:
                tally[OPEN] = n_known
                return MOVED
            follow_encounters(law, setup, bodies, rows, n_known, scratch)
        status = READY
        if tally[STEP] == next_step:
            _write_frame(bodies, positions[s, next_frame], velocities[s, next_frame])
            next_frame += 1
            next_step += setup.steps_per_frame
            if next_frame == setup.n_frames:
                return DONE

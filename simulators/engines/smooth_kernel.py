"""The compiled loop of the engine for smooth forces: one system goes from step to step.

A step is kick - turn - drift - turn - kick: velocities change for half a step under the forces (velocity Verlet) and
turn by half an angle about the magnetic field, positions drift in straight lines, and the same in reverse order.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from simulators.engines.smooth_encounters import close_encounters, follow_encounters, open_encounters
from simulators.engines.smooth_lanes import WIDTH, floor, is_any, lanes, load, rint, store
from simulators.engines.smooth_list import list_pairs
from simulators.engines.smooth_pairs import add_external, box_of, compiled, per_length, stepping, sum_plane, sum_space
from simulators.engines.smooth_records import (
    DONE,
    DRIFTED,
    FRESH,
    HASTY,
    MOVED,
    OPEN,
    READY,
    STEP,
    Bodies,
    NearPairs,
    Rows,
)
from simulators.engines.smooth_walls import MOST_BOUNCES, drift_from_wall_to_wall
from simulators.systems.pairs import where


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
    n = position.shape[1]
    for k in range(0, n, WIDTH):
        squared = lanes(0.0)
        for axis in range(position.shape[0]):
            at, end, length = n * axis + k, n * axis + n, lengths[axis]
            r = load(position, at, end) - load(listed, at, end)
            r -= length * rint(r * per_length(length))
            squared += r * r
        if is_any(squared > 0.25 * skin * skin):
            return True
    return False


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
    """Change all velocities."""
    size = velocity.size
    for k in range(0, size, WIDTH):
        store(velocity, k, size, load(velocity, k, size) + time * load(acceleration, k, size))


@compiled
@no_type_check
def _kick_drift(position, previous, velocity, acceleration, half, step):
    """Do so, and move in straight lines."""
    size = velocity.size
    for k in range(0, size, WIDTH):
        v, x = load(velocity, k, size) + half * load(acceleration, k, size), load(position, k, size)
        store(velocity, k, size, v)
        store(previous, k, size, x)
        store(position, k, size, x + step * v)


@compiled
@no_type_check
def _is_any_outside(position, radii, low, walls):
    """Tell whether somebody is beyond a wall."""
    n = radii.shape[0]
    for axis in range(position.shape[0]):
        for k in range(0, n, WIDTH):
            x, radius = load(position, n * axis + k, n * axis + n), load(radii, k, n)
            if is_any((x - radius < low[axis]) | (x + radius > walls[axis])):
                return True
    return False


@compiled
@no_type_check
def _wrap(position, lengths):
    """Bring positions along periodic axes back into [0, length)."""
    n = position.shape[1]
    for axis in range(lengths.shape[0]):
        length = lengths[axis]
        per_length, end = 1.0 / length, n * axis + n
        for k in range(n * axis, end if length != 0.0 else 0, WIDTH):
            x = load(position, k, end)
            inside = x - length * floor(x * per_length)
            inside = where(inside > 0.0, inside, 0.0)
            store(position, k, end, where(inside < length, inside, 0.0))


@compiled
@no_type_check
def _write_frame(bodies, positions, velocities):
    for axis in range(bodies.position.shape[0]):
        for k in range(bodies.radii.shape[0]):
            positions[k, axis] = bodies.position[axis, k]
            velocities[k, axis] = bodies.velocity[axis, k]


@stepping
@no_type_check
def _advance(status, law, setup, bodies, rows, pairs, positions, velocities):  # noqa: C901, PLR0915 (one hot loop)
    """Go from step to step until the list of near pairs is too old or ``run_system`` has to stop; return the status.

    The loop calls functions of few flat arrays, and hands over whole records in rare cases only: a record costs more to
    pass than five bodies to move. For the same reason no array is bound anew in it, which would count references.
    """
    dim, n, tally, count = bodies.position.shape[0], bodies.radii.shape[0], bodies.tally, bodies.crowd
    step, half, listed, lengths = setup.step, 0.5 * setup.step, setup.reach > 0.0, setup.lengths
    position, velocity, acceleration = bodies.position, bodies.velocity, bodies.acceleration
    vx, vy = velocity[0], velocity[1]
    couplings, response, near = bodies.couplings, bodies.response, bodies.near
    cosine, sine = bodies.turning[1], bodies.turning[2]
    box, turned, walled = box_of(lengths), cosine.shape[0] > 0, setup.walls.min() < np.inf
    first_half = 0.0 if turned else half  # kicked before the turn

    scratch = np.empty((2, dim))
    next_frame = tally[STEP] // setup.steps_per_frame + 1
    if status in (FRESH, MOVED) and tally[STEP] % setup.steps_per_frame == 0:
        next_frame -= 1  # this step's frame is not yet written
    next_step, last_step = next_frame * setup.steps_per_frame, (setup.n_frames - 1) * setup.steps_per_frame
    n_near = np.inf  # after a stop all pairs are looked at
    if status == MOVED:
        for k in range(n):
            count[k] = np.inf
    while True:
        if status == READY:
            if rows.time.shape[0] - rows.filled[0] < tally[OPEN] + MOST_BOUNCES * n:
                return READY
            if turned:
                _kick(velocity, acceleration, half)
                _turn(vx, vy, cosine, sine)
            _kick_drift(position, bodies.previous, velocity, acceleration, first_half, step)
            outside = walled and _is_any_outside(position, bodies.radii, setup.low, setup.walls)
            if outside and not drift_from_wall_to_wall(law, setup, bodies, rows):
                return HASTY
            if box.wrapped:
                _wrap(position, lengths)
            status = DRIFTED
            if listed and _has_strayed(position, bodies.listed, lengths, setup.skin):
                _copy(position, bodies.listed)
                return DRIFTED
        if status != MOVED:
            if dim == 2:
                n_near = sum_plane(law, box, pairs, position, couplings, response, near, acceleration, count)
            else:
                n_near = sum_space(law, box, pairs, position, couplings, response, near, acceleration, count)
            if setup.pushed:
                add_external(law, bodies)
        if status == DRIFTED:
            if turned:
                _turn(vx, vy, cosine, sine)
            _kick(velocity, acceleration, half)
            tally[STEP] += 1
        if tally[OPEN] > 0 and status != MOVED:
            n_near -= follow_encounters(law, setup, bodies, rows, scratch)
        n_known = tally[OPEN]
        room = n_near == 0.0 or open_encounters(law, setup, pairs, bodies, scratch)
        last = tally[STEP] == last_step
        if not room or (last and rows.time.shape[0] - rows.filled[0] < tally[OPEN]):
            tally[OPEN] = n_known
            return MOVED
        if last:
            close_encounters(law, setup, bodies, rows, scratch)
        status = READY
        if tally[STEP] == next_step:
            _write_frame(bodies, positions[next_frame], velocities[next_frame])
            next_frame += 1
            next_step += setup.steps_per_frame
            if next_frame == setup.n_frames:
                return DONE


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def run_system(s, a, status, law, setup, all_bodies, all_rows, positions, velocities):
    """Run system s with buffer a until it is done, a buffer is full, or it is too hasty; return its status.

    It stops only before a step (READY) or between the motion and the bookkeeping of one (MOVED), and the list of near
    pairs depends on nothing but ``bodies.listed``, so a stop changes no bit.
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
    n = bodies.radii.shape[0]
    pairs = NearPairs(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32), np.ones(n))
    while True:
        if setup.reach > 0.0:
            pairs = list_pairs(bodies.listed, setup.lengths, setup.reach, pairs.partners)
        status = _advance(status, law, setup, bodies, rows, pairs, positions[s], velocities[s])
        if status != DRIFTED:
            return status

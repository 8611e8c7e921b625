"""The compiled part of the event-driven engine with cells: one system runs from event to event.

Time: places and velocities are kept as they would be at a common epoch had nothing happened since, in a frame that
falls with gravity: ``x(t) = place + (velocity + gravity t / 2) t``. So relative motion is linear, a particle is touched
only by its own events, and frames never touch the dynamics. The epoch moves on every few events a particle, so long
runs lose no digits.

Two dimensions are three with a single layer of cells: every third coordinate is exactly 0 and stays so.

References:
    Rapaport 1980, "The event scheduling problem in molecular dynamic simulation", doi:10.1016/0021-9991(80)90104-7:
    cell crossings are events. Lubachevsky 1991, "How to simulate billiards and similar systems",
    doi:10.1016/0021-9991(91)90222-7: one event a particle, and its partner need not know. We find a prediction whose
    partner collided meanwhile when it is due, by a count of the partner's collisions.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from simulators.engines.cell_search import (
    CELL,
    COUNT,
    MASS,
    NAME,
    NOBODY,
    PAIR_DUE,
    PARTNER,
    PARTNER_COUNT,
    PLACE,
    PLANE,
    PLANE_DUE,
    RADIUS,
    STRUCK,
    VELOCITY,
    Cells,
    cross,
    enter,
    next_plane,
    predict,
    queue,
    search_around,
)
from simulators.engines.event_queue import play_all
from simulators.engines.event_rules import (
    BURST_BEGAN,
    DONE,
    EPOCH,
    EVENTS,
    FILLED,
    FRAME,
    FRESH,
    NEVER,
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

_EVENTS_PER_EPOCH = 8  # a particle; flights then span few diameters, and places keep the digits of the box


@borrowing
@no_type_check
def _meet_wall(i, plane, now, cells, law, rows):
    """Reflect particle i from a wall."""
    axis, low = plane // 2, plane % 2 == 0
    sign, g = 1.0 if low else -1.0, law.gravity[axis]
    arrival = max(-sign * (cells.motion[i, VELOCITY + axis] + g * now), 0.0)
    departure, forced = wall_departure(arrival, sign * g, now - cells.motion[i, STRUCK], law)
    # exactly on the wall: rounding must not leave a particle a hair behind it
    x = cells.motion[i, RADIUS] if low else law.box[axis] - cells.motion[i, RADIUS]
    v = sign * departure
    cells.motion[i, PLACE + axis] = x - (v - 0.5 * g * now) * now
    cells.motion[i, VELOCITY + axis] = v - g * now
    cells.motion[i, STRUCK] = now
    cells.links[i, COUNT] += 1
    rows.normal[rows.tally[FILLED], :] = 0.0
    rows.normal[rows.tally[FILLED], axis] = sign
    impulse = cells.motion[i, MASS] * (arrival + departure)
    log_row(rows, cells.clock[EPOCH] + now, cells.links[i, NAME], -1 - plane, impulse, forced)


@borrowing
@no_type_check
def _write_normal(i, j, now, motion, law, normal):
    """Write the unit vector from j to i, and return how fast their distance grows."""
    distance, rate = 0.0, 0.0
    for axis in range(law.gravity.shape[0]):
        w = motion[i, VELOCITY + axis] - motion[j, VELOCITY + axis]
        r = motion[i, PLACE + axis] - motion[j, PLACE + axis] + w * now
        if law.periodic[axis]:
            r -= law.box[axis] * np.round(r / law.box[axis])
        normal[axis] = r
        distance += r * r
        rate += r * w
    distance = math.sqrt(distance)
    for axis in range(law.gravity.shape[0]):
        normal[axis] /= distance
    return rate / distance


@borrowing
@no_type_check
def _kick(i, momentum, normal, now, cells):
    """Give particle i a momentum along the normal; its place at the epoch moves back so that it stays where it is."""
    for axis in range(normal.shape[0]):
        change = momentum / cells.motion[i, MASS] * normal[axis]
        cells.motion[i, VELOCITY + axis] += change
        cells.motion[i, PLACE + axis] -= change * now
    cells.motion[i, STRUCK] = now


@borrowing
@no_type_check
def _meet_pair(i, j, now, cells, law, rows):
    """Exchange momentum along the line of centres."""
    if cells.links[i, NAME] > cells.links[j, NAME]:
        i, j = j, i
    normal = rows.normal[rows.tally[FILLED]]
    rate = _write_normal(i, j, now, cells.motion, law, normal)
    cells.links[i, COUNT] += 1
    cells.links[j, COUNT] += 1
    if rate >= 0.0:
        return  # grazing: the last bit of approach was lost in rounding, and nothing is exchanged
    pause = now - max(cells.motion[i, STRUCK], cells.motion[j, STRUCK])
    impulse, forced = pair_impulse(-rate, cells.motion[i, MASS], cells.motion[j, MASS], pause, law)
    _kick(i, impulse, normal, now, cells)
    _kick(j, -impulse, normal, now, cells)
    log_row(rows, cells.clock[EPOCH] + now, cells.links[i, NAME], cells.links[j, NAME], impulse, forced)


@borrowing
@no_type_check
def _enter_times(cells):
    """Fill the event queue from what is due."""
    size = cells.times.shape[0] // 2
    cells.times[:] = NEVER
    for k in range(cells.motion.shape[0]):
        cells.times[size + k] = min(cells.motion[k, PAIR_DUE], cells.motion[k, PLANE_DUE])
    play_all(cells.times, cells.winners)


@borrowing
@no_type_check
def _move_epoch(shift, cells, law):
    """Let local time begin later."""
    cells.clock[EPOCH] += shift
    cells.clock[BURST_BEGAN] -= shift
    for k in range(cells.motion.shape[0]):
        for axis in range(law.gravity.shape[0]):
            g = law.gravity[axis]
            cells.motion[k, PLACE + axis] += (cells.motion[k, VELOCITY + axis] + 0.5 * g * shift) * shift
            cells.motion[k, VELOCITY + axis] += g * shift
        for column in (PAIR_DUE, PLANE_DUE, STRUCK):
            cells.motion[k, column] -= shift
    _enter_times(cells)


@borrowing
@no_type_check
def _keep_time(now, cells, law):
    """Count the event, move the epoch after some, and return False when time stands still."""
    tally = cells.tally
    count_event(now, cells.clock, tally, law)
    if tally[EVENTS] >= _EVENTS_PER_EPOCH * cells.motion.shape[0] and now > 0.0:
        tally[EVENTS] = 0
        _move_epoch(2.0 ** math.floor(math.log2(now)), cells, law)  # few bits, so that the epoch stays exact
    return time_goes_on(tally, cells.motion.shape[0])


@borrowing
@no_type_check
def _write_frame(cells, law, positions, velocities):
    """Write the next frame."""
    frame = cells.tally[FRAME]
    now = frame * law.frame_interval - cells.clock[EPOCH]
    for k in range(cells.motion.shape[0]):
        name = cells.links[k, NAME]
        for axis in range(law.gravity.shape[0]):
            g, v, length = law.gravity[axis], cells.motion[k, VELOCITY + axis], law.box[axis]
            x = cells.motion[k, PLACE + axis] + (v + 0.5 * g * now) * now
            if law.periodic[axis]:
                x -= length * np.floor(x / length)
                x = x if x < length else 0.0  # a hair below 0 rounds to the far side
            positions[frame, name, axis] = x
            velocities[frame, name, axis] = v + g * now
    cells.tally[FRAME] += 1


@borrowing
@no_type_check
def _write_frames(before, cells, law, positions, velocities):
    """Write the frames that come before a local time; return whether all are written."""
    while cells.tally[FRAME] < law.n_frames and cells.tally[FRAME] * law.frame_interval < cells.clock[EPOCH] + before:
        _write_frame(cells, law, positions, velocities)
    return cells.tally[FRAME] == law.n_frames


@borrowing
@no_type_check
def _begin(cells, grid, law):
    """Fill the cells and predict everything."""
    cells.head[:] = NOBODY
    for k in range(cells.motion.shape[0]):
        enter(k, cells, grid)
    for k in range(cells.motion.shape[0]):
        next_plane(k, 0.0, cells, grid, law)
        search_around(k, 0.0, cells, grid)
    _enter_times(cells)


@borrowing
@no_type_check
def _run(status, cells, grid, law, rows, positions, velocities):
    """Run one system until it is done, the host is to look, or time stands still; return its status."""
    motion, links = cells.motion, cells.links
    if status == FRESH:
        _begin(cells, grid, law)
    while True:
        i, now = np.int64(cells.winners[1]), cells.times[1]  # one integer type: another would compile all again
        if _write_frames(now, cells, law, positions, velocities):
            return DONE
        if motion[i, PAIR_DUE] < motion[i, PLANE_DUE]:
            j = np.int64(links[i, PARTNER])
            if links[j, COUNT] != links[i, PARTNER_COUNT]:
                search_around(i, now, cells, grid)
                queue(i, cells, grid)
                continue
        else:
            j = np.int64(NOBODY)
            axis, step = links[i, PLANE] // 2, 2 * (links[i, PLANE] % 2) - 1
            edge = 0 if step < 0 else grid.cells[axis] - 1
            if grid.periodic[axis] or links[i, CELL + axis] != edge:
                cross(i, axis, step, now, cells, grid, law)
                continue
        if rows.tally[FILLED] == rows.tally[PAUSE]:
            cells.clock[NOW] = now
            return RUNNING
        if j == NOBODY:
            _meet_wall(i, links[i, PLANE], now, cells, law, rows)
        else:
            _meet_pair(i, j, now, cells, law, rows)
            predict(j, now, cells, grid, law)
        predict(i, now, cells, grid, law)
        if not _keep_time(now, cells, law):
            return STUCK


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def run_systems(status, rows, cells, grid, law, positions, velocities):
    """Run one system after the other until all are done, the host is to look, or time stands still."""
    for s in range(status.shape[0]):
        if status[s] == DONE:
            continue
        one = Cells(
            cells.motion[s],
            cells.links[s],
            cells.head[s],
            cells.times[s],
            cells.winners[s],
            cells.clock[s],
            cells.tally[s],
            cells.lists,
            cells.seen,
        )
        status[s] = _run(status[s], one, grid, law, rows, positions[s], velocities[s])
        if status[s] != DONE:
            return
        rows.ends[s] = rows.tally[FILLED]

"""The physics that all event-driven engines share: when bodies meet, what a collision does, how it is logged.

Roots take the form c / (-b + sqrt(...)), which cancels no digits; "touching and approaching" is an event now,
"overlapping and separating" is none (Bannerman, Strobl, Formella and Pöschel 2014, doi:10.1007/s40571-014-0021-8).
``no_type_check`` keeps the run-time type checker of the tests away from functions that numba compiles.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

NEVER = 1e300  # finite: no inf enters the arithmetic
FRESH, RUNNING, DONE, STUCK = 0, 1, 2, 3  # of a system; a running one waits for the host to look
FILLED, FORCED, PAUSE = 0, 1, 2  # entries of Rows.tally
FRAME, EVENTS, BURST = 0, 1, 2  # entries of the tally of a system: next frame, events, events in this burst
EPOCH, BURST_BEGAN, NOW = 0, 1, 2  # entries of its clock: begin of local time; local times of burst and pause

_BURST_LENGTH = 1000  # events a disc within 1e-9 of a frame interval: time stands still, no physical cluster does this
_BURST_SPAN = 1e-9

# for functions that allocate nothing: no counting of references, each of which would cost an atomic operation; and
# always inlined, as a call would pass every array of every record as seven numbers or more
borrowing = njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)  # pyright: ignore[reportCallIssue]


class Law(NamedTuple):
    """What all systems of a run share."""

    gravity: np.ndarray  # (dim,), 0 along periodic axes
    box: np.ndarray  # (dim,)
    periodic: np.ndarray  # (dim,)
    restitution: float
    restitution_velocity: float
    contact_time: float
    interacting: bool
    frame_interval: float
    n_frames: int


class Rows(NamedTuple):
    """The log of some systems, one after the other: columns with room for more rows."""

    time: np.ndarray  # (row,)
    i: np.ndarray  # (row,)
    j: np.ndarray  # (row,)
    impulse: np.ndarray  # (row,)
    normal: np.ndarray  # (row, dim)
    forced: np.ndarray  # (row,)
    tally: np.ndarray  # (3,) rows so far, how many of them were forced, and at how many to pause
    ends: np.ndarray  # (system,) rows there were when it was done


@borrowing
@no_type_check
def touch_delay(gap, approach, speed):
    """Return when |r + w s| = reach, from gap = r.r - reach^2, approach = r.w, speed = w.w; gravity cancels.

    Now if the pair overlaps and approaches, never if it separates.
    """
    square = approach * approach - speed * gap
    if approach >= 0.0 or square < 0.0:
        return NEVER
    return max(gap, 0.0) / (math.sqrt(square) - approach)


@borrowing
@no_type_check
def leave_delay(gap, approach, speed):
    """Return when a pair of overlapping ghosts comes apart; arguments as in ``touch_delay``."""
    if speed == 0.0:
        return NEVER
    root = math.sqrt(max(approach * approach - speed * gap, 0.0))
    if approach > 0.0:
        return max(-gap, 0.0) / (approach + root)
    return (root - approach) / speed


@borrowing
@no_type_check
def wall_delay(gap, rate, pull):
    """Return the first s >= 0 at which gap + rate s + pull s^2 / 2 reaches 0 from above."""
    if rate >= 0.0 and pull >= 0.0:
        return NEVER
    gap = max(gap, 0.0)
    if gap == 0.0 and rate <= 0.0:
        return 0.0
    if pull == 0.0:
        return gap / -rate
    square = rate * rate - 2.0 * pull * gap
    if square < 0.0:
        return NEVER
    if rate < 0.0:
        return 2.0 * gap / (math.sqrt(square) - rate)
    return (rate + math.sqrt(square)) / -pull


@borrowing
@no_type_check
def next_wall(axis, x, v, radius, law):
    """Return the delay until a body at x, flying with v along an axis, meets one of its two walls, and which."""
    far = law.box[axis] - x
    g = law.gravity[axis]
    up = v >= 0.0
    # the wall ahead comes first, unless gravity turns the body before
    delay = wall_delay((far if up else x) - radius, -abs(v), -g if up else g)
    if delay == NEVER:
        up = not up
        delay = wall_delay((far if up else x) - radius, abs(v), -g if up else g)
    return delay, -(2 * axis + 2) if up else -(2 * axis + 1)


@borrowing
@no_type_check
def restitution_at(speed, law):
    """Return the coefficient of restitution at a speed of approach, see ``HardSpheres``."""
    if speed >= law.restitution_velocity:
        return law.restitution
    return 1.0 - (1.0 - law.restitution) * (speed / law.restitution_velocity) ** 0.75


@borrowing
@no_type_check
def pair_impulse(speed, mass_i, mass_j, pause, law):
    """Return the impulse between bodies that approach with this speed along their normal, and whether it was forced.

    ``pause`` is the time since the last collision of either. Forced is the TC model: elastic after too short a pause.
    """
    forced = law.interacting and law.restitution < 1.0 and pause < law.contact_time
    e = 1.0 if forced else restitution_at(speed, law)
    return (1.0 + e) * (mass_i * mass_j / (mass_i + mass_j)) * speed, forced


@borrowing
@no_type_check
def wall_departure(arrival, pull, pause, law):
    """Return the speed at which a body that arrives with a speed leaves a wall, and whether it was forced.

    ``pull`` is the acceleration away from the wall. Beyond the TC model, a body leaves no slower than it takes to be
    back after half a contact time.
    """
    dissipative = law.restitution < 1.0
    forced = dissipative and pause < law.contact_time
    departure = arrival if forced else restitution_at(arrival, law) * arrival
    slowest = -0.25 * pull * law.contact_time
    if pull < 0.0 and departure <= (slowest if dissipative else 0.0):
        return slowest, True
    return departure, forced


@borrowing
@no_type_check
def log_row(rows, time, i, j, impulse, forced):
    """Append a row but for its normal, which the caller writes at ``rows.normal[rows.tally[FILLED]]`` before."""
    row = rows.tally[FILLED]
    rows.time[row] = time
    rows.i[row] = i
    rows.j[row] = j
    rows.impulse[row] = impulse
    rows.forced[row] = forced
    rows.tally[FILLED] = row + 1
    rows.tally[FORCED] += forced


@borrowing
@no_type_check
def count_event(now, clock, tally, law):
    """Count an event of a system, and how many there were in one burst."""
    tally[EVENTS] += 1
    tally[BURST] += 1
    if now - clock[BURST_BEGAN] > _BURST_SPAN * law.frame_interval:
        clock[BURST_BEGAN] = now
        tally[BURST] = 0


@borrowing
@no_type_check
def time_goes_on(tally, n_particles):
    """Return False when time stands still."""
    return tally[BURST] < _BURST_LENGTH * n_particles

"""The rules of ``event_rules`` as Warp functions: when bodies meet, what a collision does, how it is logged.

Same names, same formulas, same order of operations; the tests compare the event lists of both. Vectors have three
components, the third exactly zero in two dimensions. Warp takes a bare 0.5 for single precision, hence the constants.
"""

# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportReturnType=false, reportArgumentType=false
# (Warp reads these functions as source; to a type checker its scalars and arrays are opaque)

from typing import no_type_check

import warp as wp

ZERO = wp.constant(wp.float64(0.0))
QUARTER = wp.constant(wp.float64(0.25))
HALF = wp.constant(wp.float64(0.5))
THREE_QUARTERS = wp.constant(wp.float64(0.75))
ONE = wp.constant(wp.float64(1.0))
TWO = wp.constant(wp.float64(2.0))
NEVER = wp.constant(wp.float64(1e300))  # finite: no inf enters the arithmetic

wp.set_module_options({"enable_backward": False})


@wp.struct
@no_type_check
class Law:
    """What all systems of a run share."""

    gravity: wp.vec3d
    box: wp.vec3d
    periodic: wp.vec3i
    dim: wp.int32
    n_particles: wp.int32
    n_frames: wp.int32
    interacting: wp.bool
    restitution: wp.float64
    restitution_velocity: wp.float64
    contact_time: wp.float64
    frame_interval: wp.float64


@wp.struct
@no_type_check
class Rows:
    """Buffers for the log of the active systems; neighbouring threads write neighbouring columns."""

    time: wp.array2d[wp.float64]  # (row, active)
    i: wp.array2d[wp.int32]
    j: wp.array2d[wp.int32]
    impulse: wp.array2d[wp.float64]
    normal: wp.array2d[wp.vec3d]
    forced: wp.array2d[wp.bool]
    filled: wp.array[wp.int32]  # (active,)


@wp.func
@no_type_check
def touch_delay(gap: wp.float64, approach: wp.float64, speed: wp.float64):
    """Return when |r + w s| = reach, from gap = r.r - reach^2, approach = r.w, speed = w.w; gravity cancels."""
    square = approach * approach - speed * gap
    if approach >= ZERO or square < ZERO:
        return NEVER
    return wp.max(gap, ZERO) / (wp.sqrt(square) - approach)


@wp.func
@no_type_check
def leave_delay(gap: wp.float64, approach: wp.float64, speed: wp.float64):
    """Return when a pair of overlapping ghosts comes apart; arguments as in ``touch_delay``."""
    if speed == ZERO:
        return NEVER
    root = wp.sqrt(wp.max(approach * approach - speed * gap, ZERO))
    if approach > ZERO:
        return wp.max(-gap, ZERO) / (approach + root)
    return (root - approach) / speed


@wp.func
@no_type_check
def wall_delay(gap: wp.float64, rate: wp.float64, pull: wp.float64):
    """Return the first s >= 0 at which gap + rate s + pull s^2 / 2 reaches 0 from above."""
    if rate >= ZERO and pull >= ZERO:
        return NEVER
    room = wp.max(gap, ZERO)
    if room == ZERO and rate <= ZERO:
        return ZERO
    square = rate * rate - TWO * pull * room
    if square < ZERO:
        return NEVER
    if rate < ZERO:
        return TWO * room / (wp.sqrt(square) - rate)
    return (rate + wp.sqrt(square)) / -pull


@wp.func
@no_type_check
def next_wall(axis: wp.int32, x: wp.float64, v: wp.float64, radius: wp.float64, law: Law):
    """Return the delay until a body at x, flying with v along an axis, meets one of its two walls, and which."""
    far = law.box[axis] - x
    g = law.gravity[axis]
    up = v >= ZERO
    # the wall ahead comes first, unless gravity turns the body before
    delay = wall_delay(wp.where(up, far, x) - radius, -wp.abs(v), wp.where(up, -g, g))
    if delay == NEVER:
        up = not up
        delay = wall_delay(wp.where(up, far, x) - radius, wp.abs(v), wp.where(up, -g, g))
    return delay, wp.where(up, -(2 * axis + 2), -(2 * axis + 1))


@wp.func
@no_type_check
def restitution_at(speed: wp.float64, law: Law):
    """Return the coefficient of restitution at a speed of approach, see ``HardSpheres``."""
    if speed >= law.restitution_velocity:
        return law.restitution
    return ONE - (ONE - law.restitution) * wp.pow(speed / law.restitution_velocity, THREE_QUARTERS)


@wp.func
@no_type_check
def pair_impulse(speed: wp.float64, mass_i: wp.float64, mass_j: wp.float64, pause: wp.float64, law: Law):
    """Return the impulse between bodies that approach with this speed along their normal, and whether it was forced."""
    forced = law.interacting and law.restitution < ONE and pause < law.contact_time
    e = restitution_at(speed, law)
    if forced:
        e = ONE
    return (ONE + e) * (mass_i * mass_j / (mass_i + mass_j)) * speed, forced


@wp.func
@no_type_check
def wall_departure(arrival: wp.float64, pull: wp.float64, pause: wp.float64, law: Law):
    """Return the speed at which a body that arrives with a speed leaves a wall, and whether it was forced."""
    dissipative = law.restitution < ONE
    forced = dissipative and pause < law.contact_time
    departure = restitution_at(arrival, law) * arrival
    if forced:
        departure = arrival
    slowest = -QUARTER * pull * law.contact_time
    if pull < ZERO and departure <= wp.where(dissipative, slowest, ZERO):
        departure = slowest
        forced = True
    return departure, forced


@wp.func
@no_type_check
def log_row(
    rows: Rows,
    a: wp.int32,
    time: wp.float64,
    i: wp.int32,
    j: wp.int32,
    impulse: wp.float64,
    normal: wp.vec3d,
    forced: wp.bool,
):
    """Append a row to the log of active system a."""
    row = rows.filled[a]
    rows.time[row, a] = time
    rows.i[row, a] = i
    rows.j[row, a] = j
    rows.impulse[row, a] = impulse
    rows.normal[row, a] = normal
    rows.forced[row, a] = forced
    rows.filled[a] = row + 1

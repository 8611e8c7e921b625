"""What a contact does, from the step it begins to the row it leaves in the log.

A dashpot needs the velocity of this very moment; it takes the one half a step ago plus the last known acceleration,
which keeps second order (the predictor of Groot and Warren 1997 with lambda = 1, doi:10.1063/1.474784). Tangential
springs stretch by the slip at half a step, so they too are second order. Where nothing damps or rubs, forces follow
from places alone, and accelerations are noted at frames only.

Contacts stand in the order in which they began, those of one step in order of (particle, partner): so the order of all
sums, and every bit, is independent of the list that found them.
"""

import math
from typing import no_type_check

from simulators.engines.contact_geometry import (
    geometry,
    reduced_mass,
    relative,
    since_touch,
    surface,
    velocity_relative,
)
from simulators.engines.free_flight import AWAKE, anchor
from simulators.engines.grains import (
    BEGAN,
    CONTACT_COLUMNS,
    CONTACTS,
    DEEPEST,
    DURATION,
    HASTY,
    INERTIA,
    LOGGED,
    MASS,
    MOMENTUM,
    NORMAL,
    OVERLAP,
    PUSH,
    RADIUS,
    ROWS,
    SLIP,
    SPIN,
    SPRING,
    TOUCHED,
    TWIST,
    UNFORESEEN,
    VELOCITY,
    compiled,
    inlined,
)
from simulators.engines.moving_box import fictitious
from simulators.engines.neighbor_list import NO_CONTACT


@compiled
@no_type_check
def _record_depth(c, contact):
    """Keep the deepest overlap."""
    contact[c, DEEPEST] = max(contact[c, DEEPEST], contact[c, OVERLAP])


@compiled
@no_type_check
def _record_push(c, contact, time, fx, fy, fz):
    """Add to the momentum that was exchanged."""
    contact[c, MOMENTUM] += time * fx
    contact[c, MOMENTUM + 1] += time * fy
    contact[c, MOMENTUM + 2] += time * fz


@compiled
@no_type_check
def _write_row(c, duration, contact, who, tally, rows, row_who):
    """Append a contact to the log; False if there is no room."""
    row = tally[ROWS]
    if row == rows.shape[0]:
        return False
    contact[c, DURATION] = max(duration, 0.0)
    for column in range(LOGGED):
        rows[row, column] = contact[c, column]
    row_who[row, 0], row_who[row, 1] = who[c, 0], who[c, 1]
    tally[ROWS] = row + 1
    return True


@inlined
@no_type_check
def _measure(c, body, contact, who, space):
    """Write the geometry of a contact; return whether it touches."""
    nx, ny, nz, distance, reach, touches = geometry(who[c, 0], who[c, 1], body, space)
    contact[c, NORMAL], contact[c, NORMAL + 1], contact[c, NORMAL + 2] = nx, ny, nz
    contact[c, OVERLAP] = reach - distance
    return touches


@inlined
@no_type_check
def measure_contacts(body, fall, contact, who, tally, rows, row_who, space, slot, now, step):
    """Write the geometry of all contacts, log and drop those that came apart; False if the log is full: call again."""
    for c in range(tally[CONTACTS] - 1, -1, -1):
        if _measure(c, body, contact, who, space):
            _record_depth(c, contact)
            continue
        since = since_touch(who[c, 0], who[c, 1], body, fall, space, step)
        if not _write_row(c, now - since - contact[c, BEGAN], contact, who, tally, rows, row_who):
            return False
        last = tally[CONTACTS] - 1
        slot[who[c, 2]] = NO_CONTACT
        if c != last:
            for column in range(CONTACT_COLUMNS):
                contact[c, column] = contact[last, column]
            for column in range(3):
                who[c, column] = who[last, column]
            slot[who[c, 2]] = c
        tally[CONTACTS] = last
    return True


@compiled
@no_type_check
def end_run(contact, who, tally, rows, row_who, now):
    """Log the contacts still on with their duration so far; False if the log is full, to be called again then."""
    while tally[CONTACTS] > 0:
        c = tally[CONTACTS] - 1
        if not _write_row(c, now - contact[c, BEGAN], contact, who, tally, rows, row_who):
            return False
        tally[CONTACTS] = c
    return True


@compiled
@no_type_check
def _sort_new(hits, n_hits, first, second, slot):
    """Move the entries that touch but are no contact yet to the front, sorted by (first, second); return how many."""
    count = 0
    for h in range(n_hits):
        e = hits[h]
        if slot[e] == NO_CONTACT:
            at = count
            while at > 0 and (first[e], second[e]) < (first[hits[at - 1]], second[hits[at - 1]]):
                hits[at] = hits[at - 1]
                at -= 1
            hits[at] = e
            count += 1
    return count


@compiled
@no_type_check
def begin_contacts(hits, n_hits, near, state, body, fall, contact, who, tally, space, law, now):
    """Add what touches and did not before; what overlaps at the start began at time 0."""
    first, second, slot = near.first, near.second, near.slot
    for h in range(_sort_new(hits, n_hits, first, second, slot)):
        e = hits[h]
        c, i, j = tally[CONTACTS], first[e], second[e]
        tally[CONTACTS] = c + 1
        slot[e] = c
        who[c, 0], who[c, 1], who[c, 2] = i, j, e
        tally[UNFORESEEN] |= not (state[i] & AWAKE and (j < 0 or state[j] & AWAKE))
        for column in range(CONTACT_COLUMNS):
            contact[c, column] = 0.0
        contact[c, BEGAN] = max(now - since_touch(i, j, body, fall, space, law.step), 0.0)
        _measure(c, body, contact, who, space)
        contact[c, DEEPEST] = contact[c, OVERLAP]
        if not law.interacting and j >= 0:
            _note_ghost_impulse(c, i, j, body, contact, law)


@compiled
@no_type_check
def _note_ghost_impulse(c, i, j, body, contact, law):
    """Write the momentum that hard particles would exchange."""
    nx, ny, nz = contact[c, NORMAL], contact[c, NORMAL + 1], contact[c, NORMAL + 2]
    wx, wy, wz = relative(VELOCITY, i, j, body)
    rate = min(wx * nx + wy * ny + wz * nz, 0.0)
    impulse = -(1.0 + law.restitution) * reduced_mass(i, j, body) * rate
    contact[c, MOMENTUM], contact[c, MOMENTUM + 1], contact[c, MOMENTUM + 2] = impulse * nx, impulse * ny, impulse * nz


@compiled
@no_type_check
def _stretch(c, contact, nx, ny, nz, ux, uy, uz, time):
    """Turn the tangential spring into the present tangent plane and stretch it by the slip of the last flight."""
    sx, sy, sz = contact[c, SPRING], contact[c, SPRING + 1], contact[c, SPRING + 2]
    along = sx * nx + sy * ny + sz * nz
    before = sx * sx + sy * sy + sz * sz
    sx, sy, sz = sx - along * nx, sy - along * ny, sz - along * nz
    after = sx * sx + sy * sy + sz * sz
    scale = math.sqrt(before / after) if after > 0.0 else 0.0  # turned, not shortened
    rate = ux * nx + uy * ny + uz * nz
    contact[c, SPRING] = sx * scale + time * (ux - rate * nx)
    contact[c, SPRING + 1] = sy * scale + time * (uy - rate * ny)
    contact[c, SPRING + 2] = sz * scale + time * (uz - rate * nz)


@compiled
@no_type_check
def _look(body, fall, contact, who, tally, space, pull, law, now, lag):
    """Write the present slip of every contact, from velocities ``lag`` ago and the accelerations since."""
    for c in range(tally[CONTACTS]):
        i, j = who[c, 0], who[c, 1]
        wx, wy, wz = velocity_relative(i, j, body, fall)
        ax, ay, az = relative(PUSH, i, j, body)
        if j < 0:
            ax, ay, az = ax + pull[0], ay + pull[1], az + pull[2]
        if law.rotation != 0.0:
            bx, by = fictitious(i, j, body, space, wx, wy, law.rotation)
            ax, ay = ax + bx, ay + by
        if law.friction > 0.0:
            nx, ny, nz, overlap = _normal_and_overlap(c, contact)
            arm_i = _arm(i, j, overlap, body)
            arm_j = body[RADIUS, j] - 0.5 * overlap if j >= 0 else 0.0
            bx, by, bz = surface(SPIN, i, j, body, arm_i, arm_j, nx, ny, nz)
            wx, wy, wz = wx + bx, wy + by, wz + bz
            _stretch(c, contact, nx, ny, nz, wx, wy, wz, min(2.0 * lag, now - contact[c, BEGAN]))
            bx, by, bz = surface(TWIST, i, j, body, arm_i, arm_j, nx, ny, nz)
            ax, ay, az = ax + bx, ay + by, az + bz
        contact[c, SLIP], contact[c, SLIP + 1], contact[c, SLIP + 2] = wx + lag * ax, wy + lag * ay, wz + lag * az


@compiled
@no_type_check
def _normal_and_overlap(c, contact):
    """Return the geometry that was measured."""
    return contact[c, NORMAL], contact[c, NORMAL + 1], contact[c, NORMAL + 2], contact[c, OVERLAP]


@compiled
@no_type_check
def _arm(k, partner, overlap, body):
    """Return how far the centre of a particle is from where it touches: half of the overlap is the partner's."""
    return body[RADIUS, k] - (overlap if partner < 0 else 0.5 * overlap)


@compiled
@no_type_check
def _rub(c, contact, stiffness, damping, cap, share):
    """Return the tangential force, and slide the spring along where Coulomb's cap is reached."""
    stiffness, damping = share * stiffness, share * damping
    nx, ny, nz, _ = _normal_and_overlap(c, contact)
    rate = contact[c, SLIP] * nx + contact[c, SLIP + 1] * ny + contact[c, SLIP + 2] * nz
    ux = contact[c, SLIP] - rate * nx
    uy = contact[c, SLIP + 1] - rate * ny
    uz = contact[c, SLIP + 2] - rate * nz
    fx = -stiffness * contact[c, SPRING] - damping * ux
    fy = -stiffness * contact[c, SPRING + 1] - damping * uy
    fz = -stiffness * contact[c, SPRING + 2] - damping * uz
    force = math.sqrt(fx * fx + fy * fy + fz * fz)
    if force > cap:
        fx, fy, fz = fx * cap / force, fy * cap / force, fz * cap / force
        contact[c, SPRING] = -(fx + damping * ux) / stiffness
        contact[c, SPRING + 1] = -(fy + damping * uy) / stiffness
        contact[c, SPRING + 2] = -(fz + damping * uz) / stiffness
    return fx, fy, fz


@compiled
@no_type_check
def _kick(k, scale, fx, fy, fz, time, body, fall, ceiling, tally):
    """Change a velocity by a force over some time; note whether it is faster than the root of ``ceiling`` now."""
    anchor(k, body, fall, tally)
    gain = time * scale
    vx, vy, vz = body[VELOCITY, k] + gain * fx, body[VELOCITY + 1, k] + gain * fy, body[VELOCITY + 2, k] + gain * fz
    body[VELOCITY, k], body[VELOCITY + 1, k], body[VELOCITY + 2, k] = vx, vy, vz
    vx, vy, vz = vx + fall[1, 0], vy + fall[1, 1], vz + fall[1, 2]
    tally[HASTY] |= vx * vx + vy * vy + vz * vz > ceiling


@compiled
@no_type_check
def _note(row, k, scale, x, y, z, body, touched, tally):
    """Add to the acceleration of a particle, or to that of its spin."""
    body[row, k] += scale * x
    body[row + 1, k] += scale * y
    body[row + 2, k] += scale * z
    if row == PUSH:
        touched[tally[TOUCHED]] = k
        tally[TOUCHED] += 1


@compiled
@no_type_check
def _twist(k, arm, tx, ty, tz, time, body, touched, tally):
    """Change a spin by a torque over some time, and note its acceleration."""
    scale = arm / body[INERTIA, k]
    _note(TWIST, k, scale, tx, ty, tz, body, touched, tally)
    body[SPIN, k] += time * scale * tx
    body[SPIN + 1, k] += time * scale * ty
    body[SPIN + 2, k] += time * scale * tz


@compiled
@no_type_check
def _twist_pair(c, i, j, fx, fy, fz, time, body, contact, touched, tally):
    """Let a tangential force turn both: it has the same torque on them, but for their arms."""
    nx, ny, nz, overlap = _normal_and_overlap(c, contact)
    tx, ty, tz = fy * nz - fz * ny, fz * nx - fx * nz, fx * ny - fy * nx
    _twist(i, _arm(i, j, overlap, body), tx, ty, tz, time, body, touched, tally)
    if j >= 0:
        _twist(j, _arm(j, i, overlap, body), tx, ty, tz, time, body, touched, tally)


@compiled
@no_type_check
def _damped(c, contact, nx, ny, nz, force, damping, law):
    """Return a normal force with that of the dashpot, which pulls only if the law says so."""
    rate = contact[c, SLIP] * nx + contact[c, SLIP + 1] * ny + contact[c, SLIP + 2] * nz
    force -= damping * rate
    return force if law.tension else max(force, 0.0)


@compiled
@no_type_check
def _clear(body, touched, tally):
    """Forget the accelerations of the step before."""
    for t in range(tally[TOUCHED]):
        for row in range(3):
            body[PUSH + row, touched[t]] = 0.0
            body[TWIST + row, touched[t]] = 0.0
    tally[TOUCHED] = 0


@compiled
@no_type_check
def _push(body, fall, contact, who, touched, tally, law, time, noted, ceiling):
    """Let every contact kick its particles for some time; in a turning box, only note the accelerations."""
    for c in range(tally[CONTACTS]):
        i, j = who[c, 0], who[c, 1]
        if not law.interacting and j >= 0:
            continue
        nx, ny, nz, overlap = _normal_and_overlap(c, contact)
        stiffness = law.stiffness * math.sqrt(overlap) if law.hertz else law.stiffness
        force, damping = stiffness * overlap, 0.0
        if law.damping_ratio > 0.0:
            damping = 2.0 * law.damping_ratio * math.sqrt(reduced_mass(i, j, body) * stiffness)
            force = _damped(c, contact, nx, ny, nz, force, damping, law)
        fx, fy, fz = force * nx, force * ny, force * nz
        if law.friction > 0.0:
            tx, ty, tz = _rub(c, contact, stiffness, damping, law.friction * max(force, 0.0), law.tangential_share)
            fx, fy, fz = fx + tx, fy + ty, fz + tz
            _twist_pair(c, i, j, tx, ty, tz, time, body, contact, touched, tally)
        if noted:
            _note(PUSH, i, 1.0 / body[MASS, i], fx, fy, fz, body, touched, tally)
            if j >= 0:
                _note(PUSH, j, -1.0 / body[MASS, j], fx, fy, fz, body, touched, tally)
        if law.rotation == 0.0:
            _kick(i, 1.0 / body[MASS, i], fx, fy, fz, time, body, fall, ceiling, tally)
            if j >= 0:
                _kick(j, -1.0 / body[MASS, j], fx, fy, fz, time, body, fall, ceiling, tally)
        _record_push(c, contact, time, fx, fy, fz)


@inlined
@no_type_check
def push_contacts(body, fall, contact, who, touched, tally, space, pull, law, now, lag, lead, framed, ceiling):
    """Work out all contacts of a step, whose geometry is known."""
    slipping = law.damping_ratio > 0.0 or law.friction > 0.0
    if slipping:
        _look(body, fall, contact, who, tally, space, pull, law, now, lag)
    if tally[TOUCHED] > 0:
        _clear(body, touched, tally)
    noted = slipping or framed or law.rotation != 0.0
    _push(body, fall, contact, who, touched, tally, law, lag + lead, noted, ceiling)

"""The compiled part of the soft-contact engine: one system runs from time step to time step.

Leapfrog velocity Verlet: velocities live half a step behind, and contacts kick them. A dashpot needs the velocity of
this very moment; it takes the one half a step ago plus the last known acceleration, which keeps second order (the
predictor of Groot and Warren 1997 with lambda = 1, doi:10.1063/1.474784). Tangential springs stretch by the slip at
half a step, so they too are second order.

Few pairs touch at a time. So a step only drifts all particles, asks a list of near pairs and walls which of them
touch, without a branch, and works on those: the rest costs no more with friction, damping or the log than without.

A list holds as long as nobody moved further than half its skin. No speed component passes a ceiling for a counted
number of steps; when one does, or they are over, displacements are measured and a new term is set or a new list built.
Its entries are sorted by (particle, partner), so the order of all sums, and every bit, is that of all pairs.

All compiled functions live in this one file: numba's cache notices a change in it, but not in a file it imports.
Never rename its record classes: a cache left by an older version names them, and would no longer load.
``no_type_check`` keeps the run-time type checker of the tests away from functions that numba compiles.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange

RUNNING, FULL, CROWDED, CRAMPED, DONE, DIVERGED = 0, 1, 2, 3, 4, 5  # no room in the log; for contacts; in the list
STEP, CONTACTS, TOUCHED, OVER, ROWS, COUNTERS = 0, 1, 2, 3, 4, 5  # entries of Grains.tally
POSITION, VELOCITY, PUSH, SPIN, TWIST, RADIUS, MASS, INERTIA, BODY_ROWS = 0, 3, 6, 9, 12, 15, 16, 17, 18
BEGAN, DURATION, DEEPEST, MOMENTUM, NORMAL, LOGGED = 0, 1, 2, 3, 6, 9  # columns of a contact and of a log row
OVERLAP, SPRING, SLIP, CONTACT_COLUMNS = 9, 10, 13, 16  # of a contact only

_NO_CONTACT = -1
_MOST_STEPS = 1000  # between two looks at displacements, so that a run that diverges is noticed
_HEADROOM = 1.2  # of the speed ceiling over the present largest component
_WORTH = 4  # steps that a list must still hold for, to be kept

# without numba's counting of references: nothing in here allocates, and at sixteen particles it took half of the time
compiled = njit(cache=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]
allocating = njit(cache=True, error_model="numpy")


class ContactLaw(NamedTuple):
    """What all systems share: numbers only, as numba counts references to every array taken out of a record."""

    dim: int
    stiffness: float
    damping_ratio: float
    restitution: float
    friction: float
    tangential_share: float  # of the tangential spring over the normal one
    hertz: bool
    tension: bool
    interacting: bool
    amplitude: float
    angular_frequency: float
    rotation: float
    step: float
    steps_per_frame: int
    n_frames: int
    skin: float
    cells_from: int  # particles from which a list is built from cells


class NearList(NamedTuple):
    """Who is near whom. Working memory of one system: forgotten in a pause and built again without effect."""

    first: np.ndarray  # (entry,) pairs sorted by (first, second), then walls in order of particles
    second: np.ndarray  # (entry,) partner, or wall
    limit: np.ndarray  # (entry,) squared distance of touch, of pairs
    slot: np.ndarray  # (entry,) contact, or _NO_CONTACT
    hits: np.ndarray  # (entry + 1,) entries that touch
    built: np.ndarray  # (3, particle) positions at which the list was built
    place: np.ndarray  # (3, particle) cells
    members: np.ndarray  # (particle,) in order of cells
    start: np.ndarray  # (cell + 1,) where the members of a cell begin
    shape: np.ndarray  # (3,) cells along each axis
    sizes: np.ndarray  # (2,) pairs; pairs and walls
    survey: np.ndarray  # (2,) ceiling of speed components; steps for which the list holds under it


class Grains(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it.

    Vectors have three components, the third zero in two dimensions: contacts are rare, and one law serves both.
    """

    body: np.ndarray  # (row, particle): position, velocity and spin half a step ago, accelerations by contacts, ...
    contact: np.ndarray  # (contact, column) see BEGAN ... SLIP
    who: np.ndarray  # (contact, 3) particle, partner or wall, entry in the list
    touched: np.ndarray  # (2 contact,) who was pushed or twisted at the last step, the first tally[TOUCHED] entries
    tally: np.ndarray  # (COUNTERS,)


@compiled
@no_type_check
def _drift(x, v, pull, step, ceiling):
    """Kick and move along one axis; return how many are faster than the ceiling."""
    fast = 0
    for k in range(x.shape[0]):
        v[k] += pull
        x[k] += step * v[k]
        fast += abs(v[k]) > ceiling
    return fast


@compiled
@no_type_check
def _hits_flat(x, y, first, second, limit, n_pairs, hits):
    """Write which listed pairs touch, in two dimensions without periodic axes; return how many."""
    count = 0
    for e in range(n_pairs):
        i, j = np.uint64(first[e]), np.uint64(second[e])  # unsigned: a signed index is first tested for its sign
        dx, dy = x[i] - x[j], y[i] - y[j]
        hits[np.uint64(count)] = e
        count += dx * dx + dy * dy < limit[e]
    return count


@compiled
@no_type_check
def _hits_any(x, y, z, space, first, second, limit, n_pairs, hits):
    """Write which listed pairs touch; return how many."""
    period_x, period_y, period_z = space[3], space[4], space[5]
    inverse_x, inverse_y, inverse_z = _inverse(period_x), _inverse(period_y), _inverse(period_z)
    count = 0
    for e in range(n_pairs):
        i, j = np.uint64(first[e]), np.uint64(second[e])
        dx, dy, dz = x[i] - x[j], y[i] - y[j], z[i] - z[j]
        dx -= period_x * np.rint(dx * inverse_x)
        dy -= period_y * np.rint(dy * inverse_y)
        dz -= period_z * np.rint(dz * inverse_z)
        hits[np.uint64(count)] = e
        count += dx * dx + dy * dy + dz * dz < limit[e]
    return count


@compiled
@no_type_check
def _wall_hits(body, space, first, second, n_pairs, n_entries, hits, count):
    """Append which listed walls are touched; return how many hits there are now."""
    for e in range(n_pairs, n_entries):
        i, wall = first[e], -second[e] - 1
        x = body[wall >> 1, i]
        gap = space[wall >> 1] - x if wall & 1 else x
        hits[count] = e
        count += gap < body[RADIUS, i]
    return count


@compiled
@no_type_check
def _nearest(d, period):
    """Return a separation between nearest images."""
    return d - period * np.rint(d / period) if period > 0.0 else d


@compiled
@no_type_check
def _geometry(i, j, body, space):
    """Return the unit normal towards i, the distance along it, and the distance of touch."""
    if j < 0:
        wall = -j - 1
        axis, far = wall >> 1, wall & 1
        sign = -1.0 if far else 1.0
        distance = space[axis] - body[axis, i] if far else body[axis, i]
        nx, ny, nz = sign * (axis == 0), sign * (axis == 1), sign * (axis == 2)
        return nx, ny, nz, distance, body[RADIUS, i]
    dx = _nearest(body[0, i] - body[0, j], space[3])
    dy = _nearest(body[1, i] - body[1, j], space[4])
    dz = _nearest(body[2, i] - body[2, j], space[5])
    distance = math.sqrt(dx * dx + dy * dy + dz * dz)
    inverse = 1.0 / max(distance, 1e-300)
    return dx * inverse, dy * inverse, dz * inverse, distance, body[RADIUS, i] + body[RADIUS, j]


@compiled
@no_type_check
def _relative(row, i, j, body):
    """Return a vector of i minus that of its partner, or that of i where the partner is a wall."""
    x, y, z = body[row, i], body[row + 1, i], body[row + 2, i]
    if j >= 0:
        x, y, z = x - body[row, j], y - body[row + 1, j], z - body[row + 2, j]
    return x, y, z


@compiled
@no_type_check
def _surface(row, i, j, body, arm_i, arm_j, nx, ny, nz):
    """Return what turning adds to the relative velocity (row SPIN) or acceleration (row TWIST) of the surfaces."""
    x, y, z = arm_i * body[row, i], arm_i * body[row + 1, i], arm_i * body[row + 2, i]
    if j >= 0:
        x, y, z = x + arm_j * body[row, j], y + arm_j * body[row + 1, j], z + arm_j * body[row + 2, j]
    return z * ny - y * nz, x * nz - z * nx, y * nx - x * ny


@compiled
@no_type_check
def _since_touch(i, j, body, space, step):
    """Return how long ago, within the last flight at constant velocity, the pair was at the distance of touch."""
    nx, ny, nz, distance, reach = _geometry(i, j, body, space)
    wx, wy, wz = _relative(VELOCITY, i, j, body)
    rate = wx * nx + wy * ny + wz * nz
    speed2 = rate * rate if j < 0 else wx * wx + wy * wy + wz * wz
    gap = distance * distance - reach * reach
    approach = distance * rate
    root = math.sqrt(max(approach * approach - speed2 * gap, 0.0))
    if gap >= 0.0:  # it went out
        since = gap / (approach + root)
    elif approach < 0.0:  # it came in
        since = -gap / (root - approach)
    else:
        since = (approach + root) / speed2
    return min(max(since, 0.0), step) if since == since else step


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


@compiled
@no_type_check
def _end_contacts(body, contact, who, tally, rows, row_who, space, slot, now, step):
    """Log and drop the contacts that have come apart; False if the log is full, to be called again then."""
    for c in range(tally[CONTACTS] - 1, -1, -1):
        i, j = who[c, 0], who[c, 1]
        _, _, _, distance, reach = _geometry(i, j, body, space)
        if distance < reach:
            continue
        duration = now - _since_touch(i, j, body, space, step) - contact[c, BEGAN]
        if not _write_row(c, duration, contact, who, tally, rows, row_who):
            return False
        last = tally[CONTACTS] - 1
        slot[who[c, 2]] = _NO_CONTACT
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
def _end_run(contact, who, tally, rows, row_who, now):
    """Log the contacts still on with their duration so far; False if the log is full, to be called again then."""
    while tally[CONTACTS] > 0:
        c = tally[CONTACTS] - 1
        if not _write_row(c, now - contact[c, BEGAN], contact, who, tally, rows, row_who):
            return False
        tally[CONTACTS] = c
    return True


@compiled
@no_type_check
def _reduced_mass(i, j, body):
    """Return the reduced mass of a pair; a wall is infinitely heavy."""
    m = body[MASS, i]
    return m if j < 0 else m * body[MASS, j] / (m + body[MASS, j])


@compiled
@no_type_check
def _begin_contacts(hits, n_hits, first, second, slot, body, contact, who, tally, space, law, now):
    """Add what touches and did not before; what overlaps at the start began at time 0."""
    for h in range(n_hits):
        e = hits[h]
        if slot[e] != _NO_CONTACT:
            continue
        c, i, j = tally[CONTACTS], first[e], second[e]
        tally[CONTACTS] = c + 1
        slot[e] = c
        who[c, 0], who[c, 1], who[c, 2] = i, j, e
        for column in range(CONTACT_COLUMNS):
            contact[c, column] = 0.0
        contact[c, BEGAN] = max(now - _since_touch(i, j, body, space, law.step), 0.0)
        if not law.interacting and j >= 0:
            nx, ny, nz, _, _ = _geometry(i, j, body, space)
            wx, wy, wz = _relative(VELOCITY, i, j, body)
            rate = min(wx * nx + wy * ny + wz * nz, 0.0)
            impulse = -(1.0 + law.restitution) * _reduced_mass(i, j, body) * rate
            contact[c, MOMENTUM] = impulse * nx
            contact[c, MOMENTUM + 1] = impulse * ny
            contact[c, MOMENTUM + 2] = impulse * nz


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
def _fictitious(i, j, body, space, vx, vy, turn):
    """Return what a turning box adds to the acceleration of i, relative to its partner or to the box."""
    rx, ry = body[0, i] - 0.5 * space[0], body[1, i] - 0.5 * space[1]
    if j >= 0:
        rx, ry = _nearest(body[0, i] - body[0, j], space[3]), _nearest(body[1, i] - body[1, j], space[4])
    return turn * (turn * rx + 2.0 * vy), turn * (turn * ry - 2.0 * vx)


@compiled
@no_type_check
def _look(body, contact, who, tally, space, pull, law, now, lag):
    """Write geometry and present slip of every contact, from velocities ``lag`` ago and the accelerations since."""
    for c in range(tally[CONTACTS]):
        i, j = who[c, 0], who[c, 1]
        nx, ny, nz, distance, reach = _geometry(i, j, body, space)
        overlap = reach - distance
        wx, wy, wz = _relative(VELOCITY, i, j, body)
        ax, ay, az = _relative(PUSH, i, j, body)
        if j < 0:
            ax, ay, az = ax + pull[0], ay + pull[1], az + pull[2]
        if law.rotation != 0.0:
            bx, by = _fictitious(i, j, body, space, wx, wy, law.rotation)
            ax, ay = ax + bx, ay + by
        if law.friction > 0.0:
            arm_i = body[RADIUS, i] - (overlap if j < 0 else 0.5 * overlap)
            arm_j = distance - arm_i
            bx, by, bz = _surface(SPIN, i, j, body, arm_i, arm_j, nx, ny, nz)
            wx, wy, wz = wx + bx, wy + by, wz + bz
            _stretch(c, contact, nx, ny, nz, wx, wy, wz, min(2.0 * lag, now - contact[c, BEGAN]))
            bx, by, bz = _surface(TWIST, i, j, body, arm_i, arm_j, nx, ny, nz)
            ax, ay, az = ax + bx, ay + by, az + bz
        contact[c, OVERLAP] = overlap
        contact[c, DEEPEST] = max(contact[c, DEEPEST], overlap)
        contact[c, NORMAL], contact[c, NORMAL + 1], contact[c, NORMAL + 2] = nx, ny, nz
        contact[c, SLIP], contact[c, SLIP + 1], contact[c, SLIP + 2] = wx + lag * ax, wy + lag * ay, wz + lag * az


@compiled
@no_type_check
def _rub(c, contact, rate, stiffness, damping, cap):
    """Return the tangential force, and slide the spring along where Coulomb's cap is reached."""
    ux = contact[c, SLIP] - rate * contact[c, NORMAL]
    uy = contact[c, SLIP + 1] - rate * contact[c, NORMAL + 1]
    uz = contact[c, SLIP + 2] - rate * contact[c, NORMAL + 2]
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
def _kick(row, k, scale, x, y, z, time, body, kicked):
    """Note an acceleration in this row and, if wanted, change the velocity or spin three rows from it."""
    body[row, k] += scale * x
    body[row + 1, k] += scale * y
    body[row + 2, k] += scale * z
    if kicked:
        body[row - 3, k] += time * scale * x
        body[row - 2, k] += time * scale * y
        body[row - 1, k] += time * scale * z


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
def _push(body, contact, who, touched, tally, law, time):
    """Let every contact kick its particles for some time; in a turning box, only note the accelerations."""
    kicked = law.rotation == 0.0
    for c in range(tally[CONTACTS]):
        i, j = who[c, 0], who[c, 1]
        if not law.interacting and j >= 0:
            continue
        nx, ny, nz, overlap = contact[c, NORMAL], contact[c, NORMAL + 1], contact[c, NORMAL + 2], contact[c, OVERLAP]
        rate = contact[c, SLIP] * nx + contact[c, SLIP + 1] * ny + contact[c, SLIP + 2] * nz
        stiffness = law.stiffness * math.sqrt(overlap) if law.hertz else law.stiffness
        damping = 2.0 * law.damping_ratio * math.sqrt(_reduced_mass(i, j, body) * stiffness)
        force = stiffness * overlap - damping * rate
        if not law.tension:
            force = max(force, 0.0)
        fx, fy, fz = force * nx, force * ny, force * nz
        if law.friction > 0.0:
            share, cap = law.tangential_share, law.friction * max(force, 0.0)
            tx, ty, tz = _rub(c, contact, rate, share * stiffness, share * damping, cap)
            fx, fy, fz = fx + tx, fy + ty, fz + tz
            tx, ty, tz = ty * nz - tz * ny, tz * nx - tx * nz, tx * ny - ty * nx
            arm = body[RADIUS, i] - (overlap if j < 0 else 0.5 * overlap)
            _kick(TWIST, i, arm / body[INERTIA, i], tx, ty, tz, time, body, True)
            if j >= 0:
                _kick(TWIST, j, (body[RADIUS, j] - 0.5 * overlap) / body[INERTIA, j], tx, ty, tz, time, body, True)
        _kick(PUSH, i, 1.0 / body[MASS, i], fx, fy, fz, time, body, kicked)
        touched[tally[TOUCHED]] = i
        tally[TOUCHED] += 1
        if j >= 0:
            _kick(PUSH, j, -1.0 / body[MASS, j], fx, fy, fz, time, body, kicked)
            touched[tally[TOUCHED]] = j
            tally[TOUCHED] += 1
        contact[c, MOMENTUM] += time * fx
        contact[c, MOMENTUM + 1] += time * fy
        contact[c, MOMENTUM + 2] += time * fz


@compiled
@no_type_check
def _set_pull(law, gravity, now, pull):
    """Write the acceleration that all particles share: gravity in the frame of the box."""
    pull[0], pull[1], pull[2] = gravity[0], gravity[1], gravity[2]
    if law.amplitude != 0.0:
        w = law.angular_frequency
        pull[1] += law.amplitude * w * w * math.sin(w * now)
    if law.rotation != 0.0:
        cos, sin = math.cos(law.rotation * now), math.sin(law.rotation * now)
        pull[0], pull[1] = cos * gravity[0] + sin * gravity[1], cos * gravity[1] - sin * gravity[0]


@compiled
@no_type_check
def _turn_back(k, body, time, cos, sin, half_cos, half_sin):
    """Turn a spin, which stands still in space, backwards in the box; by half as much what was just added to it."""
    tx, ty = time * body[TWIST, k], time * body[TWIST + 1, k]
    x, y = body[SPIN, k] - tx, body[SPIN + 1, k] - ty
    body[SPIN, k] = cos * x + sin * y + half_cos * tx + half_sin * ty
    body[SPIN + 1, k] = cos * y - sin * x + half_cos * ty - half_sin * tx


@compiled
@no_type_check
def _turn_velocities(body, space, law, pull, lag, lead):
    """Bring velocities from ``lag`` ago to ``lead`` ahead in a turning box.

    Coriolis' force takes the mean of the velocities before and after, which is the velocity now: solved for it.
    """
    turn = law.rotation
    theta = 2.0 * turn * lag
    angle = turn * (lag + lead)
    cos, sin, half_cos, half_sin = math.cos(angle), math.sin(angle), math.cos(0.5 * angle), math.sin(0.5 * angle)
    for k in range(body.shape[1]):
        ax, ay = _fictitious(k, -1, body, space, 0.0, 0.0, turn)
        ax, ay, az = ax + pull[0] + body[PUSH, k], ay + pull[1] + body[PUSH + 1, k], pull[2] + body[PUSH + 2, k]
        x, y = body[VELOCITY, k] + lag * ax, body[VELOCITY + 1, k] + lag * ay
        x, y = (x + theta * y) / (1.0 + theta * theta), (y - theta * x) / (1.0 + theta * theta)
        body[VELOCITY, k] = x + lead * (ax + 2.0 * turn * y)
        body[VELOCITY + 1, k] = y + lead * (ay - 2.0 * turn * x)
        body[VELOCITY + 2, k] += (lag + lead) * az
        _turn_back(k, body, lag + lead, cos, sin, half_cos, half_sin)


@compiled
@no_type_check
def _write_frame(frame, body, space, law, pull, lag, lead, positions, velocities, spins):
    """Write one frame; positions along periodic axes within one period.

    Called before the common pull is added, and after the kicks by contacts unless the box turns.
    """
    n = body.shape[1]
    turn = law.rotation
    theta = 2.0 * turn * lag
    since = lag if turn != 0.0 else -lead
    for axis in range(law.dim):
        period = space[3 + axis]
        for k in range(n):
            x = body[POSITION + axis, k]
            if period > 0.0:
                x -= period * math.floor(x / period)
                x = x if x < period else 0.0
            positions[frame, k, axis] = x
            velocities[frame, k, axis] = body[VELOCITY + axis, k] + lag * pull[axis] + since * body[PUSH + axis, k]
    if turn != 0.0:
        for k in range(n):
            bx, by = _fictitious(k, -1, body, space, 0.0, 0.0, turn)
            x, y = velocities[frame, k, 0] + lag * bx, velocities[frame, k, 1] + lag * by
            velocities[frame, k, 0] = (x + theta * y) / (1.0 + theta * theta)
            velocities[frame, k, 1] = (y - theta * x) / (1.0 + theta * theta)
    if law.friction > 0.0:
        for k in range(n):
            for axis in range(spins.shape[2]):
                row = axis if law.dim == 3 else 2
                spins[frame, k, axis] = body[SPIN + row, k] - lead * body[TWIST + row, k]
            if turn != 0.0 and law.dim == 3:
                x, y = spins[frame, k, 0], spins[frame, k, 1]
                spins[frame, k, 0] = math.cos(turn * lag) * x + math.sin(turn * lag) * y
                spins[frame, k, 1] = math.cos(turn * lag) * y - math.sin(turn * lag) * x


@compiled
@no_type_check
def _complete_row(i, begin, end, radii, first, second, limit):
    """Write the particle and the squared distance of touch beside its partners."""
    for e in range(begin, end):
        first[e] = i
        limit[e] = (radii[i] + radii[second[e]]) ** 2


@compiled
@no_type_check
def _inverse(period):
    """Return one over a period, 0 along axes that have none."""
    return 1.0 / period if period > 0.0 else 0.0


@compiled
@no_type_check
def _list_all(body, space, skin, first, second, limit):
    """Write all near pairs, sorted, by looking at all pairs; return how many, or -1 when the arrays are too short."""
    n = body.shape[1]
    x, y, z, radii = body[0], body[1], body[2], body[RADIUS]
    period_x, period_y, period_z = space[3], space[4], space[5]
    inverse_x, inverse_y, inverse_z = _inverse(period_x), _inverse(period_y), _inverse(period_z)
    count = 0
    for i in range(n):
        begin = count
        if count + n > first.shape[0]:
            return -1
        xi, yi, zi, ri = x[i], y[i], z[i], radii[i] + skin
        for j in range(np.uint64(i + 1), np.uint64(n)):
            dx, dy, dz, reach = xi - x[j], yi - y[j], zi - z[j], ri + radii[j]
            dx -= period_x * np.rint(dx * inverse_x)
            dy -= period_y * np.rint(dy * inverse_y)
            dz -= period_z * np.rint(dz * inverse_z)
            second[np.uint64(count)] = j
            count += dx * dx + dy * dy + dz * dz < reach * reach
        _complete_row(i, begin, count, radii, first, second, limit)
    return count


@compiled
@no_type_check
def _range(body, row):
    """Return the smallest and the largest entry of a row."""
    low, high = body[row, 0], body[row, 0]
    for k in range(1, body.shape[1]):
        low, high = min(low, body[row, k]), max(high, body[row, k])
    return low, high


@compiled
@no_type_check
def _bin(body, space, skin, shape, place, start, members):
    """Sort particles into cells at least as wide as the reach of the list."""
    n = body.shape[1]
    most = max(1, int((start.shape[0] - 1.0) ** (1.0 / 3.0 if space[2] > 0.0 else 0.5)))  # empty space costs little
    _, widest = _range(body, RADIUS)
    for axis in range(3):
        period = space[3 + axis]
        low, high = _range(body, axis)
        if period > 0.0:
            low, high = 0.0, period
        cells = max(1, int(min(float(most), (high - low) / (2.0 * widest + skin))))
        if period > 0.0 and cells < 3:
            cells = 1  # else a cell would be its own neighbour twice
        shape[axis] = cells
        scale = cells / (high - low) if high > low else 0.0
        for k in range(n):
            x = body[axis, k] - low
            if period > 0.0:
                x -= period * math.floor(x / period)
            place[axis, k] = min(int(x * scale), cells - 1)
    start[:] = 0
    for k in range(n):
        start[(place[2, k] * shape[1] + place[1, k]) * shape[0] + place[0, k]] += 1
    total = 0
    for cell in range(start.shape[0]):
        total += start[cell]
        start[cell] = total
    for k in range(n - 1, -1, -1):
        cell = (place[2, k] * shape[1] + place[1, k]) * shape[0] + place[0, k]
        start[cell] -= 1
        members[start[cell]] = k


@compiled
@no_type_check
def _neighbor(cell, offset, cells, period):
    """Return the cell at this offset along an axis, -1 where there is none."""
    other = cell + offset
    if 0 <= other < cells:
        return other
    if period == 0.0 or cells == 1:
        return -1
    return cells - 1 if other < 0 else 0


@compiled
@no_type_check
def _list_cells(body, space, skin, first, second, limit, shape, place, start, members):
    """Write all near pairs, sorted, by looking into cells; return how many, or -1 when the arrays are too short."""
    n = body.shape[1]
    x, y, z, radii = body[0], body[1], body[2], body[RADIUS]
    period_x, period_y, period_z = space[3], space[4], space[5]
    inverse_x, inverse_y, inverse_z = _inverse(period_x), _inverse(period_y), _inverse(period_z)
    _bin(body, space, skin, shape, place, start, members)
    cells_x, cells_y, layers = shape[0], shape[1], 1 if shape[2] > 1 else 0
    count = 0
    for i in range(n):
        begin = count
        if count + n > first.shape[0]:
            return -1
        xi, yi, zi, ri = x[i], y[i], z[i], radii[i] + skin
        for oz in range(-layers, layers + 1):
            cz = _neighbor(place[2, i], oz, shape[2], period_z)
            for oy in range(-1, 2):
                cy = _neighbor(place[1, i], oy, cells_y, period_y)
                for ox in range(-1, 2):
                    cx = _neighbor(place[0, i], ox, cells_x, period_x)
                    if cx < 0 or cy < 0 or cz < 0:
                        continue
                    cell = (cz * cells_y + cy) * cells_x + cx
                    for m in range(start[cell], start[cell + 1]):
                        j = np.uint64(members[m])
                        dx, dy, dz, reach = xi - x[j], yi - y[j], zi - z[j], ri + radii[j]
                        dx -= period_x * np.rint(dx * inverse_x)
                        dy -= period_y * np.rint(dy * inverse_y)
                        dz -= period_z * np.rint(dz * inverse_z)
                        second[np.uint64(count)] = members[m]
                        count += (members[m] > i) & (dx * dx + dy * dy + dz * dz < reach * reach)
        _sort_row(second, begin, count)
        _complete_row(i, begin, count, radii, first, second, limit)
    return count


@compiled
@no_type_check
def _sort_row(second, begin, end):
    """Sort a short stretch of the list."""
    for a in range(begin + 1, end):
        j = second[a]
        b = a - 1
        while b >= begin and second[b] > j:
            second[b + 1] = second[b]
            b -= 1
        second[b + 1] = j


@compiled
@no_type_check
def _list_walls(body, space, walls, skin, first, second, count):
    """Append all near walls; return how many entries there are now."""
    for k in range(body.shape[1]):
        reach = body[RADIUS, k] + 0.5 * skin
        for axis in range(3):
            if walls[axis]:
                x = body[axis, k]
                first[count], second[count] = k, -(2 * axis + 1)
                count += x < reach
                first[count], second[count] = k, -(2 * axis + 2)
                count += space[axis] - x < reach
    return count


@compiled
@no_type_check
def _build_list(body, space, walls, law, near):
    """Write all near pairs and walls and their numbers; False when the arrays are too short."""
    n, sizes = body.shape[1], near.sizes
    first, second, limit = near.first, near.second, near.limit
    if n < law.cells_from:
        sizes[0] = _list_all(body, space, law.skin, first, second, limit)
    else:
        cells = (near.shape, near.place, near.start, near.members)
        sizes[0] = _list_cells(body, space, law.skin, first, second, limit, *cells)
    if sizes[0] < 0 or sizes[0] + 6 * n >= first.shape[0]:
        sizes[:] = 0
        return False
    sizes[1] = _list_walls(body, space, walls, law.skin, first, second, sizes[0])
    built = near.built
    for axis in range(3):
        for k in range(n):
            built[axis, k] = body[axis, k]
    return True


@compiled
@no_type_check
def _find_contacts(who, tally, first, second, sizes, slot):
    """Tie the present contacts to their entries in a new list."""
    for e in range(sizes[1]):
        slot[e] = _NO_CONTACT
    for c in range(tally[CONTACTS]):
        i, j = who[c, 0], who[c, 1]
        low, high = (0, sizes[0]) if j >= 0 else (sizes[0], sizes[1])
        while low < high:  # the first entry of i, by bisection
            middle = (low + high) >> 1
            low, high = (middle + 1, high) if first[middle] < i else (low, middle)
        while second[low] != j:
            low += 1
        who[c, 2] = low
        slot[low] = c


@compiled
@no_type_check
def _survey(body, built, law, survey):
    """Write the speed ceiling and for how many steps the list holds under it; False for numbers out of range."""
    fastest, furthest, total = 0.0, 0.0, 0.0
    for k in range(body.shape[1]):
        moved = 0.0
        for axis in range(3):
            v, d = abs(body[VELOCITY + axis, k]), body[axis, k] - built[axis, k]
            fastest = max(fastest, v)
            moved += d * d
            total += v
        furthest = max(furthest, moved)
        total += moved
    room = max(0.5 * law.skin - math.sqrt(furthest), 0.0)
    reach = law.step * math.sqrt(law.dim)
    survey[0] = max(_HEADROOM * fastest, 0.5 * law.skin / (reach * _MOST_STEPS))
    survey[1] = min(room / (reach * survey[0]), _MOST_STEPS)
    return total < 1e300


@compiled
@no_type_check
def _renew(body, space, walls, who, tally, law, near):
    """Set a new term for the list, or build a new one; return its status, RUNNING if all is well."""
    if not _survey(body, near.built, law, near.survey):
        return DIVERGED
    if near.survey[1] < _WORTH:
        if not _build_list(body, space, walls, law, near):
            return CRAMPED
        _find_contacts(who, tally, near.first, near.second, near.sizes, near.slot)
        _survey(body, near.built, law, near.survey)
    return RUNNING


@compiled
@no_type_check
def _hits(flat, body, x, y, z, space, first, second, limit, sizes, hits):
    """Write which listed pairs and walls touch; return how many."""
    if flat:
        count = _hits_flat(x, y, first, second, limit, sizes[0], hits)
    else:
        count = _hits_any(x, y, z, space, first, second, limit, sizes[0], hits)
    return _wall_hits(body, space, first, second, sizes[0], sizes[1], hits, count)


@compiled
@no_type_check
def _advance(body, x, y, z, vx, vy, vz, space, pull, law, lag, lead, ceiling):
    """Bring velocities half a step ahead and positions a whole one; return how many components are too fast."""
    kick = lag + lead
    if law.rotation != 0.0:
        _turn_velocities(body, space, law, pull, lag, lead)
        kick = 0.0
    fast = _drift(x, vx, kick * pull[0], law.step, ceiling) + _drift(y, vy, kick * pull[1], law.step, ceiling)
    if law.dim == 3:
        fast += _drift(z, vz, kick * pull[2], law.step, ceiling)
    return fast


@compiled
@no_type_check
def _meet(hits, n_hits, first, second, slot, body, contact, who, touched, tally, space, pull, law, now, lag, lead):
    """Work out all contacts of a step."""
    if n_hits > tally[CONTACTS]:
        _begin_contacts(hits, n_hits, first, second, slot, body, contact, who, tally, space, law, now)
    _look(body, contact, who, tally, space, pull, law, now, lag)
    _clear(body, touched, tally)
    _push(body, contact, who, touched, tally, law, lag + lead)


@compiled
@no_type_check
def _steps(
    body,
    contact,
    who,
    touched,
    tally,
    near,
    gravity,
    space,
    walls,
    law,
    rows,
    row_who,
    positions,
    velocities,
    spins,
    pull,
):
    """Step until the last frame is written, something lacks room, or it diverges; return the status."""
    step, last = law.step, (law.n_frames - 1) * law.steps_per_frame
    x, y, z = body[POSITION], body[POSITION + 1], body[POSITION + 2]
    vx, vy, vz = body[VELOCITY], body[VELOCITY + 1], body[VELOCITY + 2]
    first, second, limit, slot, hits = near.first, near.second, near.limit, near.slot, near.hits
    sizes, survey = near.sizes, near.survey
    flat, room = law.dim == 2 and space[3] == 0.0 and space[4] == 0.0, contact.shape[0]
    status, expiry = RUNNING, -1
    while True:
        now = tally[STEP] * step
        if tally[CONTACTS] > 0 and not _end_contacts(body, contact, who, tally, rows, row_who, space, slot, now, step):
            return FULL
        if tally[STEP] > expiry:
            status = _renew(body, space, walls, who, tally, law, near)
            if status != RUNNING:
                return status
            expiry = tally[STEP] + int(survey[1])
        n_hits = _hits(flat, body, x, y, z, space, first, second, limit, sizes, hits)
        if n_hits > room:
            return CROWDED
        lag = 0.5 * step if tally[STEP] > 0 else 0.0
        lead = 0.5 * step if tally[STEP] < last else 0.0
        _set_pull(law, gravity, now, pull)
        if n_hits > 0 or tally[TOUCHED] > 0:
            _meet(
                hits, n_hits, first, second, slot, body, contact, who, touched, tally, space, pull, law, now, lag, lead
            )
        if tally[STEP] % law.steps_per_frame == 0:
            frame = tally[STEP] // law.steps_per_frame
            _write_frame(frame, body, space, law, pull, lag, lead, positions, velocities, spins)
        if tally[STEP] == last:
            tally[OVER] = 1
            return RUNNING
        fast = _advance(body, x, y, z, vx, vy, vz, space, pull, law, lag, lead, survey[0])
        tally[STEP] += 1
        if fast > 0:
            expiry = -1


@allocating
@no_type_check
def _empty_list(n, capacity):
    """Return working memory for a list of this many entries."""
    return NearList(
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(capacity),
        np.full(capacity, _NO_CONTACT),
        np.empty(capacity + 1, np.int64),
        np.full((3, n), 1e100),  # so far away that the first survey finds no room
        np.empty((3, n), np.int64),
        np.empty(n, np.int64),
        np.empty(4 * n + 2, np.int64),
        np.empty(3, np.int64),
        np.zeros(2, np.int64),
        np.zeros(2),
    )


@allocating
@no_type_check
def _run(body, contact, who, touched, tally, gravity, space, walls, law, rows, row_who, positions, velocities, spins):
    """Run one system until it is done, a buffer is full, or it diverges; return its status."""
    n = body.shape[1]
    pull = np.zeros(3)
    capacity = 10 * n + 16
    status = RUNNING
    while tally[OVER] == 0 and status in (RUNNING, CRAMPED):
        who[:, 2] = 0  # a run that paused forgot its list
        near = _empty_list(n, capacity)
        status = _steps(
            body,
            contact,
            who,
            touched,
            tally,
            near,
            gravity,
            space,
            walls,
            law,
            rows,
            row_who,
            positions,
            velocities,
            spins,
            pull,
        )
        capacity *= 2
    if tally[OVER] == 0:
        return status
    last = (law.n_frames - 1) * law.steps_per_frame
    return DONE if _end_run(contact, who, tally, rows, row_who, last * law.step) else FULL


@njit(cache=True, error_model="numpy", parallel=True)
@no_type_check
def run_systems(active, status, grains, gravity, space, walls, law, rows, row_who, positions, velocities, spins):
    """Run the active systems on all cores, each with its own log rows; the order of the systems changes no bit.

    ``gravity``, ``space`` (box lengths, then periods, 0 for axes that have none) and ``walls`` have three axes.
    """
    for a in prange(active.shape[0]):
        s = active[a]
        status[s] = _run(
            grains.body[s],
            grains.contact[s],
            grains.who[s],
            grains.touched[s],
            grains.tally[s],
            gravity,
            space,
            walls,
            law,
            rows[a],
            row_who[a],
            positions[s],
            velocities[s],
            spins[s],
        )

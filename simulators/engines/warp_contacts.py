"""Who touches whom on a device: what ``warp_soft_kernel`` keeps of each system, and how contacts begin and end.

All threads of a warp look at the same pair at the same time, so reading is coalesced without a neighbour list; few
pairs touch, and those are worked on from a list of contacts.
Arrays have the system last; vectors have three components, and discs turn about the third axis.
"""

# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportReturnType=false, reportArgumentType=false
# (Warp reads these functions as source; to a type checker its scalars and arrays are opaque)

from typing import no_type_check

import warp as wp

from simulators.engines.warp_rules import ONE, ZERO

_NO_CONTACT = wp.constant(wp.int32(-1))

wp.set_module_options({"enable_backward": False})


@wp.struct
@no_type_check
class ContactLaw:
    """What all systems share."""

    gravity: wp.vec3d
    box: wp.vec3d
    period: wp.vec3d  # length of periodic axes, 0 for others
    walls: wp.vec3i  # which axes end in walls
    dim: wp.int32
    n_particles: wp.int32
    n_frames: wp.int32
    steps_per_frame: wp.int32
    hertz: wp.bool
    tension: wp.bool
    interacting: wp.bool
    stiffness: wp.float64
    damping_ratio: wp.float64
    restitution: wp.float64
    friction: wp.float64
    amplitude: wp.float64
    angular_frequency: wp.float64
    rotation: wp.float64
    step: wp.float64


@wp.struct
@no_type_check
class Grains:
    """The running state, bit for bit."""

    radii: wp.array2d[wp.float64]  # (particle, system)
    masses: wp.array2d[wp.float64]
    position: wp.array2d[wp.vec3d]
    velocity: wp.array2d[wp.vec3d]  # half a step ago
    spin: wp.array2d[wp.vec3d]  # half a step ago
    push: wp.array2d[wp.vec3d]  # acceleration by contacts, as last evaluated
    twist: wp.array2d[wp.vec3d]  # angular acceleration by contacts, as last evaluated
    slot: wp.array3d[wp.int32]  # (particle, partner or wall, system): its contact
    first: wp.array2d[wp.int32]  # (contact, system): particle
    second: wp.array2d[wp.int32]  # partner or wall
    began: wp.array2d[wp.float64]
    deepest: wp.array2d[wp.float64]
    overlap: wp.array2d[wp.float64]
    normal: wp.array2d[wp.vec3d]
    momentum: wp.array2d[wp.vec3d]
    spring: wp.array2d[wp.vec3d]
    slip: wp.array2d[wp.vec3d]
    n_contacts: wp.array[wp.int32]  # (system,)
    steps: wp.array[wp.int32]
    status: wp.array[wp.int32]


@wp.struct
@no_type_check
class ContactRows:
    """Buffers for the log of the active systems."""

    time: wp.array2d[wp.float64]  # (row, active) of begin
    i: wp.array2d[wp.int32]
    j: wp.array2d[wp.int32]
    impulse: wp.array2d[wp.float64]
    normal: wp.array2d[wp.vec3d]
    duration: wp.array2d[wp.float64]
    overlap: wp.array2d[wp.float64]
    filled: wp.array[wp.int32]  # (active,)


@wp.func
@no_type_check
def nearest(r: wp.vec3d, law: ContactLaw):
    """Return a separation between nearest images."""
    image = r
    for axis in range(3):
        period = law.period[axis]
        if period > ZERO:
            image[axis] = r[axis] - period * wp.rint(r[axis] / period)
    return image


@wp.func
@no_type_check
def _place(j: wp.int32, n: wp.int32):
    """Return the column of a partner in ``Grains.slot``: walls come after the particles."""
    return wp.where(j >= 0, j, n - 1 - j)


@wp.func
@no_type_check
def geometry(i: wp.int32, j: wp.int32, s: wp.int32, grains: Grains, law: ContactLaw):
    """Return the unit normal towards i, the distance along it, and the distance of touch."""
    x = grains.position[i, s]
    normal = wp.vec3d(ZERO, ZERO, ZERO)
    reach = grains.radii[i, s]
    distance = wp.float64(ZERO)
    if j < 0:
        axis = (-j - 1) / 2
        far = (-j - 1) % 2 == 1
        normal[axis] = wp.where(far, -ONE, ONE)
        distance = wp.where(far, law.box[axis] - x[axis], x[axis])
    else:
        r = nearest(x - grains.position[j, s], law)
        distance = wp.length(r)
        normal = wp.vec3d(ONE, ZERO, ZERO)
        if distance > ZERO:
            normal = r / distance
        reach = reach + grains.radii[j, s]
    return normal, distance, reach


@wp.func
@no_type_check
def difference(i: wp.int32, j: wp.int32, s: wp.int32, vector: wp.array2d[wp.vec3d]):
    """Return vector of i minus that of j, which a wall has not."""
    w = vector[i, s]
    if j >= 0:
        w = w - vector[j, s]
    return w


@wp.func
@no_type_check
def _since_touch(i: wp.int32, j: wp.int32, s: wp.int32, grains: Grains, law: ContactLaw):
    """Return how long ago, within the last flight at constant velocity, the pair was at the distance of touch."""
    normal, distance, reach = geometry(i, j, s, grains, law)
    w = difference(i, j, s, grains.velocity)
    rate = wp.dot(w, normal)
    speed2 = wp.dot(w, w)
    if j < 0:
        speed2 = rate * rate
    gap = distance * distance - reach * reach
    approach = distance * rate
    root = wp.sqrt(wp.max(approach * approach - speed2 * gap, ZERO))
    upper, lower = gap, approach + root  # it went out
    if gap < ZERO:  # it came in
        if approach < ZERO:
            upper, lower = -gap, root - approach
        else:
            upper, lower = approach + root, speed2
    if lower == ZERO:
        return law.step
    return wp.min(wp.max(upper / lower, ZERO), law.step)


@wp.func
@no_type_check
def _write_row(c: wp.int32, duration: wp.float64, s: wp.int32, a: wp.int32, grains: Grains, rows: ContactRows):
    """Append a contact to the log; False if there is no room."""
    row = rows.filled[a]
    if row == rows.time.shape[0]:
        return False
    momentum = grains.momentum[c, s]
    impulse = wp.length(momentum)
    normal = grains.normal[c, s]
    if impulse > ZERO:
        normal = momentum / impulse
    rows.time[row, a] = grains.began[c, s]
    rows.i[row, a] = grains.first[c, s]
    rows.j[row, a] = grains.second[c, s]
    rows.impulse[row, a] = impulse
    rows.normal[row, a] = normal
    rows.duration[row, a] = wp.max(duration, ZERO)
    rows.overlap[row, a] = grains.deepest[c, s]
    rows.filled[a] = row + 1
    return True


@wp.func
@no_type_check
def _drop(c: wp.int32, s: wp.int32, grains: Grains, law: ContactLaw):
    """Forget a contact; the last one takes its place."""
    n = law.n_particles
    last = grains.n_contacts[s] - 1
    grains.slot[grains.first[c, s], _place(grains.second[c, s], n), s] = _NO_CONTACT
    if c != last:
        grains.slot[grains.first[last, s], _place(grains.second[last, s], n), s] = c
        grains.first[c, s] = grains.first[last, s]
        grains.second[c, s] = grains.second[last, s]
        grains.began[c, s] = grains.began[last, s]
        grains.deepest[c, s] = grains.deepest[last, s]
        grains.normal[c, s] = grains.normal[last, s]
        grains.momentum[c, s] = grains.momentum[last, s]
        grains.spring[c, s] = grains.spring[last, s]
    grains.n_contacts[s] = last


@wp.func
@no_type_check
def end_contacts(
    now: wp.float64, over: wp.bool, s: wp.int32, a: wp.int32, grains: Grains, law: ContactLaw, rows: ContactRows
):
    """Log and drop the contacts that have come apart; False if the log is full, to be called again then.

    When the run is over, those still on go the same way, with their duration so far.
    """
    c = grains.n_contacts[s] - 1
    while c >= 0:
        i = grains.first[c, s]
        j = grains.second[c, s]
        _, distance, reach = geometry(i, j, s, grains, law)
        if over or distance >= reach:
            end = wp.float64(now)
            if not over:
                end = now - _since_touch(i, j, s, grains, law)
            if not _write_row(c, end - grains.began[c, s], s, a, grains, rows):
                return False
            _drop(c, s, grains, law)
        c = c - 1
    return True


@wp.func
@no_type_check
def reduced_mass(i: wp.int32, j: wp.int32, s: wp.int32, masses: wp.array2d[wp.float64]):
    """Return the reduced mass of a pair; a wall is infinitely heavy."""
    mass = masses[i, s]
    if j >= 0:
        mass = mass * masses[j, s] / (mass + masses[j, s])
    return mass


@wp.func
@no_type_check
def _begin_contact(i: wp.int32, j: wp.int32, now: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Add a contact unless it is there; False without room. One that was there from the start began at time 0."""
    if grains.slot[i, _place(j, law.n_particles), s] != _NO_CONTACT:
        return True
    c = grains.n_contacts[s]
    if c == grains.first.shape[0]:
        return False
    grains.n_contacts[s] = c + 1
    grains.slot[i, _place(j, law.n_particles), s] = c
    nothing = wp.vec3d(ZERO, ZERO, ZERO)
    momentum = nothing
    if j >= 0 and not law.interacting:
        normal, _, _ = geometry(i, j, s, grains, law)
        rate = wp.min(wp.dot(difference(i, j, s, grains.velocity), normal), ZERO)
        momentum = normal * (-(ONE + law.restitution) * reduced_mass(i, j, s, grains.masses) * rate)
    grains.first[c, s] = i
    grains.second[c, s] = j
    grains.began[c, s] = wp.max(now - _since_touch(i, j, s, grains, law), ZERO)
    grains.deepest[c, s] = ZERO
    grains.normal[c, s] = nothing
    grains.momentum[c, s] = momentum
    grains.spring[c, s] = nothing
    return True


@wp.func
@no_type_check
def begin_pair_contacts(now: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Add the contacts of all pairs that touch, in order; False without room, to be called again."""
    for i in range(law.n_particles):
        x = grains.position[i, s]
        radius = grains.radii[i, s]
        for j in range(i + 1, law.n_particles):
            r = nearest(x - grains.position[j, s], law)
            reach = radius + grains.radii[j, s]
            if wp.dot(r, r) < reach * reach and not _begin_contact(i, j, now, s, grains, law):
                return False
    return True


@wp.func
@no_type_check
def begin_wall_contacts(now: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Add the contacts with all walls that are touched, in order; False without room, to be called again."""
    for i in range(law.n_particles):
        x = grains.position[i, s]
        radius = grains.radii[i, s]
        for axis in range(law.dim):
            near = law.walls[axis] != 0 and x[axis] < radius
            far = law.walls[axis] != 0 and law.box[axis] - x[axis] < radius
            if near and not _begin_contact(i, -(2 * axis + 1), now, s, grains, law):
                return False
            if far and not _begin_contact(i, -(2 * axis + 2), now, s, grains, law):
                return False
    return True

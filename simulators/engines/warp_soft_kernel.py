"""The device part of ``warp_soft``: ``soft_kernel`` with one thread for each system, looking at all pairs.

Same scheme, same order of all sums: velocities live half a step behind, contacts kick them, and the dashpot takes the
velocity half a step ago plus the last known acceleration.
"""

# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportReturnType=false, reportArgumentType=false
# (Warp reads these functions as source; to a type checker its scalars and arrays are opaque)

from typing import no_type_check

import warp as wp

from simulators.engines.warp_contacts import (
    ContactLaw,
    ContactRows,
    Grains,
    begin_pair_contacts,
    begin_wall_contacts,
    difference,
    end_contacts,
    geometry,
    nearest,
    reduced_mass,
)
from simulators.engines.warp_rules import HALF, NEVER, ONE, TWO, ZERO

RUNNING, FULL, CROWDED, DONE, DIVERGED = (wp.constant(k) for k in range(5))  # CROWDED: more contacts than room
_DISC_SHARE, _SPHERE_SHARE = wp.constant(wp.float64(1.0 / 3.0)), wp.constant(wp.float64(2.0 / 7.0))
_DISC_MOMENT, _SPHERE_MOMENT = wp.constant(wp.float64(0.5)), wp.constant(wp.float64(0.4))

wp.set_module_options({"enable_backward": False})


@wp.func
@no_type_check
def _turning(i: wp.int32, j: wp.int32, s: wp.int32, spin: wp.array2d[wp.vec3d], arm_i: wp.float64, arm_j: wp.float64):
    """Return arm_i spin_i + arm_j spin_j."""
    turning = spin[i, s] * arm_i
    if j >= 0:
        turning = turning + spin[j, s] * arm_j
    return turning


@wp.func
@no_type_check
def _stretch(spring: wp.vec3d, normal: wp.vec3d, slip: wp.vec3d, time: wp.float64):
    """Turn the tangential spring into the present tangent plane and stretch it by the slip of the last flight."""
    before = wp.dot(spring, spring)
    turned = spring - normal * wp.dot(spring, normal)
    after = wp.dot(turned, turned)
    scale = wp.float64(ZERO)
    if after > ZERO:
        scale = wp.sqrt(before / after)  # turned, not shortened
    return turned * scale + (slip - normal * wp.dot(slip, normal)) * time


@wp.func
@no_type_check
def _coriolis(i: wp.int32, j: wp.int32, s: wp.int32, w: wp.vec3d, grains: Grains, law: ContactLaw):
    """Return the fictitious acceleration of a turning box, between i and its partner or box, at relative velocity w."""
    r = grains.position[i, s] - law.box * HALF
    if j >= 0:
        r = nearest(grains.position[i, s] - grains.position[j, s], law)
    turn = law.rotation
    return wp.vec3d(turn * (turn * r[0] + TWO * w[1]), turn * (turn * r[1] - TWO * w[0]), ZERO)


@wp.func
@no_type_check
def _look(c: wp.int32, pull: wp.vec3d, now: wp.float64, lag: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Write geometry and present slip of a contact, from velocities ``lag`` ago and the accelerations since."""
    i = grains.first[c, s]
    j = grains.second[c, s]
    normal, distance, reach = geometry(i, j, s, grains, law)
    overlap = reach - distance
    grains.overlap[c, s] = overlap
    grains.deepest[c, s] = wp.max(grains.deepest[c, s], overlap)
    grains.normal[c, s] = normal
    w = difference(i, j, s, grains.velocity)
    acceleration = difference(i, j, s, grains.push)
    if j < 0:
        acceleration = acceleration + pull
    if law.rotation != ZERO:
        acceleration = acceleration + _coriolis(i, j, s, w, grains, law)
    if law.friction > ZERO:
        arm_i = grains.radii[i, s] - wp.where(j >= 0, HALF, ONE) * overlap
        arm_j = distance - arm_i
        w = w - wp.cross(_turning(i, j, s, grains.spin, arm_i, arm_j), normal)
        time = wp.min(TWO * lag, now - grains.began[c, s])
        grains.spring[c, s] = _stretch(grains.spring[c, s], normal, w, time)
        acceleration = acceleration - wp.cross(_turning(i, j, s, grains.twist, arm_i, arm_j), normal)
    grains.slip[c, s] = w + acceleration * lag


@wp.func
@no_type_check
def _rub(
    c: wp.int32,
    normal_force: wp.float64,
    secant: wp.float64,
    mu: wp.float64,
    s: wp.int32,
    grains: Grains,
    law: ContactLaw,
):
    """Return the tangential force, and slide the spring along where Coulomb's cap is reached."""
    share = wp.where(law.dim == 2, _DISC_SHARE, _SPHERE_SHARE)
    normal = grains.normal[c, s]
    slip = grains.slip[c, s]
    slip = slip - normal * wp.dot(slip, normal)
    stiffness = share * secant
    damping = TWO * law.damping_ratio * share * wp.sqrt(mu * secant)
    force = grains.spring[c, s] * -stiffness - slip * damping
    size = wp.length(force)
    cap = law.friction * wp.max(normal_force, ZERO)
    if size > cap:
        force = force * (cap / size)
        if stiffness > ZERO:
            grains.spring[c, s] = (force + slip * damping) / -stiffness
    return force


@wp.func
@no_type_check
def _inertia(k: wp.int32, s: wp.int32, grains: Grains, law: ContactLaw):
    """Return the moment of inertia of a solid disc or sphere."""
    return (
        wp.where(law.dim == 2, _DISC_MOMENT, _SPHERE_MOMENT)
        * grains.masses[k, s]
        * grains.radii[k, s]
        * grains.radii[k, s]
    )


@wp.func
@no_type_check
def _push(c: wp.int32, kick: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Turn a contact into accelerations, and note the momentum it gives in a kick of this length."""
    i = grains.first[c, s]
    j = grains.second[c, s]
    if j >= 0 and not law.interacting:
        return
    normal = grains.normal[c, s]
    overlap = grains.overlap[c, s]
    mu = reduced_mass(i, j, s, grains.masses)
    secant = law.stiffness
    if law.hertz:
        secant = law.stiffness * wp.sqrt(overlap)
    rate = wp.dot(grains.slip[c, s], normal)
    size = secant * overlap - TWO * law.damping_ratio * wp.sqrt(mu * secant) * rate
    if not law.tension:
        size = wp.max(size, ZERO)
    force = normal * size
    if law.friction > ZERO:
        force = force + _rub(c, size, secant, mu, s, grains, law)
        moment = wp.cross(force, normal)
        arm_i = grains.radii[i, s] - wp.where(j >= 0, HALF, ONE) * overlap
        grains.twist[i, s] = grains.twist[i, s] + moment * (arm_i / _inertia(i, s, grains, law))
        if j >= 0:
            arm_j = grains.radii[j, s] - HALF * overlap
            grains.twist[j, s] = grains.twist[j, s] + moment * (arm_j / _inertia(j, s, grains, law))
    grains.push[i, s] = grains.push[i, s] + force * (ONE / grains.masses[i, s])
    if j >= 0:
        grains.push[j, s] = grains.push[j, s] - force * (ONE / grains.masses[j, s])
    grains.momentum[c, s] = grains.momentum[c, s] + force * kick


@wp.func
@no_type_check
def _pull(now: wp.float64, law: ContactLaw):
    """Return the acceleration that all particles share: gravity in the frame of the box."""
    pull = law.gravity
    if law.amplitude != ZERO:
        w = law.angular_frequency
        upwards = law.amplitude * w * w * wp.sin(w * now)
        pull[law.dim - 1] = pull[law.dim - 1] + upwards
    if law.rotation != ZERO:
        cos = wp.cos(law.rotation * now)
        sin = wp.sin(law.rotation * now)
        pull = wp.vec3d(cos * pull[0] + sin * pull[1], cos * pull[1] - sin * pull[0], pull[2])
    return pull


@wp.func
@no_type_check
def _mean_velocity(k: wp.int32, pull: wp.vec3d, lag: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw):
    """Return the velocity now, ``lag`` after the stored one.

    Coriolis' force takes the mean of the velocities before and after, which is the velocity now: solved for it.
    """
    mean = grains.velocity[k, s] + (pull + grains.push[k, s]) * lag
    turn = law.rotation
    if turn != ZERO:
        theta = TWO * turn * lag
        r = grains.position[k, s] - law.box * HALF
        x = mean[0] + lag * turn * turn * r[0]
        y = mean[1] + lag * turn * turn * r[1]
        scale = ONE + theta * theta
        mean = wp.vec3d((x + theta * y) / scale, (y - theta * x) / scale, mean[2])
    return mean


@wp.func
@no_type_check
def _turned_back(spin: wp.vec3d, angle: wp.float64, law: ContactLaw):
    """Return a spin as seen from a box that has turned by an angle."""
    if law.dim == 2 or angle == ZERO:
        return spin
    cos = wp.cos(angle)
    sin = wp.sin(angle)
    return wp.vec3d(cos * spin[0] + sin * spin[1], cos * spin[1] - sin * spin[0], spin[2])


@wp.func
@no_type_check
def _write_frame(
    frame: wp.int32,
    k: wp.int32,
    mean: wp.vec3d,
    lag: wp.float64,
    s: wp.int32,
    grains: Grains,
    law: ContactLaw,
    positions: wp.array4d[wp.float64],
    velocities: wp.array4d[wp.float64],
    spins: wp.array4d[wp.float64],
):
    """Write one particle at one frame; positions along periodic axes within one period."""
    place = grains.position[k, s]
    for axis in range(law.dim):
        x = place[axis]
        period = law.period[axis]
        if period > ZERO:
            x = x - period * wp.floor(x / period)
            x = wp.where(x < period, x, ZERO)
        positions[s, frame, k, axis] = x
        velocities[s, frame, k, axis] = mean[axis]
    if law.friction > ZERO:
        spin = _turned_back(grains.spin[k, s] + grains.twist[k, s] * lag, law.rotation * lag, law)
        if law.dim == 2:
            spins[s, frame, k, 0] = spin[2]
        else:
            for axis in range(3):
                spins[s, frame, k, axis] = spin[axis]


@wp.func
@no_type_check
def _advance(
    k: wp.int32, pull: wp.vec3d, lag: wp.float64, lead: wp.float64, s: wp.int32, grains: Grains, law: ContactLaw
):
    """Kick and move a particle; False when its place or velocity is no longer a usable number."""
    push = grains.push[k, s]
    kick = lag + lead
    velocity = grains.velocity[k, s]
    if law.rotation == ZERO:
        velocity = velocity + push * kick
        velocity = velocity + pull * kick
    else:
        mean = _mean_velocity(k, pull, lag, s, grains, law)
        velocity = mean + (pull + push) * lead + _coriolis(k, -1, s, mean, grains, law) * lead
    place = grains.position[k, s] + velocity * law.step
    grains.velocity[k, s] = velocity
    grains.position[k, s] = place
    if law.friction > ZERO:
        # a spin that stands still in space turns backwards in the box, by half as much what is just added to it
        angle = law.rotation * kick
        before = _turned_back(grains.spin[k, s], angle, law)
        spin = before + _turned_back(grains.twist[k, s] * kick, HALF * angle, law)
        grains.spin[k, s] = spin
    return wp.dot(place, place) + wp.dot(velocity, velocity) < NEVER


@wp.func
@no_type_check
def _step(
    step: wp.int32,
    last: wp.int32,
    s: wp.int32,
    grains: Grains,
    law: ContactLaw,
    positions: wp.array4d[wp.float64],
    velocities: wp.array4d[wp.float64],
    spins: wp.array4d[wp.float64],
):
    """Let the contacts push, write a frame where one is due, and move on; False when a particle is lost."""
    now = wp.float64(step) * law.step
    lag = wp.where(step > 0, HALF, ZERO) * law.step
    lead = wp.where(step < last, HALF, ZERO) * law.step
    pull = _pull(now, law)
    for c in range(grains.n_contacts[s]):
        _look(c, pull, now, lag, s, grains, law)
    for k in range(law.n_particles):
        grains.push[k, s] = wp.vec3d(ZERO, ZERO, ZERO)
        grains.twist[k, s] = wp.vec3d(ZERO, ZERO, ZERO)
    for c in range(grains.n_contacts[s]):
        _push(c, lag + lead, s, grains, law)
    if step % law.steps_per_frame == 0:
        frame = step / law.steps_per_frame
        for k in range(law.n_particles):
            mean = _mean_velocity(k, pull, lag, s, grains, law)
            _write_frame(frame, k, mean, lag, s, grains, law, positions, velocities, spins)
    sound = wp.bool(True)
    if step < last:
        for k in range(law.n_particles):
            sound = _advance(k, pull, lag, lead, s, grains, law) and sound
    grains.steps[s] = step + 1
    return sound


@wp.kernel
@no_type_check
def run_systems(
    active: wp.array[wp.int32],
    most_steps: wp.int32,
    grains: Grains,
    law: ContactLaw,
    rows: ContactRows,
    positions: wp.array4d[wp.float64],
    velocities: wp.array4d[wp.float64],
    spins: wp.array4d[wp.float64],
):
    """Run each active system until it is done, a buffer is full, it diverges, or it has made ``most_steps`` steps."""
    a = wp.tid()
    s = active[a]
    last = (law.n_frames - 1) * law.steps_per_frame
    made = wp.int32(0)
    status = wp.int32(RUNNING)
    while status == RUNNING and made < most_steps:
        step = grains.steps[s]
        over = step > last
        now = wp.float64(wp.min(step, last)) * law.step
        if not end_contacts(now, over, s, a, grains, law, rows):
            status = FULL
        elif over:
            status = DONE
        elif not (begin_pair_contacts(now, s, grains, law) and begin_wall_contacts(now, s, grains, law)):
            status = CROWDED
        elif not _step(step, last, s, grains, law, positions, velocities, spins):
            status = DIVERGED
        made = made + 1
    grains.status[s] = status

"""Who flies freely: a particle that nothing can touch for some steps is left alone until they are over.

Between contacts all particles fall alike, so that to a body that falls with them each flies straight: where it is now
follows from where it was last kicked, in one product, however many steps ago that was. ``Grains.fall`` is how far and
how fast that body fell since all particles were last anchored.

A plan for some steps predicts from straight flights whom a touch awaits. Those are awake, as is who touches now; what
an awake particle could reach at the speed ceiling is watched at every step, and moves with it. A touch that was not
foreseen, of a particle that moves but was not awake, ends the plan. No bit depends on the plans.
"""

import math
from typing import NamedTuple, no_type_check

import numpy as np

from simulators.engines.grains import ORIGIN, POSITION, RADIUS, SINCE, STEP, VELOCITY, compiled, inlined
from simulators.engines.neighbor_list import nearest
from simulators.engines.threads import apart

MOVING, AWAKE = 1, 2  # bits of Plan.state
LIST_HOLDS, PLAN_HOLDS, NEXT_TERM = 0, 1, 2  # entries of Plan.term
EPOCH = 1024  # steps after which all particles are anchored, so that the fall stays small: rounding is that of its size

_MARGIN = 1.0 + 1e-6  # for rounding
_MOST_STEPS = 128  # of a plan
_PLAN_COST = 60.0  # square of the steps planned for when all move: our choice; 20 to 200 differ by less than 10 %


class Plan(NamedTuple):
    """Working memory of a thread: forgotten in a pause and made again without effect."""

    first: np.ndarray  # (entry,) watched pairs, the lower index first, then walls
    second: np.ndarray  # (entry,) partner, or wall
    limit: np.ndarray  # (entry,) squared distance of touch, of pairs
    entry: np.ndarray  # (entry,) which of the list it is
    squared: np.ndarray  # (entry,) squared distances, of all pairs of the list
    state: np.ndarray  # (particle,) 0, MOVING, AWAKE or both
    moving: np.ndarray  # (particle,) who has a state
    sizes: np.ndarray  # (3,) watched pairs; watched pairs and walls; particles that move
    term: np.ndarray  # (3,) last step for which the list holds, and the plan; for how many steps to plan next


def empty_plan(n: int, capacity: int) -> Plan:
    """Return working memory for a list of this many entries."""
    memory = (
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(capacity),
        np.empty(capacity, np.int64),
        np.empty(capacity),
        np.zeros(n, np.int64),
        np.empty(n, np.int64),
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
    )
    return Plan(*map(apart, memory))


@compiled
@no_type_check
def forget_plan(plan):
    """Let the first step of a system find no plan."""
    plan.term[LIST_HOLDS], plan.term[PLAN_HOLDS], plan.term[NEXT_TERM] = -1, -1, 0


@compiled
@no_type_check
def move_all(body, fall, tally, law):
    """Bring all particles to where they are now."""
    now, step, since = float(tally[STEP]), law.step, body[SINCE]
    for axis in range(law.dim):
        x, origin, v, fallen = body[POSITION + axis], body[ORIGIN + axis], body[VELOCITY + axis], fall[0, axis]
        for k in range(since.shape[0]):
            x[k] = origin[k] + (now - since[k]) * step * v[k] + fallen


@compiled
@no_type_check
def move_some(body, fall, tally, law, moving, n_moving):
    """Do so with some, by the same arithmetic."""
    now, step, solid = float(tally[STEP]), law.step, law.dim == 3
    fallen_x, fallen_y, fallen_z = fall[0, 0], fall[0, 1], fall[0, 2]
    for m in range(n_moving):
        k = np.uint64(moving[m])
        time = (now - body[SINCE, k]) * step
        body[POSITION, k] = body[ORIGIN, k] + time * body[VELOCITY, k] + fallen_x
        body[POSITION + 1, k] = body[ORIGIN + 1, k] + time * body[VELOCITY + 1, k] + fallen_y
        if solid:
            body[POSITION + 2, k] = body[ORIGIN + 2, k] + time * body[VELOCITY + 2, k] + fallen_z


@compiled
@no_type_check
def anchor(k, body, fall, tally):
    """Let the flight of a particle, which is where it is now, begin anew: its velocity is about to change."""
    if body[SINCE, k] != tally[STEP]:
        body[SINCE, k] = tally[STEP]
        body[ORIGIN, k] = body[POSITION, k] - fall[0, 0]
        body[ORIGIN + 1, k] = body[POSITION + 1, k] - fall[0, 1]
        body[ORIGIN + 2, k] = body[POSITION + 2, k] - fall[0, 2]


@compiled
@no_type_check
def anchor_all(body, fall, tally):
    """Let all flights begin anew, and the fall from rest."""
    for axis in range(3):
        x, origin, v, speed = body[POSITION + axis], body[ORIGIN + axis], body[VELOCITY + axis], fall[1, axis]
        for k in range(x.shape[0]):
            origin[k] = x[k]
            v[k] += speed
    for k in range(body.shape[1]):
        body[SINCE, k] = tally[STEP]
    fall[:] = 0.0


@inlined
@no_type_check
def fall_on(fall, pull, time, step):
    """Let the falling body fall for a step."""
    for axis in range(3):
        fall[1, axis] += time * pull[axis]
        fall[0, axis] += step * fall[1, axis]


@compiled
@no_type_check
def _wake_pairs(body, space, first, second, limit, n_pairs, time, squared, found, state):
    """Wake every pair that comes to touch within some time, if both fly straight; write squared distances."""
    x, y, z = body[POSITION], body[POSITION + 1], body[POSITION + 2]
    vx, vy, vz = body[VELOCITY], body[VELOCITY + 1], body[VELOCITY + 2]
    periodic = space[3] + space[4] + space[5] > 0.0
    count = 0
    for e in range(n_pairs):
        i, j = np.uint64(first[e]), np.uint64(second[e])
        dx, dy, dz = x[i] - x[j], y[i] - y[j], z[i] - z[j]
        wx, wy, wz = vx[i] - vx[j], vy[i] - vy[j], vz[i] - vz[j]
        if periodic:
            dx, dy, dz = nearest(dx, space[3]), nearest(dy, space[4]), nearest(dz, space[5])
        now, closing = dx * dx + dy * dy + dz * dz, -(dx * wx + dy * wy + dz * wz)
        speed2, touch = wx * wx + wy * wy + wz * wz, _MARGIN * limit[e]
        then = now - time * (2.0 * closing - speed2 * time)
        nearest_between = (closing > 0.0) & (closing <= speed2 * time)
        passes = nearest_between & (now * speed2 - closing * closing < touch * speed2)
        squared[e] = now
        found[np.uint64(count)] = e
        count += passes | (now < touch) | (then < touch)
    for f in range(count):
        e = found[f]
        state[first[e]] = AWAKE
        state[second[e]] = AWAKE


@compiled
@no_type_check
def _wall_gap(body, space, i, wall):
    """Return how far a particle is from touching a wall, and its speed towards it but for the fall."""
    axis = np.uint64(wall >> 1)
    x, v = body[axis, i], body[VELOCITY + axis, i]
    return (space[axis] - x if wall & 1 else x) - body[RADIUS, i], (v if wall & 1 else -v)


@compiled
@no_type_check
def _wake_at_walls(body, fall, space, first, second, n_pairs, n_entries, time, drop, state):
    """Wake who may come to touch a wall within some time; ``drop`` is the most that the pull adds to a path."""
    for e in range(n_pairs, n_entries):
        i, wall = np.uint64(first[e]), -second[e] - 1
        gap, speed = _wall_gap(body, space, i, wall)
        speed += fall[1, np.uint64(wall >> 1)] * (1.0 if wall & 1 else -1.0)
        if gap < _MARGIN * (max(speed, 0.0) * time + drop) + (_MARGIN - 1.0) * body[RADIUS, i]:
            state[i] = AWAKE


@compiled
@no_type_check
def _watch(near, plan, reach, widest):
    """List what awake particles may come to touch within a path that two of them can cover together."""
    first, second, limit, squared = near.first, near.second, near.limit, plan.squared
    state, entry, n_pairs = plan.state, plan.entry, near.sizes[0]
    room = _MARGIN * reach * (2.0 * widest + reach)  # (touch + reach)^2 - touch^2, at most
    count = 0
    for e in range(n_pairs):
        awake = (state[np.uint64(first[e])] | state[np.uint64(second[e])]) >= AWAKE
        entry[np.uint64(count)] = e
        count += awake & (squared[e] < _MARGIN * limit[e] + room)
    for w in range(count):
        e = entry[w]
        plan.first[w], plan.second[w], plan.limit[w] = first[e], second[e], limit[e]
        state[first[e]] |= MOVING
        state[second[e]] |= MOVING
    plan.sizes[0] = count
    for e in range(n_pairs, near.sizes[1]):
        plan.first[count], plan.second[count], entry[count] = first[e], second[e], e
        count += state[np.uint64(first[e])] >= AWAKE
    plan.sizes[1] = count


@compiled
@no_type_check
def make_plan(body, fall, space, near, plan, law, gravity, steps):
    """Tell who moves and what is watched in this step and so many more; return for how many to plan next time."""
    time, state, n = steps * law.step, plan.state, body.shape[1]
    pull = math.sqrt(gravity[0] ** 2 + gravity[1] ** 2 + gravity[2] ** 2)
    pull += law.amplitude * law.angular_frequency**2
    speed = math.sqrt(near.survey[0]) + pull * law.step * near.survey[1]  # of anybody, until the list is over
    for k in range(n):
        state[k] = AWAKE if law.rotation != 0.0 else 0  # in a turning box nobody flies straight
    _wake_pairs(body, space, near.first, near.second, near.limit, near.sizes[0], time, plan.squared, plan.entry, state)
    if law.rotation == 0.0:
        drop = pull * time * (time + law.step)
        _wake_at_walls(body, fall, space, near.first, near.second, near.sizes[0], near.sizes[1], time, drop, state)
    _watch(near, plan, 2.0 * speed * time, law.widest)
    count = 0
    for k in range(n):
        plan.moving[count] = k
        count += state[k] != 0
    plan.sizes[2] = count
    return int(min(math.sqrt(_PLAN_COST * n / (count + 1.0)), _MOST_STEPS)) + 1

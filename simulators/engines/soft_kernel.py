"""The compiled part of the soft-contact engine: one system runs from time step to time step.

Leapfrog velocity Verlet: velocities live half a step behind, and contacts kick them.

Few pairs touch at a time. So a step moves those only that a touch may await, asks which of them touch, without a
branch, and works on these: the rest costs no more with friction, damping or the log than without.

``no_type_check`` keeps the run-time type checker of the tests away from functions that numba compiles.
"""

import math
from typing import no_type_check

from simulators.engines.contact_law import begin_contacts, end_run, measure_contacts, push_contacts
from simulators.engines.free_flight import (
    EPOCH,
    LIST_HOLDS,
    NEXT_TERM,
    PLAN_HOLDS,
    anchor,
    anchor_all,
    fall_on,
    forget_plan,
    make_plan,
    move_all,
    move_some,
)
from simulators.engines.grains import (
    CONTACTS,
    CROWDED,
    DONE,
    FULL,
    HASTY,
    OVER,
    POSITION,
    PUSH,
    RUNNING,
    SPIN,
    STEP,
    TOUCHED,
    TWIST,
    UNFORESEEN,
    VELOCITY,
    compiled,
    inlined,
    running,
)
from simulators.engines.moving_box import fictitious, set_pull, turn_velocities
from simulators.engines.neighbor_list import find_hits, forget_list, renew


@compiled
@no_type_check
def _write_frame(frame, body, fall, space, law, pull, lag, lead, positions, velocities, spins):
    """Write one frame; positions along periodic axes within one period.

    Called before the common pull is added, and after the kicks by contacts unless the box turns.
    """
    n = body.shape[1]
    turn = law.rotation
    theta = 2.0 * turn * lag
    since = lag if turn != 0.0 else -lead
    for axis in range(law.dim):
        period, slow = space[3 + axis], fall[1, axis] + lag * pull[axis]
        for k in range(n):
            x = body[POSITION + axis, k]
            if period > 0.0:
                x -= period * math.floor(x / period)
                x = x if x < period else 0.0
            positions[frame, k, axis] = x
            velocities[frame, k, axis] = body[VELOCITY + axis, k] + slow + since * body[PUSH + axis, k]
    if turn != 0.0:
        for k in range(n):
            bx, by = fictitious(k, -1, body, space, 0.0, 0.0, turn)
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


@inlined
@no_type_check
def _look_ahead(body, fall, space, walls, gravity, who, tally, law, near, plan):
    """Make a new plan where all particles are now, and a new list if the old one is over; return the status."""
    at, term = tally[STEP], plan.term
    if at % EPOCH == 0:
        anchor_all(body, fall, tally)
    if at > term[LIST_HOLDS] or tally[HASTY] > 0:
        status = renew(body, fall, space, walls, gravity, who, tally, law, near)
        if status != RUNNING:
            return status
        term[LIST_HOLDS] = at + int(near.survey[1])
    term[PLAN_HOLDS] = min(at + term[NEXT_TERM], term[LIST_HOLDS], at - at % EPOCH + EPOCH - 1)
    term[NEXT_TERM] = make_plan(body, fall, space, near, plan, law, gravity, term[PLAN_HOLDS] - at)
    tally[UNFORESEEN] = 0
    return RUNNING


@inlined
@no_type_check
def _advance(body, fall, space, law, gravity, pull, lag, lead, ceiling, tally, plan, before):
    """Go to the next step, or, where nothing moves in the plan, to that ``before`` which there is something to do."""
    if law.rotation != 0.0:
        for k in range(body.shape[1]):
            anchor(k, body, fall, tally)
        turn_velocities(body, space, law, pull, lag, lead, ceiling, tally)
    else:
        fall_on(fall, pull, lag + lead, law.step)
    tally[STEP] += 1
    if plan.sizes[2] == 0 and tally[TOUCHED] == 0:
        _fly(fall, gravity, pull, law, tally, min(plan.term[PLAN_HOLDS] + 1, before))


@compiled
@no_type_check
def _fly(fall, gravity, pull, law, tally, before):
    """Take steps in which nothing touches."""
    driven, step = law.amplitude != 0.0, law.step
    for axis in range(3):
        fallen, speed, common = fall[0, axis], fall[1, axis], pull[axis]
        for at in range(tally[STEP], before):
            if driven:
                set_pull(law, gravity, at * step, pull)
                common = pull[axis]
            speed += step * common
            fallen += step * speed
        fall[0, axis], fall[1, axis] = fallen, speed
    tally[STEP] = max(tally[STEP], before)


@inlined
@no_type_check
def _steps(
    body,
    fall,
    contact,
    who,
    touched,
    tally,
    near,
    plan,
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
    slot, hits, survey, sizes, term = near.slot, near.hits, near.survey, plan.sizes, plan.term
    flat, room = law.dim == 2 and space[3] == 0.0 and space[4] == 0.0, contact.shape[0]
    frame = -(-tally[STEP] // law.steps_per_frame)
    while True:
        now = tally[STEP] * step
        planned = tally[STEP] <= term[PLAN_HOLDS] and tally[HASTY] == 0 and tally[UNFORESEEN] == 0
        if planned:
            move_some(body, fall, tally, law, plan.moving, sizes[2])
        else:
            move_all(body, fall, tally, law)
        if not measure_contacts(body, fall, contact, who, tally, rows, row_who, space, slot, now, step):
            return FULL
        status = RUNNING if planned else _look_ahead(body, fall, space, walls, gravity, who, tally, law, near, plan)
        if status != RUNNING:
            return status
        n_hits = find_hits(flat, body, space, plan.first, plan.second, plan.limit, plan.entry, sizes, hits)
        if n_hits > room:
            return CROWDED
        if n_hits > tally[CONTACTS]:
            begin_contacts(hits, n_hits, near, plan.state, body, fall, contact, who, tally, space, law, now)
        lag = 0.5 * step if tally[STEP] > 0 else 0.0
        lead = 0.5 * step if tally[STEP] < last else 0.0
        framed = tally[STEP] == frame * law.steps_per_frame
        set_pull(law, gravity, now, pull)
        if n_hits > 0 or tally[TOUCHED] > 0:
            push_contacts(body, fall, contact, who, touched, tally, space, pull, law, now, lag, lead, framed, survey[0])
        if framed:
            move_all(body, fall, tally, law)
            _write_frame(frame, body, fall, space, law, pull, lag, lead, positions, velocities, spins)
            frame += 1
        if tally[STEP] == last:
            tally[OVER] = 1
            return RUNNING
        next_frame = frame * law.steps_per_frame
        _advance(body, fall, space, law, gravity, pull, lag, lead, survey[0], tally, plan, next_frame)


@running
@no_type_check
def run_systems(
    active, status, grains, near, plan, rows, row_who, gravity, space, walls, law, positions, velocities, spins
):
    """Run the active systems until each is done, a buffer is full, or it diverges; write their status.

    ``gravity``, ``space`` (box lengths, then periods, 0 for axes that have none) and ``walls`` have three axes. Each
    system has its own log rows, and ``near`` and ``plan`` are begun anew: the order of the systems changes no bit.
    """
    for a in range(len(active)):
        s = active[a]
        tally, contact, who = grains.tally[s], grains.contact[s], grains.who[s]
        forget_list(near)
        forget_plan(plan)
        status[s] = RUNNING
        if tally[OVER] == 0:
            status[s] = _steps(
                grains.body[s],
                grains.fall[s],
                contact,
                who,
                grains.touched[s],
                tally,
                near,
                plan,
                gravity,
                space,
                walls,
                law,
                rows[a],
                row_who[a],
                positions[s],
                velocities[s],
                spins[s],
                near.pull,
            )
        if tally[OVER] > 0:
            last = (law.n_frames - 1) * law.steps_per_frame * law.step
            status[s] = DONE if end_run(contact, who, tally, rows[a], row_who[a], last) else FULL

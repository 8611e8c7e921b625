"""The compiled part of the soft-contact engine: one system runs from time step to time step.

Leapfrog velocity Verlet: velocities live half a step behind, and contacts kick them.

Few pairs touch at a time. So a step only drifts all particles, asks a list of near pairs and walls which of them
touch, without a branch, and works on those: the rest costs no more with friction, damping or the log than without.

``no_type_check`` keeps the run-time type checker of the tests away from functions that numba compiles.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from simulators.engines.contact_law import begin_contacts, end_run, measure_contacts, push_contacts
from simulators.engines.grains import (
    CONTACTS,
    CRAMPED,
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
    VELOCITY,
    allocating,
    compiled,
    inlined,
)
from simulators.engines.moving_box import fictitious, set_pull, turn_velocities
from simulators.engines.neighbor_list import empty_list, find_hits, renew


@compiled
@no_type_check
def _drift(x, v, kick, step):
    """Kick and move along one axis."""
    for k in range(x.shape[0]):
        v[k] += kick
        x[k] += step * v[k]


@inlined
@no_type_check
def _advance(body, x, y, z, vx, vy, vz, space, pull, law, lag, lead, ceiling, tally):
    """Bring velocities half a step ahead and positions a whole one."""
    kick = lag + lead
    if law.rotation != 0.0:
        turn_velocities(body, space, law, pull, lag, lead, ceiling, tally)
        kick = 0.0
    _drift(x, vx, kick * pull[0], law.step)
    _drift(y, vy, kick * pull[1], law.step)
    if law.dim == 3:
        _drift(z, vz, kick * pull[2], law.step)


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
def _glide(body, x, y, vx, vy, space, first, second, limit, sizes, hits, tally, pull, step, most):
    """Take up to so many steps in two dimensions as long as nothing touches; return how many.

    In a thin gas of few discs most steps are such, and all else that a step does would take longer than they.
    """
    if tally[CONTACTS] > 0 or tally[TOUCHED] > 0 or most <= 0:
        return 0
    kick_x, kick_y = step * pull[0], step * pull[1]
    return _glide_on(body, x, y, vx, vy, space, first, second, limit, sizes, hits, kick_x, kick_y, step, most)


@compiled
@no_type_check
def _glide_on(body, x, y, vx, vy, space, first, second, limit, sizes, hits, kick_x, kick_y, step, most):
    """Do so."""
    for taken in range(most):
        if find_hits(True, body, x, y, y, space, first, second, limit, sizes, hits) > 0:
            return taken
        _drift(x, vx, kick_x, step)
        _drift(y, vy, kick_y, step)
    return most


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
    gliding = flat and law.amplitude == 0.0 and law.rotation == 0.0
    expiry, frame = -1, -(-tally[STEP] // law.steps_per_frame)
    while True:
        now = tally[STEP] * step
        if not measure_contacts(body, contact, who, tally, rows, row_who, space, slot, now, step):
            return FULL
        if tally[STEP] > expiry or tally[HASTY] > 0:
            status = renew(body, space, walls, gravity, who, tally, law, near)
            if status != RUNNING:
                return status
            expiry = tally[STEP] + int(survey[1])
        n_hits = find_hits(flat, body, x, y, z, space, first, second, limit, sizes, hits)
        if n_hits > room:
            return CROWDED
        if n_hits > tally[CONTACTS]:
            begin_contacts(hits, n_hits, first, second, slot, body, contact, who, tally, space, law, now)
        lag = 0.5 * step if tally[STEP] > 0 else 0.0
        lead = 0.5 * step if tally[STEP] < last else 0.0
        framed = tally[STEP] == frame * law.steps_per_frame
        set_pull(law, gravity, now, pull)
        if n_hits > 0 or tally[TOUCHED] > 0:
            push_contacts(body, contact, who, touched, tally, space, pull, law, now, lag, lead, framed, survey[0])
        if framed:
            _write_frame(frame, body, space, law, pull, lag, lead, positions, velocities, spins)
            frame += 1
        if tally[STEP] == last:
            tally[OVER] = 1
            return RUNNING
        _advance(body, x, y, z, vx, vy, vz, space, pull, law, lag, lead, survey[0], tally)
        tally[STEP] += 1
        most = min(expiry + 1, frame * law.steps_per_frame) - tally[STEP] if gliding and tally[HASTY] == 0 else 0
        tally[STEP] += _glide(body, x, y, vx, vy, space, first, second, limit, sizes, hits, tally, pull, step, most)


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
        near = empty_list(n, contact.shape[0], capacity)
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
    return DONE if end_run(contact, who, tally, rows, row_who, last * law.step) else FULL


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

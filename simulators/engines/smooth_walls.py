"""Walls reflect inside the drift of a step.

The drift's velocity is that of mid-step, the impact at a share s of the step, so the velocity is first brought to the
time of the impact, mirrored, and brought back: with the acceleration a at the impact, ``v -> v + a (s - 1/2) h``,
mirror, ``v -> v + a (1/2 - s) h``. A plain mirror would leave an error of first order in the step h at each impact.
Both ways are the same number read forward or backward, so steps stay reversible.
"""

import math
from typing import no_type_check

import numpy as np

from simulators.engines.smooth_pairs import acceleration_on, compiled
from simulators.engines.smooth_records import STEP

MOST_BOUNCES = 4  # a particle and step, on average; a corner in space takes three, and a turn there may add one


@compiled
@no_type_check
def _next_impact(setup, bodies, left):
    """Return who meets a wall first within the time left, on which axis, and when."""
    best, who, where = left, -1, 0
    for axis in range(setup.walls.shape[0]):
        far = setup.walls[axis]
        if far == np.inf:
            continue
        for k in range(bodies.radii.shape[0]):
            v = bodies.velocity[axis, k]
            gap = bodies.position[axis, k] - bodies.radii[k]
            if v > 0.0:
                gap = far - bodies.radii[k] - bodies.position[axis, k]
            if v != 0.0 and gap < best * abs(v):
                best, who, where = max(gap, 0.0) / abs(v), k, axis
    return who, where, best


@compiled
@no_type_check
def _mirror(v, axis, acceleration, turning, ahead):
    """Mirror a velocity of mid-step at the impact, from which mid-step is ``ahead``."""
    cosine, sine = math.cos(turning * ahead), math.sin(turning * ahead)
    before, vx, vy = v[axis], v[0], v[1]
    v[axis] -= acceleration * ahead
    v[0], v[1] = cosine * v[0] - sine * v[1], cosine * v[1] + sine * v[0]
    v[axis] *= -1.0
    v[0], v[1] = cosine * v[0] + sine * v[1], cosine * v[1] - sine * v[0]
    v[axis] += acceleration * ahead
    if v[axis] * before >= 0.0:  # grazing: too slow for this step
        v[0], v[1] = vx, vy
        v[axis] = -before


@compiled
@no_type_check
def _reflect(law, setup, bodies, rows, k, axis, now):
    """Mirror the velocity of a particle that is at a wall at time ``now`` of the step, and write the row."""
    before = bodies.velocity[axis, k]
    low = before < 0.0
    turning = bodies.turning[0, k] if bodies.turning.shape[1] else 0.0
    acceleration = acceleration_on(law, setup, bodies, k, axis)
    _mirror(bodies.velocity[:, k], axis, acceleration, turning, 0.5 * setup.step - now)
    bodies.position[axis, k] = bodies.radii[k] if low else setup.walls[axis] - bodies.radii[k]
    row = rows.filled[0]
    rows.time[row] = bodies.tally[STEP] * setup.step + now
    rows.i[row] = k
    rows.j[row] = -(2 * axis + 1) if low else -(2 * axis + 2)
    rows.impulse[row] = bodies.masses[k] * abs(bodies.velocity[axis, k] - before)
    for a in range(setup.walls.shape[0]):
        rows.normal[row, a] = 0.0
    rows.normal[row, axis] = 1.0 if low else -1.0
    rows.duration[row] = 0.0
    rows.overlap[row] = 0.0
    rows.filled[0] = row + 1


@compiled
@no_type_check
def drift_from_wall_to_wall(law, setup, bodies, rows):
    """Repeat the drift of a step in which somebody meets a wall, from impact to impact; False after too many."""
    dim, n = bodies.position.shape
    for a in range(dim):
        for k in range(n):
            bodies.position[a, k] = bodies.previous[a, k]
    now, n_bounces = 0.0, 0
    while True:
        who, axis, wait = _next_impact(setup, bodies, setup.step - now)
        for a in range(dim):
            for k in range(n):
                bodies.position[a, k] += wait * bodies.velocity[a, k]
        now += wait
        if who < 0:
            return True
        if n_bounces == MOST_BOUNCES * n:
            return False
        _reflect(law, setup, bodies, rows, who, axis, now)
        n_bounces += 1

"""What a box that shakes or turns adds to the motion seen from within it.

A turning box: Coriolis' force takes the mean of the velocities before and after a step, as Boris 1970 does for charges
in a magnetic field, which is the velocity now.
"""

import math
from typing import no_type_check

from simulators.engines.grains import HASTY, PUSH, SPIN, TWIST, VELOCITY, compiled, inlined
from simulators.engines.neighbor_list import nearest


@inlined
@no_type_check
def set_pull(law, gravity, now, pull):
    """Write the acceleration that all particles share: gravity in the frame of the box."""
    pull[0], pull[1], pull[2] = gravity[0], gravity[1], gravity[2]
    if law.amplitude != 0.0:
        w = law.angular_frequency
        pull[law.dim - 1] += law.amplitude * w * w * math.sin(w * now)
    if law.rotation != 0.0:
        cos, sin = math.cos(law.rotation * now), math.sin(law.rotation * now)
        pull[0], pull[1] = cos * gravity[0] + sin * gravity[1], cos * gravity[1] - sin * gravity[0]


@compiled
@no_type_check
def fictitious(i, j, body, space, vx, vy, turn):
    """Return what a turning box adds to the acceleration of i, relative to its partner or to the box."""
    rx, ry = body[0, i] - 0.5 * space[0], body[1, i] - 0.5 * space[1]
    if j >= 0:
        rx, ry = nearest(body[0, i] - body[0, j], space[3]), nearest(body[1, i] - body[1, j], space[4])
    return turn * (turn * rx + 2.0 * vy), turn * (turn * ry - 2.0 * vx)


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
def turn_velocities(body, space, law, pull, lag, lead, ceiling, tally):
    """Bring velocities from ``lag`` ago to ``lead`` ahead in a turning box.

    Coriolis' force is solved for the velocity now. Notes whether a particle is faster than the root of ``ceiling``.
    """
    turn = law.rotation
    theta = 2.0 * turn * lag
    angle = turn * (lag + lead)
    cos, sin, half_cos, half_sin = math.cos(angle), math.sin(angle), math.cos(0.5 * angle), math.sin(0.5 * angle)
    for k in range(body.shape[1]):
        ax, ay = fictitious(k, -1, body, space, 0.0, 0.0, turn)
        ax, ay, az = ax + pull[0] + body[PUSH, k], ay + pull[1] + body[PUSH + 1, k], pull[2] + body[PUSH + 2, k]
        x, y = body[VELOCITY, k] + lag * ax, body[VELOCITY + 1, k] + lag * ay
        x, y = (x + theta * y) / (1.0 + theta * theta), (y - theta * x) / (1.0 + theta * theta)
        body[VELOCITY, k] = x + lead * (ax + 2.0 * turn * y)
        body[VELOCITY + 1, k] = y + lead * (ay - 2.0 * turn * x)
        body[VELOCITY + 2, k] += (lag + lead) * az
        _turn_back(k, body, lag + lead, cos, sin, half_cos, half_sin)
        speed2 = body[VELOCITY, k] ** 2 + body[VELOCITY + 1, k] ** 2 + body[VELOCITY + 2, k] ** 2
        tally[HASTY] |= speed2 > ceiling

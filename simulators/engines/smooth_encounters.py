"""Encounters, pairs closer than the sum of their radii, are followed in a table until they part.

Then a row of the log is written.
"""

import math
from typing import no_type_check

from simulators.engines.smooth_lanes import WIDTH
from simulators.engines.smooth_pairs import compiled, coupling_of, nearest_image, pair_force
from simulators.engines.smooth_records import OPEN, STEP


@compiled
@no_type_check
def _separate(position, lengths, i, j, separation):
    """Write the separation from j to i and return its square."""
    squared = 0.0
    for axis in range(lengths.shape[0]):
        r = nearest_image(position[axis, i] - position[axis, j], lengths[axis])
        separation[axis] = r
        squared += r * r
    return squared


@compiled
@no_type_check
def _share_before(r0, r1, reach):
    """Return at which share of a step a pair crosses the distance ``reach``, in straight flight from r0 to r1."""
    a, b, c = 0.0, 0.0, -reach * reach
    for axis in range(r0.shape[0]):
        w = r1[axis] - r0[axis]
        a += w * w
        b += r0[axis] * w
        c += r0[axis] * r0[axis]
    root = math.sqrt(max(b * b - a * c, 0.0))
    if c >= 0.0:  # from outside; the forms without cancellation
        return min(c / (root - b), 1.0) if root > b else 0.0
    return min((root - b) / a, 1.0) if b < 0.0 else min(-c / (b + root), 1.0)


@compiled
@no_type_check
def _gain(law, setup, bodies, k, separation, squared, weight):
    """Add what the first of an open pair gains from the second in a share of the step."""
    i, j = bodies.pair[k, 0], bodies.pair[k, 1]
    f = weight * setup.step * coupling_of(bodies, i, j) * pair_force(law, squared)
    for axis in range(separation.shape[0]):
        bodies.gained[k, axis] += f * separation[axis]


@compiled
@no_type_check
def _open(law, setup, bodies, i, j, squared, scratch):
    """Enter a pair within reach, unless it was so a step before; False if the table is full."""
    reach, now = bodies.radii[i] + bodies.radii[j], bodies.tally[STEP] * setup.step
    fresh = bodies.tally[STEP] == 0
    if not fresh and _separate(bodies.previous, setup.lengths, i, j, scratch[0]) < reach * reach:
        return True
    k = bodies.tally[OPEN]
    if k == bodies.begin.shape[0]:
        return False
    left = 0.0 if fresh else 1.0 - _share_before(scratch[0], scratch[1], reach)
    bodies.pair[k, 0], bodies.pair[k, 1] = i, j
    bodies.begin[k] = now - left * setup.step
    bodies.deepest[k] = reach - math.sqrt(squared)
    for axis in range(bodies.gained.shape[1]):
        bodies.gained[k, axis] = 0.0
    # by trapezoids: the part of this step, and half of the step to come
    _gain(law, setup, bodies, k, scratch[1], squared, left + 0.5)
    bodies.tally[OPEN] = k + 1
    return True


@compiled
@no_type_check
def open_encounters(law, setup, pairs, bodies, scratch):
    """Enter every pair that has come within reach; False if the table is full."""
    n, listed = bodies.radii.shape[0], pairs.partners.shape[0] > 0
    position, radii, lengths, apart = bodies.position, bodies.radii, setup.lengths, scratch[1]
    for i in range(n):
        if bodies.crowd[i] <= 0.0:
            continue
        first, last = (pairs.starts[i // WIDTH], pairs.starts[i // WIDTH + 1]) if listed else (i + 1, n)
        for k in range(first, last):
            j = pairs.partners[WIDTH * k + i % WIDTH] if listed else k
            if j <= i:
                continue
            reach = radii[i] + radii[j]
            squared = _separate(position, lengths, i, j, apart)
            if squared < reach * reach and not _open(law, setup, bodies, i, j, squared, scratch):
                return False
    return True


@compiled
@no_type_check
def _close(bodies, rows, k, end):
    """Write the row of an open pair and take the last one's place in the table for it."""
    row, tally = rows.filled[0], bodies.tally
    size = 0.0
    for axis in range(bodies.gained.shape[1]):
        size += bodies.gained[k, axis] ** 2
    rows.impulse[row] = math.sqrt(size)
    for axis in range(bodies.gained.shape[1]):
        rows.normal[row, axis] = bodies.gained[k, axis] / rows.impulse[row] if size > 0.0 else 0.0
    rows.time[row] = bodies.begin[k]
    rows.i[row] = bodies.pair[k, 0]
    rows.j[row] = bodies.pair[k, 1]
    rows.duration[row] = end - bodies.begin[k]
    rows.overlap[row] = bodies.deepest[k]
    rows.filled[0] = row + 1
    last = tally[OPEN] - 1
    bodies.pair[k, 0], bodies.pair[k, 1] = bodies.pair[last, 0], bodies.pair[last, 1]
    bodies.begin[k] = bodies.begin[last]
    bodies.deepest[k] = bodies.deepest[last]
    for axis in range(bodies.gained.shape[1]):
        bodies.gained[k, axis] = bodies.gained[last, axis]
    tally[OPEN] = last


@compiled
@no_type_check
def follow_encounters(law, setup, bodies, rows, scratch):
    """Bring the open pairs up to this step, and close those that have parted.

    Returns:
        Twice the number of those still near, which are taken off the counts: what is left there is new.
    """
    now, near = bodies.tally[STEP] * setup.step, 0.0
    for k in range(bodies.tally[OPEN] - 1, -1, -1):  # downward, for the last takes the place of a closed one
        i, j = bodies.pair[k, 0], bodies.pair[k, 1]
        reach = bodies.radii[i] + bodies.radii[j]
        squared = _separate(bodies.position, setup.lengths, i, j, scratch[1])
        if squared < reach * reach:
            _gain(law, setup, bodies, k, scratch[1], squared, 1.0)
            bodies.deepest[k] = max(bodies.deepest[k], reach - math.sqrt(squared))
            bodies.crowd[i] -= 1.0
            bodies.crowd[j] -= 1.0
            near += 2.0
            continue
        _separate(bodies.previous, setup.lengths, i, j, scratch[0])
        share = _share_before(scratch[0], scratch[1], reach)
        _gain(law, setup, bodies, k, scratch[1], squared, share - 0.5)
        _close(bodies, rows, k, now - (1.0 - share) * setup.step)
    return near


@compiled
@no_type_check
def close_encounters(law, setup, bodies, rows, scratch):
    """Close the pairs that are open at the end of the run."""
    for k in range(bodies.tally[OPEN] - 1, -1, -1):
        squared = _separate(bodies.position, setup.lengths, bodies.pair[k, 0], bodies.pair[k, 1], scratch[1])
        _gain(law, setup, bodies, k, scratch[1], squared, -0.5)
        _close(bodies, rows, k, bodies.tally[STEP] * setup.step)

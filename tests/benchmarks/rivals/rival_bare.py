"""A bare numba kernel for this gas and no other: what contact records and generality cost us.

Leapfrog with a neighbour list, systems outside, steps inside; equal elastic discs, walls as springs. Nothing is
recorded.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from .gas import GRAVITY, RADIUS, STIFFNESS, TIME_STEP, box_side

_SKIN = 0.3  # of the list, a length
_FASTEST = 1.5  # the list is made for speeds up to this multiple of the present ones
compiled = njit(cache=True, error_model="numpy")


@compiled
@no_type_check
def _list_pairs(x, y, first, second):
    """Write all pairs nearer than the skin, by cells of the list's reach; return how many."""
    n, reach = x.shape[0], 2 * RADIUS + _SKIN
    side = max(1, int(max(x.max(), y.max()) / reach) + 1)
    head, following = np.full(side * side, -1), np.empty(n, np.int64)
    count = 0
    for i in range(n):
        cx, cy = int(x[i] / reach), int(y[i] / reach)
        for cell_y in range(max(cy - 1, 0), min(cy + 2, side)):
            for cell_x in range(max(cx - 1, 0), min(cx + 2, side)):
                j = head[cell_y * side + cell_x]
                while j >= 0:
                    dx, dy = x[i] - x[j], y[i] - y[j]
                    first[count], second[count] = i, j
                    count += dx * dx + dy * dy < reach * reach
                    j = following[j]
        following[i] = head[cy * side + cx]
        head[cy * side + cx] = i
    return count


@compiled
@no_type_check
def _find_hits(x, y, first, second, count, hits):
    """Write which pairs touch; return how many."""
    found = 0
    for e in range(count):
        dx, dy = x[first[e]] - x[second[e]], y[first[e]] - y[second[e]]
        hits[found] = e
        found += dx * dx + dy * dy < 4 * RADIUS * RADIUS
    return found


@compiled
@no_type_check
def _push(x, y, vx, vy, first, second, hits, found):
    """Kick the pairs that touch."""
    for h in range(found):
        i, j = first[hits[h]], second[hits[h]]
        dx, dy = x[i] - x[j], y[i] - y[j]
        distance = math.sqrt(dx * dx + dy * dy)
        kick = TIME_STEP * STIFFNESS * (2 * RADIUS - distance) / distance
        vx[i] += kick * dx
        vx[j] -= kick * dx
        vy[i] += kick * dy
        vy[j] -= kick * dy


@compiled
@no_type_check
def _drift(x, v, pull, far):
    """Kick by walls and gravity, then move."""
    for k in range(x.shape[0]):
        sink = max(RADIUS - x[k], 0.0) - max(x[k] - far, 0.0)
        v[k] += TIME_STEP * (pull + STIFFNESS * sink)
        x[k] += TIME_STEP * v[k]


@compiled
@no_type_check
def _run(x, y, vx, vy, far, n_steps, first, second, hits):
    """Step one system."""
    done = 0
    while done < n_steps:
        count = _list_pairs(x, y, first, second)
        fastest = math.sqrt((vx * vx + vy * vy).max()) + 1e-3
        stretch = min(n_steps - done, max(1, int(0.5 * _SKIN / (_FASTEST * fastest * TIME_STEP))))
        for _ in range(stretch):
            found = _find_hits(x, y, first, second, count, hits)
            if found:
                _push(x, y, vx, vy, first, second, hits, found)
            _drift(x, vx, 0.0, far)
            _drift(y, vy, -GRAVITY, far)
        done += stretch


@compiled
@no_type_check
def _run_all(places, velocities, far, n_steps):
    """Step all systems, arrays (system, axis, particle)."""
    room = 8 * places.shape[2] + 16
    first, second, hits = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    for s in range(places.shape[0]):
        x, y, vx, vy = places[s, 0], places[s, 1], velocities[s, 0], velocities[s, 1]
        _run(x, y, vx, vy, far, n_steps, first, second, hits)


class BareGas:
    """Arrays (system, particle, 2); velocities are those of half a step before."""

    def __init__(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        self.name = "bare numba kernel without records"
        self.places, self.speeds = (np.array(a.swapaxes(1, 2), order="C") for a in (positions, velocities))

    def advance(self, steps: int) -> float:
        _run_all(self.places, self.speeds, box_side(self.places.shape[2]) - RADIUS, steps)
        return float(steps * self.places[:, 0].size)

    def positions(self) -> np.ndarray:
        """Return (system, particle, 2)."""
        return self.places.swapaxes(1, 2)

    def velocities(self) -> np.ndarray:
        return self.speeds.swapaxes(1, 2)

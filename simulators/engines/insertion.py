"""The compiled part of random sequential insertion: one system of many particles, on a grid of cells."""

from typing import no_type_check

import numpy as np
from numba import njit

compiled = njit(cache=True, error_model="numpy")


@compiled
@no_type_check
def _is_free(place, radius, cell, places, radii, first, following, box, periodic, cells):
    """Tell whether a particle at a place touches nobody; ``cell`` holds the cell of that place along each axis."""
    dim = len(box)
    for number in range(3**dim):
        flat, rest, outside = 0, number, False
        for axis in range(dim):
            c = cell[axis] + rest % 3 - 1
            rest //= 3
            outside |= not periodic[axis] and (c < 0 or c >= cells[axis])
            flat = flat * cells[axis] + c % cells[axis]
        k = -1 if outside else first[flat]
        while k >= 0:
            squared = 0.0
            for axis in range(dim):
                r = place[axis] - places[k, axis]
                if periodic[axis]:
                    r -= box[axis] * np.round(r / box[axis])
                squared += r * r
            if squared <= (radius + radii[k]) ** 2:
                return False
            k = following[k]
    return True


@compiled
@no_type_check
def insert_one_by_one(radii, box, periodic, cells, n_tries, rng):
    """Place particles in the given order, each uniformly where it touches nobody.

    Args:
        radii: (particle,).
        box: side lengths, (dim,).
        periodic: which axes are, (dim,).
        cells: how many along each axis, none narrower than the largest particle, (dim,).
        n_tries: for each particle.
        rng: the source of all draws.

    Returns:
        Places, (particle, dim), and how many particles found one.
    """
    n, dim = radii.shape[0], box.shape[0]
    places = np.empty((n, dim))
    first = np.full(np.prod(cells), -1)
    following = np.empty(n, np.int64)
    place, cell = np.empty(dim), np.empty(dim, np.int64)
    for p in range(n):
        for _ in range(n_tries):
            for axis in range(dim):
                margin = 0.0 if periodic[axis] else radii[p]
                place[axis] = margin + rng.random() * (box[axis] - 2 * margin)
                cell[axis] = min(int(place[axis] / box[axis] * cells[axis]), cells[axis] - 1)
            if _is_free(place, radii[p], cell, places, radii, first, following, box, periodic, cells):
                break
        else:
            return places, p
        flat = 0
        for axis in range(dim):
            places[p, axis] = place[axis]
            flat = flat * cells[axis] + cell[axis]
        following[p] = first[flat]
        first[flat] = p
    return places, n

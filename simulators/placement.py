"""Drawn initial places: random sequential placement without overlaps."""

import numpy as np
from jaxtyping import Float64

_TRIES_PER_DISC = 300  # one disc among its elders
_RESTARTS = 20  # of a system that jammed. Our choice: thousands of systems of ten unequal discs at packing 0.35 succeed


def place_without_overlap(
    radii: Float64[np.ndarray, "system particle"], box: tuple[float, ...], *, rng: np.random.Generator
) -> Float64[np.ndarray, "system particle dim"]:
    """Place the discs of every system one by one, the largest first, each uniformly where it touches nobody.

    Args:
        radii: radii, (system, particle).
        box: side lengths; centres stay a radius away from each wall.
        rng: the source of all draws.

    Returns:
        Centres, (system, particle, dim).

    Raises:
        ValueError: a system found no room in 20 fresh starts of 300 tries a disc. Random sequential placement
            jams at a packing fraction of 0.547 for equal discs and 0.38 for equal spheres in large boxes.

    References:
        Widom 1966, doi:10.1063/1.1726548 (random sequential addition). We start again where it jams, which favours
        places with room, so near the jamming density the draw is not uniform over all allowed states.
    """
    n_systems, n_particles = radii.shape
    order = np.argsort(-radii, axis=1, kind="stable")
    sorted_radii = np.take_along_axis(radii, order, axis=1)
    sorted_places = np.empty((n_systems, n_particles, len(box)))
    todo = np.arange(n_systems)
    for _ in range(_RESTARTS):
        places, placed = _place_once(sorted_radii[todo], np.array(box), rng)
        sorted_places[todo[placed]] = places[placed]
        todo = todo[~placed]
        if not len(todo):
            break
    else:
        raise ValueError(_no_room(radii, box, todo))
    positions = np.empty_like(sorted_places)
    np.put_along_axis(positions, order[..., None], sorted_places, axis=1)
    return positions


def _place_once(radii: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Try each system once; return the places and which systems are complete."""
    n_systems, n_particles = radii.shape
    places = np.empty((n_systems, n_particles, len(box)))
    alive = np.ones(n_systems, dtype=bool)
    for p in range(n_particles):
        todo = np.flatnonzero(alive)
        for _ in range(_TRIES_PER_DISC):
            if not len(todo):
                break
            radius = radii[todo, p, None]
            candidate = rng.uniform(radius, box - radius)  # (todo, dim)
            squared = ((places[todo, :p] - candidate[:, None]) ** 2).sum(axis=-1)
            free = (squared > (radii[todo, :p] + radius) ** 2).all(axis=1)
            places[todo[free], p] = candidate[free]
            todo = todo[~free]
        alive[todo] = False
    return places, alive


def _no_room(radii: np.ndarray, box: tuple[float, ...], failed: np.ndarray) -> str:
    """Return the text of the refusal."""
    unit_ball = {2: np.pi, 3: 4 * np.pi / 3}[len(box)]
    packing = unit_ball * (radii[failed[0]] ** len(box)).sum() / np.prod(box)
    return (
        f"no overlap-free start found for {len(failed)} of {len(radii)} systems: {radii.shape[1]} particles at packing "
        f"fraction {packing:.3f} (system {failed[0]}); lower n_particles or radius, enlarge box, or pass initial="
    )

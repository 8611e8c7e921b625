"""Drawn initial places: random sequential placement without overlaps, or a shaken lattice where that jams."""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float64

_TRIES_PER_DISC = 300  # one disc among its elders
_RESTARTS = 20  # of a system that jammed. Our choice: thousands of systems of ten unequal discs at packing 0.35 succeed
_FEW = 256  # particles; up to here all systems are placed at once, all pairs compared
_TRIES_OF_MANY = 3_000  # compiled: a try costs a tenth of a microsecond
_RESTARTS_OF_MANY = 2
_JAMMING = {2: 0.547, 3: 0.38}  # packing fraction at which random placement of equal particles ends, large boxes


def place_without_overlap(
    radii: Float64[np.ndarray, "system particle"],
    box: tuple[float, ...],
    *,
    rng: np.random.Generator,
    periodic: Bool[np.ndarray, " dim"] | None = None,
) -> Float64[np.ndarray, "system particle dim"]:
    """Place the discs of every system one by one, the largest first, each uniformly where it touches nobody.

    Where that jams, equal discs take random sites of a lattice (rows or layers shifted against each other: hexagonal in
    two dimensions, face-centred cubic in three, stretched to the box), each shaken as far as no overlap allows. Such a
    start is ordered: let it run before measuring.

    Args:
        radii: radii, (system, particle).
        box: side lengths; centres stay a radius away from each wall.
        rng: the source of all draws.
        periodic: which axes have no walls; None for walls everywhere.

    Returns:
        Centres, (system, particle, dim), in [0, length) along periodic axes.

    Raises:
        ValueError: a system found no room in 20 fresh starts of 300 tries a disc (2 of 3000 beyond 256 discs), nor on a
            lattice. Random sequential placement jams at a packing fraction of 0.547 for equal discs and 0.38 for equal
            spheres in large boxes.

    Cost:
        O(particles^2) up to 256, beyond that O(particles): about a second for 1e5 discs of packing 0.4.

    References:
        Widom 1966, doi:10.1063/1.1726548 (random sequential addition). We start again where it jams, which favours
        places with room, so near the jamming density the draw is not uniform over all allowed states.
    """
    n_systems, n_particles = radii.shape
    sides = np.array(box)
    periodic = np.zeros(len(box), dtype=bool) if periodic is None else periodic
    order = np.argsort(-radii, axis=1, kind="stable")
    sorted_radii = np.take_along_axis(radii, order, axis=1)
    sorted_places = np.empty((n_systems, n_particles, len(box)))
    few = n_particles <= _FEW
    todo = np.arange(n_systems)
    for _ in range(_RESTARTS if few else _RESTARTS_OF_MANY):
        place = _place_few if few else _place_many
        places, placed = place(sorted_radii[todo], sides, periodic, rng)
        sorted_places[todo[placed]] = places[placed]
        todo = todo[~placed]
        if not len(todo):
            break
    for system in todo:
        sites, slack = _lattice(n_particles, float(sorted_radii[system, 0]), sides, periodic)
        if slack <= 0 or sorted_radii[system, 0] != sorted_radii[system, -1]:
            raise ValueError(_no_room(radii, box, todo))
        sorted_places[system] = _shaken(sites, slack, sorted_radii[system], sides, periodic, rng)
    positions = np.empty_like(sorted_places)
    np.put_along_axis(positions, order[..., None], sorted_places, axis=1)
    return positions


def _place_few(
    radii: np.ndarray, box: np.ndarray, periodic: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
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
            margin = np.where(periodic, 0.0, radius)
            candidate = rng.uniform(margin, box - margin)  # (todo, dim)
            separation = places[todo, :p] - candidate[:, None]
            separation -= np.where(periodic, box, 0.0) * np.round(separation / box)
            free = ((separation**2).sum(axis=-1) > (radii[todo, :p] + radius) ** 2).all(axis=1)
            places[todo[free], p] = candidate[free]
            todo = todo[~free]
        alive[todo] = False
    return places, alive


def _place_many(
    radii: np.ndarray, box: np.ndarray, periodic: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Try each system once, in compiled code; equal particles too dense for it are not tried."""
    from simulators.engines.insertion import insert_one_by_one  # here: numba takes a third of a second to import

    n_systems, n_particles = radii.shape
    places = np.empty((n_systems, n_particles, len(box)))
    placed = np.zeros(n_systems, dtype=bool)
    for system in range(n_systems):
        equal = radii[system, 0] == radii[system, -1]
        if equal and _packing(radii[system], box) > _JAMMING[len(box)]:
            continue
        width = max(2 * radii[system, 0], (box.prod() / n_particles) ** (1 / len(box)))
        cells = np.maximum(box // width, 1).astype(np.int64)
        places[system], count = insert_one_by_one(radii[system], box, periodic, cells, _TRIES_OF_MANY, rng)
        placed[system] = count == n_particles
    return places, placed


def _lattice(n: int, radius: float, box: np.ndarray, periodic: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the sites of the roomiest lattice of at least n, and the room between neighbours' surfaces there.

    Along the last axis lie layers; every other layer is shifted by half a spacing along all other axes.
    """
    most = [max(1, int(side // (2 * radius))) for side in box[:-1]]
    best, best_slack = np.ones(len(box), dtype=int), -np.inf
    for plane in product(*(range(1, m + 1) for m in most)):
        layers = -(-n // int(np.prod(plane)))
        layers += layers % 2 if periodic[-1] else 0
        counts = np.array([*plane, layers])
        gaps = _spacing(counts, radius, box, periodic)
        diagonal = np.sqrt((gaps[:-1] ** 2).sum() / 4 + gaps[-1] ** 2)
        slack = min(*gaps[:-1], 2 * gaps[-1], diagonal) - 2 * radius
        if slack > best_slack:
            best, best_slack = counts, slack
    gaps = _spacing(best, radius, box, periodic)
    index = np.stack(np.meshgrid(*(np.arange(m) for m in best), indexing="ij"), axis=-1).reshape(-1, len(box))
    shifted = index + 0.5 * (index[:, -1:] % 2) * (np.arange(len(box)) < len(box) - 1)
    return np.where(periodic, 0.0, radius) + shifted * gaps, float(best_slack)


def _spacing(counts: np.ndarray, radius: float, box: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Return the distance between sites along each axis; a single layer is as far from the next as the box is wide."""
    intervals = counts - np.where(np.arange(len(box)) < len(box) - 1, 0.5, 1.0)  # between walls, with the half shift
    return np.where(periodic, box / counts, (box - 2 * radius) / np.maximum(intervals, 0.5))


def _shaken(
    sites: np.ndarray, slack: float, radii: np.ndarray, box: np.ndarray, periodic: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return random sites, each moved within a ball of a third of the room between neighbours."""
    n, dim = len(radii), len(box)
    direction = rng.standard_normal((n, dim))
    direction /= np.sqrt((direction**2).sum(axis=1, keepdims=True))
    step = direction * (slack / 3 * rng.uniform(size=(n, 1)) ** (1 / dim))
    moved = rng.permutation(sites)[:n] + step
    low, high = radii[:, None], box - radii[:, None]
    inside = np.clip(moved, low, high)  # at a wall: mirrored, so no site comes nearer to its neighbours than its step
    return np.where(periodic, moved % box, 2 * inside - moved)


def _packing(radii: np.ndarray, box: np.ndarray) -> float:
    """Return the share of the box that these particles fill."""
    unit_ball = {2: np.pi, 3: 4 * np.pi / 3}[len(box)]
    return float(unit_ball * (radii ** len(box)).sum() / box.prod())


def _no_room(radii: np.ndarray, box: tuple[float, ...], failed: np.ndarray) -> str:
    """Return the text of the refusal."""
    packing = _packing(radii[failed[0]], np.array(box))
    return (
        f"no overlap-free start found for {len(failed)} of {len(radii)} systems: {radii.shape[1]} particles at packing "
        f"fraction {packing:.3f} (system {failed[0]}); lower n_particles or radius, enlarge box, or pass initial="
    )

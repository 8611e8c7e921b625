"""What hard and soft discs and spheres share: their room, their draws, and the search for overlaps in a given start."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from simulators.placement import place_without_overlap
from simulators.state import ParticleState

from .system import Boxed, boundaries, minimum_image, periodic_axes, volume

_FEW = 64  # particles up to which all pairs are looked at
_PAIRS_AT_ONCE = 2**20
_MANY = 4096  # particles beyond which the pairs within one reach, if these are all, take too much memory


@runtime_checkable
class Spheres(Boxed, Protocol):
    """Bodies with drawn radii in a box."""

    @property
    def n_particles(self) -> int: ...  # noqa: D102

    @property
    def radius(self) -> float: ...  # noqa: D102

    @property
    def radius_spread(self) -> float: ...  # noqa: D102

    @property
    def density(self) -> float: ...  # noqa: D102

    @property
    def velocity_scale(self) -> float: ...  # noqa: D102


def packing_fraction(system: Spheres) -> float:
    """Return the expected share of the box that particles fill."""
    spread = 1 + system.radius_spread**2 * (system.dim - 1) * system.dim / 6  # E[(r / radius)^dim]
    return float(system.n_particles * volume(system.radius, system.dim) * spread / math.prod(system.box))


def require_room(system: Spheres) -> None:
    """Refuse what cannot fit, whatever the draw.

    A periodic side takes two diameters, or a particle could meet the same neighbour on both sides.
    """
    widest = 2 * system.radius * (1 + system.radius_spread)
    for side, kind in zip(system.box, boundaries(system), strict=True):
        needed = 2 * widest if kind == "periodic" else widest
        if needed >= side:
            raise ValueError(
                f"radius must leave every particle room to move: diameters reach {widest:.6g}, and a {kind} axis "
                f"must be longer than {needed:.6g}, got {side:.6g}; lower radius or radius_spread, or enlarge box"
            )
    if packing_fraction(system) >= 1:
        raise ValueError(
            f"n_particles={system.n_particles} of radius {system.radius} cannot fit: packing fraction "
            f"{packing_fraction(system):.3f}, expected below 1; lower n_particles or radius, or enlarge box"
        )


def draw_spheres(system: Spheres, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
    """Draw radii, then places without overlaps, then normal velocities: equal generators give equal starts.

    Raises:
        ValueError: no overlap-free placement was found; the text names the packing fraction.
    """
    shape = (n_systems, system.n_particles)
    radii = system.radius * (1 + system.radius_spread * rng.uniform(-1.0, 1.0, shape))
    positions = place_without_overlap(radii, system.box, rng=rng, periodic=periodic_axes(system))
    velocities = system.velocity_scale * rng.standard_normal((*shape, system.dim))
    return ParticleState(positions, velocities, radii, system.density * volume(radii, system.dim))


def refuse_overlaps(
    state: ParticleState, system: Boxed, allowed: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    """Refuse a pair that overlaps by more than ``allowed(radii of i, radii of j)``.

    Raises:
        ValueError: the text names the first such pair.

    Cost:
        All pairs up to 64 particles a system, beyond that a tree of neighbours.
    """
    n_systems, n_particles = state.radii.shape
    if n_particles <= _FEW:
        i, j = np.triu_indices(n_particles, 1)
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(i)))
        for first in range(0, n_systems, at_once):
            _refuse_among(state, system, slice(first, first + at_once), i, j, allowed)
        return
    for which in range(n_systems):
        for i, j in _close_pairs(state.positions[which], state.radii[which], system):
            _refuse_among(state, system, slice(which, which + 1), i, j, allowed)


def _refuse_among(
    state: ParticleState,
    system: Boxed,
    systems: slice,
    i: np.ndarray,
    j: np.ndarray,
    allowed: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    """Refuse the first of these pairs that overlaps too deep."""
    positions, radii = state.positions[systems], state.radii[systems]
    separation = minimum_image(positions[:, i] - positions[:, j], system)
    overlap = radii[:, i] + radii[:, j] - np.sqrt((separation**2).sum(axis=-1))
    most = allowed(radii[:, i], radii[:, j])
    if (overlap > most).any():
        which, pair = (int(index) for index in np.argwhere(overlap > most)[0])
        raise ValueError(
            f"initial: system {systems.start + which}, particles {i[pair]} and {j[pair]} overlap by "
            f"{overlap[which, pair]:.6g}, expected at most {most[which, pair]:.3g}; move them apart"
        )


def _close_pairs(
    positions: Float64[np.ndarray, "particle dim"], radii: Float64[np.ndarray, " particle"], system: Boxed
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs (i, j), i < j, among which every overlap of one system is.

    Of very many, nearest neighbours come first: where these do not overlap, centres are so far apart that the later
    searches, between classes of radii within a factor of two, stay short.
    """
    from scipy.spatial import KDTree  # here: importing the package loads no scipy

    sides = np.where(periodic_axes(system), np.array(system.box), 0.0)  # 0: open to the tree
    inside = _wrapped(positions, sides)
    tree = KDTree(inside, boxsize=sides)
    if len(radii) <= _MANY:
        yield _ordered(*tree.query_pairs(2 * float(radii.max()), output_type="ndarray").T)
        return
    nearest = np.asarray(tree.query(inside, k=2)[1])
    yield _ordered(nearest[:, 0], nearest[:, 1])
    size = np.floor(np.log2(radii)).astype(int)
    classes = [np.flatnonzero(size == value) for value in np.unique(size)]
    trees = [KDTree(inside[members], boxsize=sides) for members in classes]
    for large in range(len(classes)):
        for small in range(large + 1):
            reach = radii[classes[large]].max() + radii[classes[small]].max()
            found = trees[small].sparse_distance_matrix(trees[large], reach, output_type="coo_matrix")
            i, j = classes[small][found.row], classes[large][found.col]
            yield _ordered(i[i != j], j[i != j])


def _wrapped(positions: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return places in [0, side) along periodic axes, whose side is not 0."""
    inside = positions - sides * np.floor(positions / np.where(sides > 0, sides, np.inf))
    return np.where((sides > 0) & (inside >= sides), 0.0, inside)  # a tiny negative number was rounded


def _ordered(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs with the lower index first, sorted."""
    pairs = np.stack([np.minimum(i, j), np.maximum(i, j)])
    return tuple(pairs[:, np.lexsort(pairs[::-1])])

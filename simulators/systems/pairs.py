"""What systems of point-like particles share: sums over pairs, draws, and checks of given starts."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .system import System, boundaries, periodic_axes, refuse_outside, require_shape

_STEPS_A_PERIOD = 50  # leapfrog then errs by (2 pi / 50)^2 / 24, less than a thousandth, in the fastest frequency


def where(condition, value, otherwise):
    """Return value or otherwise; in a law, for which the engine has a form that takes many pairs at a time."""
    return value if condition else otherwise


def inverse_cube(squared):
    """Return 1 / r^3 of the square of r; in a law, likewise."""
    return 1.0 / (squared * math.sqrt(squared))


def sum_over_pairs(
    system: System, state: ParticleState, energy: Callable[[np.ndarray, int], np.ndarray]
) -> Float64[np.ndarray, " system"]:
    """Sum ``energy(squared distances to all later particles, particle)`` over all particles, nearest images."""
    total = np.zeros(len(state.positions))
    for i, squared in _squared_distances(system, state):
        total += energy(squared, i).sum(axis=1)
    return total


def default_step_of(fastest: float) -> float:
    """Return a fiftieth of the period of an angular frequency."""
    return 2 * math.pi / (_STEPS_A_PERIOD * fastest) if fastest > 0 else math.inf


def longest_step_of(fastest: float) -> float:
    """Return the step at which leapfrog oscillations of this angular frequency begin to grow, 2 / frequency."""
    return 2 / fastest if fastest > 0 else math.inf


def fastest_pair(system: System, state: ParticleState, rate: Callable[[np.ndarray, int], np.ndarray]) -> float:
    """Return the largest ``rate(squared distances to all later particles, particle)`` over all systems."""
    return max((float(rate(squared, i).max()) for i, squared in _squared_distances(system, state)), default=0.0)


def _squared_distances(
    system: System, state: ParticleState
) -> Iterator[tuple[int, Float64[np.ndarray, "system later"]]]:
    """Yield each particle but the last with the squared distances to all later ones, nearest images."""
    axes = [np.ascontiguousarray(axis) for axis in np.moveaxis(state.positions, 2, 0)]  # apart: three times as fast
    lengths = np.where(periodic_axes(system), np.array(system.box), 0.0)
    for i in range(state.positions.shape[1] - 1):
        squared = np.zeros((len(state.positions), state.positions.shape[1] - 1 - i))
        for x, length in zip(axes, lengths, strict=True):
            r = x[:, i + 1 :] - x[:, i : i + 1]
            if length:
                r -= length * np.round(r / length)
            squared += r * r
        yield i, squared


def draw_about_center(
    system: System, n_systems: int, scale: float, radius: float, *, rng: np.random.Generator
) -> Float64[np.ndarray, "system particle dim"]:
    """Draw normal places about the centre of the box, again where one lies outside of it."""
    box = np.array(system.box)
    positions = box / 2 + scale * rng.standard_normal((n_systems, system.n_particles, system.dim))
    if "walls" not in boundaries(system) and "periodic" not in boundaries(system):
        return positions
    while (outside := ((positions < radius) | (positions > box - radius)).any(axis=-1)).any():
        positions[outside] = box / 2 + scale * rng.standard_normal((int(outside.sum()), system.dim))
    return positions


def draw_directions(
    system: System, n_systems: int, *, rng: np.random.Generator
) -> Float64[np.ndarray, "system particle dim"]:
    """Draw unit vectors, all directions alike."""
    vectors = rng.standard_normal((n_systems, system.n_particles, system.dim))
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True))


def require_inside(system: System, state: ParticleState) -> None:
    """Refuse a state of another shape, a particle beyond a wall, or outside [0, length) of a periodic axis.

    A billionth of the box passes as rounding, so that a stored frame can be a start.

    Raises:
        ValueError: the text names system, particle and place.
    """
    require_shape(system, state)
    kinds, box = np.array(boundaries(system)), np.array(system.box)
    margin = np.where(kinds == "walls", state.radii[..., None], 0.0) - 1e-9 * box
    outside = ((state.positions < margin) | (state.positions > box - margin)) & (kinds != "open")
    refuse_outside(system, state, outside.any(axis=-1))

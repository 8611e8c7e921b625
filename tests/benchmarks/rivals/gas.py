"""The gas that every simulator runs: equal discs of diameter 1 and mass 1 in a closed square box.

Packing 0.2, temperature 1 a component, gravity 0.1. Soft discs repel with a linear spring of stiffness 1e4, so that a
contact lasts 22 time steps of 1e-3.
"""

import math
from collections.abc import Callable

import numpy as np

RADIUS, PACKING, GRAVITY = 0.5, 0.2, 0.1
STIFFNESS, TIME_STEP = 1e4, 1e-3
CONTACT_TIME = math.pi / math.sqrt(2 * STIFFNESS)  # half a period of a pair, whose reduced mass is 1/2


def box_side(n_particles: int) -> float:
    """Return the side of the box."""
    return math.sqrt(n_particles * math.pi * RADIUS**2 / PACKING)


def our_fields(n_particles: int) -> dict:
    """Return the fields that hard and soft discs share."""
    return {
        "n_particles": n_particles,
        "radius": RADIUS,
        "radius_spread": 0.0,
        "density": 1 / (math.pi * RADIUS**2),
        "gravity": (0.0, -GRAVITY),
        "box": (box_side(n_particles),) * 2,
        "velocity_scale": 1.0,
    }


def energy(positions: np.ndarray, velocities: np.ndarray, *, stiffness: float = STIFFNESS) -> float:
    """Return kinetic energy, height and springs of all systems; arrays (system, particle, 2)."""
    far = box_side(positions.shape[1]) - RADIUS
    sinks = np.maximum(RADIUS - positions, 0) ** 2 + np.maximum(positions - far, 0) ** 2
    springs = (np.maximum(2 * RADIUS - _distances(positions), 0) ** 2).sum() + sinks.sum()
    return 0.5 * (velocities**2).sum() + GRAVITY * positions[..., 1].sum() + 0.5 * stiffness * springs


def count_contacts(advance: Callable[[int], float], positions: Callable[[], np.ndarray], n_steps: int) -> int:
    """Count the pairs that begin to touch, by a look every 5 steps (a contact lasts 22)."""
    count = 0
    touched = _distances(positions()) < 2 * RADIUS
    for _ in range(n_steps // 5):
        advance(5)
        touches = _distances(positions()) < 2 * RADIUS
        count += int((touches & ~touched).sum())
        touched = touches
    return count


def _distances(positions: np.ndarray) -> np.ndarray:
    """Return the distance of each pair, once, (system, pair)."""
    first, second = np.triu_indices(positions.shape[1], 1)
    return np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)

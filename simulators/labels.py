"""From the collision log to labels: who met whom in which interval between frames."""

import numpy as np
from jaxtyping import Bool, Int64

from .state import Trajectories


def contact_labels(trajectories: Trajectories) -> Bool[np.ndarray, "system interval particle particle"]:
    """Tell which pairs collided between consecutive frames.

    Interval k is (t_k, t_{k+1}], as frame k+1 shows the state after a collision at its very time; a collision at
    time 0 counts to interval 0. Collisions marked ``forced`` count; ghost discs count where an overlap begins.

    Args:
        trajectories: a run with its log.

    Returns:
        (system, frame - 1, particle, particle), symmetric, False on the diagonal.

    Cost:
        One byte for each entry of the result, one pass over the log.
    """
    log = trajectories.collisions
    n_systems, n_frames, n_particles, _ = trajectories.positions.shape
    labels = np.zeros((n_systems, n_frames - 1, n_particles, n_particles), dtype=np.bool_)
    pair = log.j >= 0
    where, interval = log.system[pair], _interval(trajectories)[pair]
    labels[where, interval, log.i[pair], log.j[pair]] = True
    labels[where, interval, log.j[pair], log.i[pair]] = True
    return labels


def wall_contact_labels(trajectories: Trajectories) -> Bool[np.ndarray, "system interval particle"]:
    """Tell which particles met a wall between consecutive frames; intervals as in ``contact_labels``.

    Args:
        trajectories: a run with its log.

    Returns:
        (system, frame - 1, particle).
    """
    log = trajectories.collisions
    n_systems, n_frames, n_particles, _ = trajectories.positions.shape
    labels = np.zeros((n_systems, n_frames - 1, n_particles), dtype=np.bool_)
    wall = log.j < 0
    labels[log.system[wall], _interval(trajectories)[wall], log.i[wall]] = True
    return labels


def _interval(trajectories: Trajectories) -> Int64[np.ndarray, " event"]:
    """Return the interval of each event."""
    after = np.searchsorted(trajectories.times, trajectories.collisions.time, side="left")
    return np.maximum(after - 1, 0)

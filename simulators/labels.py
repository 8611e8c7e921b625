"""From the collision log to labels: who met whom in which interval between frames.

Interval k is (t_k, t_{k+1}], as frame k+1 shows the state after a collision at its very time; a collision at time 0
counts to interval 0. Collisions marked ``forced`` count; ghost discs count where an overlap begins. Labels of pairs are
symmetric, with nothing on the diagonal.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from .state import Trajectories


def contact_labels(trajectories: Trajectories) -> Bool[np.ndarray, "system interval particle particle"]:
    """Tell which pairs collided, or began a contact, between consecutive frames.

    Args:
        trajectories: a run with its log.

    Returns:
        (system, frame - 1, particle, particle), symmetric, False on the diagonal.

    Cost:
        One byte for each entry of the result, one pass over the log.
    """
    log = trajectories.collisions
    labels = np.zeros(_shape(trajectories, "pair"), dtype=np.bool_)
    pair = log.j >= 0
    where, interval = log.system[pair], event_intervals(trajectories)[pair]
    labels[where, interval, log.i[pair], log.j[pair]] = True
    labels[where, interval, log.j[pair], log.i[pair]] = True
    return labels


def wall_contact_labels(trajectories: Trajectories) -> Bool[np.ndarray, "system interval particle"]:
    """Tell which particles met a wall between consecutive frames.

    Args:
        trajectories: a run with its log.

    Returns:
        (system, frame - 1, particle).
    """
    log = trajectories.collisions
    labels = np.zeros(_shape(trajectories, "particle"), dtype=np.bool_)
    wall = log.j < 0
    labels[log.system[wall], event_intervals(trajectories)[wall], log.i[wall]] = True
    return labels


def touching_labels(trajectories: Trajectories) -> Bool[np.ndarray, "system interval particle particle"]:
    """Tell which pairs were in contact at any time between consecutive frames.

    A contact that ends at the very time of a frame does not reach into the interval after. Hard bodies touch for no
    time, so theirs are the ``contact_labels``.

    Args:
        trajectories: a run with its log.

    Returns:
        (system, frame - 1, particle, particle), symmetric, False on the diagonal.
    """
    log = trajectories.collisions
    if log.duration is None:
        return contact_labels(trajectories)
    labels = np.zeros(_shape(trajectories, "pair"), dtype=np.bool_)
    pair = np.flatnonzero(log.j >= 0)
    first = event_intervals(trajectories)[pair]
    last = np.minimum(_interval(trajectories, (log.time + log.duration)[pair]), labels.shape[1] - 1)
    lengths = np.maximum(last - first, 0) + 1
    rows = np.repeat(pair, lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # 0, 1, ... of each contact
    interval = np.repeat(first, lengths) + within
    labels[log.system[rows], interval, log.i[rows], log.j[rows]] = True
    labels[log.system[rows], interval, log.j[rows], log.i[rows]] = True
    return labels


def collision_counts(trajectories: Trajectories, *, per: str = "pair") -> Int64[np.ndarray, "system interval *who"]:
    """Count collisions between consecutive frames.

    Args:
        trajectories: a run with its log.
        per: ``"pair"``, or ``"particle"``, whose collisions with walls count too.

    Returns:
        (system, frame - 1, particle, particle), or (system, frame - 1, particle).

    Raises:
        ValueError: another ``per``.
    """
    return _sum(trajectories, per, None).astype(np.int64)


def contact_impulse(trajectories: Trajectories, *, per: str = "pair") -> Float64[np.ndarray, "system interval *who"]:
    """Sum the sizes of the impulses between consecutive frames; the whole of a contact counts where it began.

    Args:
        trajectories: a run with its log.
        per: ``"pair"``, or ``"particle"``, whose impulses from walls count too.

    Returns:
        (system, frame - 1, particle, particle), or (system, frame - 1, particle).

    Raises:
        ValueError: another ``per``.
    """
    return _sum(trajectories, per, trajectories.collisions.impulse).astype(np.float64)  # integers where no event is


def time_to_contact(trajectories: Trajectories, *, per: str = "pair") -> Float64[np.ndarray, "system frame *who"]:
    """Return how long after each frame the next collision, or the begin of the next contact, follows.

    A collision at the very time of a frame lies behind it, except at time 0. So but for rounding the time is at most a
    frame interval exactly where ``contact_labels`` of the interval after the frame is True.

    Args:
        trajectories: a run with its log.
        per: ``"pair"``, or ``"particle"`` for the next collision with any other particle; walls do not count.

    Returns:
        (system, frame, particle, particle), or (system, frame, particle); inf where none follows in the run.

    Raises:
        ValueError: another ``per``.
    """
    log = trajectories.collisions
    n_systems, n_intervals, *who = _shape(trajectories, per)
    due = np.full((n_systems, n_intervals + 1, *who), np.inf)
    pair = np.flatnonzero(log.j >= 0)[::-1]  # the last to be written is the earliest
    where, interval = log.system[pair], event_intervals(trajectories)[pair]
    i, j, time = log.i[pair], log.j[pair], log.time[pair]
    if per == "pair":
        due[where, interval, i, j] = due[where, interval, j, i] = time
    else:
        np.minimum.at(due, (where, interval, i), time)
        np.minimum.at(due, (where, interval, j), time)
    due = np.minimum.accumulate(due[:, ::-1], axis=1)[:, ::-1]
    return due - trajectories.times.reshape(1, -1, *(1,) * len(who))


def event_intervals(trajectories: Trajectories) -> Int64[np.ndarray, " event"]:
    """Return the interval of each event.

    Args:
        trajectories: a run with its log.

    Returns:
        (event,), in [0, frame - 2].
    """
    return _interval(trajectories, trajectories.collisions.time)


def _interval(trajectories: Trajectories, time: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(trajectories.times, time, side="left") - 1, 0)


def _shape(trajectories: Trajectories, per: str) -> tuple[int, ...]:
    """Return (system, interval, particle) once or twice particle."""
    if per not in ("pair", "particle"):
        raise ValueError(f"per must be 'pair' or 'particle', got {per!r}")
    n_systems, n_frames, n_particles, _ = trajectories.positions.shape
    return (n_systems, n_frames - 1, *(n_particles,) * (1 + (per == "pair")))


def _sum(trajectories: Trajectories, per: str, weights: np.ndarray | None) -> np.ndarray:
    """Sum weights, or ones, over the events of each entry; in the order of the log, so the result is reproducible."""
    log, shape = trajectories.collisions, _shape(trajectories, per)
    interval = event_intervals(trajectories)
    pair = log.j >= 0
    some = slice(None) if per == "particle" else pair  # walls are no pairs
    ends = ((some, log.i, log.j), (pair, log.j, log.i))
    where = [
        np.ravel_multi_index((log.system[rows], interval[rows], one[rows], other[rows])[: len(shape)], shape)
        for rows, one, other in ends
    ]
    heavy = None if weights is None else np.concatenate([weights[rows] for rows, _, _ in ends])
    return np.bincount(np.concatenate(where), heavy, int(np.prod(shape))).reshape(shape)

"""Collisions recovered from frames alone, for trajectories that came without a log."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from .state import CollisionLog, Trajectories
from .systems.system import boundaries, minimum_image

# Our choices, tested on runs whose exact log is known: see the precision and recall in test_simulators_formats.py.
_MOMENTUM = 0.02  # share by which the two gains may fail to cancel
_DIRECTION = 0.99  # least cosine between the gain and the line of centres
_DISTANCE = 0.05  # share of the sum of radii by which the distance at the collision may differ from it
_INSTANT = 0.05  # share of a frame interval between the instants at which the two moved
_OVERLAP = 1e-3  # share of the sum of radii: less is rounding of hard bodies


class _Kicks(NamedTuple):
    """How each particle departed from free flight in each interval, (system, interval, particle, ...)."""

    before: np.ndarray  # velocity at the first frame of the interval
    kick: np.ndarray  # velocity gained beyond free flight
    instant: np.ndarray  # time since the first frame at which one sudden gain explains the positions
    moved: np.ndarray  # whether the gain is above the noise
    acceleration: np.ndarray  # common to all, (dim,)


def recover_collisions(trajectories: Trajectories, *, from_positions: bool = False) -> CollisionLog:
    """Find collisions in frames, by what they do to velocities and, where bodies are soft, by overlaps.

    Between collisions particles fly freely under a common acceleration g, which is estimated. A sudden gain ``dv`` at
    time tau after a frame leaves the next one displaced by ``dv (dt - tau)``, which gives tau without knowing radii.
    Two particles of one interval collided with each other where their gains cancel in momentum, happened at one
    instant, lie along the line of centres, and the centres were then the sum of radii apart; one particle hit a wall
    where its gain is along an axis while it touched that wall.

    A pair that overlaps in a frame is logged as one contact instead, from overlap to overlap, with its duration, its
    deepest overlap seen, and the momentum gained meanwhile; a contact shorter than a frame interval is seen as sudden.

    What is missed: a particle with two collisions in one interval is not explained, nor is its partner, so recall falls
    as the frame interval nears the time between collisions. Forces other than a common acceleration and contacts are
    not known here; where they act between frames, gains are no collisions and find no partner.

    Args:
        trajectories: frames; radii, masses and box must be right. The log is not looked at.
        from_positions: do not believe the velocities (they are differences of positions) and take them from the
            intervals before and after; collisions in neighbouring intervals are then missed too, and those of the
            first and last interval.

    Returns:
        A log; ``duration`` and ``overlap`` are None where no frame has an overlap. Nothing is marked as forced.

    Cost:
        Some arrays of the size of the frames; O(particles^2) a frame for the overlaps.
    """
    kicks = _kicks(trajectories, from_positions)
    overlaps = _overlapping(trajectories)
    pairs, explained = _pair_rows(trajectories, kicks, overlaps)
    walls = _wall_rows(trajectories, kicks, explained)
    contacts = _contact_rows(trajectories, kicks, overlaps)
    rows = {name: np.concatenate([part[name] for part in (pairs, walls, contacts)]) for name in pairs}
    order = np.lexsort((rows["time"], rows["system"]))
    columns: dict[str, Any] = {name: column[order] for name, column in rows.items()}
    if not len(contacts["time"]):
        columns["duration"] = columns["overlap"] = None
    return CollisionLog(forced=np.zeros(len(order), dtype=np.bool_), **columns)


def central_differences(
    positions: Float64[np.ndarray, "system frame particle dim"], frame_interval: float, system: Any
) -> Float64[np.ndarray, "system frame particle dim"]:
    """Return velocities from the frames before and after, one-sided at the ends; nearest images where periodic.

    Args:
        positions: frames, at least 2.
        frame_interval: time between frames.
        system: whose box and boundary hold.

    Returns:
        Velocities, exact under constant acceleration except at the two ends, and smeared over collisions.
    """
    steps = minimum_image(np.diff(positions, axis=1), system) / frame_interval
    return np.concatenate([steps[:, :1], (steps[:, :-1] + steps[:, 1:]) / 2, steps[:, -1:]], axis=1)


def _kicks(run: Trajectories, from_positions: bool) -> _Kicks:
    """Compare each interval with free flight."""
    dt = run.frame_interval
    moves = minimum_image(np.diff(run.positions, axis=1), run.system)
    if from_positions:
        mean = np.pad(moves / dt, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
        before, after = mean[:, :-2], mean[:, 2:]  # of the intervals before and after
        acceleration = _commonest((after - before)[:, 1:-1] / (2 * dt))
        before, after = before + acceleration * dt / 2, after - acceleration * dt / 2
    else:
        before, after = run.velocities[:, :-1], run.velocities[:, 1:]
        acceleration = _commonest((after - before) / dt)
    kick = after - before - acceleration * dt
    if from_positions:
        kick[:, [0, -1]] = 0.0  # one side is unknown
    size = np.linalg.norm(kick, axis=-1)
    speed = np.sqrt((before**2).mean())
    moved = size > max(20 * float(np.quantile(size, 0.1)), 1e-5 * speed)  # ours: rounding to float32 stays below
    if from_positions:  # the mean over the interval of a collision is of neither side: its neighbours seem to gain too
        beside = np.pad(size, ((0, 0), (1, 1), (0, 0)))
        moved &= (size > beside[:, :-2]) & (size >= beside[:, 2:])
    lag = moves - before * dt - acceleration * dt**2 / 2
    instant = dt - (lag * kick).sum(axis=-1) / np.where(moved, size**2, 1.0)
    return _Kicks(before, kick, instant, moved, acceleration)


def _commonest(values: np.ndarray) -> np.ndarray:
    """Return for each component the middle of the shortest range that holds a quarter of the values.

    Unlike a median it needs no majority of intervals without collision, which all push away from the same floor.
    """
    ordered = np.sort(values.reshape(-1, values.shape[-1]), axis=0)
    if not len(ordered):
        return np.zeros(values.shape[-1])
    reach = len(ordered) // 4
    first = np.argmin(ordered[reach:] - ordered[: len(ordered) - reach], axis=0)
    columns = np.arange(values.shape[-1])
    return (ordered[first, columns] + ordered[first + reach, columns]) / 2


def _pair_rows(run: Trajectories, kicks: _Kicks, overlaps: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return sudden collisions of pairs as columns, and which gains they explain."""
    dt = run.frame_interval
    system, interval, particle = np.nonzero(kicks.moved)
    cell = system * kicks.moved.shape[1] + interval
    found = []
    for step in range(1, run.positions.shape[2]):  # all pairs of gains in one interval
        a = np.flatnonzero(cell[step:] == cell[:-step])
        if not len(a):
            break
        s, k, i, j = system[a], interval[a], particle[a], particle[a + step]
        gain, other = (run.masses[s, p, None] * kicks.kick[s, k, p] for p in (i, j))
        size = np.linalg.norm(gain, axis=-1)
        instant = (kicks.instant[s, k, i] + kicks.instant[s, k, j]) / 2
        apart = minimum_image(run.positions[s, k, i] - run.positions[s, k, j], run.system)
        apart = apart + (kicks.before[s, k, i] - kicks.before[s, k, j]) * instant[:, None]
        distance = np.linalg.norm(apart, axis=-1)
        reach = run.radii[s, i] + run.radii[s, j]
        is_one = (
            (np.linalg.norm(gain + other, axis=-1) < _MOMENTUM * size)
            & (np.abs(kicks.instant[s, k, i] - kicks.instant[s, k, j]) < _INSTANT * dt)
            & (np.abs(instant - dt / 2) < dt / 2 + _INSTANT * dt)
            & ((gain * apart).sum(axis=-1) > _DIRECTION * size * distance)
            & (np.abs(distance - reach) < _DISTANCE * reach)
            & ~(overlaps[s, k, i, j] | overlaps[s, k + 1, i, j])
        )
        found.append([column[is_one] for column in (s, k, i, j, instant, size, gain / size[:, None])])
    explained = np.zeros_like(kicks.moved)
    if not found:
        return _columns(run), explained
    s, k, i, j, instant, size, normal = (np.concatenate(column) for column in zip(*found, strict=True))
    explained[s, k, i] = explained[s, k, j] = True
    return _columns(run, s, k * dt + np.clip(instant, 0.0, dt), i, j, size, normal), explained


def _wall_rows(run: Trajectories, kicks: _Kicks, explained: np.ndarray) -> dict[str, np.ndarray]:
    """Return sudden collisions with walls as columns."""
    dt, parts = run.frame_interval, [_columns(run)]
    size = np.linalg.norm(kicks.kick, axis=-1)
    flight = np.clip(kicks.instant, 0.0, dt)
    for axis, kind in enumerate(boundaries(run.system)):
        if kind != "walls":
            continue
        place = run.positions[:, :-1, :, axis] + kicks.before[..., axis] * flight
        place = place + kicks.acceleration[axis] * flight**2 / 2
        radii = run.radii[:, None]
        for side, sign in enumerate((1.0, -1.0)):
            gap = place - radii if sign > 0 else run.system.box[axis] - radii - place
            is_one = (
                kicks.moved
                & ~explained
                & (sign * kicks.kick[..., axis] > _DIRECTION * size)
                & (np.abs(gap) < _DISTANCE * radii)
                & (np.abs(kicks.instant - dt / 2) < dt / 2 + _INSTANT * dt)
            )
            s, k, i = np.nonzero(is_one)
            normal = np.zeros((len(s), run.positions.shape[-1]))
            normal[:, axis] = sign
            wall = np.full(len(s), -(2 * axis + 1 + side))
            impulse = run.masses[s, i] * np.abs(kicks.kick[s, k, i, axis])
            parts.append(_columns(run, s, k * dt + flight[s, k, i], i, wall, impulse, normal))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _overlapping(run: Trajectories) -> np.ndarray:
    """Tell which pairs overlap in which frame, (system, frame, particle, particle)."""
    overlaps = np.zeros((*run.positions.shape[:3], run.positions.shape[2]), dtype=np.bool_)
    for i in range(run.positions.shape[2]):
        apart = minimum_image(run.positions - run.positions[:, :, i : i + 1], run.system)
        reach = (run.radii + run.radii[:, i : i + 1])[:, None]
        overlaps[:, :, i] = np.linalg.norm(apart, axis=-1) < (1 - _OVERLAP) * reach
        overlaps[:, :, i, i] = False
    return overlaps


def _contact_rows(run: Trajectories, kicks: _Kicks, overlaps: np.ndarray) -> dict[str, np.ndarray]:
    """Return contacts that frames show as columns; begin and end lie where the gap, taken as linear, vanishes."""
    dt, parts = run.frame_interval, [_columns(run)]
    for i, j in np.argwhere(np.triu(overlaps.any(axis=(0, 1)))):
        inside = np.pad(overlaps[:, :, i, j], ((0, 0), (1, 1)))
        s, first = np.nonzero(inside[:, 1:] & ~inside[:, :-1])  # the first frame of each contact
        _, after = np.nonzero(~inside[:, 1:] & inside[:, :-1])  # the first frame behind it
        last, end = after - 1, np.minimum(after, run.positions.shape[1] - 1)
        start = np.maximum(first - 1, 0)
        apart = minimum_image(run.positions[:, :, i] - run.positions[:, :, j], run.system)
        distance = np.linalg.norm(apart, axis=-1)
        gap = distance - (run.radii[:, i] + run.radii[:, j])[:, None]
        begin = np.where(first > 0, start + _share(gap[s, start], gap[s, first]), 0.0) * dt
        finish = np.where(after > end, last, last + _share(gap[s, last], gap[s, end])) * dt
        gains = np.cumsum(np.pad(kicks.kick[:, :, i], ((0, 0), (1, 0), (0, 0))), axis=1) * run.masses[:, i, None, None]
        normal = apart[s, first] / distance[s, first, None]
        impulse = np.maximum(((gains[s, end] - gains[s, start]) * normal).sum(axis=-1), 0.0)
        deepest = np.array([-gap[row, a:b].min() for row, a, b in zip(s, first, after, strict=True)])
        columns = _columns(run, s, begin, np.full(len(s), i), np.full(len(s), j), impulse, normal)
        parts.append({**columns, "duration": np.maximum(finish - begin, 0.0), "overlap": deepest})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return where between two frames a quantity that changes sign is zero."""
    return np.clip(before / np.where(before == after, 1.0, before - after), 0.0, 1.0)


def _columns(
    run: Trajectories,
    system: Any = (),
    time: Any = (),
    i: Any = (),
    j: Any = (),
    impulse: Any = (),
    normal: Any = None,
) -> dict[str, np.ndarray]:
    """Return rows of a log by name; those of sudden events last no time."""
    last = run.times[-1]
    return {
        "system": np.asarray(system, np.int32),
        "time": np.minimum(np.asarray(time, np.float64), last),
        "i": np.asarray(i, np.int32),
        "j": np.asarray(j, np.int32),
        "impulse": np.asarray(impulse, np.float64),
        "normal": np.zeros((0, run.positions.shape[-1])) if normal is None else normal,
        "duration": np.zeros(len(system)),
        "overlap": np.zeros(len(system)),
    }

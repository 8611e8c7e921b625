"""What a simulation starts from and what it leaves behind: frozen records of float64 arrays.

The records check shapes and types themselves, in every run and with the place of the fault, so their fields are plain
arrays to the type checker.
"""

from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64


def _check_floats(name: str, array: np.ndarray, axes: str, sizes: dict[str, int]) -> None:
    """Require a finite float64 array with the named axes; ``sizes`` remembers the length of each axis."""
    names = axes.split()
    if not isinstance(array, np.ndarray) or array.dtype != np.float64:
        got = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{name} must be a float64 numpy array, got {got}; convert it with np.asarray(..., np.float64)")
    if array.ndim != len(names):
        raise ValueError(f"{name} must have the axes ({', '.join(names)}), got shape {array.shape}")
    for axis, size in zip(names, array.shape, strict=True):
        expected = sizes.setdefault(axis, size)
        if size != expected:
            raise ValueError(f"{name} must have {expected} entries along {axis}, got shape {array.shape}")
        if size == 0 and axis != "event":
            raise ValueError(f"{name} must not be empty, got shape {array.shape} with no entry along {axis}")
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(index) for index in np.argwhere(~finite)[0])
        place = ", ".join(f"{axis} {index}" for axis, index in zip(names, where, strict=True))
        raise ValueError(f"{name} must be finite; {place} is {array[where]} (a run that diverged?)")


def _check_positive(name: str, array: np.ndarray) -> None:
    """Require every entry of a (system, particle) array to be above zero."""
    if not (array > 0).all():
        system, particle = (int(index) for index in np.argwhere(~(array > 0))[0])
        raise ValueError(f"{name} must be positive; system {system}, particle {particle} has {array[system, particle]}")


def _check_particles(record: Any, sizes: dict[str, int]) -> None:
    """Check what does not change with time: radii, masses, charges, edges."""
    for name in ("radii", "masses"):
        _check_floats(name, getattr(record, name), "system particle", sizes)
        _check_positive(name, getattr(record, name))
    if record.charges is not None:
        _check_floats("charges", record.charges, "system particle", sizes)
    if record.edges is not None:
        sizes["partner"] = sizes["particle"]
        _check_floats("edges", record.edges, "system particle partner", sizes)
        if not np.array_equal(record.edges, record.edges.swapaxes(1, 2)):
            raise ValueError("edges must be symmetric: edges[s, i, j] == edges[s, j, i]")


@dataclass(frozen=True, eq=False)
class ParticleState:
    """One instant of many systems: where every particle is and how it moves.

    Attributes:
        positions: centres, in the length unit of the box, (system, particle, dim).
        velocities: length a time unit, (system, particle, dim).
        radii: positive lengths, (system, particle).
        masses: positive, (system, particle).
        charges: of charged particles, (system, particle); None where there are none.
        edges: stiffness of the spring between two particles, 0 for no spring, symmetric,
            (system, particle, particle); None where there are none.
        angular_velocities: of discs that turn, radians a time unit, (system, particle, 1) in two dimensions and
            (system, particle, 3) in three; None without friction.

    Raises:
        TypeError: an array is not float64.
        ValueError: shapes that disagree, an empty axis, an entry that is not finite, a radius or mass not above 0,
            edges that are not symmetric.
    """

    positions: np.ndarray
    velocities: np.ndarray
    radii: np.ndarray
    masses: np.ndarray
    charges: np.ndarray | None = None
    edges: np.ndarray | None = None
    angular_velocities: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _check_floats("positions", self.positions, "system particle dim", sizes)
        _check_floats("velocities", self.velocities, "system particle dim", sizes)
        _check_particles(self, sizes)
        if self.angular_velocities is not None:
            sizes["spin"] = 1 if sizes["dim"] == 2 else 3
            _check_floats("angular_velocities", self.angular_velocities, "system particle spin", sizes)


@dataclass(frozen=True, eq=False)
class CollisionLog:
    """Every collision of every system as flat columns, sorted by (system, time).

    Signs: ``normal`` is the unit vector from j to i (from a wall into the box) and ``impulse`` >= 0 the momentum
    given to i along it, so i gains ``impulse * normal`` and j loses it. A pair is listed once, with i < j.
    Walls have ``j < 0``: ``-(2 * axis + 1)`` at coordinate 0 and ``-(2 * axis + 2)`` at the far side, hence
    -1 left, -2 right, -3 floor, -4 ceiling.

    Engines that step through time log contacts: ``time`` is when the pair began to overlap, and ``impulse * normal`` is
    the whole momentum that i gained until they parted, so that sums over the log balance momentum for every engine.

    Attributes:
        system: which system, (event,).
        time: simulation time of the collision, or of the begin of a contact, (event,).
        i: the particle, (event,).
        j: its partner, or a wall, (event,).
        impulse: momentum exchanged; for ghost discs, what they would have exchanged, (event,).
        normal: unit vector from j to i, (event, dim).
        forced: True where the rule against inelastic collapse changed the outcome (see ``HardSpheres``), (event,).
        duration: how long a contact lasted, up to the last frame if it still did, (event,); None for hard bodies.
        overlap: deepest overlap of a contact, a length, (event,); None for hard bodies.

    Raises:
        TypeError: a column of the wrong dtype.
        ValueError: columns of different length, rows out of order, entries not finite.
    """

    system: np.ndarray
    time: np.ndarray
    i: np.ndarray
    j: np.ndarray
    impulse: np.ndarray
    normal: np.ndarray
    forced: np.ndarray
    duration: np.ndarray | None = None
    overlap: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _check_floats("time", self.time, "event", sizes)
        for name in ("duration", "overlap"):
            if getattr(self, name) is not None:
                _check_floats(name, getattr(self, name), "event", sizes)
        _check_floats("impulse", self.impulse, "event", sizes)
        _check_floats("normal", self.normal, "event dim", sizes)
        for name, dtype in (("system", np.int32), ("i", np.int32), ("j", np.int32), ("forced", np.bool_)):
            column = getattr(self, name)
            if column.dtype != dtype:
                raise TypeError(f"{name} must be {np.dtype(dtype)}, got {column.dtype}")
            if column.shape != self.time.shape:
                raise ValueError(f"{name} must have one entry for each of {len(self)} events, got {column.shape}")
        step = np.diff(self.system)
        disorder = (step < 0) | ((step == 0) & (np.diff(self.time) < 0))
        if disorder.any():
            row = int(np.argmax(disorder)) + 1
            raise ValueError(
                f"events must be sorted by (system, time); row {row} (system {self.system[row]}, time "
                f"{self.time[row]}) comes after system {self.system[row - 1]}, time {self.time[row - 1]}"
            )

    def __len__(self) -> int:
        """Return the number of events."""
        return self.time.shape[0]

    def of_system(self, system: int) -> "CollisionLog":
        """Return the events of one system, as views."""
        rows = slice(*np.searchsorted(self.system, (system, system + 1)))
        columns = (getattr(self, field.name) for field in fields(self))
        return CollisionLog._unchecked(*(None if column is None else column[rows] for column in columns))

    @classmethod
    def _unchecked(cls, *columns: np.ndarray | None) -> "CollisionLog":
        """Return a log whose rows are right by construction: of an engine that counts time up, or part of another."""
        log = object.__new__(cls)
        for field, column in zip_longest(fields(cls), columns):
            object.__setattr__(log, field.name, column)
        return log


class Motion(NamedTuple):
    """What an engine returns: frames as in ``Trajectories``, and the log."""

    positions: np.ndarray
    velocities: np.ndarray
    collisions: CollisionLog
    angular_velocities: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Many systems followed through time, with the exact log of their collisions.

    Frame k is the state at time ``k * frame_interval``, after any collision at that very instant; frame 0 is the
    start state.

    Attributes:
        positions: (system, frame, particle, dim).
        velocities: (system, frame, particle, dim).
        radii: (system, particle).
        masses: (system, particle).
        frame_interval: simulation time from one frame to the next.
        system: the specification that was simulated, a frozen dataclass such as ``HardSpheres``.
        seed: the integer whose ``numpy.random.default_rng(seed)`` alone reproduces the run, None where there is none.
        collisions: the log.
        engine: which engine ran, see ``simulate``; ``"imported"`` for trajectories from elsewhere.
        charges, edges: as in ``ParticleState``.
        angular_velocities: (system, frame, particle, 1 or 3), None without friction.

    Raises:
        TypeError: an array is not float64.
        ValueError: shapes that disagree, an empty axis, an entry that is not finite (named by system, frame,
            particle), or a collision that refers to a system, particle or time outside the run.
    """

    positions: np.ndarray
    velocities: np.ndarray
    radii: np.ndarray
    masses: np.ndarray
    frame_interval: float
    system: Any
    seed: int | None
    collisions: CollisionLog
    engine: str = "event_driven"
    charges: np.ndarray | None = None
    edges: np.ndarray | None = None
    angular_velocities: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _check_floats("positions", self.positions, "system frame particle dim", sizes)
        _check_floats("velocities", self.velocities, "system frame particle dim", sizes)
        _check_particles(self, sizes)
        if self.angular_velocities is not None:
            sizes["spin"] = 1 if sizes["dim"] == 2 else 3
            _check_floats("angular_velocities", self.angular_velocities, "system frame particle spin", sizes)
        if not 0 < self.frame_interval < np.inf:
            raise ValueError(f"frame_interval must be positive and finite, got {self.frame_interval}")
        self._check_collisions(sizes)

    def _check_collisions(self, sizes: dict[str, int]) -> None:
        """Require every row of the log to lie inside this run."""
        log = self.collisions
        if log.normal.shape[1] != sizes["dim"]:
            raise ValueError(f"collisions.normal must have {sizes['dim']} columns, got {log.normal.shape[1]}")
        if len(log) == 0:
            return
        borders = np.flatnonzero(log.system[1:] != log.system[:-1])  # rows are sorted: the ends of each system tell
        limits = (
            ("system", log.system[[0, -1]], 0, sizes["system"] - 1),
            ("i", log.i, 0, sizes["particle"] - 1),
            ("j", log.j, -2 * sizes["dim"], sizes["particle"] - 1),
            ("time", log.time[np.concatenate([[0, -1], borders, borders + 1])], 0.0, float(self.times[-1])),
        )
        for name, column, low, high in limits:
            if column.min() < low or column.max() > high:
                raise ValueError(f"collisions.{name} must lie in [{low}, {high}], got [{column.min()}, {column.max()}]")

    @property
    def times(self) -> Float64[np.ndarray, " frame"]:
        """Simulation time of each frame, (frame,)."""
        return np.arange(self.positions.shape[1]) * self.frame_interval

    def state(self, frame: int) -> ParticleState:
        """Return one frame as a state to start from again: views, no copy."""
        turning = None if self.angular_velocities is None else self.angular_velocities[:, frame]
        return ParticleState(
            self.positions[:, frame],
            self.velocities[:, frame],
            self.radii,
            self.masses,
            self.charges,
            self.edges,
            turning,
        )

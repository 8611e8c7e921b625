"""What every format needs: files that appear whole, and trajectories from what a file knows."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from simulators.contacts import central_differences, recover_collisions
from simulators.state import CollisionLog, Trajectories
from simulators.systems.imported import ImportedSystem
from simulators.systems.system import periodic_axes

Values = float | Sequence[float] | np.ndarray  # one for all, one a particle, or (system, particle)
Box = Sequence[float] | None
Boundary = str | tuple[str, ...]


def creator() -> tuple[str, str]:
    """Return the name and version to sign files with."""
    return "emergence-lab", version("emergence-lab")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the name of ``path`` when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def one_system(trajectories: Trajectories, system: int) -> int:
    """Return the number of a system, refusing one that is not there."""
    if not 0 <= system < len(trajectories.positions):
        raise ValueError(f"system must be in [0, {len(trajectories.positions) - 1}], got {system}")
    return system


def imported(
    positions: np.ndarray,
    velocities: np.ndarray | None,
    *,
    format: str,
    frame_interval: float,
    radii: Values,
    masses: Values,
    box: Box,
    boundary: Boundary,
    collisions: CollisionLog | None = None,
    charges: np.ndarray | None = None,
    edges: np.ndarray | None = None,
) -> Trajectories:
    """Return trajectories of a run that another program made.

    Args:
        positions: (system, frame, particle, dim), at least 2 frames.
        velocities: likewise; None to take central differences, exact between collisions only.
        format: its name.
        frame_interval: time between frames.
        radii: one for all, one a particle, or (system, particle).
        masses: likewise.
        box: side lengths, None for the range of the positions.
        boundary: of the box.
        collisions: the log where the format has one; else it is recovered, see ``recover_collisions``.
        charges: (system, particle), where known.
        edges: (system, particle, particle), where known.

    Returns:
        Trajectories with engine ``"imported"``; without seed.

    Raises:
        ValueError: arrays that disagree or are not finite, fewer than two frames.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    if positions.ndim != 4 or positions.shape[1] < 2:
        raise ValueError(f"{format}: positions must be (system, frame >= 2, particle, dim), got {positions.shape}")
    n_systems, _, n_particles, dim = positions.shape
    sides = tuple(float(side) for side in (np.ptp(positions, axis=(0, 1, 2)) if box is None else box))
    system = ImportedSystem(n_particles, dim, sides, boundary, format)
    differences = velocities is None
    if velocities is None:
        velocities = central_differences(positions, frame_interval, system)
    positions = np.where(periodic_axes(system), np.mod(positions, sides), positions)
    shape = (n_systems, n_particles)
    radii, masses = (np.array(np.broadcast_to(np.asarray(given, np.float64), shape)) for given in (radii, masses))
    run = Trajectories(
        positions=positions,
        velocities=np.ascontiguousarray(velocities, dtype=np.float64),
        radii=radii,
        masses=masses,
        frame_interval=float(frame_interval),
        system=system,
        seed=None,
        collisions=_no_collisions(dim) if collisions is None else collisions,
        engine="imported",
        charges=charges,
        edges=edges,
    )
    if collisions is None:
        run = replace(run, collisions=recover_collisions(run, from_positions=differences))
    return run


def need(package: str) -> Any:
    """Return an optional package, or say how to get it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"this format needs {package}; install it with: pip install 'emergence-lab[formats]'"
        ) from error


def _no_collisions(dim: int) -> CollisionLog:
    none, rows = np.zeros(0), np.zeros(0, np.int32)
    return CollisionLog(rows, none, rows, rows, none, np.zeros((0, dim)), np.zeros(0, np.bool_))

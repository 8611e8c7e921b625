"""Reading a whole run, or some of its systems, into memory."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from simulators.state import CollisionLog, Trajectories

from .manifest import MANIFEST, read_manifest, restore_system
from .shards import assemble, join, read_shard


def open_trajectories(folder: str | os.PathLike[str], *, systems: slice | None = None) -> Trajectories:
    """Read a run back, refusing anything but the bytes that were written.

    Args:
        folder: a folder that ``save_trajectories``, ``write_trajectories`` or a ``TrajectoryWriter`` wrote.
        systems: which systems, a slice without step; None for all. Only the shards that hold them are read.

    Returns:
        The run: frames after the first as they were rounded, everything else exact. ``seed`` is None where a part of
        the systems was read, or where each shard had its own stream.

    Raises:
        FileNotFoundError: no such folder, no manifest (writing was interrupted), or a missing file.
        ValueError: a manifest that is not readable, a file that is truncated or altered, or NaN in it; a slice that
            holds no system.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        wanted = _wanted(systems, manifest["shape"]["system"])
        parts, first = [], 0
        for number, entry in enumerate(manifest["shards"]):
            inside = range(max(wanted.start - first, 0), min(wanted.stop - first, entry["n_systems"]))
            if inside:
                parts.append(_cut(assemble(read_shard(folder, number, entry)), inside))
            first += entry["n_systems"]
        rest = {
            "frame_interval": manifest["frame_interval"],
            "system": restore_system(manifest["system"], folder / MANIFEST),
            "seed": manifest["seed"] if len(wanted) == first else None,
            "engine": manifest["engine"],
        }
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} lacks {error}; it was edited or damaged: simulate again") from error
    try:
        return Trajectories(**join(parts), **rest)
    except ValueError as error:
        raise ValueError(f"{folder} holds no valid run: {error}; simulate again") from error


def _wanted(systems: slice | None, n_systems: int) -> range:
    """Return the systems to read."""
    wanted = range(n_systems)[systems or slice(None)]
    if wanted.step != 1 or not wanted:
        raise ValueError(f"systems must be a slice without step that holds some of {n_systems} systems, got {systems}")
    return wanted


def _cut(fields: dict[str, Any], systems: range) -> dict[str, Any]:
    """Return the fields of some systems of a shard, numbered from 0."""
    if len(systems) == len(fields["positions"]):
        return fields
    inside = slice(systems.start, systems.stop)
    log: CollisionLog = fields["collisions"]
    rows = slice(*np.searchsorted(log.system, (systems.start, systems.stop)))
    columns: dict[str, Any] = {
        name: None if column is None else column[rows] for name, column in vars(log).items() if name != "system"
    }
    cut = {name: None if array is None else array[inside] for name, array in fields.items() if name != "collisions"}
    return {**cut, "collisions": CollisionLog(system=log.system[rows] - np.int32(systems.start), **columns)}

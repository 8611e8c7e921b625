"""The ``trajectories/`` folder: .npy shards and a manifest, written last, without which nothing counts as written."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .state import CollisionLog, Trajectories
from .systems import SYSTEMS

_SCHEMA = 1
_MANIFEST = "manifest.json"
_EVENT_COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")


def save_trajectories(
    trajectories: Trajectories, folder: str | os.PathLike[str], *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a run so that it is found whole or not at all, whenever the process is killed.

    Frames are rounded to float32 (relative 6e-8); start states, radii, masses and events stay float64, so a run can be
    repeated from its start, which it could not from rounded frames. Equal runs give equal bytes: nothing tells
    the date. An older run in the folder is replaced.

    Args:
        trajectories: the run.
        folder: where to; created with its parents.
        provenance: what else to remember, JSON values only.

    Raises:
        TypeError: ``provenance`` is not JSON.
        OSError: the folder cannot be written or the disk is full.

    Cost:
        16 bytes a particle and frame in two dimensions, and one SHA-256 pass.
    """
    folder = Path(folder)
    try:
        remembered: dict[str, Any] = json.loads(json.dumps(dict(provenance or {})))
    except (TypeError, ValueError) as error:
        raise TypeError(f"provenance must hold JSON values only: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)  # from here on the old run is no longer whole
        files = {name: _write_array(folder / name, array) for name, array in _arrays(trajectories).items()}
        manifest = _describe(trajectories, remembered, files)
        _write_manifest(folder, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write trajectories to {folder} ({error.strerror}); free space or choose another folder",
        ) from error


def open_trajectories(folder: str | os.PathLike[str]) -> Trajectories:
    """Read a run back, refusing anything but the bytes that were written.

    Args:
        folder: a folder that ``save_trajectories`` wrote.

    Returns:
        The run: frames after the first as they were rounded to float32, everything else exact.

    Raises:
        FileNotFoundError: no such folder, no manifest (writing was interrupted), or a missing file.
        ValueError: a manifest that is not readable, a file that is truncated or altered, or NaN in it.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        shard = manifest["shards"][0]
        arrays = {name: _read_array(folder / name, entry) for name, entry in shard["files"].items()}
        system = _system(manifest["system"])
        positions, velocities = (
            _whole_frames(arrays[_name(f"start_{quantity}")], arrays[_name(quantity)])
            for quantity in ("positions", "velocities")
        )
        columns = (arrays[_name(f"events_{column}")] for column in _EVENT_COLUMNS)
        radii, masses = arrays[_name("radii")], arrays[_name("masses")]
        frame_interval, seed = manifest["frame_interval"], manifest["seed"]
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / _MANIFEST} lacks {error}; it was edited or damaged: simulate again") from error
    try:
        return Trajectories(positions, velocities, radii, masses, frame_interval, system, seed, CollisionLog(*columns))
    except ValueError as error:
        raise ValueError(f"{folder} holds no valid run: {error}; simulate again") from error


def _name(quantity: str, shard: int = 0) -> str:
    """Return the file name of a quantity in a shard."""
    return f"{quantity}_{shard:05d}.npy"


def _system(specification: Mapping[str, Any]) -> Any:
    """Return the specification as the record it was; JSON made lists of its tuples."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in specification.items()
    }
    return SYSTEMS[fields.pop("class")](**fields)


def _arrays(run: Trajectories) -> dict[str, np.ndarray]:
    """Return every file of a run by name."""
    frames = {"positions": run.positions.astype(np.float32), "velocities": run.velocities.astype(np.float32)}
    start = {"start_positions": run.positions[:, 0], "start_velocities": run.velocities[:, 0]}
    discs = {"radii": run.radii, "masses": run.masses}
    events = {f"events_{column}": getattr(run.collisions, column) for column in _EVENT_COLUMNS}
    return {_name(quantity): array for quantity, array in (frames | start | discs | events).items()}


def _describe(run: Trajectories, provenance: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest."""
    n_systems, n_frames, n_particles, dim = run.positions.shape
    return {
        "schema": _SCHEMA,
        "library": f"emergence-lab {version('emergence-lab')}",
        "system": {"class": type(run.system).__name__, **asdict(run.system)},
        "seed": run.seed,
        "provenance": provenance,
        "frame_interval": run.frame_interval,
        "shape": {"system": n_systems, "frame": n_frames, "particle": n_particles, "dim": dim},
        "shards": [{"n_systems": n_systems, "n_events": len(run.collisions), "files": files}],
    }


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    """Write one array aside, rename it, and return its entry in the manifest."""
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    os.replace(aside, path)
    return {"sha256": _sha256(path), "shape": list(array.shape), "dtype": str(array.dtype)}


def _write_manifest(folder: Path, text: str) -> None:
    """Write the commit mark, forced to the disk together with the renames before it."""
    aside = folder / (_MANIFEST + ".tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, folder / _MANIFEST)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a whole run."""
    path = folder / _MANIFEST
    if not folder.is_dir():
        raise FileNotFoundError(f"no trajectories folder at {folder}; simulate first, or check the path")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_MANIFEST}: writing was interrupted, or it is no run; simulate again"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a readable manifest ({error}); simulate again") from error
    if schema != _SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this version reads {_SCHEMA}; simulate again")
    return manifest


def _read_array(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Return one array whose bytes are those of the manifest."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing though the manifest lists it; restore it or simulate again")
    found = _sha256(path)
    if found != entry["sha256"]:
        raise ValueError(
            f"{path} was altered or truncated: sha256 {found[:12]}, expected {entry['sha256'][:12]}; "
            "restore it or simulate again"
        )
    return np.load(path, allow_pickle=False)


def _whole_frames(start: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return float64 frames whose first is the exact start state."""
    whole = frames.astype(np.float64)
    whole[:, 0] = start
    return whole


def _sha256(path: Path) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

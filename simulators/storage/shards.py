"""A shard: the arrays of some systems, one .npy file a quantity, and their entry in the manifest."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from simulators.state import CollisionLog, Trajectories

from .manifest import sha256

_EVENTS = ("time", "i", "j", "impulse", "normal", "forced", "duration", "overlap")  # the system follows from offsets
_FRAMES = ("positions", "velocities", "angular_velocities")
_PARTICLES = ("radii", "masses", "charges", "edges")
_QUANTITIES = (
    *_FRAMES,
    *(f"start_{name}" for name in _FRAMES),
    *_PARTICLES,
    *(f"events_{name}" for name in (*_EVENTS, "offsets")),
)
_OURS = re.compile(rf"(?:{'|'.join(_QUANTITIES)})_(\d{{5,}})\.npy(?:\.tmp)?")


def file_name(quantity: str, shard: int = 0) -> str:
    """Return the file name of a quantity in a shard."""
    return f"{quantity}_{shard:05d}.npy"


def write_shard(folder: Path, number: int, run: Trajectories, frame_dtype: str) -> dict[str, Any]:
    """Write the files of a shard, each aside, forced to the disk and renamed; return the entry of the manifest."""
    files: dict[str, Any] = {}
    for quantity, array in _arrays(run, frame_dtype).items():
        name = file_name(quantity, number)
        aside = folder / (name + ".tmp")
        with open(aside, "wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        files[name] = {"sha256": sha256(aside), "shape": list(array.shape), "dtype": str(array.dtype)}
        os.replace(aside, folder / name)
    return {"n_systems": run.positions.shape[0], "n_events": len(run.collisions), "files": files}


def read_shard(folder: Path, number: int, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a shard by quantity, refusing bytes other than those written.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file was altered or truncated.
    """
    suffix = file_name("", number)
    return {name.removesuffix(suffix): _read_array(folder / name, file) for name, file in entry["files"].items()}


def assemble(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of ``Trajectories`` that a shard holds; frames are float64, the first as exact as it was."""
    fields: dict[str, Any] = {name: arrays.get(name) for name in _PARTICLES}
    for name in _FRAMES:
        fields[name] = None if name not in arrays else arrays[name].astype(np.float64)
        if fields[name] is not None:
            fields[name][:, 0] = arrays[f"start_{name}"]
    columns: dict[str, Any] = {name: arrays.get(f"events_{name}") for name in _EVENTS}
    offsets = arrays["events_offsets"]
    system = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    fields["collisions"] = CollisionLog(system=system, **columns)
    return fields


def join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of consecutive shards as those of one run."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {
        name: None if first is None else np.concatenate([part[name] for part in parts])
        for name, first in parts[0].items()
        if name != "collisions"
    }
    logs = [part["collisions"] for part in parts]
    firsts = np.cumsum([0] + [part["positions"].shape[0] for part in parts[:-1]])
    system = np.concatenate([log.system + np.int32(first) for log, first in zip(logs, firsts, strict=True)])
    columns: dict[str, Any] = {
        name: None if getattr(logs[0], name) is None else np.concatenate([getattr(log, name) for log in logs])
        for name in _EVENTS
    }
    return {**joined, "collisions": CollisionLog(system=system, **columns)}


def remove_shards(folder: Path, first: int) -> None:
    """Remove the files of shards from ``first`` on, and whatever was left aside; nothing that is not ours."""
    for path in folder.iterdir():
        match = _OURS.fullmatch(path.name)
        if match and (int(match[1]) >= first or path.name.endswith(".tmp")):
            path.unlink()


def _arrays(run: Trajectories, frame_dtype: str) -> dict[str, np.ndarray]:
    """Return every file of a run by quantity."""
    frames = {name: frame for name in _FRAMES if (frame := getattr(run, name)) is not None}
    log = run.collisions
    offsets = np.searchsorted(log.system, np.arange(run.positions.shape[0] + 1)).astype(np.int64)
    return {
        **{name: frame.astype(frame_dtype) for name, frame in frames.items()},
        **{f"start_{name}": frame[:, 0] for name, frame in frames.items()},
        **{name: array for name in _PARTICLES if (array := getattr(run, name)) is not None},
        **{f"events_{name}": column for name in _EVENTS if (column := getattr(log, name)) is not None},
        "events_offsets": offsets,
    }


def _read_array(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Return one array whose bytes are those of the manifest."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing though the manifest lists it; restore it or simulate again")
    found = sha256(path)
    if found != entry["sha256"]:
        raise ValueError(
            f"{path} was altered or truncated: sha256 {found[:12]}, expected {entry['sha256'][:12]}; "
            "restore it or simulate again"
        )
    return np.load(path, allow_pickle=False)

"""The records of a ``trajectories/`` folder: small JSON files, each written aside, forced to the disk and renamed."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simulators.state import Trajectories
from simulators.systems import SYSTEMS
from simulators.systems.imported import ImportedSystem

SCHEMA = 2
MANIFEST = "manifest.json"
UNITS = "those of the specification: lengths as in box, times as frame_interval, masses as masses"


def describe(run: Trajectories, *, seed: int | None, frame_dtype: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what all shards of a run share: the manifest less its shards."""
    _, n_frames, n_particles, dim = run.positions.shape
    return {
        "schema": SCHEMA,
        "library": f"emergence-lab {version('emergence-lab')}",
        "engine": run.engine,
        "system": specification(run.system),
        "seed": seed,
        "provenance": provenance,
        "frame_interval": run.frame_interval,
        "frame_dtype": frame_dtype,
        "units": UNITS,
        "shape": {"frame": n_frames, "particle": n_particles, "dim": dim},
    }


def specification(system: Any) -> dict[str, Any]:
    """Return a system as the manifest holds it, before JSON makes lists of its tuples."""
    return {"class": type(system).__name__, **asdict(system)}


def complete(head: Mapping[str, Any], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the manifest of a whole run; ``content`` is one hash over the hashes of all its files."""
    n_systems = sum(shard["n_systems"] for shard in shards)
    names = sorted((name, entry["sha256"]) for shard in shards for name, entry in shard["files"].items())
    content = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return {**head, "shape": {"system": n_systems, **head["shape"]}, "content": content, "shards": shards}


def restore_system(stored: Mapping[str, Any], path: Path) -> Any:
    """Return the specification as the record it was; JSON made lists of its tuples."""
    fields = {name: _tuples(value) for name, value in stored.items()}
    known = {**SYSTEMS, ImportedSystem.__name__: ImportedSystem}
    name = fields.pop("class")
    if name not in known:
        raise ValueError(f"{path} names the system {name!r}, this version knows {', '.join(sorted(known))}")
    return known[name](**fields)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a whole run.

    Raises:
        FileNotFoundError: no such folder, or no manifest in it.
        ValueError: a manifest that cannot be read, or of another schema.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise FileNotFoundError(f"no trajectories folder at {folder}; simulate first, or check the path")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: writing was interrupted, or it is no run; simulate again")
    return read_record(path)


def read_record(path: Path) -> dict[str, Any]:
    """Return a record that states its schema."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a readable manifest ({error}); simulate again") from error
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema}, this version reads {SCHEMA}; simulate again")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a commit mark: what was renamed before it is on the disk when it is."""
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the renames in a folder to the disk, where the platform can."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_json(name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return values as JSON gives them back, refusing what it cannot hold."""
    try:
        return json.loads(json.dumps(dict(values or {})))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold JSON values only: {error}") from error


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

"""H5MD 1.1: one HDF5 file, one particles group a system, the collision log beside them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from simulators.state import CollisionLog, Trajectories
from simulators.systems.system import boundaries

from .exchange import creator, imported, need, written_aside

_LOG = "parameters/collisions"  # where H5MD has room for what it does not define
_COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced", "duration", "overlap")


def export_h5md(trajectories: Trajectories, path: str | os.PathLike[str], *, author: str = "unknown") -> None:
    """Write all systems into one file, each as a group ``particles/system_00000``.

    H5MD has no batch of systems, hence a group each. Times are the linear kind of version 1.1: a first step and an
    increment. Boundaries are ``periodic`` or ``none``; an attribute of ours, ``walls``, tells closed from open axes.
    The log lies under ``parameters``, where the format leaves room.

    Args:
        trajectories: the run.
        path: where to; a file there is replaced.
        author: the name that the format asks for.

    Raises:
        ImportError: the package ``h5py`` is missing.

    References:
        nongnu.org/h5md/h5md.html, version 1.1.
    """
    h5py = need("h5py")
    with written_aside(Path(path)) as aside, h5py.File(aside, "w") as file:
        name, version = creator()
        head = file.create_group("h5md")
        head.attrs["version"] = np.array([1, 1], dtype=np.int32)
        head.create_group("author").attrs["name"] = author
        maker = head.create_group("creator")
        maker.attrs["name"], maker.attrs["version"] = name, version
        for s in range(len(trajectories.positions)):
            _write_system(file.create_group(f"particles/system_{s:05d}"), trajectories, s)
        log = file.create_group(_LOG)
        for column in _COLUMNS:
            if getattr(trajectories.collisions, column) is not None:
                log[column] = getattr(trajectories.collisions, column)


def import_h5md(path: str | os.PathLike[str], *, radii: Any = None, masses: Any = None) -> Trajectories:
    """Read every particles group as a system; all must have the same particles, box and times.

    Args:
        path: a file of version 1.
        radii: where the file has none, which is not a standard element.
        masses: where the file has none; None for 1.

    Returns:
        Trajectories with the log in the file, else a recovered one. Velocities that are not there become central
        differences.

    Raises:
        ImportError: the package ``h5py`` is missing.
        ValueError: no such file layout, groups that disagree, uneven times, or no radii.
    """
    h5py = need("h5py")
    with h5py.File(path, "r") as file:
        if "h5md" not in file or "particles" not in file:
            raise ValueError(f"{path} is no H5MD file: it lacks the group h5md or particles")
        systems = [_read_system(file["particles"][name], path, radii, masses) for name in sorted(file["particles"])]
        collisions = None
        if _LOG in file:
            columns: dict[str, Any] = {name: file[_LOG][name][()] for name in _COLUMNS if name in file[_LOG]}
            collisions = CollisionLog(**columns)
    first = systems[0]
    if any(system["shared"] != first["shared"] or system.keys() != first.keys() for system in systems):
        raise ValueError(f"{path}: all groups must have the same box, boundary, times and elements")
    stacked = {name: np.array([system[name] for system in systems]) for name in first if name != "shared"}
    return imported(
        stacked["position"],
        stacked.get("velocity"),
        format="h5md",
        radii=stacked["radius"],
        masses=stacked["mass"],
        charges=stacked.get("charge"),
        collisions=collisions,
        **first["shared"],
    )


def _write_system(group: Any, run: Trajectories, s: int) -> None:
    """Write one system."""
    box = group.create_group("box")
    box.attrs["dimension"] = run.positions.shape[-1]
    kinds = boundaries(run.system)
    box.attrs["boundary"] = ["periodic" if kind == "periodic" else "none" for kind in kinds]
    box.attrs["walls"] = [kind == "walls" for kind in kinds]
    box["edges"] = np.array(run.system.box)
    for name, frames in (("position", run.positions), ("velocity", run.velocities)):
        element = group.create_group(name)
        element["value"] = frames[s]
        element["step"] = 1
        element["step"].attrs["offset"] = 0
        element["time"] = run.frame_interval
        element["time"].attrs["offset"] = 0.0
    group["id"] = np.arange(run.positions.shape[2])
    group["species"] = np.zeros(run.positions.shape[2], dtype=np.int32)
    group["mass"], group["radius"] = run.masses[s], run.radii[s]
    if run.charges is not None:
        group["charge"] = run.charges[s]


def _read_system(group: Any, path: Any, radii: Any, masses: Any) -> dict[str, Any]:
    """Return the arrays of one system, and what all systems must share."""
    box, position = group["box"], group["position"]
    if "edges" not in box:
        raise ValueError(f"{path}: {group.name}/box has no edges")
    edges = box["edges"]["value"][0] if hasattr(box["edges"], "keys") else box["edges"][()]
    if edges.ndim == 2:
        if np.count_nonzero(edges - np.diag(np.diag(edges))):
            raise ValueError(f"{path}: {group.name} has a box that is not rectangular")
        edges = np.diag(edges)
    walls = box.attrs.get("walls", [False] * len(edges))
    kinds = [kind.decode() if isinstance(kind, bytes) else str(kind) for kind in box.attrs["boundary"]]
    boundary = tuple(
        "periodic" if k == "periodic" else "walls" if w else "open" for k, w in zip(kinds, walls, strict=True)
    )
    n_particles = position["value"].shape[1]
    if "radius" not in group and radii is None:
        raise ValueError(f"{path} has no radii; pass radii=")
    found: dict[str, Any] = {
        "position": position["value"][()],
        "radius": _element(group, "radius", n_particles, radii),
        "mass": _element(group, "mass", n_particles, 1.0 if masses is None else masses),
        "shared": {
            "frame_interval": _frame_interval(position, path),
            "box": tuple(float(edge) for edge in edges),
            "boundary": boundary,
        },
    }
    if "velocity" in group:
        found["velocity"] = group["velocity"]["value"][()]
    if "charge" in group:
        found["charge"] = _element(group, "charge", n_particles, None)
    return found


def _element(group: Any, name: str, n_particles: int, otherwise: Any) -> np.ndarray:
    """Return what does not change with time, of each particle."""
    if name not in group:
        return np.array(np.broadcast_to(np.asarray(otherwise, np.float64), n_particles))
    element = group[name]
    values = element["value"][0] if hasattr(element, "keys") else element[()]
    return np.asarray(values, dtype=np.float64)


def _frame_interval(position: Any, path: Any) -> float:
    """Return the time between frames: the increment of linear times, or that of a list of them."""
    if "time" not in position:
        raise ValueError(f"{path}: {position.name} has no time")
    time = position["time"][()]
    if np.ndim(time) == 0:
        return float(time)
    steps = np.diff(time)
    if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-6):
        raise ValueError(f"{path}: {position.name}/time must be evenly spaced")
    return float((time[-1] - time[0]) / len(steps))

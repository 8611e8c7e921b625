"""LAMMPS dump text: one system a file, ``id type x y z vx vy vz radius mass`` a row."""

import os
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from simulators.state import Trajectories
from simulators.systems.system import boundaries

from .exchange import Boundary, imported, one_system, written_aside

_COLUMNS = ("id", "type", "x", "y", "z", "vx", "vy", "vz", "radius", "mass")
_LETTERS = {"periodic": "pp", "walls": "ff", "open": "ss"}


def export_lammps(trajectories: Trajectories, path: str | os.PathLike[str], *, system: int = 0) -> None:
    """Write one system as a dump with 17 digits, so that numbers come back as they were.

    Discs have z = 0 in a box from -0.5 to 0.5. ``ITEM: TIME`` tells the simulation time, as ``dump_modify time yes``.

    Args:
        trajectories: the run; the log of collisions is not part of this format.
        path: where to; a file there is replaced.
        system: which of its systems.

    Raises:
        ValueError: no such system.

    Cost:
        About 200 bytes a particle and frame.

    References:
        docs.lammps.org/dump.html, style custom.
    """
    s = one_system(trajectories, system)
    _, n_frames, n_particles, dim = trajectories.positions.shape
    letters = [_LETTERS[kind] for kind in boundaries(trajectories.system)] + ["pp"] * (3 - dim)
    bounds = [(0.0, side) for side in trajectories.system.box] + [(-0.5, 0.5)] * (3 - dim)
    head = [f"ITEM: BOX BOUNDS {' '.join(letters)}"] + [f"{low!r} {high!r}" for low, high in bounds]
    head.append(f"ITEM: ATOMS {' '.join(_COLUMNS)}")
    flat = ((0, 0), (0, 3 - dim))
    with written_aside(Path(path)) as aside, open(aside, "w", encoding="ascii") as file:
        for k in range(n_frames):
            file.write(f"ITEM: TIME\n{k * trajectories.frame_interval!r}\nITEM: TIMESTEP\n{k}\n")
            file.write("\n".join([f"ITEM: NUMBER OF ATOMS\n{n_particles}", *head]) + "\n")
            vectors = (np.pad(array[s, k], flat) for array in (trajectories.positions, trajectories.velocities))
            rows = np.column_stack([*vectors, trajectories.radii[s], trajectories.masses[s]])
            file.writelines(f"{i + 1} 1 {' '.join(map(repr, row))}\n" for i, row in enumerate(rows.tolist()))


def import_lammps(
    path: str | os.PathLike[str],
    *,
    frame_interval: float | None = None,
    radii: Any = None,
    masses: Any = None,
    boundary: Boundary | None = None,
) -> Trajectories:
    """Read one system from a dump of style custom, its atoms in any order.

    It is taken as two-dimensional where every z is 0. Velocities that are not there become central differences.

    Args:
        path: a dump, not compressed.
        frame_interval: time between frames; None to take ``ITEM: TIME``.
        radii: where the dump has neither ``radius`` nor ``diameter``.
        masses: where the dump has no ``mass``; None for 1.
        boundary: None to take that of the box: ``p`` is periodic, ``f`` walls, others open.

    Returns:
        Trajectories of one system, its lower corner at the origin, with a recovered log.

    Raises:
        ValueError: no times, radii or positions in it, a triclinic box, or a box or number of atoms that changes.
    """
    with open(path, encoding="ascii") as file:
        frames = list(iter(lambda: _read_frame(file, path), None))
    column = _columns(frames, path)
    first = frames[0]
    if frame_interval is None:
        if first["time"] is None or len(frames) < 2:
            raise ValueError(f"{path} does not tell the time between frames; pass frame_interval=")
        frame_interval = float(frames[-1]["time"] - first["time"]) / (len(frames) - 1)
    positions = _vectors(column, ("x", "y", "z"))
    if positions is None:
        positions = _vectors(column, ("xu", "yu", "zu"))
    if positions is None:
        raise ValueError(f"{path} must have the columns x y z or xu yu zu, got {' '.join(column)}")
    dim = 3 if positions[..., 2].any() else 2
    low, high = np.array(first["box"]).T[:, :dim]
    velocities = _vectors(column, ("vx", "vy", "vz"))
    if radii is None:
        if not {"radius", "diameter"} & column.keys():
            raise ValueError(f"{path} has no radii; pass radii=")
        radii = column["radius"][0] if "radius" in column else column["diameter"][0] / 2
    if masses is None:
        masses = column["mass"][0] if "mass" in column else 1.0
    if boundary is None:
        boundary = tuple({"p": "periodic", "f": "walls"}.get(letters[0], "open") for letters in first["letters"][:dim])
    return imported(
        positions[None, ..., :dim] - low,
        None if velocities is None else velocities[None, ..., :dim],
        format="lammps",
        frame_interval=frame_interval,
        radii=radii,
        masses=masses,
        box=(high - low).tolist(),
        boundary=boundary,
    )


def _columns(frames: list[Any], path: Any) -> dict[str, np.ndarray]:
    """Return each column of all frames, (frame, atom)."""
    if not frames:
        raise ValueError(f"{path} holds no frame")
    first = frames[0]
    for frame in frames:
        same = frame["names"] == first["names"] and frame["box"] == first["box"]
        if not same or frame["rows"].shape != first["rows"].shape:
            raise ValueError(f"{path}: box, columns and number of atoms must not change")
    return {name: np.array([frame["rows"][:, n] for frame in frames]) for n, name in enumerate(first["names"])}


def _vectors(column: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """Return three columns as vectors, (frame, atom, 3), where they are there."""
    return np.stack([column[name] for name in names], axis=-1) if set(names) <= column.keys() else None


def _read_frame(file: TextIO, path: Any) -> dict[str, Any] | None:
    """Return the next frame, its atoms sorted by id; None at the end."""
    frame: dict[str, Any] = {"time": None}
    n_atoms = 0
    while line := file.readline():
        item = line.removeprefix("ITEM: ").split()
        if item[:1] == ["TIME"]:
            frame["time"] = float(file.readline())
        elif item[:1] == ["TIMESTEP"]:
            file.readline()
        elif item[:3] == ["NUMBER", "OF", "ATOMS"]:
            n_atoms = int(file.readline())
        elif item[:2] == ["BOX", "BOUNDS"]:
            if len(item) != 5:
                raise ValueError(f"{path}: the box must be orthogonal with three boundaries, got {line.strip()!r}")
            frame["letters"] = item[2:]
            frame["box"] = [tuple(map(float, file.readline().split())) for _ in range(3)]
        elif item[:1] == ["ATOMS"]:
            frame["names"] = item[1:]
            rows = np.loadtxt(list(islice(file, n_atoms)), ndmin=2)
            if len(rows) != n_atoms:
                raise ValueError(f"{path} ends within a frame: {len(rows)} of {n_atoms} atoms")
            frame["rows"] = rows[np.argsort(rows[:, item.index("id") - 1])] if "id" in item else rows
            return frame
        elif item[:1] != ["UNITS"]:
            raise ValueError(f"{path} is no dump of style custom: {line.strip()!r}")
        else:
            file.readline()
    return None

"""GSD with the HOOMD schema: one system a file, box centred on the origin."""

import os
from pathlib import Path

import numpy as np

from simulators.state import Trajectories
from simulators.systems.system import boundaries

from .exchange import Boundary, imported, need, one_system, written_aside


def export_gsd(trajectories: Trajectories, path: str | os.PathLike[str], *, system: int = 0) -> None:
    """Write one system for OVITO, freud or HOOMD-blue.

    Everything is float32. Discs have ``dimensions = 2`` and z = 0. The format knows periodic boxes only; ``log`` keeps
    the frame interval and which axes have walls or are open.

    Args:
        trajectories: the run; the log of collisions is not part of this format.
        path: where to; a file there is replaced.
        system: which of its systems.

    Raises:
        ImportError: the package ``gsd`` is missing.
        ValueError: no such system.

    References:
        gsd.readthedocs.io, HOOMD schema; 2-D boxes have Lz = 0 there.
    """
    hoomd = need("gsd.hoomd")
    s = one_system(trajectories, system)
    _, n_frames, n_particles, dim = trajectories.positions.shape
    sides = np.array([*trajectories.system.box, 0.0][:3])
    kinds = ("periodic", "walls", "open")
    with written_aside(Path(path)) as aside, hoomd.open(name=str(aside), mode="w") as file:
        for k in range(n_frames):
            frame = hoomd.Frame()
            frame.configuration.step = k
            frame.configuration.dimensions = dim
            frame.configuration.box = [*sides, 0.0, 0.0, 0.0]
            frame.particles.N = n_particles
            frame.particles.position = _three(trajectories.positions[s, k] - sides[:dim] / 2)
            frame.particles.velocity = _three(trajectories.velocities[s, k])
            frame.particles.diameter = 2 * trajectories.radii[s]
            frame.particles.mass = trajectories.masses[s]
            if trajectories.charges is not None:
                frame.particles.charge = trajectories.charges[s]
            frame.log["frame_interval"] = np.array([trajectories.frame_interval])
            frame.log["boundary"] = np.array([kinds.index(kind) for kind in boundaries(trajectories.system)])
            file.append(frame)


def import_gsd(
    path: str | os.PathLike[str], *, frame_interval: float | None = None, boundary: Boundary | None = None
) -> Trajectories:
    """Read one system; every frame must have the particles and the box of the first.

    Args:
        path: a file with the HOOMD schema.
        frame_interval: time between frames; None to take what ``export_gsd`` logged.
        boundary: None to take what ``export_gsd`` logged, else ``"periodic"``, as the format has it.

    Returns:
        Trajectories of one system, its corner at the origin, with a recovered log.

    Raises:
        ImportError: the package ``gsd`` is missing.
        ValueError: no frame interval, or a box or number of particles that changes.
    """
    hoomd = need("gsd.hoomd")
    with hoomd.open(name=str(path), mode="r") as file:
        frames = list(file)
    first = frames[0]
    dim = int(first.configuration.dimensions)
    if len({(frame.particles.N, *frame.configuration.box) for frame in frames}) != 1:
        raise ValueError(f"{path}: box and number of particles must not change")
    if frame_interval is None:
        if "frame_interval" not in first.log:
            raise ValueError(f"{path} does not tell the time between frames; pass frame_interval=")
        frame_interval = float(first.log["frame_interval"][0])
    if boundary is None:
        kinds = ("periodic", "walls", "open")
        boundary = tuple(kinds[int(kind)] for kind in first.log["boundary"]) if "boundary" in first.log else "periodic"
    sides = np.array(first.configuration.box[:dim], dtype=np.float64)
    charges = np.array(first.particles.charge, dtype=np.float64)[None]
    return imported(
        np.array([frame.particles.position[:, :dim] for frame in frames], dtype=np.float64)[None] + sides / 2,
        np.array([frame.particles.velocity[:, :dim] for frame in frames], dtype=np.float64)[None],
        format="gsd",
        frame_interval=frame_interval,
        radii=np.array(first.particles.diameter, dtype=np.float64) / 2,
        masses=np.array(first.particles.mass, dtype=np.float64),
        box=sides.tolist(),
        boundary=boundary,
        charges=charges if charges.any() else None,
    )


def _three(vectors: np.ndarray) -> np.ndarray:
    """Return vectors with a third component."""
    return np.pad(vectors, ((0, 0), (0, 3 - vectors.shape[1]))).astype(np.float32)

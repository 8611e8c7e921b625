"""What an animation shows: one system at the pictures' own times, and where and when it collided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from simulators import ParticleState, Trajectories, periodic_axes, simulate


@dataclass(frozen=True)
class Film:
    """One system, picture by picture.

    Attributes:
        title: name of the system and its size.
        box: side lengths.
        periodic: which axes wrap.
        times: simulation time of each picture.
        positions: centres at those times.
        radii: of the particles.
        charges: of the particles, zero where there are none.
        edges: pairs joined by springs.
        hit_times: simulation time of each collision, or of the begin of a contact.
        hit_points: where the surfaces met.
        hit_particles: who met; the second is negative for a wall.
        hit_strengths: impulse relative to the 95th percentile of the film, at most 1.
    """

    title: str
    box: tuple[float, ...]
    periodic: Bool[np.ndarray, " dim"]
    times: Float[np.ndarray, " picture"]
    positions: Float[np.ndarray, "picture particle dim"]
    radii: Float[np.ndarray, " particle"]
    charges: Float[np.ndarray, " particle"]
    edges: Int[np.ndarray, "edge two"]
    hit_times: Float[np.ndarray, " hit"]
    hit_points: Float[np.ndarray, "hit dim"]
    hit_particles: Int[np.ndarray, "hit two"]
    hit_strengths: Float[np.ndarray, " hit"]


def make_film(trajectories: Trajectories, *, which: int = 0, n_pictures: int = 300) -> Film:
    """Follow one system again from its exact start, with a frame for each picture.

    Imported trajectories, whose law nobody knows, show the frames they have.

    Args:
        trajectories: a run.
        which: the system to show.
        n_pictures: pictures from the first frame to the last, at least 2.

    Raises:
        ValueError: no such system, or too few pictures.
    """
    n_systems, n_frames = trajectories.positions.shape[:2]
    if not 0 <= which < n_systems:
        raise ValueError(f"which must be a system in [0, {n_systems}), got {which}")
    if n_pictures < 2:
        raise ValueError(f"n_pictures must be at least 2, got {n_pictures}")
    run, index = trajectories, which
    if trajectories.engine != "imported":
        run, index = _again(trajectories, which, (n_frames - 1) * trajectories.frame_interval / (n_pictures - 1)), 0
    return _film_of(run, index)


def _again(trajectories: Trajectories, which: int, interval: float) -> Trajectories:
    """Simulate one system anew; frames do not disturb the dynamics, so it takes the same path."""
    start = trajectories.state(0)
    arrays: dict[str, Any] = {
        name: None if (array := getattr(start, name)) is None else array[which : which + 1]
        for name in ParticleState.__dataclass_fields__
    }
    duration = (trajectories.positions.shape[1] - 1) * trajectories.frame_interval
    return simulate(
        trajectories.system,
        n_systems=1,
        n_frames=round(duration / interval) + 1,
        frame_interval=interval,
        rng=np.random.default_rng(0),  # draws nothing: the start is given
        initial=ParticleState(**arrays),
        engine=trajectories.engine,
    )


def _film_of(run: Trajectories, which: int) -> Film:
    system, log = run.system, run.collisions.of_system(which)
    positions, radii = run.positions[which], run.radii[which]
    picture = np.clip(np.rint(log.time / run.frame_interval).astype(int), 0, len(positions) - 1)
    scale = np.percentile(log.impulse, 95) if len(log) else 1.0
    edges = np.zeros((0, 2), dtype=int) if run.edges is None else np.argwhere(np.triu(run.edges[which] != 0, 1))
    return Film(
        title=f"{type(system).__name__}, {len(radii)} particles in {system.dim}-D",
        box=tuple(system.box),
        periodic=periodic_axes(system),
        times=run.times,
        positions=positions,
        radii=radii,
        charges=np.zeros(len(radii)) if run.charges is None else run.charges[which],
        edges=edges,
        hit_times=log.time,
        hit_points=positions[picture, log.i] - log.normal * radii[log.i][:, None],
        hit_particles=np.stack([log.i, log.j], axis=-1).astype(int),
        hit_strengths=np.minimum(log.impulse / (scale or 1.0), 1.0),
    )

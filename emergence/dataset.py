"""Collisions for their own sake: ``emergence simulate SYSTEM`` writes a data set and, if asked, animations of it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from simulators import open_trajectories, write_trajectories
from simulators.systems import SYSTEMS

from .progress import Progress

SYSTEM_NAMES = {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(): kind for name, kind in SYSTEMS.items()}
"""The systems by their names on the command line, such as ``hard-spheres``."""


@dataclass(frozen=True)
class DatasetArguments:
    """Simulate many systems and write frames and collision log; the same command again goes on where it stopped.

    Attributes:
        out: folder of the data set. Default: runs/SYSTEM.
        n_systems: independent systems.
        n_frames: snapshots a system, the start included.
        frame_interval: simulation time between snapshots.
        seed: of all draws.
        engine: auto, or one of the engines of the system.
        systems_per_shard: systems simulated and written at once. Default: 64 MB of frames.
        frame_dtype: of the stored frames; starts and collisions are float64 always.
        animate: files to draw system 0 into, ending in .gif, .mp4 or .html.
    """

    out: Path | None = None
    n_systems: int = 100
    n_frames: int = 101
    frame_interval: float = 0.1
    seed: int = 0
    engine: str = "auto"
    systems_per_shard: int | None = None
    frame_dtype: str = "float32"
    animate: tuple[Path, ...] = ()


def arguments_of(system: type) -> type:
    """Return the arguments with the fields of a system beside them."""
    field = ("system", Annotated[system, tyro.conf.arg(name="")], dataclasses.field(default_factory=system))
    kind = dataclasses.make_dataclass("DatasetArguments", [field], bases=(DatasetArguments,), frozen=True)
    kind.__doc__ = f"{DatasetArguments.__doc__}    system: see ``simulators.{system.__name__}``.\n    "
    return kind


def make_dataset(arguments: Any, out: Path, *, progress: Progress) -> str:
    """Write the data set, or what is missing of it, then the animations; return what is there in one line.

    Raises:
        ValueError: an argument out of range, or a folder with another data set.
        OSError: the folder cannot be written.
    """
    with progress.stage("simulate collisions", arguments.n_systems) as advance:
        write_trajectories(
            out,
            arguments.system,
            n_systems=arguments.n_systems,
            n_frames=arguments.n_frames,
            frame_interval=arguments.frame_interval,
            seed=arguments.seed,
            engine=arguments.engine,
            systems_per_shard=arguments.systems_per_shard,
            frame_dtype=arguments.frame_dtype,
            progress=lambda done, total: advance(done),
        )
    if arguments.animate:
        from .animation import animate

        first = open_trajectories(out, systems=slice(0, 1))
        for path in arguments.animate:
            with progress.stage(f"draw {path}", 1):
                animate(first, path)
    return f"{arguments.n_systems} systems of {type(arguments.system).__name__} in {out}"

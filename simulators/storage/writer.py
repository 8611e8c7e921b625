"""Writing runs: shard by shard, so that a process killed at any instant loses no finished shard."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from simulators.simulate import simulate
from simulators.state import Trajectories
from simulators.systems import System

from .manifest import (
    MANIFEST,
    SCHEMA,
    as_json,
    complete,
    describe,
    read_manifest,
    read_record,
    specification,
    sync_folder,
    write_record,
)
from .shards import remove_shards, write_shard

_HEAD = "unfinished.json"  # what all shards share; there until the manifest is
_FRAME_DTYPES = ("float32", "float64")
_SHARD_BYTES = 64 << 20  # of frames; ours: big enough that small files cost nothing, small enough to lose


def save_trajectories(
    trajectories: Trajectories,
    folder: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    frame_dtype: str = "float32",
) -> None:
    """Write a run as one shard, found whole or not at all, whenever the process is killed.

    Frames are rounded to float32 (relative 6e-8); start states, radii, masses and events stay float64, so a run can be
    repeated from its start, which it could not from rounded frames. Equal runs give equal bytes: nothing tells
    the date. An older run in the folder is replaced.

    Args:
        trajectories: the run.
        folder: where to; created with its parents.
        provenance: what else to remember, JSON values only.
        frame_dtype: ``"float32"`` or ``"float64"``, of the frames after the first.

    Raises:
        TypeError: ``provenance`` is not JSON.
        ValueError: another ``frame_dtype``.
        OSError: the folder cannot be written or the disk is full.

    Cost:
        16 bytes a particle and frame in two dimensions, and one SHA-256 pass.
    """
    folder = Path(folder)
    remembered = as_json("provenance", provenance)
    _check_dtype(frame_dtype)
    with _telling_where(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on the old run is no longer whole
        _remove_records(folder)
        remove_shards(folder, 0)
        shard = write_shard(folder, 0, trajectories, frame_dtype)
        head = describe(trajectories, seed=trajectories.seed, frame_dtype=frame_dtype, provenance=remembered)
        write_record(folder / MANIFEST, complete(head, [shard]))


class TrajectoryWriter:
    """A run that grows shard by shard: ``append`` each, then ``finish``.

    A shard counts once its record ``shard_00000.json`` is in place, after its files. Killed before that, the next
    writer in the folder removes what was torn and goes on after the last whole shard. ``finish`` puts all records
    into the manifest; a folder without one is refused by ``open_trajectories``.

    Attributes:
        n_shards: shards that are whole, those of earlier writers included.
        n_systems: systems in them.

    Args:
        folder: where to; created with its parents. One writer at a time.
        provenance: what else to remember, JSON values only; as in the writer before, where there was one.
        frame_dtype: ``"float32"`` or ``"float64"``, of the frames after the first of each system.

    Raises:
        FileExistsError: the folder holds a finished run.
        TypeError: ``provenance`` is not JSON.
        ValueError: an unfinished run with other settings, or one of another version.

    Cost:
        One shard in memory; a handful of forced writes a shard.

    Example:
        >>> import tempfile
        >>> from simulators import HardSpheres, simulate
        >>> folder = tempfile.mkdtemp()
        >>> with TrajectoryWriter(folder) as writer:
        ...     for shard in range(writer.n_shards, 2):
        ...         rng = np.random.default_rng((0, shard))
        ...         writer.append(simulate(HardSpheres(), n_systems=3, n_frames=4, frame_interval=0.1, rng=rng))
        >>> writer.n_systems
        6
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        provenance: Mapping[str, Any] | None = None,
        frame_dtype: str = "float32",
    ) -> None:
        self._folder = Path(folder)
        self._provenance = as_json("provenance", provenance)
        self._frame_dtype = frame_dtype
        _check_dtype(frame_dtype)
        if (self._folder / MANIFEST).is_file():
            raise FileExistsError(f"{folder} holds a finished run; open it, or choose another folder")
        with _telling_where(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shards = _whole_shards(self._folder)
            self._head = read_record(self._folder / _HEAD) if self._shards else None
            remove_shards(self._folder, len(self._shards))
        if self._head is not None:
            asked = {"provenance": self._provenance, "frame_dtype": frame_dtype}
            _require_same(self._folder, {name: self._head[name] for name in asked}, asked)

    @property
    def n_shards(self) -> int:
        """Return how many shards are whole."""
        return len(self._shards)

    @property
    def n_systems(self) -> int:
        """Return how many systems they hold."""
        return sum(shard["n_systems"] for shard in self._shards)

    def append(self, run: Trajectories) -> None:
        """Write one more shard; when this returns, it survives whatever happens to the process.

        Args:
            run: any number of systems of the specification, engine, frames and frame interval of the shards before.

        Raises:
            ValueError: a run that does not belong to the shards before it.
            OSError: the folder cannot be written or the disk is full.
        """
        head = as_json("run", describe(run, seed=None, frame_dtype=self._frame_dtype, provenance=self._provenance))
        with _telling_where(self._folder):
            if self._head is None:
                write_record(self._folder / _HEAD, head)
                self._head = head
            _require_same(self._folder, self._head, head)
            shard = write_shard(self._folder, len(self._shards), run, self._frame_dtype)
            if self._shards and _quantities(self._shards[0]) != _quantities(shard):
                remove_shards(self._folder, len(self._shards))
                raise ValueError(
                    f"{self._folder} holds {_quantities(self._shards[0])}, got {_quantities(shard)}: all shards must "
                    "have the same optional arrays"
                )
            sync_folder(self._folder)
            write_record(self._folder / _record_name(len(self._shards)), {"schema": SCHEMA, **shard})
        self._shards.append(shard)

    def finish(self) -> None:
        """Make the run whole.

        Raises:
            ValueError: no shard was written.
        """
        if self._head is None or not self._shards:
            raise ValueError(f"{self._folder} has no shard to finish; append one first")
        with _telling_where(self._folder):
            write_record(self._folder / MANIFEST, complete(self._head, self._shards))
            _remove_records(self._folder)

    def __enter__(self) -> "TrajectoryWriter":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.finish()


def write_trajectories(
    folder: str | os.PathLike[str],
    system: System,
    *,
    n_systems: int,
    n_frames: int,
    frame_interval: float,
    seed: int,
    engine: str = "auto",
    systems_per_shard: int | None = None,
    frame_dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Simulate and write shard by shard, going on where an earlier call with the same arguments was stopped.

    Shard k is ``simulate(..., rng=numpy.random.default_rng((seed, k)))``, so any shard can be made again alone and the
    bytes are the same however often the writing was interrupted. A finished run is left as it is.

    Args:
        folder: where to; created with its parents.
        system: what to simulate.
        n_systems: how many systems in all.
        n_frames: frames a system, the start included.
        frame_interval: simulation time between frames.
        seed: of all streams.
        engine: as in ``simulate``.
        systems_per_shard: systems simulated at once. Default: 64 MB of float32 frames, our choice.
        frame_dtype: ``"float32"`` or ``"float64"``.
        progress: called after each shard, and once for those found, with systems written and systems in all.

    Raises:
        ValueError: an argument out of range, or a folder with a run of other arguments; the text names them.
        OSError: the folder cannot be written or the disk is full.

    Cost:
        That of ``simulate``, with one shard in memory.
    """
    if systems_per_shard is None:
        systems_per_shard = max(1, _SHARD_BYTES // (8 * n_frames * system.n_particles * system.dim))
    for name, number in (("n_systems", n_systems), ("systems_per_shard", systems_per_shard)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    plan = {
        "n_systems": n_systems,
        "systems_per_shard": systems_per_shard,
        "seed": seed,
        "streams": "shard k: numpy.random.default_rng((seed, k))",
    }
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        _require_same_run(folder, system, n_frames, frame_interval, frame_dtype, plan)
        _remove_records(folder)  # a call before was killed between its manifest and this
        return
    writer = TrajectoryWriter(folder, provenance=plan, frame_dtype=frame_dtype)
    if writer.n_shards:
        _require_same_run(folder, system, n_frames, frame_interval, frame_dtype, plan)
        if progress is not None:
            progress(writer.n_systems, n_systems)
    for first in range(writer.n_systems, n_systems, systems_per_shard):
        run = simulate(
            system,
            n_systems=min(systems_per_shard, n_systems - first),
            n_frames=n_frames,
            frame_interval=frame_interval,
            rng=np.random.default_rng((seed, writer.n_shards)),
            engine=engine,
        )
        writer.append(run)
        if progress is not None:
            progress(writer.n_systems, n_systems)
    writer.finish()


def _require_same_run(
    folder: Path, system: System, n_frames: int, frame_interval: float, frame_dtype: str, plan: dict[str, Any]
) -> None:
    """Refuse to go on with a run of other arguments."""
    path = folder / (MANIFEST if (folder / MANIFEST).is_file() else _HEAD)
    found = read_manifest(folder) if path.name == MANIFEST else read_record(path)
    asked = {
        "system": as_json("system", specification(system)),
        "frame_interval": float(frame_interval),
        "frame_dtype": frame_dtype,
    }
    _require_same(folder, {name: found[name] for name in asked}, asked)
    _require_same(folder, {**found["provenance"], "n_frames": found["shape"]["frame"]}, {**plan, "n_frames": n_frames})


def _require_same(folder: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse other settings than those of the shards in the folder, naming the first that differs."""
    for name in asked:
        if found.get(name) != asked[name]:
            raise ValueError(
                f"{folder} holds a run with {name} {found.get(name)!r}, got {asked[name]!r}; choose another folder, or "
                "delete it"
            )


def _quantities(shard: Mapping[str, Any]) -> list[str]:
    """Return which arrays a shard has."""
    return sorted(name.rsplit("_", 1)[0] for name in shard["files"])


def _check_dtype(frame_dtype: str) -> None:
    if frame_dtype not in _FRAME_DTYPES:
        raise ValueError(f"frame_dtype must be one of {', '.join(_FRAME_DTYPES)}, got {frame_dtype!r}")


def _record_name(number: int) -> str:
    return f"shard_{number:05d}.json"


def _remove_records(folder: Path) -> None:
    """Remove the records of an unfinished run; the last shard first, so that what is left has no gap."""
    for path in (*sorted(folder.glob("shard_[0-9]*.json"), reverse=True), folder / _HEAD):
        path.unlink(missing_ok=True)
    for path in (*folder.glob("shard_[0-9]*.json.tmp"), *(folder / f"{name}.tmp" for name in (_HEAD, MANIFEST))):
        path.unlink(missing_ok=True)


def _whole_shards(folder: Path) -> list[dict[str, Any]]:
    """Return the records from the first shard on, as far as they go without a gap."""
    shards: list[dict[str, Any]] = []
    while (path := folder / _record_name(len(shards))).is_file():
        shard = read_record(path)
        del shard["schema"]
        shards.append(shard)
    return shards


@contextmanager
def _telling_where(folder: Path) -> Iterator[None]:
    """Say in an OSError what could not be written, and what to do."""
    try:
        yield
    except FileExistsError as error:
        raise OSError(error.errno, f"cannot write trajectories to {folder} ({error.strerror})") from error
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write trajectories to {folder} ({error.strerror}); free space or choose another folder",
        ) from error

"""Random windows of a stored run, read from the disk batch by batch."""

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from .files import OpenFiles, Place
from .manifest import MANIFEST, read_manifest
from .shards import file_name


class WindowBatch(NamedTuple):
    """Windows of consecutive frames.

    Attributes:
        positions: (window, frame, particle, dim), as rounded on the disk; the first frame is not restored.
        velocities: likewise.
        systems: which system each window is of, (window,).
        first_frames: at which frame it starts, (window,).
    """

    positions: Float32[np.ndarray, "window frame particle dim"]
    velocities: Float32[np.ndarray, "window frame particle dim"]
    systems: Int64[np.ndarray, " window"]
    first_frames: Int64[np.ndarray, " window"]


class TrajectoryWindows:
    """Reads windows of a stored run without loading it.

    A memory map waits for each page in turn when the file is not in memory. Here the windows of a batch are sorted by
    place, those in memory are copied, and the kernel is told of all others at once before they are read, so that the
    disk fetches them together. Where the platform has neither hints nor positioned reads, plain reads do.

    Attributes:
        n_systems: systems in the run.
        n_frames: frames of each.
        length: frames of a window.
        frame_interval: simulation time between frames.
        radii: (system, particle).
        masses: (system, particle).

    Args:
        folder: a finished run.
        length: frames of a window, at most those of the run.

    Raises:
        FileNotFoundError: no such folder, no manifest, or a missing file.
        ValueError: a manifest that cannot be read, a length out of range, or a file of another size than the manifest
            states. Contents are not hashed, which would read everything; ``open_trajectories`` does.

    Cost:
        Two reads a window; memory for the batch, the radii and masses, and eight bytes a system.

    Example:
        >>> import tempfile
        >>> from simulators import HardSpheres, write_trajectories
        >>> folder = tempfile.mkdtemp()
        >>> write_trajectories(folder, HardSpheres(), n_systems=4, n_frames=20, frame_interval=0.1, seed=0)
        >>> windows = TrajectoryWindows(folder, length=5)
        >>> for batch in windows.batches(3, rng=np.random.default_rng(0), n_batches=2):
        ...     print(batch.positions.shape, windows.contact_labels(batch).shape)
        (3, 5, 10, 2) (3, 4, 10, 10)
        (3, 5, 10, 2) (3, 4, 10, 10)
    """

    radii: Float64[np.ndarray, "system particle"]
    masses: Float64[np.ndarray, "system particle"]

    def __init__(self, folder: str | os.PathLike[str], *, length: int) -> None:
        self._folder = Path(folder)
        manifest = read_manifest(self._folder)
        try:
            shape, shards = manifest["shape"], manifest["shards"]
            self.n_systems, self.n_frames = shape["system"], shape["frame"]
            self.frame_interval = manifest["frame_interval"]
            self._shape = (shape["particle"], shape["dim"])
            self._dtype = np.dtype(manifest["frame_dtype"])
            self._firsts = np.cumsum([0] + [shard["n_systems"] for shard in shards])  # of each shard
            self._starts = {}  # where the data of each file begin
            for shard in shards:
                for name, entry in shard["files"].items():
                    self._starts[name] = _check_file(self._folder / name, entry)
        except (KeyError, TypeError, AttributeError) as error:
            path = self._folder / MANIFEST
            raise ValueError(f"{path} lacks {error}; it was edited or damaged: simulate again") from error
        if not 1 <= length <= self.n_frames:
            raise ValueError(f"length must be in [1, {self.n_frames}], the frames of the run, got {length}")
        self.length = length
        self.radii, self.masses = (self._load_all(name) for name in ("radii", "masses"))
        self._offsets = [self._load("events_offsets", number) for number in range(len(shards))]
        self._frame_files, self._event_files = OpenFiles(self._folder), OpenFiles(self._folder)

    def read(self, systems: Int64[np.ndarray, " window"], first_frames: Int64[np.ndarray, " window"]) -> WindowBatch:
        """Read the windows that start at some frames of some systems.

        Args:
            systems: which systems, (window,).
            first_frames: where each window starts, (window,).

        Returns:
            The batch, in the order asked for.

        Raises:
            ValueError: an index out of range.
            OSError: a file ends early.
        """
        self._check("systems", systems, self.n_systems)
        self._check("first_frames", first_frames, self.n_frames - self.length + 1)
        shape = (len(systems), self.length, *self._shape)
        arrays = {name: np.empty(shape, self._dtype) for name in ("positions", "velocities")}
        self._frame_files.fill(self._places(arrays, systems, first_frames))
        single = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
        return WindowBatch(**single, systems=systems, first_frames=first_frames)

    def batches(
        self, batch_size: int, *, rng: np.random.Generator, n_batches: int
    ) -> Generator[WindowBatch, None, None]:
        """Yield batches of windows drawn uniformly, with replacement; the next is read while one is in use.

        Args:
            batch_size: windows a batch, at least 1.
            rng: the source of all draws, which are made at the first batch.
            n_batches: how many batches.

        Yields:
            Batches in newly allocated arrays.

        Raises:
            ValueError: a size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        systems = rng.integers(self.n_systems, size=(n_batches, batch_size))
        firsts = rng.integers(self.n_frames - self.length + 1, size=(n_batches, batch_size))
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="windows") as reader:
            coming = None
            for now in zip(systems, firsts, strict=True):
                ready, coming = coming, reader.submit(self.read, *now)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()

    def contact_labels(self, batch: WindowBatch) -> Bool[np.ndarray, "window interval particle particle"]:
        """Tell which pairs collided between the frames of each window, as ``contact_labels`` of the whole run does.

        Args:
            batch: windows of this run.

        Returns:
            (window, length - 1, particle, particle), symmetric.

        Cost:
            Reads the event times of the systems in the batch, and the partners of the events in the windows.
        """
        n_particles = self._shape[0]
        labels = np.zeros((len(batch.systems), self.length - 1, n_particles, n_particles), dtype=np.bool_)
        for window, (system, first) in enumerate(zip(batch.systems, batch.first_frames, strict=True)):
            shard = int(np.searchsorted(self._firsts, system, side="right")) - 1
            low, high = self._offsets[shard][system - self._firsts[shard] :][:2].tolist()
            time = self._column("events_time", shard, low, high, np.float64)
            times = np.arange(first, first + self.length) * self.frame_interval  # as Trajectories.times
            rows = low + np.searchsorted(time, times[[0, -1]], side="right")
            if first == 0:
                rows[0] = low  # an event at time 0 counts to interval 0
            interval = np.maximum(np.searchsorted(times, time[rows[0] - low : rows[1] - low], side="left") - 1, 0)
            low, high = rows.tolist()
            i, j = (self._column(f"events_{name}", shard, low, high, np.int32) for name in "ij")
            pair = j >= 0
            labels[window, interval[pair], i[pair], j[pair]] = True
            labels[window, interval[pair], j[pair], i[pair]] = True
        return labels

    def _places(
        self, arrays: dict[str, np.ndarray], systems: np.ndarray, first_frames: np.ndarray
    ) -> dict[str, list[Place]]:
        """Return for each file where the windows lie and which part of an array they fill, in the disk's order."""
        if not len(systems):
            return {}
        shards = np.searchsorted(self._firsts, systems, side="right") - 1
        order = np.lexsort((first_frames, systems))
        size = arrays["positions"].nbytes // len(systems)  # of a window, in bytes
        starts = ((systems - self._firsts[shards]) * self.n_frames + first_frames) * (size // self.length)
        buffers = {quantity: array.data.cast("B") for quantity, array in arrays.items()}
        places: dict[str, list[Place]] = {}
        where = list(zip(starts[order].tolist(), (order * size).tolist(), strict=True))
        ends = np.searchsorted(shards[order], np.arange(len(self._firsts) - 1), side="right").tolist()
        for shard, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            for quantity, buffer in buffers.items() if end > begin else ():
                name = file_name(quantity, shard)
                first = self._starts[name]
                places[name] = [(first + start, buffer[at : at + size]) for start, at in where[begin:end]]
        return places

    def _column(self, quantity: str, shard: int, low: int, high: int, dtype: Any) -> np.ndarray:
        """Return some rows of an event column."""
        name, column = file_name(quantity, shard), np.empty(high - low, dtype)
        if len(column):
            start = self._starts[name] + low * column.itemsize
            self._event_files.fill({name: [(start, column.data.cast("B"))]})
        return column

    def _load(self, quantity: str, shard: int) -> np.ndarray:
        return np.load(self._folder / file_name(quantity, shard), allow_pickle=False)

    def _load_all(self, quantity: str) -> np.ndarray:
        return np.concatenate([self._load(quantity, number) for number in range(len(self._firsts) - 1)])

    @staticmethod
    def _check(name: str, index: np.ndarray, limit: int) -> None:
        if len(index) and (index.min() < 0 or index.max() >= limit):
            raise ValueError(f"{name} must lie in [0, {limit - 1}], got [{index.min()}, {index.max()}]")


def _check_file(path: Path, entry: dict[str, Any]) -> int:
    """Return where the data of a file begin, refusing one of another size than its entry."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing though the manifest lists it; restore it or simulate again")
    size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        start = file.tell()
    if shape != tuple(entry["shape"]) or dtype != np.dtype(entry["dtype"]) or path.stat().st_size != start + size:
        raise ValueError(f"{path} was altered or truncated: {path.stat().st_size} bytes, expected {start + size}")
    return start

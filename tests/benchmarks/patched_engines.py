"""The same engines with some compiled functions replaced, to measure what these cost."""

from interleaved import Ours, spread, steps_for  # isort: skip (limits threads before numpy comes)

import resource
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numba
import numpy as np

_ENGINES = "simulators.engines."
config: Any = import_module("numba.core.config")


class PatchedEngines:
    """Within ``with``, ``simulate`` runs a second copy of all engines, in which some functions are others.

    ``replacements`` are functions by ``"module.name"``, in the order in which the modules are to be imported. The copy
    compiles on its own and keeps its kernels in a folder of its own: a cache would not notice the change.
    """

    def __init__(self, replacements: dict[str, Callable]) -> None:
        self.replacements = replacements
        self.copy: dict[str, ModuleType] = {}
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> None:
        self.originals, self.cache = _take_engines(), config.CACHE_DIR
        config.CACHE_DIR = self.folder.name
        sys.modules.update(self.copy)
        if not self.copy:
            for place, replacement in self.replacements.items():
                module, name = place.split(".")
                setattr(import_module(_ENGINES + module), name, numba.njit(replacement))

    def __exit__(self, *_) -> None:
        self.copy = _take_engines()
        sys.modules.update(self.originals)
        config.CACHE_DIR = self.cache


def _take_engines() -> dict[str, ModuleType]:
    """Remove the engines from the loaded modules."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(_ENGINES)}


def time_over_patched(
    batch: Ours, replacements: dict[str, Callable], *, bytes_a_row: int, rounds: int, seconds: float
) -> dict:
    """Return how much longer runs from the same start take than on a copy of the engines with these replacements.

    Once in all CPU time, and once without that of the operating system, which hands out the memory of the log: a byte
    of a new page costs from 0.1 ns (a huge page at hand) to 2 ns (one that a virtual machine has to ask its host for).
    ``memory_alone`` is what it takes in the same rounds to fill as much new memory as the rows have, over the run
    without them: no log that is kept can cost less.
    """
    steps = steps_for(batch, seconds)
    start, patched = batch.state, PatchedEngines(replacements)

    def spent() -> np.ndarray:
        batch.state = start
        began = _cpu_times()
        batch.advance(steps)
        return _cpu_times() - began

    ratios, memory = np.empty((rounds + 1, 2)), np.empty(rounds + 1)
    for turn in range(rounds + 1):
        with patched:
            without = spent()
        ratios[turn] = spent() / without
        memory[turn] = _seconds_to_fill(bytes_a_row * len(batch.collisions)) / without[0]
    ratios, memory = ratios[1:], memory[1:]  # the first compiled
    return spread(ratios[:, 0]) | {"without_system_time": spread(ratios[:, 1]), "memory_alone": spread(memory)}


def _seconds_to_fill(n_bytes: int) -> float:
    """Return the CPU time of filling new memory."""
    began = _cpu_times()[0]
    np.empty(n_bytes, dtype=np.uint8).fill(1)
    return _cpu_times()[0] - began


def _cpu_times() -> np.ndarray:
    """Return the CPU time of this process so far, and how much of it was not the operating system's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([usage.ru_utime + usage.ru_stime, usage.ru_utime])

"""Blocks of systems on all cores, by plain threads: compiled code that gives up the lock of Python needs no more.

Each block has memory of its own, from the first step to its part of the log, so that no thread waits for another.
Numba's own parallel loops take twice as long to compile.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np

_BLOCKS_A_THREAD = 8  # systems differ in work: with one block each, threads would wait for the last
_APART = 128  # bytes: two cache lines, which processors fetch together


def blocks_of(n_systems: int, at_once: int) -> list[slice]:
    """Return stretches that cover all systems: few, yet enough for all threads, which hold ``at_once`` at most."""
    n_threads = numba.get_num_threads()
    n_blocks = -(-n_systems // max(1, at_once // n_threads))
    if n_threads > 1:
        n_blocks = max(n_blocks, n_threads * _BLOCKS_A_THREAD)
    n_blocks = min(n_blocks, n_systems)
    return [slice(*edges) for edges in pairwise(n_systems * k // n_blocks for k in range(n_blocks + 1))]


def on_threads(work: Callable[[Any], Any], items: Iterable) -> list:
    """Return ``work`` of each item, on as many threads as numba has; the first error is raised again.

    A single thread is another one too: deep in a caller's stack, numba takes up to a fifth longer to compile.
    """
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        return list(pool.map(work, items))


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column of all blocks; a single one stays where it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def apart(values: np.ndarray) -> np.ndarray:
    """Return a contiguous copy that shares no cache line with other memory.

    For small arrays that change at every step: with those of another thread in the same line, both run at half speed.
    """
    margin = _APART // values.itemsize
    memory = np.empty(values.size + 2 * margin, dtype=values.dtype)
    copy = memory[margin : margin + values.size].reshape(values.shape)
    copy[:] = values
    return copy

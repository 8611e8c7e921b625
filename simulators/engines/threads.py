"""Compiled loops on all cores by plain threads: compiled code that gives up the lock of Python needs no more."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba

_STRETCHES_A_THREAD = 8  # so that no thread waits long for another


def share_out(n: int, work: Callable[[int, int], object]) -> None:
    """Call ``work(first, end)`` for stretches that cover ``range(n)``, on as many threads as numba has.

    Numba's own parallel loops do the same, but take twice as long to compile.
    """
    n_threads = min(numba.get_num_threads(), n)
    if n_threads <= 1:
        work(0, n)
        return
    n_stretches = min(n, _STRETCHES_A_THREAD * n_threads)
    bounds = [n * k // n_stretches for k in range(n_stretches + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))

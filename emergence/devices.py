"""Which device and how many threads; said once, here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .config import StudyConfig


def resolve_device(config: StudyConfig) -> torch.device:
    """The device a study runs on.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device is cuda, but torch sees no CUDA device; use --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Give torch and numba this many threads within the block; 0 is all cores this process may use."""
    import numba

    wanted = n_threads or n_cores()
    of_torch = torch.get_num_threads()
    of_numba = numba.get_num_threads()  # starts numba's pool, which may set torch's number (they share OpenMP)
    numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(wanted)  # hence after numba's
    try:
        yield
    finally:
        numba.set_num_threads(of_numba)
        torch.set_num_threads(of_torch)


def n_cores() -> int:
    """Cores this process may use; macOS and Windows tell only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

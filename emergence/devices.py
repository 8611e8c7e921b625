"""Which device and how many threads; said once, here."""

from __future__ import annotations

import os

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


def use_threads(n_threads: int) -> None:
    """Set torch's threads; 0 takes all cores this process may use."""
    torch.set_num_threads(n_threads or len(os.sched_getaffinity(0)))

"""Two small classification tasks of Liu, Gan & Tegmark 2023 (arXiv 2305.08746): two moons, and addition modulo p."""

from __future__ import annotations

import numpy as np
import torch

from .examples import Examples, ExampleTask


def two_moons(*, rng: np.random.Generator, n_train: int = 1000, n_test: int = 1000, noise: float = 0.1) -> ExampleTask:
    """Two interleaved half circles of radius one, the second moved by (1, 1/2), with normal noise (section 3.2)."""

    def draw(n: int) -> Examples:
        label = rng.integers(2, size=n)
        angle = rng.uniform(0, np.pi, size=n)
        x = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.where(label, -1, 1)[:, None]
        x += np.outer(label, [1.0, 0.5]) + noise * rng.normal(size=(n, 2))
        return Examples(torch.from_numpy(x).float(), torch.from_numpy(label))

    return ExampleTask(draw(n_train), draw(n_test), ("x1", "x2"), ("moon 1", "moon 2"))


def modular_addition(p: int = 59, *, rng: np.random.Generator, train_fraction: float = 0.8) -> ExampleTask:
    """All pairs of numbers below p; the class is their sum modulo p (section 3.3).

    Raises:
        ValueError: ``p`` below 2, or a fraction that leaves no pair to learn or to test.
    """
    if p < 2:
        raise ValueError(f"p must be at least 2, got {p}")
    pairs = np.stack(np.divmod(rng.permutation(p**2), p), axis=1)
    n_train = int(train_fraction * len(pairs))
    if not 0 < n_train < len(pairs):
        raise ValueError(f"train_fraction must leave pairs on both sides, got {train_fraction}")
    inputs, targets = torch.from_numpy(pairs), torch.from_numpy(pairs.sum(1) % p)
    return ExampleTask(Examples(inputs[:n_train], targets[:n_train]), Examples(inputs[n_train:], targets[n_train:]))

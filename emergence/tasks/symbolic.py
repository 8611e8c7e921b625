"""Formulas whose structure a modular network shows: Liu, Gan & Tegmark 2023 (arXiv 2305.08746), section 3.1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .examples import Examples, ExampleTask

_Formula = Callable[[np.ndarray], list[np.ndarray]]

_FORMULAS: dict[str, tuple[int, tuple[str, ...], _Formula]] = {
    "independence": (
        4,
        ("(x1+x3)³", "x2²+sin πx4"),
        lambda x: [(x[:, 0] + x[:, 2]) ** 3, x[:, 1] ** 2 + np.sin(np.pi * x[:, 3])],
    ),
    "feature-sharing": (
        3,
        ("x1²", "x1²+x2²", "x1²+x2²+x3²"),
        lambda x: list(np.cumsum(x**2, axis=1).T),
    ),
    "composition": (
        4,
        ("√((x1-x2)²+(x3-x4)²)",),
        lambda x: [np.hypot(x[:, 0] - x[:, 1], x[:, 2] - x[:, 3])],
    ),
}
FORMULAS = tuple(_FORMULAS)


def formula_names(formula: str) -> tuple[str, ...]:
    """What the outputs of a formula are called."""
    return _FORMULAS[formula][1]


def symbolic_task(formula: str, *, rng: np.random.Generator, n_train: int = 100, n_test: int = 1000) -> ExampleTask:
    """Inputs uniform on [-1, 1]; the method's paper has 100 examples to learn and 100 to test.

    Raises:
        ValueError: unknown formula.
    """
    if formula not in _FORMULAS:
        raise ValueError(f"formula must be one of {', '.join(FORMULAS)}, got {formula!r}")
    n_inputs, target_names, compute = _FORMULAS[formula]

    def draw(n: int) -> Examples:
        x = rng.uniform(-1, 1, size=(n, n_inputs))
        y = np.stack(compute(x), axis=1)
        return Examples(torch.from_numpy(x).float(), torch.from_numpy(y).float())

    return ExampleTask(draw(n_train), draw(n_test), tuple(f"x{i + 1}" for i in range(n_inputs)), target_names)

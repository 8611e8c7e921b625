"""Real data that scikit-learn ships: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn import datasets

from .examples import Examples, ExampleTask

DatasetName = Literal["digits", "breast-cancer", "diabetes"]
_LOADERS: dict[str, Callable[[], Any]] = {
    "digits": datasets.load_digits,
    "breast-cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
}
DATASETS = tuple(_LOADERS)


def dataset_task(name: DatasetName | str, *, rng: np.random.Generator, test_fraction: float = 0.25) -> ExampleTask:
    """Handwritten digits (1797 x 64, ten classes), breast cancer (569 x 30, two), or diabetes (442 x 10, a number).

    Columns have mean zero and deviation one over the examples to learn; one that is constant there is zero.

    Raises:
        ValueError: unknown name, or a fraction that leaves nothing to learn or to test.
    """
    if name not in _LOADERS:
        raise ValueError(f"name must be one of {', '.join(DATASETS)}, got {name!r}")
    data = _LOADERS[name]()
    n = len(data.data)
    n_test = int(test_fraction * n)
    if not 0 < n_test < n:
        raise ValueError(f"test_fraction must leave examples on both sides of {n}, got {test_fraction}")
    order = rng.permutation(n)
    test, train = order[:n_test], order[n_test:]
    inputs = torch.from_numpy(_standardized(data.data, train)).float()
    if data.target.dtype.kind == "i":
        targets = torch.from_numpy(data.target)
    else:
        targets = torch.from_numpy(_standardized(data.target[:, None], train)).float()
    return ExampleTask(
        Examples(inputs[train], targets[train]),
        Examples(inputs[test], targets[test]),
        tuple(map(str, data.feature_names)),
        tuple(map(str, getattr(data, "target_names", ("progression",)))),
    )


def _standardized(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Columns in units of their deviation over the rows ``train``."""
    mean, deviation = columns[train].mean(0), columns[train].std(0)
    return (columns - mean) / np.where(deviation > 0, deviation, 1)

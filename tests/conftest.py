"""Seeded randomness and one thread: results do not depend on the machine's cores, nor tests on each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture()
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


@pytest.fixture()
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20261121)

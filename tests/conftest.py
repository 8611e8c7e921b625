"""Seeded randomness and one thread: results do not depend on the machine's cores, nor tests on each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")  # its OpenMP pool would set torch's threads to all cores

import numpy as np
import pytest
import torch
from jaxtyping import config

torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20261121)


@pytest.fixture
def as_users_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of annotations that the tests switch on: what reaches a function must be refused by it."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory: pytest.TempPathFactory):
    """A finished micro study, never stopped. Read only: copy it before changing anything."""
    from micro_study import micro

    from emergence import run_study

    return run_study(micro(), tmp_path_factory.mktemp("micro") / "run")

"""A study of seconds: every stage of a real one, on a network too small to learn. Shared by the tests of emergence."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emergence.checkpoints import Checkpoints
from emergence.config import (
    AdamW,
    DataConfig,
    HessianConfig,
    LLCConfig,
    ModelConfig,
    ProbeConfig,
    StudyConfig,
    TrainingConfig,
)
from emergence.data import Transitions, make_transitions
from emergence.model import ParticleTransformer
from simulators import HardSpheres, simulate

MODEL = ModelConfig(n_layers=2, n_heads=2, d_model=16, d_head=8, d_mlp=32)

TOML = """
device = "cpu"
n_threads = 1
[data]
n_systems = 20
n_frames = 20
n_evaluation_systems = 20
[model]
n_layers = 1
n_heads = 2
d_model = 16
d_head = 8
d_mlp = 32
[training]
n_steps = 30
batch_size = 32
n_warmup_steps = 5
n_checkpoints = 4
[probes]
n_scenes = 100
n_permutations = 100
n_knockout_edges = 16
[probes.llc]
n_chains = 2
n_draws = 8
n_burnin = 4
batch_size = 16
n_checkpoints = 2
[probes.hessian]
n_scenes = 32
n_top = 2
n_probes = 2
n_steps = 5
n_checkpoints = 2
"""
"""The settings of ``micro`` as a file for ``emergence run --config``."""


def micro(**changes: Any) -> StudyConfig:
    settings: dict[str, Any] = {
        "device": "cpu",
        "n_threads": 1,
        "data": DataConfig(n_systems=20, n_frames=20, n_evaluation_systems=20),
        "model": ModelConfig(n_layers=1, n_heads=2, d_model=16, d_head=8, d_mlp=32),
        "training": TrainingConfig(n_steps=30, batch_size=32, n_warmup_steps=5, n_checkpoints=4),
        "probes": ProbeConfig(
            n_scenes=100,
            n_permutations=100,
            n_knockout_edges=16,
            llc=LLCConfig(n_chains=2, n_draws=8, n_burnin=4, batch_size=16, n_checkpoints=2),
            hessian=HessianConfig(n_scenes=32, n_top=2, n_probes=2, n_steps=5, n_checkpoints=2),
        ),
    }
    return StudyConfig(**(settings | changes))


def few_transitions(n_systems: int = 6, n_frames: int = 8, **system: Any) -> Transitions:
    run = simulate(
        HardSpheres(**{"n_particles": 5, **system}),
        n_systems=n_systems,
        n_frames=n_frames,
        frame_interval=0.1,
        rng=np.random.default_rng(7),
    )
    return make_transitions(run)


def fresh_model(seed: int = 3) -> ParticleTransformer:
    return ParticleTransformer(MODEL, 6, 4, torch.Generator().manual_seed(seed))


def checkpoints_in(folder: Path) -> Checkpoints:
    return Checkpoints(folder, lambda: ParticleTransformer(MODEL, 6, 4))


def short_training(**changes: Any) -> TrainingConfig:
    settings = {
        "n_steps": 60,
        "batch_size": 16,
        "n_warmup_steps": 10,
        "n_checkpoints": 6,
        "optimizer": AdamW(learning_rate=1e-2),
    }
    return TrainingConfig(**(settings | changes))


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, temporary ones included: what must be equal when two runs are."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(run_folder: Path) -> dict[str, str]:
    """Contents of everything in a run folder that must not depend on when or how often it was stopped."""
    kept = ("config.json", "trajectories", "checkpoints", "measurements.parquet")
    return {name: digest for name, digest in contents(run_folder).items() if name.split("/")[0] in kept}

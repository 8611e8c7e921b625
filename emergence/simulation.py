"""The first stage of a study: simulate the boxes of each arm, and read them back as training examples."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulators import open_trajectories, save_trajectories, simulate

from .config import StudyConfig
from .data import Transitions, make_transitions
from .devices import resolve_device

if TYPE_CHECKING:
    from .run import Run

SPLITS = ("train", "evaluation")


def simulate_arm(run: Run, arm: str) -> None:
    """Write the trajectories of an arm, both splits, unless they are there.

    Both arms draw the same start states: what differs is only whether discs feel each other.
    """
    data = run.config.data
    system = data.system if arm == "discs" else replace(data.system, interacting=False)
    for number, split in enumerate(SPLITS):
        folder = _folder(run, arm, split)
        if (folder / "manifest.json").is_file():
            continue
        seed = (run.config.seeds[0], number)
        trajectories = simulate(
            system,
            n_systems=data.n_systems if split == "train" else data.n_evaluation_systems,
            n_frames=data.n_frames,
            frame_interval=data.frame_interval,
            rng=np.random.default_rng(seed),
        )
        save_trajectories(trajectories, folder, provenance={"seed": seed})


def load_transitions(run: Run, arm: str) -> tuple[Transitions, Transitions]:
    """Training and evaluation scenes; the evaluation scenes are scaled like the training scenes."""
    return _load(str(run.folder), run.config, arm, str(resolve_device(run.config)))


@lru_cache(maxsize=2)
def _load(folder: str, config: StudyConfig, arm: str, device: str) -> tuple[Transitions, Transitions]:
    from .run import Run

    run = Run(Path(folder), config)
    train = make_transitions(open_trajectories(_folder(run, arm, "train")), device=device)
    evaluation = open_trajectories(_folder(run, arm, "evaluation"))
    return train, make_transitions(evaluation, normalization=train.normalization, device=device)


def _folder(run: Run, arm: str, split: str) -> Path:
    return run.folder / "trajectories" / arm / split

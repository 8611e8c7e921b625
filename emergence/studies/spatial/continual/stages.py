"""The two stages of a run: the old tasks, then from there the new ones alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ....interventions.spatial import Spatial
from ....tasks.examples import ExampleTask
from ....tasks.several import SeveralCognitive, SeveralOutputs, SeveralTasks
from ..config import SpatialRun, with_steps
from ..examples import example
from ..training import TrainedRun, trained_run
from .config import ContinualStudyConfig

N_WARMUP_STEPS = 100
"""Of the second stage: a fresh Adam steps at the full rate in every weight, however small its gradient, until its
moments have settled; a slow start keeps that from being mistaken for forgetting. Our choice."""


def all_tasks(config: ContinualStudyConfig, seed: int) -> SeveralTasks:
    """Old and new tasks of a seed, the same for all arms."""
    if config.example == "cognitive":
        return SeveralCognitive()
    whole = example(config.example).task(np.random.default_rng((seed, 1)))
    assert isinstance(whole, ExampleTask)
    return SeveralOutputs(whole)


def old_stage(folder: Path, config: ContinualStudyConfig, run: SpatialRun) -> TrainedRun:
    """From scratch on the old tasks, with the settings of the example."""
    base, tasks = example(config.example), all_tasks(config, run.seed)
    training = with_steps(base.training, config.n_steps or base.training.n_steps)
    old = replace(base, task=lambda rng: tasks.some(config.old_tasks), training=training)
    return trained_run(folder / "old", run, old)


def new_stage(
    folder: Path, config: ContinualStudyConfig, run: SpatialRun, old: TrainedRun, later_price: float
) -> TrainedRun:
    """From the end of the first stage on the new tasks alone.

    A fresh optimizer at the same learning rate, which rises over ``N_WARMUP_STEPS`` and does not fall; swaps go on, and
    wire costs ``later_price`` times what it cost at the end of the first stage.
    """
    tasks, last = all_tasks(config, run.seed), old.example.training.n_steps
    n_steps = config.n_new_steps or max(1, last // 4)
    training = replace(
        old.example.training,
        n_steps=n_steps,
        n_warmup_steps=min(N_WARMUP_STEPS, n_steps),
        n_decay_steps=0,
        n_checkpoints=config.n_checkpoints,
    )
    new = replace(
        old.example,
        task=lambda rng: tasks.some(config.new_tasks),
        model=lambda generator: old.load(last)[0],
        place=lambda model: old.load(last)[1],
        spatial=_as_at_the_end(old.example.spatial, later_price),
        training=training,
    )
    return trained_run(folder / f"new_{later_price:g}", run, new)


def _as_at_the_end(price: Spatial, factor: float) -> Spatial:
    return replace(price, schedule=((0.0, price.schedule[-1][1] * factor),), biases_from=0.0)

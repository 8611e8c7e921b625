"""A study of learning by next-layer attention from settings to page."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from probes import Measurement

from ...checkpoints import Checkpoints
from ...interventions import next_layer_attention
from ...training import missing_steps, train
from ..study import method_study
from ..supervised import sizes, study_task
from .config import NextLayerRun, NextLayerStudyConfig
from .measuring import measure, measure_trained
from .networks import rule_network


def _train_and_measure(cell: tuple[Path, NextLayerStudyConfig, NextLayerRun]) -> pd.DataFrame:
    """Train one run and measure its checkpoints. All rules of a seed begin alike and see the same examples."""
    folder, config, run = cell
    task, validation = study_task(config.task, rng=np.random.default_rng((run.seed, 1)))
    training = config.training(run.learning_rate)

    def make_model() -> nn.Module:
        generator = _seeded(run.seed)
        return rule_network(run.rule, run.depth, config.width, sizes(task), drop=run.drop, generator=generator)

    checkpoints = Checkpoints(folder / "checkpoints" / run.name, make_model)
    if missing_steps(training, checkpoints):
        model = make_model()
        method = next_layer_attention.NextLayerTraining(model)
        try:
            train(model, task, training, seed=run.seed, checkpoints=checkpoints, intervention=method)
        except FloatingPointError:  # this learning rate is not one to choose
            return _table([(training.n_steps, Measurement("validation_error", np.inf))], training.n_steps, run)
    rows = [(step, found) for step in checkpoints.steps for found in measure(checkpoints.load(step), task, validation)]
    trained = checkpoints.load(training.n_steps)
    rows += [(training.n_steps, found) for found in measure_trained(trained, task, _seeded(run.seed))]
    _keep_last(checkpoints)
    return _table(rows, training.n_steps, run)


def _table(rows: list[tuple[int, Measurement]], last: int, run: NextLayerRun) -> pd.DataFrame:
    table = pd.DataFrame([{"step": step, **asdict(found)} for step, found in rows])
    moment = np.where(table.step == last, "end", "training")
    return table.drop(columns=["layer", "head"]).assign(moment=moment, **asdict(run))


def _keep_last(checkpoints: Checkpoints) -> None:
    """What is measured is kept; the checkpoints of hundreds of deep networks would fill gigabytes."""
    for step in checkpoints.steps[:-1]:
        shutil.rmtree(checkpoints.path(step))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


run_next_layer_study = method_study(_train_and_measure)
"""Train and measure every run of a study of next-layer attention. Arguments, returns and errors as in
``method_study``."""

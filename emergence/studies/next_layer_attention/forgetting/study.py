"""A study of forgetting from settings to page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from ...study import method_study
from ..networks import rule_network
from .config import ForgettingRun, ForgettingStudyConfig
from .sequences import N_PIXELS, Stage, n_outputs, sequence


def _train_and_measure(cell: tuple[Path, ForgettingStudyConfig, ForgettingRun]) -> pd.DataFrame:
    """Take one network through all tasks. All rules of a seed begin alike and see the same tasks and examples.

    A row ``accuracy`` for every task after every task, ``steps`` and ``is_learnt`` for each as it was left, ``first``
    and ``second``, the accuracies in those two at every look while the second was learnt, and ``validation_error`` over
    all tasks at the end.
    """
    _, config, run = cell
    stages = sequence(config.task, config.n_tasks, rng=np.random.default_rng((run.seed, 1)))
    generator = torch.Generator().manual_seed(run.seed)
    sizes = (N_PIXELS, n_outputs(config.task))
    m = rule_network(run.rule, config.depth, config.width, sizes, drop=0.0, generator=generator)
    rows: list[tuple[str, int, int, int, float]] = []
    step = 0
    for after, stage in enumerate(stages):
        for step in learn(m, stage, config, run):
            if after == 1:
                seen = {"first": stages[0].accuracy(m), "second": stages[1].accuracy(m)}
                rows += [(name, 1, of, step, value) for of, (name, value) in enumerate(seen.items())]
        is_learnt = stage.accuracy_on_validation(m) >= config.criterion
        rows += [("steps", after, after, step, float(step)), ("is_learnt", after, after, step, float(is_learnt))]
        rows += [("accuracy", after, of, step, other.accuracy(m)) for of, other in enumerate(stages)]
    mistaken = 1 - np.mean([stage.accuracy_on_validation(m) for stage in stages])
    rows.append(("validation_error", len(stages) - 1, -1, step, float(mistaken)))
    table = pd.DataFrame(rows, columns=["quantity", "after", "of", "step", "value"])
    return table.assign(moment="end", **asdict(run))


def learn(m: nn.Module, stage: Stage, config: ForgettingStudyConfig, run: ForgettingRun) -> Iterator[int]:
    """Train until the task is learnt; yields the number of steps at every look, the first before any.

    A loop of its own, as the one of ``emergence.training`` plans its steps beforehand. A run takes seconds and is begun
    again if it was stopped. The optimizer is new for every task: what it remembers of the last one is no part of the
    network.
    """
    optimizer = torch.optim.Adam(m.parameters(), run.learning_rate)
    for step in range(config.n_steps_at_most + 1):
        if step % config.check_every == 0 or step == config.n_steps_at_most:
            yield step
            if step and stage.accuracy_on_validation(m) >= config.criterion:
                return
        batch = stage.task.training_batch(run.seed, step, config.batch_size)
        optimizer.zero_grad()
        stage.task.loss(m, batch).backward()
        optimizer.step()


run_forgetting_study = method_study(_train_and_measure)
"""Train and measure every run of a study of forgetting. Arguments, returns and errors as in ``method_study``."""

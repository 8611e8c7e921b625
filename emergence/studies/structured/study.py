"""A study of structured layers from settings to page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ...checkpoints import Checkpoints
from ...interventions.settings import Structured
from ...interventions.structured import StructuredTraining
from ...training import missing_steps, train
from ..study import method_study
from ..supervised import sizes, study_task
from .config import StructuredRun, StructuredStudyConfig
from .measuring import measure
from .networks import deep_network


def _train_and_measure(cell: tuple[Path, StructuredStudyConfig, StructuredRun]) -> pd.DataFrame:
    """Train one run; measure it as it began and as it ended. All arms of a seed see the same examples."""
    folder, config, run = cell
    task, validation = study_task(config.task, rng=np.random.default_rng((run.seed, 1)))
    training = config.training(run.learning_rate)

    def make_model() -> nn.Module:
        generator = torch.Generator().manual_seed(run.seed)
        return deep_network(run.arm, run.depth, run.width, sizes(task), config, generator)

    checkpoints = Checkpoints(folder / "checkpoints" / run.name, make_model)
    if missing_steps(training, checkpoints):
        model = make_model()
        price = config.penalty if run.arm == "structured" else 0.0
        method = StructuredTraining(model, Structured(penalty=price))
        try:
            train(model, task, training, seed=run.seed, checkpoints=checkpoints, intervention=method)
        except FloatingPointError:  # this learning rate is not one to choose
            return _table([("end", "validation_error", np.nan, np.inf, np.nan)], run, model)
    rows = []
    for moment, step in (("begin", 0), ("end", training.n_steps)):
        model = checkpoints.load(step)
        assert isinstance(model, nn.Sequential)
        found = measure(
            model,
            task,
            validation,
            has_correction=run.arm == "structured",
            rng=np.random.default_rng((run.seed, 2)),
            generator=torch.Generator().manual_seed(run.seed),
        )
        rows += [(moment, m.quantity, m.coordinate, m.value, m.standard_error) for m in found]
    return _table(rows, run, make_model())


def _table(rows: list[tuple[Any, ...]], run: StructuredRun, model: nn.Module) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["moment", "quantity", "coordinate", "value", "standard_error"])
    return table.assign(**asdict(run), n_parameters=sum(p.numel() for p in model.parameters()))


run_structured_study = method_study(_train_and_measure)
"""Train and measure every run of a structured study. Arguments, returns and errors as in ``method_study``."""

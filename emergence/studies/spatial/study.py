"""A spatial study from settings to page: every run trained and measured, then told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..study import method_study
from .config import SpatialRun, SpatialStudyConfig
from .measuring import measure_at
from .training import trained_run

Cell = tuple[Path, SpatialStudyConfig, SpatialRun]


def _train_and_measure(cell: Cell) -> pd.DataFrame:
    """Train one run; measure its last checkpoint."""
    folder, config, run = cell
    trained = trained_run(folder, run, config.example_settings())
    trained.train()
    step = trained.checkpoints.steps[-1]
    model, placement = trained.load(step)
    rng = np.random.default_rng((run.seed, step))
    rows = measure_at(model, placement, trained.task, rng=rng, n_trials=config.n_trials, n_shuffles=config.n_shuffles)
    found = [(m.quantity, m.coordinate, m.value, m.standard_error) for m in rows]
    table = pd.DataFrame(found, columns=["quantity", "coordinate", "value", "standard_error"])
    return table.assign(arm=run.arm, strength=run.strength, seed=run.seed, step=step)


run_spatial_study = method_study(_train_and_measure)
"""Train and measure every run of a spatial study. Arguments, returns and errors as in ``method_study``."""

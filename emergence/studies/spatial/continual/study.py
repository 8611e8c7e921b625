"""A continual study from settings to page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ...study import method_study
from ..config import SpatialRun
from .config import ContinualStudyConfig
from .stages import all_tasks, new_stage, old_stage


def _train_and_measure(cell: tuple[Path, ContinualStudyConfig, SpatialRun]) -> pd.DataFrame:
    """Accuracy in every task at every checkpoint of the second stage; its step 0 is the end of the first.

    The same test trials at all steps and for all arms of a seed, so that what they share cancels in differences.
    """
    folder, config, run = cell
    tasks = all_tasks(config, run.seed)
    old = old_stage(folder, config, run)
    old.train()
    tables = []
    for later_price in config.prices_later(run.arm):
        new = new_stage(folder, config, run, old, later_price)
        new.train()
        for step in new.checkpoints.steps:
            rng = np.random.default_rng((run.seed, 2))
            accuracy, error = tasks.accuracy(new.checkpoints.load(step), rng=rng, n_trials=config.n_trials)
            columns = {"task": tasks.names, "accuracy": accuracy, "standard_error": error}
            tables.append(pd.DataFrame(columns).assign(later_price=later_price, step=step))
    return pd.concat(tables, ignore_index=True).assign(arm=run.arm, strength=run.strength, seed=run.seed)


run_continual_study = method_study(_train_and_measure)
"""Train both stages of every run and measure what was lost. Arguments, returns and errors as in ``method_study``."""

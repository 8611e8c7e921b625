"""A spatial study from settings to page: every run trained and measured, then told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...progress import Progress
from ..study import run_method_study
from .config import SpatialRun, SpatialStudyConfig
from .measuring import measure_at
from .training import trained_run

Cell = tuple[Path, SpatialStudyConfig, SpatialRun]


def run_spatial_study(
    config: SpatialStudyConfig, out: Path | str, *, progress: Progress | None = None, n_workers: int = 0
) -> dict[str, Any]:
    """Train and measure every run of a study in ``out`` and write its page; called again, it goes on where it was.

    Args, returns and errors as in ``run_method_study``.
    """
    from .findings import summarize
    from .page import write_page

    return run_method_study(
        config,
        out,
        config.runs,
        work=_train_and_measure,
        summarize=summarize,
        write_page=write_page,
        progress=progress,
        n_workers=n_workers,
    )


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

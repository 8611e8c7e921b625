"""A spatial study from settings to page: every run trained and measured, then told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...files import exclusive, write_aside, write_json
from ...progress import Progress, Silent
from ..cells import run_cells
from ..folder import claim_folder
from .config import SpatialRun, SpatialStudyConfig
from .measuring import measure_at
from .training import trained_run

Cell = tuple[Path, SpatialStudyConfig, SpatialRun]


def run_spatial_study(
    config: SpatialStudyConfig, out: Path | str, *, progress: Progress | None = None, n_workers: int = 0
) -> dict[str, Any]:
    """Train and measure every run of a study in ``out`` and write its page; called again, it goes on where it was.

    Args:
        config: example, arms, seeds and prices.
        out: folder, new or of the same settings.
        progress: shows the stages; None shows nothing.
        n_workers: runs trained side by side; 0 takes as many as there are cores.

    Returns:
        The findings, as in ``summary.json``.

    Raises:
        ValueError: the folder holds a study with other settings.
        BlockingIOError: another process is at work in the folder.
        FloatingPointError: a run diverged.
    """
    from .findings import summarize
    from .page import write_page

    folder, shown = Path(out), progress or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        claim_folder(folder, config)
        cells: list[tuple[Cell, Path]] = [
            ((folder, config, run), folder / "measurements" / f"{run.name}.parquet") for run in config.runs
        ]
        tables = run_cells(_train_and_measure, cells, title="train and measure", progress=shown, n_workers=n_workers)
        table = pd.concat(tables, ignore_index=True)
        write_aside(folder / "measurements.parquet", lambda path: table.to_parquet(path, index=False))
        summary = summarize(table, config)
        write_json(folder / "summary.json", summary)
        with shown.stage("write the report", 1) as advance:
            write_page(folder, config, table, summary)
            advance(1)
    return summary


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

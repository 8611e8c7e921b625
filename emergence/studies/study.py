"""What every study of a method does: claim its folder, train and measure its runs, tell what was found."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import exclusive, write_aside, write_json
from ..progress import Progress, Silent
from .cells import run_cells
from .folder import claim_folder


def method_study(work: Callable[[Any], pd.DataFrame]) -> Callable[..., dict[str, Any]]:
    """Return the function that runs a study of settings with ``runs``.

    Args:
        work: trains one run and measures it, from ``(folder, config, run)``; see ``run_cells``. Beside its module stand
            ``findings.summarize`` (from the table of all runs to the findings) and ``page.write_page`` (from both to
            report.html), imported when a study is run, as they load what draws and workers need none of it.
    """
    package = work.__module__.rpartition(".")[0]

    def run_study(
        config: Any, out: Path | str, *, progress: Progress | None = None, n_workers: int = 0
    ) -> dict[str, Any]:
        """Train and measure every run in ``out`` and write the page; called again, it goes on where it was.

        Args:
            config: all settings of the study.
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
        findings, page = (import_module(f"{package}.{part}") for part in ("findings", "page"))
        folder, shown = Path(out), progress or Silent()
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            claim_folder(folder, config)
            cells = [((folder, config, run), folder / "measurements" / f"{run.name}.parquet") for run in config.runs]
            tables = run_cells(work, cells, title="train and measure", progress=shown, n_workers=n_workers)
            table = pd.concat(tables, ignore_index=True)
            write_aside(folder / "measurements.parquet", lambda path: table.to_parquet(path, index=False))
            summary = findings.summarize(table, config)
            write_json(folder / "summary.json", summary)
            with shown.stage("write the report", 1) as advance:
                page.write_page(folder, config, table, summary)
                advance(1)
        return summary

    return run_study

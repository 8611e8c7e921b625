"""What every study of a method does: claim its folder, train and measure its runs, tell what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from ..files import exclusive, write_aside, write_json
from ..progress import Progress, Silent
from .cells import run_cells
from .folder import claim_folder


@runtime_checkable
class NamedRun(Protocol):
    """A training run with a name of its own."""

    @property
    def name(self) -> str:
        """Of its files, below those of the study."""
        ...


def run_method_study(
    config: Any,
    out: Path | str,
    runs: Sequence[NamedRun],
    *,
    work: Callable[[Any], pd.DataFrame],
    summarize: Callable[[pd.DataFrame, Any], dict[str, Any]],
    write_page: Callable[[Path, Any, pd.DataFrame, dict[str, Any]], None],
    progress: Progress | None = None,
    n_workers: int = 0,
) -> dict[str, Any]:
    """Measure every run in ``out`` and write the page; called again, it goes on where it was.

    Args:
        config: all settings of the study.
        out: folder, new or of the same settings.
        runs: all of them.
        work: trains one run and measures it, from ``(folder, config, run)``; see ``run_cells``.
        summarize: from the table of all runs to the findings.
        write_page: from both to report.html.
        progress: shows the stages; None shows nothing.
        n_workers: runs trained side by side; 0 takes as many as there are cores.

    Returns:
        The findings, as in ``summary.json``.

    Raises:
        ValueError: the folder holds a study with other settings.
        BlockingIOError: another process is at work in the folder.
        FloatingPointError: a run diverged.
    """
    folder, shown = Path(out), progress or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        claim_folder(folder, config)
        cells = [((folder, config, run), folder / "measurements" / f"{run.name}.parquet") for run in runs]
        tables = run_cells(work, cells, title="train and measure", progress=shown, n_workers=n_workers)
        table = pd.concat(tables, ignore_index=True)
        write_aside(folder / "measurements.parquet", lambda path: table.to_parquet(path, index=False))
        summary = summarize(table, config)
        write_json(folder / "summary.json", summary)
        with shown.stage("write the report", 1) as advance:
            write_page(folder, config, table, summary)
            advance(1)
    return summary

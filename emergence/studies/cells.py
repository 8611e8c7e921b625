"""Train and measure many runs side by side, one thread and one process each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import write_aside
from ..progress import Progress


def run_cells(
    work: Callable[[Any], pd.DataFrame],
    cells: Sequence[tuple[Any, Path]],
    *,
    title: str,
    progress: Progress,
    n_workers: int = 0,
) -> list[pd.DataFrame]:
    """Do every cell whose table is not there yet; return all tables in the order given.

    Args:
        work: from a cell to its table; a function of a module, so that other processes find it. A cell that was stopped
            is done again, and may go on from what it left.
        cells: each with the file its table goes to.
        title: of the stage.
        progress: shows how many cells are done.
        n_workers: processes; 0 takes as many as there are cores. One runs in this process.

    Raises:
        Exception: what a cell raised; tables of finished cells are kept.
    """
    missing = [(cell, path) for cell, path in cells if not path.is_file()]
    n_workers = min(n_workers or os.cpu_count() or 1, max(1, len(missing)))
    with progress.stage(title, len(missing)) as advance:
        if n_workers == 1:
            for done, (cell, path) in enumerate(missing, start=1):
                _finish(work, cell, path)
                advance(done)
        else:
            with ProcessPoolExecutor(n_workers, get_context("spawn"), _one_thread) as pool:
                futures = [pool.submit(_finish, work, cell, path) for cell, path in missing]
                try:
                    for done, future in enumerate(as_completed(futures), start=1):
                        future.result()
                        advance(done)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return [pd.read_parquet(path) for _, path in cells]


def _finish(work: Callable[[Any], pd.DataFrame], cell: Any, path: Path) -> None:
    table = work(cell)
    write_aside(path, lambda aside: table.to_parquet(aside, index=False))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)

"""Train and measure many runs side by side, one thread and one process each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from ..devices import n_cores, threads
from ..files import write_aside
from ..progress import Advance, Progress

Work = Callable[[Any], pd.DataFrame]


def run_cells(
    work: Work,
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
        n_workers: processes, each with one thread; 0 takes as many as there are cores. One runs in this process; more
            need a script that guards its work with ``if __name__ == "__main__"``.

    Raises:
        ValueError: a negative number of workers.
        RuntimeError: a process died, or what else a cell raised; tables of finished cells are kept.
    """
    if n_workers < 0:
        raise ValueError(f"n_workers must be zero (all cores) or positive, got {n_workers}")
    missing = [(cell, path) for cell, path in cells if not path.is_file()]
    n_workers = min(n_workers or n_cores(), max(1, len(missing)))
    with progress.stage(title, len(missing)) as advance:
        if n_workers == 1:
            for done, (cell, path) in enumerate(missing, start=1):
                _finish(work, cell, path)
                advance(done)
        else:
            _side_by_side(work, missing, n_workers, advance)
    return [pd.read_parquet(path) for _, path in cells]


def _side_by_side(work: Work, cells: Sequence[tuple[Any, Path]], n_workers: int, advance: Advance) -> None:
    with ProcessPoolExecutor(n_workers, get_context("spawn")) as pool:
        futures = [pool.submit(_finish, work, cell, path) for cell, path in cells]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                advance(done)
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process died (out of memory?); finished runs are kept, go on with fewer workers"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _finish(work: Work, cell: Any, path: Path) -> None:
    with threads(1):
        table = work(cell)
    write_aside(path, lambda aside: table.to_parquet(aside, index=False))

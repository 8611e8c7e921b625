"""How far a study has come: silent by default, bars with time left on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Advance = Callable[[int], None]
"""Called with the number of units finished so far."""


@runtime_checkable
class Progress(Protocol):
    """Something that can show the stages of a study."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """A context in which ``total`` units of work get done."""
        ...


class Silent:
    """Shows nothing; for notebooks and tests."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Run the stage unseen."""
        yield lambda done: None


def for_terminal() -> Progress:
    """Bars if somebody watches, a line a stage if the output goes to a file."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """A line a finished stage, on standard output."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Print the title and the seconds it took."""
        start = time.perf_counter()
        yield lambda done: None
        print(f"{title}: {time.perf_counter() - start:.0f} s", flush=True)


class Bars:
    """A bar a stage with elapsed time and time left, on standard error."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Show one bar, and leave it when the stage is done."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.update(task, completed=done)

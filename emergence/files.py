"""Write a file aside and rename it, so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text aside, then rename."""
    write_aside(path, lambda aside: aside.write_text(text))


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename. NaN has no place in JSON: pass None."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder; the lock dies with the process, however that ends.

    Raises:
        BlockingIOError: another process is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks on folders, the user takes care
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process is at work in {folder}; wait for it, stop it, or choose another --out"
            ) from None
        yield
    finally:
        os.close(descriptor)

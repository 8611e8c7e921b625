"""One file an integrator; ``simulate`` chooses among them and loads numba only when one runs."""

import os
from pathlib import Path


def _drop_stale_kernels() -> None:
    """Remove compiled kernels older than any source here.

    Numba looks only at the file of the function it was asked for, not at those it calls in other files.
    """
    here = Path(__file__).parent
    newest = max(source.stat().st_mtime for folder in (here, here.parent / "systems") for source in folder.glob("*.py"))
    for compiled in here.parent.glob("**/__pycache__/*.nb[ci]"):
        try:
            if compiled.stat().st_mtime < newest and os.access(compiled.parent, os.W_OK):
                compiled.unlink()
        except FileNotFoundError:
            pass  # another process was first


_drop_stale_kernels()

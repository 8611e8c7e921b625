"""The same engines with one compiled function replaced, to measure what that function costs."""

import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numba

_ENGINES = "simulators.engines."
config: Any = import_module("numba.core.config")


class PatchedEngines:
    """Within ``with``, ``simulate`` runs a second copy of all engines, in which a function is another.

    The copy compiles on its own and keeps its kernels in a folder of its own: a cache would not notice the change.
    """

    def __init__(self, module: str, name: str, replacement: Callable) -> None:
        self.module, self.name, self.replacement = _ENGINES + module, name, replacement
        self.copy: dict[str, ModuleType] = {}
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> None:
        self.originals, self.cache = _take_engines(), config.CACHE_DIR
        config.CACHE_DIR = self.folder.name
        sys.modules.update(self.copy)
        if not self.copy:
            setattr(import_module(self.module), self.name, numba.njit(self.replacement))

    def __exit__(self, *_) -> None:
        self.copy = _take_engines()
        sys.modules.update(self.originals)
        config.CACHE_DIR = self.cache


def _take_engines() -> dict[str, ModuleType]:
    """Remove the engines from the loaded modules."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(_ENGINES)}

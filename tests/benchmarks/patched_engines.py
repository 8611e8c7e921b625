"""The same engines with some compiled functions replaced, to measure what these cost."""

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
    """Within ``with``, ``simulate`` runs a second copy of all engines, in which some functions are others.

    ``replacements`` are functions by ``"module.name"``, in the order in which the modules are to be imported. The copy
    compiles on its own and keeps its kernels in a folder of its own: a cache would not notice the change.
    """

    def __init__(self, replacements: dict[str, Callable]) -> None:
        self.replacements = replacements
        self.copy: dict[str, ModuleType] = {}
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> None:
        self.originals, self.cache = _take_engines(), config.CACHE_DIR
        config.CACHE_DIR = self.folder.name
        sys.modules.update(self.copy)
        if not self.copy:
            for place, replacement in self.replacements.items():
                module, name = place.split(".")
                setattr(import_module(_ENGINES + module), name, numba.njit(replacement))

    def __exit__(self, *_) -> None:
        self.copy = _take_engines()
        sys.modules.update(self.originals)
        config.CACHE_DIR = self.cache


def _take_engines() -> dict[str, ModuleType]:
    """Remove the engines from the loaded modules."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(_ENGINES)}

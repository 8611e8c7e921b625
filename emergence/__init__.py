"""Ties the rooms together: a transformer learns what the simulators make, and the probes watch it happen.

The whole study is one call (or ``emergence run`` in a shell), and a finished run opens for analysis::

    run = run_study(preset("quick"), "runs/quick")
    run.measurements.query("quantity == 'contact_ap'")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import StudyConfig
    from .model import ParticleTransformer
    from .presets import preset
    from .run import open_run
    from .study import run_study
    from .training import train

__version__ = version("emergence-lab")
__all__ = ["ParticleTransformer", "StudyConfig", "open_run", "preset", "run_study", "train"]

_HOMES = {
    "ParticleTransformer": ".model",
    "StudyConfig": ".config",
    "open_run": ".run",
    "preset": ".presets",
    "run_study": ".study",
    "train": ".training",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch and transformer_lens take seconds that ``emergence --help`` need not wait."""
    if name not in _HOMES:
        raise AttributeError(f"module 'emergence' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)

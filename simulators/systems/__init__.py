"""The physical systems: one frozen dataclass a file, validated on construction."""

from .hard_spheres import HardSpheres
from .system import System

SYSTEMS: dict[str, type] = {kind.__name__: kind for kind in (HardSpheres,)}  # what a stored specification names

__all__ = ["SYSTEMS", "HardSpheres", "System"]

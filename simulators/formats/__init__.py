"""Trajectories in the formats of other programs, one file a format; each export appears whole or not at all."""

from .gns import export_gns, import_gns
from .gsd import export_gsd, import_gsd
from .h5md import export_h5md, import_h5md
from .lammps import export_lammps, import_lammps
from .nri import export_nri, import_nri

__all__ = [
    "export_gns",
    "export_gsd",
    "export_h5md",
    "export_lammps",
    "export_nri",
    "import_gns",
    "import_gsd",
    "import_h5md",
    "import_lammps",
    "import_nri",
]

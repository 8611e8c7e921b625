"""The physical systems: one frozen dataclass a file, validated on construction."""

from .charged_particles import ChargedParticles
from .driven_box import RotatingBox, VibratedBox
from .gravitating_bodies import GravitatingBodies
from .hard_spheres import HardSpheres
from .lennard_jones import LennardJones
from .soft_spheres import SoftSpheres
from .spring_network import SpringNetwork
from .system import System, kinetic_energy, minimum_image, periodic_axes

SYSTEMS: dict[str, type] = {  # what a stored specification names
    kind.__name__: kind
    for kind in (
        ChargedParticles,
        GravitatingBodies,
        HardSpheres,
        LennardJones,
        RotatingBox,
        SoftSpheres,
        SpringNetwork,
        VibratedBox,
    )
}

__all__ = [
    "SYSTEMS",
    "ChargedParticles",
    "GravitatingBodies",
    "HardSpheres",
    "LennardJones",
    "RotatingBox",
    "SoftSpheres",
    "SpringNetwork",
    "System",
    "VibratedBox",
    "kinetic_energy",
    "minimum_image",
    "periodic_axes",
]

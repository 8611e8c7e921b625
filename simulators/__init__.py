"""Where data comes from: exact many-particle simulations, for anyone who needs trajectories with known causes.

Describe a system, run many copies at once, read frames and the log of every collision::

    run = simulate(HardSpheres(), n_systems=100, n_frames=50, frame_interval=0.1, rng=np.random.default_rng(0))
    labels = contact_labels(run)  # (system, frame - 1, particle, particle)
"""

from .labels import contact_labels, wall_contact_labels
from .simulate import simulate
from .state import CollisionLog, ParticleState, Trajectories
from .storage import open_trajectories, save_trajectories
from .systems import HardSpheres

__all__ = [
    "CollisionLog",
    "HardSpheres",
    "ParticleState",
    "Trajectories",
    "contact_labels",
    "open_trajectories",
    "save_trajectories",
    "simulate",
    "wall_contact_labels",
]

"""Where data comes from: exact many-particle simulations, for anyone who needs trajectories with known causes.

Describe a system, run many copies at once, read frames and the log of every collision::

    run = simulate(HardSpheres(), n_systems=100, n_frames=50, frame_interval=0.1, rng=np.random.default_rng(0))
    labels = contact_labels(run)  # (system, frame - 1, particle, particle)

The log and the start alone give back the whole run (``replay``). Large runs go to disk shard by shard
(``write_trajectories``) and come back in random windows (``TrajectoryWindows``); ``simulators.formats`` reads and
writes what other projects use. ``cognitive_trials`` and ``cognitive_sequences`` are no particles: the twenty tasks that
networks of neurons are trained on.
"""

from .chains import CollisionChains, collision_chains
from .cognitive import (
    TASKS,
    CognitiveTrials,
    TrialParameters,
    cognitive_accuracy,
    cognitive_sequences,
    cognitive_trials,
    noise_free_trials,
)
from .contacts import recover_collisions
from .labels import (
    collision_counts,
    contact_impulse,
    contact_labels,
    time_to_contact,
    touching_labels,
    wall_contact_labels,
)
from .replay import replay
from .simulate import simulate
from .state import CollisionLog, ParticleState, Trajectories
from .storage import (
    TrajectoryWindows,
    TrajectoryWriter,
    open_trajectories,
    save_trajectories,
    write_trajectories,
)
from .systems import (
    ChargedParticles,
    GravitatingBodies,
    HardSpheres,
    LennardJones,
    RotatingBox,
    SoftSpheres,
    SpringNetwork,
    System,
    VibratedBox,
    kinetic_energy,
    minimum_image,
    periodic_axes,
)

__all__ = [
    "TASKS",
    "ChargedParticles",
    "CognitiveTrials",
    "CollisionChains",
    "CollisionLog",
    "GravitatingBodies",
    "HardSpheres",
    "LennardJones",
    "ParticleState",
    "RotatingBox",
    "SoftSpheres",
    "SpringNetwork",
    "System",
    "Trajectories",
    "TrajectoryWindows",
    "TrajectoryWriter",
    "TrialParameters",
    "VibratedBox",
    "cognitive_accuracy",
    "cognitive_sequences",
    "cognitive_trials",
    "collision_chains",
    "collision_counts",
    "contact_impulse",
    "contact_labels",
    "kinetic_energy",
    "minimum_image",
    "noise_free_trials",
    "open_trajectories",
    "periodic_axes",
    "recover_collisions",
    "replay",
    "save_trajectories",
    "simulate",
    "time_to_contact",
    "touching_labels",
    "wall_contact_labels",
    "write_trajectories",
]

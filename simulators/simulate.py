"""The one call that runs a system: from a specification to trajectories."""

import math
from importlib import import_module

import numpy as np

from .state import Motion, ParticleState, Trajectories
from .systems import System

_ENGINES = {  # each module has run(system, start, *, n_frames, frame_interval) -> Motion
    "event_driven": "event_driven",
}
_DEVICES = ("cpu",)


def simulate(
    system: System,
    *,
    n_systems: int,
    n_frames: int,
    frame_interval: float,
    rng: np.random.Generator,
    initial: ParticleState | None = None,
    engine: str = "auto",
    device: str = "cpu",
) -> Trajectories:
    """Follow many independent systems through time and log every collision.

    Positions and velocities at the frames are exact flights from the last collision; frames never disturb the
    dynamics, so a finer ``frame_interval`` follows the same paths. The result is the same to the last bit for the
    same generator state on any number of threads (``NUMBA_NUM_THREADS``).

    Args:
        system: what to simulate.
        n_systems: how many independent systems, at least 1.
        n_frames: stored snapshots a system, the start included, at least 2.
        frame_interval: simulation time between frames, positive.
        rng: the source of all draws; untouched when ``initial`` is given.
        initial: start states to use instead of drawn ones; its radii and masses hold, not those of ``system``.
        engine: ``"event_driven"``, exact; ``"auto"`` chooses it.
        device: ``"cpu"``.

    Returns:
        Trajectories of shape (system, frame, particle, dim) with their collision log.

    Raises:
        ValueError: an argument out of range, a start state that the system cannot have, no room for a drawn one, or
            a collapse that the rule of ``HardSpheres`` did not resolve.

    Cost:
        About a million collisions a core-second with ten discs; O(n_particles) a collision. The first call in a
        fresh installation compiles for some seconds, later ones load the compiled code.

    References:
        Bannerman, Strobl, Formella and Pöschel 2014, "Stable algorithm for event detection in event-driven particle
        dynamics", doi:10.1007/s40571-014-0021-8: "touching and approaching" is an event now, "overlapping and
        separating" is none. We evaluate all pairs of a struck disc and keep no cell lists.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> run = simulate(HardSpheres(), n_systems=2, n_frames=3, frame_interval=0.1, rng=rng)
        >>> run.positions.shape
        (2, 3, 10, 2)
    """
    _check_arguments(n_systems, n_frames, frame_interval, device)
    name = _choose_engine(system, engine)
    seed = None if initial is not None else _seed_of(rng)
    if initial is None:
        initial = system.draw_state(n_systems, rng=rng)
    elif initial.positions.shape[0] != n_systems:
        raise ValueError(f"initial must hold n_systems={n_systems} systems, got {initial.positions.shape[0]}")
    else:
        system.check_state(initial)
    # here: numba takes a third of a second to import
    module = import_module(f"simulators.engines.{_ENGINES[name]}")
    motion: Motion = module.run(system, initial, n_frames=n_frames, frame_interval=float(frame_interval))
    return Trajectories(
        positions=motion.positions,
        velocities=motion.velocities,
        radii=initial.radii.copy(),
        masses=initial.masses.copy(),
        frame_interval=float(frame_interval),
        system=system,
        seed=seed,
        collisions=motion.collisions,
        engine=name,
        charges=None if initial.charges is None else initial.charges.copy(),
        edges=None if initial.edges is None else initial.edges.copy(),
        angular_velocities=motion.angular_velocities,
    )


def _choose_engine(system: System, engine: str) -> str:
    """Return the engine that runs, by name."""
    if engine == "auto":
        return system.preferred_engine
    if engine not in system.engines:
        choices = ", ".join(("auto", *system.engines))
        raise ValueError(f"engine must be one of {choices} for {type(system).__name__}, got {engine!r}")
    return engine


def _check_arguments(n_systems: int, n_frames: int, frame_interval: float, device: str) -> None:
    """Refuse arguments out of range."""
    if n_systems < 1:
        raise ValueError(f"n_systems must be at least 1, got {n_systems}")
    if n_frames < 2:
        raise ValueError(f"n_frames must be at least 2 (the start and one more), got {n_frames}")
    if not 0 < frame_interval < math.inf:
        raise ValueError(f"frame_interval must be positive and finite, got {frame_interval}")
    if device not in _DEVICES:
        raise ValueError(f"device must be cpu (no other engine is built yet), got {device!r}")


def _seed_of(rng: np.random.Generator) -> int | None:
    """Return the integer that alone makes ``default_rng`` give this generator as it stands, else None."""
    bits = rng.bit_generator
    entropy = getattr(bits.seed_seq, "entropy", None)
    if not isinstance(bits, np.random.PCG64) or not isinstance(entropy, int):
        return None
    return entropy if np.random.default_rng(entropy).bit_generator.state == bits.state else None

"""The one call that runs a system: from a specification to trajectories."""

import math
from importlib import import_module

import numpy as np

from .state import Motion, ParticleState, Trajectories
from .systems import System

_ENGINES = {  # each module has run(system, start, *, n_frames, frame_interval) -> Motion
    "event_driven": "event_driven",
    "event_driven_cells": "event_cells",
    "soft_contact": "soft_contact",
    "smooth_forces": "smooth_forces",
    "event_driven_warp": "warp_hard",
    "soft_contact_warp": "warp_soft",
}
_ON_GPU = {  # the engine that runs there in place of one on the CPU; both also take run(..., device=)
    "event_driven": "event_driven_warp",
    "soft_contact": "soft_contact_warp",
}
_DEVICES = ("cpu", "cuda")


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

    Frames never disturb exact dynamics, so a finer ``frame_interval`` follows the same paths; engines that step through
    time shorten their step until it divides the interval. The result is the same to the last bit for the same
    generator state on any number of threads (``NUMBA_NUM_THREADS``).

    Args:
        system: what to simulate.
        n_systems: how many independent systems, at least 1.
        n_frames: stored snapshots a system, the start included, at least 2.
        frame_interval: simulation time between frames, positive.
        rng: the source of all draws; untouched when ``initial`` is given.
        initial: start states to use instead of drawn ones; its radii and masses hold, not those of ``system``.
        engine: one of ``system.engines``; ``"auto"`` takes ``system.preferred_engine``, and ``Trajectories.engine``
            says which one ran.

            - ``"event_driven"``: exact hard bodies, every struck one predicted against all others; below 64 of them.
            - ``"event_driven_cells"``: the same with cells and an event queue; from 64 on.
            - ``"soft_contact"``: steps through time with a neighbour list; soft bodies, piles, driven boxes.
            - ``"smooth_forces"``: steps through time; gravity, Lennard-Jones, charges, springs.
        device: ``"cpu"``, or ``"cuda"`` for NVIDIA GPUs (needs the extra ``gpu``; not yet
            timed on one). There, an engine's counterpart in Warp runs, ``"event_driven_warp"`` or
            ``"soft_contact_warp"``; named outright, these also run on ``"cpu"``.

    Returns:
        Trajectories of shape (system, frame, particle, dim) with their collision log.

    Raises:
        ValueError: an argument out of range, a start state that the system cannot have, no room for a drawn one, or
            a run that its engine cannot finish (a collapse of hard spheres, a diverged soft one).

    Cost:
        See the engines. The first call in a fresh installation compiles for some seconds, later ones load the
        compiled code.

    References:
        Bannerman, Strobl, Formella and Pöschel 2014, "Stable algorithm for event detection in event-driven particle
        dynamics", doi:10.1007/s40571-014-0021-8: "touching and approaching" is an event now, "overlapping and
        separating" is none.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> run = simulate(HardSpheres(), n_systems=2, n_frames=3, frame_interval=0.1, rng=rng)
        >>> run.positions.shape
        (2, 3, 10, 2)
    """
    _check_arguments(n_systems, n_frames, frame_interval, device)
    name = _choose_engine(system, engine, device)
    seed = None if initial is not None else _seed_of(rng)
    if initial is None:
        initial = system.draw_state(n_systems, rng=rng)
    elif initial.positions.shape[0] != n_systems:
        raise ValueError(f"initial must hold n_systems={n_systems} systems, got {initial.positions.shape[0]}")
    else:
        system.check_state(initial)
    motion = _run_engine(name, system, initial, n_frames, float(frame_interval), device)
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


def _choose_engine(system: System, engine: str, device: str) -> str:
    """Return the engine that runs, by name."""
    if engine != "auto" and engine not in system.engines:
        choices = ", ".join(("auto", *system.engines))
        raise ValueError(f"engine must be one of {choices} for {type(system).__name__}, got {engine!r}")
    name = system.preferred_engine if engine == "auto" else engine
    if device == "cpu" or name in _ON_GPU.values():
        return name
    if _ON_GPU.get(name) not in system.engines:
        able = [kind for kind in system.engines if _ON_GPU.get(kind) in system.engines]
        remedy = f"choose engine={able[0]!r} or device='cpu'" if able else "use device='cpu'"
        raise ValueError(f"engine {name} of {type(system).__name__} does not run on device='cuda'; {remedy}")
    return _ON_GPU[name]


def _run_engine(
    name: str, system: System, start: ParticleState, n_frames: int, frame_interval: float, device: str
) -> Motion:
    """Load an engine and run it; here, since numba and Warp take a good part of a second to import."""
    options = {}
    if name in _ON_GPU.values():
        import_module("simulators.engines.warp_device")  # tells what to do where Warp is not installed
        options["device"] = device
    module = import_module(f"simulators.engines.{_ENGINES[name]}")
    return module.run(system, start, n_frames=n_frames, frame_interval=frame_interval, **options)


def _check_arguments(n_systems: int, n_frames: int, frame_interval: float, device: str) -> None:
    """Refuse arguments out of range."""
    if n_systems < 1:
        raise ValueError(f"n_systems must be at least 1, got {n_systems}")
    if n_frames < 2:
        raise ValueError(f"n_frames must be at least 2 (the start and one more), got {n_frames}")
    if not 0 < frame_interval < math.inf:
        raise ValueError(f"frame_interval must be positive and finite, got {frame_interval}")
    if device not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}, got {device!r}")


def _seed_of(rng: np.random.Generator) -> int | None:
    """Return the integer that alone makes ``default_rng`` give this generator as it stands, else None."""
    bits = rng.bit_generator
    entropy = getattr(bits.seed_seq, "entropy", None)
    if not isinstance(bits, np.random.PCG64) or not isinstance(entropy, int):
        return None
    return entropy if np.random.default_rng(entropy).bit_generator.state == bits.state else None

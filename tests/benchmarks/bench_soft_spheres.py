"""Soft discs against LAMMPS, pymunk and jax-md: million particle-steps a core-second, side by side.

The gas of ``rivals.gas``; ours and jax-md run 64 systems at once, LAMMPS and pymunk know one. Every rival runs in the
fastest of the obvious ways. jax-md runs in two: systems side by side (vmap, its own way of batching), and one after the
other (``lax.map``, where a neighbour list is rebuilt only when needed). Contact records are on.

A bare kernel for this gas only, which moves all particles at every step and records nothing, tells what generality
costs and what free flights gain.

Goals (ours over rival, at 16, 64 and 1024 discs): LAMMPS 12, 11, 8; pymunk 28, 20, 18; jax-md 50, 250, 150; the
records cost at most 10 %; two cores 1.85 times one; first call below 15 s, below 1 s once compiled.

    python tests/benchmarks/bench_soft_spheres.py [--quick] [--part race records physics first_call threads]
"""

import interleaved  # isort: skip (limits threads before numpy comes)

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from patched_engines import time_over_patched
from rivals import gas, rival_bare

from simulators import ParticleState, SoftSpheres

N_SYSTEMS = 64
_FIRST_CALL = (
    "simulators.simulate(simulators.SoftSpheres(), n_systems=2, n_frames=2, frame_interval=0.1,"
    " rng=np.random.default_rng(0))"
)


def our_system(n_particles: int) -> SoftSpheres:
    """Return the gas as a system of this library."""
    return SoftSpheres(**gas.our_fields(n_particles), contact_time=gas.CONTACT_TIME, time_step=gas.TIME_STEP)


def ours(n_particles: int) -> interleaved.Ours:
    """Return our batch of systems, a time unit after its start."""
    system = our_system(n_particles)
    start = system.draw_state(N_SYSTEMS, rng=np.random.default_rng(0))
    batch = interleaved.Ours(system, start, time_step=gas.TIME_STEP)
    batch.advance(round(1 / gas.TIME_STEP))
    return batch


def rivals(start: ParticleState) -> dict[str, list[Callable[[], Any]]]:
    """Return the ways to run each rival that is installed."""
    many = start.positions, start.velocities
    one = many[0][0], many[1][0]
    ways: dict[str, list[Callable[[], Any]]] = {"bare": [lambda: rival_bare.BareGas(*many)]}
    if lammps := interleaved.load_rival("lammps"):
        ways["LAMMPS"] = [lambda s=skin: lammps.LammpsGas(*one, skin=s) for skin in (0.2, 0.3, 0.5)]
    if pymunk := interleaved.load_rival("pymunk"):
        ways["pymunk"] = [lambda h=use: pymunk.PymunkGas(*one, spatial_hash=h) for use in (False, True)]
    if jax_md := interleaved.load_rival("jax_md"):
        for batching, layout in (("vmap", "Dense"), ("map", "OrderedSparse")):
            ways[f"jax-md, {batching}"] = [
                (lambda b=batching, d=dtype: jax_md.JaxAllPairs(*many, batching=b, dtype=d))
                if start.positions.shape[1] < 256
                else (
                    lambda b=batching, y=layout, d=dtype: jax_md.JaxNeighborList(*many, batching=b, layout=y, dtype=d)
                )
                for dtype in ("float32", "float64")
            ]
    return ways


def race(n_particles: int, names: tuple[str, ...], rounds: int, seconds: float) -> dict:
    """Let us and the fastest way of each rival take turns."""
    batch = ours(n_particles)
    chosen = [
        interleaved.fastest([build() for build in ways], seconds / 4)
        for name, ways in rivals(batch.state).items()
        if name.startswith(names)
    ]
    return interleaved.race(batch, chosen, rounds=rounds, seconds=seconds)


def physics(n_particles: int, duration: float) -> dict:
    """Return relative energy change and begun pair contacts a particle and time unit, of us and of each rival."""
    batch, n_steps = ours(n_particles), round(duration / gas.TIME_STEP)
    start = batch.state
    before = gas.energy(start.positions, start.velocities)
    batch.advance(n_steps)
    after = gas.energy(batch.state.positions, batch.state.velocities)
    pairs = int((batch.collisions.j >= 0).sum())
    found = {"ours": {"energy_change": after / before - 1, "contacts": pairs / (duration * N_SYSTEMS * n_particles)}}
    for name, ways in rivals(start).items():
        rival = ways[-1]()
        stiffness = 0.0 if name == "pymunk" else gas.STIFFNESS  # its overlaps hold no energy
        steps = n_steps * N_SYSTEMS // len(rival.positions())  # as much time in all
        before = gas.energy(rival.positions(), rival.velocities(), stiffness=stiffness)
        if name == "pymunk":
            pairs = rival.count_contacts(steps)
        else:
            pairs = gas.count_contacts(rival.advance, rival.positions, steps)
        time = steps * gas.TIME_STEP * len(rival.positions())
        after = gas.energy(rival.positions(), rival.velocities(), stiffness=stiffness)
        found[name] = {"energy_change": after / before - 1, "contacts": pairs / (time * n_particles)}
    return found


def records_cost(n_particles: int, rounds: int, seconds: float) -> dict:
    """Return how much longer the same runs take than on a copy of the engine that records no contact."""
    silent = {
        "contact_geometry.since_touch": lambda i, j, body, fall, space, step: 0.0,
        "contact_law._record_depth": lambda c, contact: None,
        "contact_law._record_push": lambda c, contact, time, fx, fy, fz: None,
        "contact_law._write_row": lambda c, duration, contact, who, tally, rows, row_who: True,
    }
    return time_over_patched(ours(n_particles), silent, bytes_a_row=61, rounds=rounds, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows and few rounds; a look, no result")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 1024])
    parts = ["race", "records", "physics", "first_call", "threads"]
    parser.add_argument("--part", nargs="+", default=parts, choices=parts)
    parser.add_argument("--rivals", nargs="+", help="beginnings of names, instead of all")
    parser.add_argument("--on-threads", action="store_true", help="print only how much two threads do over one")
    args = parser.parse_args()
    rounds, seconds = (3, 0.3) if args.quick else (9, 1.0)
    if args.on_threads:
        interleaved.print_two_threads_over_one(ours(64), rounds=rounds, seconds=2 * seconds)
        return
    result = {}
    if "race" in args.part:
        result["race"] = {n: race(n, tuple(args.rivals or ("",)), rounds, seconds) for n in args.sizes}
    if "records" in args.part:
        result["with_records_over_without"] = {n: records_cost(n, rounds, seconds) for n in args.sizes}
    if "physics" in args.part:
        result["physics_at_64"] = physics(64, 0.5 if args.quick else 5.0)
    if "first_call" in args.part:
        result["first_call"] = interleaved.first_call(_FIRST_CALL)
    if "threads" in args.part:
        result["threads"] = interleaved.two_threads_over_one([__file__, "--on-threads"] + ["--quick"] * args.quick)
    settings = {"rounds": rounds, "window_s": seconds, "n_systems": N_SYSTEMS, "quick": args.quick}
    interleaved.write_result("soft_spheres", result, settings)


if __name__ == "__main__":
    main()

"""Gravity against REBOUND, Lennard-Jones discs against LAMMPS: million particle-steps a core-second, side by side.

Equal steps from equal starts. Ours runs a batch of systems (64, fewer when they are large), the rivals know one.
Springs stand beside the figure of the NRI generator on another machine (Zen 3, 2.85 GHz; a script that does not
install): 0.073 million particle-steps a core-second with 5 bodies.

Goals (ours over rival): REBOUND leapfrog 2.5, LAMMPS lj/cut 1.2, NRI script 500, hence 36.5 million.

    python tests/benchmarks/bench_smooth_forces.py [--quick] [--part gravity springs ...]
"""

import interleaved  # isort: skip (limits threads before numpy comes)

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from simulators import GravitatingBodies, LennardJones, ParticleState, SpringNetwork, kinetic_energy

NRI_SPRINGS = 0.073e6  # particle-steps a core-second
_PARTICLES_AT_ONCE = 4096
_FIRST_CALL = (
    "simulators.simulate(simulators.{system}, n_systems=2, n_frames=2, frame_interval=0.1,"
    " rng=np.random.default_rng(0))"
)


def gravity(n_bodies: int) -> interleaved.Ours:
    """Return our clusters in three dimensions."""
    return _ours(GravitatingBodies(n_particles=n_bodies, time_step=1e-3))


def lennard_jones(n_atoms: int) -> interleaved.Ours:
    """Return our discs at density 0.4, temperature 1, cutoff 2.5, ten time units after the lattice."""
    batch = _ours(LennardJones(n_particles=n_atoms, time_step=5e-3))
    batch.advance(2000)
    return batch


def springs(n_bodies: int) -> interleaved.Ours:
    """Return our networks with the defaults and the step of the NRI script."""
    return _ours(SpringNetwork(n_particles=n_bodies, time_step=1e-3))


def _ours(system: Any) -> interleaved.Ours:
    n_systems = min(64, _PARTICLES_AT_ONCE // system.n_particles)
    start = system.draw_state(n_systems, rng=np.random.default_rng(0))
    return interleaved.Ours(system, start, time_step=system.time_step)


def against_rebound(n_bodies: int, rounds: int, seconds: float) -> dict:
    """Race one cluster in REBOUND and compare the energy change over the first time unit."""
    batch, rivals, found = gravity(n_bodies), [], {}
    start, n_steps = batch.state, round(1 / batch.time_step)
    before = _energy(batch.system, start)
    batch.advance(n_steps)
    found["our_energy_change"] = float(np.abs(_energy(batch.system, batch.state) / before - 1).max())
    if module := interleaved.load_rival("rebound"):
        rival = module.ReboundBodies(
            start.positions[0],
            start.velocities[0],
            start.masses[0],
            G=batch.system.gravitational_constant,
            softening=batch.system.softening,
            time_step=batch.time_step,
        )
        rival.advance(n_steps)
        its = ParticleState(rival.positions(), rival.velocities(), start.radii[:1], start.masses[:1])
        found["rebound_energy_change"] = float(_energy(batch.system, its)[0] / before[0] - 1)
        found["places_apart"] = float(np.abs(its.positions[0] - batch.state.positions[0]).max())
        rivals.append(rival)
    return found | interleaved.race(batch, rivals, rounds=rounds, seconds=seconds)


def against_lammps(n_atoms: int, rounds: int, seconds: float) -> dict:
    """Race one box in the fastest way of LAMMPS; energies are a change an atom over the race."""
    batch, rivals, found = lennard_jones(n_atoms), [], {}
    if module := interleaved.load_rival("lammps"):
        ways = [
            module.LammpsLennardJones(
                batch.state.positions[0],
                batch.state.velocities[0],
                batch.system.box,
                batch.time_step,
                style=style,
                skin=skin,
            )
            for style in ("lj/cut", "lj/cut/opt")
            for skin in (0.3, 0.5)
        ]
        rivals.append(interleaved.fastest(ways, seconds / 4))
    ours_before, before = _energy(batch.system, batch.state), [rival.energy_an_atom() for rival in rivals]
    found |= interleaved.race(batch, rivals, rounds=rounds, seconds=seconds)
    found["our_energy_change_an_atom"] = float(np.abs(_energy(batch.system, batch.state) - ours_before).max() / n_atoms)
    found["lammps_energy_change_an_atom"] = [r.energy_an_atom() - e for r, e in zip(rivals, before, strict=True)]
    return found


def beside_nri(n_bodies: int, rounds: int, seconds: float) -> dict:
    """Return our rate with the NRI springs, and over the figure of its script."""
    batch = springs(n_bodies)
    before = _energy(batch.system, batch.state)
    found = interleaved.race(batch, [], rounds=rounds, seconds=seconds)
    found["energy_change"] = float(np.abs(_energy(batch.system, batch.state) / before - 1).max())
    return found | {"over_nri_elsewhere": found["ours"]["median"] * 1e6 / NRI_SPRINGS}


def row_cost(make: Callable[[int], interleaved.Ours], n_particles: int, rounds: int, seconds: float) -> dict:
    """Return the time of runs over that of the same runs with radii so small that the log stays empty.

    Without walls radii only tell what an encounter is. The look for encounters itself is paid by both.
    """
    batch = make(n_particles)
    steps = interleaved.steps_for(batch, seconds)
    lonely = replace(batch.state, radii=batch.state.radii * 1e-9)

    def spent(start: ParticleState) -> float:
        batch.state = start
        began = time.process_time()
        batch.advance(steps)
        return time.process_time() - began

    usual = batch.state
    ratios = np.array([spent(usual) / spent(lonely) for _ in range(rounds)])
    batch.state = usual
    batch.advance(steps)
    rows = len(batch.collisions) / (steps * usual.masses.size)
    return interleaved.spread(ratios) | {"rows_a_particle_step": rows}


def _energy(system: Any, state: ParticleState) -> np.ndarray:
    return kinetic_energy(state) + system.potential_energy(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows and few rounds; a look, no result")
    parts = ["gravity", "lennard_jones", "springs", "log", "first_call", "threads"]
    parser.add_argument("--part", nargs="+", default=parts, choices=parts)
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of 16 to 1024")
    parser.add_argument("--on-threads", action="store_true", help="print only how much two threads do over one")
    args = parser.parse_args()
    rounds, seconds = (3, 0.3) if args.quick else (9, 1.0)
    if args.on_threads:
        interleaved.print_two_threads_over_one(gravity(64), rounds=rounds, seconds=2 * seconds)
        return
    result = {}
    if "gravity" in args.part:
        result["gravity"] = {n: against_rebound(n, rounds, seconds) for n in args.sizes or (16, 64, 256, 1024)}
    if "lennard_jones" in args.part:
        result["lennard_jones"] = {n: against_lammps(n, rounds, seconds) for n in args.sizes or (64, 256, 1024)}
    if "springs" in args.part:
        result["springs"] = {5: beside_nri(5, rounds, seconds)}
    if "log" in args.part:
        result["with_rows_over_without"] = {
            make.__name__: row_cost(make, 64, rounds, seconds) for make in (gravity, lennard_jones)
        }
    if "first_call" in args.part:
        systems = ("GravitatingBodies()", "LennardJones()", "SpringNetwork()", "ChargedParticles()")
        result["first_call"] = {name: interleaved.first_call(_FIRST_CALL.format(system=name)) for name in systems}
    if "threads" in args.part:
        result["threads"] = interleaved.two_threads_over_one([__file__, "--on-threads"] + ["--quick"] * args.quick)
    interleaved.write_result("smooth_forces", result, {"rounds": rounds, "window_s": seconds, "quick": args.quick})


if __name__ == "__main__":
    main()

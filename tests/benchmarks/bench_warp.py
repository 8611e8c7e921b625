"""What the Warp engines do on a GPU (or on Warp's CPU device), beside one core with numba.

The gas of ``rivals.gas``: equal discs of radius 0.5 and mass 1 at packing 0.2, gravity 0.1, temperature 1, e = 1.
Hard discs: collisions a second with the full log. Soft discs (linear spring 1e4, step 1e-3): particle-steps a second
with contact records. Time from given states in host memory to the finished ``Motion`` there, after a first call that
compiles: wall time on a GPU, CPU time elsewhere. Goals on a data-centre GPU: 1e8 collisions and 1e10 particle-steps a
second at 16 discs and 16 384 systems. No GPU has been measured yet.

    python tests/benchmarks/bench_warp.py --device cuda [--systems 16384] [--sizes 16 64] [--duration 5]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import warp as wp
from rivals import gas

from simulators import HardSpheres, ParticleState, SoftSpheres
from simulators.engines import event_driven, soft_contact, warp_hard, warp_soft
from simulators.state import Motion

ON_ONE_CORE = 64  # systems that numba runs for the comparison


def seconds(call: Callable[[], Motion], repeats: int, device: str = "cpu") -> tuple[float, Motion]:
    """Return the least time of a call that has run before, and its result: wall time on a GPU, else CPU time."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    motion, least = call(), float("inf")
    for _ in range(repeats):
        begin = clock()
        motion = call()
        least = min(least, clock() - begin)
    return least, motion


def head(start: ParticleState, n_systems: int) -> ParticleState:
    """Return the first systems."""
    return ParticleState(
        start.positions[:n_systems], start.velocities[:n_systems], start.radii[:n_systems], start.masses[:n_systems]
    )


def hard(n_particles: int, args: argparse.Namespace) -> dict[str, float]:
    """Return million collisions a second."""
    system = HardSpheres(**gas.our_fields(n_particles))
    start = system.draw_state(args.systems, rng=np.random.default_rng(0))
    frames = {"n_frames": 2, "frame_interval": args.duration}
    spent, motion = seconds(
        lambda: warp_hard.run(system, start, **frames, device=args.device), args.repeats, args.device
    )
    few = head(start, ON_ONE_CORE)
    on_core, motion_on_core = seconds(lambda: event_driven.run(system, few, **frames), args.repeats)
    return {
        "million_collisions_per_second": len(motion.collisions) / spent / 1e6,
        "numba": len(motion_on_core.collisions) / on_core / 1e6,
        "seconds": spent,
    }


def soft(n_particles: int, args: argparse.Namespace) -> dict[str, float]:
    """Return million particle-steps a second."""
    system = SoftSpheres(**gas.our_fields(n_particles), contact_time=gas.CONTACT_TIME, time_step=gas.TIME_STEP)
    start = system.draw_state(args.systems, rng=np.random.default_rng(0))
    frames = {"n_frames": 2, "frame_interval": args.duration}
    steps = n_particles * round(args.duration / system.step)
    spent, _ = seconds(lambda: warp_soft.run(system, start, **frames, device=args.device), args.repeats, args.device)
    few = head(start, ON_ONE_CORE)
    on_core, _ = seconds(lambda: soft_contact.run(system, few, **frames), args.repeats)
    return {
        "million_particle_steps_per_second": steps * args.systems / spent / 1e6,
        "numba": steps * ON_ONE_CORE / on_core / 1e6,
        "seconds": spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--systems", type=int, default=16_384)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--duration", type=float, default=5.0, help="simulated time")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    found = {
        name: {n: measure(n, args) for n in args.sizes}
        for name, measure in (("hard_discs", hard), ("soft_discs", soft))
    }
    settings = {
        "device": wp.get_device(args.device).name,
        "warp": wp.config.version,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(found | vars(args) | settings, indent=1))


if __name__ == "__main__":
    main()

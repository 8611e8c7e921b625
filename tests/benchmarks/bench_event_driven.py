"""Hard discs: collisions a core-second with the full log, beside DynamO's figures.

The gas of ``rivals.gas`` with hard discs, 64 systems at once, e = 1. DynamO has no wheel. The goals are multiples of
what it did with its event log on another machine, 49 and 50 thousand events a core-second (Zen 3, 2.85 GHz,
git 274a134, Release build): 60 times at 16 discs and 18 times at 1024, hence 3.0 and 0.9 million.

Further goals: the log costs at most 5 %; two cores 1.85 times one; the cost of a collision is flat within 2 from 1e3 to
1e5 discs; first call below 15 s, below 1 s once compiled.

    python tests/benchmarks/bench_event_driven.py [--quick] [--part rates physics log flat first_call threads]
"""

import interleaved  # isort: skip (limits threads before numpy comes)

import argparse
import time

import numpy as np
from patched_engines import time_over_patched
from rivals import gas

from simulators import HardSpheres, kinetic_energy

N_SYSTEMS = 64
TIME_STEP = 0.01  # grain of a window's length: these discs have no steps
DYNAMO = {16: 49e3, 64: None, 1024: 50e3}  # events a core-second with its event log
_FIRST_CALL = (
    "simulators.simulate(simulators.HardSpheres(n_particles={n}, box=({side},) * 2), n_systems=2, n_frames=2,"
    " frame_interval=0.1, rng=np.random.default_rng(0))"
)


def ours(n_particles: int, n_systems: int = N_SYSTEMS, **settings) -> interleaved.Ours:
    """Return our batch of systems."""
    system = HardSpheres(**gas.our_fields(n_particles) | settings)
    start = system.draw_state(n_systems, rng=np.random.default_rng(0))
    return interleaved.Ours(system, start, time_step=TIME_STEP, count_events=True)


def rates(sizes: list[int], rounds: int, seconds: float) -> dict:
    """Return million events a core-second, and over DynamO's figure."""
    found = {}
    for n_particles in sizes:
        batch = ours(n_particles)
        found[n_particles] = interleaved.race(batch, [], rounds=rounds, seconds=seconds)
        found[n_particles]["engine"] = batch.engine
        if dynamo := DYNAMO.get(n_particles):
            found[n_particles]["over_dynamo_elsewhere"] = found[n_particles]["ours"]["median"] * 1e6 / dynamo
    return found


def physics(n_particles: int, duration: float) -> dict:
    """Return the relative energy change and the pair collisions a particle and time unit."""
    batch = ours(n_particles)

    def energy() -> float:
        state = batch.state
        height = (state.masses * state.positions[..., 1]).sum()
        return float(kinetic_energy(state).sum() + gas.GRAVITY * height)

    before = energy()
    n_events = batch.advance(round(duration / TIME_STEP))
    pairs = int((batch.collisions.j >= 0).sum())
    return {
        "energy_change": energy() / before - 1,
        "n_events": n_events,
        "contacts": pairs / (duration * N_SYSTEMS * n_particles),
    }


def flat(sizes: list[int], rounds: int, seconds: float) -> dict:
    """Return the core time of one more collision in one system, by its size: sizes take turns.

    Without gravity: a large system would fall for longer than a window, and grow dense and hot. What any call costs
    does not count here: 1e5 particles are checked for overlap for a quarter of a second before the engine begins.
    """
    batches = [ours(n, 1, gravity=(0.0, 0.0)) for n in sizes]
    steps = [interleaved.steps_for(batch, seconds) for batch in batches]
    costs = np.array([[_slope(b, n) for b, n in zip(batches, steps, strict=True)] for _ in range(rounds)])
    found: dict = {n: interleaved.spread(costs[:, k]) for k, n in enumerate(sizes)}
    return found | {"most_over_least": interleaved.spread(costs.max(axis=1) / costs.min(axis=1))}


def _slope(batch: interleaved.Ours, steps: int) -> float:
    """Return the microseconds of an event between a short window and a long one."""
    spent, events = [], []
    for window in (steps // 5, steps):
        began = time.process_time()
        events.append(batch.advance(window))
        spent.append(time.process_time() - began)
    return 1e6 * (spent[1] - spent[0]) / (events[1] - events[0])


def log_cost(n_particles: int, rounds: int, seconds: float) -> dict:
    """Return how much longer the same runs take than on a copy of the engine that never appends a row, of 45 bytes."""
    silent = {"event_rules.log_row": lambda rows, time, i, j, impulse, forced: None}
    return time_over_patched(ours(n_particles), silent, bytes_a_row=45, rounds=rounds, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows and few rounds; a look, no result")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 1024])
    parts = ["rates", "physics", "log", "flat", "first_call", "threads"]
    parser.add_argument("--part", nargs="+", default=parts, choices=parts)
    parser.add_argument("--on-threads", action="store_true", help="print only how much two threads do over one")
    args = parser.parse_args()
    rounds, seconds = (3, 0.3) if args.quick else (9, 1.0)
    if args.on_threads:
        interleaved.print_two_threads_over_one(ours(16), rounds=rounds, seconds=2 * seconds)
        return
    result = {}
    if "rates" in args.part:
        result["million_events_a_core_second"] = rates(args.sizes, rounds, seconds)
    if "physics" in args.part:
        result["physics_at_64"] = physics(64, 5.0)
    if "log" in args.part:
        result["with_log_over_without"] = {n: log_cost(n, rounds, seconds) for n in args.sizes}
    if "flat" in args.part:
        result["microseconds_an_event_in_one_system"] = flat([1000, 10_000, 100_000], rounds, seconds)
    if "first_call" in args.part:
        result["first_call"] = {
            n: interleaved.first_call(_FIRST_CALL.format(n=n, side=gas.box_side(n) / gas.RADIUS * 0.06))
            for n in (16, 256)
        }
    if "threads" in args.part:
        result["threads"] = interleaved.two_threads_over_one([__file__, "--on-threads"] + ["--quick"] * args.quick)
    settings = {"rounds": rounds, "window_s": seconds, "n_systems": N_SYSTEMS, "quick": args.quick}
    interleaved.write_result("event_driven", result, settings)


if __name__ == "__main__":
    main()

"""What must not change a bit of a run, and what ends a run of discs that come to rest."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from simulators import CollisionLog, HardSpheres, ParticleState, SoftSpheres, simulate
from simulators.engines import event_cells, event_driven, event_log, event_rounds, threads

RNG = np.random.default_rng
COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")

DIGEST = """
import hashlib, numpy, simulators
run = simulators.simulate(
    simulators.HardSpheres(), n_systems=40, n_frames=5, frame_interval=0.5, rng=numpy.random.default_rng(11)
)
log = run.collisions
parts = (run.positions, run.velocities, log.system, log.time, log.i, log.j, log.impulse, log.normal)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def on_the_floor(height, *, n=1):
    """Return one system of ``n`` discs side by side, at rest at this height above the floor."""
    x = (np.arange(n) + 0.5) / n
    positions = np.stack([x, np.full(n, 0.02 + height)], axis=-1)[None]
    return ParticleState(positions, np.zeros((1, n, 2)), np.full((1, n), 0.02), np.ones((1, n)))


def same_bits(run, other):
    """Tell whether two runs agree in every bit."""
    arrays = [(run.positions, other.positions), (run.velocities, other.velocities)]
    arrays += [(getattr(run.collisions, name), getattr(other.collisions, name)) for name in COLUMNS]
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays)


def test_same_seed_same_bits_and_another_seed_others():
    runs = [simulate(HardSpheres(), n_systems=3, n_frames=4, frame_interval=0.3, rng=RNG(s)) for s in (1, 1, 2)]
    assert same_bits(runs[0], runs[1])
    assert not same_bits(runs[0], runs[2])


def test_number_of_threads_changes_no_bit():
    digests = set()
    for n_threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": n_threads}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert digests != {hashlib.sha256(b"").hexdigest()}


@pytest.mark.parametrize("interacting", [True, False])
def test_pauses_to_look_change_no_bit(interacting, monkeypatch):
    system = HardSpheres(interacting=interacting)
    start = system.draw_state(7, rng=RNG(3))
    wide, _, wide_log, _ = event_driven.run(system, start, n_frames=5, frame_interval=0.7)
    monkeypatch.setattr(threads, "_BLOCKS_A_THREAD", 1)  # several systems in a block, on few threads
    monkeypatch.setattr(event_log, "_FIRST_ROWS", 5)
    tight, _, tight_log, _ = event_driven.run(system, start, n_frames=5, frame_interval=0.7, rows_at_once=1)
    assert len(wide_log) > 300
    assert wide.tobytes() == tight.tobytes()
    for name in COLUMNS:
        assert getattr(wide_log, name).tobytes() == getattr(tight_log, name).tobytes(), name


def test_many_blocks_of_systems_change_no_bit(monkeypatch):
    whole = simulate(HardSpheres(), n_systems=7, n_frames=4, frame_interval=0.5, rng=RNG(4))
    monkeypatch.setattr(event_driven, "_SYSTEMS_AT_ONCE", 3)
    assert same_bits(whole, simulate(HardSpheres(), n_systems=7, n_frames=4, frame_interval=0.5, rng=RNG(4)))


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        (event_driven, {}),
        (event_driven, {"interacting": False}),
        (event_cells, {}),
        (event_cells, {"restitution": 0.6}),
    ],
)
def test_the_log_passes_the_checks_it_is_spared(engine, settings):
    system = HardSpheres(**settings)
    start = system.draw_state(6, rng=RNG(15))
    log = engine.run(system, start, n_frames=3, frame_interval=0.8).collisions
    CollisionLog(*(getattr(log, name) for name in COLUMNS))
    assert set(log.system) == set(range(6))
    assert log.duration is None
    assert log.overlap is None


def test_the_log_holds_on_to_little_more_memory_than_it_fills():
    system = HardSpheres()
    start = system.draw_state(1, rng=RNG(16))  # a single block, whose rows stay where they were written
    for frame_interval, rows_at_once in ((0.5, 1 << 15), (50.0, 50)):  # a fraction of the first room, and many times
        motion = event_driven.run(system, start, n_frames=2, frame_interval=frame_interval, rows_at_once=rows_at_once)
        for name in COLUMNS[1:]:
            column = getattr(motion.collisions, name)
            assert column.base is None or len(column.base) < 2 * len(column), name


def test_a_part_of_a_log_keeps_all_its_columns():
    system = SoftSpheres(n_particles=10)
    run = simulate(system, n_systems=3, n_frames=4, frame_interval=0.2, rng=RNG(17))
    part = run.collisions.of_system(1)
    assert len(part) > 10
    for name in (*COLUMNS, "duration", "overlap"):
        expected = getattr(run.collisions, name)[run.collisions.system == 1]
        assert getattr(part, name).tobytes() == expected.tobytes(), name


def test_finer_frames_follow_the_same_paths():
    # intervals are powers of two, so that the frame times are the same numbers
    coarse = simulate(HardSpheres(), n_systems=5, n_frames=6, frame_interval=2.0, rng=RNG(5))
    fine = simulate(HardSpheres(), n_systems=5, n_frames=41, frame_interval=0.25, rng=RNG(5))
    assert coarse.positions.tobytes() == fine.positions[:, ::8].tobytes()
    assert coarse.collisions.time.tobytes() == fine.collisions.time.tobytes()


def test_a_frame_is_a_start_to_go_on_from():
    system = HardSpheres()
    whole = simulate(system, n_systems=20, n_frames=3, frame_interval=0.5, rng=RNG(6))
    rest = simulate(system, n_systems=20, n_frames=2, frame_interval=0.5, rng=RNG(6), initial=whole.state(1))
    error = np.abs(rest.positions[:, 1] - whole.positions[:, 2]).max(axis=(1, 2))
    assert np.median(error) < 1e-12
    assert rest.seed is None


def test_permuting_particles_permutes_the_run():
    system = HardSpheres()
    start = system.draw_state(20, rng=RNG(7))
    order = RNG(8).permutation(10)
    shuffled = ParticleState(
        start.positions[:, order], start.velocities[:, order], start.radii[:, order], start.masses[:, order]
    )
    run = simulate(system, n_systems=20, n_frames=2, frame_interval=0.8, rng=RNG(0), initial=start)
    other = simulate(system, n_systems=20, n_frames=2, frame_interval=0.8, rng=RNG(0), initial=shuffled)
    error = np.abs(run.positions[:, 1, order] - other.positions[:, 1]).max(axis=(1, 2))
    assert np.median(error) < 1e-11
    assert len(run.collisions) == len(other.collisions) > 300


def test_seed_is_recorded_only_where_it_alone_repeats_the_run():
    settings = {"n_systems": 1, "n_frames": 2, "frame_interval": 0.1}
    assert simulate(HardSpheres(), **settings, rng=RNG(42)).seed == 42
    used = RNG(42)
    used.random()
    assert simulate(HardSpheres(), **settings, rng=used).seed is None
    assert simulate(HardSpheres(), **settings, rng=RNG(42).spawn(1)[0]).seed is None


def test_inputs_are_left_alone():
    start = HardSpheres().draw_state(2, rng=RNG(9))
    before = [array.copy() for array in (start.positions, start.velocities, start.radii, start.masses)]
    run = simulate(HardSpheres(), n_systems=2, n_frames=3, frame_interval=0.5, rng=RNG(9), initial=start)
    run.positions[:] = 0.0
    run.radii[:] = 0.0
    after = (start.positions, start.velocities, start.radii, start.masses)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def dissipation(contact_time, *, restitution=0.5):
    """Drop a ball from height 0.5 for 6 time units; return its run and the energy it lost."""
    system = HardSpheres(n_particles=1, radius=0.02, restitution=restitution, contact_time=contact_time)
    start = on_the_floor(0.5)
    run = simulate(system, n_systems=1, n_frames=61, frame_interval=0.1, rng=RNG(0), initial=start)
    end = 0.5 * (run.velocities[0, -1, 0] ** 2).sum() + run.positions[0, -1, 0, 1] - 0.02
    return run, 0.5 - end


def test_a_bouncing_ball_comes_to_rest_and_the_rule_costs_one_over_contact_time():
    (coarse, lost), (fine, lost_fine) = dissipation(1e-3), dissipation(1e-3 / 8)
    ratio = len(fine.collisions) / len(coarse.collisions)
    assert ratio == pytest.approx(8, rel=0.1)
    assert lost == pytest.approx(lost_fine, rel=0.01)
    log = coarse.collisions
    gap = np.diff(log.time, prepend=-1.0)
    assert (log.forced == (gap < 1e-3)).all()
    assert log.forced.sum() > 1000
    arrival = np.where(log.forced, log.impulse / 2, log.impulse / 1.5)
    departure = np.where(log.forced, arrival, 0.5 * arrival)
    np.testing.assert_allclose(
        arrival[1:], departure[:-1], rtol=1e-9, atol=1e-12
    )  # flat floor: as it left, so it lands


@pytest.mark.parametrize("engine", ["event_driven", "event_driven_cells"])
def test_a_collision_is_forced_exactly_where_a_partner_collided_within_the_contact_time(engine):
    system = HardSpheres(restitution=0.99, gravity=(0.0, 0.0), contact_time=1e-2)
    run = simulate(system, n_systems=3, n_frames=2, frame_interval=40.0, rng=RNG(12), engine=engine)
    for s in range(3):
        log = run.collisions.of_system(s)
        last = np.full(10, -np.inf)
        expected = []
        for time, i, j in zip(log.time, log.i, log.j, strict=True):
            discs = [i] if j < 0 else [i, j]
            expected.append(time - last[discs].max() < 1e-2)
            last[discs] = time
        assert log.forced.tolist() == expected
        assert len(log) > 2 * 256  # local time has started again
        assert 10 < log.forced.sum() < len(log) / 2


@pytest.mark.parametrize("restitution", [0.0, 0.01])
def test_a_dead_ball_costs_two_events_a_contact_time(restitution):
    run, lost = dissipation(1e-3, restitution=restitution)
    assert len(run.collisions) <= 2 * 6 / 1e-3
    assert lost == pytest.approx(0.5, abs=1e-6)
    assert run.positions[0, -1, 0, 1] == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("restitution", [1.0, 0.5])
def test_discs_at_rest_on_the_floor_stay_there(restitution):
    system = HardSpheres(n_particles=5, radius=0.02, restitution=restitution, contact_time=1e-3)
    run = simulate(system, n_systems=1, n_frames=5, frame_interval=0.5, rng=RNG(0), initial=on_the_floor(0.0, n=5))
    np.testing.assert_allclose(run.positions, np.broadcast_to(run.positions[:, :1], run.positions.shape), atol=1e-6)


def test_a_pile_settles_without_overlap():
    system = HardSpheres(restitution=0.5, contact_time=2e-3)
    run = simulate(system, n_systems=2, n_frames=11, frame_interval=0.5, rng=RNG(10))
    i, j = np.triu_indices(10, 1)
    separation = np.sqrt(((run.positions[:, :, i] - run.positions[:, :, j]) ** 2).sum(axis=-1))
    assert (separation - run.radii[:, None, i] - run.radii[:, None, j]).min() > -1e-12
    assert (run.velocities[:, -1] ** 2).mean() < 0.02 * (run.velocities[:, 0] ** 2).mean()
    assert run.collisions.forced.mean() > 0.5


def test_too_many_forced_collisions_are_refused(monkeypatch):
    monkeypatch.setattr(event_rounds, "MOST_FORCED", 1000)
    with pytest.raises(ValueError, match=r"expected at most 1000 \(restitution=0.5\).*contact_time=0.001; raise it"):
        dissipation(1e-3)


def test_forced_collisions_of_all_blocks_count_together(monkeypatch):
    # about 600 in each of three systems
    system = HardSpheres(n_particles=1, radius=0.02, restitution=0.5, contact_time=1e-3)
    alone = on_the_floor(0.0)
    columns = (alone.positions, alone.velocities, alone.radii, alone.masses)
    three = ParticleState(*(np.repeat(column, 3, axis=0) for column in columns))
    monkeypatch.setattr(event_driven, "_SYSTEMS_AT_ONCE", 1)
    monkeypatch.setattr(event_rounds, "MOST_FORCED", 1500)
    settings = {"n_frames": 2, "frame_interval": 0.5}
    assert 750 < event_driven.run(system, alone, **settings).collisions.forced.sum() < 1500
    with pytest.raises(ValueError, match=r"expected at most 1500"):
        event_driven.run(system, three, **settings)


def test_newtons_cradle_passes_the_blow_along_at_once():
    system = HardSpheres(n_particles=3, gravity=(0.0, 0.0))
    x = np.array([0.25, 0.375, 0.5])  # radius 1/16: all in contact, exactly
    velocities = np.array([[[1.0, 0], [0, 0], [0, 0]]])
    state = ParticleState(
        np.stack([x, np.full(3, 0.5)], axis=-1)[None], velocities, np.full((1, 3), 0.0625), np.ones((1, 3))
    )
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.25, rng=RNG(0), initial=state)
    log = run.collisions
    assert list(zip(log.time, log.i, log.j, strict=True)) == [(0.0, 0, 1), (0.0, 1, 2)]
    assert run.velocities[0, 0].tolist() == velocities[0].tolist()  # frame 0 is the start
    assert run.positions[0, 1, :, 0].tolist() == [0.25, 0.375, 0.75]


@pytest.mark.parametrize("systems_at_once", [1, 3])
def test_a_jammed_row_is_refused(systems_at_once, monkeypatch):
    monkeypatch.setattr(event_driven, "_SYSTEMS_AT_ONCE", systems_at_once)
    system = HardSpheres(n_particles=4, gravity=(0.0, 0.0))
    x = np.array([0.125, 0.375, 0.625, 0.875])  # radius 1/8: no room at all
    places = np.stack([x, np.full(4, 0.5)], axis=-1)
    velocities = np.zeros((3, 4, 2))
    velocities[2, 0, 0] = 1.0  # only here something moves
    state = ParticleState(np.tile(places, (3, 1, 1)), velocities, np.full((3, 4), 0.125), np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"system 2: more than 1000 collisions a disc while time stood still"):
        simulate(system, n_systems=3, n_frames=2, frame_interval=0.5, rng=RNG(0), initial=state)

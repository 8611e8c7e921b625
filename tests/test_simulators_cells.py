"""The engine with cells against the one that looks at all pairs, against conservation laws, and bit against bit."""

import os
import subprocess
import sys

import numpy as np
import pytest

from simulators import HardSpheres, ParticleState
from simulators.engines import event_cells, event_driven, event_log, event_rounds, threads

RNG = np.random.default_rng
COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")
BOUNDARIES = ("walls", "periodic", "mixed")


def gas(n, dim, boundary, *, packing=0.2, gravity=0.1, **settings):
    """Return a system of particles of diameter 1 on average; gravity pulls along the last axis where that has walls."""
    side = float((n * {2: np.pi / 4, 3: np.pi / 6}[dim] / packing) ** (1 / dim))
    axes = {"walls": ("walls",) * dim, "periodic": ("periodic",) * dim, "mixed": ("periodic",) * (dim - 1) + ("walls",)}
    pull = (0.0,) * (dim - 1) + (-gravity if axes[boundary][-1] == "walls" else 0.0,)
    options = {"radius": 0.5, "radius_spread": 0.0, "box": (side,) * dim, "velocity_scale": 1.0} | settings
    return HardSpheres(n_particles=n, dim=dim, boundary=axes[boundary], gravity=pull, **options)


def same_events(log, other, count):
    """Tell whether two logs begin with the same ``count`` events."""
    assert min(len(log), len(other)) >= count
    return (log.i[:count] == other.i[:count]).all() and (log.j[:count] == other.j[:count]).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("n", "events"), [(16, 8), (64, 5), (256, 4)])
def test_both_engines_give_the_same_events(n, events, dim, boundary):
    system = gas(n, dim, boundary, radius_spread=0.3)
    start = system.draw_state(3, rng=RNG(1))
    settings = {"n_frames": 4, "frame_interval": 0.75 * events}
    cells = event_cells.run(system, start, **settings)
    pairs = event_driven.run(system, start, **settings)
    for s in range(3):
        log, other = cells.collisions.of_system(s), pairs.collisions.of_system(s)
        count = events * n
        assert same_events(log, other, count)
        early = slice(count // 2)  # chaos then grows rounding by about a digit every collision of a particle
        np.testing.assert_allclose(log.time[early], other.time[early], rtol=0, atol=1e-6)
        np.testing.assert_allclose(log.normal[: n // 2], other.normal[: n // 2], rtol=0, atol=1e-11)
        np.testing.assert_allclose(log.impulse[: n // 2], other.impulse[: n // 2], rtol=1e-10)


@pytest.mark.parametrize("settings", [{"restitution": 0.7}, {"restitution": 0.8, "restitution_velocity": 1.0}])
def test_both_engines_dissipate_alike(settings):
    system = gas(64, 2, "walls", contact_time=0.05, **settings)
    start = system.draw_state(3, rng=RNG(2))
    cells = event_cells.run(system, start, n_frames=2, frame_interval=4.0)
    pairs = event_driven.run(system, start, n_frames=2, frame_interval=4.0)
    assert same_events(cells.collisions, pairs.collisions, 300)
    assert (cells.collisions.forced[:300] == pairs.collisions.forced[:300]).all()
    assert 10 < cells.collisions.forced[:300].sum() < 200
    np.testing.assert_allclose(cells.positions, pairs.positions, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dim", "side"), [(2, 2.02), (2, 2.2), (2, 3.2), (3, 2.2)])
def test_a_box_of_one_or_two_or_three_cells(dim, side):
    # images of a partner lie on both sides; the particles move more than half a box between collisions
    system = HardSpheres(
        n_particles=2,
        dim=dim,
        radius=0.5,
        radius_spread=0.0,
        box=(side,) * dim,
        boundary="periodic",
        gravity=(0.0,) * dim,
    )
    start = system.draw_state(60, rng=RNG(3))
    cells = event_cells.run(system, start, n_frames=5, frame_interval=0.5)
    pairs = event_driven.run(system, start, n_frames=5, frame_interval=0.5)
    assert len(cells.collisions) == len(pairs.collisions) > 10
    moved = cells.positions - pairs.positions
    assert np.abs(moved - side * np.round(moved / side)).max() < 1e-7


@pytest.mark.parametrize("gravity", [(-0.4, 0.0), (0.4, 0.0), (0.3, 0.2), (0.0, 0.5)])
def test_gravity_may_pull_anywhere(gravity):
    base = gas(64, 2, "walls")
    system = HardSpheres(n_particles=64, radius=0.5, radius_spread=0.0, box=base.box, gravity=gravity)
    start = system.draw_state(2, rng=RNG(4))
    cells = event_cells.run(system, start, n_frames=2, frame_interval=5.0)
    pairs = event_driven.run(system, start, n_frames=2, frame_interval=5.0)
    assert len(cells.collisions) == len(pairs.collisions) > 100
    np.testing.assert_allclose(cells.positions, pairs.positions, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spread", [0.5, 0.98])
def test_small_among_large(spread):
    # at 0.98 the radii differ up to a hundredfold, and one cell holds many
    system = gas(200, 2, "mixed", packing=0.15, radius_spread=spread, density=1.0)
    start = system.draw_state(2, rng=RNG(5))
    cells = event_cells.run(system, start, n_frames=2, frame_interval=2.0)
    pairs = event_driven.run(system, start, n_frames=2, frame_interval=2.0)
    assert len(cells.collisions) == len(pairs.collisions) > 100
    side = system.box[0]
    moved = cells.positions - pairs.positions
    moved[..., 0] -= side * np.round(moved[..., 0] / side)
    assert np.abs(moved).max() < 1e-6


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dim", [2, 3])
def test_energy_momentum_and_room(dim, boundary):
    n, n_frames, interval = 500, 9, 2.0
    system = gas(n, dim, boundary, packing=0.25, radius_spread=0.2)
    start = system.draw_state(1, rng=RNG(6))
    motion = event_cells.run(system, start, n_frames=n_frames, frame_interval=interval)
    positions, velocities, log = motion.positions[0], motion.velocities[0], motion.collisions
    masses, radii, gravity, box = start.masses[0], start.radii[0], np.array(system.gravity), np.array(system.box)
    assert len(log) > 4000
    kinetic = 0.5 * (masses * (velocities**2).sum(axis=-1)).sum(axis=-1)
    fall = (positions @ gravity * masses).sum(axis=-1)
    np.testing.assert_allclose(kinetic - fall, kinetic[0] - fall[0], rtol=1e-11)
    momentum = (masses[:, None] * velocities).sum(axis=1)
    wall = log.j < 0
    for frame in range(n_frames):
        before = log.time <= frame * interval
        given = (log.impulse[:, None] * log.normal)[wall & before].sum(axis=0)
        expected = momentum[0] + given + masses.sum() * gravity * frame * interval
        np.testing.assert_allclose(momentum[frame], expected, rtol=0, atol=1e-10 * np.abs(expected).max() + 1e-10)
    periodic = np.array([kind == "periodic" for kind in system.boundary])
    assert ((positions >= 0) & (positions < box)).all()
    between_walls = (positions - radii[:, None] > -1e-12) & (positions + radii[:, None] < box + 1e-12)
    assert (between_walls | periodic).all()
    i, j = np.triu_indices(n, 1)
    for frame in range(n_frames):
        r = positions[frame, i] - positions[frame, j]
        r -= np.where(periodic, box, 0.0) * np.round(r / box)
        assert (np.sqrt((r**2).sum(axis=-1)) - radii[i] - radii[j]).min() > -1e-12


def test_the_log_alone_replays_the_run():
    system = gas(300, 2, "mixed")
    start = system.draw_state(1, rng=RNG(7))
    motion = event_cells.run(system, start, n_frames=2, frame_interval=8.0)
    log, gravity = motion.collisions, np.array(system.gravity)
    x, v, since = start.positions[0].copy(), start.velocities[0].copy(), np.zeros(300)
    for time, i, j, impulse, normal in zip(log.time, log.i, log.j, log.impulse, log.normal, strict=True):
        for k, sign in ((i, 1.0), (j, -1.0)):
            if k >= 0:
                s = time - since[k]
                x[k] += v[k] * s + gravity * s * s / 2
                v[k] += gravity * s + sign * impulse / start.masses[0, k] * normal
                since[k] = time
    s = (8.0 - since)[:, None]
    x += v * s + gravity * s * s / 2
    x[:, 0] %= system.box[0]
    np.testing.assert_allclose(motion.positions[0, 1], x, rtol=0, atol=1e-9)
    np.testing.assert_allclose(motion.velocities[0, 1], v + gravity * s, rtol=0, atol=1e-9)
    assert len(log) > 1000


def test_pauses_to_look_change_no_bit(monkeypatch):
    system = gas(64, 2, "mixed")
    start = system.draw_state(5, rng=RNG(8))
    wide = event_cells.run(system, start, n_frames=4, frame_interval=10.0)
    monkeypatch.setattr(threads, "_BLOCKS_A_THREAD", 1)  # several systems in a block, on few threads
    monkeypatch.setattr(event_log, "_FIRST_ROWS", 5)
    tight = event_cells.run(system, start, n_frames=4, frame_interval=10.0, rows_at_once=5)
    assert len(wide.collisions) > 5 * 64 * 16  # the epoch has moved
    assert wide.positions.tobytes() == tight.positions.tobytes()
    for name in COLUMNS:
        assert getattr(wide.collisions, name).tobytes() == getattr(tight.collisions, name).tobytes(), name


def test_many_blocks_of_systems_change_no_bit(monkeypatch):
    system = gas(64, 2, "walls")
    start = system.draw_state(7, rng=RNG(9))
    whole = event_cells.run(system, start, n_frames=2, frame_interval=3.0)
    monkeypatch.setattr(event_cells, "_PARTICLES_AT_ONCE", 200)
    parts = event_cells.run(system, start, n_frames=2, frame_interval=3.0)
    assert whole.positions.tobytes() == parts.positions.tobytes()
    assert whole.collisions.time.tobytes() == parts.collisions.time.tobytes()


def test_finer_frames_follow_the_same_paths():
    system = gas(100, 3, "mixed")
    start = system.draw_state(2, rng=RNG(10))
    coarse = event_cells.run(system, start, n_frames=4, frame_interval=2.0)
    fine = event_cells.run(system, start, n_frames=25, frame_interval=0.25)
    assert coarse.positions.tobytes() == np.ascontiguousarray(fine.positions[:, ::8]).tobytes()
    assert coarse.collisions.time.tobytes() == fine.collisions.time.tobytes()


DIGEST = """
import hashlib, numpy, simulators
from simulators.engines import event_cells
system = simulators.HardSpheres(
    n_particles=64, radius=0.03, boundary=("periodic", "walls"), gravity=(0.0, -1.0), restitution=0.95
)
run = event_cells.run(system, system.draw_state(6, rng=numpy.random.default_rng(1)), n_frames=3, frame_interval=1.0)
log = run.collisions
parts = (run.positions, run.velocities, log.system, log.time, log.i, log.j, log.impulse, log.normal)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_number_of_threads_changes_no_bit():
    digests = set()
    for n_threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": n_threads}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert digests != {""}


def test_the_order_of_particles_matters_not():
    system = gas(100, 2, "walls", radius_spread=0.3)
    start = system.draw_state(1, rng=RNG(11))
    order = RNG(12).permutation(100)
    shuffled = ParticleState(
        start.positions[:, order], start.velocities[:, order], start.radii[:, order], start.masses[:, order]
    )
    run = event_cells.run(system, start, n_frames=2, frame_interval=4.0)
    other = event_cells.run(system, shuffled, n_frames=2, frame_interval=4.0)
    np.testing.assert_allclose(run.positions[:, :, order], other.positions, rtol=0, atol=1e-7)
    assert (np.asarray(run.collisions.i < run.collisions.j) | (run.collisions.j < 0)).all()


@pytest.mark.parametrize("restitution", [1.0, 0.5])
def test_particles_at_rest_on_the_floor_stay_there(restitution):
    n = 20
    system = HardSpheres(
        n_particles=n, radius=0.5, radius_spread=0.0, box=(30.0, 10.0), restitution=restitution, contact_time=1e-2
    )
    positions = np.stack([1.0 + 1.4 * np.arange(n), np.full(n, 0.5)], axis=-1)[None]
    start = ParticleState(positions, np.zeros_like(positions), np.full((1, n), 0.5), np.ones((1, n)))
    motion = event_cells.run(system, start, n_frames=3, frame_interval=5.0)
    np.testing.assert_allclose(motion.positions[:, 1:], positions[:, None].repeat(2, axis=1), rtol=0, atol=1e-4)
    assert motion.collisions.forced[:n].all()
    assert len(motion.collisions) <= n * 2 * 10.0 / 1e-2


def test_a_particle_that_turns_on_the_border_of_its_cell():
    # thrown up from a lattice of borders, each apex on one of them or a hair beside
    n, hairs = 30, (0.0, 1e-17, -1e-17, 1e-16, 1e-12)
    system = HardSpheres(n_particles=n, radius=0.5, radius_spread=0.0, box=(42.0, 42.0), gravity=(0.0, -1.0))
    width = 42.0 / (42.0 // event_cells._least_width(np.full((1, n), 0.5), np.array(system.box)))
    apex = width * (1 + np.arange(n) % 8)
    positions = np.stack([1.0 + 1.3 * np.arange(n), apex - 0.125], axis=-1)[None]
    velocities = np.zeros_like(positions)
    velocities[0, :, 1] = 0.5 + np.resize(hairs, n)
    start = ParticleState(positions, velocities, np.full((1, n), 0.5), np.ones((1, n)))
    motion = event_cells.run(system, start, n_frames=3, frame_interval=0.5)
    np.testing.assert_allclose(motion.positions[0, 1, :, 1], apex, rtol=0, atol=1e-11)
    np.testing.assert_allclose(motion.positions[0, 2, :, 1], apex - 0.125, rtol=0, atol=1e-11)


def test_a_jammed_row_is_refused():
    n = 64
    system = HardSpheres(n_particles=n, radius=0.5, radius_spread=0.0, box=(64.0, 4.0), gravity=(0.0, 0.0))
    positions = np.stack([0.5 + np.arange(n), np.full(n, 2.0)], axis=-1)[None]
    velocities = np.zeros_like(positions)
    velocities[0, 0, 0] = 1.0
    start = ParticleState(positions, velocities, np.full((1, n), 0.5), np.ones((1, n)))
    with pytest.raises(ValueError, match=r"system 0: more than 1000 collisions a disc while time stood still"):
        event_cells.run(system, start, n_frames=2, frame_interval=0.5)


def test_too_many_forced_collisions_are_refused(monkeypatch):
    monkeypatch.setattr(event_rounds, "MOST_FORCED", 100)
    with pytest.raises(ValueError, match=r"expected at most 100 \(restitution=0.5\).*contact_time=0.01; raise it"):
        test_particles_at_rest_on_the_floor_stay_there(0.5)


def test_ghosts_are_sent_to_the_other_engine():
    system = HardSpheres(interacting=False)
    with pytest.raises(ValueError, match=r"interacting must be True .*run ghosts with \"event_driven\""):
        event_cells.run(system, system.draw_state(1, rng=RNG(0)), n_frames=2, frame_interval=0.1)


@pytest.mark.slow
def test_a_long_run_keeps_energy_and_room():
    system = gas(1000, 2, "walls", packing=0.5)
    start = system.draw_state(1, rng=RNG(13))
    motion = event_cells.run(system, start, n_frames=3, frame_interval=1500.0)
    assert len(motion.collisions) > 5_000_000
    velocities, positions = motion.velocities[0], motion.positions[0]
    energy = (0.5 * velocities**2 - positions * np.array(system.gravity)).sum(axis=(1, 2)) * start.masses[0, 0]
    np.testing.assert_allclose(energy, energy[0], rtol=1e-9)
    i, j = np.triu_indices(1000, 1)
    assert (np.sqrt(((positions[-1, i] - positions[-1, j]) ** 2).sum(axis=-1)) - 1.0).min() > -1e-9

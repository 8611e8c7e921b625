"""Laws that every system with smooth forces keeps: order, reversibility, conservation, encounters, equal bits."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from typing import no_type_check

import numpy as np
import pytest
from numba import njit

from simulators import ParticleState, simulate
from simulators.engines import smooth_forces, smooth_list
from simulators.systems import ChargedParticles, GravitatingBodies, LennardJones, SpringNetwork, kinetic_energy

RNG = np.random.default_rng
COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "duration", "overlap")

SPRINGS = SpringNetwork(natural_length=0.3, speed=2.0, box=(3.0, 3.0))
CHARGES = ChargedParticles(magnetic_field=2.0, electric_field=(0.3, -0.2), softening=0.5, box=(4.0, 4.0))
BODIES = GravitatingBodies(n_particles=6, mass_spread=0.5, softening=0.6, box=(4.0, 4.0, 4.0))
ATOMS = LennardJones(n_particles=25, boundary="walls")
FLUID = LennardJones(n_particles=64, temperature=1.5)
SYSTEMS = [
    pytest.param(SPRINGS, id="springs"),
    pytest.param(CHARGES, id="charges"),
    pytest.param(replace(CHARGES, dim=3, electric_field=(0.0, 0.0, 0.4), box=(4.0, 4.0, 4.0)), id="charges3d"),
    pytest.param(BODIES, id="bodies"),
    pytest.param(ATOMS, id="atoms"),
    pytest.param(FLUID, id="fluid"),
]

DIGEST = """
import hashlib, numpy, simulators
from simulators.systems import SpringNetwork
run = simulators.simulate(
    SpringNetwork(speed=3.0), n_systems=40, n_frames=5, frame_interval=2.0, rng=numpy.random.default_rng(11)
)
log = run.collisions
parts = (run.positions, run.velocities, log.system, log.time, log.i, log.j, log.impulse, log.normal)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def run_from(system, start, *, n_frames=2, frame_interval=1.0):
    return simulate(
        system,
        n_systems=len(start.positions),
        n_frames=n_frames,
        frame_interval=frame_interval,
        rng=RNG(0),
        initial=start,
    )


def with_velocities(state, velocities):
    return ParticleState(state.positions, velocities, state.radii, state.masses, state.charges, state.edges)


def total_energy(system, run):
    """Return (frame, system)."""
    states = (run.state(frame) for frame in range(len(run.times)))
    return np.array([kinetic_energy(state) + system.potential_energy(state) for state in states])


def same_bits(run, other):
    arrays = [(run.positions, other.positions), (run.velocities, other.velocities)]
    arrays += [(getattr(run.collisions, name), getattr(other.collisions, name)) for name in COLUMNS]
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays)


@pytest.mark.parametrize("system", SYSTEMS)
def test_force_is_the_gradient_of_the_potential(system):
    law = system.law
    distance, h = np.linspace(0.9, 2.4, 40), 1e-5
    masses, charges = np.array([[1.3, 0.7]]), np.array([[1.0, -1.0]])
    edges = 0.1 * np.array([[[0.0, 1.0], [1.0, 0.0]]])
    pair = replace(system, **({"number_density": 2 / 100} if isinstance(system, LennardJones) else {}), n_particles=2)
    pair = replace(pair, electric_field=(0.0,) * system.dim) if isinstance(pair, ChargedParticles) else pair

    def state(r):
        places = np.full((1, 2, system.dim), 1.0)
        places[0, 1, 0] += r
        return ParticleState(places, np.zeros_like(places), np.full((1, 2), 0.1), masses, charges, edges)

    couplings = pair.couplings(state(1.0))
    coupling = couplings[0, 0, 0] * couplings[0, 0, 1] if couplings.shape[1] == 1 else couplings[0, 0, 1]
    for r in distance:
        slope = (pair.potential_energy(state(r + h)) - pair.potential_energy(state(r - h)))[0] / (2 * h)
        assert coupling * type(law).pair_force(law, r * r) * r == pytest.approx(-slope, rel=1e-8, abs=2e-7)


@pytest.mark.parametrize("system", SYSTEMS)
def test_errors_fall_with_the_square_of_the_step(system):
    # no walls: impacts err by the phase of the step, see below
    system = replace(system, boundary="periodic" if isinstance(system, LennardJones) else "open")
    start = system.draw_state(4, rng=RNG(1))
    if isinstance(system, LennardJones):
        system = replace(system, n_particles=start.positions.shape[1])
    interval = 0.5 if isinstance(system, LennardJones) else 1.0
    n_steps = np.array([128, 256, 512]) if isinstance(system, LennardJones) else np.array([32, 64, 128])
    ends = [
        run_from(replace(system, time_step=interval / n), start, frame_interval=interval).positions[:, 1]
        for n in (*n_steps, 4 * n_steps[-1], 8 * n_steps[-1])
    ]
    exact = ends[-1] + (ends[-1] - ends[-2]) / 3
    size = np.array(system.box) if "periodic" in system.boundary else np.inf
    errors = []
    for end in ends[:3]:
        difference = np.abs(end - exact)
        errors.append(np.sqrt((np.minimum(difference, np.abs(size - difference)) ** 2).mean()))
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(order, 2.0, atol=0.1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_run_backward_as_they_ran_forward(system):
    n_frames = 6 if isinstance(system, LennardJones) else 21
    there = simulate(system, n_systems=8, n_frames=n_frames, frame_interval=0.1, rng=RNG(2))
    if "walls" in system.boundary and not isinstance(system, ChargedParticles):
        assert (there.collisions.j < 0).sum() > 4
    back_system = system
    if isinstance(system, ChargedParticles):  # time runs backward in the opposite field
        back_system = replace(system, magnetic_field=-system.magnetic_field)
    end = there.state(n_frames - 1)
    back = run_from(back_system, with_velocities(end, -end.velocities), n_frames=n_frames, frame_interval=0.1)
    error = np.abs(back.positions[:, -1] - there.positions[:, 0])
    error = np.minimum(error, np.abs(np.array(system.box) - error))  # across a periodic edge
    assert error.max() < 1e-9


@pytest.mark.parametrize("system", SYSTEMS)
def test_energy_error_is_small_and_falls_with_the_square_of_the_step(system):
    if isinstance(system, SpringNetwork):  # with a natural length, pairs that pass through each other meet a jump
        system = replace(system, natural_length=0.0)
    start = system.draw_state(32, rng=RNG(3))
    step = system.default_step
    errors = []
    for part in (1, 2):
        run = run_from(replace(system, time_step=step / part), start, n_frames=21, frame_interval=20 * step)
        energy = total_energy(system, run)
        errors.append(np.sqrt(((energy - energy[0]) ** 2).mean()))
    scale = kinetic_energy(start).mean()
    assert errors[0] < 2e-3 * scale
    assert errors[0] / errors[1] > 3.5


@pytest.mark.parametrize(
    "system", [replace(SPRINGS, boundary="open"), BODIES, replace(BODIES, dim=2, box=(4.0, 4.0)), FLUID]
)
def test_momentum_and_angular_momentum_are_kept_to_rounding(system):
    run = simulate(system, n_systems=5, n_frames=11, frame_interval=0.2, rng=RNG(4))
    m = run.masses[:, None, :, None]
    momentum = (m * run.velocities).sum(axis=2)
    assert "momentum" in system.conserved
    assert np.abs(momentum - momentum[:, :1]).max() < 1e-12
    if "angular_momentum" in system.conserved:
        x, v = run.positions, run.velocities
        planes = [(0, 1)] if system.dim == 2 else [(0, 1), (1, 2), (2, 0)]
        for a, b in planes:
            spin = (run.masses[:, None] * (x[..., a] * v[..., b] - x[..., b] * v[..., a])).sum(axis=-1)
            assert np.abs(spin - spin[:, :1]).max() < 1e-12 * max(1.0, np.abs(spin).max())


@pytest.mark.parametrize(
    "system", [replace(SPRINGS, boundary="open"), BODIES, replace(CHARGES, boundary="open", magnetic_field=0.0)]
)
def test_a_moving_observer_sees_the_same_motion(system):
    start = system.draw_state(5, rng=RNG(5))
    drift = np.arange(1.0, system.dim + 1)
    still = run_from(system, start)
    moving = run_from(system, with_velocities(start, start.velocities + drift))
    np.testing.assert_allclose(moving.positions[:, 1], still.positions[:, 1] + drift, rtol=0, atol=1e-12)


@pytest.mark.parametrize("system", [SPRINGS, ATOMS, replace(BODIES, boundary="walls", virial_ratio=0.9)])
def test_momentum_changes_by_wall_impulses_alone(system):
    run = simulate(system, n_systems=20, n_frames=11, frame_interval=0.4, rng=RNG(6))
    log = run.collisions
    wall = log.j < 0
    assert wall.sum() > 20
    momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
    given = np.zeros((20, system.dim))
    np.add.at(given, log.system[wall], log.impulse[wall, None] * log.normal[wall])
    np.testing.assert_allclose(momentum[:, -1] - momentum[:, 0], given, rtol=0, atol=1e-11)
    reach = run.radii[:, None, :, None]
    assert (run.positions - reach).min() > -1e-12
    assert (np.array(system.box) - reach - run.positions).min() > -1e-12


def bouncing(step, heights):
    """Return one charge a system that falls from these heights in an electric field and bounces."""
    system = ChargedParticles(n_particles=1, electric_field=(0.0, -1.0), box=(1.0, 9.0), radius=0.1, time_step=step)
    n = len(heights)
    places = np.stack([np.full(n, 0.5), 0.1 + heights], axis=-1)[:, None]
    start = ParticleState(places, np.zeros_like(places), np.full((n, 1), 0.1), np.ones((n, 1)), charges=np.ones((n, 1)))
    return run_from(system, start, frame_interval=10.0)


def test_bounces_under_a_force_are_second_order_and_at_the_closed_form_times():
    heights = RNG(7).uniform(1.0, 1.5, 400)
    fall = np.sqrt(2 * heights)
    phase = 10.0 - 2 * fall * np.round(10.0 / (2 * fall))  # since or until the nearest top
    assert phase.shape == (400,)
    since = np.mod(10.0 - fall, 2 * fall)  # since the last impact
    exact = fall * since - since**2 / 2 + 0.1
    errors = []
    for step in (0.02, 0.005):
        run = bouncing(step, heights)
        errors.append(np.sqrt(((run.positions[:, 1, 0, 1] - exact) ** 2).mean()))
        first = run.collisions.time[np.searchsorted(run.collisions.system, np.arange(400))]
        assert np.abs(first - fall).max() < 0.5 * step**2
        assert (run.collisions.j == -3).all()
        np.testing.assert_allclose(run.collisions.impulse, 2 * fall[run.collisions.system], rtol=5 * step**2)
    assert errors[0] < 1e-3
    assert 13 < errors[0] / errors[1] < 19


def test_encounters_match_a_fine_reference():
    system = GravitatingBodies(n_particles=2, softening=1.0, time_step=0.01)
    places = np.array([[[0.0, 0.0, 0.0], [2.0, 0.3, 0.1]]])
    velocities = np.array([[[0.5, 0.0, 0.0], [-1.0, 0.0, 0.2]]])
    start = ParticleState(places, velocities, np.full((1, 2), 0.5), np.array([[1.0, 2.0]]))
    run = run_from(system, start, n_frames=2, frame_interval=4.0)
    assert len(run.collisions) >= 1
    fine = run_from(replace(system, time_step=1e-4), start, n_frames=40001, frame_interval=1e-4)
    distance = np.sqrt(((fine.positions[0, :, 0] - fine.positions[0, :, 1]) ** 2).sum(axis=-1))
    inside = distance < 1.0
    begin, end = (
        np.flatnonzero(np.diff(inside.astype(int)) == 1)[0] + 1,
        np.flatnonzero(np.diff(inside.astype(int)) == -1)[0],
    )
    log = run.collisions
    assert log.duration is not None
    assert log.overlap is not None
    gained = fine.masses[0, 0] * (fine.velocities[0, end] - fine.velocities[0, begin])[0]
    assert log.time[0] == pytest.approx(fine.times[begin], abs=3e-4)
    assert log.duration[0] == pytest.approx(fine.times[end] - fine.times[begin], abs=6e-4)
    assert log.overlap[0] == pytest.approx(1.0 - distance.min(), abs=3e-4)
    np.testing.assert_allclose(log.impulse[0] * log.normal[0], gained, rtol=0, atol=2e-3)
    assert (log.i[0], log.j[0]) == (0, 1)


@pytest.mark.parametrize("system", [SPRINGS, FLUID, BODIES])
def test_every_encounter_in_frames_is_in_the_log_once(system):
    # a frame a step: the distances between frames are those the engine has seen
    step = system.default_step
    run = simulate(system, n_systems=3, n_frames=200, frame_interval=step, rng=RNG(8))
    log = run.collisions
    expected = []
    for s in range(3):
        for i in range(system.n_particles):
            r = run.positions[s] - run.positions[s, :, i : i + 1]
            if "periodic" in system.boundary:
                r -= np.array(system.box) * np.round(r / np.array(system.box))
            inside = (r**2).sum(axis=-1) < (run.radii[s] + run.radii[s, i]) ** 2  # (frame, particle)
            begins = inside & ~np.vstack([np.zeros((1, system.n_particles), dtype=bool), inside[:-1]])
            expected += [(s, i, j, f) for f, j in np.argwhere(begins).tolist() if j > i]
    pairs = log.j >= 0
    frame = np.ceil(log.time[pairs] / step - 1e-6).astype(int)
    found = list(
        zip(log.system[pairs].tolist(), log.i[pairs].tolist(), log.j[pairs].tolist(), frame.tolist(), strict=True)
    )
    assert len(expected) > 3
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("boundary", ["periodic", "walls"])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_list_gives_what_all_pairs_give(monkeypatch, boundary, dim):
    system = LennardJones(n_particles=100, dim=dim, number_density=0.3, temperature=1.5, boundary=boundary)
    if dim == 3:
        system = replace(system, n_particles=60)
    start = system.draw_state(3, rng=RNG(9))
    listed = run_from(system, start, n_frames=3, frame_interval=0.2)
    monkeypatch.setattr(smooth_forces, "_LIST_FROM", 10**9)
    whole = run_from(system, start, n_frames=3, frame_interval=0.2)
    np.testing.assert_allclose(listed.positions, whole.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(listed.collisions.time, whole.collisions.time, rtol=0, atol=1e-10)
    assert len(listed.collisions) > 50


@njit
@no_type_check
def _list_pairs(position, lengths, reach, partners):
    return smooth_list.list_pairs(position, lengths, reach, partners)


@pytest.mark.parametrize("lengths", [(0.0, 0.0), (9.0, 5.0), (4.5, 0.0), (3.1, 2.0), (5.0, 4.0, 3.0), (0.0, 9.0, 6.5)])
def test_the_list_holds_each_near_pair_once_in_both_orders(lengths):
    # boxes of one cell to many along an axis, periodic or not (0)
    size = np.where(np.array(lengths) == 0.0, 6.0, lengths)
    position = RNG(12).uniform(size=(len(lengths), 150)) * size[:, None]
    listed = _list_pairs(position, np.array(lengths), 1.0, np.empty(4, dtype=np.int32))
    found = [
        (i, int(listed.partners[8 * k + i % 8]))
        for i in range(150)
        for k in range(listed.starts[i // 8], listed.starts[i // 8 + 1])
    ]
    assert [found.count((i, i)) for i in range(150)] == listed.selves.tolist()
    found = [(i, j) for i, j in found if i != j]
    r = position[:, :, None] - position[:, None]
    r -= np.array(lengths)[:, None, None] * np.round(r / size[:, None, None])
    expected = np.argwhere((r**2).sum(axis=0) + np.eye(150) < 1.0)
    assert len(expected) > 200
    assert sorted(found) == [(i, j) for i, j in expected.tolist()]


def test_same_seed_same_bits_and_another_seed_others():
    runs = [simulate(SPRINGS, n_systems=3, n_frames=4, frame_interval=1.0, rng=RNG(s)) for s in (1, 1, 2)]
    assert same_bits(runs[0], runs[1])
    assert not same_bits(runs[0], runs[2])


def test_number_of_threads_changes_no_bit():
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert digests != {hashlib.sha256(b"").hexdigest()}


@pytest.mark.parametrize("system", [SPRINGS, FLUID, ATOMS])
def test_full_buffers_pause_and_change_no_bit(system):
    start = system.draw_state(5, rng=RNG(10))
    wide = smooth_forces.run(system, start, n_frames=4, frame_interval=0.5)
    tight = smooth_forces.run(system, start, n_frames=4, frame_interval=0.5, rows_at_once=1)
    assert len(wide.collisions) > 20
    assert wide.positions.tobytes() == tight.positions.tobytes()
    for name in COLUMNS:
        assert getattr(wide.collisions, name).tobytes() == getattr(tight.collisions, name).tobytes(), name


def test_a_short_table_of_encounters_grows_and_changes_no_bit(monkeypatch):
    system = SpringNetwork(n_particles=12, radius=0.4, placement_scale=0.3)  # nearly all overlap at the start
    start = system.draw_state(3, rng=RNG(11))
    run = run_from(system, start, frame_interval=4.0)
    assert len(run.collisions.of_system(0)) > 24
    monkeypatch.setattr(smooth_forces, "_OPEN_A_PARTICLE", 20)
    assert same_bits(run, run_from(system, start, frame_interval=4.0))


def test_many_blocks_of_systems_change_no_bit(monkeypatch):
    whole = simulate(SPRINGS, n_systems=7, n_frames=4, frame_interval=0.5, rng=RNG(4))
    monkeypatch.setattr(smooth_forces, "_SYSTEMS_AT_ONCE", 3)
    assert same_bits(whole, simulate(SPRINGS, n_systems=7, n_frames=4, frame_interval=0.5, rng=RNG(4)))


def test_steps_too_long_are_refused_with_the_longest():
    system = SpringNetwork(n_particles=2, edge_probability=1.0, time_step=10.0)
    longest = 2 / np.sqrt(0.1 * 2)
    with pytest.raises(ValueError, match=f"time_step must be below {longest:.6g} .*, got a step of 10; lower"):
        simulate(system, n_systems=1, n_frames=2, frame_interval=10.0, rng=RNG(0))
    simulate(replace(system, time_step=4.4), n_systems=1, n_frames=2, frame_interval=8.8, rng=RNG(0))


def test_a_lone_particle_bounces_out_of_a_corner_within_a_step():
    system = SpringNetwork(n_particles=1, dim=3, box=(2.0, 2.0, 2.0), time_step=0.5)
    places, velocities = np.full((1, 1, 3), 0.25), np.array([[[-1.0, -1.1, -1.2]]])
    start = ParticleState(places, velocities, np.full((1, 1), 0.05), np.ones((1, 1)), edges=np.zeros((1, 1, 1)))
    run = run_from(system, start, frame_interval=0.5)
    np.testing.assert_allclose(run.positions[0, 1, 0], 2 * 0.05 - (0.25 + 0.5 * velocities[0, 0]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(run.velocities[0, 1, 0], -velocities[0, 0], rtol=1e-14)
    assert run.collisions.j.tolist() == [-5, -3, -1]
    np.testing.assert_allclose(run.collisions.time, 0.2 / np.array([1.2, 1.1, 1.0]), rtol=1e-14)
    np.testing.assert_array_equal(start.positions, np.full((1, 1, 3), 0.25))  # the given start is left alone


def test_particles_that_cross_the_box_within_a_step_are_refused():
    system = SpringNetwork(n_particles=2, edge_probability=0.0, speed=1e4)
    with pytest.raises(ValueError, match=r"system 0: particles met walls more than 4 times each in a step of 0\.1"):
        simulate(system, n_systems=1, n_frames=2, frame_interval=0.1, rng=RNG(0))

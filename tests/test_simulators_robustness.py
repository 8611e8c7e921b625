"""Hard cases: rest, collapse, blows at one instant, extreme ratios, dense boxes, specifications without sense."""

import json
import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators import HardSpheres, ParticleState, simulate

RNG = np.random.default_rng


def state_of(positions, velocities, radii, masses):
    """Return one system."""
    return ParticleState(*(np.array([values], dtype=float) for values in (positions, velocities, radii, masses)))


def run_alone(system, start, time, *, n_frames=11):
    """Follow one given system."""
    interval = time / (n_frames - 1)
    return simulate(system, n_systems=1, n_frames=n_frames, frame_interval=interval, rng=RNG(0), initial=start)


def momentum_and_energy(run):
    """Return total momentum (frame, dim) and kinetic energy (frame,) of the first system."""
    mass = run.masses[0, :, None]
    return (mass * run.velocities[0]).sum(axis=1), 0.5 * (mass * run.velocities[0] ** 2).sum(axis=(1, 2))


def deepest_overlap(run):
    """Return how far, in units of the reach, the closest pair of any frame overlaps; negative where none does."""
    i, j = np.triu_indices(run.positions.shape[2], 1)
    separation = run.positions[:, :, i] - run.positions[:, :, j]
    if run.system.boundary == "periodic":
        separation -= np.array(run.system.box) * np.round(separation / np.array(run.system.box))
    reach = run.radii[:, None, i] + run.radii[:, None, j]
    return (1 - np.sqrt((separation**2).sum(axis=-1)) / reach).max()


def test_inelastic_collapse_of_three_discs_in_a_row_ends():
    # e < 7 - 4 sqrt(3) = 0.072: without the rule, infinitely many collisions in a finite time (McNamara, Young 1992)
    system = HardSpheres(n_particles=3, gravity=(0.0, 0.0), restitution=0.05, contact_time=1e-6, box=(8.0, 1.0))
    start = state_of([[3, 0.5], [4, 0.5], [5, 0.5]], [[1, 0], [0, 0], [-1, 0]], [0.1] * 3, [1] * 3)
    run = run_alone(system, start, 2.0)
    momentum, energy = momentum_and_energy(run)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-14)
    assert (np.diff(energy) <= 1e-14).all()
    assert deepest_overlap(run) < 1e-12
    assert run.collisions.forced.any()


def test_a_heap_at_rest_stays_where_it_is():
    # two discs on the floor in contact, a third in the hollow between
    r = 0.1
    start = state_of([[0.4, r], [0.6, r], [0.5, r + np.sqrt(3) * r]], np.zeros((3, 2)), [r] * 3, [1] * 3)
    walls_near = HardSpheres(n_particles=3, box=(1.0, 1.0), restitution=0.5, contact_time=1e-3)
    run = run_alone(walls_near, start, 0.2)
    assert deepest_overlap(run) < 1e-12
    assert np.abs(run.velocities).max() < 1.0
    assert run.positions[..., 1].min() > r - 1e-12


def test_newtons_cradle_of_five_hands_on_the_whole_velocity():
    system = HardSpheres(n_particles=5, gravity=(0.0, 0.0), box=(4.0, 1.0))
    x = 1 + 0.125 * np.arange(5)  # radius 1/16: exactly in contact
    start = state_of(np.stack([x, np.full(5, 0.5)], axis=-1), [[1, 0]] + [[0, 0]] * 4, [0.0625] * 5, [1] * 5)
    run = run_alone(system, start, 1.0)
    assert run.velocities[0, -1, :, 0].tolist() == [0, 0, 0, 0, 1]
    assert run.collisions.time.tolist() == [0.0] * 4


def test_a_symmetric_triple_hit_keeps_momentum_and_energy():
    # one disc strikes two others at the same instant; the order is arbitrary, the laws are not
    d = 0.2
    y = d / 2
    reach = np.sqrt(d**2 - y**2)
    start = state_of(
        [[1.0 - reach - 0.25, 1.0], [1.0, 1.0 + y], [1.0, 1.0 - y]], [[1, 0], [0, 0], [0, 0]], [d / 2] * 3, [1] * 3
    )
    system = HardSpheres(n_particles=3, gravity=(0.0, 0.0), box=(3.0, 2.0))
    run = run_alone(system, start, 0.5)
    momentum, energy = momentum_and_energy(run)
    np.testing.assert_allclose(momentum, [[1.0, 0.0]] * 11, atol=1e-14)
    np.testing.assert_allclose(energy, 0.5, atol=1e-14)
    assert len(run.collisions) >= 2
    assert deepest_overlap(run) < 1e-12


@pytest.mark.parametrize("offset", [0.2 - 1e-12, 0.2, 0.2 + 1e-12])
def test_a_grazing_pair_exchanges_next_to_nothing(offset):
    start = state_of([[0.2, 0.5], [0.6, 0.5 + offset]], [[1, 0], [0, 0]], [0.1, 0.1], [1, 1])
    run = run_alone(HardSpheres(n_particles=2, gravity=(0.0, 0.0), box=(2.0, 2.0)), start, 0.9)
    np.testing.assert_allclose(run.velocities[0, -1], [[1, 0], [0, 0]], atol=1e-4)
    assert deepest_overlap(run) < 1e-12


def test_a_disc_in_a_corner_comes_back_the_way_it_came():
    system = HardSpheres(n_particles=1, gravity=(0.0, 0.0))
    run = run_alone(system, state_of([[0.5, 0.5]], [[-1, -1]], [0.25], [1]), 0.5, n_frames=3)
    assert run.positions[0, -1, 0].tolist() == [0.5, 0.5]
    assert run.velocities[0, -1, 0].tolist() == [1.0, 1.0]
    assert sorted(run.collisions.j.tolist()) == [-3, -1]


def test_a_disc_at_rest_in_a_corner_under_slanting_gravity():
    system = HardSpheres(n_particles=1, gravity=(-0.5, -1.0), restitution=0.5, contact_time=1e-3)
    run = run_alone(system, state_of([[0.1, 0.1]], [[0, 0]], [0.1], [1]), 1.0)
    np.testing.assert_allclose(run.positions, 0.1, atol=1e-6)


def test_a_million_times_heavier_disc_hardly_notices():
    system = HardSpheres(n_particles=6, gravity=(0.0, 0.0), box=(2.0, 2.0))
    positions = [[1, 1], [0.3, 0.3], [0.3, 1.7], [1.7, 0.3], [1.7, 1.7], [0.2, 1.0]]
    velocities = [[0, 0], [1, 0.7], [1, -1.1], [-0.9, 1], [-1, -0.8], [1, 0.1]]
    run = run_alone(system, state_of(positions, velocities, [0.3] + [0.05] * 5, [1e6] + [1.0] * 5), 200.0)
    _, energy = momentum_and_energy(run)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)
    assert len(run.collisions) > 1000
    assert deepest_overlap(run) < 1e-12
    assert np.abs(run.velocities[0, :, 0]).max() < 0.01


def test_radii_a_hundred_times_apart():
    grid = np.stack(np.meshgrid(np.linspace(0.05, 0.95, 6), [0.05, 0.95]), axis=-1).reshape(-1, 2)
    positions = np.concatenate([[[0.5, 0.5]], grid])
    velocities = RNG(1).standard_normal((13, 2))
    radii = np.array([0.3] + [0.003] * 12)
    run = run_alone(HardSpheres(n_particles=13), state_of(positions, velocities, radii, radii**2), 20.0)
    assert len(run.collisions) > 500
    reach = run.radii[:, None, :, None]
    assert deepest_overlap(run) < 1e-12
    assert np.minimum(run.positions - reach, 1 - reach - run.positions).min() > -1e-13


def test_a_hexagonal_crystal_at_packing_080_in_a_periodic_box():
    columns, rows, r = 6, 6, 0.5
    spacing = 2 * r * np.sqrt(np.pi / np.sqrt(12) / 0.8)
    box = (columns * spacing, rows * spacing * np.sqrt(3) / 2)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    positions = np.stack([(x + 0.5 * (y % 2)) * spacing, y * spacing * np.sqrt(3) / 2], axis=-1).reshape(-1, 2)
    velocities = RNG(2).standard_normal((36, 2))
    start = state_of(positions, velocities, [r] * 36, [1] * 36)
    system = HardSpheres(n_particles=36, radius=r, radius_spread=0.0, gravity=(0.0, 0.0), box=box, boundary="periodic")
    assert system.packing_fraction == pytest.approx(0.8, abs=1e-12)
    run = run_alone(system, start, 20.0, n_frames=101)
    momentum, energy = momentum_and_energy(run)
    assert len(run.collisions) > 5000
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)
    np.testing.assert_allclose(momentum, momentum[:1] * np.ones((101, 1)), atol=1e-11)
    assert deepest_overlap(run) < 1e-12


def test_a_box_of_touching_rows_gives_the_same_gas_shifted_by_any_amount():
    # the tightest periodic box that is allowed, with pairs that travel many times its length between collisions
    system = HardSpheres(
        n_particles=2, radius=0.1, radius_spread=0.0, gravity=(0.0, 0.0), box=(0.4001, 5.0), boundary="periodic"
    )
    positions = np.array([[0.1, 1.0], [0.3, 1.9]])
    velocities = np.array([[7.0, 0.5], [-3.0, -0.5]])
    run = run_alone(system, state_of(positions, velocities, [0.1, 0.1], [1, 2]), 8.0, n_frames=2001)
    assert deepest_overlap(run) < 1e-12
    assert len(run.collisions) > 2
    _, energy = momentum_and_energy(run)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)


NUMBERS = {
    "radius": st.floats(max_value=0.0) | st.sampled_from([float("nan"), float("inf"), 10.0]),
    "radius_spread": st.floats(max_value=-1e-9) | st.floats(min_value=1.0) | st.just(float("nan")),
    "density": st.floats(max_value=0.0) | st.sampled_from([float("nan"), float("inf")]),
    "restitution": st.floats(max_value=-1e-9) | st.floats(min_value=1.0 + 1e-9) | st.just(float("nan")),
    "velocity_scale": st.floats(max_value=-1e-9) | st.sampled_from([float("nan"), float("inf")]),
    "contact_time": st.floats(max_value=0.0) | st.sampled_from([float("nan"), float("inf")]),
    "restitution_velocity": st.floats(max_value=-1e-9) | st.sampled_from([float("nan"), float("inf")]),
    "n_particles": st.integers(max_value=0) | st.integers(min_value=100, max_value=10**9),
    "dim": st.integers(max_value=1) | st.integers(min_value=4),
    "gravity": st.lists(st.floats(-1, 1), max_size=1).map(tuple) | st.just((0.0, float("nan"))),
    "box": st.sampled_from([(), (1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("inf"), 1.0)]),
    "boundary": st.sampled_from(["open", "wall", "", ("walls",), ("walls", "open"), ("walls",) * 3, "periodic"]),
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(NUMBERS)).flatmap(lambda name: st.tuples(st.just(name), NUMBERS[name])))
def test_every_malformed_number_is_refused_by_name(case):
    name, value = case
    named = "gravity" if value == "periodic" else name  # the default gravity is what a periodic box cannot have
    with pytest.raises(ValueError, match=rf"{named}\b.*(must|cannot)"):
        HardSpheres(**{name: cast(Any, value)})


WRONG_TYPES = """
import json
from simulators import HardSpheres
fields = {
    "n_particles": [None, "10", 10.0, True], "dim": [None, "2", 2.0, True],
    "radius": [None, "0.06", True, [0.06]], "radius_spread": [None, "0", False], "density": [None, "1", True],
    "restitution": [None, "1", True], "velocity_scale": [None, "1", True], "contact_time": [None, "1", True],
    "restitution_velocity": [None, "0", False], "gravity": [None, "down", 1.0, (0.0, None), (0.0, "1"), (0.0, True)],
    "box": [None, "11", 1.0, (1.0, None), (1.0, "1")], "boundary": [None, 1, True], "interacting": [None, "yes", 1],
}
texts = []
for name, values in fields.items():
    for value in values:
        try:
            HardSpheres(**{name: value})
        except (TypeError, ValueError) as error:
            texts.append([name, repr(value), str(error)])
        else:
            texts.append([name, repr(value), "accepted"])
print(json.dumps(texts))
"""


def test_every_wrong_type_is_refused_by_name():
    # in a process of its own: the type checker of this one would refuse first
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    for name, value, text in json.loads(done.stdout):
        assert text.startswith(name), (name, value, text)
        assert "must be" in text, (name, value, text)

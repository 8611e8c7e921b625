"""Eight numbers at a time against one at a time, and sums over lanes against sums by hand."""

import math
from typing import no_type_check

import numpy as np
import pytest
from numba import njit

from simulators import ParticleState, simulate
from simulators.engines.smooth_lanes import (
    WIDTH,
    count_from,
    floor,
    gather,
    is_any,
    lanes,
    load,
    pack,
    rint,
    store,
    total,
)
from simulators.systems import ChargedParticles, GravitatingBodies, LennardJones, SpringNetwork
from simulators.systems.pairs import inverse_cube, where

RNG = np.random.default_rng


@njit
@no_type_check
def _cubes(squared, found):
    for k in range(0, squared.shape[0], WIDTH):
        store(found, k, squared.shape[0], inverse_cube(load(squared, k, squared.shape[0])))


def test_inverse_cube_is_right_to_the_last_bits_over_all_sizes():
    squared = np.concatenate([np.geomspace(1e-200, 1e200, 100_003), RNG(0).uniform(1, 4, 100_000), [1.0, 2.0, 4.0]])
    found = np.empty_like(squared)
    _cubes(squared, found)
    wide = squared.astype(np.longdouble)
    exact = 1 / (wide * np.sqrt(wide))
    assert np.abs(found / exact - 1).max() < 4e-16
    assert inverse_cube(4.0) == 0.125


@njit
@no_type_check
def _operations(a, b, found):
    for k in range(0, a.shape[0], WIDTH):
        x, y = load(a, k, a.shape[0]), load(b, k, a.shape[0])
        x += 1.0
        x -= 2 * y
        z = where((x < y) & (y > 0.5) | (y != y), -x * y, math.sqrt(y) / 3.0) + rint(x) - floor(y - x)
        store(found, k, a.shape[0], z + count_from(k))


@pytest.mark.parametrize("n", [1, 7, 8, 9, 31])
def test_operations_on_lanes_are_those_on_numbers_and_none_reaches_beyond_the_end(n):
    a, b = RNG(1).uniform(0, 9, (2, n))
    found = np.full(n + WIDTH, -1.0)
    _operations(a, b, found)
    x = a + 1 - 2 * b
    chosen = np.where((x < b) & (b > 0.5), -x * b, np.sqrt(b) / 3)
    np.testing.assert_allclose(found[:n], chosen + np.rint(x) - np.floor(b - x) + np.arange(n), rtol=1e-14, atol=1e-14)
    assert (found[n:] == -1.0).all()


@njit
@no_type_check
def _reductions(values, places, row):
    eight = gather(values, 3, places, 2)
    end = pack(row, 1, places, 2, eight > 0.0)
    return total(eight), is_any(eight > 5.0), is_any(eight > 1.0), end, total(lanes(0.5))


def test_lanes_are_gathered_packed_and_added():
    values = np.arange(-10.0, 10.0)
    places = np.array([0, 0, 9, 2, 11, 2, 8, 6, 1, 10, 5], dtype=np.int32)
    row = np.zeros(12, dtype=np.int32)
    wanted = values[3 + places[2:10]]
    assert _reductions(values, places, row) == (wanted.sum(), False, True, 1 + (wanted > 0).sum(), 4.0)
    assert row[1 : 1 + (wanted > 0).sum()].tolist() == places[2:10][wanted > 0].tolist()


def first_velocities(system, start, step):
    """Return the velocities after one step from rest over half the step: the mean of two accelerations."""
    run = simulate(system, n_systems=len(start.positions), n_frames=2, frame_interval=step, rng=RNG(0), initial=start)
    return run.velocities[:, 1] / step


@pytest.mark.parametrize("n", [2, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("kind", ["bodies", "plane", "charges", "springs", "periodic"])
def test_accelerations_are_the_slow_sum_for_any_number_of_particles(kind, n):
    system = {
        "bodies": GravitatingBodies(n_particles=n, gravitational_constant=2.0, mass_spread=0.5),
        "plane": GravitatingBodies(n_particles=n, dim=2, box=(8.0, 8.0), mass_spread=0.5),
        "charges": ChargedParticles(n_particles=n, boundary="open"),
        "springs": SpringNetwork(n_particles=n, boundary="open", natural_length=0.3),
        "periodic": LennardJones(n_particles=n, number_density=0.015),
    }[kind]
    system = type(system)(**{**vars(system), "time_step": 1e-7})
    start = system.draw_state(3, rng=RNG(2))
    start = ParticleState(start.positions, 0 * start.velocities, start.radii, start.masses, start.charges, start.edges)
    couplings, law = system.couplings(start), system.law
    expected = np.zeros_like(start.positions)
    for s in range(3):
        for i in range(n):
            for j in range(n):
                c = couplings[s, 0, i] * couplings[s, 0, j] if couplings.shape[1] == 1 else couplings[s, i, j]
                r = start.positions[s, i] - start.positions[s, j]
                if kind == "periodic":
                    r -= np.array(system.box) * np.round(r / np.array(system.box))
                if i != j:
                    expected[s, i] += c * type(law).pair_force(law, (r**2).sum()) * r / start.masses[s, i]
    found = first_velocities(system, start, 1e-7)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * (1e-3 + np.abs(expected).max()))


def test_bodies_at_one_place_exert_no_force_on_each_other():
    system = SpringNetwork(n_particles=2, edge_probability=1.0, natural_length=0.3, boundary="open")
    places = np.full((1, 2, 2), 5.0)
    edges = 0.1 * (1 - np.eye(2))[None]
    start = ParticleState(places, np.zeros_like(places), np.full((1, 2), 0.05), np.ones((1, 2)), edges=edges)
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=1.0, rng=RNG(0), initial=start)
    np.testing.assert_array_equal(run.positions[0, 1], places[0])

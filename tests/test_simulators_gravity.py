"""Two bodies on a Kepler orbit, and what drawn clusters are."""

from dataclasses import replace

import numpy as np
import pytest

from simulators import ParticleState, simulate
from simulators.systems import GravitatingBodies, kinetic_energy

RNG = np.random.default_rng
SETTINGS = {"n_systems": 1, "n_frames": 2, "frame_interval": 0.1}


def binary(eccentricity, *, dim=3, masses=(1.0, 3.0)):
    """Return two bodies at the far point of an orbit of semi-major axis 1, at rest as a whole."""
    m1, m2 = masses
    distance = 1 + eccentricity
    speed = np.sqrt((m1 + m2) * (1 - eccentricity) / (1 + eccentricity))
    places, velocities = np.zeros((2, 1, 2, dim))
    places[0, :, 0] = np.array([-m2, m1]) / (m1 + m2) * distance
    velocities[0, :, 1] = np.array([-m2, m1]) / (m1 + m2) * speed
    return ParticleState(places, velocities, np.full((1, 2), 1e-6), np.array([masses]))


def follow(step, eccentricity, *, orbits=1, n_frames=2, dim=3):
    """Return a run over some periods, 2 pi / sqrt(m1 + m2) each."""
    period = 2 * np.pi / np.sqrt(4.0)
    system = GravitatingBodies(
        n_particles=2, dim=dim, softening=1e-6, box=(4.0,) * dim, time_step=step * period * (1 + 1e-9)
    )
    interval = orbits * period / (n_frames - 1)
    return simulate(
        system,
        n_systems=1,
        n_frames=n_frames,
        frame_interval=interval,
        rng=RNG(0),
        initial=binary(eccentricity, dim=dim),
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_orbits_close_to_second_order_at_1000_steps(dim):
    # leapfrog: the ellipse keeps its shape, its phase errs by the square of the step; extrapolated, it closes
    errors, ends = [], []
    for steps in (1000, 2000):
        run = follow(1 / steps, 0.3, dim=dim)
        ends.append(run.positions[0, 1])
        errors.append(np.abs(run.positions[0, 1] - run.positions[0, 0]).max())
    assert errors[0] < 3e-4
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)
    closed = ends[1] + (ends[1] - ends[0]) / 3
    np.testing.assert_allclose(closed, run.positions[0, 0], rtol=0, atol=1e-6)


def test_energy_and_shape_return_after_each_orbit_to_a_millionth():
    run = follow(1 / 1000, 0.3, orbits=10, n_frames=11)
    system = run.system
    energy = np.array([kinetic_energy(run.state(k)) + system.potential_energy(run.state(k)) for k in range(11)])[:, 0]
    assert energy[0] == pytest.approx(-3.0 / 2, rel=1e-9)  # - G m1 m2 / 2 a
    np.testing.assert_allclose(energy, energy[0], rtol=1e-6)


def test_circular_orbit_keeps_its_radius_and_lags_as_leapfrog_must():
    run = follow(1 / 1000, 0.0, n_frames=101)
    r = run.positions[0, :, 0] - run.positions[0, :, 1]
    np.testing.assert_allclose(np.sqrt((r**2).sum(axis=-1)), 1.0, rtol=0, atol=2e-5)
    angle = np.unwrap(np.arctan2(r[:, 1], r[:, 0]))
    # leapfrog's own Hamiltonian has h^2 (p V'' p / 12 - V'^2 / 24) on top, so the circle lags by (omega h)^2 / 3
    lag = (2 * np.pi / 1000) ** 2 / 3
    assert angle[-1] - angle[0] == pytest.approx(2 * np.pi * (1 - lag), rel=1e-8)


def test_softened_circular_orbit_has_the_frequency_of_the_softened_force():
    eps, m = 0.5, 4.0
    omega = np.sqrt(m / (1 + eps**2) ** 1.5)
    start = binary(0.0)
    velocities = start.velocities * omega / 2.0
    system = GravitatingBodies(n_particles=2, softening=eps, box=(4.0, 4.0, 4.0), time_step=1e-3)
    start = ParticleState(start.positions, velocities, start.radii, start.masses)
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=2 * np.pi / omega, rng=RNG(0), initial=start)
    np.testing.assert_allclose(run.positions[0, 1], run.positions[0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dim", "boundary"), [(2, "open"), (3, "open"), (3, "walls")])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_drawn_clusters_are_bound_and_at_rest(dim, boundary, ratio):
    system = GravitatingBodies(
        n_particles=20, dim=dim, mass_spread=0.5, virial_ratio=ratio, box=(3.0, 4.0, 5.0)[:dim], boundary=boundary
    )
    state = system.draw_state(30, rng=RNG(1))
    system.check_state(state)
    np.testing.assert_allclose(kinetic_energy(state), -ratio * system.potential_energy(state), rtol=1e-12, atol=1e-12)
    m = state.masses[..., None]
    assert np.abs((m * state.velocities).sum(axis=1)).max() < 1e-12
    center = (m * state.positions).sum(axis=1) / m.sum(axis=1)
    np.testing.assert_allclose(center, np.broadcast_to(np.array(system.box) / 2, center.shape), rtol=0, atol=1e-12)
    assert 0.5 <= state.masses.min() < 0.6
    assert 1.4 < state.masses.max() <= 1.5


def test_energy_of_three_bodies_by_hand():
    system = GravitatingBodies(n_particles=3, gravitational_constant=2.0, softening=1.0)
    places = np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    state = ParticleState(places, np.zeros_like(places), np.full((1, 3), 0.5), np.array([[1.0, 2.0, 3.0]]))
    expected = -2 * (2 / np.sqrt(2) + 3 / np.sqrt(5) + 6 / np.sqrt(6))
    assert system.potential_energy(state)[0] == pytest.approx(expected, rel=1e-14)


def test_a_cluster_in_virial_equilibrium_keeps_its_size():
    run = simulate(GravitatingBodies(n_particles=40), n_systems=8, n_frames=21, frame_interval=0.1, rng=RNG(2))
    size = np.sqrt(((run.positions - 4.0) ** 2).sum(axis=-1).mean(axis=(0, 2)))
    cold = replace(run.system, virial_ratio=0.0)
    fallen = simulate(cold, n_systems=8, n_frames=21, frame_interval=0.1, rng=RNG(2))
    smaller = np.sqrt(((fallen.positions - 4.0) ** 2).sum(axis=-1).mean(axis=(0, 2)))
    assert np.abs(size / size[0] - 1).max() < 0.2
    assert smaller.min() < 0.7 * smaller[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_particles": 1}, r"n_particles must be at least 2, got 1"),
        ({"dim": 2}, r"box must have 2 entries for dim=2, got \(8.0, 8.0, 8.0\)"),
        ({"softening": 0.0}, r"softening must be positive and finite, got 0.0"),
        ({"softening": 1e-101}, r"softening must be at least 1e-100, or forces overflow, got 1e-101"),
        ({"gravitational_constant": -1.0}, r"gravitational_constant must be positive and finite, got -1.0"),
        ({"mass": float("inf")}, r"mass must be positive and finite, got inf"),
        ({"mass_spread": 1.0}, r"mass_spread must be in \[0, 1\), got 1.0"),
        ({"virial_ratio": 1.0}, r"virial_ratio must be in \[0, 1\), got 1.0"),
        ({"time_step": 0.0}, r"time_step must be None, or positive and finite, got 0.0"),
        ({"boundary": "periodic"}, r"boundary must be 'open' or 'walls', .*, got 'periodic'"),
        ({"boundary": "walls", "softening": 9.0}, r"softening must be below the sides of box=.*, got 9.0"),
    ],
)
def test_impossible_bodies(settings, message):
    with pytest.raises(ValueError, match=message):
        GravitatingBodies(**settings)


def test_a_step_unstable_for_a_close_pair_is_refused():
    system = GravitatingBodies(n_particles=2, softening=1e-3, box=(4.0, 4.0, 4.0), time_step=0.5)
    start = binary(0.0)
    tight = ParticleState(start.positions / 10, start.velocities, start.radii, start.masses)
    longest = 2 / np.sqrt(4 / (0.01 + 1e-6) ** 1.5)
    with pytest.raises(ValueError, match=f"time_step must be below {longest:.6g} .* got a step of 0.5"):
        simulate(system, n_systems=1, n_frames=2, frame_interval=1.0, rng=RNG(0), initial=tight)


def test_a_body_beyond_a_wall_is_refused():
    system = GravitatingBodies(n_particles=2, box=(1.0, 1.0, 1.0), boundary="walls")
    with pytest.raises(ValueError, match="initial: system 0, particle 0 is outside the box"):
        simulate(system, **SETTINGS, rng=RNG(0), initial=binary(0.0))

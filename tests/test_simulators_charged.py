"""Charges in fields against closed forms, and what drawn charges are."""

from dataclasses import replace

import numpy as np
import pytest

from simulators import ParticleState, simulate
from simulators.systems import ChargedParticles, kinetic_energy

RNG = np.random.default_rng


def lone(place, velocity, *, charge=1.0, mass=1.0):
    """Return one particle."""
    return ParticleState(
        np.array([[place]]),
        np.array([[velocity]]),
        np.full((1, 1), 0.05),
        np.full((1, 1), mass),
        np.full((1, 1), charge),
    )


def follow(system, start, *, n_frames, frame_interval):
    return simulate(system, n_systems=1, n_frames=n_frames, frame_interval=frame_interval, rng=RNG(0), initial=start)


@pytest.mark.parametrize("charge", [1.0, -1.0])
def test_cyclotron_circle_has_its_radius_period_and_sense(charge):
    field, mass, speed = 2.0, 0.5, 0.8
    omega = field / mass
    step = 0.1 / 64
    system = ChargedParticles(n_particles=1, magnetic_field=field, boundary="open", time_step=step)
    run = follow(system, lone([5.0, 5.0], [speed, 0.0], charge=charge, mass=mass), n_frames=41, frame_interval=0.1)
    # chords of one step's length stand in for arcs, so the circle is wider by half the angle over its sine
    half = 0.5 * omega * step
    t, radius = run.times, speed / omega * half / np.sin(half)
    assert radius == pytest.approx(speed / omega, rel=2e-6)
    exact = np.stack([5 + radius * np.sin(omega * t), 5 - charge * radius * (1 - np.cos(omega * t))], axis=-1)
    np.testing.assert_allclose(run.positions[0, :, 0], exact, rtol=0, atol=1e-12)
    # the turn is exact, so the speed and the angle are, at any step
    exact = speed * np.stack([np.cos(omega * t), -charge * np.sin(omega * t)], axis=-1)
    np.testing.assert_allclose(run.velocities[0, :, 0], exact, rtol=0, atol=1e-12)


def test_a_magnetic_field_alone_keeps_the_energy_even_at_walls():
    system = ChargedParticles(n_particles=1, magnetic_field=3.0, box=(2.0, 2.0), time_step=0.05)
    run = follow(system, lone([0.5, 0.3], [1.5, 1.0]), n_frames=200, frame_interval=0.5)
    energy = np.array([kinetic_energy(run.state(k)) for k in range(200)])[:, 0]
    assert len(run.collisions) > 50
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)


def test_crossed_fields_drift_across_both():
    electric, field = (0.2, -0.3), 4.0
    period, n_steps = 2 * np.pi / field, 800
    system = ChargedParticles(
        n_particles=1, magnetic_field=field, electric_field=electric, boundary="open", time_step=period / n_steps
    )
    run = follow(system, lone([5.0, 5.0], [0.7, 0.1]), n_frames=11, frame_interval=period)
    drift = np.array([electric[1], -electric[0]]) / field  # E x B / B^2
    half = np.pi / n_steps
    drift *= half / np.sin(half)  # of the turn in a step, as above
    exact = np.array([5.0, 5.0]) + run.times[:, None] * drift
    np.testing.assert_allclose(run.positions[0, :, 0], exact, rtol=0, atol=1e-11)


def test_two_like_charges_fly_apart_with_the_energy_they_had():
    system = ChargedParticles(n_particles=2, boundary="open", softening=0.1, time_step=1e-4)
    places, rest = np.array([[[5.0, 5.0], [5.2, 5.0]]]), np.zeros((1, 2, 2))
    start = ParticleState(places, rest, np.full((1, 2), 0.05), np.ones((1, 2)), np.ones((1, 2)))
    run = follow(system, start, n_frames=2, frame_interval=10.0)
    distance = run.positions[0, 1, 1, 0] - run.positions[0, 1, 0, 0]
    speed = np.sqrt(1 / np.sqrt(0.05) - 1 / np.sqrt(distance**2 + 0.01))
    np.testing.assert_allclose(run.velocities[0, 1, :, 0], [-speed, speed], rtol=1e-6)


def test_opposite_charges_swing_at_the_frequency_of_the_soft_core():
    eps, amplitude = 1.0, 1e-3
    system = ChargedParticles(n_particles=2, boundary="open", softening=eps, time_step=1e-3)
    places = np.array([[[5.0, 5.0], [5.0 + amplitude, 5.0]]])
    start = ParticleState(
        places, np.zeros_like(places), np.full((1, 2), 0.05), np.ones((1, 2)), np.array([[1.0, -1.0]])
    )
    run = follow(system, start, n_frames=50, frame_interval=0.1)
    distance = run.positions[0, :, 1, 0] - run.positions[0, :, 0, 0]
    exact = amplitude * np.cos(np.sqrt(2 / eps**3) * run.times)
    np.testing.assert_allclose(distance, exact, rtol=0, atol=2e-5 * amplitude)


def test_nearest_images_act_along_periodic_axes():
    system = ChargedParticles(n_particles=2, boundary="periodic", time_step=1e-3)
    inside = ChargedParticles(n_particles=2, boundary="open", time_step=1e-3)
    charges, masses, radii = np.array([[1.0, -1.0]]), np.ones((1, 2)), np.full((1, 2), 0.05)
    rest = np.zeros((1, 2, 2))
    across = ParticleState(np.array([[[0.2, 9.8], [9.7, 0.1]]]), rest, radii, masses, charges)
    whole = ParticleState(np.array([[[5.2, 4.8], [4.7, 5.1]]]), rest, radii, masses, charges)
    run = follow(system, across, n_frames=3, frame_interval=0.2)
    reference = follow(inside, whole, n_frames=3, frame_interval=0.2)
    np.testing.assert_allclose(run.velocities, reference.velocities, rtol=0, atol=1e-11)
    assert (run.positions >= 0).all()
    assert (run.positions < 10).all()
    np.testing.assert_allclose(system.potential_energy(across), inside.potential_energy(whole), rtol=1e-12)


def test_drawn_charges_have_their_share_speed_and_places():
    system = ChargedParticles(n_particles=10, positive_share=0.3, charge=1.5, speed=0.7)
    state = system.draw_state(2000, rng=RNG(1))
    assert state.charges is not None
    assert set(np.unique(state.charges)) == {-1.5, 1.5}
    assert (state.charges > 0).mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 20000))
    np.testing.assert_allclose(np.sqrt((state.velocities**2).sum(axis=-1)), 0.7, rtol=1e-12)
    assert (state.positions - 5.0).std() == pytest.approx(1.0, rel=0.015)
    system.check_state(state)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, ("energy",)),
        ({"boundary": "open"}, ("energy", "momentum", "angular_momentum")),
        ({"boundary": "periodic"}, ("energy", "momentum")),
        ({"boundary": "open", "magnetic_field": 1.0}, ("energy",)),
        ({"boundary": "periodic", "electric_field": (1.0, 0.0)}, ()),
        ({"boundary": ("open", "periodic"), "electric_field": (1.0, 0.0)}, ("energy",)),
    ],
)
def test_what_is_kept(settings, kept):
    assert replace(ChargedParticles(), **settings).conserved == kept


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"softening": 0.0}, r"softening must be positive and finite, got 0.0"),
        ({"positive_share": 1.1}, r"positive_share must be in \[0, 1\], got 1.1"),
        ({"electric_field": (1.0,)}, r"electric_field must have 2 entries for dim=2, got \(1.0,\)"),
        ({"electric_field": (1.0, float("inf"))}, r"electric_field must be finite, got \(1.0, inf\)"),
        ({"magnetic_field": float("nan")}, r"magnetic_field must be finite, got nan"),
        ({"radius": 2.6}, r"radius must be at most a quarter of the sides"),
        ({"boundary": "closed"}, r"boundary must be .*, got 'closed'"),
    ],
)
def test_impossible_charges(settings, message):
    with pytest.raises(ValueError, match=message):
        ChargedParticles(**settings)


def test_starts_without_charges_and_steps_beyond_a_turn_are_refused():
    system = ChargedParticles(n_particles=1, magnetic_field=10.0, time_step=0.25)
    start = lone([5.0, 5.0], [0.0, 0.0])
    bare = ParticleState(start.positions, start.velocities, start.radii, start.masses)
    with pytest.raises(ValueError, match=r"initial must have charges \(system, particle\), got None"):
        follow(system, bare, n_frames=2, frame_interval=1.0)
    with pytest.raises(ValueError, match=r"time_step must be below 0\.2 .*, got a step of 0\.25"):
        follow(system, start, n_frames=2, frame_interval=1.0)

"""Soft spheres in a box that shakes or turns, against the same motion seen from the laboratory."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from simulators import ParticleState, RotatingBox, SoftSpheres, VibratedBox, simulate

RNG = np.random.default_rng
UNIT = {"n_particles": 1, "radius": 1.0, "radius_spread": 0.0, "density": 1 / math.pi, "box": (10.0, 10.0)}


def lone(position, velocity, spin=None):
    """Return one system of one particle of mass 1 and radius 1."""
    x, v = np.array([[position]]), np.array([[velocity]])
    spin = None if spin is None else np.array([[spin]])
    return ParticleState(x, v, np.ones((1, 1)), np.ones((1, 1)), angular_velocities=spin)


def follow(system, start, *, time, n_frames):
    """Run a given start."""
    interval = time / (n_frames - 1)
    return simulate(system, n_systems=1, n_frames=n_frames, frame_interval=interval, rng=RNG(0), initial=start)


def shaken(**fields):
    """Return a vibrated box of one particle."""
    settings = {"gravity": (0.0, -1.0), "contact_time": 1e-3, "amplitude": 0.3, "frequency": 0.5}
    return VibratedBox(**(UNIT | settings | fields))


def test_flight_in_a_shaken_box_is_a_parabola_seen_from_the_laboratory():
    system = shaken(boundary="open", contact_time=0.05)
    run = follow(system, lone([5.0, 3.0], [0.2, 0.5]), time=4.0, n_frames=9)
    t, w = run.times, math.pi
    height = 3.0 + (0.5 + 0.3 * w) * t - 0.5 * t**2 - 0.3 * np.sin(w * t)
    np.testing.assert_allclose(run.positions[0, :, 0, 1], height, atol=1e-5)
    np.testing.assert_allclose(run.velocities[0, :, 0, 1], 0.5 + 0.3 * w * (1 - np.cos(w * t)) - t, atol=1e-5)
    np.testing.assert_allclose(run.positions[0, :, 0, 0], 5.0 + 0.2 * t, atol=1e-12)


def test_in_space_the_box_shakes_along_the_third_axis():
    system = VibratedBox(
        n_particles=1,
        dim=3,
        radius=1.0,
        box=(10.0,) * 3,
        gravity=(0.0,) * 3,
        boundary="open",
        amplitude=0.3,
        frequency=0.5,
        contact_time=0.05,
    )
    for engine in ("soft_contact", "soft_contact_warp"):
        start = lone([5.0] * 3, [0.2, 0.5, 0.0])
        run = simulate(system, n_systems=1, n_frames=3, frame_interval=1.0, rng=RNG(0), initial=start, engine=engine)
        t, w = run.times, math.pi
        expected = np.stack((5 + 0.2 * t, 5 + 0.5 * t, 5 + 0.3 * w * t - 0.3 * np.sin(w * t)), axis=-1)
        np.testing.assert_allclose(run.positions[0, :, 0], expected, atol=1e-4)


def test_the_floor_gives_a_ball_the_energy_of_the_closed_form():
    w, a, e = math.pi, 0.3, 0.8
    system = shaken(restitution=e, boundary=("open", "walls"))
    run = follow(system, lone([5.0, 3.0], [0.0, -a * w]), time=2.5, n_frames=2)  # at rest in the laboratory
    meet = float(brentq(lambda t: 2.0 - 0.5 * t * t - a * math.sin(w * t), 0.5, 2.4))  # pyright: ignore[reportArgumentType]
    floor = a * w * math.cos(w * meet)
    closing = meet + floor
    log = run.collisions
    assert log.j[0] == -3
    assert log.time[0] == pytest.approx(meet, abs=1e-4)
    assert log.impulse[0] == pytest.approx((1 + e) * closing, rel=2e-3)
    assert len(log) == 1
    speed = run.velocities[0, -1, 0, 1] + a * w * math.cos(w * 2.5)  # in the laboratory
    height = run.positions[0, -1, 0, 1] + a * math.sin(w * 2.5)
    gained = (speed**2 / 2 + height) - 3.0
    off = floor + e * closing
    assert gained == pytest.approx((off**2 - meet**2) / 2, rel=5e-3)


def test_a_gentle_shake_keeps_the_ball_on_the_floor_and_a_strong_one_throws_it():
    for frequency, throws in ((0.25, False), (0.5, True)):  # peak acceleration 0.74 and 2.96 of gravity
        system = shaken(frequency=frequency, restitution=0.3, boundary=("open", "walls"))
        assert (system.peak_acceleration > 1) == throws
        run = follow(system, lone([5.0, 1.0 - 1 / system.stiffness], [0.0, 0.0]), time=4.0, n_frames=401)
        lift = run.positions[0, :, 0, 1].max() - 1.0
        assert (lift > 0.05) == throws
        if not throws:
            assert lift < 1e-6


def test_a_still_drive_changes_no_bit():
    start = SoftSpheres().draw_state(2, rng=RNG(1))
    settings = {"n_systems": 2, "n_frames": 3, "frame_interval": 0.2, "rng": RNG(0), "initial": start}
    truth = simulate(SoftSpheres(), **settings)
    for system in (VibratedBox(amplitude=0.0), RotatingBox(rotation_rate=0.0)):
        run = simulate(system, **settings)
        np.testing.assert_array_equal(run.positions, truth.positions)
        assert system.conserved == ("energy",)
    assert VibratedBox().conserved == RotatingBox().conserved == ()


def turning(**fields):
    """Return a rotating box of one particle."""
    settings = {"gravity": (0.0, -1.0), "contact_time": 0.05, "rotation_rate": 1.3}
    return RotatingBox(**(UNIT | settings | fields))


def seen_from_the_laboratory(vectors, times, rate):
    """Turn vectors (frame, 2) by rate * time."""
    cos, sin = np.cos(rate * times), np.sin(rate * times)
    x, y = vectors.T
    return np.stack((cos * x - sin * y, sin * x + cos * y), axis=-1)


def test_flight_in_a_turning_box_is_a_parabola_seen_from_the_laboratory_to_second_order():
    errors = []
    for step in (2e-3, 1e-3, 5e-4):
        run = follow(turning(boundary="open", time_step=step), lone([7.0, 4.0], [0.3, -0.2]), time=3.0, n_frames=4)
        r = run.positions[0, :, 0] - 5.0
        spin = np.stack((-1.3 * r[:, 1], 1.3 * r[:, 0]), axis=-1)
        v = seen_from_the_laboratory(run.velocities[0, :, 0] + spin, run.times, 1.3)
        x = seen_from_the_laboratory(r, run.times, 1.3)
        fall = np.array([0.0, -1.0])
        t = run.times[:, None]
        start = np.array([0.3, -0.2]) + 1.3 * np.array([1.0, 2.0])
        off = np.abs(x - (np.array([2.0, -1.0]) + start * t + fall * t**2 / 2)).max()
        errors.append(max(off, np.abs(v - (start + fall * t)).max()))
    assert errors[-1] < 1e-5
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.1)


def test_the_jacobi_integral_holds_through_collisions():
    system = RotatingBox(rotation_rate=2.0, gravity=(0.0, 0.0), n_particles=8)
    run = simulate(system, n_systems=3, n_frames=6, frame_interval=0.5, rng=RNG(2))
    assert len(run.collisions) > 100
    r = run.positions - 0.5
    kinetic = run.masses[:, None] * ((run.velocities**2).sum(axis=-1) - 4.0 * (r**2).sum(axis=-1)) / 2
    springs = np.array([system.potential_energy(run.state(frame)) for frame in range(6)]).T
    total = kinetic.sum(axis=2) + springs
    np.testing.assert_allclose(
        total, np.broadcast_to(total[:, :1], total.shape), atol=2e-3 * np.abs(kinetic).sum(axis=2).max()
    )


def test_a_ball_rests_where_the_centrifugal_force_presses_it():
    system = turning(gravity=(0.0, 0.0), restitution=0.3)
    reach = 4.0  # from the axis to a ball at the middle of a wall
    sunk = 1.3**2 * reach / (system.stiffness - 1.3**2)
    run = follow(system, lone([9.0 + sunk, 5.0], [0.0, 0.0]), time=2.0, n_frames=3)
    np.testing.assert_allclose(run.positions[0, -1, 0], [9.0 + sunk, 5.0], atol=1e-9)
    log = run.collisions
    assert (log.j == -2).all()
    assert log.impulse == pytest.approx([1.3**2 * (reach + sunk) * 2.0], rel=1e-9)


def test_a_spin_that_stands_still_in_space_turns_backwards_in_the_box():
    system = RotatingBox(
        n_particles=1, dim=3, radius=1.0, radius_spread=0.0, density=0.75 / math.pi, box=(10.0,) * 3,
        gravity=(0.0,) * 3, boundary="open", friction=0.5, rotation_rate=1.3,
    )  # fmt: skip
    run = follow(system, lone([5.0, 5.0, 5.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.2]), time=2.0, n_frames=5)
    assert run.angular_velocities is not None
    spins = run.angular_velocities[0, :, 0]
    still = seen_from_the_laboratory(spins[:, :2], run.times, 1.3)
    np.testing.assert_allclose(still, [[1.0, 0.5]] * 5, atol=1e-9)
    np.testing.assert_allclose(spins[:, 2], 0.2, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (VibratedBox, {"amplitude": -0.1}, r"amplitude must be zero or more, and finite, got -0.1"),
        (VibratedBox, {"frequency": 0.0}, r"frequency must be positive and finite, got 0.0"),
        (VibratedBox, {"restitution": 0.0}, r"restitution must be in \(0, 1\], got 0.0"),
        (RotatingBox, {"rotation_rate": math.inf}, r"rotation_rate must be finite, got inf"),
        (RotatingBox, {"boundary": "periodic"}, r"boundary must be 'walls' or 'open' along the first two axes"),
    ],
)
def test_impossible_systems(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)

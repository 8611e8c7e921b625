"""Closed forms and conservation laws of the event-driven engine."""

import numpy as np
import pytest

from simulators import HardSpheres, ParticleState, simulate

RNG = np.random.default_rng  # every start is given or drawn from a written seed


def lone_disc(position, velocity, *, radius=0.1):
    """Return one system of one disc."""
    return ParticleState(
        np.array([[position]], dtype=float),
        np.array([[velocity]], dtype=float),
        np.array([[radius]]),
        np.array([[1.0]]),
    )


def two_discs(positions, velocities, *, radii, masses):
    """Return one system of two discs."""
    return ParticleState(
        np.array([positions], dtype=float),
        np.array([velocities], dtype=float),
        np.array([radii], dtype=float),
        np.array([masses], dtype=float),
    )


def kinetic_energy(run):
    """Return the kinetic energy of each particle, (system, frame, particle)."""
    return 0.5 * run.masses[:, None] * (run.velocities**2).sum(axis=-1)


def total_energy(run):
    """Return the energy of each system, (system, frame)."""
    fall = run.positions @ np.array(run.system.gravity)
    return (kinetic_energy(run) - run.masses[:, None] * fall).sum(axis=-1)


def smallest_gap(run):
    """Return the smallest distance between surfaces over all frames and pairs."""
    i, j = np.triu_indices(run.positions.shape[2], 1)
    separation = run.positions[:, :, i] - run.positions[:, :, j]
    reach = run.radii[:, None, i] + run.radii[:, None, j]
    return (np.sqrt((separation**2).sum(axis=-1)) - reach).min()


def replay(run, system):
    """Yield, for each logged event of a system, the rates along the normal before and after; then check the frames.

    Knows only the start state and the log: free flight, and impulse times normal at the logged times.
    """
    gravity = np.array(run.system.gravity)
    x, v = run.positions[system, 0].copy(), run.velocities[system, 0].copy()
    log = run.collisions.of_system(system)
    now, frame, rates = 0.0, 1, []
    for time, i, j, impulse, normal in zip(log.time, log.i, log.j, log.impulse, log.normal, strict=True):
        while frame < len(run.times) and run.times[frame] < time:
            s = run.times[frame] - now
            np.testing.assert_allclose(run.positions[system, frame], x + v * s + gravity * s * s / 2, atol=1e-11)
            np.testing.assert_allclose(run.velocities[system, frame], v + gravity * s, atol=1e-11)
            frame += 1
        s = time - now
        x, v, now = x + v * s + gravity * s * s / 2, v + gravity * s, time
        before = normal @ (v[i] - (v[j] if j >= 0 else 0.0))
        v[i] += impulse / run.masses[system, i] * normal
        if j >= 0:
            v[j] -= impulse / run.masses[system, j] * normal
        rates.append((before, normal @ (v[i] - (v[j] if j >= 0 else 0.0))))
    assert frame >= len(run.times) - 1  # the last flight may hold the last frame
    return np.array(rates)


def test_bouncing_disc_meets_the_floor_at_the_closed_form_times():
    e, height, bounces = 0.8, 1.0, 30
    system = HardSpheres(n_particles=1, restitution=e, box=(1.0, 3.0), contact_time=1e-6)
    start = lone_disc([0.5, 0.1 + height], [0.0, 0.0])
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=12.72, rng=RNG(0), initial=start)
    k = np.arange(bounces)
    fall = np.sqrt(2 * height)
    expected = fall * (1 + 2 * e * (1 - e**k) / (1 - e))
    np.testing.assert_allclose(run.collisions.time[:bounces], expected, rtol=0, atol=1e-10)
    assert (run.collisions.j[:bounces] == -3).all()
    np.testing.assert_allclose(run.collisions.impulse[:bounces], fall * e**k * (1 + e), rtol=1e-10)


@pytest.mark.parametrize(
    ("velocity", "wall", "normal"),
    [([-1, 0], -1, [1, 0]), ([1, 0], -2, [-1, 0]), ([0, -1], -3, [0, 1]), ([0, 1], -4, [0, -1])],
)
def test_each_wall_has_its_number_and_its_normal_points_inwards(velocity, wall, normal):
    system = HardSpheres(n_particles=1, gravity=(0.0, 0.0))
    start = lone_disc([0.5, 0.5], velocity)
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.5, rng=RNG(0), initial=start)
    assert run.collisions.j.tolist() == [wall]
    assert run.collisions.normal.tolist() == [normal]
    assert run.collisions.time[0] == pytest.approx(0.4, abs=1e-15)
    assert run.collisions.impulse[0] == pytest.approx(2.0, abs=1e-15)


def test_a_frame_at_the_very_time_of_a_collision_shows_its_outcome():
    system = HardSpheres(n_particles=1, gravity=(0.0, 0.0))
    start = lone_disc([0.5, 0.5], [-1, 0], radius=0.25)
    run = simulate(system, n_systems=1, n_frames=3, frame_interval=0.25, rng=RNG(0), initial=start)
    assert run.collisions.time.tolist() == [0.25]
    assert run.velocities[0, :, 0, 0].tolist() == [-1.0, 1.0, 1.0]
    assert run.positions[0, :, 0, 0].tolist() == [0.5, 0.25, 0.5]


@pytest.mark.parametrize("e", [1.0, 0.6, 0.0])
def test_head_on_collision_of_unequal_masses(e):
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), restitution=e)
    start = two_discs([[0.3, 0.5], [0.7, 0.5]], [[1, 0], [-0.5, 0]], radii=[0.1, 0.05], masses=[3, 1])
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.25, rng=RNG(0), initial=start)
    center, approach = (3 * 1 - 0.5) / 4, 1.5
    expected = [[center - e * approach / 4, 0], [center + e * approach * 3 / 4, 0]]
    np.testing.assert_allclose(run.velocities[0, 1], expected, rtol=0, atol=1e-13)
    assert run.collisions.time[0] == pytest.approx(0.25 / 1.5, abs=1e-15)
    assert run.collisions.impulse[0] == pytest.approx((1 + e) * 0.75 * 1.5, abs=1e-13)
    np.testing.assert_allclose(run.collisions.normal[0], [-1, 0], atol=1e-15)


@pytest.mark.parametrize("e", [1.0, 0.6])
def test_oblique_collision_keeps_tangential_velocities(e):
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), restitution=e)
    offset = 0.06  # of the line of flight; contact at distance 0.15 gives the angle
    start = two_discs([[0.3, 0.5 + offset], [0.6, 0.5]], [[1, 0], [0, 0]], radii=[0.1, 0.05], masses=[3, 1])
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.2, rng=RNG(0), initial=start)
    normal = np.array([-np.sqrt(0.15**2 - offset**2), offset]) / 0.15
    impulse = (1 + e) * 0.75 * -normal[0]
    np.testing.assert_allclose(run.collisions.normal[0], normal, rtol=0, atol=1e-13)
    assert run.collisions.impulse[0] == pytest.approx(impulse, abs=1e-13)
    expected = np.array([[1.0, 0.0], [0.0, 0.0]]) + impulse * np.array([normal / 3, -normal])
    np.testing.assert_allclose(run.velocities[0, 1], expected, rtol=0, atol=1e-13)


def test_ten_thousand_collisions_conserve_energy():
    run = simulate(HardSpheres(), n_systems=2, n_frames=21, frame_interval=20.0, rng=RNG(1))
    assert min(len(run.collisions.of_system(s)) for s in range(2)) > 10_000
    energy = total_energy(run)
    np.testing.assert_allclose(energy, np.broadcast_to(energy[:, :1], energy.shape), rtol=1e-10)


CASES = [
    pytest.param(HardSpheres(), id="default"),
    pytest.param(HardSpheres(restitution=0.95), id="inelastic"),
    pytest.param(
        HardSpheres(n_particles=20, dim=3, radius=0.1, gravity=(0.3, 0.0, -1.0), box=(1.0, 1.2, 0.9)), id="3d"
    ),
]


@pytest.mark.parametrize("system", CASES)
def test_log_replays_the_trajectory_with_exact_momentum_and_restitution(system):
    run = simulate(system, n_systems=3, n_frames=11, frame_interval=1.2, rng=RNG(2))
    for s in range(3):
        log = run.collisions.of_system(s)
        before, after = replay(run, s).T
        e = np.where(log.forced, 1.0, system.restitution)
        i, j = log.i, np.where(log.j >= 0, log.j, 0)
        mass_i, mass_j = run.masses[s, i], np.where(log.j >= 0, run.masses[s, j], np.inf)
        reduced = 1 / (1 / mass_i + 1 / mass_j)
        np.testing.assert_allclose(after, -e * before, rtol=0, atol=1e-12)
        np.testing.assert_allclose(log.impulse, -(1 + e) * reduced * before, rtol=0, atol=1e-12)
        np.testing.assert_allclose((log.normal**2).sum(axis=1), 1.0, rtol=0, atol=1e-15)
    assert len(run.collisions) > 3 * 256  # local time has started again in each
    assert (run.collisions.impulse >= 0).all()


@pytest.mark.parametrize("system", CASES)
def test_momentum_changes_by_wall_impulses_and_gravity_alone(system):
    run = simulate(system, n_systems=4, n_frames=5, frame_interval=2.0, rng=RNG(3))
    momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
    log = run.collisions
    walls = np.zeros((4, system.dim))
    wall = log.j < 0
    np.add.at(walls, log.system[wall], log.impulse[wall, None] * log.normal[wall])
    gravity = run.masses.sum(axis=1)[:, None] * np.array(system.gravity) * run.times[-1]
    np.testing.assert_allclose(momentum[:, -1] - momentum[:, 0], walls + gravity, rtol=0, atol=1e-10)


@pytest.mark.parametrize("system", CASES)
def test_no_overlap_and_nobody_outside(system):
    run = simulate(system, n_systems=10, n_frames=160, frame_interval=0.05, rng=RNG(4))
    assert smallest_gap(run) > -1e-12
    reach = run.radii[:, None, :, None]
    assert (run.positions - reach).min() > -1e-12
    assert (np.array(system.box) - reach - run.positions).min() > -1e-12


def test_time_reversal_returns_to_the_start():
    system = HardSpheres(n_particles=16, radius=0.05)
    there = simulate(system, n_systems=40, n_frames=2, frame_interval=1.0, rng=RNG(5))
    assert 2 * len(there.collisions) / (40 * 16) > 4  # events a particle
    end = there.state(1)
    reversed_end = ParticleState(end.positions, -end.velocities, end.radii, end.masses)
    back = simulate(system, n_systems=40, n_frames=2, frame_interval=1.0, rng=RNG(5), initial=reversed_end)
    error = np.abs(back.positions[:, 1] - there.positions[:, 0]).max(axis=(1, 2))
    assert np.median(error) < 1e-9


def test_velocities_reach_the_microcanonical_distribution():
    # All velocities together are uniform on a sphere in D = n dim dimensions, so <v^4>/<v^2>^2 = 2 D / (D + 2), a
    # little below Maxwell-Boltzmann's 2; the start, all speeds equal, has 1.
    n, n_systems = 10, 400
    system = HardSpheres(radius_spread=0.0, gravity=(0.0, 0.0))
    drawn = system.draw_state(n_systems, rng=RNG(6))
    angle = RNG(7).uniform(0, 2 * np.pi, (n_systems, n))
    velocities = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    start = ParticleState(drawn.positions, velocities, drawn.radii, drawn.masses)
    run = simulate(system, n_systems=n_systems, n_frames=40, frame_interval=1.0, rng=RNG(6), initial=start)
    fourth = (run.velocities[:, 10:] ** 2).sum(axis=-1) ** 2
    per_system = fourth.mean(axis=(1, 2))  # <v^2> is 1 in every frame
    expected = 2 * (2 * n) / (2 * n + 2)
    standard_error = per_system.std(ddof=1) / np.sqrt(n_systems)
    assert standard_error < 0.007 * expected
    assert abs(per_system.mean() - expected) < 4 * standard_error


def test_light_and_heavy_discs_share_the_energy():
    system = HardSpheres(radius_spread=0.0, gravity=(0.0, 0.0))
    drawn = system.draw_state(400, rng=RNG(8))
    masses = np.tile([1.0, 8.0], (400, 5))
    start = ParticleState(drawn.positions, drawn.velocities, drawn.radii, masses)
    run = simulate(system, n_systems=400, n_frames=40, frame_interval=1.0, rng=RNG(8), initial=start)
    energy = kinetic_energy(run)[:, 10:].mean(axis=1)  # (system, particle)
    ratio = energy[:, ::2].mean(axis=1) / energy.mean(axis=1)  # of the light ones, 1 if shared equally
    standard_error = ratio.std(ddof=1) / np.sqrt(400)
    assert standard_error < 0.007
    assert abs(ratio.mean() - 1) < 4 * standard_error

"""Closed forms and conservation laws of the event-driven engine."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from simulators import HardSpheres, ParticleState, simulate
from simulators.systems.system import minimum_image

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


@pytest.mark.parametrize("dim", [2, 3])
def test_free_fall_follows_the_closed_form(dim):
    gravity = np.array([0.1, -0.9, -1.3][:dim])
    system = HardSpheres(n_particles=1, dim=dim, gravity=tuple(gravity), box=(50.0,) * dim)
    x, v = np.full(dim, 30.0), np.array([0.3, 1.1, -0.2][:dim])
    run = simulate(system, n_systems=1, n_frames=41, frame_interval=0.1, rng=RNG(0), initial=lone_disc(x, v))
    t = run.times[:, None]
    np.testing.assert_allclose(run.positions[0, :, 0], x + v * t + gravity * t**2 / 2, rtol=1e-14)
    np.testing.assert_allclose(run.velocities[0, :, 0], v + gravity * t, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_binary_collisions_of_any_masses(dim, boundary):
    # momentum, angular momentum, tangential velocity and e, for drawn pairs, at 1e-13
    e, generator, n = 0.7, RNG(11), 200
    direction = generator.standard_normal((n, dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radii = generator.uniform(0.05, 0.2, (n, 2))
    masses = np.exp(generator.uniform(-5, 5, (n, 2)))
    gap = radii.sum(axis=1) + 0.01
    positions = np.stack([np.full((n, dim), 1.0), 1.0 + gap[:, None] * direction], axis=1)
    velocities = 0.2 * generator.standard_normal((n, 2, dim))
    velocities[:, 1] -= direction  # they approach at about 1
    system = HardSpheres(
        n_particles=2, dim=dim, gravity=(0.0,) * dim, restitution=e, box=(2.0,) * dim, boundary=boundary
    )
    start = ParticleState(positions, velocities, radii, masses)
    run = simulate(system, n_systems=n, n_frames=2, frame_interval=0.1, rng=RNG(0), initial=start)
    log = run.collisions
    keep = np.bincount(log.system, minlength=n) == 1  # they met once, and no wall
    assert keep.sum() > 0.8 * n
    log_of = {int(s): k for k, s in enumerate(log.system)}
    row = np.array([log_of[int(s)] for s in np.flatnonzero(keep)])
    mass = run.masses[keep, None, :, None]
    x, v, when, normal = run.positions[keep], run.velocities[keep], log.time[row], log.normal[row]
    momentum = (mass * v).sum(axis=2)
    np.testing.assert_allclose(momentum[:, 1], momentum[:, 0], rtol=1e-13, atol=1e-13)
    before, after = v[:, 0, 0] - v[:, 0, 1], v[:, 1, 0] - v[:, 1, 1]
    rate, rate_after = (before * normal).sum(axis=1), (after * normal).sum(axis=1)
    np.testing.assert_allclose(rate_after, -e * rate, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        after - rate_after[:, None] * normal, before - rate[:, None] * normal, rtol=0, atol=1e-13
    )
    reduced = run.masses[keep].prod(axis=1) / run.masses[keep].sum(axis=1)
    np.testing.assert_allclose(log.impulse[row], -(1 + e) * reduced * rate, rtol=1e-13)
    touch = x[:, 0] + v[:, 0] * when[:, None, None]
    np.testing.assert_allclose(np.linalg.norm(touch[:, 0] - touch[:, 1], axis=1), radii[keep].sum(axis=1), rtol=1e-14)
    spin = _angular_momentum(x, mass * v)
    np.testing.assert_allclose(spin[:, 1], spin[:, 0], rtol=1e-13, atol=1e-13)


def _angular_momentum(positions, momenta):
    """Return r x p of each system and frame, as the antisymmetric products x_a p_b - x_b p_a."""
    product = (positions[..., :, None] * momenta[..., None, :]).sum(axis=2)
    return product - product.swapaxes(-1, -2)


@pytest.mark.parametrize("speed", [0.01, 0.1, 0.39, 0.4, 1.0])
def test_restitution_that_depends_on_the_velocity(speed):
    e0, v0 = 0.6, 0.4
    e = 1 - (1 - e0) * min(speed / v0, 1) ** 0.75
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), restitution=e0, restitution_velocity=v0, box=(2.0, 2.0))
    start = two_discs([[0.8, 1], [1.2, 1]], [[speed / 2, 0], [-speed / 2, 0]], radii=[0.15, 0.15], masses=[1, 1])
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.15 / speed, rng=RNG(0), initial=start)
    np.testing.assert_allclose(run.velocities[0, 1, :, 0], [-e * speed / 2, e * speed / 2], rtol=1e-13)
    alone = replace(system, n_particles=1)
    at_wall = simulate(
        alone, n_systems=1, n_frames=2, frame_interval=1 / speed, rng=RNG(0), initial=lone_disc([0.6, 1], [-speed, 0])
    )
    assert at_wall.velocities[0, 1, 0, 0] == pytest.approx(e * speed, rel=1e-13)


PERIODIC = [
    pytest.param(HardSpheres(gravity=(0.0, 0.0), boundary="periodic"), id="2d"),
    pytest.param(HardSpheres(gravity=(0.0, -1.0), boundary=("periodic", "walls")), id="channel"),
    pytest.param(HardSpheres(n_particles=16, radius=0.09, gravity=(0.0, 0.0), boundary="periodic"), id="dense"),
    pytest.param(
        HardSpheres(n_particles=20, dim=3, radius=0.1, gravity=(0.0,) * 3, box=(1.0, 1.2, 0.9), boundary="periodic"),
        id="3d",
    ),
]


@pytest.mark.parametrize("system", PERIODIC)
def test_a_periodic_box_has_no_overlap_and_stays_inside(system):
    run = simulate(system, n_systems=4, n_frames=300, frame_interval=0.05, rng=RNG(12))
    i, j = np.triu_indices(system.n_particles, 1)
    separation = minimum_image(run.positions[:, :, i] - run.positions[:, :, j], system)
    gap = np.sqrt((separation**2).sum(axis=-1)) - run.radii[:, None, i] - run.radii[:, None, j]
    assert gap.min() > -1e-13
    assert (run.positions >= 0).all()
    assert (run.positions < np.array(system.box)).all()
    energy = total_energy(run)
    np.testing.assert_allclose(energy, energy[:, :1] * np.ones(300), rtol=1e-12)
    if "momentum" in system.conserved:
        momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
        np.testing.assert_allclose(momentum - momentum[:, :1], 0.0, atol=1e-14)
        assert (run.collisions.j >= 0).all()


def test_a_periodic_box_knows_no_frame_of_reference():
    # flying along with any velocity changes neither who meets whom nor when
    system = HardSpheres(n_particles=16, radius=0.05, gravity=(0.0, 0.0), boundary="periodic")
    start = system.draw_state(10, rng=RNG(13))
    drift = np.array([3.7, -11.3])
    moving = ParticleState(start.positions, start.velocities + drift, start.radii, start.masses)
    rest, flight = (
        simulate(system, n_systems=10, n_frames=2, frame_interval=1.0, rng=RNG(0), initial=state)
        for state in (start, moving)
    )
    assert 2 * len(rest.collisions) / 160 > 4  # events a particle
    assert rest.collisions.i.tolist() == flight.collisions.i.tolist()
    assert rest.collisions.j.tolist() == flight.collisions.j.tolist()
    np.testing.assert_allclose(flight.collisions.time, rest.collisions.time, rtol=0, atol=1e-8)
    away = minimum_image(flight.positions[:, 1] - drift - rest.positions[:, 1], system)
    assert np.median(np.abs(away).max(axis=(1, 2))) < 1e-9


def first_events(system, start, n_events):
    """Return (time, i, j) of the first events by the slow route: every pair, 25 or 125 images, one flight at a time."""
    x, v = start.positions[0].copy(), start.velocities[0].copy()
    radii, masses, box, g = start.radii[0], start.masses[0], np.array(system.box), np.array(system.gravity)
    periodic = np.array([kind == "periodic" for kind in np.broadcast_to(system.boundary, system.dim)])
    span = [range(-2, 3) if wraps else range(1) for wraps in periodic]
    shifts = np.array(list(itertools.product(*span))) * box
    pairs = np.array(list(itertools.combinations(range(len(x)), 2)))
    now, events = 0.0, []
    while len(events) < n_events:
        r = x[pairs[:, 0]] - x[pairs[:, 1]]
        w = v[pairs[:, 0]] - v[pairs[:, 1]]
        reach = radii[pairs].sum(axis=1)[:, None]
        apart = r[:, None] + shifts  # (pair, image, dim)
        approach = (apart * w[:, None]).sum(axis=2)
        square = approach**2 - (w**2).sum(axis=1)[:, None] * ((apart**2).sum(axis=2) - reach**2)
        meets = (approach < 0) & (square > 0)
        delay = np.full(approach.shape, np.inf)
        speed = np.broadcast_to((w**2).sum(axis=1)[:, None], square.shape)
        delay[meets] = (-approach[meets] - np.sqrt(square[meets])) / speed[meets]
        pair = int(delay.min(axis=1).argmin())
        best, which = delay.min(), tuple(int(k) for k in pairs[pair])
        for k, axis in itertools.product(range(len(x)), np.flatnonzero(~periodic)):
            for wall, (gap, rate, pull) in enumerate(
                (
                    (x[k, axis] - radii[k], v[k, axis], g[axis]),
                    (box[axis] - radii[k] - x[k, axis], -v[k, axis], -g[axis]),
                )
            ):
                roots = np.roots([pull / 2, rate, gap] if pull else [rate, gap])
                good = [root.real for root in roots if abs(root.imag) < 1e-12 and rate + pull * root.real < 0]
                if good and min(good) < best and min(good) > -1e-9:
                    best, which = min(good), (k, -(2 * int(axis) + 1 + wall))
        x, v, now = x + v * best + g * best**2 / 2, v + g * best, now + best
        i, j = which
        if j < 0:
            v[i, (-j - 1) // 2] *= -1
        else:
            normal = minimum_image(x[i] - x[j], system)
            normal /= np.linalg.norm(normal)
            impulse = 2 * masses[i] * masses[j] / (masses[i] + masses[j]) * (normal @ (v[i] - v[j]))
            v[i] -= impulse / masses[i] * normal
            v[j] += impulse / masses[j] * normal
        x = np.where(periodic, x % box, x)
        events.append((now, i, j))
    return events


@pytest.mark.parametrize("system", [*CASES[::2], *PERIODIC])
def test_a_slow_route_with_all_images_finds_the_same_events(system):
    start = system.draw_state(1, rng=RNG(14))
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=3.0, rng=RNG(0), initial=start)
    n = 3 * system.n_particles  # some five events a particle
    times, i, j = zip(*first_events(system, start, n), strict=True)
    assert run.collisions.i[:n].tolist() == list(i)
    assert run.collisions.j[:n].tolist() == list(j)
    np.testing.assert_allclose(run.collisions.time[:n], times, rtol=0, atol=1e-8)


def test_fifty_thousand_collisions_keep_the_energy_to_eleven_digits():
    system = HardSpheres(
        n_particles=16, radius=0.5, radius_spread=0.0, gravity=(0.0, -0.1), box=(7.93, 7.93), velocity_scale=1.0
    )
    run = simulate(system, n_systems=1, n_frames=100, frame_interval=30.0, rng=RNG(15))
    assert len(run.collisions) > 50_000
    energy = total_energy(run)[0]
    assert np.abs(energy / energy[0] - 1).max() < 1e-11
    assert smallest_gap(run) > -1e-12


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_ten_million_collisions_keep_energy_and_distance(boundary):
    gravity = (0.0, -0.1) if boundary == "walls" else (0.0, 0.0)
    system = HardSpheres(
        n_particles=16, radius=0.5, radius_spread=0.0, gravity=gravity, box=(7.93, 7.93), velocity_scale=1.0,
        boundary=boundary,
    )  # fmt: skip
    run = simulate(system, n_systems=6, n_frames=500, frame_interval=400.0, rng=RNG(16))
    assert len(run.collisions) > 10_000_000
    energy = total_energy(run)
    assert np.abs(energy / energy[:, :1] - 1).max() < 1e-9
    i, j = np.triu_indices(16, 1)
    separation = minimum_image(run.positions[:, :, i] - run.positions[:, :, j], system)
    assert (np.sqrt((separation**2).sum(axis=-1)) - 1.0).min() > -1e-9

"""Closed forms, conservation laws and refusals of soft discs and spheres and of their engine."""

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from simulators import (
    HardSpheres,
    ParticleState,
    RotatingBox,
    SoftSpheres,
    VibratedBox,
    contact_labels,
    kinetic_energy,
    simulate,
)
from simulators.engines import soft_contact
from simulators.engines.free_flight import EPOCH

RNG = np.random.default_rng
DENSITY = {2: 1 / math.pi, 3: 0.75 / math.pi}  # mass 1 at radius 1


def lone(dim=2, **fields):
    """Return a system of unit-mass particles of radius 1 without gravity, in open space unless told."""
    settings = {
        "n_particles": 1,
        "dim": dim,
        "radius": 1.0,
        "radius_spread": 0.0,
        "density": DENSITY[dim],
        "gravity": (0.0,) * dim,
        "box": (10.0,) * dim,
        "boundary": "open",
        "velocity_scale": 1.0,
        "contact_time": 0.01,
    }
    return SoftSpheres(**(settings | fields))


def there(column):
    """Return a column that runs of this engine always have."""
    assert column is not None
    return column


def state(positions, velocities, *, masses=None, spins=None, radius=1.0):
    """Return states from nested lists (system, particle, ...) of equal radii."""
    x = np.array(positions, dtype=float)
    masses = np.ones(x.shape[:2]) if masses is None else np.array(masses, dtype=float)
    spins = None if spins is None else np.array(spins, dtype=float)
    return ParticleState(x, np.array(velocities, float), np.full(x.shape[:2], radius), masses, angular_velocities=spins)


def follow(system, start, *, time, n_frames=2):
    """Run a given start."""
    n_systems = len(start.radii)
    return simulate(
        system,
        n_systems=n_systems,
        n_frames=n_frames,
        frame_interval=time / (n_frames - 1),
        rng=RNG(0),
        initial=start,
    )


def energy(run):
    """Return the energy of each frame, (frame, system)."""
    frames = (run.state(frame) for frame in range(len(run.times)))
    return np.array([kinetic_energy(frame) + run.system.potential_energy(frame) for frame in frames])


def angular_momentum(run):
    """Return spin and orbital angular momentum of every frame about the origin, (system, frame, 1 or 3)."""
    dim = run.positions.shape[-1]
    inertia = (0.5 if dim == 2 else 0.4) * run.masses * run.radii**2
    spin = (inertia[:, None, :, None] * run.angular_velocities).sum(axis=2)
    momenta = run.masses[:, None, :, None] * run.velocities
    if dim == 2:
        x, p = run.positions, momenta
        return spin + (x[..., 0] * p[..., 1] - x[..., 1] * p[..., 0]).sum(axis=2)[..., None]
    return spin + np.cross(run.positions, momenta).sum(axis=2)


def head_on(system, *, speed=1.0, masses=(1.0, 1.0), phases=40):
    """Let pairs meet head on, their first touch spread over one step; return the rows and the final relative speeds."""
    n, dim = phases, system.dim
    gap = system.step * speed * (3 + np.arange(n) / n)
    x = np.full((n, 2, dim), 5.0)
    x[:, 1, 0] += 2 + gap
    v = np.zeros((n, 2, dim))
    v[:, 0, 0] = speed * masses[1] / sum(masses)
    v[:, 1, 0] = -speed * masses[0] / sum(masses)
    run = follow(system, state(x, v, masses=[masses] * n), time=3 * system.contact_time)
    assert len(run.collisions) == n
    return run.collisions, run.velocities[:, -1, 1, 0] - run.velocities[:, -1, 0, 0]


@pytest.mark.parametrize(("restitution", "tolerance"), [(1.0, 3e-4), (0.9, 2e-3), (0.5, 2e-3)])
@pytest.mark.parametrize("masses", [(1.0, 1.0), (1.0, 3.0)])
def test_linear_contact_has_the_closed_form_duration_and_restitution(restitution, tolerance, masses):
    system = lone(n_particles=2, restitution=restitution)
    log, away = head_on(system, masses=masses)
    mu = masses[0] * masses[1] / sum(masses)
    duration = system.contact_time * math.sqrt(mu / 0.5)
    assert there(log.duration).mean() == pytest.approx(duration, rel=tolerance)
    assert away.mean() == pytest.approx(restitution, rel=tolerance)
    np.testing.assert_allclose(log.impulse, mu * (1 + away), rtol=1e-9)
    np.testing.assert_allclose(log.normal, [[-1.0, 0.0]] * len(log), atol=1e-12)
    w0 = math.sqrt(system.stiffness / mu)
    if restitution == 1:
        np.testing.assert_allclose(there(log.overlap), 1 / w0, rtol=3e-3)


def test_stiffness_and_damping_are_the_published_formulas():
    system = lone(n_particles=2, restitution=0.7)
    k, c, mu = system.stiffness, system.damping, 0.5
    w = math.sqrt(k / mu - (c / (2 * mu)) ** 2)
    assert math.pi / w == pytest.approx(system.contact_time, rel=1e-12)
    assert math.exp(-c * math.pi / (2 * mu * w)) == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize(("restitution", "cut"), [(0.9, 0.902), (0.5, 0.55)])
def test_without_tension_particles_part_faster(restitution, cut):
    _, away = head_on(lone(n_particles=2, restitution=restitution, tension=False, time_step=5e-5))
    assert away.mean() == pytest.approx(cut, rel=4e-3)
    z = lone(restitution=restitution).damping_ratio
    root = math.sqrt(1 - z * z)
    angle = math.atan2(2 * z * root, 2 * z * z - 1)  # w t at which spring and dashpot first cancel
    assert away.mean() == pytest.approx(math.exp(-z / root * angle), rel=2e-3)


def test_hertz_contact_time_and_restitution():
    elastic = lone(3, n_particles=2, contact="hertz")
    for speed in (0.5, 2.0):
        log, away = head_on(elastic, speed=speed)
        expected = 3.218 * (0.25 / (elastic.stiffness**2 * speed)) ** 0.2
        assert there(log.duration).mean() == pytest.approx(expected, rel=1e-3)
        assert away.mean() == pytest.approx(speed, rel=1e-4)
    expected = 3.218 * (0.25 / (elastic.stiffness**2 * elastic.reference_speed)) ** 0.2
    assert expected == pytest.approx(elastic.contact_time, rel=1e-4)
    for restitution in (0.9, 0.5):
        for speed in (0.5, 2.0):
            _, away = head_on(lone(3, n_particles=2, contact="hertz", restitution=restitution), speed=speed)
            assert away.mean() / speed == pytest.approx(restitution, rel=2e-3)


def test_a_bouncing_ball_keeps_the_closed_form_times():
    e, height, g = 0.8, 1.0, 1.0
    system = lone(gravity=(0.0, -g), boundary=("open", "walls"), restitution=e, contact_time=1e-3)
    run = follow(system, state([[[5.0, 1.0 + height]]], [[[0.0, 0.0]]]), time=9.3)
    first = math.sqrt(2 * height / g)
    k = np.arange(6)
    expected = first * (1 + 2 * e * (1 - e**k) / (1 - e))
    np.testing.assert_allclose(run.collisions.time, expected, rtol=0.01)
    assert (run.collisions.j == -3).all()
    np.testing.assert_allclose(run.collisions.impulse, (1 + e) * e**k * math.sqrt(2 * g * height), rtol=0.01)


def test_energy_holds_over_a_hundred_thousand_steps():
    system = SoftSpheres(n_particles=16, radius=0.06)
    run = simulate(system, n_systems=1, n_frames=9, frame_interval=1.0, rng=RNG(3))
    total = energy(run)
    assert run.times[-1] / system.step == pytest.approx(1e5)
    assert np.abs(total / total[0] - 1).max() < 2e-3
    assert np.abs(total[1:] - total[0]).max() > 0  # the springs are in it


@pytest.mark.parametrize("contact", ["linear", "hertz"])
@pytest.mark.parametrize("restitution", [1.0, 0.6])
def test_order_of_convergence_is_two(contact, restitution):
    # a disc that swings on the floor and never leaves it: the force is smooth
    start = state([[[5.0, 0.98]]], [[[0.0, 0.0]]])
    ends = []
    for step in (4e-3, 2e-3, 1e-3, 1.25e-4):
        system = lone(
            gravity=(0.0, -50.0),
            boundary="walls",
            contact=contact,
            contact_time=0.1,
            restitution=restitution,
            time_step=step,
        )
        ends.append(follow(system, start, time=0.4).positions[0, -1, 0, 1])
    errors = np.abs(np.array(ends[:3]) - ends[3])
    orders = np.log2(errors[:-1] / errors[1:])
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


def leapfrog(system, start, n_steps):
    """Follow one system of elastic discs between walls by all pairs, the plain way; return positions and velocities."""
    x, v, h = start.positions[0].copy(), start.velocities[0].copy(), system.step
    radii, masses, box, gravity = start.radii[0], start.masses[0], np.array(system.box), np.array(system.gravity)
    i, j = np.triu_indices(len(x), 1)

    def acceleration():
        sinks = np.maximum(radii[:, None] - x, 0) - np.maximum(x + radii[:, None] - box, 0)
        force = system.stiffness * sinks
        apart = x[i] - x[j]
        distance = np.sqrt((apart**2).sum(axis=1))
        push = system.stiffness * np.maximum(radii[i] + radii[j] - distance, 0) / distance
        np.add.at(force, i, push[:, None] * apart)
        np.add.at(force, j, -push[:, None] * apart)
        return gravity + force / masses[:, None]

    a = acceleration()
    for _ in range(n_steps):
        v += 0.5 * h * a
        x += h * v
        a = acceleration()
        v += 0.5 * h * a
    return x, v


def test_flights_and_contacts_are_those_of_the_plain_leapfrog():
    # over several epochs, so that the common fall begins anew; few discs, so that rounding grows slowly
    system = SoftSpheres(n_particles=4, radius=0.08, radius_spread=0.3, gravity=(0.3, -1.0), contact_time=0.02)
    start = system.draw_state(1, rng=RNG(3))
    n_steps = 3 * EPOCH + 100
    run = follow(system, start, time=n_steps * system.step)
    assert (run.collisions.j >= 0).sum() > 2
    x, v = leapfrog(system, start, n_steps)
    np.testing.assert_allclose(run.positions[0, -1], x, atol=1e-9)
    np.testing.assert_allclose(run.velocities[0, -1], v, atol=1e-7)


def test_elastic_dynamics_run_backwards():
    system = SoftSpheres(n_particles=8)
    there = simulate(system, n_systems=4, n_frames=2, frame_interval=0.5, rng=RNG(4))
    end = there.state(1)
    assert len(there.collisions) > 20
    back = follow(system, ParticleState(end.positions, -end.velocities, end.radii, end.masses), time=0.5)
    np.testing.assert_allclose(back.positions[:, 1], there.positions[:, 0], atol=1e-7)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("friction", [0.0, 0.4])
@pytest.mark.parametrize("boundary", ["walls", "periodic", "open"])
def test_momentum_balances_against_the_log(dim, friction, boundary):
    gravity = (0.3, -1.0, 0.2)[:dim]
    system = SoftSpheres(
        n_particles=12,
        dim=dim,
        gravity=gravity,
        box=(1.0,) * dim,
        restitution=0.8,
        friction=friction,
        boundary=boundary,
    )
    run = simulate(system, n_systems=3, n_frames=2, frame_interval=1.03, rng=RNG(5))
    log = run.collisions
    moved = run.masses[..., None] * (run.velocities[:, 1] - run.velocities[:, 0])
    moved -= run.masses[..., None] * np.array(gravity) * run.times[-1]
    given = np.zeros_like(moved)
    push = log.impulse[:, None] * log.normal
    np.add.at(given, (log.system, log.i), push)
    pair = log.j >= 0
    np.add.at(given, (log.system[pair], log.j[pair]), -push[pair])
    np.testing.assert_allclose(given, moved, atol=1e-10)
    assert pair.any()
    assert (~pair).any() == (boundary == "walls")
    assert (log.time >= 0).all()
    assert (log.time + log.duration <= run.times[-1] + 1e-12).all()


@pytest.mark.parametrize("dim", [2, 3])
def test_a_rubbing_pair_keeps_its_angular_momentum(dim):
    system = lone(dim, n_particles=2, friction=0.5, restitution=0.8)
    x = np.full((1, 2, dim), 5.0)
    x[0, 1] += np.array([1.9, 0.9, 0.4])[:dim]
    v = np.zeros((1, 2, dim))
    v[0, 1] = np.array([-1.0, 0.2, 0.3])[:dim]
    spins = [[[2.0], [1.0]]] if dim == 2 else [[[2.0, -1.0, 0.5], [1.0, 0.3, -2.0]]]
    run = follow(system, state(x, v, spins=spins), time=0.5, n_frames=3)
    assert len(run.collisions) == 1
    assert np.abs(there(run.angular_velocities)[:, -1] - there(run.angular_velocities)[:, 0]).max() > 0.1
    total = angular_momentum(run)
    np.testing.assert_allclose(total[:, -1], total[:, 0], atol=1e-11)


@pytest.mark.parametrize(("dim", "share"), [(2, 2 / 3), (3, 5 / 7)])
def test_a_sliding_body_ends_rolling(dim, share):
    gravity = (0.0, -1.0, 0.0)[:dim]
    system = lone(
        dim,
        gravity=gravity,
        box=(40.0, 10.0, 10.0)[:dim],
        boundary="walls",
        friction=0.3,
        restitution=0.5,
        contact_time=5e-3,
    )
    sunk = 1.0 / system.stiffness
    x, v = np.full((1, 1, dim), 5.0), np.zeros((1, 1, dim))
    x[..., 1] = 1 - sunk
    v[..., 0] = 1.0
    run = follow(system, state(x, v), time=4.0, n_frames=41)
    speed = run.velocities[0, :, 0, 0]
    assert speed[-1] == pytest.approx(share, rel=1e-3)
    assert there(run.angular_velocities)[0, -1, 0, -1] == pytest.approx(-share, rel=1e-3)
    sliding = run.times < (1 - share) / 0.3
    np.testing.assert_allclose(speed[sliding], 1 - 0.3 * run.times[sliding], atol=2e-3)


@pytest.mark.parametrize(("dim", "share"), [(2, 1 / 3), (3, 2 / 7)])
def test_a_body_that_grips_reverses_its_slip(dim, share):
    # slip and overlap swing with one period, so an elastic contact that never slides ends with the opposite slip
    system = lone(dim, boundary=("open", "walls", "open")[:dim], friction=100.0, contact_time=1e-3)
    x, v = np.full((1, 1, dim), 5.0), np.zeros((1, 1, dim))
    x[..., 1], v[..., 0], v[..., 1] = 1.0001, 0.3, -1.0
    run = follow(system, state(x, v), time=0.01)
    assert run.velocities[0, -1, 0, 0] == pytest.approx(0.3 * (1 - 2 * share), rel=0.01)
    np.testing.assert_allclose(energy(run)[1], energy(run)[0], rtol=2e-3)


def test_coulombs_cap_holds_at_every_contact():
    # a body that slides all the way is pushed along and up in the ratio of the coefficient, and never beyond it
    system = lone(boundary=("open", "walls"), friction=0.2, restitution=0.9, tension=False)
    slopes = np.linspace(0.0, 3.0, 16)
    x = np.tile([5.0, 1.0001], (16, 1, 1))
    v = np.stack((slopes, -np.ones(16)), axis=-1)[:, None]
    log = follow(system, state(x, v), time=0.1).collisions
    ratio = np.abs(log.normal[:, 0]) / log.normal[:, 1]
    assert (ratio <= 0.2 * (1 + 1e-9)).all()
    np.testing.assert_allclose(ratio[slopes > 1.0], 0.2, rtol=0.02)
    assert ratio[1] < 0.19


@pytest.mark.parametrize(("dim", "inertia"), [(2, 1 / 2), (3, 2 / 5)])
@pytest.mark.parametrize("tangent", [0.2, 0.5])
def test_a_body_rolls_down_a_gentle_slope_and_slides_down_a_steep_one(dim, inertia, tangent):
    # gravity leans instead of the floor; rolling needs friction of at least tangent / (1 + 1 / inertia)
    friction = 0.1
    gravity = (tangent, -1.0, 0.0)[:dim]
    system = lone(
        dim,
        gravity=gravity,
        boundary=("open", "walls", "open")[:dim],
        friction=friction,
        restitution=0.5,
        contact_time=5e-3,
    )
    x = np.full((1, 1, dim), 5.0)
    x[..., 1] = 1 - 1 / system.stiffness
    speed = follow(system, state(x, np.zeros_like(x)), time=3.0).velocities[0, -1, 0, 0]
    slides = tangent > friction * (1 + 1 / inertia)
    assert slides == (tangent == 0.5)
    expected = tangent - friction if slides else tangent / (1 + inertia)
    assert speed == pytest.approx(3 * expected, rel=1e-3)


def test_a_pile_comes_to_rest_and_stays():
    system = SoftSpheres(n_particles=20, radius=0.08, restitution=0.5, friction=0.5, contact_time=8e-3)
    run = simulate(system, n_systems=2, n_frames=5, frame_interval=5.0, rng=RNG(7))
    # a disc may roll on along the floor, as nothing stops it; heights and vertical speeds must stay
    assert np.abs(run.velocities[:, -2:, :, 1]).max() < 1e-6
    assert np.abs(run.velocities[:, -1]).max() < 0.01
    np.testing.assert_allclose(run.positions[:, -1, :, 1], run.positions[:, -2, :, 1], atol=1e-6)
    durations = there(run.collisions.duration)
    settled = durations > 5.0
    assert settled.any()
    np.testing.assert_allclose((run.collisions.time + durations)[settled], 20.0, atol=1e-9)


def test_collisions_converge_to_those_of_hard_spheres():
    hard = HardSpheres(n_particles=6)
    start = hard.draw_state(20, rng=RNG(8))
    truth = simulate(hard, n_systems=20, n_frames=2, frame_interval=0.4, rng=RNG(0), initial=start)
    late = []
    for contact_time in (4e-4, 1e-4):
        run = follow(SoftSpheres(n_particles=6, contact_time=contact_time), start, time=0.4)
        soft, exact = run.collisions, truth.collisions
        firsts = [[log.of_system(s) for log in (soft, exact)] for s in range(20) if len(exact.of_system(s))]
        pairs = [
            (a.time[0], b.time[0], a.impulse[0], b.impulse[0])
            for a, b in firsts
            if (a.i[0], a.j[0]) == (b.i[0], b.j[0])
        ]
        assert len(pairs) == len(firsts)
        a, b, given, expected = np.array(pairs).T
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(given, expected, rtol=0.02)
        late.append(np.median(np.abs(run.positions[:, 1] - truth.positions[:, 1])))
    assert late[1] < late[0] / 2.5
    assert late[1] < 2e-4


def test_starts_are_those_of_hard_spheres():
    for seed in (0, 1):
        soft, hard = (kind().draw_state(3, rng=RNG(seed)) for kind in (SoftSpheres, HardSpheres))
        for name in ("positions", "velocities", "radii", "masses"):
            np.testing.assert_array_equal(getattr(soft, name), getattr(hard, name))
    assert soft.angular_velocities is None
    assert there(SoftSpheres(friction=0.1).draw_state(2, rng=RNG(0)).angular_velocities).shape == (2, 10, 1)


def test_ghosts_pass_through_and_their_log_tells_the_overlaps():
    ghosts = lone(n_particles=2, interacting=False, restitution=0.5)
    start = state([[[5.0, 5.0], [7.5, 5.6]]], [[[0.0, 0.0], [-1.0, 0.0]]])
    run = follow(ghosts, start, time=5.0)
    np.testing.assert_allclose(run.positions[0, -1], [[5.0, 5.0], [2.5, 5.6]], atol=1e-10)
    half = math.sqrt(4 - 0.36)
    log = run.collisions
    assert log.time == pytest.approx([2.5 - half])
    assert log.duration == pytest.approx([2 * half])
    assert log.overlap == pytest.approx([2 - 0.6], rel=1e-5)
    assert log.impulse == pytest.approx([1.5 * 0.5 * half / 2], rel=1e-3)
    labels = contact_labels(run)
    assert labels[0, 0, 0, 1]


def same(a, b):
    """Assert that two motions or runs are equal, to the last bit."""
    for name in ("positions", "velocities", "angular_velocities"):
        if getattr(a, name) is not None:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("system", "time", "i", "j", "impulse", "normal", "duration", "overlap"):
        np.testing.assert_array_equal(getattr(a.collisions, name), getattr(b.collisions, name))


@pytest.mark.parametrize(
    ("dim", "boundary"),
    [(2, "walls"), (2, "periodic"), (2, ("open", "walls")), (3, "walls"), (3, ("periodic", "open", "walls"))],
)
def test_lists_cells_and_pauses_change_no_bit(dim, boundary):
    system = SoftSpheres(
        n_particles=60,
        dim=dim,
        radius=0.03 if dim == 2 else 0.06,
        gravity=(0.0,) * (dim - 1) + (-1.0,),
        box=(1.0,) * dim,
        boundary=boundary,
        restitution=0.7,
        friction=0.3,
    )
    start = system.draw_state(3, rng=RNG(9))
    setting = {"n_frames": 3, "frame_interval": 0.15}
    truth = soft_contact.run(system, start, **setting, skin=200.0)  # one list of all pairs
    assert len(truth.collisions) > 100
    for options in ({}, {"cells_from": 1}, {"cells_from": 1, "skin": 0.1}, {"rows_at_once": 3}):
        same(truth, soft_contact.run(system, start, **setting, **options))


@pytest.mark.parametrize("system", [VibratedBox(n_particles=30), RotatingBox(n_particles=30), SoftSpheres()])
def test_lists_and_pauses_change_no_bit_in_a_box_that_moves(system):
    start = system.draw_state(2, rng=RNG(4))
    setting: dict[str, Any] = {"n_frames": 4, "frame_interval": 0.5}
    truth = soft_contact.run(system, start, **setting)
    assert len(truth.collisions) > 100
    same(truth, soft_contact.run(system, start, **setting, skin=0.2))
    same(truth, soft_contact.run(system, start, **setting, rows_at_once=3))


@pytest.mark.parametrize("pull", [0.5, 5.0])
def test_a_plan_for_many_steps_misses_no_touch_that_a_short_one_finds(pull):
    # a row of discs just apart passes a push on, faster than plans for so many discs end; all fall on the floor
    x = np.stack(np.meshgrid(2 + 4 * np.arange(20), 1.001 + 4 * np.arange(10)), axis=-1).reshape(-1, 2)
    x[:8, 0] = 2 + 2.001 * np.arange(8)
    x[8:20, 1] = 1 + 0.02 * np.arange(1, 13)
    v = np.zeros_like(x)
    v[0, 0] = 1.0
    system = lone(n_particles=len(x), gravity=(0.0, -pull), box=(90.0, 50.0), boundary="walls", contact_time=0.02)
    setting = {"n_frames": 2, "frame_interval": 0.5}
    truth = soft_contact.run(system, state([x], [v]), **setting, skin=0.002)
    assert (truth.collisions.j[:20] > 0).sum() == 7
    same(truth, soft_contact.run(system, state([x], [v]), **setting, skin=0.5))


def test_a_list_notices_a_particle_that_was_kicked():
    # a heavy disc throws a light one ahead at twice its speed, towards one that the list left out and that comes along
    system = lone(n_particles=3, contact_time=0.02)
    x = [[[2.0, 5.0], [4.001, 5.0], [6.851, 5.0]]]
    start = state(x, [[[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]], masses=[[100.0, 1.0, 100.0]])
    setting = {"n_frames": 2, "frame_interval": 0.5}
    truth = soft_contact.run(system, start, **setting, skin=200.0)
    assert (truth.collisions.i[:2] == [0, 1]).all()
    same(truth, soft_contact.run(system, start, **setting, skin=0.8))


def test_a_plan_notices_a_particle_that_was_kicked():
    # the same, with others at rest far away, so that plans are long; the third disc comes from near and far
    system = lone(n_particles=303, contact_time=0.02, box=(1e3, 1e3))
    x = np.zeros((40, 303, 2))
    x[:, 0], x[:, 1] = (1.999, 5.0), (4.0, 5.0)
    x[:, 2, 0], x[:, 2, 1] = 6 + 0.005 * np.arange(1, 41), 5.0
    x[:, 3:, 0], x[:, 3:, 1] = 100 + 4 * np.arange(300), 5.0
    v = np.zeros_like(x)
    v[:, 0, 0], v[:, 2, 0] = 1.0, -1.0
    start = state(x, v, masses=np.where(np.arange(303) % 2, 1.0, 100.0) + np.zeros((40, 303)))
    setting = {"n_frames": 2, "frame_interval": 0.2}
    truth = soft_contact.run(system, start, **setting, skin=0.01)
    assert len(np.unique(truth.collisions.system[truth.collisions.j == 2])) > 20
    same(truth, soft_contact.run(system, start, **setting, skin=4.0))


def test_room_for_contacts_grows():
    # nine particles in a heap where nearly all overlap: more contacts than the first buffer holds
    system = lone(n_particles=9, box=(20.0, 20.0), restitution=0.5, contact_time=0.5, interacting=False)
    x = 10 + 0.4 * RNG(1).standard_normal((2, 9, 2))
    run = follow(system, state(x, np.zeros((2, 9, 2)) + x - 10), time=3.0)
    assert len(run.collisions) == 2 * 36
    assert (run.collisions.time == 0).all()


def test_threads_change_no_bit():
    code = (
        "import numpy as np, hashlib\n"
        "from simulators import SoftSpheres, simulate\n"
        "run = simulate(SoftSpheres(friction=0.2), n_systems=7, n_frames=3, frame_interval=0.2,"
        " rng=np.random.default_rng(0))\n"
        "parts = (run.positions, run.velocities, run.angular_velocities, run.collisions.time, run.collisions.impulse)\n"
        "print(hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest())"
    )
    prints = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_NUM_THREADS": n},
        ).stdout
        for n in ("1", "2")
    ]
    assert prints[0] == prints[1]


def test_frames_do_not_disturb_the_dynamics():
    system = SoftSpheres(time_step=8e-5)
    start = system.draw_state(2, rng=RNG(2))
    coarse, fine = (follow(system, start, time=0.32, n_frames=n) for n in (2, 5))
    np.testing.assert_allclose(fine.positions[:, -1], coarse.positions[:, -1], atol=1e-9)


def test_periodic_positions_lie_in_the_box_and_energy_and_momentum_hold():
    system = SoftSpheres(boundary="periodic", gravity=(0.0, 0.0))
    assert system.conserved == ("energy", "momentum")
    run = simulate(system, n_systems=3, n_frames=4, frame_interval=0.5, rng=RNG(6))
    assert (run.positions >= 0).all()
    assert (run.positions < 1).all()
    total = energy(run)
    np.testing.assert_allclose(total, np.broadcast_to(total[0], total.shape), rtol=2e-3)
    momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
    np.testing.assert_allclose(momentum, momentum[:, :1] + np.zeros_like(momentum), atol=1e-12)


def test_a_stored_frame_starts_a_run_again():
    system = SoftSpheres(friction=0.3, restitution=0.8, n_particles=20)
    run = simulate(system, n_systems=2, n_frames=4, frame_interval=0.7, rng=RNG(10))
    for frame in range(4):
        again = follow(system, run.state(frame), time=0.01)
        assert again.angular_velocities is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restitution": 0.0}, r"restitution must be in \(0, 1\], got 0.0"),
        ({"friction": -0.1}, r"friction must be zero or more, and finite, got -0.1"),
        ({"contact_time": 0.0}, r"contact_time must be positive and finite, got 0.0"),
        ({"time_step": 2.1e-4}, r"time_step must be above 0 and at most 0.0002 .*got 0.00021"),
        ({"time_step": 0.0}, r"time_step must be above 0 and at most 0.0002 .*got 0.0"),
        ({"radius_spread": 0.9, "time_step": 5e-5}, r"time_step must be above 0 and at most 4e-05"),
        (
            {"contact": "hertz", "velocity_scale": 0.0, "gravity": (0.0, 0.0)},
            r"contact='hertz' needs velocity_scale or gravity",
        ),
        ({"boundary": "closed"}, r"boundary must be 'walls' or 'periodic' or 'open'.*got 'closed'"),
        ({"boundary": "periodic", "radius": 0.2}, r"a periodic axis must be longer than 1.04, got 1"),
        ({"n_particles": 100}, r"cannot fit: packing fraction 1.165"),
        ({"gravity": (0.0, 0.0, 0.0)}, r"gravity must have 2 entries for dim=2"),
    ],
)
def test_impossible_systems(settings, message):
    with pytest.raises(ValueError, match=message):
        SoftSpheres(**settings)


def test_every_allowed_step_is_taken_as_given():
    assert SoftSpheres().step == pytest.approx(4e-3 / 50)
    assert SoftSpheres(time_step=2e-4).step == 2e-4
    assert SoftSpheres(radius_spread=0.9).step == pytest.approx(4e-3 / 250)  # 25 steps for the lightest pair


def test_impossible_starts():
    system = lone(n_particles=2, boundary="walls")
    still = np.zeros((1, 2, 2))
    cases = [
        (state([[[5.0, 5.0], [5.0, 6.4]]], still), r"system 0, particles 0 and 1 overlap by 0.6, expected at most 0.5"),
        (state([[[5.0, 5.0], [0.4, 5.0]]], still), r"system 0, particle 1 is outside the box"),
        (state([[[5.0, 5.0], [8.0, 5.0]]], still, masses=[[1.0, 1e-2]]), r"particle 1 of mass 0.01 is too light"),
        (state([[[5.0, 5.0], [8.0, 5.0]]], still, spins=[[[1.0], [0.0]]]), r"angular_velocities, which need friction"),
        (state([[[5.0, 5.0]]], still[:, :1]), r"initial must have n_particles=2"),
    ]
    for start, message in cases:
        with pytest.raises(ValueError, match=message):
            follow(system, start, time=0.1)


@pytest.mark.parametrize("side", [10, 70])  # particles along a side: each way to find pairs
@pytest.mark.parametrize("spread", [0.3, 0.9])
@pytest.mark.parametrize("boundary", ["walls", "periodic", "open"])
def test_a_deep_overlap_among_many_is_found(side, spread, boundary):
    system = lone(n_particles=side**2, box=(4.0 * side,) * 2, radius_spread=spread, boundary=boundary, time_step=1e-5)
    grid = 4.0 * (np.indices((side, side)).reshape(2, -1).T + 0.5)
    radii = 1 + spread * RNG(3).uniform(-1.0, 1.0, (2, side**2))
    row = np.arange(0, side**2, side)  # at the lower border
    x = np.stack((grid, grid))
    for depth in (0.49, 0.51):
        small = min(radii[1, row[2]], radii[1, row[2] + side - 1])
        apart = radii[1, row[2]] + radii[1, row[2] + side - 1] - depth * small
        if boundary == "periodic":  # the pair meets across the border, one of them outside of the box
            x[1, row[2] + side - 1, 1] = x[1, row[2], 1] - apart
        else:
            x[1, row[2] + side - 1] = x[1, row[2]] + np.array([0.0, apart])
            x[1, row[2] + 1] = grid[row[2] + side - 1]
        given = ParticleState(x, np.zeros_like(x), radii, radii**2)
        if depth < 0.5:
            system.check_state(given)
        else:
            with pytest.raises(ValueError, match=rf"system 1, particles {row[2]} and {row[2] + side - 1} overlap by"):
                system.check_state(given)


def test_a_contact_too_soft_for_the_speed_is_refused_and_not_returned():
    system = lone(n_particles=2, contact_time=2.0)
    start = state([[[5.0, 5.0], [8.0, 5.0]]], [[[0.0, 0.0], [-50.0, 0.0]]])
    with pytest.raises(ValueError, match=r"system 0: particle 0 sank .* into 1 .* more than the radius 1: too soft"):
        follow(system, start, time=4.0)

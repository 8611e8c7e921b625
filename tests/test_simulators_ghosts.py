"""Ghost discs, the control: they pass through each other, and log what would have been."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from simulators import HardSpheres, ParticleState, simulate

RNG = np.random.default_rng
GHOSTS = HardSpheres(interacting=False)


def overlap_begins(run, system, i, j):
    """Return the times at which discs i and j begin to overlap, found by root finding between frames.

    Between wall collisions both fly freely, so the gap from a frame or wall collision on is known in closed form.
    """
    gravity = np.array(run.system.gravity)
    log = run.collisions.of_system(system)
    knots = [(0.0, run.positions[system, 0].copy(), run.velocities[system, 0].copy())]
    for time, k, wall, impulse, normal in zip(log.time, log.i, log.j, log.impulse, log.normal, strict=True):
        if wall < 0:
            before, x, v = knots[-1]
            s = time - before
            x, v = x + v * s + gravity * s * s / 2, v + gravity * s
            v[k] += impulse / run.masses[system, k] * normal
            knots.append((time, x, v))
    reach = run.radii[system, i] + run.radii[system, j]
    begins = []
    for n, (begin, x, v) in enumerate(knots):
        length = (knots[n + 1][0] if n + 1 < len(knots) else run.times[-1]) - begin

        def gap(s, x=x, v=v):
            return np.sqrt((((x[i] - x[j])[:, None] + np.outer(v[i] - v[j], s)) ** 2).sum(axis=0)) - reach

        grid = np.linspace(0.0, length, 200)
        value = gap(grid)
        for m in np.flatnonzero((value[:-1] > 0) & (value[1:] <= 0)):
            root: Any = brentq(lambda s, gap=gap: gap(np.array([s]))[0], grid[m], grid[m + 1], xtol=1e-13)
            begins.append(begin + root)
    return np.array(begins)


def test_ghosts_pass_through_and_log_what_they_would_have_exchanged():
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), restitution=0.5, interacting=False)
    start = ParticleState(
        np.array([[[0.3, 0.5], [0.7, 0.5]]]),
        np.array([[[1.0, 0], [-0.5, 0]]]),
        np.array([[0.1, 0.05]]),
        np.array([[3.0, 1.0]]),
    )
    run = simulate(system, n_systems=1, n_frames=3, frame_interval=0.25, rng=RNG(0), initial=start)
    log = run.collisions
    assert (log.i.tolist(), log.j.tolist(), log.forced.tolist()) == ([0], [1], [False])
    assert log.time[0] == pytest.approx(0.25 / 1.5, abs=1e-15)
    assert log.impulse[0] == pytest.approx(1.5 * 0.75 * 1.5, abs=1e-13)
    np.testing.assert_allclose(log.normal[0], [-1, 0], atol=1e-15)
    expected = start.positions + 0.5 * start.velocities
    np.testing.assert_allclose(run.positions[:, 2], expected, rtol=0, atol=1e-15)


def test_ghost_log_is_every_begin_of_an_overlap():
    run = simulate(GHOSTS, n_systems=3, n_frames=2, frame_interval=3.0, rng=RNG(1))
    n_found = 0
    for s in range(3):
        log = run.collisions.of_system(s)
        for i in range(10):
            for j in range(i + 1, 10):
                expected = overlap_begins(run, s, i, j)
                n_found += len(expected)
                np.testing.assert_allclose(log.time[(log.i == i) & (log.j == j)], expected, rtol=0, atol=1e-10)
    assert n_found > 100


def test_each_ghost_flies_as_if_alone():
    run = simulate(GHOSTS, n_systems=2, n_frames=9, frame_interval=0.5, rng=RNG(2))
    alone = HardSpheres(n_particles=1)
    for k in range(10):
        one = slice(k, k + 1)
        start = ParticleState(
            run.positions[:, 0, one], run.velocities[:, 0, one], run.radii[:, one], run.masses[:, one]
        )
        lone = simulate(alone, n_systems=2, n_frames=9, frame_interval=0.5, rng=RNG(0), initial=start)
        np.testing.assert_allclose(run.positions[:, :, k], lone.positions[:, :, 0], rtol=0, atol=1e-12)


def test_both_arms_share_their_starts():
    ghosts, discs = (
        simulate(system, n_systems=3, n_frames=2, frame_interval=0.1, rng=RNG(3)) for system in (GHOSTS, HardSpheres())
    )
    for name in ("positions", "velocities"):
        assert getattr(ghosts, name)[:, 0].tobytes() == getattr(discs, name)[:, 0].tobytes()
    assert ghosts.masses.tobytes() == discs.masses.tobytes()


def test_ghosts_that_start_inside_each_other_are_logged_only_when_they_meet_again():
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), interacting=False, box=(1.0, 1.0))
    start = ParticleState(
        np.array([[[0.5, 0.5], [0.55, 0.5]]]),
        np.array([[[0.0, 0], [-1.0, 0]]]),
        np.array([[0.1, 0.1]]),
        np.ones((1, 2)),
    )
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=1.0, rng=RNG(0), initial=start)
    # it approaches, but is inside; to the left wall at x = 0.1 after 0.45, then back to distance 0.2 after another 0.2
    np.testing.assert_allclose(run.collisions.time, [0.45, 0.65], atol=1e-14)
    assert run.collisions.j.tolist() == [-1, 1]


def test_restitution_of_ghosts_acts_on_walls_alone():
    system = HardSpheres(interacting=False, restitution=0.8, gravity=(0.0, 0.0))
    run = simulate(system, n_systems=4, n_frames=21, frame_interval=0.1, rng=RNG(4))
    log = run.collisions
    energy = 0.5 * run.masses[:, None] * (run.velocities**2).sum(axis=-1)
    lost = (energy[:, 0] - energy[:, -1]).sum()
    wall = log.j < 0
    arrival = log.impulse[wall] / 1.8 / run.masses[log.system[wall], log.i[wall]]
    expected = (0.5 * run.masses[log.system[wall], log.i[wall]] * arrival**2 * (1 - 0.64)).sum()
    assert not log.forced.any()
    assert (~wall).sum() > 50
    assert lost == pytest.approx(expected, rel=1e-10)

"""The log is complete: with the start state alone it gives the state at any time."""

from dataclasses import replace

import numpy as np
import pytest

from simulators import HardSpheres, ParticleState, simulate
from simulators.replay import replay

RNG = np.random.default_rng
CASES = [
    pytest.param(HardSpheres(), id="default"),
    pytest.param(HardSpheres(restitution=0.9, restitution_velocity=0.5), id="inelastic"),
    pytest.param(HardSpheres(interacting=False, restitution=0.9), id="ghosts"),
    pytest.param(HardSpheres(gravity=(0.0, 0.0), boundary="periodic"), id="periodic"),
    pytest.param(HardSpheres(gravity=(0.0, -1.0), boundary=("periodic", "walls")), id="channel"),
    pytest.param(
        HardSpheres(n_particles=20, dim=3, radius=0.1, gravity=(0.3, 0.0, -1.0), box=(1.0, 1.2, 0.9)), id="3d"
    ),
]


def around(difference, system):
    """Return a difference of places, to the nearest image along periodic axes."""
    kinds = (system.boundary,) * system.dim if isinstance(system.boundary, str) else system.boundary
    for axis, kind in enumerate(kinds):
        if kind == "periodic":
            length = system.box[axis]
            difference[..., axis] -= length * np.round(difference[..., axis] / length)
    return difference


@pytest.mark.parametrize("system", CASES)
def test_start_and_log_give_every_frame(system):
    run = simulate(system, n_systems=3, n_frames=40, frame_interval=0.5, rng=RNG(1))
    assert len(run.collisions) > 500
    positions, velocities = replay(run)
    assert np.abs(around(positions - run.positions, system)).max() < 1e-9
    assert np.abs(velocities - run.velocities).max() < 1e-9
    assert positions[:, 0].tobytes() == run.positions[:, 0].tobytes()


@pytest.mark.parametrize("system", CASES)
def test_any_times_between_frames(system):
    coarse = simulate(system, n_systems=2, n_frames=3, frame_interval=2.0, rng=RNG(2))
    fine = simulate(system, n_systems=2, n_frames=65, frame_interval=0.0625, rng=RNG(2))
    order = RNG(3).permutation(65)
    positions, velocities = replay(coarse, fine.times[order])
    assert np.abs(around(positions - fine.positions[:, order], system)).max() < 1e-9
    assert np.abs(velocities - fine.velocities[:, order]).max() < 1e-9
    assert (positions >= 0.0).all()
    assert (positions < np.array(system.box)).all()


def test_a_log_that_lacks_one_collision_is_found_out():
    run = simulate(HardSpheres(), n_systems=1, n_frames=3, frame_interval=1.0, rng=RNG(4))
    log = run.collisions
    names = ("system", "time", "i", "j", "impulse", "normal", "forced")
    lossy = replace(log, **{name: np.delete(getattr(log, name), 5, axis=0) for name in names})
    positions, _ = replay(replace(run, collisions=lossy))
    assert np.abs(positions - run.positions).max() > 1e-3


def test_a_moment_of_collision_shows_its_outcome_but_time_zero_the_start():
    system = HardSpheres(n_particles=1, gravity=(0.0, 0.0))
    velocity = np.array([[[-1.0, 0.0]]])
    start = ParticleState(np.array([[[0.5, 0.5]]]), velocity, np.array([[0.25]]), np.array([[1.0]]))
    run = simulate(system, n_systems=1, n_frames=3, frame_interval=0.25, rng=RNG(0), initial=start)
    positions, velocities = replay(run, np.array([0.25, 0.125]))
    assert positions[0, :, 0, 0].tolist() == [0.25, 0.375]
    assert velocities[0, :, 0, 0].tolist() == [1.0, -1.0]
    touching = ParticleState(np.array([[[0.25, 0.5]]]), velocity, np.array([[0.25]]), np.array([[1.0]]))
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.25, rng=RNG(0), initial=touching)
    assert run.collisions.time.tolist() == [0.0]
    assert replay(run)[1][0, :, 0, 0].tolist() == [-1.0, 1.0]


def test_no_times_and_no_collisions():
    still = HardSpheres(n_particles=2, gravity=(0.0, 0.0), velocity_scale=0.0)
    run = simulate(still, n_systems=1, n_frames=2, frame_interval=1.0, rng=RNG(0))
    assert replay(run)[0].tobytes() == run.positions.tobytes()
    assert replay(run, np.zeros(0))[0].shape == (1, 0, 2, 2)


def test_what_cannot_be_replayed_is_refused():
    run = simulate(HardSpheres(), n_systems=1, n_frames=3, frame_interval=0.5, rng=RNG(5))
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1.0\], the span of the run, got \[0.5, 1.5\]"):
        replay(run, np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match=r"event-driven run of HardSpheres.*by engine 'imported': use its frames"):
        replay(replace(run, engine="imported"))

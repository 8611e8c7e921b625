"""Contact labels against a slow reading of the log."""

import numpy as np
import pytest

from simulators import (
    CollisionLog,
    HardSpheres,
    Trajectories,
    contact_labels,
    simulate,
    wall_contact_labels,
)


def log_of(rows):
    """Return a log of one system from (time, i, j) rows."""
    time, i, j = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    return CollisionLog(
        system=np.zeros(n, np.int32),
        time=time.astype(np.float64),
        i=i.astype(np.int32),
        j=j.astype(np.int32),
        impulse=np.ones(n),
        normal=np.tile([1.0, 0.0], (n, 1)),
        forced=np.zeros(n, bool),
    )


@pytest.mark.parametrize("interacting", [True, False])
def test_labels_equal_the_log(interacting):
    system = HardSpheres(interacting=interacting)
    run = simulate(system, n_systems=5, n_frames=13, frame_interval=0.1, rng=np.random.default_rng(0))
    pairs = np.zeros((5, 12, 10, 10), dtype=bool)
    walls = np.zeros((5, 12, 10), dtype=bool)
    log = run.collisions
    for s, time, i, j in zip(log.system, log.time, log.i, log.j, strict=True):
        for k in range(12):
            if run.times[k] < time <= run.times[k + 1]:
                if j < 0:
                    walls[s, k, i] = True
                else:
                    pairs[s, k, i, j] = pairs[s, k, j, i] = True
    assert (contact_labels(run) == pairs).all()
    assert (wall_contact_labels(run) == walls).all()
    assert pairs.sum() > 50
    assert walls.sum() > 50


def test_a_collision_at_a_frame_belongs_to_the_interval_before():
    run = Trajectories(
        positions=np.zeros((1, 4, 3, 2)),
        velocities=np.zeros((1, 4, 3, 2)),
        radii=np.ones((1, 3)),
        masses=np.ones((1, 3)),
        frame_interval=0.1,
        system=HardSpheres(n_particles=3),
        seed=None,
        # 0.1 * 3 is the time of frame 3, which 0.3 is not
        collisions=log_of([(0.0, 0, 1), (0.1, 0, 2), (0.2, 1, -3), (0.1 * 3, 1, 2)]),
    )
    expected = np.zeros((3, 3, 3), dtype=bool)
    expected[0, [0, 1, 0, 2], [1, 0, 2, 0]] = True
    expected[2, [1, 2], [2, 1]] = True
    assert (contact_labels(run)[0] == expected).all()
    assert np.argwhere(wall_contact_labels(run)[0]).tolist() == [[1, 1]]


def test_labelled_pairs_are_those_that_feel_each_other():
    # without gravity and walls' contacts, the velocity of a disc changes exactly where a label says so
    system = HardSpheres(gravity=(0.0, 0.0))
    run = simulate(system, n_systems=50, n_frames=10, frame_interval=0.05, rng=np.random.default_rng(1))
    changed = (np.diff(run.velocities, axis=1) != 0).any(axis=-1)
    touched = contact_labels(run).any(axis=-1) | wall_contact_labels(run)
    assert (changed == touched).all()

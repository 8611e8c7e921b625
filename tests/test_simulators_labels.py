"""Labels against a slow reading of the log, event by event."""

from dataclasses import replace

import numpy as np
import pytest

from simulators import (
    CollisionLog,
    HardSpheres,
    Trajectories,
    collision_chains,
    collision_counts,
    contact_impulse,
    contact_labels,
    simulate,
    time_to_contact,
    touching_labels,
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


@pytest.fixture(scope="module")
def run():
    """Return a dense run, so that intervals hold several collisions of a pair."""
    system = HardSpheres(radius=0.11, n_particles=6)
    return simulate(system, n_systems=4, n_frames=9, frame_interval=0.3, rng=np.random.default_rng(5))


@pytest.fixture(scope="module")
def soft(run):
    """Return the same run as if its contacts lasted, one of them to the very time of a frame."""
    log = run.collisions
    duration = np.random.default_rng(6).exponential(0.3, len(log))
    duration = np.minimum(duration, run.times[-1] - log.time)
    ends = np.searchsorted(run.times, log.time, side="left")
    duration[::7] = (run.times[ends] - log.time)[::7]
    return replace(run, collisions=replace(log, duration=duration, overlap=np.zeros(len(log))))


def rows_of(run):
    """Yield (system, interval, time, i, j, row) of each event."""
    log = run.collisions
    for row in range(len(log)):
        for k in range(len(run.times) - 1):
            if run.times[k] < log.time[row] <= run.times[k + 1]:
                yield int(log.system[row]), k, float(log.time[row]), int(log.i[row]), int(log.j[row]), row


def test_counts_and_impulses(run):
    counts, impulses = np.zeros((4, 8, 6, 6)), np.zeros((4, 8, 6, 6))
    of_particle, push = np.zeros((4, 8, 6)), np.zeros((4, 8, 6))
    for s, k, _, i, j, row in rows_of(run):
        for one, other in ((i, j), (j, i)):
            if one < 0:
                continue
            of_particle[s, k, one] += 1
            push[s, k, one] += run.collisions.impulse[row]
            if other >= 0:
                counts[s, k, one, other] += 1
                impulses[s, k, one, other] += run.collisions.impulse[row]
    assert (collision_counts(run) == counts).all()
    assert (collision_counts(run, per="particle") == of_particle).all()
    assert counts.max() > 1
    np.testing.assert_allclose(contact_impulse(run), impulses, rtol=1e-14)
    np.testing.assert_allclose(contact_impulse(run, per="particle"), push, rtol=1e-14)
    assert ((collision_counts(run) > 0) == contact_labels(run)).all()


def test_impulses_are_what_velocities_gained():
    # where two discs met each other once and nobody else, their momentum changed by just that
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), radius=0.1, restitution=0.7)
    run = simulate(system, n_systems=1000, n_frames=2, frame_interval=0.3, rng=np.random.default_rng(0))
    alone = (collision_counts(run, per="particle").sum(axis=1) == 1).all(axis=-1) & contact_labels(run)[:, 0, 0, 1]
    gained = run.masses[..., None] * np.diff(run.velocities, axis=1)[:, 0]
    assert alone.sum() > 20
    np.testing.assert_allclose(
        np.linalg.norm(gained[alone], axis=-1), contact_impulse(run)[alone, 0, 0, 1][:, None] * [1, 1], rtol=1e-10
    )


def test_touching(soft, run):
    touching = np.zeros((4, 8, 6, 6), dtype=bool)
    log = soft.collisions
    for s, k, begin, i, j, row in rows_of(soft):
        end = begin + log.duration[row]
        for later in range(k, 8):
            if j >= 0 and (later == k or soft.times[later] < end):
                touching[s, later, i, j] = touching[s, later, j, i] = True
    assert (touching_labels(soft) == touching).all()
    assert touching.sum() > 1.3 * contact_labels(run).sum()
    assert (touching_labels(run) == contact_labels(run)).all()


def test_times_to_contact(run):
    pairs, particles = np.full((4, 9, 6, 6), np.inf), np.full((4, 9, 6), np.inf)
    for s, _, time, i, j, _ in rows_of(run):
        for frame in range(9):
            if j >= 0 and run.times[frame] < time:
                wait = time - run.times[frame]
                for one, other in ((i, j), (j, i)):
                    pairs[s, frame, one, other] = min(pairs[s, frame, one, other], wait)
                    particles[s, frame, one] = min(particles[s, frame, one], wait)
    assert (time_to_contact(run) == pairs).all()
    assert (time_to_contact(run, per="particle") == particles).all()
    assert ((time_to_contact(run)[:, :-1] <= 0.3 + 1e-12) == contact_labels(run)).all()
    assert np.isinf(time_to_contact(run)[:, -1]).all()


def test_a_collision_at_time_zero_is_due_now():
    run = three_at_rest([(0.0, 0, 1), (0.1, 0, 2)])
    assert time_to_contact(run)[0, :, 0, 1].tolist() == [0.0, np.inf, np.inf, np.inf]
    assert time_to_contact(run)[0, :, 2, 0].tolist() == [0.1, np.inf, np.inf, np.inf]


def three_at_rest(rows):
    """Return four frames of three discs with a log of our own."""
    return Trajectories(
        positions=np.zeros((1, 4, 3, 2)),
        velocities=np.zeros((1, 4, 3, 2)),
        radii=np.ones((1, 3)),
        masses=np.ones((1, 3)),
        frame_interval=0.1,
        system=HardSpheres(n_particles=3),
        seed=None,
        collisions=log_of(rows),
    )


@pytest.mark.parametrize("intervals", [None, 1, 3])
def test_chains(run, intervals):
    chains = collision_chains(run, intervals=intervals)
    n_events = len(run.collisions)
    parents = np.full((n_events, 2), -1)
    generation, chain = np.zeros(n_events, dtype=int), np.arange(n_events)
    last = {}
    for s, k, _, i, j, row in rows_of(run):
        window = 0 if intervals is None else k // intervals
        for column, particle in enumerate((i, j)):
            if particle < 0:
                continue
            before = last.get((s, window, particle), -1)
            parents[row, column] = before
            if before >= 0:
                generation[row] = max(generation[row], generation[before] + 1)
                chain[chain == chain[row]] = chain[before]
            last[s, window, particle] = row
    assert (chains.parent_i == parents[:, 0]).all()
    assert (chains.parent_j == parents[:, 1]).all()
    assert (chains.generation == generation).all()
    first_seen = {part: number for number, part in enumerate(dict.fromkeys(chain.tolist()))}
    assert chains.chain.tolist() == [first_seen[part] for part in chain.tolist()]
    assert generation.max() > (5 if intervals is None else 1)


def test_a_chain_by_hand():
    run = three_at_rest([(0.01, 0, 1), (0.02, 1, 2), (0.03, 0, -1), (0.04, 0, 1), (0.15, 0, 2)])
    chains = collision_chains(run, intervals=1)
    assert chains.parent_i.tolist() == [-1, 0, 0, 2, -1]
    assert chains.parent_j.tolist() == [-1, -1, -1, 1, -1]
    assert chains.generation.tolist() == [0, 1, 1, 2, 0]
    assert chains.chain.tolist() == [0, 0, 0, 0, 1]
    assert collision_chains(run).generation.tolist() == [0, 1, 1, 2, 3]
    assert collision_chains(run).parent_j.tolist() == [-1, -1, -1, 1, 1]


def test_labels_of_a_run_without_collisions():
    run = three_at_rest([(0.01, 0, 1)])
    run = replace(run, collisions=run.collisions.of_system(1))
    assert not contact_labels(run).any()
    assert not touching_labels(run).any()
    assert not collision_counts(run).any()
    assert not contact_impulse(run, per="particle").any()
    assert np.isinf(time_to_contact(run)).all()
    assert len(collision_chains(run).chain) == 0


def test_choices_are_named(run):
    for label in (collision_counts, contact_impulse, time_to_contact):
        with pytest.raises(ValueError, match=r"per must be 'pair' or 'particle', got 'disc'"):
            label(run, per="disc")
    with pytest.raises(ValueError, match=r"intervals must be at least 1, got 0"):
        collision_chains(run, intervals=0)

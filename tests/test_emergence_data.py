import numpy as np
import pytest
import torch
from micro_study import few_transitions, fresh_model

from emergence.data import Normalization, count_features, loss_per_particle, make_transitions, prediction_loss
from simulators import ChargedParticles, HardSpheres, ParticleState, SoftSpheres, simulate


@pytest.fixture(scope="module")
def trajectories():
    system = HardSpheres(n_particles=6, radius=0.08, gravity=(0.3, -1.0))
    return simulate(system, n_systems=3, n_frames=9, frame_interval=0.1, rng=np.random.default_rng(4))


def test_transitions_match_a_slow_loop(trajectories):
    run, data = trajectories, make_transitions(trajectories)
    scale = data.normalization
    f_mean, f_std, t_mean, t_std = (np.array(a) for a in vars(scale).values())
    scene = 0
    for system in range(3):
        for frame in range(8):
            for i in range(6):
                now = [*run.positions[system, frame, i], *run.velocities[system, frame, i]]
                now += [run.radii[system, i], run.masses[system, i]]
                change = [
                    *(run.positions[system, frame + 1, i] - run.positions[system, frame, i]),
                    *(run.velocities[system, frame + 1, i] - run.velocities[system, frame, i]),
                ]
                np.testing.assert_allclose(data.batch.features[scene, i], (now - f_mean) / f_std, rtol=0, atol=1e-5)
                np.testing.assert_allclose(data.batch.targets[scene, i], (change - t_mean) / t_std, rtol=0, atol=1e-5)
            events = run.collisions.of_system(system)
            begin, end = frame * 0.1, (frame + 1) * 0.1
            pairs = {(i, j) for t, i, j in zip(events.time, events.i, events.j, strict=True) if begin < t <= end}
            expected = {(i, j) for i, j in pairs if j >= 0} | {(j, i) for i, j in pairs if j >= 0}
            assert {tuple(pair) for pair in data.contacts[scene].nonzero().tolist()} == expected
            assert set(data.wall_contacts[scene].nonzero()[:, 0].tolist()) == {i for i, j in pairs if j < 0}
            assert data.scene_system[scene] == system
            scene += 1
    assert scene == len(data) == 24
    assert data.contacts.any()
    assert data.wall_contacts.any()


def test_ballistic_targets_are_exact_for_particles_that_touch_nothing(trajectories):
    data = make_transitions(trajectories)
    free = ~data.contacts.any(-1) & ~data.wall_contacts
    error = (data.ballistic - data.batch.targets).abs().amax(-1)
    assert 20 < int(free.sum()) < free.numel()
    assert error[free].max() < 1e-5  # float32 of numbers of order one
    assert error[~free].min() > 1e-3


def test_training_scenes_are_normalised_to_mean_0_and_spread_1(trajectories):
    batch = make_transitions(trajectories).batch
    for tensor in batch:
        flat = tensor.flatten(0, 1).double()
        torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1], dtype=torch.float64), rtol=0, atol=1e-6)
        torch.testing.assert_close(flat.std(0, correction=0), torch.ones_like(flat[0]), rtol=0, atol=1e-6)


def test_a_constant_column_keeps_unit_scale():
    data = few_transitions(radius_spread=0.0)
    assert data.normalization.feature_std[4:] == (1.0, 1.0)
    assert data.batch.features[..., 4:].abs().max() < 1e-6


def test_evaluation_scenes_are_scaled_like_the_training_scenes(trajectories):
    train = make_transitions(trajectories)
    other = simulate(trajectories.system, n_systems=2, n_frames=4, frame_interval=0.1, rng=np.random.default_rng(9))
    scaled = make_transitions(other, normalization=train.normalization)
    assert scaled.normalization is train.normalization
    mean, std = (torch.tensor(a) for a in (train.normalization.target_mean, train.normalization.target_std))
    change = torch.from_numpy(np.diff(other.positions, axis=1).reshape(6, 6, 2))
    torch.testing.assert_close((scaled.batch.targets * std + mean)[..., :2].double(), change, rtol=0, atol=1e-6)


def test_geometry_of_the_scene_now(trajectories):
    data = make_transitions(trajectories)
    x, v, r = data.positions[5], data.velocities[5], data.radii[5]
    assert data.distances[5, 1, 4] == pytest.approx(float((x[1] - x[4]).norm()), abs=1e-14)
    assert data.gaps[5, 1, 4] == pytest.approx(float((x[1] - x[4]).norm() - r[1] - r[4]), abs=1e-14)
    later = (x[:, None] + 1e-6 * v[:, None] - x[None] - 1e-6 * v[None]).norm(dim=-1)
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    assert torch.equal(data.approaching[5][off_diagonal], (later < data.distances[5])[off_diagonal])


def test_batches_are_equal_and_in_order():
    data = few_transitions()
    batches = data.batches(10)
    assert [len(b.features) for b in batches] == [10] * (len(data) // 10)
    assert torch.equal(torch.cat([b.targets for b in batches]), data.batch.targets[: 10 * len(batches)])


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="size must be at most the number of scenes, 42; got 43"):
        few_transitions().batches(43)


def test_prediction_loss_is_the_mean_of_the_loss_per_particle():
    data, model = few_transitions(), fresh_model().double()
    batch = type(data.batch)(*(t.double() for t in data.batch))
    losses = loss_per_particle(model, batch)
    assert losses.shape == (len(data), 5)
    torch.testing.assert_close(losses.mean(), prediction_loss(model, batch), rtol=1e-12, atol=0)
    by_hand = sum((model(batch.features)[2, 3, k] - batch.targets[2, 3, k]) ** 2 for k in range(4)) / 4
    torch.testing.assert_close(losses[2, 3], by_hand, rtol=1e-12, atol=0)


def test_normalization_measures_over_scenes_and_particles(rng):
    features, targets = rng.normal(3, 2, (4, 5, 6)), rng.normal(-1, 0.5, (4, 5, 2))
    scale = Normalization.of(features, targets)
    assert scale.feature_mean == pytest.approx(features.reshape(20, 6).mean(axis=0), abs=1e-14)
    assert scale.target_std == pytest.approx(targets.reshape(20, 2).std(axis=0), abs=1e-14)


def test_nothing_jumps_where_a_particle_crosses_a_periodic_edge():
    system = HardSpheres(n_particles=2, radius=0.05, gravity=(0.0, 0.0), boundary="periodic")
    one = np.array([[0.97, 0.5], [0.03, 0.5]])[None]
    velocities = np.array([[1.0, 0.0], [1.0, 0.0]])[None]
    start = ParticleState(one, velocities, np.full((1, 2), 0.025), np.ones((1, 2)))
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=0.1, rng=np.random.default_rng(0), initial=start)
    assert run.positions[0, 1, 0, 0] == pytest.approx(0.07)  # it came out on the other side
    data = make_transitions(run, normalization=Normalization((0.0,) * 6, (1.0,) * 6, (0.0,) * 4, (1.0,) * 4))
    torch.testing.assert_close(data.batch.targets[0, 0], torch.tensor([0.1, 0.0, 0.0, 0.0]))
    assert data.distances[0, 0, 1] == pytest.approx(0.06)
    assert data.gaps[0, 0, 1] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("system", "n_features", "n_outputs"),
    [
        (HardSpheres(n_particles=3), 6, 4),
        (SoftSpheres(n_particles=3, friction=0.3), 7, 5),
        (SoftSpheres(n_particles=3, dim=3, gravity=(0.0, 0.0, -1.0), box=(1.0,) * 3, friction=0.3), 11, 9),
        (ChargedParticles(n_particles=3), 7, 4),
    ],
)
def test_every_system_becomes_features_and_targets(system, n_features, n_outputs):
    assert count_features(system) == (n_features, n_outputs)
    run = simulate(system, n_systems=2, n_frames=3, frame_interval=0.05, rng=np.random.default_rng(0))
    data = make_transitions(run)
    assert data.batch.features.shape == (4, 3, n_features)
    assert data.batch.targets.shape == data.ballistic.shape == (4, 3, n_outputs)
    if system.__class__ is SoftSpheres:
        turning, std = data.normalization.target_std[2 * system.dim :], data.batch.targets[..., 2 * system.dim :].std()
        assert len(turning) == n_outputs - 2 * system.dim
        assert std > 0

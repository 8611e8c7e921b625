"""Functional clusters that were planted, what their loss breaks, and what a new task costs, against worlds by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import left_as_found
from refusals import assert_refused
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor, nn

from probes import cluster_ablation, functional_clusters, interference, task_variance

# variance


def test_variance_of_a_known_signal(rng):
    """Unit u adds a_tu cos(phase of the trial) to a ramp in time: variance a² / 2 over trials, whatever the ramp."""
    amplitude = rng.random((3, 5))
    phase = 2 * np.pi * np.arange(40) / 40
    time = np.linspace(0, 3, 7)
    activity = {
        f"task {t}": amplitude[t] * np.cos(phase)[:, None, None] + time[:, None] * np.ones((1, 1, 5)) for t in range(3)
    }
    expected = amplitude**2 / 2 * 40 / 39
    np.testing.assert_allclose(task_variance(activity), expected, rtol=1e-12)
    as_tensors = [torch.tensor(a, requires_grad=True) for a in activity.values()]
    np.testing.assert_allclose(task_variance(as_tensors), expected, rtol=1e-12)


def test_few_trials_compare_with_many(rng):
    few = np.mean([task_variance([rng.normal(size=(3, 1, 50))]).mean() for _ in range(400)])
    assert few == pytest.approx(1.0, abs=4 / np.sqrt(400 * 50))  # the variance of s² at n = 3 is 1


# clusters


def planted(rng: np.random.Generator, sizes=(12, 9, 7, 5), n_silent: int = 8, noise: float = 0.05) -> Any:
    """Each cluster serves two tasks of eight; units differ in scale by orders of magnitude; some are silent."""
    truth = rng.permutation(np.repeat(np.arange(len(sizes) + 1), (*sizes, n_silent)))
    profile = np.kron(np.eye(len(sizes) + 1, len(sizes)), [1.0, 0.7])
    table = profile[truth] + noise * rng.random((len(truth), 2 * len(sizes)))
    scale = 10 ** rng.uniform(-1, 2, len(truth))
    return truth, (table * np.where(truth == len(sizes), 1e-5, scale)[:, None]).T


def test_planted_clusters_are_found(rng):
    truth, variance = planted(rng)
    got = functional_clusters(variance, rng=rng, n_subsamples=20)
    np.testing.assert_array_equal(got.active, truth != 4)
    np.testing.assert_array_equal(got.labels, truth)  # numbered by preferred task; silent units hold n_clusters
    assert got.n_clusters == 4
    np.testing.assert_array_equal(got.sizes, [12, 9, 7, 5])
    np.testing.assert_array_equal(got.preferred_task, [0, 2, 4, 6])
    np.testing.assert_allclose(got.normalized[:, got.active].max(axis=0), 1.0)
    assert np.isnan(got.normalized[:, ~got.active]).all()
    np.testing.assert_allclose(got.stability, 1.0)
    assert (got.n_clusters_of_subsamples == 4).all()
    np.testing.assert_allclose(got.stability_interval, 1.0)


def test_the_tree_and_the_silhouette_are_those_of_scikit_learn(rng):
    variance = rng.random((6, 40)) ** 3
    got = functional_clusters(variance, n_clusters=range(2, 9), rng=rng, n_subsamples=2)
    profiles = (variance / variance.max(axis=0)).T
    trees = [AgglomerativeClustering(k).fit_predict(profiles) for k in range(2, 9)]
    np.testing.assert_allclose(got.silhouette, [silhouette_score(profiles, labels) for labels in trees])
    assert adjusted_rand_score(trees[got.n_clusters - 2], got.labels) == 1.0
    assert (np.diff(got.preferred_task) >= 0).all()


def test_noise_is_unstable(rng):
    """The silhouette names clusters in noise too; subsamples do not agree on them."""
    got = functional_clusters(rng.random((20, 60)), rng=rng, n_subsamples=20)
    assert got.n_clusters >= 2
    assert got.stability_interval[0] < 0.5


def test_scale_order_and_identical_units(rng):
    truth, variance = planted(rng, noise=0.0)  # units of a cluster are identical but for scale: ties throughout
    a = functional_clusters(variance, rng=np.random.default_rng(0), n_subsamples=5)
    order = rng.permutation(len(truth))
    b = functional_clusters(variance[:, order] * 7, rng=np.random.default_rng(0), n_subsamples=5)
    np.testing.assert_array_equal(a.labels, truth)
    np.testing.assert_array_equal(b.labels, a.labels[order])
    assert a.silhouette.max() == pytest.approx(1.0)


def test_the_default_threshold_lies_above_the_shelf_of_silent_units(rng):
    _, variance = planted(rng)
    assert functional_clusters(variance, rng=rng, n_subsamples=2, threshold=1e-6).active.all()
    assert functional_clusters(variance, rng=rng, n_subsamples=2).active.sum() == 33


# ablation


class Accumulator(nn.Module):
    """A recurrent net by hand: units 0-2 sum channel 0, units 3-5 sum channel 1, unit 6 sums nothing, 7 is silent.

    Task 0 reads the sign of the first three, task 1 that of the others. ``state`` is called once a time step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = nn.Identity()
        w_in = torch.zeros(8, 2)
        w_in[:3, 0], w_in[3:6, 1] = 1.0, 1.0
        self.w_in, self.w_out = nn.Parameter(w_in), nn.Parameter(w_in.T / 3)
        self.pad, self.n_silenced = nn.Parameter(torch.zeros(3)), []

    def forward(self, x: Tensor) -> Tensor:  # trial time channel -> trial channel
        h = x.new_zeros(len(x), 8)
        for u in x.unbind(1):
            h = self.state(h + u @ self.w_in.T)
            self.n_silenced.append(int((h == 0).all(0).sum()))
        return h @ self.w_out.T


TRIALS = torch.tensor(np.random.default_rng(0).choice([-1.0, 1.0], size=(60, 5, 2)), dtype=torch.float32)


def signs_read(model: nn.Module) -> dict[str, Tensor]:
    out = model(TRIALS)
    return {f"sum {c}": out[:, c].sign() == TRIALS[..., c].sum(1).sign() for c in range(2)}


def by_hand(rng) -> Any:
    variance = np.zeros((2, 8))
    variance[0, :3], variance[1, 3:6], variance[:, 6] = 1.0, 1.0, [1.0, 0.45]
    return functional_clusters(variance, n_clusters=[2], rng=rng, n_subsamples=2)


def test_a_cluster_that_serves_one_task_breaks_that_one(rng):
    model, clusters = Accumulator().train(), by_hand(rng)
    np.testing.assert_array_equal(clusters.labels, [0, 0, 0, 1, 1, 1, 0, 2])
    with left_as_found(model):
        got = cluster_ablation(model, clusters, signs_read, layer="state", rng=rng, n_draws=39)
    np.testing.assert_array_equal(got.drop, np.eye(2))  # a sum of five signs is never 0, that of silence is
    np.testing.assert_array_equal(got.baseline, [1, 1])
    np.testing.assert_array_equal(got.standard_error, np.zeros((2, 2)))
    np.testing.assert_array_equal(got.serves, np.eye(2, dtype=bool))
    np.testing.assert_array_equal(got.specificity, [1, 1])
    np.testing.assert_array_equal(got.specificity_interval, np.ones((2, 2)))
    assert got.tasks == ("sum 0", "sum 1")
    assert got.null_drop.shape == (2, 39, 2)
    expected = 4 / 35  # a random four of seven holds units 0-2; the same of 1 in 35 for a three
    assert got.null_drop[0, :, 0].mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 39))
    np.testing.assert_array_equal(got.p_value, (1 + (got.null_drop >= got.drop[:, None]).sum(1)) / 40)
    assert (np.diag(got.p_value) <= 0.4).all()
    assert (got.p_value[[0, 1], [1, 0]] == 1).all()


def test_units_are_silent_at_every_step(rng):
    model = Accumulator()
    cluster_ablation(model, by_hand(rng), signs_read, layer="state", rng=rng, n_draws=1)
    assert model.n_silenced[:10] == [2] * 10  # twice intact: units 6 and 7 alone
    assert model.n_silenced[10:20] == [5] * 5 + [5] * 5  # each cluster
    assert len(model.n_silenced) == 5 * (2 + 2 + 2)


class Mixed(nn.Module):
    """Scores by hand: a task loses a trial where the trial's own unit is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self) -> Tensor:
        return self.layer(torch.ones(1, 8))[0]


def test_errors_are_paired_over_trials(rng):
    """Trial i of task 0 needs unit i mod 6; cluster 0 holds units 0, 1, 2 and 6: half of the trials are lost."""

    def evaluate(model):
        kept = model()
        return [kept[np.arange(60) % 6], kept[np.full(20, 7)]]

    got = cluster_ablation(Mixed(), by_hand(rng), evaluate, layer="layer", rng=rng, n_draws=9)
    standard_error = 0.5 * np.sqrt(60 / 59) / np.sqrt(60)
    np.testing.assert_allclose(got.drop, [[0.5, 0], [0.5, 0]])
    np.testing.assert_allclose(got.standard_error, [[standard_error, 0], [standard_error, 0]])
    np.testing.assert_allclose(got.specificity, [0.5, -0.5])
    half = 2.093024 * standard_error  # Student's t of the 20 trials of the shorter task
    np.testing.assert_allclose(got.specificity_interval[0], [0.5 - half, 0.5 + half], rtol=1e-6)
    assert not got.null_drop[..., 1].any()  # unit 7 is inactive, and in no random set
    assert got.tasks == ("task 0", "task 1")


def test_noise_of_the_network_is_the_same_in_every_evaluation(rng):
    def evaluate(model):
        return [model()[:6] + torch.randn(6), model()[:6]]

    got = cluster_ablation(Mixed(), by_hand(rng), evaluate, layer="layer", rng=rng, n_draws=3)
    np.testing.assert_allclose(got.drop, [[0.5, 0.5]] * 2, atol=1e-6)


def test_a_cluster_that_serves_every_task_has_no_specificity(rng):
    variance = np.ones((2, 8))
    variance[1, 4:] = 0.1
    clusters = functional_clusters(variance, n_clusters=[2], rng=rng, n_subsamples=2)

    def evaluate(model):
        return [model(), model()]

    got = cluster_ablation(Mixed(), clusters, evaluate, layer="layer", rng=rng, n_draws=3)
    assert np.isnan(got.specificity).tolist() == np.isnan(got.specificity_p_value).tolist()
    assert np.isnan(got.specificity).sum() == 1


# interference


def test_interference_by_hand():
    before = {"plain": [[0.9, 0.8], [0.9, 0.9], [0.7, 0.8]], "modular": [[0.92, 0.6], [0.9, 0.88], [0.5, 0.5]]}
    after = {"plain": [[0.5, 0.7], [0.6, 0.7], [0.7, 0.7]], "modular": [[0.9, 0.6], [0.9, 0.8], [0.5, 0.5]]}
    got = interference(before, after)
    assert got.arms == ("plain", "modular")
    np.testing.assert_allclose(got.drop[0], [[0.4, 0.1], [0.3, 0.2], [0.0, 0.1]])
    np.testing.assert_allclose(got.mean, [1.1 / 6, 0.1 / 6])
    np.testing.assert_array_equal(got.matched[1], [[True, False], [True, True], [False, False]])
    of_seed = np.array([0.02 - 0.4, (0.0 - 0.3 + 0.08 - 0.2) / 2])
    np.testing.assert_allclose(got.difference, [0.0, of_seed.mean()])
    half = 12.7062047 * of_seed.std(ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(got.difference_interval[1], [of_seed.mean() - half, of_seed.mean() + half])
    np.testing.assert_array_equal(got.n_seeds_matched, [3, 2])
    learnt = {"plain": [0.9, 0.9, 0.9], "modular": [0.9, 0.5, 0.9]}
    only = interference(before, after, learnt=learnt)
    assert (only.n_seeds_matched[1], only.difference[1]) == (1, pytest.approx(-0.38))
    assert np.isnan(only.difference_interval[1]).all()
    none = interference(before, after, learnt={"plain": [0.9] * 3, "modular": [0.1] * 3})
    assert (none.n_seeds_matched[1], np.isnan(none.difference[1])) == (0, True)


@pytest.mark.parametrize("n_seeds", [3, 8])
def test_the_interval_of_the_difference_covers(n_seeds):
    """Seeds share a hardship that pairing takes out; the arm spares 0.1 on average."""
    n_worlds, hits = 600, 0
    for world in range(n_worlds):
        rng = np.random.default_rng(world)
        hardship, before = rng.normal(0.3, 0.2, (n_seeds, 1)), np.full((n_seeds, 4), 0.9)
        costs = {"plain": hardship, "modular": hardship - 0.1 + rng.normal(0, 0.05, (n_seeds, 1))}
        after = {arm: before - cost + rng.normal(0, 0.02, (n_seeds, 4)) for arm, cost in costs.items()}
        got = interference({"plain": before, "modular": before}, after)
        hits += got.difference_interval[1, 0] <= -0.1 <= got.difference_interval[1, 1]
    assert abs(hits / n_worlds - 0.95) < 3 * np.sqrt(0.05 * 0.95 / n_worlds)


# misuse


def ablate(r: np.random.Generator, evaluate: Any = signs_read, layer: str = "state", **options: Any) -> Any:
    return cluster_ablation(Accumulator(), by_hand(r), evaluate, layer=layer, rng=r, **options)


def changing(scores: Any) -> Any:
    """An evaluation that returns the next scores at every call."""
    left = iter(scores)
    return lambda model: [next(left)] * 2


ONES, ARM = np.ones((2, 6)), {"a": np.ones((3, 2))}
MISUSE = {
    "no task": (lambda r: task_variance([]), "activity holds no task"),
    "one trial": (lambda r: task_variance({"go": np.ones((1, 5, 2))}), "must hold at least 2 trials, got 1"),
    "no time": (lambda r: task_variance([np.ones((4, 5))]), r"must have shape \(trial, time, unit\) .* got \(4, 5\)"),
    "NaN activity": (lambda r: task_variance([np.full((2, 1, 1), np.nan)]), r"must be finite, got nan at \(0, 0, 0\)"),
    "units that differ": (
        lambda r: task_variance([np.ones((2, 1, 3)), np.ones((2, 1, 4))]),
        r"agree on the number of units, got \[3, 4\]",
    ),
    "NaN variance": (lambda r: functional_clusters(ONES * np.nan, rng=r), "variance must be finite, got nan"),
    "negative variance": (lambda r: functional_clusters(-ONES, rng=r), r"must not be negative, got -1 at \(0, 0\)"),
    "a single active unit": (
        lambda r: functional_clusters(np.eye(6)[:2, :1] * ONES, rng=r, threshold=7.0),
        "at least 4 units, got 0 of 6; lower the threshold",
    ),
    "units alike": (lambda r: functional_clusters(ONES, rng=r), "variance of the 6 active units is the same"),
    "negative threshold": (lambda r: functional_clusters(ONES, rng=r, threshold=-1.0), "not be negative, got -1"),
    "one cluster": (lambda r: functional_clusters(ONES, rng=r, n_clusters=[1, 2]), r"at least 2, got \[1, 2\]"),
    "too many clusters": (
        lambda r: functional_clusters(r.random((3, 6)), rng=r, n_clusters=[5]),
        "n_clusters must hold a number below 5, the units in a subsample of 6",
    ),
    "no subsamples": (lambda r: functional_clusters(ONES, rng=r, n_subsamples=1), "n_subsamples must be at least 2"),
    "no such layer": (lambda r: ablate(r, layer="stat"), "model has no submodule 'stat'; alike: state"),
    "other units": (
        lambda r: cluster_ablation(
            nn.Sequential(nn.Linear(2, 3)), by_hand(r), lambda m: [m(torch.ones(2, 2))[:, 0]] * 2, layer="0", rng=r
        ),
        r"layer '0' must return the 8 units of the clusters on the last axis, got shape \(2, 3\)",
    ),
    "a fused layer": (
        lambda r: cluster_ablation(
            nn.Sequential(nn.RNN(2, 8)), by_hand(r), lambda m: [m(torch.ones(4, 2))[0][:, 0]] * 2, layer="0", rng=r
        ),
        "submodule '0' must return a tensor, got tuple",
    ),
    "other tasks": (lambda r: ablate(r, lambda m: [torch.ones(4)]), "must return the 2 tasks of the clusters, got 1"),
    "means for trials": (lambda r: ablate(r, lambda m: [0.9, 0.8]), r"evaluate's 'task 0' must have shape \(trial\)"),
    "a single trial": (lambda r: ablate(r, lambda m: [[1.0], [1.0]]), r"at least 2 trials a task, got \[1, 1\]"),
    "fresh trials": (lambda r: ablate(r, changing([[0, 1], [1, 0]])), "must return the same when it is repeated"),
    "uneven trials": (lambda r: ablate(r, changing([[0, 1], [0, 1, 1]])), "must return as many trials at every call"),
    "a layer not called": (
        lambda r: ablate(r, lambda m: [torch.ones(4)] * 2),
        "submodule 'state' was not called in the forward pass",
    ),
    "no draws": (lambda r: ablate(r, n_draws=0), "n_draws must be at least 1, got 0"),
    "no arm": (lambda r: interference({}, {}), "before must hold the arms"),
    "other arms": (lambda r: interference(ARM, {"b": np.ones((3, 2))}), r"after must hold the arms \['a'\] of before"),
    "arms of another shape": (
        lambda r: interference({**ARM, "b": np.ones((2, 2))}, {**ARM, "b": np.ones((2, 2))}),
        r"arms of before must have one shape, got \[\(3, 2\), \(2, 2\)\]",
    ),
    "after of another shape": (
        lambda r: interference(ARM, {"a": np.ones((3, 4))}),
        r"must have one shape, got \(3, 2\) and \(3, 4\)",
    ),
    "NaN accuracy": (lambda r: interference({"a": [[np.nan]]}, {"a": [[1.0]]}), r"before\['a'\] must be finite"),
    "learnt by few": (lambda r: interference(ARM, ARM, learnt={"a": [1.0]}), "one number for each of 3 seeds, got 1"),
    "negative tolerance": (lambda r: interference(ARM, ARM, tolerance=-0.1), "must not be negative, got -0.1"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
@pytest.mark.usefixtures("as_users_run")
def test_misuse_is_refused_in_one_line(rng, case):
    call, message = MISUSE[case]
    assert_refused(call, rng, message=message)

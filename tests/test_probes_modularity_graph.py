"""Modularity against formulas by hand and networkx; rewired graphs keep what they say; partitions that agree."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from refusals import assert_refused
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from probes import graph_modularity, newman_q, partition_agreement
from probes.modularity.rewiring import rewired


def planted(rng: np.random.Generator, n_units: int = 30, within: float = 0.5, between: float = 0.04) -> np.ndarray:
    """Three communities of equal size, directed weights of either sign."""
    same = np.equal.outer(np.arange(n_units) % 3, np.arange(n_units) % 3)
    return rng.normal(size=same.shape) * (rng.random(same.shape) < np.where(same, within, between))


def symmetric(rng: np.random.Generator, n_units: int = 20, density: float = 0.3) -> np.ndarray:
    half = np.triu(rng.random((n_units, n_units)) * (rng.random((n_units, n_units)) < density), 1)
    return half + half.T


# Q


def test_q_by_hand():
    """Two triangles and one edge between them: 7 edges, 3 within each, strength 7 each: Q = 2 (6/14 - 1/4) = 5/14."""
    graph = np.zeros((6, 6))
    for i, j in [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)]:
        graph[i, j] = graph[j, i] = 2.5
    assert newman_q(graph, [0, 0, 0, 7, 7, 7]) == pytest.approx(5 / 14)
    assert newman_q(graph, np.zeros(6, dtype=int)) == pytest.approx(0.0, abs=1e-15)
    assert newman_q(graph, np.arange(6)) == pytest.approx(-(4 * (2 / 14) ** 2 + 2 * (3 / 14) ** 2))


def test_q_is_that_of_networkx(rng):
    for _ in range(5):
        graph, labels = symmetric(rng), rng.integers(0, 4, 20)
        sets = [set(np.flatnonzero(labels == c).tolist()) for c in np.unique(labels)]
        expected = nx.community.modularity(nx.from_numpy_array(graph), sets)
        assert newman_q(graph, labels) == pytest.approx(expected, rel=1e-12)


def test_planted_communities_are_found(rng):
    weight = planted(rng, n_units=60)
    weight[:, 17] = weight[17] = 0.0  # a silent unit
    got = graph_modularity(weight, rng=rng, n_runs=2, n_shuffles=39)
    assert got.n_communities == 3
    assert adjusted_rand_score(got.labels[got.connected], np.delete(np.arange(60) % 3, 17)) > 0.9
    assert (got.connected.sum(), got.labels[17]) == (59, 3)
    assert got.test.p_value == 1 / 40
    assert got.test.z > 10
    graph = np.where(np.eye(60, dtype=bool), 0.0, abs(weight))
    assert got.q == got.q_of_runs.max() == pytest.approx(newman_q(graph + graph.T, got.labels), abs=1e-3)  # the faint
    assert got.agreement_of_runs.shape == (1,)
    assert got.agreement_of_runs[0] > 0.9


def test_rewired_graphs_are_searched_as_hard_as_the_graph_itself(monkeypatch, rng):
    """Q grows with the search: fewer runs on the null would make modules of nothing."""
    seen, louvain = [], nx.community.louvain_communities
    monkeypatch.setattr(nx.community, "louvain_communities", lambda g, **kw: (seen.append(g), louvain(g, **kw))[1])
    graph_modularity(planted(rng), rng=rng, n_runs=2, n_shuffles=5)
    assert len(seen) == 2 * (1 + 5)


def test_signs_directions_self_connections_and_faint_weights_do_not_count(rng):
    weight = planted(rng)
    q = [
        graph_modularity(w, rng=np.random.default_rng(0), n_shuffles=2).q
        for w in (weight, -weight.T, weight + 9 * np.eye(30), np.where(weight == 0, 9e-4, weight))
    ]
    np.testing.assert_allclose(q, q[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "n_worlds"),
    [("sparse", 25), *(pytest.param(kind, 300, marks=pytest.mark.slow) for kind in ("sparse", "dense", "symmetric"))],
)
def test_random_graphs_are_no_modules(kind, n_worlds):
    p = []
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        if kind == "symmetric":
            weight = symmetric(rng, 16, 0.4)
        else:
            weight = rng.normal(size=(16, 16)) * (rng.random((16, 16)) < (0.2 if kind == "sparse" else 1.0))
        p.append(graph_modularity(weight, rng=rng, n_runs=1, n_shuffles=19).test.p_value)
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_worlds)
    assert abs(np.mean(p) - 0.525) < 3 * np.sqrt(1 / 12 / n_worlds)  # mean of 1/20, 2/20, ..., 1


# the null


@pytest.mark.parametrize("density", [0.2, 0.8, 1.0])
def test_rewiring_keeps_degrees_and_weights(rng, density):
    graph = symmetric(rng, 30, density)
    before = graph.copy()
    new = rewired(graph, np.zeros(30, dtype=int), rng=rng)
    np.testing.assert_array_equal(graph, before)
    np.testing.assert_array_equal(new, new.T)
    assert not np.diag(new).any()
    np.testing.assert_array_equal((new > 0).sum(axis=0), (graph > 0).sum(axis=0))
    np.testing.assert_allclose(np.sort(new[np.triu(new) > 0]), np.sort(graph[np.triu(graph) > 0]))
    assert not np.array_equal(new, graph)
    if density < 1:
        kept = ((new > 0) & (graph > 0)).sum() / (graph > 0).sum()
        assert kept == pytest.approx(density, abs=0.15)  # as unlike as two graphs of this density can be


def test_rewiring_reaches_every_graph_equally_often(rng):
    """Degrees 1, 1, 1, 1 leave three graphs, the perfect matchings of four units."""
    graph = np.zeros((4, 4))
    graph[0, 1] = graph[1, 0] = graph[2, 3] = graph[3, 2] = 1.0
    partner = [int(rewired(graph, np.zeros(4, dtype=int), rng=rng)[0].argmax()) for _ in range(900)]
    assert stats.chisquare(np.bincount(partner, minlength=4)[1:]).pvalue > 0.001


def test_rewiring_keeps_layers(rng):
    layers = np.repeat([0, 1, 2], [6, 8, 4])
    graph = symmetric(rng, 18, 0.5) * (abs(np.subtract.outer(layers, layers)) == 1)
    new = rewired(graph, layers, rng=rng)
    for a, b in ((0, 1), (1, 2)):
        block = np.ix_(layers == a, layers == b)
        np.testing.assert_array_equal((new[block] > 0).sum(axis=0), (graph[block] > 0).sum(axis=0))
        np.testing.assert_array_equal((new[block] > 0).sum(axis=1), (graph[block] > 0).sum(axis=1))
    assert not new[np.ix_(layers == 1, layers == 1)].any()
    assert not np.array_equal(new, graph)


def test_modules_of_a_feed_forward_net(rng):
    """Two streams through three layers are modular beside nets of the same layers; mixed ones are not."""
    layers, stream = np.repeat([0, 1, 2], 10), np.tile([0, 1], 15)
    forward = np.subtract.outer(layers, layers) == 1
    apart = np.not_equal.outer(stream, stream)
    weight = rng.normal(size=(30, 30)) * forward
    streams = graph_modularity(np.where(apart, 0.05, 1) * weight, rng=rng, layers=layers, n_shuffles=39)
    mixed = graph_modularity(weight, rng=rng, layers=layers, n_shuffles=39)
    assert (streams.test.z > 8, streams.test.p_value) == (True, 1 / 40)
    assert abs(mixed.test.z) < 3


# agreement


def test_agreement_is_that_of_scikit_learn(rng):
    for n_a, n_b in ((7, 5), (2, 12), (20, 20)):
        a, b = rng.integers(0, n_a, 90), rng.integers(0, n_b, 90)
        b = np.where(rng.random(90) < 0.5, a, b)
        got = partition_agreement(a, b, rng=rng, n_shuffles=5)
        assert got.adjusted_rand.value == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
        assert got.adjusted_mutual_information.value == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-10)
        other_way = partition_agreement(b, 3 - a, rng=rng, n_shuffles=5)
        assert other_way.adjusted_rand.value == pytest.approx(got.adjusted_rand.value)


def test_the_standard_error_is_the_jackknife_of_a_loop(rng):
    a, b = rng.integers(0, 3, 25), rng.integers(0, 3, 25)
    got = partition_agreement(a, b, rng=rng, n_shuffles=2)
    for index, score in (
        (got.adjusted_rand, adjusted_rand_score),
        (got.adjusted_mutual_information, adjusted_mutual_info_score),
    ):
        without = np.array([score(np.delete(a, i), np.delete(b, i)) for i in range(25)])
        assert index.standard_error == pytest.approx(np.sqrt(24 / 25 * ((without - without.mean()) ** 2).sum()))


def test_the_null_of_agreement_is_centred_and_calibrated():
    """Both indices are 0 in the mean of shuffles, and unrelated partitions pass at 5 % in 5 % of worlds."""
    n_worlds, p = 150, []
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        got = partition_agreement(rng.integers(0, 5, 60), rng.integers(0, 4, 60), rng=rng, n_shuffles=99)
        p.append([got.adjusted_rand.test.p_value, got.adjusted_mutual_information.test.p_value])
    rate = (np.array(p) <= 0.05).mean(axis=0)
    assert (abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / n_worlds)).all()
    got = partition_agreement(np.arange(130) % 7, np.arange(130) // 20, rng=np.random.default_rng(0))
    for index in (got.adjusted_rand, got.adjusted_mutual_information):
        assert abs(index.test.null_mean) < 4 * index.test.null_sd / 100


def test_the_interval_covers_the_agreement_of_the_population():
    """Units drawn from a known table of two partitions; its own index is the truth."""
    table = np.array([[0.25, 0.05, 0.03], [0.02, 0.3, 0.05], [0.05, 0.05, 0.2]])
    rows, columns = (table.sum(axis=1) ** 2).sum(), (table.sum(axis=0) ** 2).sum()
    truth = ((table**2).sum() - rows * columns) / ((rows + columns) / 2 - rows * columns)  # of infinitely many units
    n_worlds, hits = 200, 0
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        a, b = np.divmod(rng.choice(9, size=130, p=table.ravel()), 3)
        low, high = partition_agreement(a, b, rng=rng, n_shuffles=2).adjusted_rand.interval
        hits += low <= truth <= high
    assert abs(hits / n_worlds - 0.95) < 3 * np.sqrt(0.05 * 0.95 / n_worlds)


def test_a_partition_agrees_with_itself(rng):
    labels = np.arange(40) % 4
    got = partition_agreement(labels, 10 - labels, rng=rng, n_shuffles=99)
    for index in (got.adjusted_rand, got.adjusted_mutual_information):
        assert index.value == pytest.approx(1.0)
        np.testing.assert_allclose(index.interval, 1.0)
        assert index.test.p_value == 0.01
    assert got.n_units == 40


MISUSE = {
    "weights not square": (lambda r: graph_modularity(np.ones((2, 3)), rng=r), r"square .* got \(2, 3\); put"),
    "NaN weight": (lambda r: graph_modularity(np.full((3, 3), np.nan), rng=r), r"weight must be finite, got nan at"),
    "no connection": (
        lambda r: graph_modularity(np.full((5, 5), 1e-4), rng=r),
        "at least 3 pairs above threshold = 0.001, got 0",
    ),
    "negative threshold": (lambda r: graph_modularity(np.ones((4, 4)), rng=r, threshold=-1.0), "be negative, got -1"),
    "layers of another length": (
        lambda r: graph_modularity(np.ones((4, 4)), rng=r, layers=[0, 1]),
        r"layers must give the layer of each of the 4 units, got shape \(2,\)",
    ),
    "no runs": (lambda r: graph_modularity(np.ones((4, 4)), rng=r, n_runs=0), "n_runs must be at least 1, got 0"),
    "no shuffles": (lambda r: graph_modularity(np.ones((4, 4)), rng=r, n_shuffles=1), "n_shuffles must be at least 2"),
    "Q of one-way weights": (lambda _: newman_q([[0, 1.0], [0, 0]], [0, 1]), "weight must be square, symmetric"),
    "Q of too few labels": (
        lambda _: newman_q([[0, 1.0], [1, 0]], [0]),
        r"community of each of the 2 units, got \(1,\)",
    ),
    "labels of other lengths": (
        lambda r: partition_agreement([0, 1, 1], [0, 1], rng=r),
        "must label the same 3 or more units, got 3 and 2",
    ),
    "one cluster": (
        lambda r: partition_agreement([0, 1, 1], [5, 5, 5], rng=r),
        "at least 2 clusters each, got 2 and 1",
    ),
    "labels that are no numbers": (lambda r: partition_agreement(["a", "b"], [0, 1], rng=r), "labels_a must be whole"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
@pytest.mark.usefixtures("as_users_run")
def test_misuse_is_refused_in_one_line(rng, case):
    call, message = MISUSE[case]
    assert_refused(call, rng, message=message)

"""Layouts of clusters against closed forms, loops written out, published magnitudes, and their own nulls."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from refusals import assert_refused
from scipy import stats
from scipy.spatial.distance import cdist

from probes import cluster_spread, functional_clusters, isolated_fraction, wiring_length

GRID = np.argwhere(np.ones((20, 20), dtype=bool))
GREAT = 10_000


def patch(rng: np.random.Generator, n_units: int = 130, n_clusters: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels dealt at random over a compact patch of the grid: no anatomy but the patch's own."""
    center = abs(GRID - 9.5).max(axis=1)
    cells = GRID[np.argsort(center + 1e-3 * rng.random(400))[:n_units]]
    return rng.permutation(np.arange(n_units) % n_clusters), cells


def isolated_by_hand(labels: np.ndarray, cells: np.ndarray) -> float:
    alone = 0
    for i in range(len(labels)):
        mates = [
            j
            for j in range(len(labels))
            if abs(cells[i] - cells[j]).sum() == 1 and labels[i] == labels[j]
        ]  # fmt: skip
        alone += not mates
    return alone / len(labels)


def spread_by_hand(labels: np.ndarray, places: np.ndarray, over: str) -> float:
    parts = [((p := places[labels == c]) - p.mean(axis=0)) ** 2 for c in np.unique(labels)]
    return float(sum(part.sum() / (len(part) if over == "clusters" else 1) for part in parts))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_measures_are_those_of_loops(rng, dim):
    cells = np.argwhere(np.ones((4,) * dim, dtype=bool))
    kept = rng.permutation(len(cells))[: max(3, 2 * len(cells) // 3)]
    labels, cells = np.append(rng.integers(0, 3, len(kept) - 2), [0, 1]), cells[kept]
    assert isolated_fraction(labels, cells, rng=rng, n_shuffles=2).observed == isolated_by_hand(labels, cells)
    for over in ("units", "clusters"):
        got = cluster_spread(labels, cells, rng=rng, n_shuffles=2, over=over).observed
        assert got == pytest.approx(spread_by_hand(labels, cells, over), rel=1e-12)


def test_a_checkerboard_is_all_isolated_and_blocks_are_not(rng):
    assert isolated_fraction(GRID.sum(axis=1) % 2, GRID, rng=rng, n_shuffles=99).observed == 1.0
    blocks = isolated_fraction((GRID // 5) @ [4, 1], GRID, rng=rng, n_shuffles=99)
    assert (blocks.observed, blocks.p_value) == (0.0, 0.01)


def test_by_index_the_gaps_are_closed(rng):
    """Units 0, 3, 9 of one cluster lie side by side among the active; on the line with its gaps they do not."""
    labels, line = np.array([0, 0, 0, 1, 2]), np.array([[0], [3], [9], [12], [15]])
    assert isolated_fraction(labels, None, rng=rng, n_shuffles=2).observed == 0.4
    assert isolated_fraction(labels, line, rng=rng, n_shuffles=2).observed == 1.0
    assert cluster_spread(labels, None, rng=rng, n_shuffles=2).observed == 2.0


def test_silent_units_count_as_no_neighbour(rng):
    """Units 0 and 2 of one cluster lie on either side of a silent one."""
    variance = np.zeros((3, 9))
    variance[0, [0, 2, 3]] = variance[1, [4, 5]] = variance[2, [6, 7, 8]] = 1.0
    clusters = functional_clusters(variance, n_clusters=[3], n_subsamples=2, rng=rng)
    line = np.arange(9)[:, None]
    on_grid = isolated_fraction(clusters, line, rng=rng, n_shuffles=99)
    assert on_grid.observed == 1 / 8  # unit 0
    assert isolated_fraction(clusters, None, rng=rng, n_shuffles=99).observed == 0.0


@pytest.mark.parametrize("over", ["units", "clusters"])
def test_the_mean_of_the_null_of_the_spread_is_its_closed_form(rng, over):
    sizes = np.array([36, 32, 24, 14, 7, 5, 5])
    labels = rng.permutation(np.repeat(np.arange(7), sizes))
    cells = GRID[rng.permutation(400)[: sizes.sum()]]
    factor = sizes.sum() - 7 if over == "units" else (1 - 1 / sizes).sum()
    for places, variance in (
        (cells, cells.var(axis=0, ddof=1).sum()),
        (None, sizes.sum() * (sizes.sum() + 1) / 12),
    ):
        test = cluster_spread(labels, places, rng=rng, over=over)
        standard_error = test.null_sd / np.sqrt(GREAT)
        assert abs(test.null_mean - factor * variance) < 4 * standard_error
        assert standard_error < 0.005 * test.null_mean


@pytest.mark.parametrize(
    ("n_units", "n_clusters", "published"), [(357, 8, 82_700), (150, 5, 9_350)], ids=["unregularised", "L1"]
)
def test_the_published_magnitude_of_the_variance_of_indices(rng, n_units, n_clusters, published):
    """arXiv 2310.07711, shuffled values read off its figure: N²/12 a cluster, by index."""
    labels = rng.permutation(np.arange(n_units) % n_clusters)
    test = cluster_spread(labels, None, rng=rng, over="clusters")
    assert test.null_mean == pytest.approx(n_clusters * n_units**2 / 12, rel=0.04)
    assert test.null_mean == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize(
    ("sizes", "published", "sd"),
    [([36, 32, 24, 14, 7, 5, 5], 0.64, 0.06), ([38, 36, 31, 20, 6], 0.59, 0.06)],
    ids=["BIMT", "L1"],
)
def test_the_null_of_the_published_cluster_sizes(rng, sizes, published, sd):
    """By index, labels of the sizes in the example networks of arXiv 2310.07711, as shuffled in our reading of them."""
    test = isolated_fraction(np.repeat(np.arange(len(sizes)), sizes), None, rng=rng)
    share = np.array(sizes) / sum(sizes)
    assert test.null_mean == pytest.approx((share * (1 - share) ** 2).sum(), abs=0.02)  # neither neighbour alike
    assert test.null_mean == pytest.approx(published, abs=0.005)
    assert test.null_sd == pytest.approx(sd, abs=0.005)


@pytest.mark.parametrize("measure", [isolated_fraction, cluster_spread])
def test_the_null_is_calibrated(measure):
    """Over worlds without anatomy: p below 0.05 in 5 %, the 95 % band covers 95 %, within three standard errors."""
    n_worlds, p, covered = 400, [], []
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        labels, cells = patch(rng)
        test = measure(labels, cells, rng=rng, n_shuffles=199)
        p.append(test.p_value)
        low, high = test.null_band
        covered.append(low <= test.observed <= high)
    three = 3 * np.sqrt(0.05 * 0.95 / n_worlds)
    assert abs(np.mean(covered) - 0.95) < three + 0.02 * (measure is isolated_fraction)  # whole units: ends are wide
    false = np.mean(np.array(p) <= 0.05)
    assert false < 0.05 + three
    assert false > 0.05 - three - 0.02 * (measure is isolated_fraction)
    if measure is cluster_spread:
        assert stats.kstest(p, "uniform").pvalue > 0.01


def test_anatomical_modules_are_found(rng):
    _, cells = patch(rng)
    angle = np.arctan2(*(cells - 9.4).T)
    labels = np.digitize(angle, [-2, -0.5, 0.5, 2])
    for measure in (isolated_fraction, cluster_spread):
        test = measure(labels, cells, rng=rng)
        assert test.z < -5
        assert test.p_value == pytest.approx(1 / 10_001)


def test_a_compact_patch_alone_is_no_module(rng):
    """Shuffled over the whole grid such labels would look clustered; among the active positions they do not."""
    z = [cluster_spread(*patch(rng), rng=rng, n_shuffles=199).z for _ in range(50)]
    assert abs(np.mean(z)) < 4 / np.sqrt(50)


def test_moving_turning_and_renaming_change_nothing():
    rng = np.random.default_rng(3)
    labels, cells = patch(rng)
    for measure in (isolated_fraction, cluster_spread):
        a = measure(labels, cells, rng=np.random.default_rng(0), n_shuffles=50)
        b = measure(-7 * labels, torch.tensor(cells[:, ::-1] * [1, -1] + 100), rng=np.random.default_rng(1))
        assert a.observed == pytest.approx(b.observed, rel=1e-9)
        again = measure(labels, cells, rng=np.random.default_rng(0), n_shuffles=50)
        np.testing.assert_array_equal(a.null, again.null)


def test_ten_thousand_shuffles_take_under_a_second(rng):
    labels, cells = patch(rng)
    for measure in (isolated_fraction, cluster_spread):
        start = time.process_time()
        measure(labels, cells, rng=rng)
        assert time.process_time() - start < 1.0


def test_a_null_that_cannot_change_has_no_z(rng):
    test = isolated_fraction(np.arange(9), GRID[:9], rng=rng, n_shuffles=99)
    assert np.isnan(test.z)
    assert test.p_value == 1.0


# wiring


def test_all_pairs_of_the_grid():
    """All 400² pairs make 2.13e6 cells by Manhattan and 1.67e6 straight."""
    weight = np.ones((400, 400))
    manhattan = wiring_length(weight, cdist(GRID, GRID, "cityblock"))
    assert manhattan.count == pytest.approx(400**2 * 2 * (20**2 - 1) / (3 * 20))  # mean |i - j| on a line is (n²-1)/3n
    assert manhattan.count == pytest.approx(2.13e6, rel=0.002)
    assert wiring_length(weight, cdist(GRID, GRID)).count == pytest.approx(1.67e6, rel=0.003)
    assert (manhattan.mean_length, manhattan.n_connections) == (manhattan.random_length, 160_000)


def test_both_forms_by_loops(rng):
    weight, distances = rng.normal(size=(5, 8)), rng.random((5, 8))
    got = wiring_length(torch.tensor(weight), distances, threshold=0.5)
    pairs = [(abs(weight[i, j]), distances[i, j]) for i in range(5) for j in range(8)]
    assert got.count == pytest.approx(sum(d for w, d in pairs if w > 0.5))
    assert got.weighted == pytest.approx(sum(w * d for w, d in pairs))
    assert got.n_connections == sum(w > 0.5 for w, _ in pairs)
    assert got.mean_length == pytest.approx(got.count / got.n_connections)


def test_no_connection_has_no_mean_length():
    got = wiring_length(np.full((3, 3), 1e-4), np.ones((3, 3)))
    assert (got.count, got.n_connections) == (0.0, 0)
    assert np.isnan(got.mean_length)


LABELS, LINE = np.array([0, 0, 1, 1]), np.arange(4)[:, None]
CELLS: Any = "cells"
MISUSE = {
    "one active unit": (lambda r: isolated_fraction([0], [[0, 0]], rng=r), r"labels .* at least 2 units, got \(1,\)"),
    "one cluster": (lambda r: isolated_fraction([3, 3], None, rng=r), "put all 2 active units in one cluster"),
    "labels of another length": (
        lambda r: isolated_fraction(LABELS[:3], LINE, rng=r),
        "positions must give the place of each of the 3 units, got 4",
    ),
    "labels with NaN": (lambda r: cluster_spread([0.0, np.nan], None, rng=r), "labels must be whole numbers"),
    "positions with NaN": (
        lambda r: cluster_spread(LABELS, LINE * np.nan, rng=r),
        r"positions must be finite, got nan at \(0, 0\)",
    ),
    "positions between cells": (lambda r: isolated_fraction(LABELS, LINE / 4, rng=r), "the cells of a grid; multiply"),
    "positions without an axis": (
        lambda r: isolated_fraction(LABELS, LINE[:, 0], rng=r),
        r"positions must have shape \(unit, dim\) and not be empty, got \(4,\)",
    ),
    "positions in four dimensions": (
        lambda r: cluster_spread(LABELS, np.ones((4, 4)), rng=r),
        r"positions must have shape \(unit, 1 to 3\), got \(4, 4\)",
    ),
    "a cell taken twice": (lambda r: isolated_fraction(LABELS, LINE // 2, rng=r), "got 2 cells taken twice"),
    "no shuffles": (lambda r: cluster_spread(LABELS, LINE, rng=r, n_shuffles=0), "shuffles must be at least 2, got 0"),
    "over what": (lambda r: cluster_spread(LABELS, LINE, rng=r, over=CELLS), "over must be 'units' or 'clusters'"),
    "negative threshold": (lambda _: wiring_length([[1.0]], [[1.0]], threshold=-1), "not be negative, got -1"),
    "NaN threshold": (lambda _: wiring_length([[1.0]], [[1.0]], threshold=np.nan), "not be negative, got nan"),
    "distances of another shape": (
        lambda _: wiring_length(np.ones((2, 3)), np.ones((3, 2))),
        r"distances must have the shape of weight, \(2, 3\), got \(3, 2\)",
    ),
    "negative distances": (lambda _: wiring_length([[1.0]], [[-2.0]]), "distances must not be negative, got -2"),
    "infinite weight": (lambda _: wiring_length([[np.inf]], [[1.0]]), r"weight must be finite, got inf at \(0, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
@pytest.mark.usefixtures("as_users_run")
def test_misuse_is_refused_in_one_line(rng, case):
    call, message = MISUSE[case]
    assert_refused(call, rng, message=message)

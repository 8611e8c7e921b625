"""Approaching against receding pairs at equal distance."""

from __future__ import annotations

import numpy as np
import pytest
from cases import unchecked

from probes import approach_preference

EDGES = np.linspace(0.0, 1.0, 41)


def world(rng, factor, n_boxes=30, n_scenes=4, n_particles=8):
    """Attention falls with distance; approaching pairs get ``factor`` times as much, nearer pairs approach more often.

    The strength of the fall and the scatter of the factor are shared within a box.
    """
    n = n_boxes * n_scenes
    positions = rng.random((n, n_particles, 2))
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    box = np.repeat(np.arange(n_boxes), n_scenes)
    approaching = np.triu(rng.random(distances.shape) < np.clip(0.8 - 0.6 * distances, 0.2, 0.8), 1)
    approaching |= approaching.swapaxes(-1, -2)
    preference = 1 + (factor - 1) * rng.gamma(4.0, 0.25, n_boxes)[box][:, None, None]
    preference *= np.exp(rng.normal(scale=0.2, size=n_boxes) - 0.02)[box][:, None, None]
    pattern = 0.1 * np.exp(-distances / 0.3) * np.where(approaching, preference, 1.0)
    return pattern[:, None], distances, approaching, box


def test_a_hand_made_scene():
    """Two bins; weights are the shares of approaching pairs, 1/3 and 2/3."""
    distances = np.array([[[0, 1, 1], [2, 0, 2], [2, 2, 0]]], dtype=float) - 0.5
    pattern = np.array([[[[0, 0.6, 0.2], [0.5, 0, 0.1], [0.3, 0.3, 0]]]])
    approaching = np.array([[[1, 1, 0], [1, 1, 0], [1, 0, 1]]], dtype=bool)
    got = approach_preference(pattern, distances, approaching, edges=np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(got.approaching[0], [0.6, 0.4, np.nan])
    np.testing.assert_allclose(got.receding[0], [0.2, 0.2, np.nan])
    assert got.ratio[0] == pytest.approx((0.6 + 2 * 0.4) / (0.2 + 2 * 0.2))
    assert np.isnan(got.interval).all()  # one scene


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_planted_preference_is_covered_in_95_percent_of_worlds(rng, factor):
    """150 worlds: four binomial standard errors are 7 %. Distance alone is no preference, though the near approach."""
    ratios, covered = [], np.zeros(2)
    for _ in range(150):
        pattern, distances, approaching, box = world(rng, factor)
        found = [approach_preference(pattern, distances, approaching, edges=EDGES, groups=g) for g in (box, None)]
        covered += [got.interval[0, 0] < factor < got.interval[0, 1] for got in found]
        ratios.append(found[0].ratio[0])
    assert np.mean(ratios) == pytest.approx(factor, rel=0.02)
    assert covered[0] / 150 == pytest.approx(0.95, abs=0.07)
    assert covered[1] / 150 < 0.87  # boxes ignored


def test_without_matching_distances_the_near_would_pass_for_approaching(rng):
    pattern, distances, approaching, box = world(rng, 1.0, n_boxes=200)
    one_bin = approach_preference(pattern, distances, approaching, edges=np.array([0.0, 2.0]), groups=box)
    matched = approach_preference(pattern, distances, approaching, edges=EDGES, groups=box)
    assert one_bin.ratio[0] > 1.3
    assert matched.ratio[0] == pytest.approx(1.0, abs=0.05)


def test_the_interval_agrees_with_a_bootstrap_of_the_boxes(rng):
    """A preference that differs between bins: the weights of the bins are random too, and the error knows it."""
    pattern, distances, approaching, box = world(rng, 1.0, n_boxes=40, n_scenes=1)
    distances = distances * rng.uniform(0.3, 2.0, 40)[:, None, None]  # some boxes hold near pairs only
    pattern = np.where((distances < 0.4) & approaching, 6.0, 1.0)[:, None]
    edges = np.array([0.0, 0.4, 1.0])
    got = approach_preference(pattern, distances, approaching, edges=edges, groups=box)
    draws = []
    for _ in range(500):
        pick = rng.integers(0, 40, 40)
        draws.append(
            np.log(approach_preference(pattern[pick], distances[pick], approaching[pick], edges=edges).ratio[0])
        )
    half = np.diff(np.log(got.interval[0]))[0] / 2
    assert half / 2.0227 == pytest.approx(np.std(draws), rel=0.15)  # t quantile of 39 degrees; 500 draws leave 3 %


def test_pairs_that_get_nothing(rng):
    pattern, distances, approaching, _ = world(rng, 1.0, n_boxes=5)
    both = np.concatenate([pattern * approaching[:, None], pattern * ~approaching[:, None]], axis=1)
    got = approach_preference(both, distances, approaching, edges=EDGES)
    np.testing.assert_array_equal(got.ratio, [np.inf, 0.0])
    assert np.isnan(got.interval).all()


def test_bad_input_is_refused(rng):
    pattern, distances, approaching, _ = world(rng, 1.0, n_boxes=1)
    probe = unchecked(approach_preference)
    with pytest.raises(ValueError, match=r"approaching must have shape \(4, 8, 8\) to match .*, got \(3, 8, 8\)"):
        probe(pattern, distances, approaching[1:], edges=EDGES)
    with pytest.raises(TypeError, match="approaching must be bool, got int64"):
        probe(pattern, distances, approaching.astype(int), edges=EDGES)
    with pytest.raises(ValueError, match="no distance bin holds both"):
        probe(pattern, distances, np.ones_like(approaching), edges=EDGES)
    with pytest.raises(ValueError, match=r"edges must ascend.* got \[1.0, 0.0\]"):
        probe(pattern, distances, approaching, edges=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="groups must label each of the 4 scenes, got 5 labels"):
        probe(pattern, distances, approaching, edges=EDGES, groups=np.arange(5))

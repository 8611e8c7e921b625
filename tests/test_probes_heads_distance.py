"""Radius score, radial attention and correlation length on planted attention whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import unchecked
from scipy import stats

from probes import distance_correlation, radial_attention, radius_score
from probes.heads.correlation import spearman

OTHERS = ~np.eye(6, dtype=bool)
EDGES = np.linspace(0.0, 1.0, 11)


def scenes(rng, n, n_particles=6):
    positions = rng.random((n, n_particles, 2))
    return np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)


def normalised(weights):
    """Rows that sum to one over the others; nothing kept."""
    weights = weights * ~np.eye(weights.shape[-1], dtype=bool)
    return weights / weights.sum(axis=-1, keepdims=True)


def boxes(rng, n_boxes, n_scenes=5):
    """Attention that prefers the near, in a strength shared by the scenes of a box."""
    distances = scenes(rng, n_boxes * n_scenes)
    box = np.repeat(np.arange(n_boxes), n_scenes)
    strength = rng.gamma(2.0, 1.0, n_boxes)[box][:, None, None]
    pattern = normalised(np.exp(-strength * distances / 0.3 + 0.3 * rng.normal(size=distances.shape)))
    return pattern[:, None], distances, box


def uniform(n, kept, n_particles=6):
    """Uniform over the others, a part kept for self."""
    off = ~np.eye(n_particles, dtype=bool)
    return np.broadcast_to(np.where(off, (1 - kept) / (n_particles - 1), kept), (n, 1, n_particles, n_particles))


# radius score


def test_radius_score_of_a_hand_made_scene():
    """Three on a line at 0, 1, 3: within 1.5 lie one, one and no other."""
    x = np.array([0.0, 1.0, 3.0])
    distances = np.abs(x[:, None] - x)[None]
    pattern = np.array([[[[0.0, 0.9, 0.1], [0.3, 0.2, 0.5], [0.5, 0.5, 0.0]]]])
    got = radius_score(pattern, distances, radius=1.5)
    score, chance = (0.9 + 0.3 + 0.0) / 3, (1.0 * 1 / 2 + 0.8 * 1 / 2 + 0.0) / 3
    assert got.score[0] == pytest.approx(score, abs=1e-15)
    assert got.chance[0] == pytest.approx(chance, abs=1e-15)
    assert got.excess[0] == pytest.approx((score - chance) / (1 - chance), abs=1e-15)
    assert got.radius == 1.5
    assert np.isnan(got.standard_error[0])


@pytest.mark.parametrize("kept", [0.0, 1 / 6, 0.9])
def test_uniform_attention_has_no_excess(rng, kept):
    distances = scenes(rng, 20)
    got = radius_score(uniform(20, kept), distances, radius=0.4)
    assert got.excess[0] == pytest.approx(0.0, abs=1e-14)
    assert got.standard_error[0] == pytest.approx(0.0, abs=1e-15)


def test_all_attention_within_the_radius_is_an_excess_of_one(rng):
    distances = np.where(np.arange(6)[:, None] // 2 == np.arange(6) // 2, 0.1, 1.0)[None].repeat(4, axis=0)
    assert radius_score(normalised(distances < 0.5)[:, None], distances, radius=0.5).excess[0] == pytest.approx(1.0)


def test_no_room_for_an_excess_is_nan(rng):
    got = radius_score(uniform(4, 0.0), scenes(rng, 4), radius=2.0)
    assert got.score[0] == pytest.approx(1.0)
    assert np.isnan(got.excess[0])
    assert np.isnan(got.standard_error[0])


def calibration(rng, estimate, truth, n_worlds=200):
    """Shares of worlds whose estimate lies within 1.96 errors of the truth, with boxes known and ignored."""
    covered = np.zeros(2)
    for _ in range(n_worlds):
        pattern, distances, box = boxes(rng, 40)
        for i, groups in enumerate((box, None)):
            value, error = estimate(pattern, distances, groups)
            covered[i] += abs(value - truth) < 1.96 * error
    return covered / n_worlds


def test_standard_error_of_the_excess_is_calibrated(rng):
    """200 worlds: four binomial standard errors are 6.5 %; a normal interval from 40 boxes covers 94.3 %."""

    def estimate(pattern, distances, groups):
        got = radius_score(pattern, distances, radius=0.3, groups=groups)
        return got.excess[0], got.standard_error[0]

    pattern, distances, _ = boxes(rng, 20_000)
    truth = radius_score(pattern, distances, radius=0.3).excess[0]
    known, ignored = calibration(rng, estimate, truth)
    assert 0.878 < known < 0.995
    assert ignored < 0.86


# radial attention


def test_a_pair_on_an_edge_belongs_to_the_bin_it_opens():
    x = np.array([0.0, 1.0, 3.0])
    got = radial_attention(uniform(1, 0.0, 3), np.abs(x[:, None] - x)[None], edges=np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(got.n_pairs, [0, 2, 2])


@pytest.mark.parametrize("kept", [0.0, 1 / 6, 0.9])
def test_uniform_attention_is_one_at_all_distances(rng, kept):
    got = radial_attention(uniform(20, kept), scenes(rng, 20), edges=EDGES)
    np.testing.assert_allclose(got.g, 1.0, rtol=1e-13)
    np.testing.assert_allclose(got.standard_error, 0.0, atol=1e-15)
    np.testing.assert_allclose(got.centers, np.arange(0.05, 1, 0.1))


def test_radial_attention_matches_a_loop_over_pairs(rng):
    distances = scenes(rng, 8)
    pattern = normalised(rng.random((8, 2, 6, 6)))
    got = radial_attention(pattern, distances, edges=EDGES)
    for h in range(2):
        for b in range(10):
            found = [
                pattern[s, h, i, j]
                for s, i, j in np.ndindex(8, 6, 6)
                if i != j and EDGES[b] <= distances[s, i, j] < EDGES[b + 1]
            ]
            assert got.n_pairs[b] == len(found)
            assert got.g[h, b] == pytest.approx(np.mean(found) * 5, rel=1e-13)  # rows keep nothing: <A> = 1/5


def test_a_planted_function_is_recovered(rng):
    """Attention 0.1 (1 + 2 exp(-r)) at distance r, the rest kept: g(r) is that over its mean."""
    distances = scenes(rng, 200)
    planted = 0.05 * (1 + 2 * np.exp(-distances / 0.2)) * OTHERS
    kept = (1 - planted.sum(-1))[..., None] * np.eye(6)
    edges = np.linspace(0, 1, 101)
    got = radial_attention((planted + kept)[:, None], distances, edges=edges)
    expected = 0.05 * (1 + 2 * np.exp(-got.centers / 0.2)) / planted[:, OTHERS].mean()
    seen = got.n_pairs > 0
    np.testing.assert_allclose(got.g[0][seen], expected[seen], rtol=0.02)  # half a bin of 0.01 in 0.2 is 2.5 % of 2/3


def test_an_empty_bin_is_nan(rng):
    got = radial_attention(uniform(5, 0.0), scenes(rng, 5), edges=np.array([0.0, 0.5, 2.0, 3.0]))
    np.testing.assert_array_equal(np.isnan(got.g[0]), [False, False, True])
    np.testing.assert_array_equal(np.isnan(got.standard_error[0]), [False, False, True])
    assert got.n_pairs[2] == 0


def test_standard_error_of_radial_attention_is_calibrated(rng):
    edges = np.array([0.1, 0.3])

    def estimate(pattern, distances, groups):
        got = radial_attention(pattern, distances, edges=edges, groups=groups)
        return got.g[0, 0], got.standard_error[0, 0]

    pattern, distances, _ = boxes(rng, 20_000)
    truth = radial_attention(pattern, distances, edges=edges).g[0, 0]
    known, ignored = calibration(rng, estimate, truth)
    assert 0.878 < known < 0.995
    assert ignored < 0.86


def test_standard_error_counts_what_particles_keep(rng):
    """A box-wide factor on all attention to others changes <A | r> and <A> together: g and its error do not see it."""
    pattern, distances, box = boxes(rng, 30)
    factor = rng.uniform(0.2, 1.0, 1)
    a = radial_attention(pattern, distances, edges=EDGES, groups=box)
    b = radial_attention(pattern * factor, distances, edges=EDGES, groups=box)
    np.testing.assert_allclose(b.g, a.g, rtol=1e-12)
    np.testing.assert_allclose(b.standard_error, a.standard_error, rtol=1e-10)
    varied = rng.uniform(0.2, 1.0, 30)[box][:, None, None, None]
    flat = radial_attention(uniform(150, 0.0) * varied, distances, edges=np.array([0.0, 2.0]), groups=box)
    assert flat.g[0, 0] == pytest.approx(1.0)
    assert flat.standard_error[0, 0] == pytest.approx(0.0, abs=1e-15)


# connected correlation


def planted_decay(rng, xi, n_boxes=25, n_scenes=8, n_particles=6, amplitude=0.1):
    """Attention with a decay of length xi; its strength, and a slope that averages out, are shared in a box."""
    distances = scenes(rng, n_boxes * n_scenes, n_particles)
    box = np.repeat(np.arange(n_boxes), n_scenes)
    strength = amplitude * rng.gamma(4.0, 0.25, n_boxes)[box][:, None, None]
    slope = 0.35 * amplitude * rng.normal(size=n_boxes)[box][:, None, None]
    noise = 0.02 * rng.random(distances.shape)
    return (strength * np.exp(-distances / xi) + slope * distances + noise)[:, None], distances, box


@pytest.mark.parametrize("xi", [0.1, 0.25])
def test_the_length_of_a_planted_decay_is_recovered_within_its_error(rng, xi):
    """100 worlds: four binomial standard errors are 9 %, so that an error 40 % too small fails."""
    edges = np.linspace(0, 1, 21)
    lengths, errors, naive = [], [], []
    for _ in range(100):
        pattern, distances, box = planted_decay(rng, xi)
        got = distance_correlation(pattern, distances, edges=edges, groups=box)
        lengths.append(got.length[0])
        errors.append(got.length_standard_error[0])
        naive.append(distance_correlation(pattern, distances, edges=edges).length_standard_error[0])
    lengths, errors = np.array(lengths), np.array(errors)
    assert np.isfinite(lengths).all()
    assert np.mean(abs(lengths - xi) < stats.t.ppf(0.975, 24) * errors) == pytest.approx(0.95, abs=0.09)
    assert lengths.mean() == pytest.approx(xi, rel=0.03)
    assert errors.mean() == pytest.approx(lengths.std(), rel=0.25)  # 100 worlds: the scatter is known to 7 %
    assert np.mean(naive) < 0.85 * errors.mean()  # boxes ignored


def test_the_length_of_a_clean_decay_is_exact_up_to_the_bin(rng):
    distances = scenes(rng, 1200, 8)
    clean = 0.1 * np.exp(-distances / 0.2)[:, None]
    got = distance_correlation(clean, distances, edges=np.linspace(0, 1, 51))
    assert got.length[0] == pytest.approx(0.2, rel=0.01)


def test_what_does_not_decay_has_no_length(rng):
    distances = scenes(rng, 100)
    edges = np.linspace(0, 1, 21)
    growing, line = 0.1 * np.exp(distances / 0.2 - 5), 0.2 - 0.1 * distances
    pattern = np.stack([uniform(100, 0.0)[:, 0], growing, line + 0.01 * rng.normal(size=line.shape)], axis=1)
    got = distance_correlation(pattern, distances, edges=edges)
    assert np.isnan(got.length).all()
    assert np.isnan(got.length_standard_error).all()
    few_bins = distance_correlation(np.exp(-distances)[:, None], distances, edges=edges[::5])
    assert np.isnan(few_bins.length[0])


def test_noise_seldom_passes_for_a_decay(rng):
    """Fewer than 1 %, as documented; 150 heads: four binomial standard errors are 3 %."""
    distances = scenes(rng, 60)
    pattern = 0.2 + 0.05 * rng.normal(size=(60, 150, 6, 6))
    got = distance_correlation(pattern, distances, edges=np.linspace(0, 1, 21))
    assert np.isfinite(got.length).mean() < 0.04


def test_correlations_match_scipy(rng):
    pattern, distances, box = boxes(rng, 10)
    pattern = np.concatenate([pattern, pattern.round(1)], axis=1)  # with ties
    got = distance_correlation(pattern, distances, edges=EDGES, groups=box)
    for h in range(2):
        attention, distance = pattern[:, h][:, OTHERS].ravel(), distances[:, OTHERS].ravel()
        assert got.pearson[h] == pytest.approx(stats.pearsonr(attention, distance)[0], rel=1e-12)
        assert got.spearman[h] == pytest.approx(stats.spearmanr(attention, distance)[0], rel=1e-12)


def test_the_connected_function_is_attention_less_its_mean(rng):
    pattern, distances, box = boxes(rng, 10)
    edges = np.linspace(0, 1.5, 11)
    got = distance_correlation(pattern, distances, edges=edges, groups=box)
    radial = radial_attention(pattern, distances, edges=edges, groups=box)
    np.testing.assert_allclose(got.connected, (radial.g - 1) / 5, atol=1e-14)
    full = np.nan_to_num(got.connected[0]) @ radial.n_pairs
    assert full == pytest.approx(0.0, abs=1e-12)  # over all pairs it averages to zero
    np.testing.assert_allclose(got.standard_error, radial.standard_error / 5, rtol=1e-9)
    np.testing.assert_array_equal(got.centers, radial.centers)


def test_constant_attention_has_no_correlation(rng):
    got = distance_correlation(np.full((5, 1, 6, 6), 1 / 7), scenes(rng, 5), edges=EDGES)
    assert np.isnan(got.pearson[0])
    assert np.isnan(got.spearman[0])
    np.testing.assert_allclose(got.connected[0][~np.isnan(got.connected[0])], 0.0, atol=1e-15)


# bad input


@pytest.mark.parametrize("probe", [radial_attention, distance_correlation])
@pytest.mark.parametrize(
    ("edges", "said"), [([0.0], r"\[0.0\]"), ([0.0, 1.0, 1.0], r"\[0.0, 1.0, 1.0\]"), ([0.0, np.inf], r"\[0.0, inf\]")]
)
def test_bad_edges_are_refused(rng, probe, edges, said):
    with pytest.raises(ValueError, match=f"edges must ascend, be finite and hold at least 2 values, got {said}"):
        probe(uniform(4, 0.0), scenes(rng, 4), edges=np.array(edges))


@pytest.mark.parametrize("radius", [0.0, -0.1, np.nan])
def test_a_radius_that_is_not_positive_is_refused(rng, radius):
    with pytest.raises(ValueError, match=f"radius must be positive, got {radius}"):
        radius_score(uniform(4, 0.0), scenes(rng, 4), radius=radius)


@pytest.mark.parametrize(
    ("probe", "options"),
    [(radius_score, {"radius": 0.3}), (radial_attention, {"edges": EDGES}), (distance_correlation, {"edges": EDGES})],
)
def test_bad_arrays_are_refused(rng, probe, options):
    pattern, distances = uniform(4, 0.0), scenes(rng, 4)
    with pytest.raises(ValueError, match=r"distances must have shape \(4, 6, 6\) to match .*, got \(4, 5, 5\)"):
        unchecked(probe)(pattern, distances[:, 1:, 1:], **options)
    with pytest.raises(ValueError, match="groups must label each of the 4 scenes, got 2 labels"):
        unchecked(probe)(pattern, distances, groups=np.arange(2), **options)
    distances[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"distances must be finite; 1 entries are not, first nan at \(1, 2, 3\)"):
        probe(pattern, distances, **options)


def test_self_may_hold_anything(rng):
    pattern, distances, _ = boxes(rng, 4)
    marked_pattern, marked = pattern.copy(), distances.copy()
    marked[:, range(6), range(6)] = np.inf
    marked_pattern[..., range(6), range(6)] = np.nan
    probes: Any = ((radius_score, {"radius": 0.3}), (distance_correlation, {"edges": EDGES}))
    for probe, options in probes:
        a, b = probe(pattern, distances, **options), probe(marked_pattern, marked, **options)
        for name, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)


# intervals


def bootstrap(rng, measure, pattern, distances, n_boxes, n_scenes, n_draws=400):
    """Standard deviation of a measure over resampled boxes."""
    draws = []
    for _ in range(n_draws):
        pick = (rng.integers(0, n_boxes, n_boxes)[:, None] * n_scenes + np.arange(n_scenes)).ravel()
        draws.append(measure(pattern[pick], distances[pick]))
    return np.std(draws, axis=0)


def test_correlations_and_their_errors_against_scipy_and_a_bootstrap_of_the_boxes(rng):
    """400 draws leave 3.5 % in the standard deviation; the rest is what the jackknife leaves out."""
    pattern, distances, box = boxes(rng, 60)
    got = distance_correlation(pattern, distances, edges=EDGES, groups=box)

    def measure(pattern, distances):
        a, b = pattern[:, 0][:, OTHERS].ravel(), distances[:, OTHERS].ravel()
        return np.array([np.asarray(test(a, b))[0] for test in (stats.pearsonr, stats.spearmanr)])

    value = measure(pattern, distances)
    np.testing.assert_allclose([got.pearson[0], got.spearman[0]], value, rtol=1e-11)
    spread = bootstrap(rng, measure, pattern, distances, 60, 5)
    ends = np.arctanh([got.pearson_interval[0], got.spearman_interval[0]])
    errors = np.diff(ends)[:, 0] / 2 / 2.001 * (1 - np.square(value))
    np.testing.assert_allclose(errors, spread, rtol=0.15)


@pytest.mark.parametrize("levels", [4, 10**6])
def test_influence_on_the_rank_correlation_is_its_derivative(rng, levels):
    """A pair counted 1 + step times, with ranks, ties and means of weighted pairs written out."""
    a, b = rng.integers(0, levels, 30).astype(float), rng.integers(0, levels, 30).astype(float)
    b += (a > np.median(a)) * levels // 2

    def weighted(w):
        w = w / w.sum()
        u, v = ((w * ((x < x[:, None]) + 0.5 * (x == x[:, None]))).sum(1) for x in (a, b))
        u, v = u - w @ u, v - w @ v
        return (w @ (u * v)) / np.sqrt((w @ (u * u)) * (w @ (v * v)))

    value, influence = spearman(a, b)
    assert value == pytest.approx(weighted(np.ones(30)), abs=1e-13)
    assert value == pytest.approx(np.asarray(stats.spearmanr(a, b))[0], abs=1e-13)
    step = 1e-5 * np.eye(30)
    slopes = [(weighted(1 + e) - weighted(1 - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(influence, slopes, atol=1e-8)


def test_intervals_are_student_t_of_the_errors(rng):
    pattern, distances, box = boxes(rng, 8)
    quantile = stats.t.ppf(0.975, 7)
    radius = radius_score(pattern, distances, radius=0.3, groups=box)
    radial = radial_attention(pattern, distances, edges=EDGES, groups=box)
    connected = distance_correlation(pattern, distances, edges=EDGES, groups=box)
    for got, value in ((radius, radius.excess), (radial, radial.g), (connected, connected.connected)):
        half = quantile * got.standard_error
        np.testing.assert_allclose(got.interval, np.stack([value - half, value + half], axis=-1), rtol=1e-12)
    half = quantile * connected.length_standard_error / connected.length
    np.testing.assert_allclose(np.log(connected.length_interval[0]), np.log(connected.length[0]) + half * [-1, 1])
    assert np.isfinite(connected.length[0])


def test_correlation_intervals_cover_95_percent_of_worlds(rng):
    """250 worlds of 30 boxes: four binomial standard errors are 5.5 %."""

    def measure(n_boxes):
        pattern, distances, box = boxes(rng, n_boxes)
        return distance_correlation(pattern, distances, edges=EDGES[[0, -1]], groups=box)

    truth, worlds = measure(8000), [measure(30) for _ in range(250)]
    for field in ("pearson", "spearman"):
        ends = [getattr(world, f"{field}_interval")[0] for world in worlds]
        value = getattr(truth, field)[0]
        assert abs(np.mean([low < value < high for low, high in ends]) - 0.95) < 0.055

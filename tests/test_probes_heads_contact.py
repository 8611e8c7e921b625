"""Average precision against a loop over thresholds, its error against resampled worlds, its null against noise."""

from __future__ import annotations

import numpy as np
import pytest
from cases import unchecked

from probes import contact_average_precision, permutation_null
from probes.heads.contact import _precision_and_influence

OTHERS = ~np.eye(5, dtype=bool)


def average_precision_by_thresholds(scores, labels, weights=None):
    """The definition, threshold by threshold; weights count a pair several times."""
    weights = np.ones(len(scores)) if weights is None else weights
    total, recall = (weights * labels).sum(), 0.0
    value = 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = scores >= threshold
        hits = (weights * labels)[above].sum()
        value += (hits / total - recall) * hits / weights[above].sum()
        recall = hits / total
    return value


def scene(scores, partners):
    """One scene of one head: scores (query, key) and the pairs in contact."""
    pattern = np.array(scores, dtype=float)[None, None]
    contacts = np.zeros((1, *pattern.shape[2:]), dtype=bool)
    for i, j in partners:
        contacts[0, i, j] = contacts[0, j, i] = True
    return pattern, contacts


def box_worlds(rng, n_worlds, n_boxes, n_scenes=4, n_particles=5):
    """Scenes whose prevalence of contacts and sharpness of attention are shared within a box."""
    shape = (n_worlds, n_boxes, 1, 1, 1)
    rate, sharpness, level = rng.uniform(0.05, 0.25, shape), rng.normal(1.5, 0.7, shape), rng.normal(0, 0.7, shape)
    full = (n_worlds, n_boxes, n_scenes, n_particles, n_particles)
    contacts = rng.random(full) < rate
    scores = level + sharpness * contacts + rng.normal(size=full)
    flat = (n_worlds, n_boxes * n_scenes, n_particles, n_particles)
    return scores.reshape(flat)[:, :, None], contacts.reshape(flat), np.repeat(np.arange(n_boxes), n_scenes)


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_matches_the_loop_over_thresholds(rng, levels):
    pattern = rng.integers(0, levels, size=(7, 3, 5, 5)).astype(float)
    contacts = rng.random((7, 5, 5)) < 0.2
    got = contact_average_precision(pattern, contacts)
    labels = contacts[:, OTHERS].ravel()
    expected = [average_precision_by_thresholds(pattern[:, h][:, OTHERS].ravel(), labels) for h in range(3)]
    np.testing.assert_allclose(got.value, expected, rtol=1e-13)
    assert (got.n_pairs, got.n_contacts, got.chance) == (140, labels.sum(), labels.mean())


def test_a_hand_made_scene():
    """Ranks of the two contacts (0, 1) and (1, 0): first, and third with one wrong pair between: (1 + 2/3) / 2."""
    pattern, contacts = scene([[0, 9, 8], [7, 0, 1], [2, 3, 0]], [(0, 1)])
    got = contact_average_precision(pattern, contacts)
    assert got.value[0] == pytest.approx(5 / 6, abs=1e-15)
    assert (got.n_pairs, got.n_contacts, got.chance) == (6, 2, 1 / 3)
    assert np.isnan(got.standard_error[0])  # one scene says nothing about others
    assert np.isnan(got.interval).all()


def test_a_constant_pattern_scores_chance_and_a_perfect_one_scores_one(rng):
    contacts = rng.random((6, 5, 5)) < 0.2
    got = contact_average_precision(np.stack([np.full((6, 5, 5), 0.2), contacts + 0.5], axis=1), contacts)
    assert got.value[0] == pytest.approx(got.chance, rel=1e-14)
    assert got.value[1] == 1.0
    assert got.standard_error[1] == 0.0
    np.testing.assert_array_equal(got.interval[1], [1.0, 1.0])


def test_only_the_order_of_the_pairs_counts_and_self_is_left_out(rng):
    pattern, contacts = rng.random((6, 2, 5, 5)), rng.random((6, 5, 5)) < 0.2
    changed, labelled = np.exp(3 * pattern), contacts.copy()
    changed[:, :, range(5), range(5)] = np.nan
    labelled[:, range(5), range(5)] = True
    a, b = contact_average_precision(pattern, contacts), contact_average_precision(changed, labelled)
    np.testing.assert_array_equal(a.value, b.value)
    np.testing.assert_array_equal(a.standard_error, b.standard_error)
    relabelled = rng.permutation(5)
    c = contact_average_precision(pattern[:, :, relabelled][..., relabelled], contacts[:, relabelled][..., relabelled])
    np.testing.assert_allclose(c.value, a.value, rtol=1e-14)


def test_arguments_are_not_changed(rng):
    pattern, contacts = rng.random((6, 2, 5, 5)), rng.random((6, 5, 5)) < 0.2
    before = pattern.copy(), contacts.copy()
    contact_average_precision(pattern, contacts)
    permutation_null(pattern, contacts, rng=rng, n_permutations=2)
    np.testing.assert_array_equal(pattern, before[0])
    np.testing.assert_array_equal(contacts, before[1])


@pytest.mark.parametrize("levels", [4, 10**6])
def test_influence_is_the_derivative_with_respect_to_the_weight_of_a_pair(rng, levels):
    scores, labels = rng.integers(0, levels, 40).astype(float), rng.random(40) < 0.3
    _, influence = _precision_and_influence(scores, labels)
    step = 1e-5
    for j in range(40):
        up, down = np.ones(40), np.ones(40)
        up[j], down[j] = 1 + step, 1 - step
        slope = average_precision_by_thresholds(scores, labels, up)
        slope = (slope - average_precision_by_thresholds(scores, labels, down)) / (2 * step)
        assert influence[j] == pytest.approx(slope, abs=1e-9)  # central differences: step squared
    assert influence.sum() == pytest.approx(0.0, abs=1e-15)


def test_standard_error_agrees_with_a_bootstrap_of_the_boxes(rng):
    patterns, contacts, box = box_worlds(rng, 1, 40)
    got = contact_average_precision(patterns[0], contacts[0], groups=box)
    off = ~np.eye(5, dtype=bool)
    scores, labels = patterns[0, :, 0][:, off].reshape(40, -1), contacts[0][:, off].reshape(40, -1)
    draws = []
    for _ in range(600):
        pick = rng.integers(0, 40, 40)
        draws.append(average_precision_by_ranks(scores[pick].ravel(), labels[pick].ravel()))
    # 600 draws leave 3 %; the rest is the curvature the jackknife leaves out
    assert got.standard_error[0] == pytest.approx(np.std(draws), rel=0.15)


def average_precision_by_ranks(scores, labels):
    """No ties: the mean over hits of the precision at each."""
    hits = labels[np.argsort(-scores)]
    return (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()


def test_interval_covers_95_percent_of_worlds_only_if_it_knows_the_boxes(rng):
    """400 worlds: two binomial standard errors are 2.2 %, four are 4.4 %."""
    pattern, contacts, _ = box_worlds(rng, 1, 20_000)
    off = ~np.eye(5, dtype=bool)
    truth = average_precision_by_ranks(pattern[0, :, 0][:, off].ravel(), contacts[0][:, off].ravel())
    patterns, contacts, box = box_worlds(rng, 400, 30)
    covered = {"boxes": 0, "scenes": 0}
    for name, groups in (("boxes", box), ("scenes", None)):
        for p, c in zip(patterns, contacts, strict=True):
            low, high = contact_average_precision(p, c, groups=groups).interval[0]
            covered[name] += low <= truth <= high
    assert 0.905 <= covered["boxes"] / 400 <= 0.985
    assert covered["scenes"] / 400 < 0.88


def test_interval_stays_inside_zero_and_one(rng):
    pattern, contacts, box = box_worlds(rng, 1, 4)
    got = contact_average_precision(pattern[0] + 5.0 * contacts[0][:, None], contacts[0], groups=box)
    assert 0 <= got.interval[0, 0] < got.value[0] < got.interval[0, 1] <= 1


# the null


def matched_pairs(rng, n_scenes, n_particles=6):
    """Every scene has one or two contacts, the second sometimes sharing a particle with the first."""
    contacts = np.zeros((n_scenes, n_particles, n_particles), dtype=bool)
    for c in contacts:
        i, j, k, m = rng.permutation(n_particles)[:4]
        c[i, j] = c[j, i] = True
        if rng.random() < 0.5:
            c[i if rng.random() < 0.3 else k, m] = True
            c |= c.T
    return contacts


def p_values(rng, attention, n_worlds=150, **options):
    """Four independent heads a world; ``attention(rng, contacts)`` draws a pattern that knows no partner."""
    values = []
    for _ in range(n_worlds):
        contacts = matched_pairs(rng, 12)
        values.append(
            permutation_null(attention(rng, contacts), contacts, rng=rng, n_permutations=39, **options).p_value
        )
    return np.concatenate(values)


def blind(rng, contacts):
    return rng.normal(size=(len(contacts), 4, *contacts.shape[1:]))


def sharper_on_colliding(rng, contacts):
    """Knows who collides, not with whom."""
    return blind(rng, contacts) * (1 + 2 * contacts.any(-1))[:, None, :, None]


@pytest.mark.parametrize("attention", [blind, sharper_on_colliding])
def test_p_values_are_uniform_when_attention_knows_no_partner(rng, attention):
    """600 p-values, each a multiple of 1/40: four binomial standard errors."""
    p = p_values(rng, attention)
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 600))


def test_p_values_of_symmetric_noise_are_only_a_little_small(rng):
    """As documented; with contacts dealt out row by row 16 of 100 lie below 0.05."""

    def symmetric(rng, contacts):
        scores = blind(rng, contacts)
        return scores + scores.swapaxes(-1, -2)

    assert 0.05 < np.mean(p_values(rng, symmetric, 200) <= 0.05) < 0.14


def test_scenes_of_a_box_share_their_relabelling(rng):
    """What persists from frame to frame would otherwise pass for many independent scenes."""

    def worlds(n, groups):
        found = []
        for _ in range(n):
            contacts, attention = matched_pairs(rng, 8), rng.normal(size=(8, 4, 6, 6))
            found.append(
                permutation_null(
                    attention.repeat(6, axis=0), contacts.repeat(6, axis=0), rng=rng, n_permutations=19, groups=groups
                ).p_value
            )
        return np.mean(np.concatenate(found) <= 0.05)

    assert worlds(150, np.repeat(np.arange(8), 6)) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 600))
    assert worlds(50, None) > 0.15


def test_a_planted_detector_gets_the_smallest_p(rng):
    contacts = matched_pairs(rng, 30)
    pattern = rng.random((30, 2, 6, 6))
    pattern[:, 1] += contacts
    got = permutation_null(pattern, contacts, rng=rng, n_permutations=99)
    assert got.null.shape == (99, 2)
    assert got.observed[1] == 1.0
    assert got.p_value[1] == 1 / 100
    assert got.p_value[0] > 1 / 100
    np.testing.assert_array_equal(got.observed, contact_average_precision(pattern, contacts).value)
    p = [
        (1 + sum(null >= value for null in nulls)) / 100 for nulls, value in zip(got.null.T, got.observed, strict=True)
    ]
    np.testing.assert_allclose(got.p_value, p, rtol=1e-14)


def test_a_constant_pattern_is_never_significant(rng):
    contacts = matched_pairs(rng, 10)
    got = permutation_null(np.full((10, 1, 6, 6), 0.2), contacts, rng=rng)
    assert got.null.shape == (999, 1)
    assert got.p_value[0] == 1.0


def test_the_null_deals_a_lone_contact_to_every_other_particle_alike():
    """Row 0 scores 4, 3, 2, 1 and its partner is any: average precision is the mean over the four places."""
    pattern = np.full((1, 1, 5, 5), -1.0)
    pattern[0, 0, 0] = [0, 4, 3, 2, 1]
    contacts = np.zeros((1, 5, 5), dtype=bool)
    contacts[0, 0, 2] = True  # one way: exactly one positive
    null = permutation_null(pattern, contacts, rng=np.random.default_rng(0), n_permutations=4000).null[:, 0]
    for value in (1, 1 / 2, 1 / 3, 1 / 4):
        assert np.isclose(null, value).mean() == pytest.approx(1 / 4, abs=4 * np.sqrt(0.1875 / 4000))


# bad input


def test_bad_input_is_refused_with_its_numbers(rng):
    pattern, contacts = rng.random((6, 2, 5, 5)), rng.random((6, 5, 5)) < 0.2
    score = unchecked(contact_average_precision)
    with pytest.raises(ValueError, match=r"contacts must have shape \(6, 5, 5\) to match .*, got \(5, 5, 5\)"):
        score(pattern, contacts[:5])
    with pytest.raises(ValueError, match=r"queries = keys, got \(6, 5, 5\)"):
        score(pattern[:, 0], contacts)
    with pytest.raises(ValueError, match=r"queries = keys, got \(6, 2, 4, 5\)"):
        score(pattern[:, :, 1:], contacts[:, 1:])
    with pytest.raises(TypeError, match="contacts must be bool, got float64"):
        score(pattern, contacts * 1.0)
    with pytest.raises(ValueError, match=r"at least 1 scene, got shape \(0, 2, 5, 5\)"):
        score(pattern[:0], contacts[:0])
    with pytest.raises(ValueError, match="at least 2 keys: a lone particle"):
        score(pattern[..., :1, :1], contacts[:, :1, :1])
    with pytest.raises(ValueError, match="no contact among 120 pairs"):
        score(pattern, np.broadcast_to(np.eye(5, dtype=bool), contacts.shape))
    with pytest.raises(ValueError, match="groups must label each of the 6 scenes, got 3 labels"):
        score(pattern, contacts, groups=np.arange(3))
    with pytest.raises(ValueError, match="n_permutations must be at least 1, got 0"):
        permutation_null(pattern, contacts, rng=rng, n_permutations=0)
    for bad in (np.nan, np.inf):
        broken = pattern.copy()
        broken[2, 1, 3, 4] = bad
        with pytest.raises(
            ValueError, match=rf"pattern must be finite; 1 entries are not, first {bad} at \(2, 1, 3, 4\)"
        ):
            score(broken, contacts)

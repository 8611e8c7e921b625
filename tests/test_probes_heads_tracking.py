"""What heads track: values against slow routes and closed forms, intervals against worlds, nulls against noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import unchecked
from scipy import stats

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import attention_patterns, what_heads_track


def geometry(rng, n_scenes, n_particles=6):
    """Positions, their distances, and who touches whom."""
    positions = rng.random((n_scenes, n_particles, 2))
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    return positions, distances, (distances < 0.25) & ~np.eye(n_particles, dtype=bool)


def boxes(rng, n_boxes, n_scenes=5):
    """A head that prefers the near and one that prefers those that touch, in strengths shared within a box."""
    _, distances, contacts = geometry(rng, n_boxes * n_scenes)
    box = np.repeat(np.arange(n_boxes), n_scenes)
    strength = rng.gamma(2.0, 0.7, n_boxes)[box][:, None, None]
    noise = rng.normal(size=(2, *distances.shape))
    pattern = np.stack([-3 * strength * distances + noise[0], strength * contacts + noise[1]], axis=1)
    return pattern, {"distance": distances, "contact": contacts}, box


def rows(quantity):
    """Scene, query and the keys of its other particles on which the quantity is defined."""
    n = quantity.shape[-1]
    for s, i in np.ndindex(*quantity.shape[:2]):
        yield s, i, [j for j in range(n) if j != i and np.isfinite(quantity[s, i, j])]


# the values


def test_rank_correlation_is_the_mean_of_spearman_over_queries(rng):
    pattern, quantity = rng.random((7, 3, 6, 6)), rng.normal(size=(7, 6, 6))
    got = what_heads_track(pattern, {"q": quantity}, rng=rng, n_permutations=1)
    for h in range(3):
        each = [
            np.asarray(stats.spearmanr(pattern[s, h, i, keys], quantity[s, i, keys]))[0]
            for s, i, keys in rows(quantity)
        ]
        assert got.rank_correlation.value[0, h] == pytest.approx(np.mean(each), abs=1e-13)
    assert (got.quantities, got.n_pairs[0], got.n_undefined[0]) == (("q",), 7 * 30, 0)
    assert np.isnan(got.auc).all()  # not a yes or no


@pytest.mark.parametrize("levels", [3, 10**6])
def test_auc_counts_the_comparisons_within_a_query(rng, levels):
    pattern, contacts = rng.integers(0, levels, (9, 2, 6, 6)).astype(float), rng.random((9, 6, 6)) < 0.3
    got = what_heads_track(pattern, {"contact": contacts}, rng=rng, n_permutations=1)
    for h in range(2):
        won = []
        for s, i, keys in rows(contacts):
            a = pattern[s, h, i]
            won += [
                (a[j] > a[k]) + 0.5 * (a[j] == a[k])
                for j in keys
                for k in keys
                if contacts[s, i, j] > contacts[s, i, k]
            ]
        assert got.auc[0, h] == pytest.approx(np.mean(won), abs=1e-13)
    np.testing.assert_allclose(got.auc_interval, (1 + got.rank_correlation.interval) / 2)


def test_ties_and_undefined_pairs_by_the_definition(rng):
    """An impulse: mostly zero, some equal, undefined here and there."""
    quantity = np.where(rng.random((12, 6, 6)) < 0.5, 0.0, rng.integers(1, 4, (12, 6, 6)))
    quantity[rng.random(quantity.shape) < 0.2] = np.nan
    quantity[0, 1] = np.inf  # a query that says nothing
    quantity[1, 2] = 0.0
    pattern = rng.integers(0, 4, (12, 2, 6, 6)).astype(float)
    got = what_heads_track(pattern, {"impulse": quantity}, rng=rng, n_permutations=1)
    n_defined = sum(len(keys) for *_, keys in rows(quantity))
    assert (got.n_pairs[0], got.n_undefined[0]) == (n_defined, 12 * 30 - n_defined)
    for h in range(2):
        reached = most = 0.0
        for s, i, keys in rows(quantity):
            m = len(keys)
            if m:
                q = (stats.rankdata(quantity[s, i, keys]) - (m + 1) / 2) / m
                a = (stats.rankdata(pattern[s, h, i, keys]) - (m + 1) / 2) / m
                reached += a @ q
                most += (np.arange(1, m + 1) - (m + 1) / 2) / m @ np.sort(q)
        assert got.rank_correlation.value[0, h] == pytest.approx(reached / most, abs=1e-13)


def test_a_perfect_order_is_one_and_its_reverse_minus_one(rng):
    _, distances, contacts = geometry(rng, 8)
    pattern = np.stack([distances, -distances, contacts + 0.1 * rng.random(contacts.shape)], axis=1)
    got = what_heads_track(pattern, {"distance": distances, "contact": contacts}, rng=rng, n_permutations=1)
    np.testing.assert_allclose(got.rank_correlation.value[0, :2], [1, -1], atol=1e-14)
    assert got.auc[1, 2] == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(got.rank_correlation.interval[0, :2], [[1, 1], [-1, -1]], atol=1e-9)


def binned_information(rho, n_bins):
    """Mutual information of two Gaussians cut into equal shares, by the midpoint rule within each row of cells."""
    share = ((np.arange(n_bins * 400) + 0.5) / (n_bins * 400)).reshape(n_bins, -1)
    edges = stats.norm.ppf(np.arange(n_bins + 1) / n_bins)
    below = stats.norm.cdf((edges - rho * stats.norm.ppf(share)[..., None]) / np.sqrt(1 - rho**2))
    p = np.diff(below, axis=-1).mean(axis=1) / n_bins
    return float((p * np.log(p * n_bins**2)).sum())


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_mutual_information_of_gaussians(rng, rho):
    """348,000 pairs: the error is about rho / 590, at most 1.1 % of the value, so that a bias of 5 % fails."""
    quantity = rng.normal(size=(400, 30, 30))
    pattern = (rho * quantity + np.sqrt(1 - rho**2) * rng.normal(size=quantity.shape))[:, None]
    got = what_heads_track(pattern, {"q": quantity}, rng=rng, n_permutations=1).mutual_information
    error = np.diff(got.interval[0, 0])[0] / 2 / 1.966
    assert error < 0.0115 * got.value[0, 0]
    assert got.value[0, 0] == pytest.approx(binned_information(rho, 24), abs=4 * error)
    assert 0.95 < got.value[0, 0] / (-0.5 * np.log(1 - rho**2)) < 1.0  # what 24 bins lose


@pytest.mark.parametrize("undefined", [0.0, 0.4])
def test_mutual_information_of_a_quantity_of_two_values_is_that_of_its_table(rng, undefined):
    """Attention 0 or 1: the table is two by two and the bias 1 / 2n; undefined pairs are not in it."""
    pattern, contacts = rng.integers(0, 2, (10, 1, 6, 6)).astype(float), rng.random((10, 6, 6)) < 0.3
    known = (rng.random(contacts.shape) >= undefined) & ~np.eye(6, dtype=bool)
    quantity = np.where(known, contacts, np.nan)
    got = what_heads_track(pattern, {"q": quantity}, rng=rng, n_permutations=1).mutual_information.value[0, 0]
    a, b = pattern[:, 0][known] == 1, contacts[known]
    table = np.array([[(~a & ~b).sum(), (~a & b).sum()], [(a & ~b).sum(), (a & b).sum()]])
    p = table / table.sum()
    plug_in = (p * np.log(p / p.sum(1, keepdims=True) / p.sum(0))).sum()
    assert got == pytest.approx(plug_in - 1 / (2 * table.sum()), abs=1e-13)


def test_mutual_information_of_independent_quantities_is_zero_on_average(rng):
    """The plug-in value would be about 121 / 1440 = 0.08."""
    values = np.concatenate(
        [
            what_heads_track(
                rng.random((48, 10, 6, 6)), {"q": rng.random((48, 6, 6))}, rng=rng, n_permutations=1
            ).mutual_information.value[0]
            for _ in range(40)
        ]
    )
    error = values.std() / np.sqrt(len(values))
    assert error < 0.001
    # Miller-Madow takes empty cells for impossible ones, which leaves a little of the bias
    assert abs(values.mean()) < 4 * error + 0.002


# intervals


def test_the_interval_is_that_of_a_mean_over_boxes(rng):
    """Without ties every scene weighs the same, and the correlation is a mean over scenes."""
    pattern, quantities, box = boxes(rng, 6)
    distance = {"distance": quantities["distance"]}
    got = what_heads_track(pattern, distance, rng=rng, groups=box, n_permutations=1).rank_correlation
    each = np.array(
        [
            what_heads_track(
                pattern[s : s + 1], {"distance": distance["distance"][s : s + 1]}, rng=rng, n_permutations=1
            ).rank_correlation.value[0, 0]
            for s in range(30)
        ]
    )
    value = each.mean()
    totals = np.bincount(box, each - value) / 30
    half = 2.570582 * np.sqrt((totals**2).sum() * 6 / 5) / (1 - value**2)  # Student's t, on Fisher's scale
    np.testing.assert_allclose(np.arctanh(got.interval[0, 0]), np.arctanh(value) + half * np.array([-1, 1]), rtol=1e-6)


@pytest.mark.slow
def test_intervals_cover_95_percent_of_worlds_only_if_they_know_the_boxes(rng):
    """200 worlds, 30 boxes: three binomial standard errors are 4.6 %."""
    pattern, quantities, box = boxes(rng, 6000)
    truth = what_heads_track(pattern, quantities, rng=rng, groups=box, n_permutations=1).rank_correlation.value
    found = {"boxes": [], "scenes": []}
    for world in range(200):
        pattern, quantities, box = boxes(rng, 30)
        for name, groups in (("boxes", box), ("scenes", None))[: 1 + (world < 60)]:
            found[name].append(what_heads_track(pattern, quantities, rng=rng, groups=groups, n_permutations=1))

    def coverage(name, measure, center):
        ends = np.stack([getattr(got, measure).interval for got in found[name]])
        return ((ends[..., 0] <= center) & (center <= ends[..., 1])).mean(axis=0)

    planted = [(0, 1), (0, 1)]  # distance by the first head, contact by the second
    assert (np.abs(coverage("boxes", "rank_correlation", truth)[planted] - 0.95) < 0.046).all()
    assert (coverage("scenes", "rank_correlation", truth)[planted] < 0.9).all()
    measures = [got.mutual_information for got in found["boxes"]]
    values = np.stack([measure.value for measure in measures])
    covered = coverage("boxes", "mutual_information", values.mean(axis=0))[planted]
    assert (np.abs(covered - 0.95) < 0.06).all()
    widths = np.stack([np.diff(measure.interval)[..., 0] for measure in measures]) / 2 / 2.045  # t of 29 degrees
    np.testing.assert_allclose(widths.mean(axis=0)[planted], values.std(axis=0)[planted], rtol=0.15)  # 3 errors


def test_a_single_group_has_no_interval(rng):
    pattern, quantities, box = boxes(rng, 2)
    got = what_heads_track(pattern, quantities, rng=rng, groups=np.zeros_like(box), n_permutations=1)
    assert np.isnan(got.rank_correlation.interval).all()
    assert np.isnan(got.mutual_information.interval).all()


# the null


def test_p_values_are_those_of_the_measures_on_relabelled_particles(rng):
    """Every permutation written out and measured by itself, boxes relabelled alike."""
    pattern, quantities, box = boxes(rng, 3, n_scenes=2)
    pattern = pattern[..., :4, :4]
    quantities = {name: q[:, :4, :4] for name, q in quantities.items()}
    got = what_heads_track(pattern, quantities, rng=np.random.default_rng(5), groups=box, n_permutations=30)
    order, labels = np.random.default_rng(5), np.tile(np.arange(4), (3, 1))
    measured = []
    for _ in range(31):
        p = labels[box]
        scene = np.arange(6)[:, None, None]
        moved = {name: q[scene, p[:, :, None], p[:, None]] for name, q in quantities.items()}
        one = what_heads_track(pattern, moved, rng=rng, n_permutations=1)
        measured.append([np.abs(one.rank_correlation.value), one.mutual_information.value])
        labels = order.permuted(labels, axis=-1)
    measured = np.array(measured)
    p = (measured >= measured[0] - 1e-12).mean(axis=0)
    np.testing.assert_allclose([got.rank_correlation.p_value, got.mutual_information.p_value], p)
    center = measured.mean(axis=0) * np.array([0, 1])[:, None, None]
    z = (measured - center) / np.sqrt(((measured - center) ** 2).mean(axis=0))
    corrected = (z.max(axis=(1, 2, 3))[:, None, None, None] >= z[0] - 1e-9).mean(axis=0)
    np.testing.assert_allclose(
        [got.rank_correlation.corrected_p_value, got.mutual_information.corrected_p_value], corrected
    )


def random_attention(rng, distances):
    return rng.dirichlet(np.full(6, 0.5), size=(len(distances), 4, 6))


def symmetric_noise(rng, distances):
    """As alike in its two directions as a distance is."""
    scores = rng.normal(size=(len(distances), 4, 6, 6))
    return scores + scores.swapaxes(-1, -2)


def initialisation(rng, distances):
    """An untrained model, looking at scenes of its own."""
    positions, *_ = geometry(rng, len(distances))
    model = ParticleTransformer(
        ModelConfig(n_layers=1, n_heads=4, d_model=16, d_head=4, d_mlp=8),
        2,
        2,
        torch.Generator().manual_seed(int(rng.integers(2**31))),
    )
    return attention_patterns(model, [torch.from_numpy(positions).float()])[0]


def false_positives(rng, attention, n_worlds, n_permutations=39, *, persist=1, grouped=True):
    """Share of p-values, and of worlds with any corrected p-value, at most 0.05."""
    single, family = [], []
    for _ in range(n_worlds):
        _, distances, contacts = geometry(rng, 10)
        pattern = attention(rng, distances)
        shuffled = contacts.any(axis=-1)[:, :, None] & (rng.random(contacts.shape) < 0.3)  # knows who, not with whom
        quantities = {"distance": distances, "contact": contacts, "shuffled": shuffled}
        got = what_heads_track(
            pattern.repeat(persist, axis=0),
            {name: q.repeat(persist, axis=0) for name, q in quantities.items()},
            rng=rng,
            groups=np.repeat(np.arange(10), persist) if grouped else None,
            n_permutations=n_permutations,
        )
        measures = (got.rank_correlation, got.mutual_information)
        single.append(np.mean([m.p_value <= 0.05 for m in measures], axis=(1, 2)))
        family.append(min(m.corrected_p_value.min() for m in measures) <= 0.05)
    return np.mean(single, axis=0), np.mean(family)


@pytest.mark.parametrize("attention", [random_attention, symmetric_noise, initialisation])
def test_false_positives_on_null_models_are_at_most_one_and_a_half_times_nominal(rng, attention):
    """80 worlds of 12 tests a measure; the slow test has the numbers for a tight bound."""
    single, family = false_positives(rng, attention, 80)
    assert (single <= 0.075).all()
    assert family <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [random_attention, symmetric_noise, initialisation])
def test_false_positives_of_many_null_models(rng, attention):
    """600 worlds: the bound lies 2.8 binomial standard errors above 5 %."""
    single, family = false_positives(rng, attention, 600)
    print(f"{attention.__name__}: single {single}, family {family}")
    assert (single <= 0.06).all()
    assert family <= 0.075


def test_scenes_of_a_box_share_their_relabelling(rng):
    """What persists from frame to frame would otherwise pass for many independent scenes."""
    known, _ = false_positives(rng, symmetric_noise, 40, 19, persist=6)
    ignored, _ = false_positives(rng, symmetric_noise, 20, 19, persist=6, grouped=False)
    assert known.max() < 0.1
    assert ignored[0] > 0.15


def test_planted_heads_are_found_and_ranked(rng):
    """One head finds contacts, one the near, one a shell at middle distance, one nothing."""
    _, distances, _ = geometry(rng, 60)
    contacts = distances + 0.1 * rng.normal(size=distances.shape) < 0.25  # near ones, but not by distance alone
    other = rng.random(distances.shape)
    noise = rng.normal(size=(4, *distances.shape))
    shell = -np.abs(distances - np.median(distances))
    pattern = np.stack([3.0 * contacts + noise[0], -3 * distances + noise[1], 9 * shell + noise[2], noise[3]], axis=1)
    quantities = {"other": other, "distance": distances, "contact": contacts}
    got = what_heads_track(pattern, quantities, rng=rng, n_permutations=199)
    assert got.ranking(0)[:2] == ["contact", "distance"]
    assert got.ranking(1) == ["distance", "contact"]
    assert got.rank_correlation.value[2, 1] > -got.rank_correlation.value[1, 1]  # the larger correlation misleads
    assert got.ranking(2)[0] == "distance"
    assert got.mutual_information.value[1, 2] > 5 * got.rank_correlation.value[1, 2] ** 2  # not monotone
    assert got.ranking(3) == []
    assert got.ranking(3, level=1.0)[0] in quantities
    assert got.rank_correlation.p_value.min() == 1 / 200


# laws


def test_only_the_order_counts_self_is_left_out_and_arguments_stay(rng):
    pattern, quantities, box = boxes(rng, 5)
    changed = np.exp(pattern)
    moved = {"distance": quantities["distance"] ** 3, "contact": quantities["contact"].copy()}
    changed[..., range(6), range(6)] = np.nan
    moved["distance"][:, range(6), range(6)] = np.inf
    moved["contact"][:, range(6), range(6)] = True
    before = pattern.copy(), {name: q.copy() for name, q in quantities.items()}
    a, b = (
        what_heads_track(p, q, rng=np.random.default_rng(1), groups=box, n_permutations=9)
        for p, q in ((pattern, quantities), (changed, moved))
    )
    for measure in ("rank_correlation", "mutual_information"):
        for field in ("value", "interval", "p_value", "corrected_p_value"):
            np.testing.assert_allclose(
                getattr(getattr(a, measure), field), getattr(getattr(b, measure), field), rtol=1e-12
            )
    np.testing.assert_array_equal(pattern, before[0])
    for name, q in quantities.items():
        np.testing.assert_array_equal(q, before[1][name])


def test_heads_joined_are_the_heads_alone(rng):
    pattern, quantities, _ = boxes(rng, 5)
    both = what_heads_track(pattern, quantities, rng=np.random.default_rng(1), n_permutations=19)
    for h in range(2):
        one = what_heads_track(pattern[:, h : h + 1], quantities, rng=np.random.default_rng(1), n_permutations=19)
        for measure in ("rank_correlation", "mutual_information"):
            for field in ("value", "interval", "p_value"):
                alone, joined = getattr(getattr(one, measure), field), getattr(getattr(both, measure), field)
                np.testing.assert_allclose(alone[:, 0], joined[:, h], rtol=1e-12)


def test_constant_attention_tracks_nothing(rng):
    _, distances, contacts = geometry(rng, 10)
    quantities = {"distance": distances, "contact": contacts}
    got = what_heads_track(np.full((10, 1, 6, 6), 1 / 6), quantities, rng=rng)
    np.testing.assert_array_equal(got.rank_correlation.value, 0.0)
    np.testing.assert_array_equal(got.rank_correlation.p_value, 1.0)
    np.testing.assert_allclose(got.mutual_information.value, 0.0, atol=1e-12)
    assert got.n_permutations == 999
    assert got.ranking(0) == []


def test_bad_input_is_refused_with_its_numbers(rng):
    pattern, quantities, box = boxes(rng, 2)
    track = unchecked(what_heads_track)
    with pytest.raises(ValueError, match="quantities is empty"):
        track(pattern, {}, rng=rng)
    with pytest.raises(ValueError, match="n_permutations must be at least 1, got 0"):
        track(pattern, quantities, rng=rng, n_permutations=0)
    with pytest.raises(ValueError, match=r"quantities\['distance'\] must have shape \(10, 6, 6\) .*, got \(9, 6, 6\)"):
        track(pattern, {"distance": quantities["distance"][1:]}, rng=rng)
    with pytest.raises(TypeError, match=r"quantities\['z'\] must be real or bool, got complex128"):
        track(pattern, {"z": quantities["distance"] * 1j}, rng=rng)
    for dull in (np.ones((10, 6, 6)), np.full((10, 6, 6), np.nan), np.zeros((10, 6, 6), dtype=bool)):
        with pytest.raises(ValueError, match=r"quantities\['dull'\] does not vary among the partners"):
            track(pattern, {"dull": dull}, rng=rng)
    with pytest.raises(ValueError, match="groups must label each of the 10 scenes, got 3 labels"):
        track(pattern, quantities, rng=rng, groups=box[:3])
    with pytest.raises(ValueError, match=r"queries = keys, got \(10, 6, 6\)"):
        track(pattern[:, 0], quantities, rng=rng)
    broken = pattern.copy()
    broken[2, 1, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"pattern must be finite; 1 entries are not, first nan at \(2, 1, 3, 4\)"):
        track(broken, quantities, rng=rng)

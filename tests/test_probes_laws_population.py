import dataclasses

import numpy as np
import pytest
from scipy import stats

from probes import fit_law, fit_laws
from probes.laws import random_effects

LAWS = ("power_law", "exponential", "logarithmic")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def seeds(exponents, noise, rng, *, n_points=40):
    """Curves of several seeds on one clock, each with limits of its own."""
    t = np.geomspace(1, 1000, n_points)
    for p in exponents:
        clean = rng.normal() + 3 * (t + 0.5) ** -p
        yield t, clean + noise * np.ptp(clean) * rng.standard_normal(n_points)


def covered(n_populations, *, spread, noise, n_seeds=5, seed=0):
    """Shares of population intervals that hold the mean, of spread intervals that hold the spread, of p < 0.05."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(3)
    for _ in range(n_populations):
        exponents = 0.7 + spread * rng.standard_normal(n_seeds)
        found = fit_laws(list(seeds(exponents, noise, rng)), laws=["power_law"], n_bootstrap=100, rng=rng)
        hits += [
            found.interval[0] <= 0.7 <= found.interval[1],
            found.spread_interval[0] <= spread <= found.spread_interval[1],
            found.p_value < 0.05,
        ]
    return hits / n_populations


def test_random_effects_of_equal_errors_are_students_interval():
    values, error = np.array([0.2, 0.9, 0.4, 1.3, 0.8]), 0.05
    found = random_effects(values, np.full(5, error))
    low, high = stats.t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert found.interval == pytest.approx((low, high))
    assert found.spread == pytest.approx(np.sqrt(values.var(ddof=1) - error**2), rel=1e-6)  # exact for equal errors
    assert found.q == pytest.approx(4 * values.var(ddof=1) / error**2)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.q, 4))
    # the spread's interval by the chi-squared distribution of the variance
    ends = 4 * values.var(ddof=1) / stats.chi2.ppf([0.975, 0.025], 4)
    assert found.spread_interval == pytest.approx(np.sqrt(ends - error**2), rel=1e-6)


def test_estimates_that_agree_better_than_their_errors_have_no_spread():
    found = random_effects(np.array([1.0, 1.01, 0.99]), np.full(3, 0.5))
    assert found.spread == found.spread_interval[0] == 0.0
    assert found.p_value > 0.99
    assert found.mean == pytest.approx(1.0)


def test_random_effects_cover():
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.2):
        errors = rng.uniform(0.05, 0.15, (400, 5))
        values = 0.7 + np.hypot(spread, errors) * rng.standard_normal((400, 5))
        found = [random_effects(v, e) for v, e in zip(values, errors, strict=True)]
        assert 0.91 <= np.mean([f.interval[0] <= 0.7 <= f.interval[1] for f in found]) <= 0.99  # four standard errors
        hits = [f.spread_interval[0] <= spread <= f.spread_interval[1] for f in found]
        assert 0.91 <= np.mean(hits) <= 0.995
        if spread == 0.0:
            assert np.mean([f.p_value < 0.05 for f in found]) == pytest.approx(0.05, abs=4 * 0.011)


def test_one_law_for_all_seeds_and_its_exponent(rng):
    curves = list(seeds([0.6, 0.7, 0.8, 0.65, 0.75], 0.01, rng))
    found = fit_laws(curves, rng=rng)
    assert found.preferred == "power_law"
    assert found.reason == ""
    assert found.weights["power_law"] > 0.99
    assert sum(found.weights.values()) == pytest.approx(1.0)
    assert found.interval[0] <= 0.7 <= found.interval[1]
    assert found.exponent == pytest.approx(np.mean([fit.exponent for fit in found.fits]), abs=0.05)
    assert found.spread_interval[0] <= 0.079 <= found.spread_interval[1]
    assert found.usable == (True,) * 5
    alone = fit_law(*curves[0], rng=np.random.default_rng(1))
    assert found.fits[0].parameters == alone.parameters
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.__setattr__("exponent", 1.0)


def test_seeds_together_decide_what_one_leaves_open():
    rng = np.random.default_rng(3)
    curves = list(seeds([0.6] * 8, 0.12, rng))
    found = fit_laws(curves, laws=LAWS, n_bootstrap=40, rng=rng)
    assert {fit.preferred for fit in found.fits} >= {"undecided"}
    assert max(found.weights.values()) > max(max(fit.weights.values()) for fit in found.fits[:1])


def test_a_seed_with_another_law_makes_the_population_undecided(rng):
    t = np.geomspace(1, 1000, 40)
    curves = [*seeds([0.6, 0.6, 0.6, 0.6], 0.01, rng), (t, np.exp(-t / 100) + 0.01 * rng.standard_normal(40))]
    found = fit_laws(curves, n_bootstrap=40, rng=rng)
    assert found.preferred == "undecided"
    assert "curve 4 alone prefers exponential" in found.reason or "has weight" in found.reason


def test_noise_and_constants_are_undecided_and_short_windows_are_no_evidence(rng):
    t = np.geomspace(1, 1000, 40)
    found = fit_laws([(t, rng.standard_normal(40)) for _ in range(3)], laws=["exponential"], n_bootstrap=40, rng=rng)
    assert "not told from constants" in found.reason
    found = fit_laws([(t, np.ones(40)), (t, 1 / t)], n_bootstrap=40, rng=rng)
    assert found.reason == "curve 0 is constant"
    assert found.usable[0] is False
    assert np.isnan([found.exponent, *found.interval, found.spread, found.p_value]).all()
    short = np.geomspace(100, 900, 60)
    found = fit_laws([(short, 2 + 3 * (short - 99) ** -0.7)] * 2, n_bootstrap=40, rng=rng)
    assert "0.95 decades" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [{"spread": 0.0, "noise": 0.02}, {"spread": 0.1, "noise": 0.02}, {"spread": 0.1, "noise": 0.05}]
)
def test_population_intervals_cover(case):
    exponent, spread, apart = covered(200, **case)
    assert 0.90 <= exponent <= 0.99  # standard error 1.5 %
    assert spread >= 0.90
    if case["spread"] == 0.0:
        assert apart <= 0.05 + 4 * 0.015


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves": [(np.arange(1.0, 9), np.arange(8.0))]}, r"curves must hold \(t, y\) of at least two seeds; got 1"),
        (
            {"curves": [(np.arange(1.0, 9), np.arange(8.0)), (np.arange(8.0), np.arange(8.0))]},
            r"curve 1: t must be pos",
        ),
        ({"sigmas": [0.1]}, r"sigmas must have one entry a curve \(2\); got 1"),
        ({"sigmas": [0.1, -1.0]}, r"curve 1: sigma must be positive"),
        ({"n_bootstrap": 0}, r"n_bootstrap must be at least 40.* got 0"),
        ({"laws": ["power"]}, r"unknown law 'power'; did you mean 'power_law'\?"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message, rng):
    arguments = {"curves": [(np.arange(1.0, 21), np.arange(20.0))] * 2} | change
    with pytest.raises(ValueError, match=message) as error:
        fit_laws(rng=rng, **arguments)
    assert "\n" not in str(error.value)

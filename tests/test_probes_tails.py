import dataclasses

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expn, zeta

from probes import fit_tail
from probes.tails.alternatives import ALTERNATIVES, _log_sum
from probes.tails.scan import Tail, draw_tail, scan_tail

NO_FIT = {"alternatives": (), "n_bootstrap": 0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pareto(n, alpha, xmin, rng):
    return xmin * (1.0 - rng.random(n)) ** (-1.0 / (alpha - 1.0))


def body_and_tail(n, alpha, xmin, rng):
    """Clauset, Shalizi and Newman's equation 3.10: exponential below xmin, power law above, slopes joined."""
    below = (np.exp(alpha) - 1.0) / alpha  # in units of xmin at the density of the joint
    above = 1.0 / (alpha - 1.0)
    is_tail = rng.random(n) < above / (above + below)
    u = rng.random(n)
    body = 1.0 - np.log(1.0 + u * np.expm1(alpha)) / alpha
    return np.where(is_tail, pareto(n, alpha, xmin, rng), xmin * np.maximum(body, 1e-9))


def plain_scan(x, min_tail=10):
    """Every threshold in a loop, with the definitions written out."""
    best = None
    for xmin in np.unique(x)[:-1]:
        tail = np.sort(x[x >= xmin])
        if len(tail) < min_tail:
            break
        alpha = 1.0 + len(tail) / np.log(tail / xmin).sum()
        empirical = np.array([(tail < value).mean() for value in tail])
        distance = np.abs(1.0 - (tail / xmin) ** (1.0 - alpha) - empirical).max()
        if best is None or distance < best[2]:
            best = (xmin, alpha, distance, len(tail))
    return best


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_pruned_scan_is_the_full_scan(decimals, rng):
    for _ in range(5):
        x = body_and_tail(300, 2.5, 1.0, rng)
        if decimals is not None:  # ties
            x = np.maximum(np.round(x, decimals), 0.1)
        tail = scan_tail(x, discrete=False, xmin=None, min_tail=10)
        assert tail is not None
        assert (tail.xmin, tail.alpha, tail.distance, tail.n_tail) == pytest.approx(plain_scan(x), rel=1e-12)


def test_the_discrete_fit_maximises_the_likelihood_and_its_distance_is_that_of_all_whole_numbers(rng):
    for _ in range(3):
        x = draw_tail(Tail(2.0, 2.3, 0.0, 0), 400, discrete=True, rng=rng)
        fit = fit_tail(x, discrete=True, xmin=2, rng=rng, **NO_FIT)
        alphas = fit.alpha + np.array([-1e-3, 0.0, 1e-3])
        likelihood = -len(x) * np.log(zeta(alphas, 2.0)) - alphas * np.log(x).sum()
        assert likelihood.argmax() == 1
        whole = np.arange(2.0, x.max() + 1.0)
        law = np.cumsum(whole**-fit.alpha) / zeta(fit.alpha, 2.0)
        empirical = np.searchsorted(np.sort(x), whole, side="right") / len(x)
        assert fit.distance == pytest.approx(np.abs(law - empirical).max(), rel=1e-9)


def test_continuous_exponent_is_recovered(rng):
    # n times over (n - 1) is the exact mean of the estimate of alpha - 1; 400 samples of 200: standard error 0.35 %
    found = [fit_tail(pareto(200, 2.5, 1.5, rng), xmin=1.5, rng=rng, **NO_FIT).alpha - 1.0 for _ in range(400)]
    assert np.mean(found) == pytest.approx(1.5 * 200 / 199, abs=4 * 1.5 / np.sqrt(200 * 400))


@pytest.mark.parametrize("xmin", [1, 5])
def test_discrete_exponent_is_recovered(xmin, rng):
    tail = Tail(float(xmin), 2.5, 0.0, 0)
    found = [
        fit_tail(draw_tail(tail, 400, discrete=True, rng=rng), discrete=True, xmin=xmin, rng=rng, **NO_FIT).alpha
        for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(2.5, abs=4 * np.std(found) / np.sqrt(200))
    assert np.std(found) / np.sqrt(200) < 0.007 * 1.5


def test_threshold_is_found(rng):
    found = []
    for _ in range(40):  # nothing between 0.2 and 1: a sharp threshold
        x = np.concatenate([rng.uniform(0.0, 0.2, 1000), pareto(1000, 2.5, 1.0, rng)])
        found.append(fit_tail(x, rng=rng, **NO_FIT))
    assert np.mean([0.99 <= fit.xmin <= 1.5 for fit in found]) >= 0.7  # it may well lie above
    assert np.median([fit.alpha for fit in found]) == pytest.approx(2.5, abs=0.05)


def test_draws_follow_the_law(rng):
    for alpha, xmin in ((1.3, 1.0), (2.5, 3.0)):
        tail = Tail(xmin, alpha, 0.0, 0)
        x = draw_tail(tail, 200_000, discrete=True, rng=rng)
        for k in (xmin, xmin + 1, 10.0, 1000.0, 30_000.0):  # the last lies beyond the table
            share = zeta(alpha, k) / zeta(alpha, xmin)
            assert (x >= k).mean() == pytest.approx(share, abs=5 * np.sqrt(share / 200_000))
        y = draw_tail(tail, 20_000, discrete=False, rng=rng)
        assert stats.kstest(y, lambda v, a=alpha, m=xmin: 1.0 - (v / m) ** (1.0 - a)).pvalue > 1e-4


def test_p_value_is_uniform_under_the_null():
    rng = np.random.default_rng(1)
    p = [
        fit_tail(pareto(100, 2.5, 1.0, rng), xmin=1.0, alternatives=(), n_bootstrap=40, rng=rng).p_value
        for _ in range(120)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p) <= 0.1) <= 0.1 + 4 * 0.028


@pytest.mark.slow
@pytest.mark.parametrize("discrete", [False, True])
def test_p_value_with_a_scanned_threshold_is_calibrated(discrete):
    rng = np.random.default_rng(2)
    p = []
    for _ in range(400):
        x = body_and_tail(500, 2.5, 1.0, rng)
        if discrete:
            x = draw_tail(Tail(1.0, 2.5, 0.0, 0), 500, discrete=True, rng=rng)
        p.append(fit_tail(x, discrete=discrete, alternatives=(), n_bootstrap=99, rng=rng).p_value)
    # the threshold is fitted to the sample, so the test may be conservative, not the reverse
    assert np.mean(np.array(p) <= 0.1) <= 0.1 + 4 * 0.015


def with_flat_body(n, alpha, xmin, rng):
    return np.concatenate([rng.uniform(0.0, 0.5 * xmin, n // 2), pareto(n - n // 2, alpha, xmin, rng)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "alpha", "n"), [(body_and_tail, 2.5, 500), (with_flat_body, 2.5, 500), (pareto, 1.8, 300)]
)
def test_interval_covers(draw, alpha, n):
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(400):
        fit = fit_tail(draw(n, alpha, 1.0, rng), alternatives=(), n_bootstrap=100, rng=rng)
        hits.append(fit.alpha_interval[0] <= alpha <= fit.alpha_interval[1])
    assert 0.91 <= np.mean(hits) <= 0.99  # standard error 1.1 %


def test_interval_at_a_given_threshold_is_that_of_the_known_distribution(rng):
    # (alpha_hat - 1) / (alpha - 1) is n over a gamma variate of order n: relative standard error 1 / sqrt(n)
    fit = fit_tail(pareto(2000, 2.5, 1.0, rng), xmin=1.0, alternatives=(), n_bootstrap=2000, rng=rng)
    half = 0.5 * (fit.alpha_interval[1] - fit.alpha_interval[0])
    assert half == pytest.approx(1.96 * (fit.alpha - 1.0) / np.sqrt(2000), rel=0.12)
    assert fit.alpha_interval[0] <= fit.alpha <= fit.alpha_interval[1]
    assert fit.xmin_interval == (1.0, 1.0)


def test_an_exponential_is_no_power_law(rng):
    fit = fit_tail(1.0 + rng.exponential(size=1000), xmin=1.0, n_bootstrap=99, rng=rng)
    assert fit.p_value == 0.01
    exponential = fit.comparisons["exponential"]
    assert exponential.log_likelihood_ratio < -20
    assert exponential.p_value < 1e-4
    assert fit.comparisons["truncated_power_law"].p_value < 1e-6


@pytest.mark.parametrize("discrete", [False, True])
def test_exponential_alternative_has_its_closed_form(discrete, rng):
    x = 2.0 + (rng.geometric(0.3, 500) - 1.0 if discrete else rng.exponential(2.0, 500))
    fit = fit_tail(x, discrete=discrete, xmin=2, alternatives=["exponential"], n_bootstrap=0, rng=rng)
    excess = x.mean() - 2.0
    expected = np.log1p(1.0 / excess) if discrete else 1.0 / excess
    assert fit.comparisons["exponential"].parameters["rate"] == pytest.approx(expected, rel=1e-4)


PARAMETERS = {
    "exponential": [(-1.0,), (1.0,)],
    "lognormal": [(1.5, -8.0), (0.3, 0.5), (-3.0, 1.0)],
    "stretched_exponential": [(0.4, -4.0), (0.0, 0.0), (-2.0, -1.0)],
    "truncated_power_law": [(2.5, -8.0), (0.3, -2.0), (-1.5, 1.0), (1.0, -20.0)],
}


@pytest.mark.parametrize(("name", "theta"), [(name, q) for name, qs in PARAMETERS.items() for q in qs])
def test_alternatives_are_normalised(name, theta):
    alternative, q = ALTERNATIVES[name], np.array(theta)
    for start in (0.0, 1.3):
        mass = alternative.log_mass(start, q)
        density = lambda v, m=mass: float(np.exp(alternative.log_density(np.array(v), q) - m))  # noqa: E731
        whole, _ = integrate.quad(density, start, start + 60, limit=400)
        assert whole == pytest.approx(1.0, rel=1e-6)
    terms = np.arange(3.0, 2e6)
    log_terms = alternative.log_density(np.log(terms / 3.0), q) - np.log(terms / 3.0)
    if log_terms[-1] < -40:  # the sum is done
        assert _log_sum(alternative, q, 3.0) == pytest.approx(np.log(np.exp(log_terms).sum()), abs=1e-7)


def test_truncated_power_law_integral_is_the_exponential_integral():
    for order, z in ((2, 0.01), (3, 1.0), (5, 30.0), (8, 1e-8)):
        mass = ALTERNATIVES["truncated_power_law"].log_mass(0.0, np.array([float(order), np.log(z)]))
        assert mass == pytest.approx(np.log(expn(order, z)) + z, rel=1e-9)


def test_each_alternative_is_recognised_and_its_parameters_return(rng):
    lognormal = np.exp(1.0 + 0.7 * rng.standard_normal(6000))
    weibull = 3.0 * rng.weibull(0.6, 6000)
    truncated = rng.gamma(0.5, 4.0, 12000)  # x^-0.5 exp(-x / 4)
    for name, x, parameters in (
        ("lognormal", lognormal, {"mu": 1.0, "sigma": 0.7}),
        ("stretched_exponential", weibull, {"rate": 3.0**-0.6, "beta": 0.6}),
        ("truncated_power_law", truncated, {"alpha": 0.5, "rate": 0.25}),
    ):
        found = fit_tail(x, xmin=1.0, alternatives=[name], n_bootstrap=0, rng=rng).comparisons[name]
        assert found.converged
        assert found.log_likelihood_ratio < -10
        assert found.p_value < 1e-3
        assert found.parameters == pytest.approx(parameters, rel=0.25)  # thousands of samples: a few percent each


def test_a_power_law_is_not_beaten_by_its_alternatives(rng):
    p, best = [], []
    for _ in range(30):
        fit = fit_tail(pareto(500, 2.5, 1.0, rng), xmin=1.0, n_bootstrap=0, rng=rng)
        truncated = fit.comparisons["truncated_power_law"]
        if truncated.log_likelihood_ratio < -0.01:  # a half chi-squared of one degree: Self and Liang's case 5
            assert truncated.p_value == pytest.approx(stats.norm.sf(np.sqrt(-2.0 * truncated.log_likelihood_ratio)))
        p.append(truncated.p_value)
        best.append(fit.comparisons["lognormal"].p_value < 0.01)
        assert fit.comparisons["exponential"].log_likelihood_ratio > 20
    # on the edge of its parameters half the ratios are zero: p is one or uniform below a half
    assert 5 <= sum(value == 1.0 for value in p) <= 25
    assert sum(value <= 0.1 for value in p) <= 9
    assert sum(best) <= 3


@pytest.mark.parametrize("factor", [1e-6, 300.0])
def test_a_change_of_units_changes_only_the_threshold(factor):
    x = body_and_tail(400, 2.5, 1.0, np.random.default_rng(5))
    one, two = (fit_tail(c * x, n_bootstrap=40, rng=np.random.default_rng(1)) for c in (1.0, factor))
    assert two.xmin == pytest.approx(factor * one.xmin)
    assert two.alpha == pytest.approx(one.alpha)
    assert two.alpha_interval == pytest.approx(one.alpha_interval)
    assert two.p_value == one.p_value
    for name, found in one.comparisons.items():
        assert two.comparisons[name].log_likelihood_ratio == pytest.approx(found.log_likelihood_ratio, abs=1e-3)


def test_same_generator_state_same_result_and_inputs_untouched(rng):
    x = body_and_tail(200, 2.5, 1.0, rng)
    kept = x.copy()
    one, two = (fit_tail(list(x), n_bootstrap=40, rng=np.random.default_rng(4)) for _ in range(2))
    assert one == two
    np.testing.assert_array_equal(x, kept)
    assert one.n_samples == 200
    assert one.decades == pytest.approx(np.log10(x.max() / one.xmin))
    assert one.xmin_interval[0] <= one.xmin_interval[1]
    assert tuple(one.comparisons) == one.settings["alternatives"] == tuple(ALTERNATIVES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.__setattr__("alpha", 2.0)


def test_without_bootstrap_there_is_no_p_value(rng):
    fit = fit_tail(pareto(100, 2.5, 1.0, rng), rng=rng, **NO_FIT)
    assert np.isnan([fit.p_value, *fit.alpha_interval, *fit.xmin_interval]).all()
    assert fit.comparisons == {}


X = 1.5 ** np.arange(1.0, 21.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.append(X, np.nan)}, r"finite and positive; 1 of 21 are not, the first is nan at index 20"),
        ({"samples": np.append(-1.0, X)}, r"finite and positive; 1 of 21 are not, the first is -1.0 at index 0"),
        ({"samples": X.reshape(4, 5)}, r"samples must be a vector; got shape \(4, 5\)"),
        ({"samples": ["a"]}, r"samples must be a vector of numbers; got list"),
        ({"samples": X[:5]}, r"a tail needs 10 samples with two distinct values; got 5 samples, 5 distinct"),
        ({"samples": []}, r"a tail needs 10 samples .* got 0 samples"),
        ({"samples": np.full(20, 1.5)}, r"got 20 samples, 1 distinct, the largest 1.5"),
        ({"samples": np.arange(1.0, 21.0)}, r"samples are all whole numbers: pass discrete=True"),
        ({"discrete": True}, r"discrete samples must be whole numbers; got 1.5 at index 0"),
        ({"xmin": 1e6}, r"a tail needs 10 samples .* at or above xmin = 1e\+06"),
        ({"xmin": -1.0}, r"xmin must be positive, or None to find it; got -1.0"),
        ({"alternatives": ["log_normal"]}, r"unknown alternative 'log_normal'; did you mean 'lognormal'\?"),
        ({"n_bootstrap": 10}, r"n_bootstrap must be 0 .* or at least 40; got 10"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message, rng):
    arguments = {"samples": X} | change
    with pytest.raises(ValueError, match=message) as error:
        fit_tail(rng=rng, **arguments)
    assert "\n" not in str(error.value)

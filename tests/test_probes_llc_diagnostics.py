"""R-hat, effective draws and the error of a mean, on processes of known autocorrelation."""

import math

import numpy as np
import pytest

from probes.llc.diagnostics import effective_draws, mean_estimate, split_rhat


def autoregressive(rng, n_chains: int, n_draws: int, rho: float) -> np.ndarray:
    """AR(1) chains of unit variance, started in equilibrium; the mean's autocorrelation time is (1+rho)/(1-rho)."""
    x = np.empty((n_chains, n_draws))
    x[:, 0] = rng.normal(size=n_chains)
    for t in range(1, n_draws):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=n_chains)
    return x


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregressive_process(rho):
    draws = autoregressive(np.random.default_rng(0), 8, 20_000, rho)
    assert effective_draws(draws) / draws.size == pytest.approx((1 - rho) / (1 + rho), rel=0.07)


def test_rhat_is_one_when_mixed():
    assert split_rhat(autoregressive(np.random.default_rng(1), 4, 4000, 0.0)) == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("fault", ["level", "drift", "scale"])
def test_rhat_sees_chains_that_disagree(fault):
    x = autoregressive(np.random.default_rng(2), 4, 1000, 0.0)
    if fault == "level":
        x[0] += 2.0
    elif fault == "drift":
        x += np.linspace(0, 3, 1000)
    else:
        x[0] *= 5.0
    assert split_rhat(x) > 1.1


def test_rhat_ignores_monotone_maps():
    x = autoregressive(np.random.default_rng(3), 4, 500, 0.3)
    x[0] += 1.0
    bulk_only = np.exp(x)  # the bulk statistic has ranks alone; the folded one may differ
    assert split_rhat(bulk_only) == pytest.approx(split_rhat(x), rel=0.05)


def test_rhat_of_two_shifted_pairs_matches_the_formula():
    """Normal scores keep order, so two separated groups give a value far above one; equal halves give below one."""
    same = np.tile([1.0, 2.0, 3.0, 4.0], (2, 2))
    apart = np.concatenate([same[:1], same[1:] + 10])
    assert split_rhat(same) < 1.0
    assert split_rhat(apart) > 1.5


def test_constant_draws_have_no_rhat():
    assert math.isnan(split_rhat(np.ones((4, 10))))
    assert math.isnan(effective_draws(np.ones((4, 10))))


@pytest.mark.parametrize(("n_chains", "rho"), [(1, 0.5), (2, 0.9), (4, 0.9), (16, 0.5)])
def test_interval_covers_the_mean(n_chains, rho):
    rng = np.random.default_rng(4)
    draws = autoregressive(rng, 400 * n_chains, 300, rho).reshape(400, n_chains, 300)
    estimates = [mean_estimate(d) for d in draws]
    covered = np.mean([lo <= 0 <= hi for lo, hi in (e.interval() for e in estimates)])
    assert 0.92 <= covered <= 0.99  # 400 repeats: one standard error is 1.1 %


def test_disagreeing_chains_widen_the_error():
    x = autoregressive(np.random.default_rng(5), 4, 1000, 0.0)
    shifted = x + np.array([[0.0], [1.0], [2.0], [3.0]])
    spread = shifted.mean(axis=1).std(ddof=1) / 2
    got = mean_estimate(shifted)
    assert got.standard_error >= spread
    assert mean_estimate(x).standard_error < 0.05 < 0.5 < spread


def test_shifting_and_scaling_draws_does_the_same_to_the_estimate():
    x = autoregressive(np.random.default_rng(6), 4, 200, 0.5)
    a, b = mean_estimate(x), mean_estimate(3.0 * x + 2.0)
    assert b.value == pytest.approx(3.0 * a.value + 2.0, rel=1e-12)
    assert b.standard_error == pytest.approx(3.0 * a.standard_error, rel=1e-9)
    assert b.ess == pytest.approx(a.ess, rel=1e-9)

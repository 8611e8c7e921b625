import dataclasses

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from probes.potential import compare_degrees, fit_effective_potential, llc_cross_check


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def relaxation(k, t, x0=1.0, c=0.5):
    """The flow dx/dt = -c k x^(k-1), integrated."""
    flow = solve_ivp(lambda _, x: -c * k * x ** (k - 1), (0, t[-1]), [x0], t_eval=t, rtol=1e-10, atol=1e-13)
    return flow.y[0]


def noisy(clean, noise, rng):
    return clean + noise * np.ptp(clean) * rng.standard_normal(len(clean))


def curves(k, m, *, noise, n=40, seed=0):
    """Clock, loss and observable of one relaxation."""
    rng = np.random.default_rng(seed)
    t = np.geomspace(0.1, 100 if k > 2 else 8, n)
    x = relaxation(k, t)
    return t, noisy(0.3 + 0.5 * x**k, noise, rng), noisy(0.8 - 0.6 * x**m, noise, rng)


def holds(interval, value):
    return interval[0] <= value <= interval[1]


@pytest.mark.parametrize(("k", "m"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_noise_free_relaxation_gives_its_degree(k, m, rng):
    fit = fit_effective_potential(*curves(k, m, noise=0.0), observable_order=m, n_bootstrap=40, rng=rng)
    assert fit.preferred == "power_law"
    # the integration is good to 1e-8 of the range; the fits to 1e-3
    assert fit.loss_exponent == pytest.approx(k / (k - 2), rel=1e-3)
    assert fit.relaxation_exponent == pytest.approx(m / (k - 2), rel=1e-3)
    assert fit.k_over_m == pytest.approx(k / m, rel=1e-3)
    assert [fit.k, fit.k_from_loss, fit.k_from_observable] == pytest.approx([k, k, k], rel=1e-3)
    # x(t) = (x0^-(k-2) + c k (k-2) t)^(-1/(k-2)): the onset lies before the start
    assert fit.t0 == pytest.approx(-1 / (0.5 * k * (k - 2)), rel=1e-2)


@pytest.mark.parametrize(("k", "m"), [(4, 1), (6, 2)])
def test_noisy_relaxation_gives_its_degree_within_the_intervals(k, m):
    fit = fit_effective_potential(*curves(k, m, noise=0.01, seed=1), observable_order=m, rng=np.random.default_rng(0))
    assert fit.preferred == "power_law"
    assert holds(fit.k_interval, k)
    assert holds(fit.loss_interval, k / (k - 2))
    assert holds(fit.relaxation_interval, m / (k - 2))
    assert holds(fit.k_over_m_interval, k / m)
    assert holds(fit.k_from_loss_interval, k)
    assert holds(fit.k_from_observable_interval, k)
    assert np.diff(fit.k_interval)[0] < 1.0


@pytest.mark.slow
def test_intervals_cover():
    # 150 curves: standard error 1.8 %, four of them
    fits = [
        fit_effective_potential(*curves(4, 1, noise=0.01, n=30, seed=i), n_bootstrap=100, rng=np.random.default_rng(i))
        for i in range(150)
    ]
    assert np.mean([fit.preferred == "power_law" for fit in fits]) >= 0.9
    assert np.mean([holds(fit.k_interval, 4) for fit in fits if fit.preferred == "power_law"]) >= 0.88
    assert np.mean([holds(fit.k_over_m_interval, 4) for fit in fits]) >= 0.88
    assert np.mean([holds(fit.loss_interval, 2) for fit in fits]) >= 0.88
    assert np.mean([holds(fit.relaxation_interval, 0.5) for fit in fits]) >= 0.88


@pytest.mark.parametrize("m", [1, 2])
def test_a_quadratic_potential_is_an_exponential(m):
    fit = fit_effective_potential(*curves(2, m, noise=0.01), observable_order=m, rng=np.random.default_rng(0))
    assert fit.preferred == "exponential"
    assert fit.k == 2.0
    assert holds(fit.k_over_m_interval, 2 / m)
    assert np.isnan([fit.loss_exponent, fit.relaxation_exponent, fit.k_from_loss]).all()


def test_a_wrong_order_is_refused_by_the_consistency_test():
    fit = fit_effective_potential(*curves(4, 2, noise=0.005), observable_order=1, rng=np.random.default_rng(0))
    assert fit.preferred == "undecided"
    assert "observable_order" in fit.reason
    assert fit.consistency_p_value < 0.01
    assert holds(fit.k_over_m_interval, 2.0)  # needs no assumption on the order
    assert np.isnan(fit.k)


def test_curves_of_another_law_are_undecided(rng):
    t = np.geomspace(0.1, 100, 60)
    loss = noisy(1 / (1 + np.exp((t - 40) / 8)), 0.01, rng)
    fit = fit_effective_potential(t, loss, noisy(1 - 1 / (1 + np.exp((t - 40) / 8)), 0.01, rng), rng=rng)
    assert fit.preferred == "undecided"
    assert "logistic" in fit.reason
    assert np.isnan([fit.k, *fit.k_interval]).all()


def test_an_observable_of_noise_is_undecided(rng):
    t, loss, _ = curves(4, 1, noise=0.01)
    fit = fit_effective_potential(t, loss, rng.standard_normal(40), n_bootstrap=40, rng=rng)
    assert fit.preferred == "undecided"
    assert np.isnan(fit.k)


def test_scaling_and_shifting_either_curve_or_the_clock_leaves_the_degree():
    t, loss, observable = curves(4, 1, noise=0.01)
    one = fit_effective_potential(t, loss, observable, rng=np.random.default_rng(1))
    two = fit_effective_potential(30 * t, 5 + 100 * loss, 1 - 0.01 * observable, rng=np.random.default_rng(1))
    assert two.k == pytest.approx(one.k, rel=1e-3)
    assert two.k_over_m == pytest.approx(one.k_over_m, rel=1e-3)
    assert two.k_interval == pytest.approx(one.k_interval, rel=1e-2)
    assert two.t0 == pytest.approx(30 * one.t0, rel=1e-2)


def test_llc_cross_check_compares_with_one_over_k(rng):
    fit = fit_effective_potential(*curves(4, 1, noise=0.01), rng=rng)
    check = llc_cross_check(fit, 0.25, 0.01)
    assert check.predicted == pytest.approx(1 / fit.k)
    assert abs(check.z) < 2
    # a quadratic direction would add one half
    assert llc_cross_check(fit, 0.5, 0.01).z > 5
    low, high = fit.k_interval
    error = (1 / low - 1 / high) / 2 / 1.959964
    assert check.predicted_standard_error == pytest.approx(error, rel=1e-6)
    assert check.z == pytest.approx((0.25 - 1 / fit.k) / np.hypot(error, 0.01))


def test_llc_cross_check_of_a_quadratic_and_of_an_undecided_potential(rng):
    quadratic = fit_effective_potential(*curves(2, 1, noise=0.01), rng=rng)
    assert llc_cross_check(quadratic, 0.52, 0.02).z == pytest.approx(1.0)
    undecided = dataclasses.replace(quadratic, preferred="undecided", k=np.nan, k_interval=(np.nan, np.nan))
    assert np.isnan([llc_cross_check(undecided, 0.5, 0.1).z, llc_cross_check(undecided, 0.5, 0.1).p_value]).all()
    with pytest.raises(ValueError, match="llc_standard_error must be positive; got 0"):
        llc_cross_check(quadratic, 0.5, 0.0)
    with pytest.raises(ValueError, match="llc_value must be finite; got nan"):
        llc_cross_check(quadratic, float("nan"), 0.1)


def test_same_generator_state_same_result():
    one, two = (
        fit_effective_potential(*curves(4, 1, noise=0.01), n_bootstrap=40, rng=np.random.default_rng(3))
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": np.full(20, np.nan)}, r"loss must be finite; 20 of 20"),
        ({"observable": np.ones(19)}, r"t and observable must have one value a point each; got 20 and 19"),
        ({"observable": np.ones(20)}, r"observable is constant \(1\); there is no relaxation to read"),
        ({"loss_sigma": -1.0}, r"loss_sigma must be positive; the smallest is -1"),
        ({"t": -np.arange(20.0)}, r"t must be positive; the first value is -0"),
        ({"observable_order": 0.0}, r"observable_order must be positive; got 0"),
        ({"n_bootstrap": 3}, r"n_bootstrap must be at least 40 .* got 3"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message, rng):
    t = np.geomspace(1, 100, 20)
    arguments = {"t": t, "loss": 1 / t, "observable": t**-0.5} | change
    with pytest.raises(ValueError, match=message):
        fit_effective_potential(rng=rng, **arguments)


def test_every_route_to_the_degree_agrees_on_a_quartic():
    fit = fit_effective_potential(*curves(4, 1, noise=0.003), rng=np.random.default_rng(0))
    report = compare_degrees(fit, llc_value=0.25, llc_standard_error=0.01)
    assert report.verdict == "agree"
    assert report.reason == ""
    assert set(report.degrees) == set(report.intervals) == {"loss", "observable", "ratio", "llc"}
    assert all(holds(report.intervals[route], 4.0) for route in report.intervals)
    assert report.degrees["ratio"] == pytest.approx(fit.loss_exponent / fit.relaxation_exponent)
    assert report.degrees["llc"] == 4.0
    assert report.intervals["llc"] == pytest.approx((1 / 0.2695996, 1 / 0.2304004), rel=1e-6)
    assert report.p_values["curves"] == fit.consistency_p_value
    assert report.p_values["llc"] == llc_cross_check(fit, 0.25, 0.01).p_value


def test_a_quadratic_learning_coefficient_disagrees_with_a_quartic_relaxation():
    fit = fit_effective_potential(*curves(4, 1, noise=0.003), rng=np.random.default_rng(0))
    report = compare_degrees(fit, llc_value=0.5, llc_standard_error=0.01)
    assert report.verdict == "disagree"
    assert report.p_values["llc"] < 1e-6
    assert "LLC" in report.reason


def test_a_wrong_order_of_the_observable_is_a_disagreement_of_the_curves():
    fit = fit_effective_potential(*curves(4, 2, noise=0.003), observable_order=1, rng=np.random.default_rng(0))
    report = compare_degrees(fit)
    assert report.verdict == "disagree"
    assert "loss and observable" in report.reason
    assert np.isnan([report.degrees["llc"], *report.intervals["llc"], report.p_values["llc"]]).all()


@pytest.mark.parametrize("m", [1, 2])
def test_a_quadratic_potential_agrees_by_its_rates(m):
    fit = fit_effective_potential(*curves(2, m, noise=0.01), observable_order=m, rng=np.random.default_rng(0))
    report = compare_degrees(fit, llc_value=0.49, llc_standard_error=0.02)
    assert report.verdict == "agree"
    assert report.degrees["loss"] == report.degrees["observable"] == 2.0
    assert holds(report.intervals["ratio"], 2.0)
    wrong = dataclasses.replace(fit, observable_order=2.0 * m)  # rates then give twice the degree
    assert compare_degrees(wrong).verdict == "disagree"


def test_intervals_that_agree_with_anything_are_no_agreement():
    fit = fit_effective_potential(*curves(4, 1, noise=0.003), rng=np.random.default_rng(0))
    report = compare_degrees(fit, llc_value=0.25, llc_standard_error=0.2)
    assert report.verdict == "undecided"
    assert report.intervals["llc"][1] == np.inf
    assert "by the llc lies anywhere between 1.56 and inf" in report.reason
    undecided = dataclasses.replace(fit, preferred="undecided", reason="no law", k=np.nan, k_interval=(np.nan, np.nan))
    assert compare_degrees(undecided, llc_value=0.25, llc_standard_error=0.01).reason == (
        "the potential is undecided: no law"
    )


def test_half_a_learning_coefficient_is_refused():
    fit = fit_effective_potential(*curves(4, 1, noise=0.003), n_bootstrap=40, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"belong together; got 0.25 and None: give both or none"):
        compare_degrees(fit, llc_value=0.25)

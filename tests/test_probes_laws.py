import dataclasses

import numpy as np
import pytest
from planted_curves import LAWS, planted_law

from probes import fit_law, law_values


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def verdicts(n_curves, n_points, decades, noise, seed):
    """Counts of right, abstaining and wrong choices over planted curves; noise is relative to the range."""
    rng = np.random.default_rng(seed)
    t = np.geomspace(1, 10**decades, n_points)
    counts = {"right": 0, "undecided": 0, "wrong": 0}
    for i in range(n_curves):
        law = LAWS[i % len(LAWS)]
        y = planted_law(law, t, rng)
        y = y + noise * np.ptp(y) * rng.standard_normal(n_points)
        preferred = fit_law(t, y, n_bootstrap=0, rng=rng).preferred
        counts["right" if preferred == law else "undecided" if preferred == "undecided" else "wrong"] += 1
    return counts


def coverage(n_curves, n_points, noise, p, *, rho=0.0, sigma=None, seed=0):
    """Share of 95 % intervals that hold the planted exponent; delay 1, three decades."""
    rng = np.random.default_rng(seed)
    t = np.geomspace(1, 1000, n_points)
    clean = 1 + 3 * t**-p
    scale = noise * np.ptp(clean) * (np.ones(n_points) if sigma is None else sigma)
    hits = 0
    for _ in range(n_curves):
        e = rng.standard_normal(n_points)
        for i in range(1, n_points):
            e[i] = rho * e[i - 1] + np.sqrt(1 - rho**2) * e[i]
        given = None if sigma is None else scale
        fit = fit_law(t, clean + scale * e, sigma=given, laws=["power_law"], rng=rng)
        hits += fit.interval[0] <= p <= fit.interval[1]
    return hits / n_curves


@pytest.fixture
def power_curve(rng):
    t = np.geomspace(1, 1000, 40)
    clean = 2 + 3 * (t + 0.5) ** -0.7
    return t, clean + 0.01 * np.ptp(clean) * rng.standard_normal(40)


@pytest.mark.parametrize(
    ("law", "clean", "parameters"),
    [
        ("power_law", lambda t: 2 + 3 * (t + 0.5) ** -0.7, {"y_inf": 2, "a": 3, "t0": -0.5, "p": 0.7}),
        ("power_law", lambda t: 1 - 0.2 * (t + 2) ** 0.5, {"y_inf": 1, "a": -0.2, "t0": -2, "p": -0.5}),
        ("exponential", lambda t: 2 - 3 * np.exp(-t / 50), {"y_inf": 2, "a": -3, "T": 50}),
        (
            "stretched_exponential",
            lambda t: 2 + 3 * np.exp(-((t / 50) ** 0.5)),
            {"y_inf": 2, "a": 3, "T": 50, "beta": 0.5},
        ),
        ("logarithmic", lambda t: 2 + 3 * np.log(t + 4), {"a": 2, "b": 3, "t0": 4}),
        ("logistic", lambda t: 2 + 3 / (1 + np.exp(-(t - 300) / 40)), {"y_0": 2, "a": 3, "t_mid": 300, "width": 40}),
    ],
)
def test_noise_free_laws_give_back_their_parameters(law, clean, parameters, rng):
    t = np.geomspace(1, 1000, 40)
    fit = fit_law(t, clean(t), n_bootstrap=40, rng=rng)
    assert fit.preferred == law
    assert fit.converged[law]
    # the optimiser stops when the sum of squares changes by 1e-9: parameters to 1e-4
    assert fit.parameters[law] == pytest.approx(parameters, rel=1e-4)


@pytest.mark.parametrize(
    ("law", "clean", "parameters"),
    [
        (
            "log_logistic",
            lambda t: 1 + 2 / (1 + (t / 50) ** -2.5),
            {"y_0": 1, "a": 2, "t_mid": 50, "width": 0.4},
        ),
        ("finite_time_power_law", lambda t: 1 + 5 * (1003 - t) ** -0.5, {"y_inf": 1, "a": 5, "t_c": 1003, "p": 0.5}),
        ("unshifted_power_law", lambda t: 2 - 3 * t**-0.7, {"y_inf": 2, "a": -3, "p": 0.7}),
        (
            "broken_power_law",  # Caballero et al. 2022, equation 1: c0 = 0.2, c1 = 0.9, d1 = 30, f1 = 0.3
            lambda t: 1 + 2 * t**-0.2 * (1 + (t / 30) ** (1 / 0.3)) ** (-0.9 * 0.3),
            {"y_inf": 1, "a": 2 * 30**-0.2 * 2**-0.27, "p_early": 0.2, "p_late": 1.1, "t_break": 30, "width": 0.3},
        ),
    ],
)
def test_extra_laws_are_available_by_name(law, clean, parameters, rng):
    t = np.geomspace(1, 1000, 40)
    if law == "finite_time_power_law":
        t = 1001 - t[::-1]
    rivals = [name for name in LAWS if (name, law) != ("power_law", "unshifted_power_law")]  # one contains the other
    fit = fit_law(t, clean(t), laws=[*rivals, law], n_bootstrap=40, rng=rng)
    assert fit.preferred == law
    assert fit.parameters[law] == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_planted_exponent_lies_in_the_interval_and_the_standard_error_agrees(noise):
    rng = np.random.default_rng(1)
    t = np.geomspace(1, 1000, 60)
    clean = 2 + 3 * (t + 0.5) ** -0.7
    fit = fit_law(t, clean + noise * np.ptp(clean) * rng.standard_normal(60), rng=rng)
    assert fit.interval[0] <= 0.7 <= fit.interval[1]
    assert fit.interval[0] < fit.exponent < fit.interval[1]
    assert fit.residual_rms["power_law"] == pytest.approx(noise * np.ptp(clean), rel=0.4)  # 60 points: 9 % rms
    assert fit.serial_correlation == 0.0
    if noise == 0.01:  # nearly linear: the two routes to the width agree
        half = 0.5 * (fit.interval[1] - fit.interval[0])
        assert half == pytest.approx(1.96 * fit.standard_errors["power_law"]["p"], rel=0.4)


@pytest.mark.slow
def test_choice_is_right_nine_times_in_ten_at_five_percent_noise():
    counts = verdicts(60, 200, 4, 0.05, seed=1)
    assert counts["right"] >= 54, counts
    assert counts["wrong"] <= 2, counts


def test_few_noisy_points_abstain_rather_than_err():
    counts = verdicts(60, 30, 3, 0.05, seed=2)
    assert counts["undecided"] >= 12, counts
    assert counts["wrong"] <= 5, counts


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "least_right", "most_wrong"), [(0.01, 475, 10), (0.05, 450, 10), (0.10, 325, 10)])
def test_choice_over_five_hundred_curves(noise, least_right, most_wrong):
    counts = verdicts(500, 200, 4, noise, seed=3)
    assert counts["right"] >= least_right, counts
    assert counts["wrong"] <= most_wrong, counts


@pytest.mark.slow
def test_interval_covers():
    # 100 curves: 95 % +- 2.2 %; four standard errors either way leave [86 %, 100 %]
    assert coverage(100, 30, 0.02, 0.7) >= 0.86


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"n_points": 30, "noise": 0.01, "p": 0.5},
        {"n_points": 30, "noise": 0.05, "p": 0.5},
        {"n_points": 30, "noise": 0.05, "p": 1.0},
        {"n_points": 30, "noise": 0.05, "p": -0.5},
        {"n_points": 30, "noise": 0.01, "p": 0.5, "sigma": np.linspace(0.5, 2, 30)},
        {"n_points": 60, "noise": 0.05, "p": 0.7},
    ],
)
def test_interval_covers_at_its_nominal_rate(case):
    # 500 curves: standard error 1 %, four of them
    assert 0.91 <= coverage(500, **case) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("case", [{"noise": 0.05, "seed": 11}, {"noise": 0.03, "rho": 0.5, "seed": 12}])
def test_interval_covers_within_two_percent_of_nominal(case):
    # with a lag-one correlation of 0.5 intervals for independent noise would cover about 75 %
    assert 0.93 <= coverage(500, 60, p=0.7, **case) <= 0.97


@pytest.mark.parametrize("factor", [-3.0, 1e-6, 1e8])
def test_scaling_the_values_scales_the_amplitude_and_keeps_the_exponent(power_curve, factor):
    t, y = power_curve
    one = fit_law(t, y, rng=np.random.default_rng(1))
    two = fit_law(t, factor * y, rng=np.random.default_rng(1))
    assert two.preferred == one.preferred == "power_law"
    assert two.exponent == pytest.approx(one.exponent, rel=1e-4)
    assert two.interval == pytest.approx(one.interval, rel=1e-3)
    for name in ("a", "y_inf"):
        assert two.parameters["power_law"][name] == pytest.approx(factor * one.parameters["power_law"][name], rel=1e-3)
        assert two.standard_errors["power_law"][name] == pytest.approx(
            abs(factor) * one.standard_errors["power_law"][name], rel=1e-2
        )


def test_shifting_the_values_shifts_only_the_limit(power_curve):
    t, y = power_curve
    one, two = (fit_law(t, y + shift, rng=np.random.default_rng(1)) for shift in (0.0, 100.0))
    before, after = one.parameters["power_law"], two.parameters["power_law"]
    assert after["y_inf"] - before["y_inf"] == pytest.approx(100.0, abs=1e-4)
    for name in ("a", "t0", "p"):
        assert after[name] == pytest.approx(before[name], rel=1e-4)
    assert two.weights == pytest.approx(one.weights, abs=1e-6)


def test_scaling_the_clock_scales_the_onset_and_keeps_the_exponent(power_curve):
    t, y = power_curve
    one, two = (fit_law(scale * t, y, rng=np.random.default_rng(1)) for scale in (1.0, 1e-3))
    assert two.exponent == pytest.approx(one.exponent, rel=1e-4)
    assert two.parameters["power_law"]["t0"] == pytest.approx(1e-3 * one.parameters["power_law"]["t0"], rel=1e-3)
    assert two.parameters["exponential"]["T"] == pytest.approx(1e-3 * one.parameters["exponential"]["T"], rel=1e-3)
    assert two.window == pytest.approx((1e-3, 1.0, 3.0))


def test_scaling_the_standard_errors_down_does_not_sharpen_anything(power_curve):
    t, y = power_curve
    one, two = (fit_law(t, y, sigma=sigma, rng=np.random.default_rng(1)) for sigma in (1e-2, 1e-5))
    assert two.weights == pytest.approx(one.weights, abs=1e-6)
    assert two.interval == pytest.approx(one.interval, rel=1e-3)


def test_large_standard_errors_widen_the_interval(power_curve):
    t, y = power_curve
    narrow, wide = (fit_law(t, y, sigma=sigma, rng=np.random.default_rng(1)) for sigma in (0.02, 0.2))
    assert np.diff(wide.interval)[0] > 3 * np.diff(narrow.interval)[0]
    assert wide.preferred == "undecided"


def test_weights_sum_to_one_and_settings_are_kept(power_curve, rng):
    fit = fit_law(*power_curve, rng=rng)
    assert sum(fit.weights.values()) == pytest.approx(1.0)
    assert tuple(fit.weights) == tuple(fit.parameters) == tuple(fit.converged) == LAWS
    assert fit.settings == {"laws": LAWS, "n_bootstrap": 400, "sigma_given": False}
    assert fit.n_points == 40
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.__setattr__("exponent", 1.0)


def test_same_generator_state_same_result_and_inputs_untouched(power_curve):
    t, y = power_curve
    kept = t.copy(), y.copy()
    one, two = (fit_law(list(t), y, rng=np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert fit_law(t, y, rng=np.random.default_rng(8)).interval != one.interval
    np.testing.assert_array_equal((t, y), kept)


def test_a_constant_curve_is_undecided_and_has_no_exponent(rng):
    fit = fit_law(np.arange(1.0, 20.0), np.full(19, 0.3), rng=rng)
    assert fit.preferred == "undecided"
    assert "constant" in fit.reason
    assert np.isnan([fit.exponent, *fit.interval, *fit.weights.values()]).all()


def test_pure_noise_is_undecided():
    rng = np.random.default_rng(4)
    t = np.geomspace(1, 1000, 40)
    preferred = [fit_law(t, rng.standard_normal(40), n_bootstrap=0, rng=rng).preferred for _ in range(40)]
    assert preferred.count("undecided") >= 39
    # a law without rivals has all the weight: only the comparison with a constant can refuse it
    alone = [fit_law(t, rng.standard_normal(40), laws=["exponential"], n_bootstrap=0, rng=rng) for _ in range(40)]
    assert sum(fit.preferred == "undecided" for fit in alone) >= 39
    assert "not told from a constant" in alone[0].reason


def test_a_power_law_over_less_than_a_decade_is_no_evidence(rng):
    t = np.geomspace(100, 900, 60)
    fit = fit_law(t, 2 + 3 * (t - 99) ** -0.7, n_bootstrap=40, rng=rng)
    assert fit.weights["power_law"] > 0.99
    assert fit.preferred == "undecided"
    assert "0.95 decades" in fit.reason


def test_correlated_noise_counts_as_fewer_points():
    rng = np.random.default_rng(5)
    t = np.geomspace(1, 1000, 100)
    noise = rng.standard_normal(100)
    for i in range(1, 100):
        noise[i] += 0.7 * noise[i - 1]
    fit = fit_law(t, 1 + 3 * t**-0.7 + 0.05 * noise, rng=rng)
    assert 0.4 < fit.serial_correlation < 0.95


T = np.geomspace(1, 100, 20)
Y = 1 / T


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.where(np.arange(20) == 7, np.nan, Y)}, r"y must be finite; 1 of 20 .* nan at index 7"),
        ({"t": np.where(np.arange(20) == 19, np.inf, T)}, r"t must be finite; 1 of 20 .* inf at index 19"),
        ({"t": T[:5], "y": Y[:5]}, r"at least 6 points are needed here; got 5"),
        ({"t": T[::-1]}, r"t must ascend strictly; t\[0\] = 100 is followed by 78"),
        ({"t": T - 1}, r"t must be positive; the first value is 0: drop the point at initialisation"),
        ({"y": Y[:-1]}, r"got 20 and 19 values"),
        ({"y": Y.reshape(4, 5)}, r"y must be a vector, one value a point; got shape \(4, 5\)"),
        ({"y": ["a"] * 20}, r"y must be a vector of numbers; got list"),
        ({"sigma": 0.0}, r"sigma must be positive; the smallest is 0"),
        ({"sigma": np.ones(3)}, r"sigma must have one value a point \(20\) or be one number; got 3 values"),
        ({"laws": ["power_low"]}, r"unknown law 'power_low'; did you mean 'power_law'\?"),
        ({"laws": []}, r"laws is empty; choose from power_law, exponential"),
        ({"laws": ["logistic", "logistic"]}, r"laws names one twice: logistic, logistic"),
        ({"n_bootstrap": 10}, r"n_bootstrap must be 0 .* or at least 40; got 10"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message, rng):
    arguments = {"t": T, "y": Y} | change
    with pytest.raises(ValueError, match=message) as error:
        fit_law(rng=rng, **arguments)
    assert "\n" not in str(error.value)


def test_a_shifted_power_law_goes_by_both_names(power_curve):
    t, y = power_curve
    one, two = (
        fit_law(t, y, laws=[name, "exponential"], rng=np.random.default_rng(1))
        for name in ("power_law", "shifted_power_law")
    )
    assert one == two
    assert one.decades == pytest.approx(
        min(3.0, np.log10((1000 - one.parameters["power_law"]["t0"]) / (1 - one.parameters["power_law"]["t0"])))
    )


def test_an_unshifted_power_law_has_an_interval_narrower_than_the_shifted_one():
    rng = np.random.default_rng(1)
    t = np.geomspace(1, 1000, 40)
    y = 2 + 3 * t**-0.7 + 0.05 * rng.standard_normal(40)
    shifted, unshifted = (fit_law(t, y, laws=[law], rng=rng) for law in ("power_law", "unshifted_power_law"))
    assert unshifted.interval[0] <= 0.7 <= unshifted.interval[1]
    assert np.diff(unshifted.interval)[0] < np.diff(shifted.interval)[0]
    half = 0.5 * np.diff(unshifted.interval)[0]
    assert half == pytest.approx(1.96 * unshifted.standard_errors["unshifted_power_law"]["p"], rel=0.3)
    assert unshifted.decades == pytest.approx(3.0)
    assert np.isnan(fit_law(t, y, laws=["exponential"], rng=rng).decades)


def test_a_break_is_seen_and_a_plain_power_law_is_not_broken():
    rng = np.random.default_rng(6)
    t = np.geomspace(1, 1e4, 200)
    broken = law_values(
        "broken_power_law",
        t,
        {"y_inf": 1.0, "a": 1.0, "p_early": 0.2, "p_late": 1.2, "t_break": 100.0, "width": 0.2},
    )
    for clean, preferred in ((broken, "broken_power_law"), (1 + 3 * (t + 1) ** -0.6, "power_law")):
        y = clean + 0.02 * np.ptp(clean) * rng.standard_normal(200)
        fit = fit_law(t, y, laws=[*LAWS, "broken_power_law"], n_bootstrap=0, rng=rng)
        assert fit.preferred == preferred
        if preferred == "broken_power_law":
            for name, value in (("p_early", 0.2), ("p_late", 1.2), ("t_break", 100.0)):
                error = fit.standard_errors[preferred][name]
                assert abs(fit.parameters[preferred][name] - value) <= 4 * error
                assert error < 0.5 * value


@pytest.mark.parametrize(
    "law", [*LAWS, "log_logistic", "finite_time_power_law", "unshifted_power_law", "broken_power_law"]
)
def test_law_values_are_those_the_residuals_were_taken_from(law, rng):
    t = np.geomspace(1, 1000, 40)
    y = planted_law(law if law in LAWS else "power_law", t, rng) + 0.02 * rng.standard_normal(40)
    fit = fit_law(t, y, laws=(law, "exponential") if law != "exponential" else (law,), n_bootstrap=0, rng=rng)
    residuals = y - law_values(law, t, fit.parameters[law])
    assert np.sqrt(np.mean(residuals**2)) == pytest.approx(fit.residual_rms[law], rel=1e-6)


def test_law_values_refuse_an_unknown_law():
    with pytest.raises(ValueError, match="law must be one of power_law, .*; got 'cubic'"):
        law_values("cubic", [1.0], {})

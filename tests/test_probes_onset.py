import dataclasses

import numpy as np
import pytest
from planted_curves import FOOT_OF_LOGISTIC, onset_curves, planted_onset

from probes import detect_onset


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def errors_and_coverage(n_curves, grid, noise, seed):
    errors, hits = [], 0
    for t, y, onset, rng in onset_curves(n_curves, grid, noise, seed):
        found = detect_onset(t, y, rng=rng)
        assert found.found
        errors.append(abs(found.step - onset) if grid == "linear" else abs(np.log(found.step / onset)))
        hits += found.interval[0] <= onset <= found.interval[1]
    return np.array(errors), hits / n_curves


def first_level_shift(y, noise):
    """First change of ruptures' PELT with squared-error cost, computed by plain optimal partitioning."""
    n, penalty = len(y), 3 * np.log(len(y)) * noise**2
    sums, squares = np.append(0, np.cumsum(y)), np.append(0, np.cumsum(y**2))
    best, last = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=int)
    best[0] = -penalty
    for end in range(2, n + 1):
        starts = np.arange(end - 1)
        length = end - starts
        cost = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / length
        total = best[starts] + cost + penalty
        last[end] = total.argmin()
        best[end] = total.min()
    change = n
    while last[change] > 0:
        change = last[change]
    return change


def test_foot_of_a_logistic_is_where_the_docstring_says():
    from scipy.optimize import fminbound

    x = np.linspace(-40, 40, 8001)

    def misfit(half):
        u = np.clip((x + half) / (2 * half), 0, 1)
        return ((u * u * (3 - 2 * u) - 1 / (1 + np.exp(-x))) ** 2).sum()

    assert np.asarray(fminbound(misfit, 1, 10)) == pytest.approx(FOOT_OF_LOGISTIC, abs=0.01)
    t = np.linspace(1, 200, 200)
    found = detect_onset(t, 1 / (1 + np.exp(-(t - 120) / 10)), rng=np.random.default_rng(0))
    assert found.step == pytest.approx(120 - 10 * FOOT_OF_LOGISTIC, abs=2.0)  # a fiftieth of the rise


@pytest.mark.parametrize("kind", ["ramp", "relaxation", "smooth step"])
def test_noise_free_kink_is_found(kind, rng):
    t = np.arange(1, 101.0)
    found = detect_onset(t, 2 - 3 * planted_onset(kind, t, 43.3, 12.0), rng=rng)
    assert found.found
    assert found.step == pytest.approx(43.3, abs=0.5)  # half a gap
    assert found.direction == -1
    assert found.shape == f"{kind} in t"
    assert found.baseline == pytest.approx(2.0, abs=0.01)
    assert found.p_value == pytest.approx(1 / 500)


@pytest.mark.parametrize("n", range(18, 30))
def test_a_curve_that_fits_exactly_is_no_trouble(n, rng):
    t = np.append(np.unique(np.geomspace(1, 999, n).round()), 1000)
    onset = detect_onset(t, 0.1 + 0.7 * np.maximum(0, np.log10(t / 100)), rng=rng)
    assert t[t < 100][-1] <= onset.step <= t[t > 100][0]
    assert onset.interval[0] <= onset.step <= onset.interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["linear", "log"])
def test_onset_beats_level_shifts_and_its_interval_covers(grid):
    # 50 curves: coverage 95 % has standard error 3 %; the floor is 90 % less two and a half
    errors, covered = errors_and_coverage(50, grid, 0.05, seed=1)
    rival = []
    for t, y, onset, _ in onset_curves(50, grid, 0.05, seed=1):
        shift = t[min(first_level_shift(y, 0.05 * np.ptp(y)), len(t) - 1)]
        rival.append(abs(shift - onset) if grid == "linear" else abs(np.log(shift / onset)))
    assert np.median(errors) <= 0.5 * np.median(rival)
    assert covered >= 0.82


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["linear", "log"])
@pytest.mark.parametrize("noise", [0.03, 0.05])
def test_interval_covers_over_two_hundred_seeds(grid, noise):
    errors, covered = errors_and_coverage(200, grid, noise, seed=11)
    assert covered >= 0.90
    assert np.median(errors) <= (2.0 if grid == "linear" else 0.15)


def test_noise_and_constants_have_no_onset():
    rng = np.random.default_rng(3)
    t = np.geomspace(1, 1000, 30)
    found = [detect_onset(t, rng.standard_normal(30), n_permutations=199, rng=rng).found for _ in range(50)]
    assert sum(found) <= 3  # 1 % of 50 expected
    constant = detect_onset(t, np.ones(30), rng=rng)
    assert not constant.found
    assert constant.p_value == 1.0
    assert np.isnan([constant.step, *constant.interval]).all()
    assert "constant" in constant.reason


def test_correlated_noise_is_not_taken_for_an_onset():
    rng = np.random.default_rng(4)
    t = np.geomspace(1, 1000, 60)
    found = 0
    for _ in range(20):
        noise = rng.standard_normal(60)
        for i in range(1, 60):
            noise[i] += 0.5 * noise[i - 1]
        found += detect_onset(t, noise, n_permutations=199, rng=rng).found
    assert found <= 7  # a shape absorbs part of the correlation: documented as a limit


def test_a_curve_that_changes_from_the_start_was_never_seen_flat(rng):
    t = np.geomspace(1, 1000, 40)
    answer = detect_onset(t, np.log(t) + 0.01 * rng.standard_normal(40), rng=rng)
    assert not answer.found
    assert "first three points" in answer.reason
    assert answer.p_value <= 0.01


def test_scale_shift_and_sign_leave_the_onset_and_the_clock_carries_it():
    rng = np.random.default_rng(6)
    t = np.geomspace(10, 1e4, 40)
    y = planted_onset("ramp", t, 200.0, 100.0) + 0.05 * rng.standard_normal(40)
    one = detect_onset(t, y, rng=np.random.default_rng(1))
    two = detect_onset(t, 5 - 1e-3 * y, rng=np.random.default_rng(1))
    three = detect_onset(0.1 * t, y, rng=np.random.default_rng(1))
    assert two.step == pytest.approx(one.step, rel=1e-6)
    assert two.interval == pytest.approx(one.interval, rel=1e-6)
    assert (one.direction, two.direction) == (1.0, -1.0)
    assert three.step == pytest.approx(0.1 * one.step, rel=1e-6)
    assert three.interval == pytest.approx(tuple(0.1 * end for end in one.interval), rel=1e-6)


def test_same_generator_state_same_result():
    t = np.arange(1, 61.0)
    y = planted_onset("relaxation", t, 25.0, 8.0) + 0.05 * np.random.default_rng(0).standard_normal(60)
    one, two = (detect_onset(list(t), y, rng=np.random.default_rng(9)) for _ in range(2))
    assert one == two
    assert one.settings == {"n_bootstrap": 300, "n_permutations": 499}
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.__setattr__("step", 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.full(20, np.nan)}, r"y must be finite; 20 of 20 .* nan at index 0"),
        ({"t": np.arange(20.0)}, r"t must be positive; the first value is 0"),
        ({"t": np.arange(20.0, 0, -1)}, r"t must ascend strictly; t\[0\] = 20 is followed by 19"),
        ({"t": np.arange(1, 10.0), "y": np.arange(9.0)}, r"at least 10 points are needed here; got 9"),
        ({"y": np.arange(19.0)}, r"got 20 and 19 values"),
        ({"n_bootstrap": 1}, r"n_bootstrap must be at least 40 .* got 1"),
        ({"n_permutations": 50}, r"n_permutations must be at least 99 .* got 50"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message, rng):
    arguments = {"t": np.arange(1, 21.0), "y": np.arange(20.0)} | change
    with pytest.raises(ValueError, match=message):
        detect_onset(rng=rng, **arguments)

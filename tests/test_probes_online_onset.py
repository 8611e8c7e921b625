import dataclasses

import numpy as np
import pytest
from scipy import stats

from probes import OnlineOnset


def noise(n, rng, *, rho=0.0, kind="normal"):
    """First-order autoregressive noise of unit variance (normal)."""
    e = {
        "normal": rng.standard_normal,
        "heavy": lambda size: rng.standard_t(3, size),
        "skewed": lambda size: rng.exponential(size=size),
    }[kind](n)
    for i in range(1, n):
        e[i] = rho * e[i - 1] + np.sqrt(1 - rho**2) * e[i]
    return e


def feed(values, **settings):
    detector = OnlineOnset(**settings)
    for step, value in enumerate(values):
        if detector.update(step, value):
            break
    return detector


def mean_run_length(average_run_length, n_runs, *, rho=0.0, kind="normal", seed=0):
    """Values after the warm-up per false alarm, over runs that end at an alarm or after four run lengths."""
    rng = np.random.default_rng(seed)
    runs = [
        feed(noise(4 * average_run_length + 20, rng, rho=rho, kind=kind), average_run_length=average_run_length)
        for _ in range(n_runs)
    ]
    return sum(run.n_values - 20 for run in runs) / sum(run.alarm is not None for run in runs)


def exact_run_length(threshold, allowance=0.5, n_states=400):
    """Mean run length of a two-sided sum of normal scores, from the Markov chain of Brook and Evans (1972)."""
    width = threshold / (n_states - 0.5)
    states = width * np.arange(n_states)
    edges = states[None, :] + width / 2 - states[:, None] + allowance
    below = stats.norm.cdf(edges)
    transition = np.diff(below, axis=1, prepend=0.0)
    return np.linalg.solve(np.eye(n_states) - transition, np.ones(n_states))[0] / 2


@pytest.mark.parametrize("length", [100, 1000, 100_000])
def test_threshold_gives_the_run_length_asked_for(length):
    assert exact_run_length(OnlineOnset(average_run_length=length).threshold) == pytest.approx(length, rel=0.03)


@pytest.mark.parametrize(("kind", "rho"), [("normal", 0.0), ("heavy", 0.0), ("skewed", 0.5), ("normal", 0.8)])
def test_false_alarms_are_no_more_often_than_stated(kind, rho):
    # 100 runs: standard error 10 %
    assert mean_run_length(100, 100, kind=kind, rho=rho) >= 100 * (1 - 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("length", [100, 1000])
@pytest.mark.parametrize(
    ("kind", "rho"),
    [
        ("normal", 0.0),
        ("heavy", 0.0),
        ("skewed", 0.0),
        ("normal", 0.5),
        ("skewed", 0.5),
        ("normal", 0.8),
        ("normal", 0.9),
    ],
)
def test_false_alarm_rate_over_four_hundred_runs(length, kind, rho):
    n_runs = 400 if length == 100 else 150
    found = mean_run_length(length, n_runs, kind=kind, rho=rho)
    assert found >= length * (1 - 4 / np.sqrt(n_runs))
    assert found <= 4 * length  # careful, not blind


def delays(curve, n_curves, *, rho=0.0, flat=150, seed=1):
    """Values from the onset to the alarm, and from the onset to where the alarm puts it; NaN for a miss."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_curves):
        alarm = feed(np.append(np.zeros(flat), curve) + noise(flat + len(curve), rng, rho=rho)).alarm
        seen = alarm is not None and alarm.step >= flat
        found.append((alarm.step - flat + 1, alarm.onset - flat) if alarm and seen else (np.nan, np.nan))
    return np.array(found).T


def test_a_shift_and_a_ramp_are_seen_soon_and_placed_well():
    for curve, longest, farthest in (
        (np.full(100, 3.0), 6, 2),  # three standard deviations at once
        (np.full(100, 1.5), 14, 6),
        (0.25 * np.arange(100.0), 16, 8),  # a standard deviation in four values
    ):
        delay, place = delays(curve, 40)
        assert np.isnan(delay).mean() <= 0.3  # false alarms before the onset: 150 of 1000 values, and misses
        assert np.nanmedian(delay) <= longest
        assert np.nanmedian(np.abs(place)) <= farthest


def test_a_step_out_of_the_noise_is_placed_at_its_first_value():
    """Chance may begin the excursion a little before, never after."""
    _, place = delays(np.full(30, 30.0), 40, flat=100)
    assert np.nanmax(place) == 0
    assert np.nanmedian(place) >= -2
    assert (place == 0).mean() > 0.3


def test_correlated_noise_delays_but_does_not_blind():
    delay, _ = delays(0.25 * np.arange(100.0), 30, rho=0.5)
    assert np.isnan(delay).mean() <= 0.3
    assert np.nanmedian(delay) <= 40


def test_direction_units_and_level():
    rng = np.random.default_rng(2)
    values = np.append(np.zeros(60), np.linspace(0, 10, 40)) + noise(100, rng)
    rise, fall, scaled = (feed(c * values + b) for c, b in ((1.0, 0.0), (-1.0, 3.0), (1e-6, 0.5)))
    assert rise.alarm is not None
    assert rise.alarm.direction == 1
    assert fall.alarm == dataclasses.replace(rise.alarm, direction=-1)
    assert scaled.alarm == rise.alarm
    assert rise.alarm.onset <= rise.alarm.step
    assert rise.alarm.n_values == rise.n_values == rise.alarm.step + 1
    assert rise.alarm.n_since_onset == rise.alarm.step - rise.alarm.onset + 1
    assert rise.statistic >= 1.0


def test_a_constant_raises_no_alarm_and_its_end_does():
    detector = feed(np.full(500, 0.25))
    assert detector.alarm is None
    assert detector.statistic == 0.0
    step = feed(np.append(np.full(60, 0.25), np.linspace(0.3, 1.0, 20)))
    assert step.alarm is not None
    assert step.alarm.onset == 60


def test_the_alarm_stays_and_the_warm_up_is_silent():
    detector = OnlineOnset(n_warmup=30)
    values = np.append(noise(15, np.random.default_rng(0)), 50.0 + np.arange(15))
    assert all(detector.update(i, value) is None for i, value in enumerate(values))
    detector = OnlineOnset()
    for i, value in enumerate(np.append(noise(60, np.random.default_rng(0)), 5 + np.arange(30))):
        detector.update(i, value)
    first = detector.alarm
    assert first is not None
    assert detector.update(1000, -1e6) is first
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.__setattr__("step", 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average_run_length": 10}, "average_run_length must be finite and at least 50 values; got 10"),
        ({"average_run_length": float("nan")}, "average_run_length must be finite .* got nan"),
        ({"n_warmup": 3}, "n_warmup must be at least 10 values; got 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnlineOnset(**settings)


def test_bad_values_are_refused_and_leave_the_detector_as_it_was():
    detector = OnlineOnset()
    detector.update(1, 0.5)
    with pytest.raises(ValueError, match="value must be finite; got nan at step 2: leave it out"):
        detector.update(2, float("nan"))
    with pytest.raises(ValueError, match="steps must ascend; got 1 after 1.0"):
        detector.update(1, 0.5)
    with pytest.raises(ValueError, match="steps must ascend; got nan after 1.0"):
        detector.update(float("nan"), 0.5)
    assert detector.n_values == 1

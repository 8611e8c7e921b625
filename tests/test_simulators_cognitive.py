"""The cognitive tasks against facts written by hand and closed forms; against neurogym in the file beside this one."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from simulators import (
    TASKS,
    cognitive_accuracy,
    cognitive_sequences,
    cognitive_trials,
    noise_free_trials,
)
from simulators.cognitive import sequences

DECISIONS = [name for name in TASKS if name.endswith(("dm", "dm1", "dm2"))]
RING_TASKS = [name for name in TASKS if name not in DECISIONS]  # these use one ring a trial
LENGTHS = {  # steps of 100 ms: fixation, first stimulus, delay, second stimulus, decision; None is 2, 3 or 4
    **dict.fromkeys(("go", "anti"), (5, 5, 0, 0, 5)),
    **dict.fromkeys(("rtgo", "rtanti"), (5, 0, 0, 0, 5)),
    **dict.fromkeys(("dlygo", "dlyanti"), (5, 5, 5, 0, 5)),
    **{name: (None, 5, 10, 5, 2) if "dly" in name else (None, 5, 0, 0, 2) for name in DECISIONS},
    **dict.fromkeys(("dms", "dnms", "dmc", "dnmc"), (3, 5, 10, 5, 9)),
}


def rings(inputs):
    return inputs[..., 1:33].reshape(*inputs.shape[:-1], 2, 16)


def peaks(values):
    """Direction of the peak of a ring's input, which must be a bump there."""
    places = values.argmax(axis=-1)
    distance = np.abs(np.arange(16) - places[:, None])
    bump = 0.8 * np.exp(-((np.minimum(distance, 16 - distance)) ** 2) / 2)
    assert np.allclose(values, bump, atol=1e-6)
    return places


def test_a_dlygo_trial_by_hand():
    trials = cognitive_trials("dlygo", 1, rng=np.random.default_rng(3))
    inputs, labels = trials.inputs[0], trials.labels[0]
    assert inputs[:, 0].tolist() == [1.0] * 15 + [0.0] * 5
    assert inputs[:, 33:].tolist() == [[0.0, 0.0, 1.0] + [0.0] * 17] * 20
    shown = rings(inputs).any(axis=2)  # (time, ring)
    assert shown.sum(axis=0).tolist() in ([5, 0], [0, 5])
    assert np.flatnonzero(shown.any(axis=1)).tolist() == [5, 6, 7, 8, 9]
    direction = peaks(rings(inputs)[5:10, int(shown[7].argmax())])
    assert labels.tolist() == [0] * 15 + [int(direction[0]) + 1] * 5


@pytest.mark.parametrize("name", TASKS)
def test_periods_are_as_long_as_the_task_says(name, rng):
    trials = cognitive_trials(name, 200, rng=rng)
    steps = trials.parameters.steps
    for column, length in enumerate(LENGTHS[name]):
        allowed = {2, 4, 6} if (name, column) == ("dm1", 1) else {2, 3, 4} if length is None else {length}
        assert set(steps[:, column].tolist()) == allowed
    assert (trials.length == steps.sum(axis=1)).all()
    assert trials.inputs.shape == (200, trials.length.max(), 53)
    assert (trials.task == TASKS.index(name)).all()


@pytest.mark.parametrize("name", ["go", "rtgo", "anti", "rtanti", "dlyanti"])
def test_reaching_goes_to_the_stimulus_or_away_from_it(name, rng):
    trials = cognitive_trials(name, 100, rng=rng)
    stimulus = peaks(rings(trials.inputs).sum(axis=2).max(axis=1))  # one ring is silent, outside of the period both
    expected = (stimulus + 8) % 16 if "anti" in name else stimulus
    assert (trials.labels[:, -1] == expected + 1).all()


@pytest.mark.parametrize("name", DECISIONS)
def test_decisions_are_for_the_stronger_stimulus_on_the_rings_that_count(name, rng):
    trials = cognitive_trials(name, 400, rng=rng, noise=False)
    p = trials.parameters
    scored = [0] if name.endswith("dm1") else [1] if name.endswith("dm2") else [0, 1]
    evidence = p.strengths[:, :, scored].sum(axis=2)
    chose_first = p.answer == p.directions[:, 0] + 1
    chose_second = p.answer == p.directions[:, 1] + 1
    assert (chose_first ^ chose_second).all()
    tied = np.isclose(*evidence.T, atol=1e-9)
    assert (chose_first == (evidence[:, 0] > evidence[:, 1]))[~tied].all()
    assert tied.any() == name.startswith("multi")
    if tied.any():
        assert abs(chose_first[tied].mean() - 0.5) < 4 * 0.5 / np.sqrt(tied.sum())
    both = name.startswith(("ctx", "multi"))
    assert (p.strengths > 0).any(axis=(0, 1)).tolist() == [both or "dm1" in name, both or "dm2" in name]


@pytest.mark.parametrize("name", ["dms", "dnms", "dmc", "dnmc"])
def test_matches_are_answered_or_not(name, rng):
    trials = cognitive_trials(name, 2_000, rng=rng, noise=False)
    shown = rings(trials.inputs).sum(axis=2)
    sample, test = peaks(shown[:, 5]), peaks(shown[:, 20])
    # a sample at 8 counts to the first half of the ring, a test there to the second (neurogym)
    match = (sample > 8) == (test >= 8) if name in ("dmc", "dnmc") else sample == test
    if name in ("dms", "dnms"):
        assert (np.abs(sample - test)[~match] == 8).all()
    go = match if name in ("dms", "dmc") else ~match
    assert (trials.labels[:, -1] == np.where(go, test + 1, 0)).all()
    assert not trials.labels[:, :23].any()
    assert abs(match.mean() - 0.5) < 4 * 0.5 / np.sqrt(2_000)


def assert_frequencies(values, expected):
    """Chi-square test of a drawn quantity against the probabilities of its values."""
    found, counts = np.unique(np.round(values, 6), return_counts=True)
    assert found.tolist() == sorted(np.round(list(expected), 6).tolist())
    probabilities = np.array([expected[key] for key in sorted(expected)])
    assert chisquare(counts, probabilities * len(values)).pvalue > 1e-3


def test_the_helper_sees_wrong_frequencies(rng):
    with pytest.raises(AssertionError):
        assert_frequencies(rng.choice(3, 3_000, p=[0.4, 0.3, 0.3]), dict.fromkeys(range(3), 1 / 3))


@pytest.mark.parametrize("name", TASKS)
def test_parameters_are_drawn_with_the_stated_probabilities(name, rng):
    n = 4_000
    p = cognitive_trials(name, n, rng=rng, noise=False).parameters
    assert_frequencies(p.directions[:, 0], dict.fromkeys(range(16), 1 / 16))
    if name in DECISIONS:
        assert_frequencies(p.steps[:, 0], dict.fromkeys((2, 3, 4), 1 / 3))
        assert_frequencies((p.directions[:, 1] - p.directions[:, 0]) % 16, dict.fromkeys(range(1, 16), 1 / 15))
        ring = 1 if name.endswith("dm2") else 0
        first, second = p.strengths[:, :, ring].T
        if "dly" in name:
            pairs = {10 * a + b: 1 / 6 for a in (0.3, 0.6, 1.0) for b in (0.3, 0.6, 1.0) if a != b}
            assert_frequencies(10 * first + second, pairs)
        else:
            contrasts = {sign * c: 1 / 8 for c in (0.08, 0.16, 0.32, 0.64) for sign in (-1, 1)}
            assert_frequencies(first - second, contrasts)
            assert np.allclose(first + second, 1.0)
        if name.startswith(("ctx", "multi")):  # the rings are drawn apart
            other = p.strengths[:, 0, 1 - ring]
            assert abs(np.corrcoef(first, other)[0, 1]) < 4 / np.sqrt(n)
    if name == "dm1":
        assert_frequencies(p.steps[:, 1], dict.fromkeys((2, 4, 6), 1 / 3))
    if name in RING_TASKS:
        on_ring = np.any(p.strengths > 0, axis=1)
        assert (on_ring.sum(axis=1) == 1).all()
        assert (on_ring[1:] != on_ring[:-1]).all()  # they take turns


@pytest.mark.parametrize("dt", [100.0, 25.0])
@pytest.mark.parametrize("name", TASKS)
def test_noise_is_white_and_only_where_it_should_be(name, dt, rng):
    trials = cognitive_trials(name, 200, rng=rng, dt=dt)
    difference = trials.inputs - noise_free_trials(trials.parameters).inputs
    assert not difference[..., 0].any()
    assert not difference[..., 33:].any()
    first, second = (trials.parameters.steps[:, :stop].cumsum(axis=1)[:, -2:].T for stop in (2, 4))
    time = np.arange(trials.inputs.shape[1])
    shows = [(time >= start[:, None]) & (time < stop[:, None]) for start, stop in (first, second)]
    used = np.ones((200, 2), bool) if name in DECISIONS else trials.parameters.strengths[:, 0] > 0
    expected = (shows[0] | shows[1])[..., None] & used[:, None]
    if "go" in name or "anti" in name:
        expected[:] = False
    noise = rings(difference)
    assert ((noise != 0).mean(axis=-1)[expected] > 0.9).all()  # float32 swallows a draw now and then
    assert not noise[~expected].any()
    draws = noise[expected]
    if draws.size:
        n, sd = draws.size, 1 / np.sqrt(dt)
        assert abs(draws.mean()) < 4 * sd / np.sqrt(n)
        assert abs(draws.std() / sd - 1) < 4 / np.sqrt(2 * n)
        assert abs((draws[:, 1:] * draws[:, :-1]).mean()) < 4 * sd**2 / np.sqrt(n)
        assert abs((draws[1:] * draws[:-1]).mean()) < 4 * sd**2 / np.sqrt(n)


def test_nothing_follows_a_trial(rng):
    trials = cognitive_trials("dm1", 100, rng=rng)
    after = np.arange(trials.inputs.shape[1]) >= trials.length[:, None]
    assert after.any()
    assert not trials.inputs[after].any()
    assert not trials.labels[after].any()
    assert (trials.inputs[~after][:, 33:].sum(axis=1) == 1).all()


def test_noise_changes_nothing_else(rng):
    noisy = cognitive_trials("ctxdm2", 50, rng=np.random.default_rng(4))
    still = cognitive_trials("ctxdm2", 50, rng=np.random.default_rng(4), noise=False)
    assert (noisy.labels == still.labels).all()
    assert (noise_free_trials(noisy.parameters).inputs == still.inputs).all()


@pytest.fixture
def drawn(monkeypatch):
    """The parameters of the sequences drawn last."""
    seen = []
    draw = sequences.draw_parameters
    monkeypatch.setattr(sequences, "draw_parameters", lambda *a, **k: seen.append(draw(*a, **k)) or seen[-1])
    return seen


@pytest.mark.parametrize("n_steps", [1, 7, 100, 333])
@pytest.mark.parametrize("dt", [100.0, 20.0, 150.0])
def test_sequences_are_trials_end_to_end(n_steps, dt, rng, drawn):
    inputs, labels = cognitive_sequences(6, n_steps, rng=rng, noise=False, dt=dt)
    trials = noise_free_trials(drawn[0])
    stream = [trials.inputs[k, :length] for k, length in enumerate(trials.length)]
    assert (np.concatenate(stream) == inputs.reshape(-1, 53)).all()
    stream = [trials.labels[k, :length] for k, length in enumerate(trials.length)]
    assert (np.concatenate(stream) == labels.ravel()).all()
    whole = np.isin(trials.length.cumsum(), np.arange(1, 7) * n_steps, invert=True)
    assert whole.sum() == len(whole) - 6  # each sequence ends where a trial ends, or is cut
    for k in np.flatnonzero(whole):
        name = TASKS[trials.task[k]]
        for column, length in enumerate(LENGTHS[name]):
            if length is not None and (name, column) != ("dm1", 1):
                assert drawn[0].steps[k, column] == length * 100 // dt


def test_a_sequence_takes_tasks_at_random_and_never_the_same_twice_running(rng):
    inputs, _ = cognitive_sequences(4_000, 60, rng=rng, noise=False)
    task = inputs[:, :, 33:].argmax(axis=2)
    assert (inputs[:, :, 33:].sum(axis=2) == 1).all()
    assert_frequencies(task[:, 0], dict.fromkeys(range(20), 1 / 20))
    changes = (task[:, 1:] != task[:, :-1]).argmax(axis=1) + 1
    second = task[np.arange(len(task)), changes]
    assert_frequencies((second - task[:, 0]) % 20, dict.fromkeys(range(1, 20), 1 / 19))


def test_a_task_that_comes_again_takes_the_other_ring(rng, drawn):
    cognitive_sequences(50, 1_000, rng=rng)
    p = drawn[0]
    sequence = (p.steps.sum(axis=1).cumsum() - 1) // 1_000
    first = []
    for key in {(int(s), int(t)) for s, t in zip(sequence, p.task, strict=True) if TASKS[t] in RING_TASKS}:
        rows = np.flatnonzero((sequence == key[0]) & (p.task == key[1]))
        ring = p.strengths[rows, 0].argmax(axis=1)
        assert all(a != b for a, b in pairwise(ring.tolist()))
        first.append(ring[0])
    assert abs(np.mean(first) - 0.5) < 4 * 0.5 / np.sqrt(len(first))


def test_all_twenty_tasks_are_drawn_with_the_same_random_numbers_as_ever():
    """Written down before sequences of some of the tasks were possible: labels, and the number drawn next."""
    for n_sequences, n_steps, dt, expected, following in (
        (3, 70, 100.0, "f1635e1d641ffaba", 448649),
        (2, 41, 50.0, "e98841ad9fe9c578", 527014),
    ):
        seen = []
        for tasks in (None, TASKS, TASKS[::-1]):
            rng = np.random.default_rng(12)
            inputs, labels = cognitive_sequences(n_sequences, n_steps, rng=rng, dt=dt, tasks=tasks)
            assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == expected
            assert rng.integers(1_000_000) == following
            seen.append(inputs)
        assert (seen[0] == seen[1]).all()
        assert (seen[0] == seen[2]).all()


@pytest.mark.parametrize("tasks", [["dnms", "go", "ctxdm1"], ["dlygo", "rtgo", "dmc", "dms", "anti"]])
def test_a_sequence_of_some_tasks_takes_those_alone_at_random_under_their_own_rules(tasks, rng):
    inputs, _ = cognitive_sequences(2_000, 80, rng=rng, noise=False, tasks=tasks)
    assert (inputs[:, :, 33:].sum(axis=2) == 1).all()
    task = inputs[:, :, 33:].argmax(axis=2)
    places = sorted(TASKS.index(name) for name in tasks)
    assert_frequencies(task[:, 0], dict.fromkeys(places, 1 / len(places)))
    changes = (task[:, 1:] != task[:, :-1]).argmax(axis=1) + 1
    second = np.searchsorted(places, task[np.arange(len(task)), changes])
    hops = (second - np.searchsorted(places, task[:, 0])) % len(places)
    assert_frequencies(hops, dict.fromkeys(range(1, len(places)), 1 / (len(places) - 1)))


def test_tasks_of_a_sequence_never_come_twice_running_and_one_alone_follows_itself(rng, drawn):
    cognitive_sequences(40, 400, rng=rng, tasks=["go", "rtanti"])
    p = drawn[0]
    sequence = (p.steps.sum(axis=1).cumsum() - 1) // 400
    inside = sequence[1:] == sequence[:-1]
    assert (p.task[1:] != p.task[:-1])[inside].all()
    inputs, labels = cognitive_sequences(5, 150, rng=rng, tasks=["go"])
    assert set(drawn[1].task.tolist()) == {TASKS.index("go")}
    assert len(drawn[1].task) == 5 * 150 / 15
    ring = drawn[1].strengths[:, 0].argmax(axis=1).reshape(5, 10)
    assert (ring[:, 1:] != ring[:, :-1]).all()  # rings go on taking turns
    assert inputs.shape == (5, 150, 53)
    assert labels.shape == (5, 150)


def test_sequences_have_the_noise_of_trials(rng):
    still, _ = cognitive_sequences(40, 100, rng=np.random.default_rng(8), noise=False)
    noisy, _ = cognitive_sequences(40, 100, rng=np.random.default_rng(8))
    noise = rings(noisy - still)
    draws = noise[(noise != 0).any(axis=-1)]
    assert abs(draws.std() / 0.1 - 1) < 4 / np.sqrt(2 * draws.size)
    task = TASKS.index
    quiet = still[:, :, 33 + task("go") : 34 + task("dlyanti")].any(axis=-1)
    assert not noise[quiet].any()


def test_the_same_generator_state_gives_the_same_data():
    one, other = (cognitive_sequences(3, 50, rng=np.random.default_rng(1)) for _ in range(2))
    assert (one[0] == other[0]).all()
    assert (one[1] == other[1]).all()
    assert cognitive_trials(7, 1, rng=np.random.default_rng(0)).task[0] == TASKS.index("dm2")


def test_accuracy_looks_at_the_last_step_alone(rng):
    trials = cognitive_trials("dm1", 40, rng=rng)
    outputs = rng.normal(size=(*trials.labels.shape, 17))
    last = np.arange(40), trials.length - 1
    outputs[last] = -1.0
    outputs[(*last, trials.labels[last])] = 1.0
    assert cognitive_accuracy(outputs, trials) == 1.0
    outputs[last[0][:10], last[1][:10], 0] = 2.0  # goes on fixating in ten of forty
    assert cognitive_accuracy(outputs, trials) == 0.75


def test_always_fixating_is_right_where_the_answer_is_not_to_go(rng):
    trials = cognitive_trials("dnms", 1_000, rng=rng)
    outputs = np.zeros((*trials.labels.shape, 17))
    outputs[..., 0] = 1.0
    assert abs(cognitive_accuracy(outputs, trials) - 0.5) < 4 * 0.5 / np.sqrt(1_000)


def test_wrong_arguments_are_named(rng):
    with pytest.raises(ValueError, match=r"task must be one of go, rtgo, .*dnmc, or a place .*, got 'og'"):
        cognitive_trials("og", 1, rng=rng)
    with pytest.raises(ValueError, match=r"task must be .*, got 20"):
        cognitive_trials(20, 1, rng=rng)
    with pytest.raises(ValueError, match=r"n_trials must be at least 1, got 0"):
        cognitive_trials("go", 0, rng=rng)
    with pytest.raises(ValueError, match=r"n_sequences must be at least 1, got 0"):
        cognitive_sequences(0, 1, rng=rng)
    with pytest.raises(ValueError, match=r"n_steps must be at least 1, got -1"):
        cognitive_sequences(1, -1, rng=rng)
    for dt in (0.0, 201.0, float("nan")):
        with pytest.raises(ValueError, match=rf"dt must be above 0 and at most 200 ms, the shortest period, got {dt}"):
            cognitive_trials("go", 1, rng=rng, dt=dt)
        with pytest.raises(ValueError, match=r"dt must be above 0"):
            cognitive_sequences(1, 1, rng=rng, dt=dt)
    different = r"tasks must be a list of different names, at least one, or None for all, got"
    for tasks, said in (
        ([], rf"{different} \[\]"),
        ("go", rf"{different} 'go'"),
        (["go", "anti", "go"], rf"{different} \['go', 'anti', 'go'\]"),
        (["go", "og"], r"tasks must be among go, rtgo, .*, dnmc, got 'og'"),
    ):
        with pytest.raises(ValueError, match=said):
            cognitive_sequences(1, 1, rng=rng, tasks=tasks)
    trials = cognitive_trials("go", 2, rng=rng)
    with pytest.raises(
        ValueError, match=r"outputs must have shape \(2, 15, 17\) \(trial, time, response\), got \(2, 14, 17\)"
    ):
        cognitive_accuracy(np.zeros((2, 14, 17)), trials)
    with pytest.raises(ValueError, match=r"answer must be at least 0 and below 17, got 17 to 17"):
        replace(trials.parameters, answer=np.array([17, 17]))


@pytest.mark.usefixtures("as_users_run")
def test_parameters_of_different_trials_are_refused(rng):
    trials = cognitive_trials("go", 2, rng=rng)
    with pytest.raises(ValueError, match=r"steps must have shape \(2, 5\), as task has 2 trials; got \(3, 5\)"):
        replace(trials.parameters, steps=np.zeros((3, 5), dtype=np.int64))

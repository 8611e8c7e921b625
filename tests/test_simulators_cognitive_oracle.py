"""The cognitive tasks against neurogym 2.3.1 itself: equal to the last bit without noise, in distribution with it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from simulators import TASKS, TrialParameters, cognitive_sequences, cognitive_trials, noise_free_trials

pytest.importorskip("neurogym", reason="pip install 'emergence-lab[cognitive]'")

from neurogym.envs.collections import get_collection, yang19
from neurogym.utils.data import Dataset
from neurogym.utils.scheduler import RandomSchedule
from neurogym.wrappers.block import ScheduleEnvs

PERIODS = {  # of an environment, as fixation, first stimulus, delay, second stimulus, decision
    "_Reach": ("fixation", "stimulus", "delay", None, "decision"),
    "_DMFamily": ("fixation", "stimulus", None, None, "decision"),
    "_DMFamily delayed": ("fixation", "stim1", "delay", "stim2", "decision"),
    "_DelayMatch1DResponse": ("fixation", "sample", "delay", "test", "decision"),
}
P_VALUE = 1e-4  # a hundred comparisons are made


def environment(name, dt=100, seed=0, **settings):
    env = getattr(yang19, name)(dt=dt, **settings)
    env.reset()
    reseed(env, np.random.default_rng(seed))
    return env


def all_tasks(seed=0, **settings):
    """The training environment of ngym_usage/yang19."""
    envs = [environment(name, **settings) for name in TASKS]
    env = ScheduleEnvs(envs, RandomSchedule(len(envs)), env_input=True)
    env.reset()
    reseed(env, np.random.default_rng(seed))
    return env


def reseed(env, rng):
    """Seed every generator in an environment differently; neurogym would give all the same seed."""
    if isinstance(env, ScheduleEnvs):
        env.schedule.rng = np.random.RandomState(rng.integers(2**31))
        for inner in env.envs:
            reseed(inner, rng)
    else:
        env.unwrapped.rng = np.random.RandomState(rng.integers(2**31))


def draw(env, task, n):
    """Draw trials from an environment of one task; return what it drew, and its observations and labels."""
    rows, observations, labels = [], [], []
    for _ in range(n):
        env.new_trial()
        rows.append(parameters_of(env, task))
        observations.append(env.unwrapped.ob.copy())
        labels.append(env.unwrapped.gt.copy())
    return gathered(rows), observations, labels


def gathered(rows):
    return TrialParameters(*(np.array(column) for column in zip(*rows, strict=True)))


def parameters_of(env, task):
    """Read the parameters of the present trial from what neurogym notes of it."""
    base, drawn = env.unwrapped, env.unwrapped.trial
    kind = type(base).__name__
    reaction = getattr(base, "reaction", False)
    strengths, second = np.zeros((2, 2)), 0
    if kind == "_DMFamily":
        kind += " delayed" if base.delaycomparison else ""
        first, second = direction(drawn["theta1"]), direction(drawn["theta2"])
        for ring in (0, 1):
            strengths[:, ring] = [drawn.get(f"coh{stimulus}_mod{ring + 1}", 0.0) for stimulus in (1, 2)]
        answer = base.gt[-1]  # not noted elsewhere
        evidence = strengths @ np.array((base.w_mod1, base.w_mod2))
        if abs(evidence[0] - evidence[1]) > 1e-5:
            assert answer == (first if evidence[0] > evidence[1] else second) + 1
    elif kind == "_Reach":
        first = (drawn["ground_truth"] + 8 * drawn["anti"]) % 16
        strengths[0, env.i_env] = 1.0
        answer = drawn["ground_truth"] + 1
    else:
        first, second = direction(drawn["sample_theta"]), direction(drawn["test_theta"])
        strengths[:, env.i_env] = 1.0
        answer = second + 1 if (drawn["ground_truth"] == "match") == base.matchgo else 0
    names = [None if reaction and name in ("stimulus", "delay") else name for name in PERIODS[kind]]
    steps = [0 if name is None else base.end_ind[name] - base.start_ind[name] for name in names]
    return task, steps, (int(first), int(second)), strengths, int(answer)


def direction(theta):
    return round(theta / (2 * np.pi / 16))


def test_the_tasks_are_those_of_the_collection_in_its_order():
    assert get_collection("yang19") == [f"yang19.{name}-v0" for name in TASKS]


@pytest.mark.parametrize("dt", [100, 20, 30, 200])
@pytest.mark.parametrize("name", TASKS)
def test_trials_without_noise_equal_neurogym_to_the_last_bit(name, dt):
    task = TASKS.index(name)
    settings = {} if "go" in name or "anti" in name else {"sigma": 0}
    parameters, observations, labels = draw(environment(name, dt=dt, **settings), task, 60)
    ours = noise_free_trials(parameters)
    for k, (observation, label) in enumerate(zip(observations, labels, strict=True)):
        assert ours.length[k] == len(observation)
        assert (ours.inputs[k, : len(label), :33] == observation).all()
        assert (ours.labels[k, : len(label)] == label).all()
    assert ours.inputs.dtype == observations[0].dtype
    assert ours.labels.dtype == labels[0].dtype


def test_the_rule_and_the_order_of_trials_equal_those_of_the_schedule():
    env = all_tasks(seed=2)
    for inner in env.envs:
        for part in getattr(inner, "envs", [inner]):
            part.unwrapped.sigma = 0
    rows, observations, labels = [], [], []
    for _ in range(600):
        env.new_trial()
        rows.append(parameters_of(env.env, env.i_env))
        base: Any = env.unwrapped
        observations.append(base.ob)
        labels.append(base.gt)
    ours = noise_free_trials(gathered(rows))
    assert (ours.inputs[inside(ours)] == np.concatenate(observations)).all()
    assert (ours.labels[inside(ours)] == np.concatenate(labels)).all()
    assert all(a != b for a, b in pairwise(ours.task))
    for task in [*range(6), *range(16, 20)]:
        ring = ours.parameters.strengths[ours.task == task, 0].argmax(axis=1)
        assert all(a != b for a, b in pairwise(ring))


def features(parameters):
    """What is drawn, as one number a trial and quantity."""
    p, sample = parameters, parameters.directions[:, 0]
    contrast = np.round(100 * (p.strengths[:, 0] - p.strengths[:, 1])).astype(int)  # (trial, ring)
    drawn = {
        "steps": p.steps,
        "first": p.directions[:, :1],
        "turn": (p.directions[:, 1:] - p.directions[:, :1]) % 16,
        "strengths": np.round(100 * p.strengths[:, 0]).astype(int),
        "choice": np.stack([*contrast.T, p.answer == p.directions[:, 0] + 1], axis=1),
        "answer": np.where(p.answer > 0, (p.answer - 1 - p.directions[:, 0]) % 16, -1)[:, None],
        "category": np.stack([sample > 8, sample == 8, p.directions[:, 1] >= 8, p.answer > 0], axis=1),
    }
    return {name: [tuple(row) for row in values.tolist()] for name, values in drawn.items()}


def two_sample_p(one, other):
    """Chi-square test that two lists of values are from one distribution."""
    values = sorted({*one, *other})
    if len(values) == 1:
        return 1.0
    counts = np.array([[sample.count(value) for value in values] for sample in (one, other)])
    result: Any = chi2_contingency(counts, correction=False)
    return result.pvalue


@pytest.mark.parametrize("name", TASKS)
def test_parameters_are_distributed_as_neurogyms(name, rng):
    task = TASKS.index(name)
    parameters, *_ = draw(environment(name, seed=5), task, 800)
    theirs, ours = features(parameters), features(cognitive_trials(name, 1_600, rng=rng).parameters)
    for quantity, values in theirs.items():
        if name not in TASKS[:6] or quantity != "turn":  # there is no second stimulus
            assert two_sample_p(values, ours[quantity]) > P_VALUE, quantity
    rings = [tuple(row) for row in (parameters.strengths[:, 0] > 0).tolist()]
    assert (rings[0] != rings[1]) == (name in (*TASKS[:6], *TASKS[16:]))


def test_the_comparison_sees_a_difference(rng):
    parameters, *_ = draw(environment("dm1", seed=5), 6, 400)
    theirs, ours = features(parameters), features(cognitive_trials("dm2", 800, rng=rng).parameters)
    assert two_sample_p(theirs["steps"], ours["steps"]) < P_VALUE
    assert two_sample_p(theirs["first"], ours["first"]) > P_VALUE


@pytest.mark.parametrize("name", TASKS)
def test_noise_is_neurogyms(name, rng):
    parameters, observations, _ = draw(environment(name, seed=9), TASKS.index(name), 200)
    theirs = noise(parameters, np.concatenate(observations))
    trials = cognitive_trials(name, 200, rng=rng)
    ours = noise(trials.parameters, trials.inputs[inside(trials)][:, :33])
    assert (len(theirs) > 0) == (len(ours) > 0) == (name not in TASKS[:6])
    for draws in filter(len, (theirs, ours)):
        assert abs(draws.mean()) < 4 * 0.1 / np.sqrt(draws.size)
        assert abs(draws.std() / 0.1 - 1) < 4 / np.sqrt(2 * draws.size)


def noise(parameters, inputs):
    """Return the noise of trials end to end, having seen that it is where stimuli are shown and nowhere else."""
    still = noise_free_trials(parameters)
    difference = inputs - still.inputs[inside(still)][:, :33]
    shows = np.zeros((len(parameters.task), 5, 33), bool)  # (trial, period, unit)
    if parameters.task[0] >= 6:
        one_ring = parameters.task[0] >= 16
        used = (parameters.strengths[:, 0] > 0) if one_ring else np.ones((len(parameters.task), 2), bool)
        shows[:, [1, 3], 1:] = np.repeat(used, 16, axis=1)[:, None]
    shows = np.repeat(shows.reshape(-1, 33), parameters.steps.ravel(), axis=0)
    assert not difference[~shows].any()
    assert (difference != 0).sum() >= 0.9 * shows.sum()  # float32 swallows a draw now and then
    return difference[shows]


def inside(trials):
    """Which steps belong to the trials, (trial, time)."""
    return np.arange(trials.labels.shape[1]) < trials.length[:, None]


@pytest.mark.filterwarnings("ignore:.*to get variables from other wrappers is deprecated")
def test_sequences_are_distributed_as_those_of_the_dataset(rng):
    env = all_tasks(seed=11)
    dataset = Dataset(env, batch_size=20, seq_len=100, batch_first=True)
    for k, copy in enumerate(dataset.envs):
        reseed(copy, np.random.default_rng(100 + k))
    batches = [tuple(array.copy() for array in dataset()) for _ in range(30)]
    theirs = statistics(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))
    ours = statistics(*cognitive_sequences(2_000, 100, rng=rng))
    for name, values in theirs.items():
        difference = values.mean(axis=0) - ours[name].mean(axis=0)
        error = np.sqrt(values.var(axis=0) / len(values) + ours[name].var(axis=0) / len(ours[name]))
        assert (np.abs(difference) < 4.5 * error + 1e-12).all(), name  # some hundreds of comparisons


def statistics(inputs, labels):
    """Numbers of each sequence, (sequence, number)."""
    task = inputs[..., 33:]
    changes = (np.diff(task, axis=1) != 0).any(axis=2)
    return {
        "steps of each task": task.sum(axis=1).astype(float),
        "labels": (labels[..., None] == np.arange(17)).sum(axis=1).astype(float),
        "fixation in time": inputs[..., 0].astype(float),
        "decision in time": (labels > 0).astype(float),
        "trials": changes.sum(axis=1, keepdims=True).astype(float),
        "ends in time": changes.astype(float),
        "units": inputs[..., 1:33].mean(axis=1).astype(float),
        "squares of units": (inputs[..., 1:33] ** 2).mean(axis=1).astype(float),
    }

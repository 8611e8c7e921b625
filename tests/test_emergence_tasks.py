"""The tasks: what is asked is what the formula says, and a batch is a function of seed and step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from cases import seeded
from refusals import assert_refused
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.nn import functional as F

from emergence.data import Transitions
from emergence.recurrent import ContinuousTimeRNN
from emergence.tasks import Task
from emergence.tasks.classes import modular_addition, two_moons
from emergence.tasks.cognitive import N_INPUTS, N_OUTPUTS, CognitiveTask, task_accuracy
from emergence.tasks.datasets import dataset_task
from emergence.tasks.examples import Examples, ExampleTask
from emergence.tasks.symbolic import FORMULAS, symbolic_task
from simulators import TASKS, cognitive_trials


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


BY_HAND = {
    "independence": (4, 2, lambda a, b, c, d: [(a + c) ** 3, b * b + math.sin(math.pi * d)]),
    "feature-sharing": (3, 3, lambda a, b, c: [a * a, a * a + b * b, a * a + b * b + c * c]),
    "composition": (4, 1, lambda a, b, c, d: [math.sqrt((a - b) ** 2 + (c - d) ** 2)]),
}
"""Liu, Gan & Tegmark 2023, section 3.1."""


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas(formula):
    n_in, n_out, compute = BY_HAND[formula]
    task = symbolic_task(formula, rng=rng(), n_train=50, n_test=200)
    assert (len(task.input_names), len(task.target_names)) == (n_in, n_out)
    for examples, n in ((task.train, 50), (task.test, 200)):
        assert examples.inputs.shape == (n, n_in)
        assert examples.targets.shape == (n, n_out)
        assert examples.inputs.dtype == examples.targets.dtype == torch.float32
        expected = [compute(*x) for x in examples.inputs.double().tolist()]
        torch.testing.assert_close(examples.targets, torch.tensor(expected), rtol=0, atol=2e-6)
    x = torch.cat([task.train.inputs, task.test.inputs])
    assert x.abs().max() <= 1
    assert x.var().item() == pytest.approx(1 / 3, rel=4 * math.sqrt(0.8 / x.numel()))  # uniform on [-1, 1]


def test_formulas_are_those_of_the_paper_at_hand_picked_points():
    assert set(BY_HAND) == set(FORMULAS)
    assert BY_HAND["independence"][2](0.5, 0.5, 0.5, 0.5) == pytest.approx([1.0, 1.25])
    assert BY_HAND["feature-sharing"][2](0.5, 1.0, -1.0) == [0.25, 1.25, 2.25]
    assert BY_HAND["composition"][2](0.3, 0.0, 0.0, 0.4) == [0.5]


def test_an_unknown_formula_lists_all():
    with pytest.raises(ValueError, match="one of independence, feature-sharing, composition, got 'sine'$"):
        symbolic_task("sine", rng=rng())


def test_two_moons_lie_where_moons_lie():
    task = two_moons(rng=rng(), noise=0.0)
    for x, label in (task.train, task.test):
        x = x.double()
        upper, lower = x[label == 0], x[label == 1] - torch.tensor([1.0, 0.5])
        for moon in (upper, lower):
            torch.testing.assert_close(moon.norm(dim=1), torch.ones(len(moon)).double(), rtol=0, atol=1e-6)
        assert (upper[:, 1] >= -1e-6).all()
        assert (lower[:, 1] <= 1e-6).all()
        angle = torch.atan2(upper[:, 1], upper[:, 0])  # evenly along the arc
        assert angle.mean().item() == pytest.approx(math.pi / 2, abs=4 * math.pi / math.sqrt(12 * len(angle)))
        assert abs((label == 0).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(len(label))
    noisy, plain = two_moons(rng=rng(), noise=0.1).train.inputs, two_moons(rng=rng(), noise=0.0).train.inputs
    assert (noisy - plain).std().item() == pytest.approx(0.1, rel=4 / math.sqrt(4000))


@pytest.mark.parametrize("p", [2, 7, 59])
def test_modular_addition_has_every_pair_once(p):
    task = modular_addition(p, rng=rng(), train_fraction=0.8)
    assert len(task.train.inputs) == int(0.8 * p * p)
    pairs = torch.cat([task.train.inputs, task.test.inputs])
    assert sorted(map(tuple, pairs.tolist())) == [(a, b) for a in range(p) for b in range(p)]  # so none on both sides
    for inputs, targets in (task.train, task.test):
        assert targets.tolist() == [(a + b) % p for a, b in inputs.tolist()]
    if p == 59:  # every sum is learnt somewhere
        assert set(task.train.targets.tolist()) == set(range(p))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1}, "p must be at least 2, got 1"),
        ({"p": 5, "train_fraction": 1.0}, "train_fraction must leave pairs on both sides, got 1.0"),
        ({"p": 5, "train_fraction": 0.01}, "train_fraction must leave pairs on both sides, got 0.01"),
    ],
)
def test_modular_addition_refuses_what_leaves_nothing_to_learn_or_test(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        modular_addition(**arguments, rng=rng())


@pytest.mark.parametrize("make", [lambda r: symbolic_task("composition", rng=r), lambda r: two_moons(rng=r)])
def test_examples_are_drawn_by_the_generator(make):
    first, again, other = make(rng()), make(rng()), make(rng(1))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert not torch.equal(first.train.inputs[:100], first.test.inputs[:100])


# batches and losses


def test_every_task_is_one_to_the_training_loop():
    assert isinstance(CognitiveTask(), Task)
    assert isinstance(two_moons(rng=rng()), Task)
    assert {"training_batch", "loss"} <= set(vars(Transitions))


def test_a_batch_is_a_function_of_seed_and_step():
    task = two_moons(rng=rng())
    first = task.training_batch(3, 5, 64)
    assert torch.equal(first.inputs, task.training_batch(3, 5, 64).inputs)
    for other in (task.training_batch(4, 5, 64), task.training_batch(3, 6, 64)):
        assert not torch.equal(first.inputs, other.inputs)
    place = {tuple(x): i for i, x in enumerate(task.train.inputs.tolist())}
    drawn = [place[tuple(x)] for x in first.inputs.tolist()]
    assert torch.equal(first.targets, task.train.targets[drawn])  # what belongs together stays together
    assert task.training_batch(3, 5, 1000) is task.train
    assert task.training_batch(3, 5, 10**6) is task.train
    assert len(task.training_batch(3, 5, 999).inputs) == 999


class Fixed(nn.Module):
    """Says the same whatever it is asked."""

    def __init__(self, answers: list[list[float]]) -> None:
        super().__init__()
        self.answers = torch.tensor(answers)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answers


def test_losses_and_errors_by_hand():
    numbers = Examples(torch.zeros(2, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    task = ExampleTask(numbers, numbers)
    model = Fixed([[1.0, 2.0], [2.0, 6.0]])
    assert task.loss(model, numbers).item() == pytest.approx((0 + 0 + 1 + 4) / 4)
    assert task.error(model) == pytest.approx(5 / 4)
    classes = Examples(torch.zeros(2, 1), torch.tensor([0, 2]))
    task = ExampleTask(classes, classes)
    model = Fixed([[1.0, 0.0, -1.0], [2.0, 0.0, 0.0]])
    by_hand = [math.log(sum(map(math.exp, row))) - row[c] for row, c in (([1, 0, -1], 0), ([2, 0, 0], 2))]
    assert task.loss(model, classes).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    assert task.error(model) == 0.5


# cognitive tasks


def test_cognitive_batches_are_fresh_sequences_of_every_step():
    task = CognitiveTask(n_steps=30)
    first = task.training_batch(3, 5, 4)
    assert first.inputs.shape == (4, 30, N_INPUTS)
    assert first.labels.shape == (4, 30)
    assert first.inputs.dtype == torch.float32
    again = task.training_batch(3, 5, 4)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)
    assert first.noise_seed == again.noise_seed
    for other in (task.training_batch(4, 5, 4), task.training_batch(3, 6, 4)):
        assert not torch.equal(first.inputs, other.inputs)
        assert first.noise_seed != other.noise_seed
    rules = first.inputs[..., -len(TASKS) :]
    assert (rules.sum(-1) == 1).all()  # one task at a time
    assert CognitiveTask().training_batch(0, 1, 2).inputs.shape[1] == 100
    assert CognitiveTask(device="meta").training_batch(0, 1, 2).labels.device.type == "meta"


def test_the_cognitive_loss_is_the_mean_cross_entropy_with_noise_of_the_batch():
    task, model = CognitiveTask(n_steps=20), ContinuousTimeRNN(N_INPUTS, 16, N_OUTPUTS, seeded())
    batch = task.training_batch(0, 1, 3)
    answers = model(batch.inputs, torch.Generator().manual_seed(batch.noise_seed)).log_softmax(-1)
    by_hand = -sum(answers[s, t, batch.labels[s, t]] for s in range(3) for t in range(20)) / 60
    torch.testing.assert_close(task.loss(model, batch), by_hand)
    assert task.loss(model, batch) == task.loss(model, batch)
    assert task.loss(model, batch) != task.loss(model, batch._replace(noise_seed=1))
    quiet = F.cross_entropy(model(batch.inputs).flatten(0, 1), batch.labels.flatten())
    assert task.loss(model, batch) != quiet


class Told(nn.Module):
    """Answers by a rule of the labels, which it looks up by the inputs it is shown."""

    def __init__(self, rule: Any, n_trials: int, seed: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        draws = rng(seed)
        self.coming = [cognitive_trials(task, n_trials, rng=draws) for task in TASKS]
        self.rule = rule

    def forward(self, inputs: Tensor) -> Tensor:
        trials = self.coming.pop(0)
        assert torch.equal(inputs, torch.from_numpy(trials.inputs))
        return F.one_hot(torch.from_numpy(self.rule(trials)), N_OUTPUTS).float()


def test_accuracy_of_those_who_know_and_those_who_do_not():
    def right_at_the_end_only(trials):
        answers = np.full_like(trials.labels, 16)
        last = np.arange(len(answers)), trials.length - 1
        answers[last] = trials.labels[last]
        return answers

    def wrong_at_the_end_only(trials):
        answers = trials.labels.copy()
        last = np.arange(len(answers)), trials.length - 1
        answers[last] = (answers[last] + 1) % N_OUTPUTS
        return answers

    def fixating(trials):
        return np.zeros_like(trials.labels)

    def accuracy(rule):
        return task_accuracy(Told(rule, 50, seed=4), rng=rng(4), n_trials=50)

    assert (accuracy(lambda trials: trials.labels) == 1).all()
    assert (accuracy(right_at_the_end_only) == 1).all()
    assert (accuracy(wrong_at_the_end_only) == 0).all()
    shares = dict(zip(TASKS, accuracy(fixating), strict=True))
    matching = {"dms", "dnms", "dmc", "dnmc"}  # a match or none, evenly: half of the answers are to do nothing
    assert all(shares[task] == 0 for task in TASKS if task not in matching)
    mean = np.mean([shares[task] for task in matching])
    assert abs(mean - 0.5) < 4 * 0.5 / math.sqrt(4 * 50)


@pytest.mark.parametrize(
    ("name", "n", "n_inputs", "classes"),
    [("digits", 1797, 64, 10), ("breast-cancer", 569, 30, 2), ("diabetes", 442, 10, 0)],
)
def test_real_data_are_whole_standardized_and_apart(name, n, n_inputs, classes):
    task = dataset_task(name, rng=rng())
    n_train, n_test = len(task.train.inputs), len(task.test.inputs)
    assert (n_train + n_test, task.train.inputs.shape[1], n_test) == (n, n_inputs, n // 4)
    assert len(task.input_names) == n_inputs
    mean, deviation = task.train.inputs.mean(0), task.train.inputs.std(0, correction=0)
    torch.testing.assert_close(mean, torch.zeros(n_inputs), rtol=0, atol=1e-5)
    assert all(abs(d - 1) < 1e-4 or d == 0 for d in deviation.tolist())  # some pixels are never lit
    assert abs(task.test.inputs.mean()) < 4 / math.sqrt(n_test)  # columns that all rise together count as one
    if classes:
        assert task.train.targets.unique().tolist() == list(range(classes))
        assert len(task.target_names) == classes
    else:
        assert task.train.targets.shape == (n_train, 1)
        assert task.train.targets.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    again, other = dataset_task(name, rng=rng()), dataset_task(name, rng=rng(1))
    assert torch.equal(task.test.inputs, again.test.inputs)
    assert not torch.equal(task.test.targets, other.test.targets)


def test_inputs_and_targets_of_real_data_belong_together():
    data: Any = load_breast_cancer()
    task = dataset_task("breast-cancer", rng=rng())
    of_row = {tuple(row): target for row, target in zip(data.data.round(4).tolist(), data.target, strict=True)}
    order = rng().permutation(len(data.data))
    test, train = order[: len(data.data) // 4], order[len(data.data) // 4 :]
    back = task.test.inputs.double().numpy() * data.data[train].std(0) + data.data[train].mean(0)
    assert np.abs(back - data.data[test]).max() < 1e-2
    assert task.test.targets.tolist() == [of_row[tuple(row)] for row in data.data[test].round(4).tolist()]


def test_unknown_data_and_fractions_are_refused():
    assert_refused(dataset_task, "mnist", rng=rng(), message="name must be one of digits, breast-cancer, diabetes")
    assert_refused(dataset_task, "digits", rng=rng(), test_fraction=1.0, message="test_fraction must leave examples")

"""The study of forgetting: sequences of tasks, when each is left, and what findings make of a table."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from micro_study import contents
from scipy import stats

from emergence.cli import main
from emergence.studies.next_layer_attention.forgetting.config import ForgettingRun, ForgettingStudyConfig
from emergence.studies.next_layer_attention.forgetting.figures import kept_figure, rules_figure, second_task_figure
from emergence.studies.next_layer_attention.forgetting.findings import (
    accuracies,
    at_chosen_rates,
    first_over_second,
    of_run,
    over_rates,
    summarize,
)
from emergence.studies.next_layer_attention.forgetting.page import verdict
from emergence.studies.next_layer_attention.forgetting.sequences import n_outputs, sequence
from emergence.studies.next_layer_attention.forgetting.study import learn, run_forgetting_study
from emergence.studies.next_layer_attention.networks import rule_network

SMALL = ForgettingStudyConfig(
    rules=("backpropagation", "absolute"),
    n_tasks=3,
    depth=2,
    width=16,
    criterion=0.9,
    n_steps_at_most=60,
    check_every=4,
    learning_rates=(3e-3,),
    seeds=(0, 1),
)


def stages_of(name: Any, n_tasks: int = 3, seed: int = 0):
    return sequence(name, n_tasks, rng=np.random.default_rng(seed))


def network(rule: Any = "backpropagation", sizes: tuple[int, int] = (64, 2)) -> torch.nn.Module:
    return rule_network(rule, 2, 16, sizes, drop=0.0, generator=torch.Generator().manual_seed(0))


# sequences


def test_pairs_of_digits_share_no_picture_and_no_digit():
    stages = stages_of("split-digits", 5)
    inputs = [torch.cat([s.task.train.inputs, s.validation.inputs, s.task.test.inputs]) for s in stages]
    assert sum(map(len, inputs)) == 1797  # every picture of scikit-learn's once
    for stage in stages:
        for part in (stage.task.train, stage.validation, stage.task.test):
            assert set(part.targets.tolist()) == {0, 1}
            assert abs(part.targets.double().mean() - 0.5) < 0.15
    assert n_outputs("split-digits") == 2


def test_pixels_of_later_tasks_are_in_another_order_the_same_for_all_pictures():
    first, second, third = stages_of("permuted-digits")
    assert n_outputs("permuted-digits") == 10
    for stage in (second, third):
        assert torch.equal(stage.task.train.targets, first.task.train.targets)
        assert not torch.equal(stage.task.train.inputs, first.task.train.inputs)
        for part, plain in ((stage.task.train, first.task.train), (stage.task.test, first.task.test)):
            torch.testing.assert_close(part.inputs.sort(1).values, plain.inputs.sort(1).values)
    column = second.task.train.inputs[:, 20]
    source = [i for i in range(64) if torch.equal(first.task.train.inputs[:, i], column)]
    assert source
    assert any(torch.equal(first.task.test.inputs[:, i], second.task.test.inputs[:, 20]) for i in source)
    assert not torch.equal(second.task.train.inputs, third.task.train.inputs)


@pytest.mark.parametrize("name", ["split-digits", "permuted-digits"])
def test_a_sequence_is_a_function_of_its_seed(name):
    again, other = stages_of(name), stages_of(name, seed=1)
    for stage, same, differs in zip(stages_of(name), again, other, strict=True):
        assert torch.equal(stage.task.train.inputs, same.task.train.inputs)
        assert stage.task.train.inputs.shape != differs.task.train.inputs.shape or not torch.equal(
            stage.task.train.inputs, differs.task.train.inputs
        )


# when a task is left


def test_a_task_is_left_at_the_first_look_that_finds_it_learnt():
    stage, m = stages_of("split-digits")[0], network()
    run = ForgettingRun("backpropagation", 3e-3, 0)
    looks = [(step, stage.accuracy_on_validation(m)) for step in learn(m, stage, SMALL, run)]
    steps = [step for step, _ in looks]
    assert steps == list(range(0, steps[-1] + 1, SMALL.check_every))
    assert looks[-1][1] >= SMALL.criterion
    assert all(accuracy < SMALL.criterion for step, accuracy in looks[:-1] if step)


def test_a_task_that_is_known_is_left_at_the_first_look_after_the_start():
    run = ForgettingRun("backpropagation", 3e-3, 0)
    assert list(learn(network(), stages_of("split-digits")[0], replace(SMALL, criterion=0.01), run)) == [0, 4]


def test_a_task_that_is_not_learnt_is_left_at_the_last_step():
    stage, m = stages_of("split-digits")[0], network()
    config = replace(SMALL, criterion=0.9999, n_steps_at_most=10)
    run = ForgettingRun("backpropagation", 1e-6, 0)
    assert list(learn(m, stage, config, run)) == [0, 4, 8, 10]


# the study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forgetting") / "study"
    return folder, run_forgetting_study(SMALL, folder, n_workers=1)


def test_a_study_writes_its_page_and_is_not_done_twice(finished):
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 4
    assert verdict(summary).startswith("Accuracy lost by the end, against backpropagation: attention |w| forgets")
    measured = {name: digest for name, digest in contents(folder).items() if name.startswith("measurements")}
    assert run_forgetting_study(SMALL, folder, n_workers=1) == summary
    assert {name: contents(folder)[name] for name in measured} == measured


def test_rules_of_a_seed_begin_alike_and_are_measured_in_every_task(finished):
    table: Any = pd.read_parquet(finished[0] / "measurements.parquet")
    begun = table[(table.quantity == "first") & (table.step == 0)]
    assert len(begun) == 4
    kept = table[table.quantity == "accuracy"]
    assert kept.groupby(["rule", "seed"]).size().eq(9).all()
    at_the_end = kept[(kept["after"] == 1) & (kept.of <= 1)]
    for name, of in (("first", 0), ("second", 1)):
        last = table[table.quantity == name].sort_values("step").groupby(["rule", "seed"]).value.last()
        same = at_the_end[at_the_end.of == of].set_index(["rule", "seed"]).value
        assert (last - same).abs().max() == 0


def test_squared_attention_forgets_what_backpropagation_forgets(tmp_path):
    config = replace(SMALL, rules=("backpropagation", "squared"), seeds=(0,), n_tasks=2)
    summary = run_forgetting_study(config, tmp_path, n_workers=1)
    true, ours = summary["rules"]
    for quantity in ("first_accuracy", "drop", "average", "steps"):
        assert ours[quantity]["mean"] == true[quantity]["mean"]
    assert verdict(summary).startswith("Nothing to compare")


# findings, from planted tables


def planted(
    rule: str, rate: float, seed: int, kept: list[list[float]], steps: list[int], validation: float = 0.1
) -> Any:
    rows = [("accuracy", a, o, 0, value) for a, row in enumerate(kept) for o, value in enumerate(row)]
    rows += [("steps", a, a, n, float(n)) for a, n in enumerate(steps)]
    rows += [("is_learnt", a, a, n, 1.0) for a, n in enumerate(steps)]
    rows += [("validation_error", len(steps) - 1, -1, steps[-1], validation)]
    rows += [("first", 1, 0, step, value) for step, value in ((0, kept[0][0]), (9, kept[1][0]))]
    rows += [("second", 1, 1, step, value) for step, value in ((0, kept[0][1]), (9, kept[1][1]))]
    table = pd.DataFrame(rows, columns=["quantity", "after", "of", "step", "value"])
    return table.assign(moment="end", **asdict(ForgettingRun(rule, rate, seed)))  # type: ignore[arg-type]


KEPT = [[0.9, 0.5, 0.4], [0.7, 0.8, 0.5], [0.6, 0.7, 1.0]]


def test_what_a_network_kept_is_counted_by_hand():
    found = of_run(planted("absolute", 1e-3, 0, KEPT, [10, 20, 60]))
    expected = {"first_accuracy": 0.9, "second_drop": 0.2, "drop": (0.3 + 0.1) / 2, "average": 2.3 / 3}
    assert found == pytest.approx(expected | {"steps": 30, "learnt": 1})


def test_the_rate_is_that_of_the_best_validation_over_all_tasks():
    table = pd.concat(
        [
            planted("absolute", 1e-3, 0, KEPT, [30, 1, 1], validation=0.3),
            planted("absolute", 3e-3, 0, KEPT, [20, 99, 99], validation=0.2),
            planted("absolute", 1e-2, 0, KEPT, [10, 1, 1], validation=0.25),
        ]
    )
    assert at_chosen_rates(table).learning_rate.unique().tolist() == [3e-3]
    steps = over_rates(table).steps
    assert steps.to_dict() == {("absolute", 1e-3, 0): 32 / 3, ("absolute", 3e-3, 0): 218 / 3, ("absolute", 1e-2, 0): 4}


def summary_of(drops: dict[str, list[float]], first: dict[str, float]) -> Any:
    tables = []
    for rule, of_rule in drops.items():
        for seed, drop in enumerate(of_rule):
            kept = [[first[rule], 0.5], [first[rule] - drop, 0.9]]
            tables.append(planted(rule, 1e-3, seed, kept, [10, 10]))
    config = replace(SMALL, rules=tuple(drops), n_tasks=2, seeds=(0, 1, 2))  # type: ignore[arg-type]
    return summarize(pd.concat(tables, ignore_index=True), config)


def test_differences_are_paired_and_matched_rules_are_known():
    drops = {"backpropagation": [0.30, 0.40, 0.50], "absolute": [0.21, 0.30, 0.41], "competitive": [0.4, 0.3, 0.6]}
    summary = summary_of(drops, {"backpropagation": 0.95, "absolute": 0.94, "competitive": 0.9})
    absolute, competitive = summary["rules"][1:]
    test = stats.ttest_rel(drops["absolute"], drops["backpropagation"])
    found = absolute["drop_difference"]
    assert found["mean"] == pytest.approx(-0.28 / 3)
    assert found["interval"] == pytest.approx(list(test.confidence_interval()))
    assert absolute["is_matched"]
    assert not competitive["is_matched"]
    told = verdict(summary)
    assert "attention |w| forgets less, -9.3 points [-10.8, -7.9]" in told
    assert "attention competitive forgets as much, as far as can be told (not matched in the first task)" in told


def test_first_over_second_is_read_where_the_second_first_got_there():
    rows = pd.concat(
        [
            pd.DataFrame({"quantity": "first", "step": [0, 1, 2, 3], "value": [0.9, 0.8, 0.6, 0.5]}),
            pd.DataFrame({"quantity": "second", "step": [0, 1, 2, 3], "value": [0.5, 0.7, 0.65, 0.8]}),
        ]
    )
    found = first_over_second(rows, np.array([0.5, 0.6, 0.7, 0.75, 0.9]))
    np.testing.assert_array_equal(found, [0.9, 0.8, 0.8, 0.5, np.nan])


def test_figures_show_what_was_planted():
    config = replace(SMALL, rules=("backpropagation", "absolute"), n_tasks=3, seeds=(0, 1))
    table = pd.concat(
        [planted(rule, 1e-3, seed, KEPT, [10, 20, 60]) for rule in config.rules for seed in config.seeds],
        ignore_index=True,
    )
    np.testing.assert_allclose(accuracies(table), KEPT)
    summary = summarize(table, config)
    panels: list[Any] = rules_figure(summary).axes
    means = [line.get_xdata()[0] for line in panels[1].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, [0.2, 0.2])
    texts = [text.get_text() for text in kept_figure(table, config).axes[0].texts]
    assert texts == [f"{100 * value:.0f}" for row in KEPT for value in row]
    line: Any = second_task_figure(table, config).axes[0].lines[0]
    assert np.asarray(line.get_ydata())[[0, -1]].tolist() == [0.9, 0.7]
    assert 0.78 < line.get_xdata()[-1] <= 0.8  # nobody got further


# refusals


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": "split"}, "task must be one of split-digits, permuted-digits, got split"),
        ({"rules": ("hebb",)}, "rules must be among squared, absolute"),
        ({"n_tasks": 6}, "n_tasks must be from 2 to 5, got 6"),
        ({"n_tasks": 1}, "n_tasks must be from 2 to 5, got 1"),
        ({"criterion": 1.0}, "criterion must be between zero and one, got 1.0"),
        ({"learning_rates": (0.0,)}, "learning_rates must be positive"),
        ({"seeds": (0, 0)}, "seeds"),
        ({"check_every": 0}, "check_every must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        ForgettingStudyConfig(**wrong)


def test_the_command_refuses_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["next-layer", "split-digit"]) == 2
    assert "unknown task split-digit; did you mean split-digits?" in capsys.readouterr().err
    assert main(["next-layer", "split-digits", "--n-tasks", "7"]) != 0
    assert "n_tasks must be from 2 to 5, got 7" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

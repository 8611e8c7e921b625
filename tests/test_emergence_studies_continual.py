"""Continual studies: losses at matched accuracy on planted courses, both stages on small networks, the command."""

import json
import shutil
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from emergence.cli import main
from emergence.interventions.spatial import ArmName, Spatial
from emergence.recurrent import ContinuousTimeRNN
from emergence.studies.spatial.continual.config import ContinualStudyConfig
from emergence.studies.spatial.continual.courses import Course, levels_to, matched_accuracy
from emergence.studies.spatial.continual.findings import summarize
from emergence.studies.spatial.continual.stages import N_WARMUP_STEPS, _as_at_the_end, all_tasks, new_stage, old_stage
from emergence.studies.spatial.continual.study import run_continual_study
from emergence.tasks.cognitive import CognitiveTask, task_accuracy
from emergence.tasks.several import SeveralCognitive, SeveralOutputs
from emergence.tasks.symbolic import symbolic_task
from simulators import TASKS, cognitive_accuracy, cognitive_trials

TINY = ["--n-steps", "60", "--n-new-steps", "40", "--seeds", "0", "1", "--n-checkpoints", "4", "--n-workers", "1"]


def course(new, old, arm: Any = "none", seed=0) -> Any:
    return Course(arm, seed, np.arange(len(new), dtype=float), np.array(old, dtype=float), np.array(new, dtype=float))


def first_at(run, level):
    found = run.first_at(level)
    assert found is not None
    return found


# --- where accuracy is matched


def test_accuracy_is_read_where_the_new_tasks_first_reach_a_level():
    run = course([0.0, 0.2, 0.6, 0.1, 0.7], [[1.0, 0.9], [0.8, 0.9], [0.4, 0.5], [0.9, 0.9], [0.3, 0.1]])
    step, old = first_at(run, 0.3)
    assert old == pytest.approx([0.7, 0.8])
    assert np.log1p(step) == pytest.approx(np.log(2) + 0.25 * np.log(3 / 2))
    assert first_at(run, 0.6)[1] == pytest.approx([0.4, 0.5])
    assert first_at(run, 0.65)[1] == pytest.approx([0.9 - 0.6 * 0.55 / 0.6, 0.9 - 0.8 * 0.55 / 0.6])
    assert first_at(run, 0.0)[0] == 0
    assert first_at(run, -1.0)[1] == pytest.approx([1.0, 0.9])
    assert run.first_at(0.71) is None
    assert np.isnan(run.mean_old_at(np.array([0.3, 0.71]))).tolist() == [[False, False], [True, True]]


def test_the_threshold_is_the_highest_whole_percent_that_every_run_reaches():
    config = ContinualStudyConfig()
    runs = [course([0.2, 0.876, 0.5], np.ones((3, 1))), course([0.1, 0.3, 0.9], np.ones((3, 1)))]
    assert matched_accuracy(runs, config) == pytest.approx(0.87)
    assert matched_accuracy([*runs, course([0.0, 0.29], np.ones((2, 1)))], config) == pytest.approx(0.29)
    assert matched_accuracy([*runs, course([0.0, 0.2], np.ones((2, 1)))], config) is None  # one began there
    assert matched_accuracy(runs, ContinualStudyConfig(threshold=0.95)) == 0.95
    levels = levels_to(0.87, runs)
    assert levels[[0, -1]] == pytest.approx([0.2 + 0.67 / 50, 0.87])


# --- planted losses

SLOPES = {"none": (0.5, 0.6, 0.4), "l1": (0.3, 0.35, 0.1), "full": (0.2, 0.1, 0.3)}
PLANTED = ContinualStudyConfig(
    example="feature-sharing", arms=("none", "l1", "full"), threshold=0.8, later_prices=(1.0, 0.0), tolerance=0.05
)


def planted(config=PLANTED, slopes=SLOPES, before=None, reached=None):
    """Old accuracy that falls by a slope of arm and seed times new accuracy, which rises to 0.9 at step 9."""
    first, second, new = config.names
    rows = []
    for run in config.runs:
        slope, start = slopes[run.arm][run.seed], (before or {}).get(run.arm, 0.95)
        for later in config.prices_later(run.arm):
            top = (reached or {}).get((run.arm, run.seed), 0.9)
            for step in range(10):
                rise = top * step / 9
                for task, accuracy in ((first, 0.9 - slope * rise), (second, start - slope * rise), (new, rise)):
                    rows.append((run.arm, run.strength, run.seed, later, step, task, accuracy, np.nan))
    columns = ["arm", "strength", "seed", "later_price", "step", "task", "accuracy", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def difference(condition, other, quantity="drop"):
    (found,) = (d for d in condition["differences"] if d["less"] == other and d["quantity"] == quantity)
    return found


def test_planted_losses_and_their_differences_come_back_with_student_intervals():
    summary = summarize(planted(), PLANTED)
    assert [found["later_price"] for found in summary["conditions"]] == [1.0, 0.0]
    condition = summary["conditions"][0]
    assert condition["threshold"] == 0.8
    for entry in condition["arms"]:
        assert entry["n_reached"] == 3
        assert entry["drop"]["values"] == pytest.approx(0.8 * np.array(SLOPES[entry["arm"]]))
        # the mean of slope times level over levels from 0 to the threshold
        on_the_way = np.array(SLOPES[entry["arm"]]) * 0.8 * 51 / 100
        assert entry["drop_on_the_way"]["values"] == pytest.approx(on_the_way)
    for other in ("l1", "none"):
        paired = 0.8 * (np.array(SLOPES["full"]) - np.array(SLOPES[other]))
        found = difference(condition, other)
        interval = stats.ttest_1samp(paired, 0).confidence_interval(0.95)
        assert found["mean"] == pytest.approx(paired.mean())
        assert found["interval"] == pytest.approx(list(interval))
        assert (found["n_seeds"], found["n_matched"], found["n_cells"]) == (3, 6, 6)
    assert summary["before"][0]["accuracy"]["mean"] == pytest.approx(0.925)
    assert summary["before_differences"][0]["mean"] == pytest.approx(0.0)
    assert summary["conditions"][1]["arms"][0]["drop"] == condition["arms"][0]["drop"]  # the arm without a price


def test_each_later_price_is_a_condition_of_its_own():
    """Arms that pay nothing while the new tasks are learnt lose half as much; the arm without a price is the same."""
    table = planted()
    kept = table.task.eq(PLANTED.new_tasks[0]) | table.later_price.eq(1.0)
    halved = table.assign(accuracy=table.accuracy.where(kept, 0.5 * table.accuracy))
    one, zero = summarize(halved, PLANTED)["conditions"]
    for entry, later in zip(one["arms"], zero["arms"], strict=True):
        ratio = 1.0 if entry["arm"] == "none" else 0.5
        assert later["drop"]["mean"] == pytest.approx(ratio * entry["drop"]["mean"])


def test_old_tasks_that_an_arm_knew_less_well_are_not_compared():
    condition = summarize(planted(before={"full": 0.8}), PLANTED)["conditions"][0]
    assert (difference(condition, "l1")["n_matched"], difference(condition, "l1")["n_cells"]) == (3, 6)
    nothing = planted(before={"full": 0.8}).assign(
        accuracy=lambda t: t.accuracy.where(t.arm != "full", t.accuracy - 0.2)
    )
    found = difference(summarize(nothing, PLANTED)["conditions"][0], "none")
    assert (found["n_matched"], found["n_seeds"], found["mean"]) == (0, 0, None)


def test_seeds_that_never_reach_the_threshold_are_counted_and_left_out():
    condition = summarize(planted(reached={("l1", 1): 0.7}), PLANTED)["conditions"][0]
    assert [entry["n_reached"] for entry in condition["arms"]] == [3, 2, 3]
    assert condition["arms"][1]["drop"]["values"][1] is None
    assert condition["arms"][1]["drop"]["mean"] == pytest.approx(0.8 * np.mean([0.3, 0.1]))
    found = difference(condition, "l1")
    assert found["n_seeds"] == 2
    assert found["mean"] == pytest.approx(0.8 * np.mean([0.2 - 0.3, 0.3 - 0.1]))
    assert difference(condition, "none")["n_seeds"] == 3
    nobody = summarize(planted(reached={("l1", seed): 0.7 for seed in range(3)}), PLANTED)["conditions"][0]
    assert (difference(nobody, "l1")["mean"], difference(nobody, "l1")["n_seeds"]) == (None, 0)
    assert nobody["arms"][1]["steps"]["mean"] is None


# --- tasks that are learnt a few at a time


def test_explained_variance_is_one_for_the_formula_and_zero_for_a_constant_and_worse(rng):
    tasks = SeveralOutputs(symbolic_task("feature-sharing", rng=rng))
    assert tasks.names == ("x1²", "x1²+x2²", "x1²+x2²+x3²")

    class Answers(nn.Module):
        def forward(self, x):
            right = (x**2).cumsum(1)
            return torch.stack([right[:, 0], right[:, 1].mean().expand(len(x)), -3 * right[:, 2]], dim=1)

    accuracy, _ = tasks.accuracy(Answers(), rng=rng, n_trials=1)
    assert accuracy == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)

    class Shifted(Answers):
        def forward(self, x):
            return super().forward(x) + 0.1

    explained = 1 - 0.1**2 / (4 / 45)  # the variance of the square of a number uniform on [-1, 1] is 4/45
    assert tasks.accuracy(Shifted(), rng=rng, n_trials=1)[0][0] == pytest.approx(explained, abs=0.02)


def test_outputs_that_are_left_out_of_the_loss_do_not_move(rng):
    tasks = SeveralOutputs(symbolic_task("feature-sharing", rng=rng))
    model = nn.Linear(3, 3)
    task = tasks.some(["x1²+x2²+x3²"])
    batch = task.training_batch(0, 1, 10**6)
    loss = task.loss(model, batch)
    assert loss.item() == pytest.approx((model(batch.inputs) - batch.targets)[:, 2].square().mean().item())
    loss.backward()
    assert model.bias.grad is not None
    assert (model.bias.grad != 0).tolist() == [False, False, True]


def test_cognitive_tasks_are_learnt_and_measured_a_few_at_a_time(generator):
    assert SeveralCognitive().names == TASKS
    task = SeveralCognitive().some(["dms", "go"])
    assert task == CognitiveTask(tasks=("dms", "go"))
    rules = task.training_batch(0, 1, 20).inputs[:, :, 33:].sum((0, 1))
    assert set(rules.nonzero().flatten().tolist()) == {TASKS.index("dms"), TASKS.index("go")}
    model = ContinuousTimeRNN(53, 8, 17, generator)
    found = task_accuracy(model, rng=np.random.default_rng(1), n_trials=40, tasks=["dnms", "go"])
    rng = np.random.default_rng(1)
    for task_name, share in zip(["dnms", "go"], found, strict=True):
        trials = cognitive_trials(task_name, 40, rng=rng)
        answers = model(torch.from_numpy(trials.inputs)).detach().numpy()
        assert share == pytest.approx(cognitive_accuracy(answers, trials))


# --- the two stages


def read_out(model):
    """Weights of the output layer, a row an output."""
    return model.get_parameter("linear2.weight").detach().numpy()


@pytest.mark.parametrize("arm", ["none", "full"])
def test_the_second_stage_begins_where_the_first_ended(tmp_path, arm: ArmName):
    config = ContinualStudyConfig(arms=(arm,), seeds=(3,), n_steps=800, n_new_steps=30, n_checkpoints=2)
    old = old_stage(tmp_path, config, config.runs[0])
    old.train()
    new = new_stage(tmp_path, config, config.runs[0], old, 1.0)
    new.train()
    (before, places), (begin, same_places) = old.load(800), new.load(0)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), begin.parameters(), strict=True))
    assert all(torch.equal(places.positions[name], at) for name, at in same_places.positions.items())
    assert arm == "none" or not torch.equal(places.positions["input"], old.load(0)[1].positions["input"])
    assert all(name.startswith("intervention/") for name in new.checkpoints.training_state(0))  # a fresh optimizer
    moved = (read_out(new.load(30)[0]) != read_out(begin)).any(axis=1)
    assert moved.tolist() == [arm == "full", True]  # wire that is paid for shrinks; else only the new output moves


def test_the_second_stage_goes_on_with_rate_and_swaps_and_takes_the_price_as_it_stood(tmp_path):
    config = ContinualStudyConfig(arms=("full",), seeds=(0,))
    old = old_stage(tmp_path, config, config.runs[0])
    new, half = (new_stage(tmp_path, config, config.runs[0], old, factor).example for factor in (1.0, 0.5))
    assert new.spatial.schedule == ((0.0, 1.0),)
    assert half.spatial.schedule == ((0.0, 0.5),)
    assert (new.spatial.biases_from, new.spatial.swap_every) == (0.0, old.example.spatial.swap_every)
    assert new.training.optimizer == old.example.training.optimizer
    assert (old.example.training.n_steps, new.training.n_steps) == (20_000, 5_000)
    assert (new.training.n_warmup_steps, new.training.n_decay_steps) == (N_WARMUP_STEPS, 0)
    later = _as_at_the_end(Spatial(schedule=((0.0, 1.0), (0.25, 3.0))), 2.0)
    assert later.schedule == ((0.0, 6.0),)


def test_the_first_stage_learns_the_old_tasks_alone(tmp_path):
    config = ContinualStudyConfig(arms=("none",), seeds=(0,), n_steps=1500)
    old = old_stage(tmp_path, config, config.runs[0])
    old.train()
    begin, end = (old.load(step)[0] for step in (0, 1500))
    assert (read_out(begin) != read_out(end)).any(axis=1).tolist() == [True, False]
    accuracy, _ = all_tasks(config, 0).accuracy(end, rng=np.random.default_rng(0), n_trials=1)
    assert accuracy[0] > 0.95
    assert accuracy[1] < 0.2


# --- settings


def test_settings_say_which_tasks_are_new_and_what_each_arm_pays():
    config = ContinualStudyConfig(example="cognitive", strengths=(1.0, 5.0, 2.0), seeds=(0, 1))
    assert config.new_tasks == ("dms", "dnms", "dmc", "dnmc")
    assert config.old_tasks == TASKS[:16]
    assert [(run.arm, run.strength, run.seed) for run in config.runs][2:5] == [
        ("l1", 5.0, 0),
        ("l1", 5.0, 1),
        ("full", 2.0, 0),
    ]
    assert config.runs[0].strength == 1.0
    assert ContinualStudyConfig(example="cognitive", new=("dmc", "go")).new_tasks == ("go", "dmc")
    assert ContinualStudyConfig(example="feature-sharing").old_tasks == ("x1²", "x1²+x2²")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"new": ("og",)}, r"new must be distinct, some but not all of \(x1\+x3\)³, .*, got \('og',\)"),
        ({"example": "cognitive", "new": TASKS}, r"new must be distinct, some but not all of go, rtgo, .*dnmc, got"),
        ({"example": "cognitive", "new": ("go", "go")}, r"new must be distinct, .*got \('go', 'go'\)"),
        ({"strengths": (1.0, 2.0)}, r"strengths must be positive, one or one for each of 3 arms, got \(1.0, 2.0\)"),
        ({"strengths": (0.0,)}, r"strengths must be positive, .* got \(0.0,\)"),
        ({"later_prices": (-1.0,)}, r"later_prices must be zero or positive, got \(-1.0,\)"),
        ({"later_prices": ()}, r"later_prices must be distinct, and at least one, got \(\)"),
        ({"seeds": (1, 1)}, r"seeds must be distinct, and at least one, got \(1, 1\)"),
        ({"threshold": 1.2}, r"threshold must be in \(0, 1\], got 1.2"),
        ({"n_new_steps": 0}, r"continual study.n_new_steps must be at least 1, got 0"),
        ({"tolerance": -0.1}, r"tolerance must be zero or positive, got -0.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        ContinualStudyConfig(**changes)


# --- the command


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continual") / "study"
    assert main(["spatial", "continual", *TINY, "--out", str(folder)]) == 0
    return folder


def test_the_command_writes_findings_a_figure_and_a_page(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["old"], summary["new"]) == (["(x1+x3)³"], ["x2²+sin πx4"])
    assert len(summary["conditions"]) == 2
    table = pd.read_parquet(finished / "measurements.parquet")
    assert sorted(table.later_price[table.arm == "none"].unique()) == [1.0]
    assert sorted(table.later_price[table.arm == "full"].unique()) == [0.0, 1.0]
    steps = sorted(table.step.unique())
    assert (steps[0], steps[-1]) == (0, 40)
    first = table[(table.step == 0) & (table.arm == "full")]
    assert first.groupby(["seed", "task"]).accuracy.nunique().max() == 1  # both conditions begin at one network
    page = (finished / "report.html").read_text()
    for heading in ("Before: are the arms alike in the old tasks?", "What the new tasks cost", "Arm against arm"):
        assert heading in page
    assert "<svg" in page
    assert (finished / "figures" / "interference.png").is_file()


def test_a_study_that_was_stopped_goes_on_to_the_same_table(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    before = (copy / "measurements.parquet").read_bytes()
    (copy / "measurements" / "full_1" / "seed_1.parquet").unlink()
    shutil.rmtree(copy / "new_1" / "checkpoints" / "full_1" / "seed_1" / "step_00000040")
    shutil.rmtree(copy / "new_0" / "checkpoints" / "full_1" / "seed_1")
    assert main(["spatial", "continual", *TINY, "--out", str(copy)]) == 0
    assert (copy / "measurements.parquet").read_bytes() == before
    assert main(["spatial", "continual", *TINY, "--threshold", "0.5", "--out", str(copy)]) == 1
    assert "holds a study with other settings (threshold" in capsys.readouterr().err


def test_the_command_line_names_what_it_does_not_know(capsys):
    assert main(["spatial", "continuall"]) == 2
    assert "did you mean continual?" in capsys.readouterr().err
    assert main(["spatial", "continual", "--n-stepps", "3"]) == 2
    assert "did you mean --n-steps?" in capsys.readouterr().err


def test_the_recurrent_network_learns_and_forgets_end_to_end(tmp_path, monkeypatch):
    draws = []
    measure = SeveralCognitive.accuracy

    def watched(self, model, *, rng, n_trials):
        draws.append(deepcopy(rng).random())
        return measure(self, model, rng=rng, n_trials=n_trials)

    monkeypatch.setattr(SeveralCognitive, "accuracy", watched)
    config = ContinualStudyConfig(
        example="cognitive", arms=("l1", "full"), seeds=(0,), later_prices=(1.0,), n_steps=2, n_new_steps=2, n_trials=4
    )
    summary = run_continual_study(config, tmp_path / "study", n_workers=1)
    assert summary["new"] == ["dms", "dnms", "dmc", "dnmc"]
    table = pd.read_parquet(tmp_path / "study" / "measurements.parquet")
    assert sorted(table.task.unique()) == sorted(TASKS)
    assert table.accuracy.between(0, 1).all()
    assert (len(draws), len(set(draws))) == (6, 1)  # the same trials for both arms, at steps 0, 1 and 2
    assert (tmp_path / "study" / "report.html").is_file()

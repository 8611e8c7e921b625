"""The study of next-layer attention: rules that differ in the way back alone, findings that follow from the table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import assert_refused
from torch import nn

from emergence.checkpoints import Checkpoints
from emergence.cli import main
from emergence.interventions import next_layer_attention
from emergence.interventions.next_layer_attention import ATTENTIONS, FEEDBACKS
from emergence.studies.layers import Layer
from emergence.studies.next_layer_attention.config import RULES, NextLayerStudyConfig
from emergence.studies.next_layer_attention.figures import (
    RULE_LABELS,
    alignment_figure,
    middle_depth,
    over_depth_figure,
    silenced_figure,
)
from emergence.studies.next_layer_attention.findings import CROSSING, steps_to_half, summarize, wins
from emergence.studies.next_layer_attention.measuring import SHARES, measure, measure_trained, silenced_error
from emergence.studies.next_layer_attention.networks import rule_network
from emergence.studies.next_layer_attention.page import verdict
from emergence.studies.next_layer_attention.study import run_next_layer_study
from emergence.tasks.examples import Examples, ExampleTask
from emergence.training import train

SMALL = NextLayerStudyConfig(
    task="diabetes",
    rules=("backpropagation", "squared", "feedback_alignment"),
    depths=(1, 3),
    width=8,
    drops=(0.0, 0.5),
    learning_rates=(3e-3,),
    seeds=(0, 1),
    n_steps=5,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(rule: Any, depth: int = 2, width: int = 5, sizes: tuple[int, int] = (3, 2), drop: float = 0.0) -> nn.Module:
    return rule_network(rule, depth, width, sizes, drop=drop, generator=seeded())


def small_task(n_in: int = 3, n_out: int = 2, n: int = 40) -> ExampleTask:
    def draw(seed: int) -> Examples:
        numbers = torch.randn(n, n_in + n_out, generator=seeded(seed))
        return Examples(numbers[:, :n_in], numbers[:, n_in:])

    return ExampleTask(draw(1), draw(2))


# networks


def test_every_named_attention_and_feedback_is_a_rule_of_the_study():
    assert set(RULES) == set(ATTENTIONS) | set(FEEDBACKS) == set(RULE_LABELS)
    assert {network(rule)(torch.zeros(4, 3)).shape for rule in RULES} == {(4, 2)}


def test_rules_of_a_seed_begin_with_the_same_weights():
    first = dict(network("backpropagation").named_parameters())
    for rule in RULES:
        for drop in (0.0, 0.5):
            weights = dict(network(rule, drop=drop).named_parameters())
            assert weights.keys() == first.keys()
            assert all(torch.equal(weights[name], first[name]) for name in first)
    other = rule_network("backpropagation", 2, 5, (3, 2), drop=0.0, generator=seeded(1))
    assert not torch.equal(other.get_parameter("outputs.weight"), first["outputs.weight"])


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_hidden_layers(depth):
    assert len([layer for layer in network("squared", depth).modules() if isinstance(layer, Layer)]) == depth


# measurements


def test_alignment_is_one_for_backpropagation_and_in_the_last_layer():
    task = small_task()
    for rule in ("backpropagation", "squared", "absolute", "feedback_alignment", "direct_feedback_alignment"):
        found = list(measure(network(rule, depth=3), task, task.test))
        cosines = {m.coordinate: m.value for m in found if m.quantity == "alignment"}
        assert list(cosines) == [0.0, 1.0, 2.0, 3.0]
        assert cosines[3.0] == pytest.approx(1, abs=1e-6)
        if rule in ("backpropagation", "squared"):
            assert list(cosines.values()) == pytest.approx([1] * 4, abs=1e-6)
        else:
            assert -1 <= cosines[0.0] < 0.98


def test_errors_are_of_test_validation_and_training_each():
    task, validation = small_task(), Examples(torch.zeros(5, 3), torch.ones(5, 2))  # answers to zero are zero
    m = network("absolute")
    found = {each.quantity: each.value for each in measure(m, task, validation)}
    assert found["validation_error"] == found["validation_loss"] == pytest.approx(1)
    assert found["error"] == pytest.approx(task.error(m))
    assert found["train_loss"] == pytest.approx(task.loss(m, task.train).item())
    assert found["error"] != found["train_loss"]


@pytest.mark.parametrize(
    ("rule", "signals", "copied"),
    [
        ("backpropagation", 5 + 2, 25 + 10),
        ("absolute", 5 + 2, 25 + 10),
        ("feedback_alignment", 5 + 2, 0),
        ("direct_feedback_alignment", 2 + 2, 0),
    ],
)
def test_messages_are_counted_as_by_hand(rule, signals, copied):
    """Three inputs, two hidden layers of five, two outputs: the first layer's inputs need no error."""
    found = {m.quantity: m.value for m in measure_trained(network(rule), small_task(), seeded())}
    assert [found[name] for name in CROSSING] == [3 + 5 + 5, signals, copied]


def counting(width: int, depth: int) -> nn.Module:
    """Answers how many neurons of its last layer speak: each says one, whatever it hears."""
    layers = [Layer(width, width, seeded()) for _ in range(depth)]
    outputs = nn.Linear(width, 1)
    with torch.no_grad():
        for layer in layers:
            layer.linear.weight.zero_()
            layer.linear.bias.fill_(20.0)  # tanh is one
        outputs.weight.fill_(1.0)
        outputs.bias.zero_()
    return nn.Sequential(*layers, outputs)


@pytest.mark.parametrize(("share", "left"), [(0.0, 10), (0.1, 9), (0.3, 7), (1.0, 0)])
def test_just_the_share_asked_for_is_silenced(share, left):
    zeros = Examples(torch.zeros(6, 10), torch.zeros(6, 1))
    model, task = counting(10, 2), ExampleTask(zeros, zeros)
    assert silenced_error(model, task, share, seeded()) == pytest.approx(left**2)
    assert task.error(model) == pytest.approx(100)  # it speaks again


def test_the_same_neurons_are_silenced_whatever_the_rule():
    def silenced(rule: Any, seed: int) -> list[float]:
        found = measure_trained(network(rule, 3, 20), small_task(), seeded(seed))
        return [m.value for m in found if m.quantity == "error_silenced"]

    assert len(silenced("backpropagation", 0)) == len(SHARES)
    assert silenced("backpropagation", 0) == silenced("direct_feedback_alignment", 0)
    assert silenced("backpropagation", 0) != silenced("backpropagation", 1)


# lost messages


class Stopped(Exception):
    """A run that was killed."""


def weights_after(tmp_path: Path, name: str, stop_at: int | None, drop: float = 0.5) -> torch.Tensor:
    training = replace(SMALL.training(3e-3), n_steps=12, n_checkpoints=4)
    checkpoints = Checkpoints(tmp_path / name, lambda: network("backpropagation", drop=drop))

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stopped

    model = rule_network("backpropagation", 2, 5, (3, 2), drop=drop, generator=seeded())
    method = next_layer_attention.NextLayerTraining(model)
    options: Any = {"seed": 0, "checkpoints": checkpoints, "intervention": method}
    if stop_at is None:
        train(model, small_task(), training, **options)
    else:
        with pytest.raises(Stopped):
            train(model, small_task(), training, on_step=stop, **options)
    return nn.utils.parameters_to_vector(model.parameters())


def test_a_stopped_run_goes_on_to_lose_the_same_messages(tmp_path):
    whole = weights_after(tmp_path, "whole", None)
    stopped = weights_after(tmp_path, "stopped", 8)
    assert not torch.equal(stopped, whole)
    assert torch.equal(weights_after(tmp_path, "stopped", None), whole)
    assert not torch.equal(weights_after(tmp_path, "nothing lost", None, drop=0.0), whole)


# the study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next-layer") / "study"
    return folder, run_next_layer_study(SMALL, folder, n_workers=1)


def test_a_study_tells_every_rule_depth_and_drop(finished):
    folder, summary = finished
    cells = [(e["rule"], e["depth"], e["drop"]) for e in summary["rules"]]
    assert cells == [(rule, depth, drop) for drop in (0.0, 0.5) for depth in (1, 3) for rule in SMALL.rules]
    assert json.loads((folder / "summary.json").read_text()) == summary
    page = (folder / "report.html").read_text()
    for said in ("Over depth", "layer by layer, 3 hidden layers", "Neurons silenced", "Messages lost", "copied"):
        assert said in page
    for name in ("over_depth", "alignment", "silenced", "lost"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    table = pd.read_parquet(folder / "measurements.parquet")
    steps = table[table.quantity == "alignment"].groupby(["rule", "depth", "drop", "seed"]).step.nunique()
    assert len(steps) == 3 * 2 * 2 * 2
    assert set(steps) == {6}
    assert set(table[table.moment == "end"].step) == {5}


def test_attention_by_squares_is_backpropagation(finished):
    """To rounding, over training and in every quantity."""
    table = pd.read_parquet(finished[0] / "measurements.parquet")
    key = ["depth", "drop", "seed", "step", "quantity", "coordinate"]
    ours, true = (table[table.rule == rule].set_index(key).value for rule in ("squared", "backpropagation"))
    assert ours.to_numpy() == pytest.approx(true.to_numpy(), rel=1e-5, abs=1e-6)
    random = table[(table.rule == "feedback_alignment") & (table.moment == "end")].set_index(key).value
    assert abs(random - true[random.index]).max() > 0.1


def test_rules_begin_with_the_same_errors_and_part(finished):
    table = pd.read_parquet(finished[0] / "measurements.parquet")
    errors: Any = table[table.quantity == "error"].pivot_table(
        index=["depth", "drop", "seed"], columns=["step", "rule"], values="value"
    )
    assert (errors[0].nunique(axis=1) == 1).all()
    assert (errors[5].nunique(axis=1) > 1).all()


def test_what_is_kept_of_a_run_is_its_trained_network(finished):
    folder, _ = finished
    kept = {path.name for path in (folder / "checkpoints").rglob("step_*")}
    assert kept == {"step_00000005"}


def test_called_again_it_measures_nothing_and_says_the_same(finished):
    folder, summary = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "measurements").rglob("*.parquet")}
    assert run_next_layer_study(SMALL, folder, n_workers=1) == summary
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_rate_that_diverges_is_not_chosen_and_a_rule_that_always_does_has_no_numbers(tmp_path):
    small = replace(SMALL, rules=("backpropagation", "absolute"), depths=(2,), drops=(0.0,), seeds=(0, 1), n_steps=4)
    chosen = run_next_layer_study(replace(small, learning_rates=(3e-3, 1e30)), tmp_path / "one", n_workers=1)
    assert [entry["learning_rate"] for entry in chosen["rules"]] == [3e-3, 3e-3]
    assert math.isfinite(chosen["rules"][1]["error"]["mean"])
    never = run_next_layer_study(replace(small, learning_rates=(1e30,)), tmp_path / "two", n_workers=1)
    assert never["rules"][1]["error"]["mean"] is None
    assert verdict(never).startswith("Nothing to compare")


# findings


def planted() -> pd.DataFrame:
    """Two rules, two rates, three seeds; ``absolute`` is worse by 1, 2 and 3 at its best rate, 0.1, and slower."""
    rows = []
    for run in NextLayerStudyConfig(
        rules=("backpropagation", "absolute"), depths=(4,), learning_rates=(0.1, 0.2), seeds=(0, 1, 2)
    ).runs:
        is_true = run.rule == "backpropagation"
        is_best = run.learning_rate == (0.2 if is_true else 0.1)
        error = 2 + (not is_true) * (1 + run.seed) + 50 * (not is_best)
        curve = {0: 20.0, 10: 15.0, 100: error}
        rows += [(step, "error", np.nan, value, run) for step, value in curve.items()]
        rows += [(100, "validation_error", np.nan, 1.0 + (not is_best), run)]
        rows += [(0, "validation_error", np.nan, 1.0 + is_best, run)]
        rows += [
            (step, "alignment", layer, 0.2 * layer + 0.1 * (step > 0), run) for step in (0, 100) for layer in (2, 1)
        ]
        rows += [(100, "error_silenced", share, error + 10 * share, run) for share in SHARES]
        rows += [(100, name, np.nan, 7.0, run) for name in CROSSING]
    columns = ["step", "quantity", "coordinate", "value", "run"]
    table = pd.DataFrame([{**asdict(row[-1]), **dict(zip(columns, row, strict=True))} for row in rows])
    return table.assign(moment=np.where(table.step == 100, "end", "training"))


PLANTED = NextLayerStudyConfig(rules=("backpropagation", "absolute"), depths=(4,), seeds=(0, 1, 2))


def test_findings_follow_from_the_table():
    true, ours = summarize(planted(), PLANTED)["rules"]
    assert (true["learning_rate"], ours["learning_rate"]) == (0.2, 0.1)
    assert true["error"]["values"] == [2, 2, 2]
    assert ours["error"]["values"] == [3, 4, 5]
    assert true["alignment"]["mean"] == pytest.approx(0.4)  # of 0.3 and 0.5
    assert true["alignment_first"]["mean"] == pytest.approx(0.3)
    assert ours["error_silenced"]["values"] == pytest.approx([6, 7, 8])  # at a share of 0.3
    assert ours["silenced_rise"]["values"] == pytest.approx([3, 3, 3])
    difference = ours["error_difference"]
    assert difference["mean"] == pytest.approx(2)
    assert difference["interval"] == pytest.approx([2 - 2.484138, 2 + 2.484138], abs=1e-5)  # t of 2 over sqrt 3
    assert not any(name.endswith("_difference") for name in true)
    assert true["steps_to_half"]["mean"] == pytest.approx(10 * 10 ** (5 / 13))  # 15 to 2 passes 10
    assert [true[name] for name in CROSSING] == [7, 7, 7]


def test_wins_count_intervals_on_one_side_of_zero():
    def entry(low: float | None, high: float | None) -> dict[str, Any]:
        return {"rule": "absolute", "error_difference": {"interval": [low, high]}}

    entries = [entry(-2, -1), entry(-1, 1), entry(1, 2), entry(3, 4), entry(None, None), {"rule": "backpropagation"}]
    assert wins({"rules": entries}, "error") == {"absolute": (1, 1, 2)}
    assert "error on test: attention |w| 1/1/2" in verdict({"rules": entries})


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.2], math.sqrt(10 * 100)),  # half way between
        ([1.0, 0.9, 0.4, 0.2], 10**0.8),
        ([1.0, 0.4, 0.9, 0.4], 1.0),  # before the first checkpoint that has a logarithm; the first time counts
        ([1.0, 0.9, 0.8, 0.5], math.nan),  # at half, not below
        ([0.0, 0.0, 0.0, 0.0], math.nan),
    ],
)
def test_steps_to_half(errors, expected):
    found = steps_to_half(np.array([0, 1, 10, 100]), np.array(errors))
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_figure_shows_means_and_intervals_where_they_are():
    summary = summarize(planted(), PLANTED)
    ax = over_depth_figure(summary, 0.0).axes[0]
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in ax.lines}
    assert drawn["attention |w|"] == [4]
    low, high = summary["rules"][1]["error"]["interval"]
    assert any(np.asarray(line.get_ydata()).tolist() == [low, high] for line in ax.lines)


def test_the_map_of_layers_shows_their_means():
    figure = alignment_figure(planted(), PLANTED)
    assert figure is not None
    (image,) = figure.axes[0].collections
    assert np.asarray(image.get_array()).ravel().tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1", "2"]
    assert alignment_figure(planted(), replace(PLANTED, rules=("backpropagation", "squared"))) is None


def test_panels_of_all_depths_have_one_logarithmic_axis():
    table = planted()
    table.loc[table.quantity == "error", "value"] /= 100
    both = pd.concat([table, table.assign(depth=8, value=table.value * 2)])
    figure = silenced_figure(both, replace(PLANTED, depths=(4, 8)))
    first, second = figure.axes
    assert first.get_yscale() == second.get_yscale() == "log"
    assert first.get_ylim() == second.get_ylim() == pytest.approx((0.01, second.get_ylim()[1]))
    figure.clear()  # as where it is saved: shared logarithmic axes would warn


def test_layers_are_shown_at_the_middle_depth():
    assert middle_depth(NextLayerStudyConfig()) == 8
    assert middle_depth(NextLayerStudyConfig(depths=(16, 2))) == 16


# refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "mnist"}, "task must be one of regression, digits"),
        ({"rules": ("squared", "squared")}, "rules must be distinct"),
        ({"rules": ("cubed",)}, "rules must be among squared, absolute"),
        ({"depths": (0,)}, "depths must be at least 1"),
        ({"drops": (0.0, 1.0)}, "drops must be at least 0 and below 1"),
        ({"drops": (-0.1,)}, "drops must be at least 0"),
        ({"learning_rates": (0.0,)}, "learning_rates must be positive"),
        ({"seeds": ()}, "seeds must be distinct, and at least one"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_that_cannot_be_are_refused(settings, message):
    assert_refused(NextLayerStudyConfig, message=message, **settings)


def test_the_command_line_refuses_in_one_line(capsys):
    assert main(["next-layer", "digit"]) == 2
    assert capsys.readouterr().err == "emergence: unknown task digit; did you mean digits?\n"
    assert main(["next-layer", "digits", "--rules", "cubed"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cubed" in said
    assert main(["next-layer"]) == 2
    assert "next-layer TASK" in capsys.readouterr().out


def test_the_command_runs_a_study_of_one_seed(tmp_path, capsys):
    flags = "--rules backpropagation absolute --depths 2 --width 8 --learning-rates 1e-3 --seeds 0 --n-steps 4"
    out = tmp_path / "out"
    assert main(["next-layer", "breast-cancer", *flags.split(), "--n-workers", "1", "--out", str(out)]) == 0
    assert "Nothing to compare" in capsys.readouterr().out
    assert "–" in (out / "report.html").read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["error"]["interval"] for entry in summary["rules"]] == [[None, None]] * 2

"""The study of structured layers: fair controls, the best rate of each arm, findings that follow from the table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import assert_refused

from emergence.cli import main
from emergence.studies.structured.config import ARMS, StructuredStudyConfig
from emergence.studies.structured.findings import CELL, summarize, wins
from emergence.studies.structured.measuring import measure
from emergence.studies.structured.networks import deep_network, hidden_layers
from emergence.studies.structured.study import run_structured_study
from emergence.studies.supervised import sizes, study_task
from emergence.studies.tuning import chosen_rates

SMALL = StructuredStudyConfig(
    task="diabetes", depths=(2, 3), widths=(8,), learning_rates=(1e-3,), seeds=(0, 1), n_steps=8
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(arm: Any, depth: int = 3, width: int = 16) -> Any:
    return deep_network(arm, depth, width, (10, 2), SMALL, seeded())


@pytest.mark.parametrize("width", [32, 128, 512])
def test_arms_have_as_many_numbers_to_learn(width):
    counts = {arm: sum(p.numel() for p in network(arm, 8, width).parameters()) for arm in ARMS}
    for arm in ("plain", "residual"):
        assert counts[arm] == pytest.approx(counts["structured"], rel=0.03)
    assert counts["structure"] < 0.85 * counts["structured"]


@pytest.mark.parametrize("arm", ARMS)
def test_signals_neither_grow_nor_vanish_at_the_start(arm):
    """Fair controls: every arm begins where its own best theory says it should."""
    model, x = network(arm, 16, 64), torch.randn(200, 10, generator=seeded(1))
    with torch.no_grad():
        first = model[:2](x)
        last = model[:-1](x)
    assert 0.15 < last.std() / first.std() < 2


def test_structured_arms_are_orthogonal_and_the_controls_are_not():
    for arm in ARMS:
        weight = network(arm).get_submodule("layer1.inner" if arm == "residual" else "layer1.linear").weight
        values = torch.linalg.svdvals(weight.detach())
        assert (values.max() - values.min() < 1e-5) == (arm in ("structure", "structured"))


def test_measurements_of_a_network_that_can_be_worked_out():
    """Orthogonal hidden layers in their linear range: all singular values one, gradients alike at every depth."""
    task, validation = study_task("regression", rng=np.random.default_rng(0))
    model = deep_network("structured", 4, 16, sizes(task), SMALL, seeded())
    with torch.no_grad():
        model.get_parameter("inputs.weight").mul_(1e-3)
    rows = list(measure(model, task, validation, has_correction=True, rng=np.random.default_rng(0), generator=seeded()))
    found = {m.quantity: m.value for m in rows if math.isnan(m.coordinate)}
    for name in ("condition", "gradient_ratio", "largest_singular_value", "smallest_singular_value"):
        assert found[name] == pytest.approx(0, abs=1e-4)
    assert [m.value for m in rows if m.quantity == "correction_ratio"] == [0.0] * 4  # it begins at zero
    assert found["error"] == pytest.approx(task.error(model))
    assert len([m for m in rows if m.quantity == "gradient_norm"]) == 4


def test_validation_is_neither_learnt_nor_reported():
    for name in ("regression", "digits", "breast-cancer", "diabetes"):
        task, validation = study_task(name, rng=np.random.default_rng(3))
        parts = [part.inputs for part in (task.train, validation, task.test)]
        rows = [tuple(row) for part in parts for row in part.double().numpy().round(5).tolist()]
        if name == "regression":
            assert len(set(rows)) == len(rows)
        assert len(parts[1]) == pytest.approx(len(parts[0]) / 4, abs=1)
        assert network_fits(task)


def network_fits(task) -> bool:
    model = deep_network("plain", 2, 8, sizes(task), SMALL, seeded())
    return bool(torch.isfinite(task.loss(model, task.train)))


# the study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structured") / "study"
    return folder, run_structured_study(SMALL, folder, n_workers=1)


def test_a_study_tells_every_arm_depth_and_quantity(finished):
    folder, summary = finished
    assert [(e["arm"], e["depth"]) for e in summary["arms"]] == [(arm, d) for arm in sorted(ARMS) for d in (2, 3)]
    assert json.loads((folder / "summary.json").read_text()) == summary
    page = (folder / "report.html").read_text()
    for said in ("Over depth, width 8", "skip connections", "structure + correction", "correction"):
        assert said in page
    assert (folder / "figures" / "over_depth_8.png").stat().st_size > 10_000
    table = pd.read_parquet(folder / "measurements.parquet")
    assert table.groupby(["arm", "depth", "learning_rate", "seed"]).ngroups == 4 * 2 * 2
    assert set(table.moment) == {"begin", "end"}


def test_the_bound_holds_for_orthogonal_maps_with_a_correction(finished):
    _, summary = finished
    found = {(e["arm"], e["depth"]): e.get("condition_without_tanh") for e in summary["arms"]}
    for depth in (2, 3):
        bound = depth * math.log10((1 + SMALL.correction) / (1 - SMALL.correction))
        assert 0 < found["structured", depth]["mean"] <= bound
        assert found["structure", depth]["mean"] == pytest.approx(0, abs=1e-5)
        assert found["plain", depth]["mean"] > bound
        assert found["residual", depth]["mean"] is None


def test_called_again_it_measures_nothing_and_says_the_same(finished):
    folder, summary = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "measurements").rglob("*.parquet")}
    assert run_structured_study(SMALL, folder, n_workers=1) == summary
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_structure_begins_alike_with_and_without_its_correction(finished):
    """The same weights, the same examples, and a correction of zero."""
    table = pd.read_parquet(finished[0] / "measurements.parquet")
    errors = table[(table.moment == "begin") & (table.quantity == "error")]
    by_run = errors.pivot(index=["depth", "seed"], columns="arm", values="value")
    assert by_run.structure.to_numpy() == pytest.approx(by_run.structured.to_numpy(), rel=1e-5)
    assert abs(by_run.structure - by_run.plain).min() > 1e-3


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    config = StructuredStudyConfig(
        task="diabetes", arms=("plain",), depths=(2,), widths=(8,), learning_rates=(1e-3, 1e30), seeds=(0, 1), n_steps=6
    )
    summary = run_structured_study(config, tmp_path / "study", n_workers=1)
    assert [entry["learning_rate"] for entry in summary["arms"]] == [1e-3]
    assert math.isfinite(summary["arms"][0]["error"]["mean"])


def planted() -> pd.DataFrame:
    """Two arms, two rates, three seeds: the structured one is better by 1, 2 and 3 at its best rate, 0.1."""
    rows = []
    for seed in range(3):
        for rate in (0.1, 0.2):
            for arm in ("plain", "structured"):
                error = 10 + seed - (1 + seed) * (arm == "structured")
                better = rate == (0.1 if arm == "structured" else 0.2)
                values = {"error": error + 5 * (not better), "validation_error": 1.0 + (not better), "condition": 2.0}
                rows += [
                    {"arm": arm, "depth": 4, "width": 8, "learning_rate": rate, "seed": seed, "n_parameters": 9,
                     "moment": moment, "quantity": name, "coordinate": np.nan, "value": v + 100 * (moment == "begin"),
                     "standard_error": np.nan}
                    for moment in ("begin", "end") for name, v in values.items()
                ]  # fmt: skip
    return pd.DataFrame(rows)


def test_findings_follow_from_the_table():
    rates = chosen_rates(planted(), CELL).set_index("arm").learning_rate
    assert rates.to_dict() == {"plain": 0.2, "structured": 0.1}
    tied = planted().replace({"quantity": {"validation_error": "validation_loss"}})
    equal = tied[tied.quantity == "validation_loss"].assign(quantity="validation_error", value=0.5)
    rates = chosen_rates(pd.concat([equal, tied]), CELL).set_index("arm").learning_rate
    assert rates.to_dict() == {"plain": 0.2, "structured": 0.1}  # equal errors: the loss decides
    plain, ours = summarize(planted(), SMALL)["arms"]
    assert plain["error"]["values"] == [10, 11, 12]
    assert ours["error"]["values"] == [9, 9, 9]
    difference = plain["error_difference"]
    assert difference["mean"] == pytest.approx(-2)
    assert difference["interval"] == pytest.approx([-2 - 2.484138, -2 + 2.484138], abs=1e-5)  # t of 2 over sqrt 3
    assert plain["condition_bound"] == pytest.approx(4 * math.log10(1.1 / 0.9))


def test_wins_count_intervals_on_one_side_of_zero():
    def entry(low: float | None, high: float | None) -> dict[str, Any]:
        return {"arm": "plain", "error_difference": {"interval": [low, high]}}

    summary = {"arms": [entry(-2, -1), entry(-1, 1), entry(1, 2), entry(3, 4), entry(None, None)]}
    assert wins(summary, "error") == {"plain": (1, 1, 2)}


def test_hidden_layers_are_named_in_order():
    assert hidden_layers(network("residual", 11)) == [f"layer{i}" for i in range(11)]


# refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "mnist"}, "task must be one of regression, digits"),
        ({"arms": ("plain", "plain")}, "arms must be distinct"),
        ({"arms": ("best",)}, "arms must be among plain"),
        ({"correction": 1.0}, "correction must be above zero and below one"),
        ({"depths": (1,)}, "depths must be at least 2"),
        ({"learning_rates": (0.0,)}, "learning_rates must be positive"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_that_cannot_be_are_refused(settings, message):
    assert_refused(StructuredStudyConfig, message=message, **settings)


def test_the_command_line_names_the_nearest_task(capsys):
    assert main(["structured", "digit"]) == 2
    assert "did you mean digits?" in capsys.readouterr().err
    assert main(["structured"]) == 2
    assert main(["structured", "--help"]) == 0


def test_the_command_runs_a_study(tmp_path, capsys):
    flags = "--arms structured --depths 2 --widths 8 --learning-rates 1e-3 --seeds 0 --n-steps 4 --n-workers 1"
    assert main(["structured", "diabetes", *flags.split(), "--out", str(tmp_path / "out")]) == 0
    assert "Nothing to compare" in capsys.readouterr().out
    assert Path(tmp_path / "out" / "report.html").is_file()

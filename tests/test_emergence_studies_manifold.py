"""The study of weight manifolds: its task, its arms, its findings and its page."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import assert_refused

from emergence.cli import main
from emergence.interventions import weight_manifold
from emergence.studies.weight_manifold.config import ARMS, TASKS, ManifoldRun, ManifoldStudyConfig
from emergence.studies.weight_manifold.findings import summarize
from emergence.studies.weight_manifold.networks import MANIFOLDS, FiLM, make_network
from emergence.studies.weight_manifold.page import verdict
from emergence.studies.weight_manifold.study import method_at_work, run_manifold_study
from emergence.studies.weight_manifold.task import CONTEXTS, digits_task, rotated, uniform

SMALL = ManifoldStudyConfig(width=8, learning_rates=(0.03,), seeds=(0, 1), n_steps=12, batch_size=32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(arm: Any, task: Any = "rotated-digits", width: int = 16) -> Any:
    return make_network(arm, task, width, seeded())


# the task


def test_quarter_turns_are_exact():
    pictures = torch.rand(5, 64, generator=seeded())
    for quarter in range(4):
        turned = rotated(pictures, torch.full((5,), quarter / 4))
        expected = torch.rot90(pictures.view(5, 8, 8), quarter, (1, 2)).reshape(5, 64)
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("turn", [0.07, 0.3, 0.8])
def test_a_smooth_blob_moves_to_where_the_turn_takes_it(turn):
    def blob(angle: float) -> torch.Tensor:
        place = torch.arange(8) - 3.5  # pixels; rows run downwards
        x, y = place[None, :] - 1.5 * math.cos(angle), -place[:, None] - 1.5 * math.sin(angle)
        return (-(x**2 + y**2) / 8).exp()

    turned = rotated(blob(0.4).view(1, 64), torch.tensor([turn])).view(8, 8)
    inside = slice(2, 6)  # the corners come from beyond the edge
    expected = blob(0.4 + 2 * math.pi * turn)
    bilinear = 0.0625  # at most h^2 (f_xx + f_yy) / 8
    torch.testing.assert_close(turned[inside, inside], expected[inside, inside], rtol=0, atol=bilinear)
    assert (turned - blob(0.4))[inside, inside].abs().max() > 0.08


def test_shares_of_ranges_spread_evenly():
    ranges = ((0.0, 0.3), (0.4, 0.65))
    drawn = uniform(ranges, np.linspace(0, 1, 5501, endpoint=False))
    assert np.mean(drawn < 0.3) == pytest.approx(0.3 / 0.55, abs=1e-3)
    assert ((drawn < 0.3) | ((drawn >= 0.4) & (drawn < 0.65))).all()
    assert np.diff(np.sort(drawn[drawn < 0.3])).max() < 2e-4


@pytest.mark.parametrize("name", TASKS)
def test_held_out_contexts_are_never_learnt(name):
    task, contexts = digits_task(name, rng=np.random.default_rng(0)), CONTEXTS[name]
    held_out = (*contexts.interpolation, *contexts.extrapolation)
    lengths = sum(high - low for low, high in (*contexts.learnt, *held_out))
    assert lengths == pytest.approx(1)
    for step in range(20):
        seen = task.training_batch(0, step, 200).contexts
        assert not any(((seen > low) & (seen < high)).any() for low, high in held_out)


def test_digits_are_in_one_part_alone_and_draws_repeat():
    task = digits_task("noisy-digits", rng=np.random.default_rng(0))
    rows = [tuple(row) for part in (task.train, task.validation, task.test) for row in part[0].tolist()]
    assert len(set(rows)) == len(rows) == 1797
    first, again, other = (task.training_batch(0, step, 16) for step in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.inputs, other.inputs)


def test_noise_is_as_strong_as_its_context_says():
    task = digits_task("noisy-digits", rng=np.random.default_rng(0))
    digits, classes = task.train
    for context in (0.0, 0.5):
        seen = task.seen(digits, classes, np.full(len(digits), context), np.random.default_rng(1))
        noise = (seen.inputs - digits).double()
        assert noise.std().item() == pytest.approx(context, rel=4 / math.sqrt(2 * noise.numel()))


# the arms


@pytest.mark.parametrize("task", TASKS)
def test_wide_arms_have_as_many_numbers_as_the_manifold(task):
    numbers = {arm: sum(p.numel() for p in network(arm, task, 64).parameters()) for arm in ARMS}
    for arm in ("raw_wide", "basis_wide"):
        assert numbers[arm] == pytest.approx(numbers["manifold"], rel=0.02)
    assert numbers["plain_gradient"] == numbers["manifold"]
    assert numbers["raw"] < numbers["basis"] < numbers["film"] < numbers["manifold"] < numbers["separate"]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("task", TASKS)
def test_an_answer_depends_on_its_own_context_alone(task, arm):
    model, x = network(arm, task), torch.rand(6, 64, generator=seeded())
    with torch.no_grad():  # axes and modulations begin at zero
        for i, p in enumerate(model.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=seeded(i))
    s = torch.tensor([0.05, 0.05, 0.2, 0.5, 0.6, 0.95])
    together = model(x, s)
    for b in range(6):
        torch.testing.assert_close(model(x[b : b + 1], s[b : b + 1])[0], together[b], rtol=1e-4, atol=1e-4)
    assert (model(x, s.roll(1))[2:] - together[2:]).abs().max() > 1e-3


def test_topologies_are_the_tasks_own_and_each_others():
    for task, own, other in (("rotated-digits", "Ellipse", "Line"), ("noisy-digits", "Line", "Ellipse")):
        assert type(weight_manifold.manifold_of(network("manifold", task))).__name__ == own
        assert type(weight_manifold.manifold_of(network("wrong_topology", task))).__name__ == other


@pytest.mark.parametrize(("task", "answering"), [("rotated-digits", 0), ("noisy-digits", -1)])
def test_the_nearest_of_separate_networks_answers_round_the_circle_too(task, answering):
    model, x = network("separate", task), torch.rand(3, 64, generator=seeded())
    torch.testing.assert_close(model(x, torch.full((3,), 0.95)), model.networks[answering](x))


def test_film_starts_as_the_plain_network_and_scales_what_it_says():
    model: Any = network("film")
    assert isinstance(model, FiLM)
    x, s = torch.rand(4, 64, generator=seeded()), torch.tensor([0.1, 0.2, 0.5, 0.6])
    torch.testing.assert_close(model(x, s), model.network(x))
    with torch.no_grad():
        model.modulation[1, 1, 0] = 2.0  # the second layer's shift, at every context
        model.modulation[1, 0, 0] = -1.0  # and its scale to zero
    last = model.network[-1]
    expected = last(torch.nn.functional.silu(torch.full((4, 16), 2.0)))
    torch.testing.assert_close(model(x, s), expected)


def test_the_metric_is_that_of_the_contexts_learnt():
    model = network("manifold")
    method: Any = method_at_work(ManifoldRun("manifold", 0.1, 0), SMALL, model)
    task = digits_task("rotated-digits", rng=np.random.default_rng(0))
    seen = torch.cat([task.training_batch(0, step, 1000).contexts for step in range(40)]).double()
    measured = weight_manifold.measured_gram(MANIFOLDS["rotated-digits"], seen)
    torch.testing.assert_close(method.gram, measured, rtol=0, atol=0.02)
    assert (method.gram - torch.diag(torch.tensor([1, 0.5, 0.5])).double()).abs().max() > 0.1
    model(torch.rand(8, 64), torch.rand(8)).square().sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    method.after_backward(1)
    for p, gradient in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(torch.tensordot(method.gram.float(), p.grad, 1), gradient, rtol=1e-3, atol=1e-4)


# the study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifold") / "study"
    return folder, run_manifold_study(SMALL, folder, n_workers=1)


def test_a_study_tells_every_arm_and_kind_of_context(finished):
    folder, summary = finished
    assert [entry["arm"] for entry in summary["arms"]] == list(ARMS)
    assert json.loads((folder / "summary.json").read_text()) == summary
    page = (folder / "report.html").read_text()
    for said in ("Error along the contexts", "beyond them", "manifold, wrong topology", "FiLM"):
        assert said in page
    assert (folder / "figures" / "over_context.png").stat().st_size > 10_000
    table = pd.read_parquet(folder / "measurements.parquet")
    assert set(table[table.quantity == "error"].coordinate) == set(np.linspace(0, 1, 41))


def test_called_again_it_measures_nothing_and_says_the_same(finished):
    folder, summary = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "measurements").rglob("*.parquet")}
    assert run_manifold_study(SMALL, folder, n_workers=1) == summary
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    config = ManifoldStudyConfig(arms=("raw",), width=8, learning_rates=(0.03, 1e30), seeds=(0, 1), n_steps=6)
    (entry,) = run_manifold_study(config, tmp_path / "study", n_workers=1)["arms"]
    assert entry["learning_rate"] == 0.03
    assert math.isfinite(entry["error_learnt"]["mean"])


def planted() -> pd.DataFrame:
    """Two arms, three seeds: the manifold is better by 1, 2 and 3 at contexts learnt, and as good elsewhere."""
    rows = []
    for seed in range(3):
        for arm in ("manifold", "raw"):
            learnt = 10 + seed - (1 + seed) * (arm == "manifold")
            values = {"validation_error": 0, "error_learnt": learnt, "error_interpolation": 5, "error_extrapolation": 6}
            common = {"arm": arm, "learning_rate": 0.1, "seed": seed, "n_parameters": 9, "moment": "end"}
            rows += [common | {"quantity": name, "coordinate": np.nan, "value": float(v)} for name, v in values.items()]
    return pd.DataFrame(rows)


def test_findings_follow_from_the_table():
    ours, raw = summarize(planted(), ManifoldStudyConfig(arms=("manifold", "raw")))["arms"]
    assert ours["error_learnt"]["values"] == [9, 9, 9]
    assert raw["error_learnt_difference"]["mean"] == pytest.approx(-2)
    half = 4.302653 / math.sqrt(3)  # t of 2
    assert raw["error_learnt_difference"]["interval"] == pytest.approx([-2 - half, -2 + half], abs=1e-5)
    assert "error_learnt_difference" not in ours


def test_the_verdict_names_who_is_beaten_and_who_is_not():
    def entry(arm: str, low: float | None, high: float | None) -> dict[str, Any]:
        return {"arm": arm, "error_learnt_difference": {"interval": [low, high]}}

    entries = [entry("raw", -2, -1), entry("film", 1, 2), entry("basis", -1, 1), entry("separate", None, None)]
    said = verdict({"arms": [{"arm": "manifold"}, *entries]})
    assert "contexts learnt: better than context as input; worse than FiLM. between them: undecided" in said


# refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "rotated-cats"}, "task must be one of rotated-digits, noisy-digits"),
        ({"arms": ("raw", "raw")}, "arms must be distinct"),
        ({"arms": ("best",)}, "arms must be among manifold"),
        ({"learning_rates": (0.0,)}, "learning_rates must be positive"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_that_cannot_be_are_refused(settings, message):
    assert_refused(ManifoldStudyConfig, message=message, **settings)


def test_the_command_line_names_the_nearest_task(capsys):
    assert main(["manifold", "rotated-digit"]) == 2
    assert "did you mean rotated-digits?" in capsys.readouterr().err.replace("\n", " ")


def test_the_command_runs_a_study(tmp_path, capsys):
    out = tmp_path / "study"
    options = "--arms manifold raw --width 8 --learning-rates 0.03 --seeds 0 1 --n-steps 6 --n-workers 1"
    assert main(["manifold", "noisy-digits", *options.split(), "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out.replace("\n", "")
    assert (out / "report.html").exists()

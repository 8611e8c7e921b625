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
from sklearn.metrics import average_precision_score

from emergence.cli import main
from emergence.data import prediction_loss
from emergence.interventions import weight_manifold
from emergence.studies.weight_manifold.config import (
    ARMS,
    DIGITS,
    PARTICLES,
    ManifoldRun,
    ManifoldStudyConfig,
    SteeredStudyConfig,
)
from emergence.studies.weight_manifold.contexts import (
    CONTEXTS,
    KINDS,
    MANIFOLDS,
    WRONG,
    Plane,
    as_tensor,
    contexts_of,
    even_shares,
    kind_of,
    uniform,
)
from emergence.studies.weight_manifold.digits import digits_task, rotated
from emergence.studies.weight_manifold.findings import best_heads, summarize, walk_table
from emergence.studies.weight_manifold.networks import make_network
from emergence.studies.weight_manifold.page import verdict
from emergence.studies.weight_manifold.particles import N_FRAMES, particles_task, system_at
from emergence.studies.weight_manifold.study import method_at_work, run_manifold_study
from emergence.studies.weight_manifold.task import make_task
from emergence.studies.weight_manifold.walk import head_scores, landscape, model_at
from probes import hessian_trace

TASKS = (*DIGITS, *PARTICLES)
SMALL = ManifoldStudyConfig(width=8, learning_rates=(0.03,), seeds=(0, 1), n_steps=12, batch_size=32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(arm: Any, task: Any = "rotated-digits", width: int = 16) -> Any:
    return make_network(arm, task, width, seeded())


def inputs(task: Any, n: int) -> torch.Tensor:
    return torch.rand((n, 64) if task in DIGITS else (n, 6, 6), generator=seeded())


def contexts(task: Any, first: list[float]) -> torch.Tensor:
    second = [0.3 - 0.02 * i for i in range(len(first))]
    return torch.tensor(first if len(CONTEXTS[task]) == 1 else list(zip(first, second, strict=True)))


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


def test_even_shares_cover_both_axes():
    shares = even_shares("direction-and-restitution", 200)
    assert shares.shape == (200, 2)
    assert even_shares("gravity-direction", 7).shape == (7, 1)
    counts, _, _ = np.histogram2d(*shares.T, bins=(5, 4), range=((0, 1), (0, 1)))
    assert counts.min() >= 8  # of ten in each cell


@pytest.mark.parametrize("name", TASKS)
def test_held_out_contexts_are_never_learnt(name):
    learnt = contexts_of(name, "learnt", np.random.default_rng(0).random((4000, len(CONTEXTS[name]))))
    for axis, places in zip(CONTEXTS[name], learnt.T, strict=True):
        held_out = (*axis.interpolation, *axis.extrapolation)
        lengths = sum(high - low for low, high in (*axis.learnt, *held_out))
        assert lengths == pytest.approx(1 if axis is CONTEXTS[name][0] else 0.5)
        assert not any(((places > low) & (places < high)).any() for low, high in held_out)


@pytest.mark.parametrize("name", DIGITS)
def test_digits_are_learnt_at_contexts_learnt_alone(name):
    task, (axis,) = digits_task(name, rng=np.random.default_rng(0)), CONTEXTS[name]
    for step in range(20):
        seen = task.training_batch(0, step, 200).contexts
        assert not any(((seen > low) & (seen < high)).any() for low, high in (*axis.interpolation, *axis.extrapolation))


def test_where_two_kinds_meet_the_context_counts_as_held_out():
    kinds = [kind_of("rotated-digits", place) for place in (0.1, 0.3, 0.35, 0.5, 0.65, 0.9)]
    assert kinds == ["learnt", "interpolation", "interpolation", "learnt", "extrapolation", "extrapolation"]


def test_the_plane_is_a_manifold_with_the_gram_of_its_basis():
    place = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    f = Plane().basis(torch.cartesian_prod(place, place))
    torch.testing.assert_close(Plane().gram(), f.T @ f / len(f), rtol=0, atol=1e-5)
    assert isinstance(Plane(), weight_manifold.WeightManifold)


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
        seen = task.seen(digits, classes, np.full((len(digits), 1), context), np.random.default_rng(1))
        noise = (seen.inputs - digits).double()
        assert noise.std().item() == pytest.approx(context, rel=4 / math.sqrt(2 * noise.numel()))


# discs under gravity


@pytest.fixture(scope="module")
def few_boxes():
    """Tasks of a few boxes at a few contexts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emergence.studies.weight_manifold.particles.N_CONTEXTS", 12)
        patch.setattr("emergence.studies.weight_manifold.particles.N_SYSTEMS", 6)
        particles_task.cache_clear()
        yield
    particles_task.cache_clear()


def test_contexts_are_what_they_say():
    assert system_at("gravity-strength", np.array([0.5])).gravity == (0.0, -3.0)
    np.testing.assert_allclose(system_at("gravity-direction", np.array([0.25])).gravity, (0, 4), atol=1e-12)
    both = system_at("direction-and-restitution", np.array([0.5, 0.25]))
    np.testing.assert_allclose(both.gravity, (-4, 0), atol=1e-12)
    assert both.restitution == pytest.approx(0.7)
    assert system_at("direction-and-restitution", np.array([0.5, 0.5])).restitution == 1
    assert system_at("gravity-direction", np.array([0.5])).restitution == 1


@pytest.mark.parametrize("name", PARTICLES)
@pytest.mark.usefixtures("few_boxes")
def test_discs_that_hit_nothing_fall_as_their_context_says(name):
    task, context = particles_task(name, 0), contexts_of(name, "learnt", even_shares(name, 3))[1]
    for part in ("validation", "test"):
        scenes = task.scenes(part, context)
        free = ~scenes.contacts.any(-1) & ~scenes.wall_contacts
        assert free.sum() > 100
        torch.testing.assert_close(scenes.batch.targets[free], scenes.ballistic[free], rtol=0, atol=1e-5)
        change = scenes.batch.targets[free].double() * torch.tensor(task.normalization.target_std)
        fall = (change + torch.tensor(task.normalization.target_mean))[:, 2:].mean(0) / 0.1
        np.testing.assert_allclose(fall, system_at(name, context).gravity, atol=1e-4)


@pytest.mark.usefixtures("few_boxes")
def test_scenes_to_learn_from_are_normalised_and_their_contexts_learnt():
    task = particles_task("direction-and-restitution", 0)
    for values in task.train:
        flat = values.flatten(0, 1)
        torch.testing.assert_close(flat.mean(0), torch.zeros(values.shape[-1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(flat.std(0), torch.ones(values.shape[-1]), rtol=0, atol=1e-3)
    assert task.contexts.unique(dim=0).shape == (12, 2)
    learnt = as_tensor(contexts_of(task.name, "learnt", even_shares(task.name, 12)))
    torch.testing.assert_close(task.contexts[:: 6 * (N_FRAMES - 1)], learnt)


@pytest.mark.usefixtures("few_boxes")
def test_parts_seeds_and_contexts_have_boxes_of_their_own():
    task, context = particles_task("gravity-strength", 0), np.array([0.3])
    starts = [
        task.scenes("validation", context),
        task.scenes("test", context),
        task.scenes("test", np.array([0.31])),
        particles_task("gravity-strength", 1).scenes("test", context),
    ]
    radii = [tuple(scenes.radii[0].tolist()) for scenes in starts]
    assert len(set(radii)) == len(radii)
    first, again = (task.training_batch(0, 3, 16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# the arms


@pytest.mark.parametrize("task", TASKS)
def test_wide_arms_have_as_many_numbers_as_the_manifold(task):
    numbers = {arm: sum(p.numel() for p in network(arm, task, 64).parameters()) for arm in ARMS}
    for arm in ("raw_wide", "basis_wide"):
        assert numbers[arm] == pytest.approx(numbers["manifold"], rel=0.07)  # widths of heads are whole numbers
    assert numbers["plain_gradient"] == numbers["manifold"]
    assert numbers["plain"] < numbers["raw"] < numbers["basis"] < numbers["film"]
    assert numbers["film"] < min(numbers["manifold"], numbers["separate"])


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("task", TASKS)
def test_an_answer_depends_on_its_own_context_alone(task, arm):
    model, x = network(arm, task), inputs(task, 6)
    with torch.no_grad():  # axes and modulations begin at zero
        for i, p in enumerate(model.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=seeded(i))
    s = contexts(task, [0.05, 0.05, 0.2, 0.5, 0.6, 0.95])
    together = model(x, s)
    for b in range(6):
        torch.testing.assert_close(model(x[b : b + 1], s[b : b + 1])[0], together[b], rtol=1e-4, atol=1e-4)
    change = (model(x, s.roll(1, 0))[2:] - together[2:]).abs().max()
    assert (change == 0) if arm == "plain" else (change > 1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_wrong_topology_takes_the_same_contexts(task):
    assert weight_manifold.manifold_of(network("manifold", task)) == MANIFOLDS[task]
    assert weight_manifold.manifold_of(network("wrong_topology", task)) == WRONG[task]
    assert type(MANIFOLDS[task]) is not type(WRONG[task])
    assert MANIFOLDS[task].n_context == WRONG[task].n_context == len(CONTEXTS[task])


@pytest.mark.parametrize(("task", "answering"), [("rotated-digits", 0), ("noisy-digits", -1)])
def test_the_nearest_of_separate_networks_answers_round_the_circle_too(task, answering):
    model, x = network("separate", task), torch.rand(3, 64, generator=seeded())
    torch.testing.assert_close(model(x, torch.full((3,), 0.95)), model.networks[answering](x))


def test_film_starts_as_the_plain_network_and_scales_what_it_says():
    model: Any = network("film")
    x, s = torch.rand(4, 64, generator=seeded()), torch.tensor([0.1, 0.2, 0.5, 0.6])
    torch.testing.assert_close(model(x, s), network("plain")(x, s))
    with torch.no_grad():
        model.network.linear1.modulation[1, 0] = 2.0  # the second layer's shift, at every context
        model.network.linear1.modulation[0, 0] = -1.0  # and its scale to zero
    last = model.network[-1]
    expected = last(torch.nn.functional.silu(torch.full((4, 16), 2.0)))
    torch.testing.assert_close(model(x, s), expected)


def test_the_metric_is_that_of_the_contexts_learnt():
    model = network("manifold")
    method: Any = method_at_work(ManifoldRun("manifold", 0.1, 0), SMALL, model)
    task = make_task("rotated-digits", 0)
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


@pytest.mark.slow  # learning coefficients of four transformers at four stations
@pytest.mark.usefixtures("few_boxes")
def test_a_study_of_particles_walks_along_the_weights(tmp_path):
    config = SteeredStudyConfig(
        arms=("manifold", "plain", "raw"), width=8, learning_rates=(3e-3,), seeds=(0, 1), n_steps=40
    )
    summary = run_manifold_study(config, tmp_path / "study", n_workers=1)
    assert [walk["arm"] for walk in summary["walks"]] == ["manifold", "plain"]
    for quantity in ("best_ap_learnt", "best_ap_interpolation", "best_ap_extrapolation", "llc", "hessian_trace"):
        assert summary["walks"][1][f"{quantity}_difference"]["n"] == 2, quantity
    page = (tmp_path / "study" / "report.html").read_text()
    for said in ("Contact heads along the manifold", "The landscape along the manifold", "learning coefficient"):
        assert said in page


def planted_walk() -> pd.DataFrame:
    """Head 0.1 is best at three places of four, head 1.0 at the last, beyond those learnt; its AP rises at step 100."""
    rows: list[Any] = [("end", 1000, "llc", None, None, 0.05, 7.0), ("end", 1000, "llc", None, None, 0.9, 9.0)]
    for place, kind_best in ((0.05, 0), (0.2, 0), (0.35, 0), (0.9, 1)):
        rows.append(("end", 1000, "contact_ap", 0.0, 1.0, place, 0.8 if kind_best == 0 else 0.3))
        rows.append(("end", 1000, "contact_ap", 1.0, 0.0, place, 0.4))
    for step in np.unique(np.geomspace(1, 999, 24).round()):
        rows.append(("training", step, "contact_ap", 0.0, 1.0, 0.05, 0.1 + 0.7 * max(0, np.log10(step / 100))))
        rows.append(("training", step, "contact_ap", 1.0, 0.0, 0.05, 0.1))
    table = pd.DataFrame(rows, columns=["moment", "step", "quantity", "layer", "head", "coordinate", "value"])
    return table.assign(arm="manifold", seed=3)


def test_walks_are_compared_at_the_rate_of_the_manifold():
    """The plain transformer is best at another rate; its walk at the manifold's is the one that is told."""
    errors = {("manifold", 0.01): 1.0, ("manifold", 0.03): 2.0, ("plain", 0.01): 2.0, ("plain", 0.03): 1.0}
    tables = []
    for place, ((arm, rate), error) in enumerate(errors.items()):
        walk = planted_walk().assign(arm=arm, learning_rate=rate, n_parameters=1)
        walk.loc[walk.quantity == "llc", "value"] += 10 * place
        told = walk.iloc[[0]].assign(quantity="validation_error", value=error)
        scores = [told.assign(quantity=f"error_{kind}", value=error) for kind in KINDS]
        tables.append(pd.concat([walk, told, *scores]))
    config = SteeredStudyConfig(arms=("manifold", "plain"), learning_rates=(0.01, 0.03), seeds=(3,))
    summary = summarize(pd.concat(tables, ignore_index=True), config)
    assert [entry["learning_rate"] for entry in summary["arms"]] == [0.01, 0.03]
    assert [walk["llc"]["mean"] for walk in summary["walks"]] == [7, 27]


def test_a_walk_is_told_by_its_best_heads():
    best = best_heads(planted_walk())
    assert best["head"].tolist() == ["0.1", "0.1", "0.1", "1.0"]
    found = walk_table(planted_walk(), "gravity-direction").loc["manifold", 3]
    assert found.best_ap_learnt == pytest.approx(0.8)
    assert found.best_ap_interpolation == pytest.approx(0.8)
    assert found.best_ap_extrapolation == pytest.approx(0.4)
    assert found.same_head == 0.75
    assert found.llc == 7  # beyond those learnt it is not counted
    assert 60 < found.onset_step < 160


@pytest.mark.parametrize("arm", ["manifold", "plain"])
@pytest.mark.usefixtures("few_boxes")
def test_heads_are_scored_in_the_transformer_at_each_context(arm):
    model, task = network(arm, "gravity-direction"), particles_task("gravity-direction", 0)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeded(i))
    (context,) = contexts_of("gravity-direction", "learnt", np.array([[0.4]]))
    scenes = task.scenes("test", context)
    told = torch.full((len(scenes),), float(context[0]))
    answers = model_at(model, context)(scenes.batch.features)
    torch.testing.assert_close(answers, model(scenes.batch.features, told), rtol=1e-4, atol=1e-5)
    found = {(m.layer, m.head): m.value for m in head_scores(model, task, [float(context[0])]) if m.head is not None}
    assert len(found) == 8
    patterns: Any = []
    block = model.model if arm == "manifold" else model.network
    block.blocks[1].attn.hook_pattern.add_hook(lambda tensor, hook: patterns.append(tensor.detach().double().numpy()))
    model(scenes.batch.features, told)
    other = ~np.eye(6, dtype=bool)[None].repeat(len(scenes), 0)
    for head in range(4):
        expected = average_precision_score(scenes.contacts.numpy()[other], patterns[0][:, head][other])
        assert found[1, head] == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("few_boxes")
def test_the_landscape_is_that_of_the_point(monkeypatch):
    monkeypatch.setattr("emergence.studies.weight_manifold.walk.STATIONS", slice(4, 5))
    model, task = network("plain", "gravity-direction", 8), particles_task("gravity-direction", 0)
    found = {m.quantity: m for m in landscape(model, task, seeded())}
    assert set(found) == {"llc", "llc_rhat", "hessian_trace", "hessian_top"}
    assert {m.coordinate for m in found.values()} == {0.375}
    batch = task.scenes("test", np.array([0.375])).batches(128)[:1]
    again = hessian_trace(model.network, batch, loss_fn=prediction_loss, n_probes=32, generator=seeded(1))
    error = math.hypot(again.standard_error, found["hessian_trace"].standard_error)
    assert found["hessian_trace"].value == pytest.approx(again.value, abs=4 * error)
    assert 0 < found["hessian_top"].value < again.value


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "rotated-digits"}, "task must be one of gravity-strength, gravity-direction"),
        ({"width": 30}, "width must be a multiple of 4"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_of_transformers_are_refused_too(settings, message):
    assert_refused(SteeredStudyConfig, message=message, **settings)


def test_the_command_line_names_the_nearest_task(capsys):
    assert main(["manifold", "rotated-digit"]) == 2
    assert "did you mean rotated-digits?" in capsys.readouterr().err.replace("\n", " ")


def test_the_command_runs_a_study(tmp_path, capsys):
    out = tmp_path / "study"
    options = "--arms manifold raw --width 8 --learning-rates 0.03 --seeds 0 1 --n-steps 6 --n-workers 1"
    assert main(["manifold", "noisy-digits", *options.split(), "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out.replace("\n", "")
    assert (out / "report.html").exists()

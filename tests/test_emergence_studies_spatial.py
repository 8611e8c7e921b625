"""A spatial study from settings to page, at the size of seconds, and each of its numbers by another route."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import seeded
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from micro_study import contents
from PIL import Image
from scipy import stats

from emergence.files import exclusive
from emergence.interventions import spatial
from emergence.interventions.spatial import SpatialTraining
from emergence.perceptron import Perceptron
from emergence.progress import Silent
from emergence.recurrent import ContinuousTimeRNN
from emergence.studies.cells import run_cells
from emergence.studies.spatial import examples, figures, measuring, page
from emergence.studies.spatial.config import SpatialRun, SpatialStudyConfig
from emergence.studies.spatial.examples import EXAMPLES, example
from emergence.studies.spatial.findings import mean_interval, summarize
from emergence.studies.spatial.measuring import (
    _agreement,
    _test,
    activity,
    cognitive_clusters,
    grid_cells,
    measure_at,
    whole_graph,
)
from emergence.studies.spatial.published import PUBLISHED, published_table
from emergence.studies.spatial.study import run_spatial_study
from emergence.studies.spatial.training import trained_run
from emergence.tasks import Task
from emergence.tasks.cognitive import CognitiveTask, task_accuracy
from probes import functional_clusters, graph_modularity, task_variance
from probes.modularity import ShuffleTest
from simulators import TASKS, cognitive_trials

TINY = SpatialStudyConfig(arms=("none", "full"), seeds=(0, 1), n_steps=300, n_shuffles=5)
"""Long enough for one round of swaps, at step 200, with checkpoints on both sides of it."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study, never stopped: folder and summary. Read only."""
    folder = tmp_path_factory.mktemp("spatial") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "N_FRAMES", 3)
        return folder, run_spatial_study(TINY, folder, n_workers=1)


@pytest.fixture
def no_page(monkeypatch):
    """Leave out the page, which takes longer to draw than a tiny run to train."""
    monkeypatch.setattr(page, "write_page", lambda *_: None)


def runs_of(folder):
    return {run.name: trained_run(folder, run, TINY.example_settings()) for run in TINY.runs}


def table_of(folder) -> Any:
    return pd.read_parquet(folder / "measurements.parquet")


def value(table, quantity, run: SpatialRun) -> float:
    rows = table[(table.quantity == quantity) & (table.arm == run.arm) & (table.seed == run.seed)]
    assert len(rows) == 1
    return float(rows.value.iloc[0])


# the whole


def test_a_study_leaves_what_it_promises(study):
    folder, summary = study
    names = set(contents(folder))
    assert {"config.json", "measurements.parquet", "summary.json", "report.html"} <= names
    assert {f"figures/{name}" for name in ("network.svg", "network.png", "tradeoff.svg", "training.gif")} <= names
    assert not [name for name in names if "partial" in name]
    assert json.loads((folder / "summary.json").read_text()) == summary
    settings = json.loads((folder / "config.json").read_text())
    assert settings["arms"] == ["none", "full"]
    assert settings["n_steps"] == 300
    table = table_of(folder)
    assert set(table.columns) == {
        "arm",
        "strength",
        "seed",
        "step",
        "quantity",
        "coordinate",
        "value",
        "standard_error",
    }
    assert len(table) == 4 * table.quantity.nunique()
    assert set(table.step) == {300}


def test_the_page_tells_the_findings_and_opens_offline(study):
    folder, summary = study
    text = (folder / "report.html").read_text()
    assert page.verdict(summary) in text
    assert text.count("<svg") == 2
    assert not re.search(r'(src|href)="https?:', text)
    for entry in summary["arms"]:
        low, high = entry["error"]["interval"]
        assert f"<td>{entry['error']['mean']:.3g}\n[{low:.3g}, {high:.3g}]</td>" in text
    assert "&#34;n_shuffles&#34;: 5" in text
    film: Any = Image.open(folder / "figures" / "training.gif")
    with film:
        assert film.n_frames == 3


def numbers(folder) -> dict[str, str]:
    """Contents of all but the page and its figures, which draw equal numbers."""
    return {name: digest for name, digest in contents(folder).items() if not name.startswith(("report", "figures"))}


class Interrupting(SpatialTraining):
    """Somebody presses Ctrl-C in the third run, between a swap and the end."""

    def after_step(self, step, optimizer):
        super().after_step(step, optimizer)
        if self.settings.arm == "full" and step == 270:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("no_page")
def test_stopped_and_resumed_is_the_same_to_the_byte(study, tmp_path, monkeypatch):
    out = tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr("emergence.studies.spatial.training.SpatialTraining", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            run_spatial_study(TINY, out, n_workers=1)
    begun = contents(out)
    assert [name for name in begun if name.startswith("measurements")] == [
        "measurements/none_1/seed_0.parquet",
        "measurements/none_1/seed_1.parquet",
    ]
    assert "checkpoints/full_1/seed_0/step_00000259/meta.json" in begun  # after the swap of step 200
    assert "checkpoints/full_1/seed_0/step_00000300/meta.json" not in begun
    run_spatial_study(TINY, out, n_workers=1)
    assert numbers(out) == numbers(study[0])


@pytest.mark.slow
@pytest.mark.usefixtures("no_page")
def test_two_workers_find_the_same_as_one(study, tmp_path):
    run_spatial_study(TINY, tmp_path, n_workers=2)
    assert numbers(tmp_path) == numbers(study[0])


@pytest.mark.usefixtures("no_page")
def test_a_finished_study_trains_nothing_again(study, monkeypatch):
    def refuse(cell) -> pd.DataFrame:
        raise AssertionError(cell)

    monkeypatch.setattr("emergence.studies.spatial.study._train_and_measure", refuse)
    assert run_spatial_study(TINY, study[0], n_workers=1) == study[1]


KILLED = """
import sys
from emergence.studies.spatial.config import SpatialStudyConfig
from emergence.studies.spatial.study import run_spatial_study
if __name__ == "__main__":
    settings = SpatialStudyConfig(arms=("none", "full"), seeds=(0, 1), n_steps=300, n_shuffles=5)
    run_spatial_study(config, sys.argv[1], n_workers=2)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("no_page")
def test_killed_at_any_moment_it_ends_with_the_same_numbers(study, tmp_path):
    (tmp_path / "main.py").write_text(KILLED)
    out, command = tmp_path / "study", [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "study")]
    for patience in (0.3, 0.6, 0.9, 1.2):
        n_before = len(list(out.rglob("meta.json")))
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(list(out.rglob("meta.json"))) <= n_before:
            time.sleep(0.02)
        time.sleep(patience)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run_spatial_study(TINY, out, n_workers=1)
    assert (out / "measurements.parquet").read_bytes() == (study[0] / "measurements.parquet").read_bytes()


# the folder


def test_other_settings_in_the_folder_are_refused(study):
    before = contents(study[0])
    with pytest.raises(
        ValueError, match=r"holds a study with other settings \(seeds is \[0, 1\] there, \[0\] here\); ch"
    ):
        run_spatial_study(replace(TINY, seeds=(0,)), study[0])
    assert contents(study[0]) == before


@pytest.mark.parametrize("content", ["{", "", "[1, 2]", "null", "\xff"])
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"config.json is no table of settings \(.*\); delete it, or choose"
    ) as refused:
        run_spatial_study(TINY, tmp_path)
    assert "\n" not in str(refused.value)
    assert list(contents(tmp_path)) == ["config.json"]


def test_a_second_process_is_refused(tmp_path):
    with exclusive(tmp_path), pytest.raises(BlockingIOError, match=f"another process is at work in {tmp_path}; wait"):
        run_spatial_study(TINY, tmp_path)
    assert not list(tmp_path.iterdir())


# cells


def one_row(cell):
    if cell == "bad":
        raise FloatingPointError("the loss is nan")
    return pd.DataFrame({"cell": [cell], "threads": [torch.get_num_threads()]})


def test_cells_come_back_in_order_and_finished_ones_are_kept(tmp_path):
    cells = [(name, tmp_path / f"{name}.parquet") for name in ("b", "a", "bad", "c")]
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        run_cells(one_row, cells, title="rows", progress=Silent(), n_workers=1)
    assert sorted(contents(tmp_path)) == ["a.parquet", "b.parquet"]
    stamp = (tmp_path / "a.parquet").stat().st_mtime_ns
    torch.set_num_threads(2)
    try:
        tables = run_cells(one_row, [*cells[:2], cells[3]], title="rows", progress=Silent(), n_workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert [table.cell.item() for table in tables] == ["b", "a", "c"]
    assert tables[2].threads.item() == 1  # else bits would depend on the number of workers
    assert (tmp_path / "a.parquet").stat().st_mtime_ns == stamp


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match=r"n_workers must be zero \(all cores\) or positive, got -1"):
        run_cells(one_row, [], title="rows", progress=Silent(), n_workers=-1)


@pytest.mark.slow
def test_a_worker_that_dies_is_reported_in_one_line(tmp_path):
    work: Any = os._exit
    with pytest.raises(RuntimeError, match="a worker process died .*finished runs are kept, go on with fewer workers$"):
        run_cells(work, [(i, tmp_path / f"{i}") for i in (3, 4)], title="rows", progress=Silent(), n_workers=2)


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ()}, r"arms must be distinct, and at least one, got \(\)"),
        ({"arms": ("l1", "l1")}, r"arms must be distinct, and at least one, got \('l1', 'l1'\)"),
        ({"arms": ("l1", "l2")}, r"arms must be among none, l1, l1_local, l1_swap, full, got \('l1', 'l2'\)"),
        ({"seeds": ()}, r"seeds must be distinct, and at least one, got \(\)"),
        ({"seeds": (1, 1)}, r"seeds must be distinct, and at least one, got \(1, 1\)"),
        ({"seeds": (0, -1)}, r"seeds must be zero or positive, got \(0, -1\)"),
        ({"strengths": ()}, r"strengths must be distinct, and at least one, got \(\)"),
        ({"strengths": (1.0, 1.0000001)}, r"strengths must be distinct in six digits, got \(1.0, 1.0000001\)"),
        ({"strengths": (0.0,)}, r"strengths must be positive and finite, got \(0.0,\)"),
        ({"strengths": (1.0, math.nan)}, r"strengths must be positive and finite, got \(1.0, nan\)"),
        ({"strengths": (math.inf,)}, r"strengths must be positive and finite, got \(inf,\)"),
        ({"n_steps": 0}, "spatial study.n_steps must be at least 1, got 0"),
        ({"n_trials": 1}, "spatial study.n_trials must be at least 2, got 1"),
        ({"n_shuffles": 1}, "spatial study.n_shuffles must be at least 2, got 1"),
        ({"example": "mnist"}, f"example must be one of {', '.join(EXAMPLES)}, got mnist"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_impossible_settings_are_refused_before_any_work(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SpatialStudyConfig(**settings)


def test_every_arm_runs_at_every_price_and_the_plain_one_once():
    settings = SpatialStudyConfig(arms=("none", "full"), seeds=(3, 1), strengths=(0.5, 2.0))
    assert [run.name for run in settings.runs] == [
        "none_1/seed_3",
        "none_1/seed_1",
        "full_0.5/seed_3",
        "full_0.5/seed_1",
        "full_2/seed_3",
        "full_2/seed_1",
    ]


def test_schedules_keep_their_proportions():
    settings = SpatialStudyConfig(example="cognitive", n_steps=1200)
    training = settings.example_settings().training
    assert (training.n_steps, training.n_warmup_steps, training.n_decay_steps) == (1200, 5, 400)
    assert SpatialStudyConfig(n_steps=1).example_settings().training.n_decay_steps == 0
    assert SpatialStudyConfig().example_settings().training == example("independence").training


PUBLISHED_SETTINGS: dict[str, tuple[list[int], str, float, float, list[float], int, float, int]] = {
    "independence": ([4, 20, 20, 2], "sum", 0.1, 1, [1e-3, 1e-2, 1e-2, 1e-3], 20_000, 2e-3, 5),
    "feature-sharing": ([3, 20, 20, 3], "sum", 0.1, 1, [1e-3, 1e-2, 1e-2, 1e-3], 20_000, 2e-3, 5),
    "composition": ([4, 20, 20, 20, 20, 1], "sum", 0.1, 1, [1e-3, 3e-3, 3e-3, 3e-3], 20_000, 2e-3, 5),
    "two-moons": ([2, 20, 20, 2], "sum", 0.2, 1, [1e-3, 1e-3, 1e-2, 1e-2], 10_000, 2e-3, 10),
    "modular-addition": ([32, 50, 50, 59], "mean", 0.5, 2, [0.1, 1, 1, 0.1], 20_000, 1e-3, 30),
}
"""Sizes, sum or mean, layer gap, locality, price in the quarters of training, steps, learning rate, candidates; Liu,
Gan & Tegmark 2023, sections 3.1 to 3.3, and their public code."""


@pytest.mark.parametrize("name", PUBLISHED_SETTINGS)
def test_examples_have_the_published_settings(name):
    found = example(name)
    placement = found.place(found.model(seeded()))
    n_steps = found.training.n_steps
    price = [found.spatial.strength_at(1 + n_steps * quarter // 4, n_steps) for quarter in range(4)]
    assert PUBLISHED_SETTINGS[name] == (
        [population.size for population in placement.wiring.populations.values()],
        placement.reduction,
        placement.layer_gap,
        placement.locality,
        pytest.approx(price),
        n_steps,
        found.training.optimizer.learning_rate,
        found.spatial.n_candidates,
    )
    assert found.spatial.swap_every == 200
    assert found.spatial.biases_from == (0.75 if placement.layer_gap == 0.1 else 0.0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_a_loss_and_a_gradient(name):
    found = example(name)
    task, model = found.task(np.random.default_rng(0)), found.model(seeded())
    assert isinstance(task, Task)
    batch = task.training_batch(0, 1, min(found.training.batch_size, 8) if name == "cognitive" else 10**6)
    (task.loss(model, batch) + spatial.wiring_cost(model, found.place(model))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# training


def test_the_price_of_a_run_is_its_strength_times_the_examples(tmp_path):
    dear = replace(example("independence"), price_of_l1=3.0)
    factors: dict[Any, int] = {"l1": 3, "l1_swap": 3, "l1_local": 1, "full": 1, "none": 1}
    for arm, factor in factors.items():
        method = trained_run(tmp_path, SpatialRun(arm, 2.0, 0), dear)._method(dear.model(seeded()))
        assert method.settings == replace(dear.spatial, arm=arm, strength=dear.spatial.strength * (2.0 * factor))


def test_arms_of_a_seed_begin_alike_and_see_the_same_examples(study):
    runs = runs_of(study[0])
    none, full, other = (runs[name] for name in ("none_1/seed_0", "full_1/seed_0", "full_1/seed_1"))
    first = [dict(run.load(0)[0].named_parameters()) for run in (none, full, other)]
    assert all(torch.equal(first[0][name], first[1][name]) for name in first[0])
    assert not torch.equal(first[0]["linear0.weight"], first[2]["linear0.weight"])
    inputs: list[Any] = [run.task for run in (none, full, other)]
    assert torch.equal(inputs[0].train.inputs, inputs[1].train.inputs)
    assert not torch.equal(inputs[0].train.inputs, inputs[2].train.inputs)


def test_a_checkpoint_comes_back_with_the_places_it_had(study):
    run = runs_of(study[0])["full_1/seed_0"]
    _, before = run.load(0)
    model, after = run.load(300)
    line = spatial.Line()
    assert torch.equal(before.positions["input"], line.positions(4))
    assert not torch.equal(after.positions["input"], line.positions(4))  # moved by the swaps of step 200
    saved = run.checkpoints.training_state(300)
    for name in ("input", "linear2"):
        assert torch.equal(after.positions[name], saved[f"intervention/{name}"])
    places = after.positions["input"].flatten().tolist()
    assert sorted(places) == line.positions(4).flatten().tolist()
    assert not model.training
    _, still = runs_of(study[0])["none_1/seed_0"].load(300)
    assert torch.equal(still.positions["input"], line.positions(4))


# measuring


def test_error_wire_and_neurons_by_brute_force(study):
    table = table_of(study[0])
    for run in runs_of(study[0]).values():
        loaded, placement = run.load(300)
        task: Any = run.task
        with torch.no_grad():
            error = (loaded(task.test.inputs) - task.test.targets).square().mean().item()
        assert value(table, "error", run.run) == pytest.approx(error, rel=1e-6)
        places = [placement.positions[name].flatten().tolist() for name in ("input", "linear0", "linear1", "linear2")]
        count = weighted = n_connections = 0
        strong = []
        for layer in range(3):
            w = loaded.get_parameter(f"linear{layer}.weight").detach().abs().double().numpy()
            strong.append(w > 1e-3)
            for i, j in np.ndindex(*w.shape):
                gaps = 20 * abs(places[layer + 1][i] - places[layer][j])  # the larger layer has twenty neurons
                weighted += w[i, j] * gaps
                if w[i, j] > 1e-3:
                    count, n_connections = count + gaps, n_connections + 1
        assert value(table, "wiring_count", run.run) == pytest.approx(count, rel=1e-9)
        assert value(table, "wiring_weighted", run.run) == pytest.approx(weighted, rel=1e-9)
        assert value(table, "n_connections", run.run) == n_connections
        used = [sum(strong[i].any(1) & strong[i + 1].any(0)) for i in (0, 1)]
        assert value(table, "n_active", run.run) == sum(used)
    assert min(value(table, "n_active", run) for run in TINY.runs) < 40  # else every neuron counts anyhow


def test_the_whole_graph_has_every_connection_once_and_at_its_place():
    model = Perceptron([3, 4, 2], seeded())
    graph, layers = whole_graph(model, spatial.place(model, "line"))
    by_hand = np.zeros((9, 9))
    by_hand[3:7, :3] = model.get_parameter("linear0.weight").detach().abs().numpy()
    by_hand[7:, 3:7] = model.get_parameter("linear1.weight").detach().abs().numpy()
    assert np.array_equal(graph, by_hand)
    assert layers.tolist() == [0] * 3 + [1] * 4 + [2] * 2
    folded = Perceptron([16, 5], seeded(), embedding=(11, 8))
    graph, layers = whole_graph(folded, spatial.place(folded, "line"))
    w = folded.get_parameter("linear0.weight").detach().abs().double().numpy()
    assert graph.shape == (13, 13)
    assert np.array_equal(graph[8:, :8], w[:, :8] + w[:, 8:])  # both tokens are read from the same eight places
    assert np.count_nonzero(graph) == 40


def test_an_active_neuron_has_a_connection_in_and_one_out():
    model = Perceptron([4, 20, 2], seeded())
    with torch.no_grad():
        model.get_parameter("linear0.weight")[3] = 1e-4  # hears nothing
        model.get_parameter("linear1.weight")[:, 5:7] = -1e-4  # two that say nothing
        model.get_parameter("linear1.weight")[0, 8] = 0  # this one still speaks to the other output
    task = example("independence").task(np.random.default_rng(0))
    found = measure_at(
        model, spatial.place(model, "line"), task, rng=np.random.default_rng(0), n_trials=2, n_shuffles=2
    )
    values = {m.quantity: m.value for m in found}
    assert values["n_active"] == 17
    graph, layers = whole_graph(model, spatial.place(model, "line"))
    null = graph_modularity(graph, rng=np.random.default_rng(0), layers=layers, n_shuffles=2).test.null
    assert values["graph_modularity_null"] == null.mean()  # of graphs with the same layers


def test_a_network_without_connections_is_measured_without_communities():
    model = Perceptron([4, 20, 2], seeded())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    task = example("independence").task(np.random.default_rng(0))
    rows = measure_at(model, spatial.place(model, "line"), task, rng=np.random.default_rng(0), n_trials=2, n_shuffles=2)
    found = {m.quantity: m.value for m in rows}
    assert found.pop("error") > 0
    assert found == {"wiring_count": 0, "wiring_weighted": 0, "n_connections": 0, "n_active": 0}


# findings


def test_intervals_are_students(study):
    folder, summary = study
    table = table_of(folder)
    assert [entry["arm"] for entry in summary["arms"]] == ["none", "full"]
    for entry in summary["arms"]:
        for quantity in ("error", "wiring_count", "graph_modularity"):
            values = [value(table, quantity, SpatialRun(entry["arm"], 1.0, seed)) for seed in (0, 1)]
            found = entry[quantity]
            assert found["values"] == values
            assert found["mean"] == pytest.approx(sum(values) / 2)
            expected = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
            assert found["interval"] == pytest.approx(list(expected))
    found = mean_interval(np.array([1.0, np.nan, 2.0, 6.0]))
    assert (found["mean"], found["n"]) == (3, 3)
    assert found["interval"] == pytest.approx([3 - 6.5724, 3 + 6.5724], abs=1e-4)  # 4.3027 sqrt(7) / sqrt(3)
    assert mean_interval(np.array([5.0]))["mean"] == 5
    assert np.isnan(mean_interval(np.array([5.0]))["interval"]).all()


def rows(quantity: str, values: list[float], errors: list[float] | None = None, **more: Any) -> pd.DataFrame:
    """A table of one quantity over seeds 0, 1, ..."""
    n = len(values)
    columns = {"arm": "full", "strength": 1.0, "seed": range(n), "step": 9, "coordinate": np.nan} | more
    return pd.DataFrame(
        {**columns, "quantity": quantity, "value": values, "standard_error": [np.nan] * n if errors is None else errors}
    )


def test_distances_from_the_null_are_in_its_standard_deviations():
    table = pd.concat(
        [
            rows("isolated", [0.2, 0.5, 0.9]),
            rows("isolated_null", [0.6, 0.5, 0.5], [0.1, 0.2, 0.0]),
            rows("isolated_null_low", [0.4, 0.3, 0.5]),
            rows("isolated_null_high", [0.8, 0.7, 0.5]),
            rows("accuracy", [0.1, 0.1, 0.1], coordinate=3.0),
        ]
    )
    (entry,) = summarize(table, SpatialStudyConfig(seeds=(0, 1, 2)))["arms"]
    assert set(entry) == {"arm", "strength", "isolated", "isolated_z", "isolated_below_null", "isolated_above_null"}
    assert entry["isolated_z"]["values"][:2] == pytest.approx([-4, 0])
    assert entry["isolated_z"]["values"][2] is None  # no shuffle changed the number
    assert entry["isolated_z"]["mean"] == pytest.approx(-2)
    assert entry["isolated_z"]["n"] == 2
    assert (entry["isolated_below_null"], entry["isolated_above_null"]) == (1, 1)


def test_every_price_of_an_arm_has_an_entry_of_its_own():
    table = pd.concat([rows("error", [0.1, 0.3]), rows("error", [0.5, 0.9], strength=2.0)])
    found = summarize(table, SpatialStudyConfig())["arms"]
    assert [(e["strength"], e["error"]["mean"]) for e in found] == [(1, pytest.approx(0.2)), (2, pytest.approx(0.7))]


def test_a_shuffle_test_is_told_whole():
    null = np.random.default_rng(0).normal(5, 2, 99)
    found = {m.quantity: (m.value, m.standard_error) for m in _test("spread", ShuffleTest(1.0, null, "less"))}
    low, high = np.quantile(null, [0.025, 0.975])
    assert found.pop("spread_null") == (null.mean(), null.std(ddof=1))
    assert {name: number for name, (number, _) in found.items()} == {
        "spread": 1.0,
        "spread_null_low": low,
        "spread_null_high": high,
        "spread_p_value": (1 + (null <= 1).sum()) / 100,
    }


def entry(arm: str, strength: float, error: float, neurons: float = 10, wire: float = 100) -> dict[str, Any]:
    means = {"error": error, "n_active": neurons, "wiring_count": wire}
    return {"arm": arm, "strength": strength, **{name: {"mean": float(mean)} for name, mean in means.items()}}


def test_the_verdict_compares_at_equal_error():
    arms = [
        entry("none", 1.0, 0.03, 356, 2e6),
        entry("l1", 1.0, 0.2, 41, 1e4),
        entry("l1", 0.5, 0.03, 131, 1e5),
        entry("l1", 0.1, 0.01, 285, 7e5),
        entry("full", 1.0, 0.031, 109, 2e4),
        entry("full", 9.0, 0.2, 20, 1e3),
    ]
    assert page.verdict({"arms": arms}) == (
        "With distance and swaps the error is 0.031 on 109 active neurons and 20,000 gaps of wire. "
        "L1 at the price nearest in error: 0.03 on 131 active neurons and 100,000 gaps of wire. "
        "No penalty: 0.03 on 356 active neurons and 2,000,000 gaps of wire."
    )
    assert "No penalty" not in page.verdict({"arms": arms[1:]})
    assert page.verdict({"arms": arms[:2]}) == "The full method was not among the arms."
    perfect = [entry("l1", 1.0, 0.0, 11), entry("l1", 2.0, 0.1), entry("full", 1.0, 0.0)]
    assert "L1 at the price nearest in error: 0 on 11" in page.verdict({"arms": perfect})


def test_the_page_shows_the_first_seed_at_the_price_nearest_the_examples_own():
    settings = SpatialStudyConfig(arms=("none", "full"), seeds=(3, 1), strengths=(4.0, 0.5, 1.6))  # 1.6 < 1 / 0.5
    assert page._shown(settings) == [SpatialRun("none", 1.0, 3), SpatialRun("full", 1.6, 3)]


def test_the_published_figures_stand_beside_ours():
    arms = [entry("none", 1.0, 0.04, 300, 1e6), entry("full", 1.0, 0.02, 90, 1e4), entry("full", 2.0, 0.1, 9, 10)]
    arms[1] |= {"isolated_by_index": {"mean": 0.4}, "isolated_by_index_z": {"mean": -5.04}}
    section = published_table({"arms": arms})
    assert section.table is not None
    assert section.table[1:] == [
        ["none", "published", *PUBLISHED["none"].values()],
        ["", "ours", "0.040", "300", "1e+06", "–"],
        ["full", "published", "0.031", "109", "2.0e4", "0.393 (z -5.2)"],
        ["", "ours", "0.020", "90", "1e+04", "0.400 (z -5.0)"],
    ]


# figures


def test_layers_are_drawn_with_a_wire_for_every_weight_that_counts():
    model = Perceptron([2, 4, 1], seeded())
    with torch.no_grad():
        model.get_parameter("linear0.weight").copy_(torch.tensor([[1.0, 0], [0, -0.5], [0.005, 0], [0, 0]]))
        model.get_parameter("linear1.weight").copy_(torch.tensor([[0, 2.0, 0, 1.0]]))
    ax: Any = Figure().subplots()
    figures.draw_layers(ax, model, spatial.place(model, "line"), (("a", "b"), ("sum",)))
    first, second = ax.collections[:2]
    ends = [segment.tolist() for segment in first.get_segments()]
    assert ends == [[[0.25, 0], [0.125, 1]], [[0.75, 0], [0.375, 1]]]  # 0.005 is below a hundredth of the largest
    assert first.get_linewidths() == pytest.approx([2.2, 1.1])
    assert [to_hex(c) for c in first.get_colors()] == [figures.POSITIVE, figures.NEGATIVE]
    assert [segment.tolist() for segment in second.get_segments()] == [
        [[0.375, 1], [0.5, 2]],
        [[0.875, 1], [0.5, 2]],
    ]
    dots = [collection.get_offsets().tolist() for collection in ax.collections[2:]]
    assert [[y for _, y in layer] for layer in dots] == [[0, 0], [1] * 4, [2]]
    labels = {text.get_text(): text.xy for text in ax.texts}
    assert labels == {"a": (0.25, 0), "b": (0.75, 0), "sum": (0.5, 2)}


def test_the_tradeoff_has_a_dot_a_run_and_a_line_an_arm():
    table = pd.concat(
        rows(quantity, values, arm=arm, strength=strength)
        for arm, strength, error in (("none", 1.0, 0.1), ("full", 1.0, 0.2), ("full", 3.0, 0.4))
        for quantity, values in (
            ("error", [error, 2 * error]),
            ("n_active", [10 / error, 30 / error]),
            ("wiring_count", [100.0, 200.0]),
        )
    )
    axes: Any = figures.tradeoff_figure(table).axes
    left, right = axes
    assert (left.get_ylabel(), left.get_yscale(), right.get_xscale()) == ("error on test", "linear", "linear")
    none, full = left.collections
    assert none.get_offsets().tolist() == [[100, 0.1], [300, 0.2]]
    assert sorted(full.get_offsets().tolist()) == [[25, 0.4], [50, 0.2], [75, 0.8], [150, 0.4]]
    np.testing.assert_allclose(left.lines[1].get_xydata(), [[50, 0.6], [100, 0.3]])  # means over seeds, a price each
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["no penalty", "L1 + distance + swaps"]
    assert to_hex(none.get_facecolor()[0]) == to_hex(figures.arm_colors()["none"])
    wide = table.value.where((table.quantity == "n_active") | (table.arm == "none"), 0.01 * table.value)
    axes = figures.tradeoff_figure(table.assign(value=wide)).axes
    assert (axes[0].get_yscale(), axes[0].get_xscale(), axes[1].get_xscale()) == ("log", "log", "log")
    without = table.value.where((table.quantity != "error") | (table.arm == "none"), 0.0)
    assert figures.tradeoff_figure(table.assign(value=without)).axes[0].get_yscale() == "linear"  # a log has no zero


def test_every_arm_has_a_name_and_a_colour_of_its_own():
    assert set(figures.ARM_LABELS) == set(figures.arm_colors()) == set(spatial.ARMS)
    assert len({to_hex(color) for color in figures.arm_colors().values()}) == len(spatial.ARMS)


def test_tasks_have_four_families():
    families = [figures.task_family(task) for task in TASKS]
    assert families == ["go"] * 3 + ["anti"] * 3 + ["decision"] * 10 + ["matching"] * 4


def test_an_animation_has_its_figures_in_order_and_stays_on_the_last(tmp_path):
    frames = [Figure(figsize=(1, 1), facecolor=color) for color in ("red", "lime", "blue")]
    figures.save_animation(frames, tmp_path / "film.gif")
    film: Any = Image.open(tmp_path / "film.gif")
    seen = []
    with film:
        for frame in range(film.n_frames):
            film.seek(frame)
            seen.append((film.convert("RGB").getpixel((5, 5)), film.info["duration"]))
    assert seen == [((255, 0, 0), 160), ((0, 255, 0), 160), ((0, 0, 255), 2000)]


# the recurrent example, on 36 units


@pytest.fixture
def small_cognitive(monkeypatch):
    full = example("cognitive")
    small = replace(
        full,
        task=lambda rng: CognitiveTask(n_steps=25),
        model=lambda generator: ContinuousTimeRNN(53, 36, 17, generator),
        place=lambda model: spatial.place(model, {"*": None, "cell": spatial.Grid((6, 6))}),
        spatial=replace(full.spatial, swap_every=4),
        training=replace(full.training, n_steps=10, batch_size=2, n_warmup_steps=0, n_decay_steps=0, n_checkpoints=2),
    )
    monkeypatch.setitem(examples._EXAMPLES, "cognitive", lambda: small)
    monkeypatch.setattr(page, "N_FRAMES", 1)
    monkeypatch.setattr(measuring, "functional_clusters", partial(functional_clusters, n_subsamples=10))


def assert_modules_by_brute_force(table, clusters, cells):
    """Isolated units and spread, on the grid and by index among active units, and what shuffles make of the spread."""
    numbers = table[table.coordinate.isna()].set_index("quantity")[["value", "standard_error"]]
    found, units, labels = numbers.value, np.flatnonzero(clusters.active), clusters.labels[clusters.active]
    assert (found.n_active, found.n_clusters) == (len(units), clusters.n_clusters)
    assert tuple(numbers.loc["cluster_stability"]) == (clusters.stability.mean(), clusters.stability.std())
    on_grid, by_index = np.array([cells[unit] for unit in units]), np.arange(len(units))[:, None]
    for name, places in (("isolated", on_grid), ("isolated_by_index", by_index)):
        is_mate = (abs(places[:, None] - places).sum(-1) == 1) & (labels[:, None] == labels)
        assert found[name] == pytest.approx(1 - is_mate.any(1).mean())
    sizes = np.bincount(labels)
    for name, places, weights, share in (
        ("cluster_spread", on_grid, np.ones(len(sizes)), len(units) - len(sizes)),
        ("index_variance", by_index, 1 / sizes, (1 - 1 / sizes).sum()),
    ):
        spread = [len(own) * own.var(0).sum() for own in (places[labels == c] for c in range(len(sizes)))]
        assert found[name] == pytest.approx(weights @ spread)
        mean, sd = numbers.loc[f"{name}_null"]
        assert abs(mean - share * places.var(0, ddof=1).sum()) < 4 * sd / np.sqrt(10_000)  # in closed form


@pytest.mark.usefixtures("small_cognitive")
def test_the_recurrent_study_from_settings_to_page(tmp_path):
    settings = SpatialStudyConfig(example="cognitive", arms=("full",), seeds=(2,), n_trials=6, n_shuffles=2)
    summary = run_spatial_study(settings, tmp_path, n_workers=1)
    table = table_of(tmp_path)
    for run, found in zip(settings.runs, summary["arms"], strict=True):
        trained = trained_run(tmp_path, run, settings.example_settings())
        model: Any = trained.load(10)[0]
        accuracy = table[(table.arm == run.arm) & (table.quantity == "accuracy")]
        draws = np.random.default_rng((2, 10))  # as the study seeded them
        again = task_accuracy(model, rng=draws, n_trials=6)
        assert accuracy.value.tolist() == again.tolist()
        assert accuracy.coordinate.tolist() == list(range(20))
        assert accuracy.standard_error.tolist() == pytest.approx(np.sqrt(again * (1 - again) / 6).tolist())
        assert found["error"]["mean"] == pytest.approx(1 - again.mean())
        w = model.cell.weight_hh.detach().abs().double().numpy()
        cells = [divmod(unit, 6) for unit in range(36)]
        wire = sum(
            abs(a[0] - b[0]) + abs(a[1] - b[1])
            for i, a in enumerate(cells)
            for j, b in enumerate(cells)
            if w[i, j] > 1e-3
        )
        assert found["wiring_count"]["mean"] == pytest.approx(wire)
        clusters = cognitive_clusters(model, draws, 6)
        assert clusters is not None
        assert_modules_by_brute_force(table[table.arm == run.arm], clusters, cells)
        assert {"isolated_z", "isolated_by_index_z", "cluster_spread_z", "n_clusters"} <= set(found)
    text = (tmp_path / "report.html").read_text()
    for said in (
        "Accuracy by task",
        "Beside the published figures",
        "0.393 (z -5.2)",
        "multidlydm",
        "units vary most in",
    ):
        assert said in text
    assert "Error against neurons and wire" not in text  # with one arm and price there is nothing to trade


def test_function_agrees_with_anatomy_where_it_was_planted():
    """Two groups of units, each busy in its own tasks and connected within."""
    draws = np.random.default_rng(0)
    group = np.arange(24) % 2
    variance = np.where(np.arange(20)[:, None] % 2 == group, 1.0, 0.0) * draws.uniform(0.5, 1, (20, 24))
    variance[:, :4] = 0  # silent
    clusters = functional_clusters(variance, rng=draws, n_subsamples=5)
    weights = (group[:, None] == group) * draws.uniform(0.5, 1, (24, 24))
    (found,) = _agreement(weights, clusters, draws)
    assert (found.quantity, found.value) == ("agreement", 1)
    (found,) = _agreement(weights[np.ix_(*[draws.permutation(24)] * 2)], clusters, draws)
    assert abs(found.value) < 0.3
    assert not list(_agreement(np.ones((24, 24)), clusters, draws))  # one community agrees with everything
    assert not list(_agreement(np.eye(24), clusters, draws))


@pytest.mark.usefixtures("small_cognitive")
def test_a_silent_recurrent_network_has_no_clusters():
    found = example("cognitive")
    model: Any = found.model(seeded())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.cell.weight_hh.copy_(torch.eye(36))  # to themselves only: no graph
    task = found.task(np.random.default_rng(0))
    rng = np.random.default_rng(0)
    measured = {
        m.quantity: m.value for m in measure_at(model, found.place(model), task, rng=rng, n_trials=4, n_shuffles=2)
    }
    assert set(measured) == {"wiring_count", "wiring_weighted", "n_connections", "error", "accuracy", "n_active"}
    assert measured["n_active"] == measured["wiring_count"] == 0
    ax: Any = Figure().subplots()
    figures.draw_grid(ax, model, found.place(model), None)
    (everyone,) = ax.collections
    assert len(everyone.get_offsets()) == 36


@pytest.mark.usefixtures("small_cognitive")
def test_the_grid_shows_active_units_in_the_colour_of_their_tasks_and_the_strongest_wires(monkeypatch):
    monkeypatch.setattr(figures, "N_WIRES", 30)
    found = example("cognitive")
    model: Any = found.model(seeded())
    with torch.no_grad():
        model.cell.weight_hh.normal_(0, 0.05, generator=seeded(1))
        model.cell.bias_ih[:10] = -100  # silent
    placement = found.place(model)
    clusters = cognitive_clusters(model, np.random.default_rng(0), 10)
    assert clusters is not None
    assert not clusters.active[:10].any()
    ax: Any = Figure().subplots()
    figures.draw_grid(ax, model, placement, clusters)
    everyone, wires, active = ax.collections
    places = {(x, y) for x, y in everyone.get_offsets().tolist()}
    assert places == {(x, y) for x in range(6) for y in range(6)}
    assert [tuple(xy) for xy in active.get_offsets()] == [(u % 6, u // 6) for u in np.flatnonzero(clusters.active)]
    draws = np.random.default_rng(0)
    variance = task_variance([activity(model, task, draws, 10) for task in TASKS])
    preferred = variance.argmax(0)[clusters.active]
    colors = [figures._FAMILIES[figures.task_family(TASKS[task])] for task in preferred]
    assert [to_hex(c) for c in active.get_facecolors()] == colors
    w = model.cell.weight_hh.detach().abs().numpy()
    w[~clusters.active] = w[:, ~clusters.active] = 0
    np.fill_diagonal(w, 0)
    strongest = np.argwhere(w >= np.sort(w, axis=None)[-30])
    assert [segment.tolist() for segment in wires.get_segments()] == [
        [[j % 6, j // 6], [i % 6, i // 6]] for i, j in strongest.tolist()
    ]


def test_cells_of_a_grid():
    cells = grid_cells(spatial.Grid((4, 4)).positions(16))
    assert cells.tolist() == [[unit // 4, unit % 4] for unit in range(16)]


def test_activity_is_over_the_time_all_trials_share():
    model = ContinuousTimeRNN(53, 9, 17, seeded())
    rates = activity(model, "dm1", np.random.default_rng(0), 40)  # its stimulus lasts 200, 400 or 600 ms
    trials = cognitive_trials("dm1", 40, rng=np.random.default_rng(0))
    assert rates.shape == (40, trials.length.min(), 9)
    assert trials.length.min() < trials.length.max()
    whole = model.rates(torch.from_numpy(trials.inputs)).detach().numpy()
    np.testing.assert_allclose(rates, whole[:, : trials.length.min()], rtol=0, atol=1e-6)

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from micro_study import TOML, contents, micro, results

from emergence import open_run, run_study
from emergence.config import TrainingConfig
from emergence.curves import Curves
from emergence.interventions.settings import Spatial
from emergence.report.figures import laws_figure
from emergence.run import create_run
from emergence.study import run_stage, spread
from simulators import ChargedParticles, HardSpheres, SoftSpheres

SUMMARY = {
    "schema": int,
    "preset": str,
    "seeds": list,
    "device": str,
    "seconds": {"simulate": float, "train": float, "probe": float, "report": float},
    "data": {"n_transitions": int, "contact_fraction": float},
    "loss": [
        {"seed": int, "initial": float, "final": float, "contact": float, "free": float, "ballistic_baseline": float}
    ],
    "heads": [
        {
            "seed": int,
            "layer": int,
            "head": int,
            "contact_ap": float,
            "contact_ap_interval": list,
            "chance_ap": float,
            "nearest_neighbor_ap": float,
            "radius_score_excess": float,
            "distance_correlation": float,
            "edge_knockout_partner": float,
            "edge_knockout_nonpartner": float,
            "p_value": float,
            "is_contact_head": bool,
            "onset_step": (float, type(None)),
            "onset_interval": list,
        }
    ],
    "llc": [{"seed": int, "step": int, "scope": str, "value": float, "standard_error": float, "rhat": float}],
    "hessian": [{"seed": int, "step": int, "top": float, "trace": float, "near_null_share": float}],
    "laws": list,
}
"""The schema of DESIGN.md 4: a summary must have these keys, and may have more."""


def assert_follows(value, schema, path="summary"):
    if isinstance(schema, dict):
        assert set(schema) <= set(value), f"{path} lacks {sorted(set(schema) - set(value))}"
        for key, inner in schema.items():
            assert_follows(value[key], inner, f"{path}.{key}")
    elif isinstance(schema, list):
        assert value, f"{path} is empty"
        for number, entry in enumerate(value):
            assert_follows(entry, schema[0], f"{path}[{number}]")
    else:
        assert isinstance(value, schema), f"{path} is {value!r}"


def test_the_check_of_the_schema_can_fail(micro_run):
    summary = json.loads(json.dumps(micro_run.summary))
    del summary["heads"][1]["p_value"]
    with pytest.raises(AssertionError, match=r"summary.heads\[1\] lacks \['p_value'\]"):
        assert_follows(summary, SUMMARY)


def test_the_summary_follows_the_schema(micro_run):
    summary = json.loads((micro_run.folder / "summary.json").read_text())
    assert_follows(summary, SUMMARY)
    assert summary["data"]["n_transitions"] == 20 * 19
    assert [(head["layer"], head["head"]) for head in summary["heads"]] == [(0, 0), (0, 1)]
    assert {entry["scope"] for entry in summary["llc"]} == {"model", "head 0.0", "head 0.1"}
    assert {entry["control"] for entry in summary["controls"]} == {"initialisation", "ghosts"}


def test_an_untrained_network_has_no_contact_head(micro_run):
    assert not any(head["is_contact_head"] for head in micro_run.summary["heads"] + micro_run.summary["controls"])


def test_the_folder_holds_what_the_design_says_and_nothing_half_written(micro_run):
    names = contents(micro_run.folder)
    for name in ("config.json", "measurements.parquet", "summary.json", "report.html"):
        assert name in names
    for arm in ("discs", "ghosts"):
        assert f"trajectories/{arm}/train/manifest.json" in names
        assert f"checkpoints/{arm}/seed_0/metrics.jsonl" in names
        for step in (0, 1, 3, 10, 30):
            for file in ("weights.safetensors", "training_state.safetensors", "meta.json"):
                assert f"checkpoints/{arm}/seed_0/step_{step:08d}/{file}" in names
    assert any(name.startswith("figures/") and name.endswith(".svg") for name in names)
    assert not [name for name in names if "partial" in name or name.endswith(".tmp")]


def test_the_table_is_tidy(micro_run):
    table = micro_run.measurements
    assert set(table.columns) >= {
        "seed",
        "step",
        "probe",
        "layer",
        "head",
        "quantity",
        "value",
        "standard_error",
        "arm",
    }
    keys = ["arm", "seed", "step", "probe", "layer", "head", "quantity", "coordinate"]
    assert not table.duplicated(keys).any()
    loss = table[(table["quantity"] == "loss_all") & (table["arm"] == "discs")]
    assert loss["step"].tolist() == [0, 1, 3, 10, 30]
    assert loss["value"].iloc[-1] < loss["value"].iloc[0]


def test_the_measured_loss_is_that_of_the_saved_weights(micro_run):
    _, evaluation = micro_run.transitions()
    with torch.no_grad():
        error = micro_run.checkpoints(0).load(30)(evaluation.batch.features) - evaluation.batch.targets
    table = micro_run.measurements
    row = table[(table["quantity"] == "loss_all") & (table["step"] == 30) & (table["arm"] == "discs")]
    assert row["value"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_both_arms_start_alike(micro_run):
    discs, ghosts = (micro_run.transitions(arm)[1] for arm in ("discs", "ghosts"))
    first = torch.arange(len(discs)) % 19 == 0
    assert torch.equal(discs.positions[first], ghosts.positions[first])
    assert not torch.equal(discs.positions, ghosts.positions)
    assert ghosts.contacts.any()


def test_the_report_needs_no_network(micro_run):
    page = (micro_run.folder / "report.html").read_text()
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.findall(r"""(?:src|href|action|data)\s*=\s*["']?\s*(?:https?:)?//[^"'>\s]*""", without_names)
    assert not re.findall(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//""", without_names)
    assert "<svg" in page
    assert "fetch(" not in page


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the page, which takes longer to draw than the rest of a micro study to run."""
    monkeypatch.setattr("emergence.report.write_report", lambda run, summary: None)


@pytest.mark.usefixtures("no_pictures")
def test_the_same_seed_gives_the_same_bytes(micro_run, tmp_path):
    again = run_study(micro(), tmp_path / "run")
    assert results(again.folder) == results(micro_run.folder)
    ours, theirs = (
        json.loads((run.folder / "summary.json").read_text()) | {"seconds": None} for run in (again, micro_run)
    )
    assert ours == theirs


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_study_is_not_done_again(micro_run, tmp_path):
    shutil.copytree(micro_run.folder, tmp_path / "run")
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if "report" not in path.name}
    run_study(micro(), tmp_path / "run")
    for part in ("trajectories", "checkpoints", "measurements"):
        for path, modified in cells.items():
            if path.is_file() and part in path.relative_to(tmp_path / "run").parts and path.name != "metrics.jsonl":
                assert path.stat().st_mtime_ns == modified, path


def test_another_seed_trains_another_network(micro_run, tmp_path):
    run = run_stage_only(tmp_path, ["simulate", "train"], micro(seeds=(1,), ghost_control=False))
    assert run.checkpoints(1).meta(30)["weights_sha256"] != micro_run.checkpoints(0).meta(30)["weights_sha256"]


def run_stage_only(folder, stages, config):
    from emergence.run import create_run

    run = create_run(folder / "run", config)
    for stage in stages:
        run_stage(run, stage)
    return run


def test_stages_before_their_turn_say_what_is_missing(tmp_path):
    run = run_stage_only(tmp_path, [], micro())
    with pytest.raises(FileNotFoundError, match="no trajectories folder at .*; simulate first"):
        run_stage(run, "train")
    run_stage(run, "simulate")
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*; train first: emergence train"):
        run_stage(run, "probe")
    with pytest.raises(FileNotFoundError, match="measurements.parquet is not there yet; .*: emergence probe"):
        run_stage(run, "report")


def test_a_study_leaves_the_callers_threads_alone(tmp_path):
    assert torch.get_num_threads() == 1
    run_stage_only(tmp_path, ["simulate"], micro(n_threads=2))
    assert torch.get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "words"),
    [
        (
            HardSpheres(dim=3, gravity=(0.0, 0.0, -1.0), box=(1.0, 1.0, 1.0), radius=0.12),
            "10 hard spheres move in a box in",
        ),
        (SoftSpheres(restitution=0.9, friction=0.3), "10 soft discs move in a box under gravity"),
        (HardSpheres(boundary="periodic", gravity=(0.0, 0.0)), "10 hard discs move in a box."),
        (ChargedParticles(), "charged particles move in a box."),
    ],
    ids=["spheres", "soft", "periodic", "charges"],
)
def test_the_study_runs_on_another_system(system, words, tmp_path):
    study = micro(data=replace(micro().data, system=system), ghost_control=hasattr(system, "interacting"))
    run = run_study(study, tmp_path / "run")
    assert run.summary["data"]["contact_fraction"] > 0
    assert words in (run.folder / "report.html").read_text()
    assert open_run(run.folder).config == study


@pytest.mark.usefixtures("no_pictures")
def test_a_long_enough_run_has_onsets_and_laws(tmp_path):
    """The micro study has too few checkpoints for either."""
    training = TrainingConfig(n_steps=60, batch_size=32, n_warmup_steps=5, n_checkpoints=14)
    run = run_study(micro(training=training, ghost_control=False), tmp_path / "run")
    laws = run.summary["laws"]
    assert {"seed", "quantity", "preferred", "exponent", "interval", "window", "weights"} <= set(laws[0])
    assert any(law["quantity"].startswith("loss_contact") for law in laws)
    assert all("onset_step" in head for head in run.summary["heads"])
    figure = laws_figure(run, Curves(run.measurements, "discs", 0), laws)
    assert len(figure.axes) >= 2 * len(laws)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [30]), (2, [0, 30]), (3, [0, 3, 30]), (5, [0, 1, 3, 10, 30]), (9, [0, 1, 3, 10, 30])],
)
def test_spread_takes_the_last_and_others_evenly(n, expected):
    assert spread([0, 1, 3, 10, 30], n) == expected


DRIVER = """
import os, signal, sys, time
import emergence.study, emergence.measuring, emergence.training, emergence.findings, emergence.report
import emergence.report.console, pyarrow.parquet, numba, torch._dynamo
from emergence.cli import main
out, *delays = sys.argv[1:]
arguments = ["run", "--config", "micro.toml", "--out", out]
for delay in [*map(float, delays), None]:
    child = os.fork()
    if child == 0:
        os._exit(main(arguments))
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    print(delay, os.waitstatus_to_exitcode(status), flush=True)
"""
"""Starts the command again and again and kills it after each delay, then lets it finish. Forking spares the imports."""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_bytes(micro_run, tmp_path):
    (tmp_path / "micro.toml").write_text(TOML)
    (tmp_path / "driver.py").write_text(DRIVER)
    moments = random.Random(int(os.environ.get("EMERGENCE_KILL_SEED", "0")))
    # the first two fall into simulating and training, the others into probing, most often
    delays = [
        moments.uniform(0.0, 0.6),
        moments.uniform(0.1, 0.9),
        moments.uniform(0.3, 2.0),
        moments.uniform(0.3, 2.0),
    ]
    driven = subprocess.run(
        [sys.executable, "driver.py", "run", *map(str, delays)], cwd=tmp_path, capture_output=True, text=True
    )
    assert driven.returncode == 0, driven.stderr
    ends = [line.split()[1] for line in driven.stdout.splitlines() if re.fullmatch(r"(None|[\d.]+) -?\d+", line)]
    assert ends[-1] == "0", driven.stderr
    assert "-9" in ends, f"no kill came in time: {driven.stdout}"
    assert results(tmp_path / "run") == results(micro_run.folder), f"killed after {delays}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_survives_twenty_kills(micro_run, tmp_path):
    """The same with whole processes, as a user's shell would start them."""
    (tmp_path / "micro.toml").write_text(TOML)
    command = [sys.executable, "-c", "from emergence.cli import main; raise SystemExit(main())"]
    command += ["run", "--config", "micro.toml", "--out"]
    start = time.perf_counter()
    subprocess.run([*command, "unbroken"], cwd=tmp_path, check=True, capture_output=True)
    whole = time.perf_counter() - start
    moments = random.Random(int(os.environ.get("EMERGENCE_KILL_SEED", "0")))
    kills, done = [], 0
    while len(kills) < 20:
        if done and open_run_is_finished(tmp_path / "run"):
            (tmp_path / "run").rename(tmp_path / f"run_{done}")  # resumed to its end before a kill came: start another
        process = subprocess.Popen([*command, "run"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        delay = moments.uniform(0.2 * whole, whole)
        try:
            process.communicate(timeout=delay)
            assert process.returncode == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills.append(delay)
        done += 1
    subprocess.run([*command, "run"], cwd=tmp_path, check=True, capture_output=True)
    expected = results(micro_run.folder)
    for folder in [tmp_path / "unbroken", *tmp_path.glob("run*")]:
        assert results(folder) == expected, f"{folder.name} differs; killed after {kills}"


def open_run_is_finished(folder):
    return (folder / "summary.json").is_file()


def test_a_corrupted_table_is_not_silently_the_same(micro_run):
    """The comparison above sees a single number that differs."""
    table = micro_run.measurements.copy()
    table.loc[0, "value"] = np.nextafter(table.loc[0, "value"], np.inf)
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(table, open_run(micro_run.folder).measurements, check_exact=True)


@pytest.mark.slow
def test_a_study_under_an_intervention_resumes_at_the_same_bytes(tmp_path):
    """Wire has a price, places are exchanged, and heads keep their numbers: the report is that of any study."""
    intervention = Spatial(strength=1e-2, swap_every=10, reduction="mean", layer_gap=0.5, locality=2.0)
    config = micro(intervention=intervention, ghost_control=False)
    run_study(config, tmp_path / "whole")
    torn = create_run(tmp_path / "torn", config)
    for stage in ("simulate", "train"):
        run_stage(torn, stage)
    shutil.rmtree(torn.checkpoints(0).path(30))  # as if it had been killed after step 10
    again = run_study(config, tmp_path / "torn")
    assert results(tmp_path / "whole") == results(tmp_path / "torn")
    state = again.checkpoints(0).training_state(30)
    places = state["intervention/blocks.0.mlp"].flatten()
    assert sorted(places.tolist()) == ((torch.arange(32) + 0.5) / 32).tolist()
    assert places.tolist() != sorted(places.tolist())
    plain = run_study(micro(ghost_control=False), tmp_path / "plain")
    weights = [r.checkpoints(0).load(30).state_dict()["blocks.0.mlp.W_in"] for r in (again, plain)]
    assert weights[0].abs().sum() < weights[1].abs().sum()

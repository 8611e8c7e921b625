"""Runs side by side: numbers seed by seed, paired differences, and a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from micro_study import TOML, contents, micro
from scipy import stats

from emergence import run_study
from emergence.cli import main
from emergence.config import ModelConfig
from emergence.interventions.settings import NextLayerAttention, Spatial
from emergence.model import ParticleTransformer
from emergence.run import Run, create_run, open_run
from emergence.studies.compare.findings import QUANTITIES, attention_wire, compare, half_step, paired, seed_table
from emergence.studies.compare.page import compare_runs, difference_rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A plain run and one whose wire has a price, two seeds each."""
    root = tmp_path_factory.mktemp("compared")
    plain = micro(seeds=(0, 1), ghost_control=False)
    for name, config in (("plain", plain), ("spatial", replace(plain, intervention=Spatial(strength=1e-2)))):
        run_study(config, root / name)
    return [root / "plain", root / "spatial"]


def test_the_page_tells_the_differences(folders, tmp_path, capsys):
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "page")]) == 0
    assert "spatial against plain:" in capsys.readouterr().out
    summary = json.loads((tmp_path / "page" / "summary.json").read_text())
    table = pd.read_parquet(tmp_path / "page" / "measurements.parquet")
    assert [entry["run"] for entry in summary["runs"]] == ["plain", "spatial"]
    for quantity in ("loss", "attention_wire", "llc"):
        values = {name: table[table.run == name].set_index("seed")[quantity] for name in ("plain", "spatial")}
        difference = summary["runs"][1][f"{quantity}_difference"]
        expected = stats.ttest_rel(values["spatial"], values["plain"])
        assert difference["mean"] == pytest.approx((values["spatial"] - values["plain"]).mean())
        assert difference["p_value"] == pytest.approx(expected.pvalue)
        low, high = expected.confidence_interval()
        assert difference["interval"] == pytest.approx([low, high])
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Differences from plain" in page


@pytest.mark.slow
def test_methods_are_run_by_name_and_compared_in_one_command(folders, tmp_path, capsys):
    """A run folder beside two methods; given again, the command does no work twice."""
    toml = tmp_path / "micro.toml"
    toml.write_text(TOML)
    out = tmp_path / "page"
    options = ["--config", str(toml), "--no-ghost-control", "--seeds", "0", "1", "--out", str(out)]
    options += ["--probes.llc.n-checkpoints", "1", "--probes.hessian.n-checkpoints", "1"]
    named = [str(folders[0]), "weight-manifold", "next-layer-attention"]
    assert main(["compare", *named, *options]) == 0
    assert "next-layer-attention against plain:" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["run"] for entry in summary["runs"]] == ["plain", "weight-manifold", "next-layer-attention"]
    assert all(entry[q]["n"] == 2 for entry in summary["runs"] for q in ("loss", "llc", "attention_wire"))
    run = open_run(out / "next-layer-attention")
    assert run.config.intervention == NextLayerAttention()
    before = {name: contents(out / name) for name in ("weight-manifold", "next-layer-attention")}
    shutil.rmtree(out / "next-layer-attention" / "measurements")
    (out / "next-layer-attention" / "measurements.parquet").unlink()
    assert main(["compare", *named, *options]) == 0
    for name, files in before.items():
        after = contents(out / name)
        kept = [file for file in files if file.startswith(("checkpoints", "measurements"))]
        assert {file: after[file] for file in kept} == {file: files[file] for file in kept}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plain", "structurd"], "unknown method or run folder structurd; did you mean structured?"),
        (["plain", "spatial", "--prset", "quick"], "unknown option --prset; did you mean --preset?"),
        (["plain", "--seed", "1", "intervention:spatial"], "takes methods by name"),
    ],
)
def test_methods_that_are_not_known_are_refused_before_any_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_table_has_a_row_a_quantity_and_a_column_a_run():
    """Planted: b is 2 above a on average where both have the seed; the onset was found for one seed alone."""
    rows = [("a", 0, 1.0, 10.0), ("a", 1, 2.0, np.nan), ("b", 0, 2.0, np.nan), ("b", 1, 5.0, np.nan)]
    table = pd.DataFrame(rows, columns=["run", "seed", "loss", "onset_step"])
    head, *found = difference_rows(compare(table.reindex(columns=["run", "seed", *QUANTITIES])))
    assert head == ["quantity", "a", "b"]
    cells = {row[0]: row[1:] for row in found}
    assert cells["test loss"] == ["1.5", "3.5\n+2\n[-10.7, 14.7]"]  # 2 -+ 12.706 * 1
    assert cells["onset of the first contact head (step)"] == ["10 (1 of 2 seeds)", "–"]
    assert cells["learning coefficient"] == ["–", "–"]


def test_a_seed_that_only_one_run_has_is_not_paired():
    difference = paired(pd.Series([1.0, 2.0, np.nan]))
    assert difference["n"] == 2
    assert difference["mean"] == 1.5


def test_runs_of_different_seeds_are_compared_on_what_they_share():
    rows = [("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 4.0), ("b", 1, 3.0), ("b", 2, 9.0), ("b", 3, 7.0)]
    table = pd.DataFrame(rows, columns=["run", "seed", "loss"])
    table = table.reindex(columns=["run", "seed", *QUANTITIES])
    summary = compare(table)
    assert summary["runs"][1]["loss_difference"]["mean"] == 3.0
    assert summary["runs"][1]["loss_difference"]["n"] == 2
    assert summary["runs"][1]["onset_step"]["mean"] is None


def head(seed: int, ap: float, onset: int | None, *, is_contact: bool) -> dict[str, Any]:
    place = {"layer": 0, "head": round(10 * ap)}
    return {"seed": seed, **place, "contact_ap": ap, "onset_step": onset, "is_contact_head": is_contact}


def test_a_row_holds_what_the_run_found_for_its_seed(tmp_path):
    """From a planted run of two seeds: earliest onset among contact heads, numbers of the last checkpoint."""
    models = [ParticleTransformer(ModelConfig(1, 2, 8, 4, 8), 6, 4, torch.Generator().manual_seed(i)) for i in (0, 1)]
    rows = [("llc", 0, 3.0), ("llc", 9, 5.0), ("hessian_trace", 0, 7.0), ("hessian_trace", 9, 8.0)]
    rows += [("participation_ratio", 9, 2.5)]
    eigenvalues = [("hessian_eigenvalue", 9, -6.0, 0.0), ("hessian_eigenvalue", 9, 4.0, 1.0)]
    measured = pd.DataFrame(
        [("discs", 1, *row, np.nan, np.nan, np.nan, np.nan) for row in rows]
        + [("discs", 1, *row[:3], np.nan, np.nan, np.nan, row[3]) for row in eigenvalues]
        + [("discs", 1, "contact_ap", step, ap, np.nan, 0, 7, np.nan) for step, ap in ((0, 0.1), (3, 0.35), (9, 0.7))]
        + [("discs", 1, "contact_ap", step, 0.5, np.nan, 0, 2, np.nan) for step in (0, 3, 9)],
        columns=["arm", "seed", "quantity", "step", "value", "standard_error", "layer", "head", "coordinate"],
    )
    heads = [head(0, 0.9, 1, is_contact=True), head(1, 0.2, 2, is_contact=False)]
    heads += [head(1, 0.6, 30, is_contact=True), head(1, 0.7, 20, is_contact=True), head(1, 0.5, None, is_contact=True)]
    planted = {
        "heads": heads,
        "loss": [{"seed": 0, "final": 9.0, "contact": 9.0}, {"seed": 1, "final": 0.1, "contact": 0.4}],
        "seconds": {"train": 30.0},
    }

    at_steps = SimpleNamespace(steps=[0, 9], load=lambda step: models[step == 9])
    found = {
        "summary": planted,
        "measurements": measured,
        "cells": (("discs", 0), ("discs", 1), ("ghosts", 1)),
        "checkpoints": lambda self, seed: at_steps,
    }
    run: Any = type("Planted", (Run,), found)(tmp_path, micro(seeds=(1,)))
    (row,) = seed_table({"planted": run}).to_dict("records")
    assert row.pop("attention_wire") == pytest.approx(attention_wire(models[1]))
    assert row == {
        "run": "planted",
        "seed": 1,
        "loss": 0.1,
        "loss_contact": 0.4,
        "n_contact_heads": 3,
        "best_ap": 0.7,
        "onset_step": 20,
        "half_step": pytest.approx(3.0),
        "llc": 5.0,
        "hessian_trace": 8.0,
        "hessian_top": 4.0,
        "participation_ratio": 2.5,
        "train_seconds": 10.0,
    }


def test_half_of_a_curve_is_reached_on_a_line_in_the_logarithm_of_steps():
    doublings = np.arange(5)
    assert half_step(2**doublings - 1, doublings) == pytest.approx(3.0)  # a checkpoint is there
    assert half_step(2**doublings - 1, doublings + 1.0) == pytest.approx(2**1.5 - 1)  # between two
    assert half_step(np.array([0, 10]), np.array([0.9, 1.0])) == 0  # at once


def test_the_wire_of_attention_is_that_of_the_shortest_order():
    """A local network has short wire however its neurons are numbered."""
    model = ParticleTransformer(ModelConfig(1, 2, 8, 4, 8), 6, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    wires = []
    for is_local in (False, True):
        order = torch.randperm(8, generator=generator)
        places = (torch.arange(8) + 0.5) / 8
        near = torch.exp(-((places[:, None] - places) ** 2) / 0.005) if is_local else 3 * torch.ones(8, 8)
        with torch.no_grad():
            attention: Any = model.layers[0].attn
            for weights in (attention.W_Q, attention.W_K, attention.W_V):
                weights.copy_(near[order].view(8, 2, 4).transpose(0, 1))
            attention.W_O.copy_(near[:, order].reshape(2, 4, 8))
        before = [p.clone() for p in model.parameters()]
        wires.append(attention_wire(model))
        assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert wires[0] == pytest.approx((1 / 8) * np.abs(np.subtract.outer(range(8), range(8))).mean(), rel=1e-6)
    assert wires[1] < 0.35 * wires[0]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (slice(0, 1), "give at least two run folders to compare, got 1"),
        (slice(0, 0), "give at least two run folders to compare, got 0"),
    ],
)
def test_too_few_runs_are_refused(folders, tmp_path, chosen, message):
    with pytest.raises(ValueError, match=message):
        compare_runs(folders[chosen], tmp_path)


def test_what_cannot_be_compared_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="two runs are called plain"):
        compare_runs([folders[0], folders[0]], tmp_path)
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        compare_runs([folders[0], tmp_path / "nothing"], tmp_path)
    create_run(tmp_path / "other", micro(ghost_control=False, model=ModelConfig(1, 1, 8, 8, 8)))
    with pytest.raises(ValueError, match="other and plain differ in model"):
        compare_runs([folders[0], tmp_path / "other"], tmp_path)

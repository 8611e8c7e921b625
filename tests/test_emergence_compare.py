"""Runs side by side: numbers seed by seed, paired differences, and a page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from micro_study import micro
from scipy import stats

from emergence import run_study
from emergence.cli import main
from emergence.config import ModelConfig
from emergence.interventions.settings import Spatial
from emergence.model import ParticleTransformer
from emergence.studies.compare.findings import attention_wire, compare, paired
from emergence.studies.compare.page import compare_runs


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


def test_a_seed_that_only_one_run_has_is_not_paired():
    difference = paired(pd.Series([1.0, 2.0, np.nan]))
    assert difference["n"] == 2
    assert difference["mean"] == 1.5


def test_runs_of_different_seeds_are_compared_on_what_they_share():
    rows = [("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 4.0), ("b", 1, 3.0), ("b", 2, 9.0), ("b", 3, 7.0)]
    table = pd.DataFrame(rows, columns=["run", "seed", "loss"])
    for quantity in ("loss_contact", "n_contact_heads", "best_ap", "onset_step", "llc", "hessian_trace"):
        table[quantity] = np.nan
    table["attention_wire"] = table["train_seconds"] = 0.0
    summary = compare(table)
    assert summary["runs"][1]["loss_difference"]["mean"] == 3.0
    assert summary["runs"][1]["loss_difference"]["n"] == 2
    assert summary["runs"][1]["onset_step"]["mean"] is None


def test_the_wire_of_attention_is_that_of_the_shortest_order():
    """A local network has short wire however its neurons are numbered."""
    model = ParticleTransformer(ModelConfig(1, 2, 8, 4, 8), 6, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    wires = []
    for is_local in (False, True):
        order = torch.randperm(8, generator=generator)
        places = (torch.arange(8) + 0.5) / 8
        near = torch.exp(-((places[:, None] - places) ** 2) / 0.005) if is_local else torch.ones(8, 8)
        with torch.no_grad():
            attention: Any = model.layers[0].attn
            for weights in (attention.W_Q, attention.W_K, attention.W_V):
                weights.copy_(near[order].view(8, 2, 4).transpose(0, 1))
            attention.W_O.copy_(near[:, order].reshape(2, 4, 8))
        wires.append(attention_wire(model))
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
    other = run_study(micro(ghost_control=False, model=ModelConfig(1, 1, 8, 8, 8)), tmp_path / "other")
    with pytest.raises(ValueError, match="other and plain differ in model"):
        compare_runs([folders[0], other.folder], tmp_path)

"""``emergence probe --model module:factory``: somebody else's model and checkpoints from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from emergence.cli import main

STRANGER = """
import torch
from torch import nn
from probes.sweep import FunctionProbe, Measurement

def make():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

g = torch.Generator().manual_seed(0)
batches = [(torch.randn(16, 4, generator=g), torch.randn(16, 1, generator=g)) for _ in range(3)]

def make_batches():
    return batches

def loss(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()

def failing(model, seed):
    raise ZeroDivisionError("no such luck")

norm = FunctionProbe("norm", lambda m, seed: [Measurement("norm", m[0].weight.norm().item())])
broken = FunctionProbe("broken", failing)
number = 3
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A folder with somebody's module and three checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    import stranger  # pyright: ignore[reportMissingImports]

    model = stranger.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (tmp_path / "checkpoints").mkdir()
    for step in range(21):
        if step in (0, 5, 20):
            torch.save(model.state_dict(), tmp_path / "checkpoints" / f"step_{step}.pt")
        for batch in stranger.batches:
            optimizer.zero_grad()
            stranger.loss(model, batch).backward()
            optimizer.step()
    return tmp_path


ARGUMENTS = ["probe", "--model", "stranger:make", "--checkpoints", "checkpoints/*.pt", "--out", "probed"]
OURS = ["--data", "stranger:batches", "--loss", "stranger:loss"]
SHORT = ["--llc.n-draws", "20", "--llc.n-burnin", "10", "--llc.n-chains", "2", "--hessian.n-steps", "10"]


def test_hessian_and_llc_of_a_stranger(stranger, capsys):
    assert main([*ARGUMENTS, *OURS, *SHORT, "--scope", "0.*"]) == 0
    table = pd.read_parquet("probed/measurements.parquet")
    assert set(table["step"]) == {0, 5, 20}
    assert set(table["probe"]) == {"hessian", "hessian 0.*", "llc", "llc 0.*"}
    assert {"hessian_trace", "near_null_share", "participation_ratio", "llc", "llc_rhat", "loss"} <= set(
        table["quantity"]
    )
    assert len(pd.read_csv("probed/measurements.csv")) == len(table)
    assert Path("probed/figures/llc.svg").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "at step 20" in said
    assert "probed/measurements.csv" in said


def test_the_trace_of_a_stranger_is_that_of_its_dense_hessian(stranger):
    assert main([*ARGUMENTS, *OURS, *SHORT, "--probe", "hessian", "--hessian.n-probes", "50"]) == 0
    import stranger as module  # pyright: ignore[reportMissingImports]

    model = module.make()
    model.load_state_dict(torch.load("checkpoints/step_20.pt", weights_only=True))
    names = [name for name, _ in model.named_parameters()]

    def loss(*tensors):
        values = dict(zip(names, tensors, strict=True))
        outputs = [(torch.func.functional_call(model, values, (x,)) - y).square().mean() for x, y in module.batches]
        return torch.stack(outputs).mean()

    parameters = tuple(p.detach() for p in model.parameters())
    blocks = torch.autograd.functional.hessian(loss, parameters)
    exact = sum(
        float(blocks[i][i].reshape(p.numel(), p.numel()).trace())  # pyright: ignore[reportAttributeAccessIssue]
        for i, p in enumerate(parameters)
    )
    table = pd.read_parquet("probed/measurements.parquet")
    row = table[(table["quantity"] == "hessian_trace") & (table["step"] == 20)].iloc[0]
    assert abs(row["value"] - exact) < 4 * row["standard_error"]
    assert row["standard_error"] < 0.1 * exact


def test_the_same_command_measures_nothing_again(stranger, monkeypatch):
    command = [*ARGUMENTS, *OURS, *SHORT, "--data", "stranger:make_batches"]
    assert main(command) == 0
    before = pd.read_parquet("probed/measurements.parquet")
    monkeypatch.setattr("probes.top_eigenvalues", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("probes.estimate_llc", lambda *_, **__: 1 / 0)
    assert main(command) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("probed/measurements.parquet"), before)


def test_a_probe_of_their_own_beside_one_that_fails(stranger, capsys):
    command = [*ARGUMENTS, "--probe", "stranger:norm", "stranger:broken"]
    assert main(command) == 1
    assert "probe 'broken' failed at step 0: ZeroDivisionError: no such luck" in capsys.readouterr().err
    assert main([*command, "--on-error", "record"]) == 0
    table = pd.read_parquet("probed/measurements.parquet")
    assert table["quantity"].tolist() == ["norm", "error"] * 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["--model", "stranger"], "--model must be module:name, such as train:make_model; got 'stranger'"),
        (["--model", "nowhere:make"], "--model: cannot import nowhere"),
        (["--model", "stranger:mkae"], "--model: stranger has no 'mkae'; it has torch, nn"),
        ([*OURS, "--model", "stranger:number"], "--model stranger:number must be callable without arguments, got int"),
        ([*OURS, "--model", "stranger:loss"], "missing 2 required positional arguments"),
        (["--checkpoints", "nothing/*.pt"], "no file matches 'nothing/*.pt'"),
        (["--probe", "llc"], "--probe llc needs --data module:batches and --loss module:loss_fn"),
        (["--probe", "stranger:number"], "--probe stranger:number must have a name, settings and a call"),
        ([*OURS, "--scope", "7.*"], "parameters: '7.*' matches no trainable tensor"),
        (
            [*OURS, "--data", "stranger:number"],
            "--data stranger:number must be batches, or a function that returns them; got int",
        ),
    ],
)
def test_bad_input_is_one_line(stranger, capsys, changes, complaint):
    assert main([*ARGUMENTS, *changes]) in (1, 2)
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1

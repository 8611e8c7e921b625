"""Series of checkpoints from anywhere: files that people have, and families that a function loads."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from probes import sweep_checkpoints
from probes.series import CheckpointError, FunctionSeries, StateDictSeries
from probes.sweep import FunctionProbe, Measurement

WTE = "transformer.wte.weight"


class Tied(nn.Module):
    """An embedding whose weight is the read-out's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.unembed = nn.Linear(3, 5, bias=False)
        self.unembed.weight = self.embed.weight


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def weights(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in make().state_dict().items()
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "run_7").mkdir()
    for step in (0, 8, 100):
        torch.save(weights(step), tmp_path / "run_7" / f"step_{step:04d}.pt")
    return tmp_path / "run_7"


def assert_holds(model: nn.Module, step: int) -> None:
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights(step)[name]), name


def test_files_of_a_folder_by_the_last_number_of_their_path(folder):
    series = StateDictSeries.from_glob(make, str(folder / "*.pt"))
    assert series.steps == [0, 8, 100]
    for step in series.steps:
        assert_holds(series.load(step), step)


def test_a_folder_a_step_with_safetensors(tmp_path):
    for step in (3, 20):
        (tmp_path / f"step{step}").mkdir()
        save_file(weights(step), tmp_path / f"step{step}" / "model.safetensors")
    series = StateDictSeries.from_glob(make, str(tmp_path / "**" / "*.safetensors"))
    assert series.steps == [3, 20]
    assert_holds(series.load(20), 20)


def test_the_step_may_be_another_number(tmp_path):
    for epoch, step in ((0, 10), (1, 25)):
        torch.save({"state_dict": weights(step), "epoch": epoch}, tmp_path / f"step={step}-epoch={epoch}.ckpt")
    series = StateDictSeries.from_glob(make, str(tmp_path / "*.ckpt"), step=r"step=(\d+)", key="state_dict")
    assert series.steps == [10, 25]
    assert_holds(series.load(25), 25)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_of_wrapped_models(tmp_path, prefix):
    torch.save({prefix + name: t for name, t in weights(1).items()}, tmp_path / "1.pt")
    assert_holds(StateDictSeries(make, {1: tmp_path / "1.pt"}).load(1), 1)


def test_a_tied_tensor_may_be_there_once(tmp_path):
    weight = torch.arange(15.0).reshape(5, 3)
    save_file({"embed.weight": weight}, tmp_path / "1.safetensors")
    model = StateDictSeries(Tied, {1: tmp_path / "1.safetensors"}).load(1)
    assert torch.equal(model.get_parameter("unembed.weight"), weight)


def test_all_names_of_a_tied_tensor_missing_are_missed(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "1.safetensors")
    with pytest.raises(CheckpointError, match="it lacks embed.weight"):
        StateDictSeries(Tied, {1: tmp_path / "1.safetensors"}).load(1)


def test_bad_patterns(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*nothing"):
        StateDictSeries.from_glob(make, str(tmp_path / "nothing*"))
    (folder.parent / "run_8").mkdir()
    torch.save(weights(8), folder.parent / "run_8" / "step_0008.pt")
    with pytest.raises(ValueError, match=r"both have step 8; narrow the pattern"):
        StateDictSeries.from_glob(make, str(folder.parent / "*" / "*.pt"))
    torch.save(weights(8), tmp_path / "final.pt")
    with pytest.raises(ValueError, match=r"final.pt has no step that matches"):
        StateDictSeries.from_glob(make, str(tmp_path / "final.pt"), step=r"step(\d+)")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"model": {"0.weight": torch.zeros(1)}},
            r'holds more than tensors \(model\); the weights may be under key="mod',
        ),
        ({"0.weight": torch.zeros(4, 3)}, r"belongs to another model: it lacks 0.bias \(and 5 more differences\)"),
        ([torch.zeros(1)], "holds a list, no dictionary of tensors"),
    ],
)
def test_bad_files(tmp_path, content, complaint):
    torch.save(content, tmp_path / "1.pt")
    with pytest.raises(CheckpointError, match=complaint):
        StateDictSeries(make, {1: tmp_path / "1.pt"}).load(1)


def test_code_in_a_file_is_not_run(tmp_path):
    with (tmp_path / "1.pt").open("wb") as file:
        torch.save({"optimizer": make()}, file)  # a whole module: reading it would run code of the file's choice
    with pytest.raises(CheckpointError, match=r"holds objects that only running its code could read; save model.state"):
        StateDictSeries(make, {1: tmp_path / "1.pt"}).load(1)


@pytest.mark.parametrize("name", ["1.pt", "1.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps([1])[:3]])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        StateDictSeries(make, {1: tmp_path / name}).load(1)


def test_a_missing_key_or_step_or_module(folder):
    with pytest.raises(CheckpointError, match=r"has no 'model'; it has 0.weight, 0.bias"):
        StateDictSeries.from_glob(make, str(folder / "*.pt"), key="model").load(8)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 9; steps there: 0, 8, 100"):
        StateDictSeries.from_glob(make, str(folder / "*.pt")).load(9)
    with pytest.raises(TypeError, match=r"make_model must return a torch.nn.Module, got dict"):
        StateDictSeries.from_glob(lambda: {}, str(folder / "*.pt")).load(8)  # pyright: ignore[reportArgumentType]


def test_a_family_from_a_function(tmp_path):
    """The loading code of Hugging Face, on models made here and saved in its format."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=6, bos_token_id=0, eos_token_id=0
    )
    norms = {}
    for step in (1, 2, 4):
        model = transformers.GPT2LMHeadModel(config)
        with torch.no_grad():
            model.transformer.wte.weight.fill_(step)
        model.save_pretrained(tmp_path / f"step{step}")
        norms[step] = model.transformer.wte.weight.norm().item()
    load = transformers.GPT2LMHeadModel.from_pretrained
    series = FunctionSeries([1, 2, 4], lambda step: load(tmp_path / f"step{step}"))
    probe = FunctionProbe("norm", lambda m, seed: [Measurement("norm", m.get_parameter(WTE).norm().item())])
    table = sweep_checkpoints(series, [probe], store=tmp_path / "store")
    assert dict(zip(table["step"], table["value"], strict=True)) == pytest.approx(norms)


def test_a_function_series_is_checked():
    with pytest.raises(ValueError, match=r"steps must ascend without repeats, got \[2, 1\]"):
        FunctionSeries([2, 1], lambda step: make())
    with pytest.raises(CheckpointError, match="no checkpoint of step 3"):
        FunctionSeries([1, 2], lambda step: make()).load(3)
    with pytest.raises(TypeError, match=r"make must return a torch.nn.Module, got int"):
        FunctionSeries([1, 2], lambda step: step).load(1)  # pyright: ignore[reportArgumentType, reportReturnType]

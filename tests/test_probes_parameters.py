"""Choosing parameters by name, pattern and mask."""

from __future__ import annotations

import pytest
import torch
from cases import seeded
from torch import nn

from probes.parameters import select_parameters


@pytest.fixture
def model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    bias = model[2].bias
    assert isinstance(bias, nn.Parameter)
    bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("parameters", "names", "n_entries"),
    [
        (None, ("0.weight", "0.bias", "2.weight"), 24),
        ("2.weight", ("2.weight",), 8),
        ("*.weight", ("0.weight", "2.weight"), 20),
        (["2.*", "0.bias"], ("0.bias", "2.weight"), 12),  # the model's order, not the caller's
        ((name for name in ["0.*"]), ("0.weight", "0.bias"), 16),
    ],
)
def test_names_and_patterns(model: nn.Sequential, parameters, names: tuple[str, ...], n_entries: int) -> None:
    selection = select_parameters(model, parameters)
    assert selection.names == names
    assert selection.n_entries == n_entries
    chosen = dict(model.named_parameters())
    assert all(t is chosen[name] for t, name in zip(selection.tensors(model), names, strict=True))


def test_scatter_undoes_gather_on_masks(model: nn.Sequential) -> None:
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1:3] = True
    selection = select_parameters(model, {"2.weight": torch.ones(2, 4, dtype=torch.bool), "0.weight": mask})
    vector = torch.randn(selection.n_entries, generator=seeded())
    tensors = selection.scatter(vector, selection.tensors(model))
    assert selection.n_entries == 6 + 8
    assert torch.equal(selection.gather(tensors), vector)
    assert torch.equal(tensors[0][1:3].reshape(-1), vector[:6])
    assert tensors[0][[0, 3]].count_nonzero() == 0


def test_scatter_takes_each_tensors_dtype(model: nn.Sequential) -> None:
    model[2].double()
    selection = select_parameters(model, ["0.bias", "2.weight"])
    tensors = selection.scatter(torch.ones(12, dtype=torch.float64), selection.tensors(model))
    assert [t.dtype for t in tensors] == [torch.float32, torch.float64]
    masked = select_parameters(model, {"0.bias": torch.ones(4, dtype=torch.bool)})
    assert masked.scatter(torch.ones(4, dtype=torch.float64), masked.tensors(model))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("1.*", r"'1\.\*' matches no trainable tensor; the model has 0\.weight, 0\.bias, 2\.weight"),
        (["0.bias", "2.bias"], "'2.bias' matches no trainable tensor"),  # frozen
        ([], "parameters is empty"),
        ({"nope": torch.ones(1, dtype=torch.bool)}, "no trainable tensor 'nope'"),
        ({"0.bias": torch.ones(4)}, r"bool of shape \(4,\), got torch.float32 of shape \(4,\)"),
        ({"0.bias": torch.ones(3, dtype=torch.bool)}, r"bool of shape \(4,\), got torch.bool of shape \(3,\)"),
        ({"0.bias": torch.zeros(4, dtype=torch.bool)}, "choose no entry"),
    ],
)
def test_a_bad_choice_is_refused(model: nn.Sequential, parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_parameters(model, parameters)


def test_a_frozen_model_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="no parameters that require gradients"):
        select_parameters(model.requires_grad_(False))

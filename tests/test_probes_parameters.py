"""Choosing parameters by name, pattern and mask."""

from __future__ import annotations

import pytest
import torch
from cases import seeded
from torch import nn

from probes.parameters import group_by_tensors, select_parameters


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


@pytest.fixture
def tied() -> nn.Sequential:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    return tied


@pytest.mark.parametrize("parameters", ["2.weight", "*.weight", {"2.weight": torch.eye(3, dtype=torch.bool)}])
def test_a_shared_tensor_goes_by_any_of_its_names_and_counts_once(tied: nn.Sequential, parameters) -> None:
    selection = select_parameters(tied, parameters)
    assert selection.names == ("0.weight",)
    assert selection.n_entries == (3 if isinstance(parameters, dict) else 9)


def test_two_masks_for_one_tensor_are_refused(tied: nn.Sequential) -> None:
    mask = torch.eye(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"'2\.weight' is the same tensor as '0\.weight'; give one mask for it"):
        select_parameters(tied, {"0.weight": mask, "2.weight": mask})


def test_gather_and_scatter_keep_leading_axes(model: nn.Sequential) -> None:
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1, :2] = True
    selection = select_parameters(model, {"2.weight": torch.ones(2, 4, dtype=torch.bool), "0.weight": mask})
    rows = torch.randn(5, selection.n_entries, generator=seeded())
    tensors = selection.scatter(rows, selection.tensors(model))
    assert [t.shape for t in tensors] == [(5, 4, 3), (5, 2, 4)]
    assert torch.equal(selection.gather(tensors, 1), rows)
    for row, *parts in zip(rows, *tensors, strict=True):
        assert all(map(torch.equal, selection.scatter(row, selection.tensors(model)), parts))


def test_selections_in_the_same_tensors_are_grouped(model: nn.Sequential) -> None:
    selections = {name: select_parameters(model, name) for name in ("0.*", "2.weight", "0.weight")}
    top = torch.zeros(4, 3, dtype=torch.bool)
    top[0] = True
    selections["slice"] = select_parameters(model, {"0.weight": top})
    assert list(group_by_tensors(selections).values()) == [["0.*"], ["2.weight"], ["0.weight", "slice"]]

"""A probed model is left as it was found, and the check for that can fail."""

from __future__ import annotations

import pytest
import torch
from cases import left_as_found
from torch import nn

from probes.isolation import isolated


@pytest.fixture
def model() -> nn.Sequential:
    """Mixed training flags, one gradient set, one missing, buffers, a hook."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model.train()
    model[1].eval()
    weight = model[0].weight
    assert isinstance(weight, nn.Parameter)
    weight.grad = torch.full_like(weight, 2.0)
    model[3].register_forward_hook(lambda *_: None)
    return model


def test_everything_is_restored(model: nn.Sequential) -> None:
    with left_as_found(model), isolated(model):
        assert not any(module.training for module in model.modules())
        assert all(p.grad is None for p in model.parameters())
        model.train()
        model(torch.randn(8, 3)).sum().backward()  # moves batch statistics, sets gradients, draws


def test_everything_is_restored_after_an_error(model: nn.Sequential) -> None:
    def spoil() -> None:
        with isolated(model):
            model.train()
            model(torch.randn(8, 3)).sum().backward()
            raise ZeroDivisionError

    with left_as_found(model), pytest.raises(ZeroDivisionError):
        spoil()


def test_a_buffer_put_in_anothers_place_is_put_back(model: nn.Sequential) -> None:
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    with left_as_found(model), isolated(model):
        norm.running_mean = torch.ones(4)


def _spoil_weights(model: nn.Sequential) -> None:
    with torch.no_grad():
        next(model.parameters()).add_(1e-6)


def _spoil_gradient(model: nn.Sequential) -> None:
    next(model.parameters()).grad = None


def _spoil_buffer(model: nn.Sequential) -> None:
    next(model.buffers()).add_(1)


def _spoil_flag(model: nn.Sequential) -> None:
    model.eval()


def _spoil_requires_grad(model: nn.Sequential) -> None:
    model.requires_grad_(False)


def _spoil_hooks(model: nn.Sequential) -> None:
    model.register_forward_hook(lambda *_: None)


def _spoil_random_state(model: nn.Sequential) -> None:
    torch.rand(1)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_spoil_weights, "parameters changed"),
        (_spoil_gradient, "gradients changed"),
        (_spoil_buffer, "buffers changed"),
        (_spoil_flag, "training changed"),
        (_spoil_requires_grad, "requires_grad changed"),
        (_spoil_hooks, "hooks changed"),
        (_spoil_random_state, "random state changed"),
    ],
)
def test_the_check_itself_fails(model: nn.Sequential, spoil, what: str) -> None:
    with pytest.raises(AssertionError, match=what), left_as_found(model):
        spoil(model)

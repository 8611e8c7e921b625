"""Outputs of submodules are read and replaced, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from cases import HookedAttention, initialized, left_as_found
from torch import nn

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import record_outputs
from probes.hooking import replaced_output


class Skipping(nn.Sequential):
    """Leaves out its last layer."""

    def forward(self, input):
        for layer in list(self)[:-1]:
            input = layer(input)
        return input


@pytest.fixture
def model(generator) -> Skipping:
    """Dropout in training mode, a hook of the user's, an in-place activation, one layer in two places."""
    shared = nn.Linear(3, 3)
    model = Skipping(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), shared, nn.Identity(), shared)
    model.add_module("unused", nn.Identity())
    initialized(model, generator)
    shared.register_forward_hook(lambda *_: None)
    return model.train()


def test_outputs_are_joined_over_inputs(model, generator):
    x = torch.randn(7, 3, generator=generator)
    with left_as_found(model):
        got = record_outputs(model, x.split(3), ["0", "2"])
    expected = model[0](x)
    torch.testing.assert_close(got["0"], expected)  # a copy: the activation behind it works in place
    torch.testing.assert_close(got["2"], expected.relu())  # evaluation mode: no dropout
    assert not got["2"].requires_grad


def test_a_name_given_twice_is_recorded_once(model, generator):
    assert record_outputs(model, [torch.randn(4, 3, generator=generator)], ["0", "0"])["0"].shape == (4, 3)


def test_patterns_of_our_model_are_distributions_over_the_keys(generator):
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=8), 6, 4, generator)
    x = torch.randn(5, 7, 6, generator=generator)
    names = [f"blocks.{layer}.attn.{hook}" for layer in range(2) for hook in ("hook_attn_scores", "hook_pattern")]
    with left_as_found(model):
        got = record_outputs(model, [x[:2], x[2:]], names)
    for layer in range(2):
        scores, pattern = (got[f"blocks.{layer}.attn.{hook}"] for hook in ("hook_attn_scores", "hook_pattern"))
        assert pattern.shape == (5, 3, 7, 7)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(5, 3, 7))
        torch.testing.assert_close(pattern, scores.softmax(-1))


def test_patterns_of_a_plain_model(generator):
    model = initialized(HookedAttention(), generator)
    x = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
    pattern = record_outputs(model, [x], ["blocks.1.attn.hook_pattern"])["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(4, 3, 5, dtype=torch.float64))


def test_the_rest_of_the_model_sees_the_replacement(model, generator):
    x = torch.randn(4, 3, generator=generator)
    model.eval()
    with left_as_found(model), torch.no_grad():
        with replaced_output(model, "2", lambda output: 2 * output):
            got = model(x)
        expected = model[3](model[3](2 * model[0](x).relu()))
    torch.testing.assert_close(got, expected)


def test_hooks_go_when_the_model_or_a_name_fails(model, generator):
    x = torch.randn(4, 3, generator=generator)
    with left_as_found(model):
        with pytest.raises(ValueError, match="no submodule 'nowhere'"):
            record_outputs(model, [x], ["0", "nowhere"])
        with pytest.raises(RuntimeError, match="4x2"):
            record_outputs(model, [x[:, :2]], ["0"])
        with pytest.raises(ZeroDivisionError), replaced_output(model, "0", lambda output: output):
            raise ZeroDivisionError


def test_an_unknown_name_lists_those_alike(generator):
    model = initialized(HookedAttention(), generator)
    x = [torch.randn(1, 2, 6, generator=generator, dtype=torch.float64)]
    alike = "'blocks.7.attn.hook_z'; alike: blocks.0.attn.hook_z, blocks.1.attn.hook_z$"
    with pytest.raises(ValueError, match=alike):
        record_outputs(model, x, ["blocks.7.attn.hook_z"])
    with pytest.raises(ValueError, match=r"alike: .*blocks.1.attn.hook_pattern"):
        record_outputs(model, x, ["blocks.1.attn.hook_patern"])
    with pytest.raises(ValueError, match="no submodule 'z'; alike: none, it has no submodules"):
        record_outputs(nn.Linear(2, 2), [torch.ones(1, 2)], ["z"])


def test_what_was_not_called_once_is_refused(model, generator):
    x = torch.randn(4, 3, generator=generator)
    with pytest.raises(ValueError, match="'unused' was not called in the forward pass; is there a fused path"):
        record_outputs(model, [x], ["0", "unused"])
    with pytest.raises(ValueError, match="'3' was called 4 times in 2 forward passes"):
        record_outputs(model, [x, x], ["3"])
    with pytest.raises(ValueError, match="'unused' was not called"), replaced_output(model, "unused", torch.neg):
        model(x)


def test_bad_arguments_are_refused(model, generator):
    x = torch.randn(4, 3, generator=generator)
    with pytest.raises(TypeError, match="names must be a sequence of names, got the string '0'"):
        record_outputs(model, [x], "0")
    with pytest.raises(TypeError, match=r"inputs must be several inputs, got one tensor of shape \(4, 3\)"):
        record_outputs(model, x, ["0"])
    with pytest.raises(ValueError, match="inputs is empty"):
        record_outputs(model, [], ["0"])
    pair = nn.Sequential(nn.LSTM(3, 3))
    with pytest.raises(TypeError, match="submodule '0' must return a tensor, got tuple"):
        record_outputs(pair, [x], ["0"])
    refused = pytest.raises(TypeError, match="submodule '0' must return a tensor, got tuple")
    with refused, replaced_output(pair, "0", torch.neg):
        pair(x)

"""Perceptrons: torch's layers in order, drawn by a generator."""

from __future__ import annotations

import math

import pytest
import torch
from cases import seeded
from torch import nn

from emergence.perceptron import Perceptron


def test_it_is_a_chain_of_linear_maps_and_activations():
    model = Perceptron([4, 5, 6, 2], seeded()).double()
    x = torch.randn(7, 4, generator=seeded(1), dtype=torch.float64)
    h = x
    for layer in range(3):
        linear = model.get_submodule(f"linear{layer}")
        assert isinstance(linear, nn.Linear)
        h = h @ linear.weight.T + linear.bias
        if layer < 2:
            h = h / (1 + torch.exp(-h))  # SiLU
    torch.testing.assert_close(model(x), h, rtol=0, atol=1e-14)
    assert [p.shape for p in model.parameters()] == [(5, 4), (5,), (6, 5), (6,), (2, 6), (2,)]


def test_the_activation_can_be_chosen():
    model = Perceptron([3, 8, 2], seeded(), activation=nn.ReLU)
    x = torch.randn(7, 3, generator=seeded(1))
    first, second = model.get_submodule("linear0"), model.get_submodule("linear1")
    assert torch.equal(model(x), second(first(x).relu()))


def test_tokens_are_embedded_side_by_side():
    model = Perceptron([16, 5], seeded(), embedding=(11, 8))
    tokens = torch.tensor([[3, 7], [0, 10]])
    vectors, linear = model.get_parameter("embed.weight"), model.get_submodule("linear0")
    by_hand = linear(torch.cat([vectors[tokens[:, 0]], vectors[tokens[:, 1]]], dim=1))
    assert torch.equal(model(tokens), by_hand)
    model(tokens).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.any(dim=1).nonzero().flatten().tolist() == [0, 3, 7, 10]


def test_weights_are_drawn_as_torch_draws_them_and_by_the_generator_alone():
    model = Perceptron([100, 400, 300], seeded(3), embedding=(200, 50))
    for name, fan_in in (("linear0", 100), ("linear1", 400)):
        for kind in ("weight", "bias"):
            p = model.get_parameter(f"{name}.{kind}")
            bound = 1 / math.sqrt(fan_in)
            assert p.abs().max() <= bound
            assert p.var().item() == pytest.approx(bound**2 / 3, rel=4 * math.sqrt(0.8 / p.numel()))
    vectors = model.get_parameter("embed.weight")
    assert vectors.var().item() == pytest.approx(1, rel=4 * math.sqrt(2 / vectors.numel()))
    state = torch.get_rng_state()
    again = Perceptron([100, 400, 300], seeded(3), embedding=(200, 50))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other = Perceptron([100, 400, 300], seeded(4), embedding=(200, 50))
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

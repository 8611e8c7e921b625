"""Contributions add up to the output, and each is what the weights say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import HookedAttention, initialized, left_as_found, unchecked
from torch import Tensor, nn

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import attribute_output


@pytest.fixture
def model(generator) -> ParticleTransformer:
    """Weights and biases of order one everywhere, so that no term is left out unseen."""
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=8), 6, 4, generator)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model.double()


@pytest.fixture
def scenes(generator) -> Tensor:
    return torch.randn(7, 5, 6, generator=generator, dtype=torch.float64)


def test_contributions_add_up_to_the_output(model, scenes):
    with left_as_found(model):
        got = attribute_output(model, scenes)
    with torch.no_grad():
        output = model(scenes).numpy()
    np.testing.assert_allclose(got.contributions.sum(0) + got.constant, output, atol=1e-12)
    assert got.largest_error < 1e-12
    assert got.components == (
        "hook_embed",
        *(f"blocks.0.attn.hook_z[{h}]" for h in range(3)),
        "blocks.0.hook_attn_out bias",
        "blocks.0.hook_mlp_out",
        *(f"blocks.1.attn.hook_z[{h}]" for h in range(3)),
        "blocks.1.hook_attn_out bias",
        "blocks.1.hook_mlp_out",
    )


def test_in_single_precision_they_add_up_to_a_millionth(model, scenes):
    got = attribute_output(model.float(), scenes.float())
    assert got.largest_error < 1e-6 * np.abs(got.contributions).sum(0).max()


@torch.no_grad()
def test_each_contribution_is_what_the_weights_say(model, scenes):
    """A head's z through W_O, centred, over the scale of the stream, times the norm's weight, through W_U."""
    _, cache = model.run_with_cache(scenes)
    got = attribute_output(model, scenes)
    scale = (cache["blocks.1.hook_resid_post"].var(-1, correction=0, keepdim=True) + model.ln_final.eps).sqrt()

    def expected(x: Tensor) -> np.ndarray:
        return ((x - x.mean(-1, keepdim=True)) / scale * model.ln_final.weight @ model.W_U).numpy()

    written = {"hook_embed": cache["hook_embed"], "blocks.1.hook_mlp_out": cache["blocks.1.hook_mlp_out"]}
    for layer in range(2):
        attn = model.layers[layer].attn
        for h in range(3):
            z = cache[f"blocks.{layer}.attn.hook_z"]
            written[f"blocks.{layer}.attn.hook_z[{h}]"] = z[:, :, h] @ attn.W_O[h]
        written[f"blocks.{layer}.hook_attn_out bias"] = attn.b_O.expand_as(cache["hook_embed"])
    for name, x in written.items():
        np.testing.assert_allclose(got.contributions[got.components.index(name)], expected(x), atol=1e-12)
    constant = (model.ln_final.bias @ model.W_U + model.b_U).expand(7, 5, 4)
    np.testing.assert_allclose(got.constant, constant.numpy(), atol=1e-13)


def test_shares_add_up_to_one_and_their_error_is_that_of_a_ratio(model, scenes):
    got = attribute_output(model, scenes)
    boxes = np.array([0, 0, 1, 1, 2, 2, 2])
    share, interval = got.share(boxes)
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    varying = got.output - got.constant
    total, along = (varying**2).sum((1, 2)), (got.contributions * varying).sum((2, 3))
    np.testing.assert_allclose(share, along.sum(1) / total.sum(), rtol=1e-12)
    residual = (along[1] - share[1] * total) / total.sum()
    sums = np.array([residual[boxes == box].sum() for box in range(3)])
    half = 4.302653 * np.sqrt((sums**2).sum() * 3 / 2)
    np.testing.assert_allclose(interval[1], [share[1] - half, share[1] + half], rtol=1e-6)
    assert np.isnan(got.share(np.zeros(7, dtype=int))[1]).all()


class Plain(nn.Module):
    """Other names, another norm: an embedding and one MLP."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.norm, self.out = norm, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.out(self.norm(x + self.mlp(x)))


@pytest.mark.parametrize("norm", [nn.RMSNorm(8), nn.LayerNorm(8, bias=False), nn.Identity()])
def test_a_plain_model_with_another_norm(generator, scenes, norm):
    model = initialized(Plain(norm).double(), generator)
    with left_as_found(model):
        got = attribute_output(model, scenes, components=["embed", "mlp"], final_norm="norm")
    np.testing.assert_allclose(got.contributions.sum(0) + got.constant, got.output, atol=1e-12)


def test_what_does_not_add_up_is_refused(model, scenes, generator):
    attribute = unchecked(attribute_output)
    with left_as_found(model):
        with pytest.raises(ValueError, match="they miss it by .*name every component that writes into the stream"):
            attribute(model, scenes, components=["hook_embed", "blocks.0.hook_mlp_out"])
        with pytest.raises(ValueError, match="no submodule 'ln_last'"):
            attribute(model, scenes, final_norm="ln_last")
        with pytest.raises(
            ValueError, match=r"'blocks.0.hook_attn_out' must return shape \(scene, pos, head, d_head\)"
        ):
            attribute(model, scenes, heads={"blocks.0.hook_attn_out": "blocks.0.hook_attn_out"})
    with pytest.raises(ValueError, match="no submodule named as in TransformerLens"):
        attribute(initialized(HookedAttention(), generator), scenes, final_norm="blocks.0.attn.hook_z")
    strange: Any = Plain(nn.BatchNorm1d(5)).double()
    with pytest.raises(TypeError, match="LayerNorm, RMSNorm or Identity of torch, got BatchNorm1d"):
        attribute(strange, scenes, components=["embed", "mlp"], final_norm="norm")

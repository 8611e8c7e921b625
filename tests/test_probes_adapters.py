"""Patterns of other libraries' models are the softmax of their scores, and the models are left as found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cases import HookedAttention, initialized, left_as_found, unchecked
from torch import Tensor, nn

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import attention_patterns, record_outputs


class Layers(nn.Module):
    """``nn.MultiheadAttention`` with the weights off, as most code has it."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 4, batch_first=batch_first) for _ in range(2))
        self.asked: dict[str, bool] = {"need_weights": False}
        self.returned: list[Tensor | None] = []

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            mixed, weights = layer(x, x, x, **self.asked)
            self.returned.append(weights)
            x = x + mixed
        return x


def written_out(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) of each head from the packed weights."""
    assert layer.in_proj_bias is not None
    q, k = (
        (x @ w.T + b).unflatten(-1, (4, 2))
        for w, b in zip(layer.in_proj_weight.chunk(3)[:2], layer.in_proj_bias.chunk(3)[:2], strict=True)
    )
    return (torch.einsum("sqhe,skhe->shqk", q, k) / 2**0.5).softmax(-1)


@torch.no_grad()
def test_multihead_attention_hands_out_each_head(generator):
    model = initialized(Layers().double(), generator)
    x = torch.randn(6, 5, 8, generator=generator, dtype=torch.float64)
    output = model(x)
    with left_as_found(model):
        got = attention_patterns(model, [x[:4], x[4:]])
    assert len(got) == 2
    np.testing.assert_allclose(got[0], written_out(model.layers[0], x), atol=1e-12)  # type: ignore[index]
    inner = x + model.layers[0](x, x, x)[0]  # type: ignore[index, operator]
    np.testing.assert_allclose(got[1], written_out(model.layers[1], inner), atol=1e-12)  # type: ignore[index]
    torch.testing.assert_close(model(x), output)


@torch.no_grad()
@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({"need_weights": False}, None),
        ({}, (6, 5, 5)),
        ({"need_weights": True, "average_attn_weights": False}, (6, 4, 5, 5)),
    ],
)
def test_the_model_gets_what_it_asked_for(generator, asked, shape):
    model = Layers().double()
    initialized(model, generator)
    model.asked = asked
    x = torch.randn(6, 5, 8, generator=generator, dtype=torch.float64)
    model.eval()(x)
    alone = model.returned
    model.returned = []
    pattern = attention_patterns(model, [x])[0]
    for before, now in zip(alone, model.returned, strict=True):
        if shape is None:
            assert before is None
            assert now is None
        else:
            assert before is not None
            assert now is not None
            assert now.shape == shape
            torch.testing.assert_close(now, before)
    assert pattern.shape == (6, 4, 5, 5)


def test_masks_given_by_position_arrive(generator):
    """key_padding_mask, need_weights and attn_mask as positional arguments."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            padding = torch.zeros(x.shape[:2], dtype=torch.bool)
            padding[:, -1] = True
            return self.attention(x, x, x, padding, False, torch.ones(5, 5).triu(1).bool())[0]

    model = initialized(Masked(), generator)
    (got,) = attention_patterns(model, [torch.randn(3, 5, 8, generator=generator)])
    assert (got[..., 4] == 0).all()
    assert (np.triu(got[0, 0], 1) == 0).all()
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)


def test_a_transformer_encoder_does_not_hide_behind_its_fast_path(generator):
    layer = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    initialized(model, generator)
    x = torch.randn(3, 5, 8, generator=generator)
    with left_as_found(model):
        got = attention_patterns(model, [x])
    assert [pattern.shape for pattern in got] == [(3, 4, 5, 5)] * 2
    np.testing.assert_allclose(got[0], written_out(layer_of(model, 0), x).detach(), atol=1e-5)


def layer_of(model: nn.Module, n: int) -> nn.MultiheadAttention:
    attention = model.get_submodule(f"layers.{n}.self_attn")
    assert isinstance(attention, nn.MultiheadAttention)
    return attention


def test_our_model_and_plain_ones_with_transformer_lens_names(generator):
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=8), 6, 4, generator)
    x = torch.randn(5, 7, 6, generator=generator)
    with left_as_found(model):
        got = attention_patterns(model, [x])
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
    for pattern, want in zip(got, record_outputs(model, [x], names).values(), strict=True):
        np.testing.assert_array_equal(pattern, want)
    plain = initialized(HookedAttention(), generator)
    assert [p.shape for p in attention_patterns(plain, [x.double()[..., :6]])] == [(5, 3, 7, 7)] * 2


def gpt2(implementation: str):
    from transformers import GPT2Config, GPT2LMHeadModel

    options: dict[str, Any] = {"attn_implementation": implementation, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=12, vocab_size=20, **options)
    with torch.random.fork_rng():
        return GPT2LMHeadModel(config)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hugging_face_models_switch_to_eager_and_back(generator, implementation):
    model = gpt2(implementation)
    tokens = torch.randint(0, 20, (3, 6), generator=generator)
    with left_as_found(model):
        got = attention_patterns(model, [tokens, {"input_ids": tokens}])
    assert model.config._attn_implementation == implementation
    assert [pattern.shape for pattern in got] == [(6, 2, 6, 6)] * 2
    np.testing.assert_array_equal(got[0][:3], got[0][3:])
    np.testing.assert_allclose(got[1].sum(-1), 1, atol=1e-6)
    assert (np.triu(got[0][0, 0], 1) == 0).all()
    torch.testing.assert_close(torch.from_numpy(got[1][:3]), attentions(model, tokens)[1])
    with left_as_found(model):
        attention_patterns(model, [tokens])  # the library's hooks are there now, and stay
    assert len(attentions(model, tokens)) == 2


@torch.no_grad()
def attentions(model, tokens):
    model.set_attn_implementation("eager")
    return model.eval()(tokens, output_attentions=True).attentions


def test_transformer_lens_models(generator):
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native

    config = TransformerBridgeConfig(
        n_layers=2, n_heads=2, d_model=8, d_head=4, n_ctx=12, d_vocab=20, act_fn="gelu", seed=0,
        architecture="TransformerLensNative",
    )  # fmt: skip
    model = boot_native(config)
    tokens = torch.randint(0, 20, (3, 6), generator=generator)
    model(tokens)  # a bridge hangs hooks of its own on its norms at the first call
    with left_as_found(model):
        got = attention_patterns(model, [tokens])
    assert [pattern.shape for pattern in got] == [(3, 2, 6, 6)] * 2
    _, cache = model.run_with_cache(tokens)
    for layer, pattern in enumerate(got):
        np.testing.assert_array_equal(pattern, cache[f"blocks.{layer}.attn.hook_pattern"].detach())


def test_what_hands_out_no_pattern_is_refused(generator):
    patterns = unchecked(attention_patterns)
    x = torch.randn(2, 5, 8, generator=generator)
    with pytest.raises(ValueError, match=r"Linear hands out no attention pattern.*record_outputs"):
        patterns(nn.Linear(8, 8), [x])
    with pytest.raises(TypeError, match="inputs must be several inputs, got one Tensor; put it in a list"):
        patterns(Layers(), x)
    with pytest.raises(TypeError, match="got one dict"):
        patterns(Layers(), {"x": x})
    with pytest.raises(ValueError, match="inputs is empty"):
        patterns(Layers(), [])
    with pytest.raises(ValueError, match=r"must be given batches of scenes, got weights \(4, 5, 5\)"):
        patterns(Layers(), [x[0]])
    idle = Layers()
    idle.forward = lambda x: x  # type: ignore[method-assign]
    with left_as_found(idle), pytest.raises(ValueError, match="'layers.0' returned 0 patterns in 1 forward passes"):
        patterns(idle, [x])

    class Silent(nn.Module):
        """A Hugging Face model whose attention gives nothing back."""

        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(_attn_implementation="flash")

        def set_attn_implementation(self, kind: str) -> None:
            self.config._attn_implementation = kind

        def forward(self, x: Tensor, output_attentions: bool):
            return SimpleNamespace(attentions=(None, None))

    silent = Silent()
    with pytest.raises(ValueError, match="Silent returned no attentions; load it with attn_implementation='eager'"):
        patterns(silent, [x])
    assert silent.config._attn_implementation == "flash"

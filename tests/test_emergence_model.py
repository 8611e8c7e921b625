import math

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from emergence.config import ModelConfig
from emergence.model import Attention, ParticleTransformer, head_masks

CONFIG = ModelConfig(n_layers=2, n_heads=4, d_model=32, d_head=8, d_mlp=64)
PATTERNS = [f"blocks.{layer}.attn.hook_pattern" for layer in range(CONFIG.n_layers)]


@pytest.fixture
def model(generator: torch.Generator) -> ParticleTransformer:
    model = ParticleTransformer(CONFIG, 6, 4, generator)
    with torch.no_grad():
        for p in model.parameters():  # biases and gains away from 0 and 1, lest they hide
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture
def features(generator: torch.Generator) -> Tensor:
    return torch.randn(5, 7, 6, generator=generator)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_fused_and_explicit_attention_agree(model, features, dtype, tolerance):
    model, features = model.to(dtype), features.to(dtype)
    fused = model(features)
    explicit = model.use_explicit_attention()(features)
    assert not torch.equal(fused, torch.zeros_like(fused))
    torch.testing.assert_close(explicit, fused, rtol=0, atol=tolerance)
    torch.testing.assert_close(model.use_explicit_attention(False)(features), fused, rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_both_paths_have_the_same_gradients(model, features, dtype, tolerance):
    model, features = model.to(dtype), features.to(dtype)
    fused = torch.autograd.grad(model(features).square().mean(), list(model.parameters()))
    model.use_explicit_attention()
    explicit = torch.autograd.grad(model(features).square().mean(), list(model.parameters()))
    for a, b in zip(fused, explicit, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_attention_matches_a_loop_over_heads_and_queries(generator):
    attention = Attention(CONFIG).double()
    with torch.no_grad():
        for p in attention.parameters():
            p.normal_(0, 0.3, generator=generator)
    x = torch.randn(1, 4, CONFIG.d_model, generator=generator, dtype=torch.float64)
    expected = attention.b_O.repeat(4, 1)
    for head in range(CONFIG.n_heads):
        q = x[0] @ attention.W_Q[head] + attention.b_Q[head]
        k = x[0] @ attention.W_K[head] + attention.b_K[head]
        v = x[0] @ attention.W_V[head] + attention.b_V[head]
        for i in range(4):
            weights = torch.softmax(torch.stack([q[i] @ k[j] for j in range(4)]) / math.sqrt(CONFIG.d_head), dim=0)
            z = sum((weights[j] * v[j] for j in range(4)), torch.zeros(CONFIG.d_head, dtype=torch.float64))
            expected[i] = expected[i] + z @ attention.W_O[head]
    torch.testing.assert_close(attention(x)[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_run_with_cache_sees_patterns_whose_rows_sum_to_one(model, features):
    output, cache = model.run_with_cache(features)
    torch.testing.assert_close(output, model(features), rtol=0, atol=1e-5)
    for name in PATTERNS:
        assert cache[name].shape == (5, CONFIG.n_heads, 7, 7)
        torch.testing.assert_close(cache[name].sum(-1), torch.ones(5, CONFIG.n_heads, 7), rtol=0, atol=1e-6)
    assert set(cache) == {name for name, module in model.named_modules() if isinstance(module, HookPoint)}


@torch.no_grad()
def test_run_with_hooks_replaces_the_pattern_and_then_lets_go(model, features):
    before = model(features)
    seen = []

    def look_at_self(pattern: Tensor, hook: HookPoint) -> Tensor:
        seen.append(hook.name)
        return torch.eye(7).expand_as(pattern)

    alone = model.run_with_hooks(features, fwd_hooks=[(name, look_at_self) for name in PATTERNS])
    assert seen == PATTERNS
    moved = features.clone()
    moved[:, 1:] += 1.0  # with every particle looking at itself, the first cannot know
    alone_moved = model.run_with_hooks(moved, fwd_hooks=[(name, look_at_self) for name in PATTERNS])
    torch.testing.assert_close(alone[:, 0], alone_moved[:, 0], rtol=0, atol=1e-6)
    assert (alone - before).abs().max() > 1e-2
    assert torch.equal(model(features), before)


def test_a_backward_hook_alone_is_enough_to_see_the_pattern(model, features):
    seen = []
    with model.hooks(bwd_hooks=[(PATTERNS[1], lambda gradient, hook: seen.append(gradient.shape))]):
        model(features).square().mean().backward()
    assert seen == [(5, CONFIG.n_heads, 7, 7)]


def test_permuting_particles_permutes_outputs(model, features, generator):
    model, features = model.double(), features.double()
    order = torch.randperm(7, generator=generator)
    for explicit in (False, True):
        model.use_explicit_attention(explicit)
        torch.testing.assert_close(model(features[:, order]), model(features)[:, order], rtol=0, atol=1e-12)


def test_second_derivatives_exist_on_the_explicit_path(generator):
    model = ParticleTransformer(ModelConfig(1, 2, 8, 4, 8), 3, 2, generator).double().use_explicit_attention()
    x = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    weight = model.layers[0].attn.W_Q

    def loss(w: Tensor) -> Tensor:
        return torch.func.functional_call(model, {"blocks.0.attn.W_Q": w}, (x,)).square().mean()

    assert torch.autograd.gradgradcheck(loss, (weight.detach().clone().requires_grad_(),))


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("W_E", 1 / math.sqrt(50)),
        ("blocks.0.attn.W_Q", 1 / math.sqrt(128)),
        ("blocks.1.attn.W_K", 1 / math.sqrt(128)),
        ("blocks.2.attn.W_V", 1 / math.sqrt(128)),
        ("blocks.0.attn.W_O", 1 / math.sqrt(4 * 48) / math.sqrt(6)),
        ("blocks.1.mlp.W_in", 1 / math.sqrt(128)),
        ("blocks.2.mlp.W_out", 1 / math.sqrt(300) / math.sqrt(6)),
        ("W_U", 0.1 / math.sqrt(128)),
    ],
)
def test_initial_weights_have_the_documented_spread(name, std, generator):
    model = ParticleTransformer(
        ModelConfig(n_layers=3, n_heads=4, d_model=128, d_head=48, d_mlp=300), 50, 60, generator
    )
    weights = dict(model.named_parameters())[name].detach()
    error = std / math.sqrt(2 * weights.numel())  # of the standard deviation of normal draws
    assert abs(weights.std().item() - std) < 4 * error
    assert abs(weights.mean().item()) < 4 * std / math.sqrt(weights.numel())


def test_initial_biases_are_zero_and_norms_neutral(generator):
    for name, p in ParticleTransformer(CONFIG, 6, 4, generator).named_parameters():
        if ".b_" in f".{name}" or name.endswith(".bias"):
            assert not p.any(), name
        elif name.endswith(".weight"):
            assert (p == 1).all(), name


def test_the_same_generator_draws_the_same_weights_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, again, other = (ParticleTransformer(CONFIG, 6, 4, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) != (name.rsplit(".", 1)[-1].startswith("W_"))


def test_head_masks_cover_exactly_the_slices_of_each_head(model):
    masks = head_masks(model)
    assert list(masks) == [(layer, head) for layer in range(2) for head in range(4)]
    parameters = dict(model.named_parameters())
    for (layer, head), of_head in masks.items():
        assert set(of_head) == {f"blocks.{layer}.attn.W_{kind}" for kind in "QKVO"}
        for name, mask in of_head.items():
            assert mask.shape == parameters[name].shape
            assert mask[head].all()
            assert int(mask.sum()) == parameters[name][head].numel()


def test_a_heads_mask_holds_all_its_output_depends_on(model, features):
    """Weights outside its mask (biases aside) do not move a head's z in the first layer."""
    model = model.double()
    _, before = model.run_with_cache(features.double())
    with torch.no_grad():
        for name, mask in head_masks(model)[0, 2].items():
            dict(model.named_parameters())[name][mask] += 1.0
    _, after = model.run_with_cache(features.double())
    change = (after["blocks.0.attn.hook_z"] - before["blocks.0.attn.hook_z"]).abs().amax(dim=(0, 1, 3))
    assert change[2] > 0.1
    assert change[[0, 1, 3]].max() == 0

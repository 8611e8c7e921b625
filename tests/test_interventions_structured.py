"""Structured layers: what each structure promises through training, and that all that worked on a model still does."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from micro_study import micro
from refusals import assert_refused
from torch import nn

from emergence import open_run, run_study
from emergence.config import ModelConfig
from emergence.interventions import structured
from emergence.interventions.settings import Structured
from emergence.model import ParticleTransformer
from emergence.perceptron import Perceptron
from emergence.studies.compare.findings import attention_wire
from probes import estimate_llc, head_ablation, head_parameters, hessian_blocks, top_eigenvalues

STRUCTURES = {
    **structured.STRUCTURES,
    "low_rank_diagonal": structured.LowRankDiagonal(rank=2),
    "block_diagonal": structured.BlockDiagonal(2),
}
ANY_SHAPE = [name for name in STRUCTURES if name not in ("antisymmetric", "circulant")]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def linear(n_in: int, n_out: int, seed: int = 0, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(scale * normal(n_out, n_in, seed=seed))
        layer.bias.copy_(normal(n_out, seed=seed + 1))
    return layer


def models() -> dict[str, tuple[Any, Any, torch.Tensor]]:
    """A model of every kind, its layers, and an input."""
    stack = nn.Sequential(linear(6, 6), nn.Tanh(), nn.Sequential(linear(6, 6, 2)), nn.Tanh(), linear(6, 4, 3))
    transformer = ParticleTransformer(ModelConfig(2, 2, 8, 4, 12), 6, 4, seeded()).use_explicit_attention()
    return {
        "sequential": (stack, ["0", "2.*"], normal(5, 6, seed=4)),
        "perceptron": (Perceptron([6, 8, 8, 4], seeded()), "linear*", normal(5, 6, seed=4)),
        "particles": (transformer, ["blocks.*.attn", "blocks.*.mlp"], normal(3, 5, 6, seed=4)),
    }


KINDS = list(models())


def converted(kind: str, structure: Any = "orthogonal", **options: Any) -> tuple[Any, torch.Tensor]:
    model, layers, x = models()[kind]
    if kind == "particles" and structure == "low_rank_diagonal":
        structure = STRUCTURES["low_rank_diagonal"]
    return structured.convert(model, layers, structure, generator=seeded(9), **options), x


def fit(model: nn.Module, x: torch.Tensor, n_steps: int, penalty: float = 0.0, rate: float = 3e-3) -> nn.Module:
    """Train towards outputs too large for a bounded map, so that each structure is pressed against its promise."""
    optimizer = torch.optim.Adam(model.parameters(), rate, fused=True)
    target = 3 * normal(*model(x).shape, seed=8)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        if penalty:
            loss = loss + penalty * structured.correction_penalty(model)
        loss.backward()
        optimizer.step()
    return model


def norm(weight: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double(), 2).max())


def keeps_promise(name: str, weight: torch.Tensor, before: torch.Tensor, training: bool = False) -> bool:
    """The definition of each structure, on a matrix; ``before`` is the weight where training began."""
    w = weight.detach().double()
    rows, columns = w.shape
    if name == "orthogonal":
        gram = w @ w.T if rows <= columns else w.T @ w
        return bool((gram - torch.eye(len(gram))).abs().max() < (1e-4 if training else 1e-5))
    if name == "spectral":
        return 0.9 < norm(w) < 1.01
    if name == "antisymmetric":
        return torch.allclose(w + w.T, -0.2 * torch.eye(rows).double(), atol=1e-6)
    if name == "low_rank_diagonal":
        half = min(rows, columns) // 2
        corner = w[:half, half:]  # off the diagonal, so of rank two
        return bool(torch.linalg.svdvals(corner)[2:].max() < 1e-5)
    if name == "block_diagonal":
        return not w[: rows // 2, columns // 2 :].any() and not w[rows // 2 :, : columns // 2].any()
    if name == "circulant":
        return all(torch.equal(low, high.roll(1)) for high, low in pairwise(w))
    return torch.equal(w == 0, before == 0) and 0.3 < float((w == 0).double().mean()) < 0.7


class SideBySide(nn.ModuleDict):
    """The outputs of several layers, so that one training run presses on all."""

    def forward(self, x):
        return torch.stack([layer(x) for layer in self.values()])


def test_every_promise_holds_after_a_thousand_steps():
    model: Any = SideBySide({name: linear(16, 16) for name in STRUCTURES})
    for name, structure in STRUCTURES.items():
        model = structured.convert(model, name, structure, None, generator=seeded(9))
    before = {name: layer.weight.detach().clone() for name, layer in model.items()}
    fit(model, normal(24, 16, seed=3), 1000)
    for mode in (True, False):
        for name, layer in model.train(mode).items():
            assert keeps_promise(name, before[name], before[name]), name
            assert keeps_promise(name, layer.weight, before[name], mode), name
            assert (layer.weight - before[name]).abs().max() > 0.1, name


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
@pytest.mark.parametrize("name", ANY_SHAPE)
def test_rectangular_weights_keep_it_too(name, shape):
    model: Any = structured.convert(nn.Sequential(linear(*shape)), "0", STRUCTURES[name], None, generator=seeded(9))
    before = model[0].weight.detach().clone()
    fit(model, normal(24, shape[0], seed=3), 100)
    assert keeps_promise(name, model.eval()[0].weight, before)


def free_matrix(layer: Any) -> nn.Parameter:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4)])
def test_a_short_step_of_training_is_one_along_the_orthogonal_matrices(shape):
    """Against the gradient through the polar factor, which lies in the tangent space."""
    layer: Any = structured.convert(linear(*shape).double(), "*", "orthogonal", None, generator=seeded())
    push, rate = normal(*layer.weight.shape, seed=7).double(), 1e-5
    (along,) = torch.autograd.grad((push * layer.eval().weight).sum(), free_matrix(layer))
    before = layer.weight.detach().clone()
    (push * layer.train().weight).sum().backward()
    assert torch.equal(cast(torch.Tensor, free_matrix(layer).grad), push)
    torch.optim.SGD(layer.parameters(), rate).step()
    torch.testing.assert_close((before - layer.weight) / rate, along, rtol=1e-3, atol=1e-3)
    tangent = before.T @ along if shape[0] <= shape[1] else along @ before.T
    smaller = before.T @ before if shape[0] <= shape[1] else before @ before.T
    torch.testing.assert_close(smaller, torch.eye(min(shape)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(tangent, -tangent.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rate", [1e-3, 0.03, 3.0])
def test_a_step_of_any_length_ends_on_the_nearest_orthogonal_matrix(rate):
    layer: Any = structured.convert(linear(12, 12).double(), "*", "orthogonal", None, generator=seeded())
    with torch.no_grad():
        free_matrix(layer).data += rate * normal(12, 12, seed=5).double()  # past the version counter, as some do
    u, _, vh = torch.linalg.svd(free_matrix(layer).detach())
    atol = {1e-3: 1e-6, 0.03: 0.02, 3.0: 1e-9}[rate]  # by one round, the second at its limit; by singular vectors
    torch.testing.assert_close(layer.train().weight.detach(), u @ vh, rtol=0, atol=atol)
    assert torch.equal(layer.weight, free_matrix(layer))


@pytest.mark.parametrize("shape", [(9, 9), (5, 9), (9, 5)])
def test_any_matrix_of_full_rank_is_mapped_to_its_polar_factor(shape):
    """In evaluation, where gradients pass: singular values from 0.3 to 2, as chains of sampling may reach."""
    u, _, vh = torch.linalg.svd(normal(*shape).double(), full_matrices=False)
    layer: Any = structured.convert(linear(*shape[::-1]).double(), "*", "orthogonal", None, generator=seeded()).eval()
    with torch.no_grad():
        free_matrix(layer).copy_(u * torch.linspace(0.3, 2, min(shape)) @ vh)
    torch.testing.assert_close(layer.weight.detach(), u @ vh, rtol=0, atol=1e-6)


def test_a_layer_may_run_several_times_before_its_gradient():
    model, x = converted("perceptron")
    fit(model, x, 2)  # so that the next pass moves the weights
    (model.train()(x).square().mean() + model(2 * x).square().mean()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_functions_of_given_weights_move_nothing():
    model, x = converted("perceptron")
    fit(model, x, 2)
    given = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = copy.deepcopy(given)
    out = torch.func.functional_call(model.train(), given, x)
    torch.testing.assert_close(out, model.eval()(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given, state, rtol=0, atol=0)


def test_a_weight_inside_the_spectral_ball_is_left_as_it_is():
    layer = linear(8, 8, scale=0.05)
    inside: Any = structured.convert(layer, "*", structured.Spectral(bound=2.0), None, generator=seeded())
    torch.testing.assert_close(inside.weight, layer.weight)
    inside.parametrizations.weight.original.data *= 1000
    assert norm(inside.weight) == pytest.approx(2.0, rel=1e-2)


def test_looking_at_a_weight_in_evaluation_mode_changes_nothing():
    model, x = converted("perceptron", "spectral")
    fit(model, x, 3)
    state = copy.deepcopy(model.eval().state_dict())
    assert torch.equal(model(x), model(x))
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", STRUCTURES)
def test_conversion_takes_the_nearest_matrix(name):
    """No small move within the structure comes nearer, and a second conversion moves nothing."""
    layer = linear(8, 8).double()
    model: Any = structured.convert(layer, "*", STRUCTURES[name], None, generator=seeded(5)).eval()
    nearest = (model.weight - layer.weight).norm().item()
    for seed in range(50):
        moved: Any = copy.deepcopy(model)
        with torch.no_grad():
            for p in (p for key, p in moved.named_parameters() if "original" in key):
                p += 0.03 * torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype)
        assert (moved.weight - layer.weight).norm().item() >= nearest - 1e-6
    if name == "low_rank_diagonal":  # its alternation comes near, and slowly
        return
    again: Any = structured.export(model)
    model.weight = again.weight.detach()
    torch.testing.assert_close(model.weight, again.weight, atol=1e-7, rtol=0)


def test_nearest_matrices_in_closed_form():
    layer = linear(8, 8).double()
    w = layer.weight.detach()

    def nearest(structure: Any) -> torch.Tensor:
        model: Any = structured.convert(layer, "*", structure, None, generator=seeded())
        return model.eval().weight.detach()

    root = torch.linalg.eigh(w.T @ w)  # the polar factor by another route: W (W'W)^-1/2
    polar = w @ (root.eigenvectors / root.eigenvalues.sqrt()) @ root.eigenvectors.T
    torch.testing.assert_close(nearest("orthogonal"), polar)
    off_diagonal = ~torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(nearest("antisymmetric")[off_diagonal], ((w - w.T) / 2)[off_diagonal])
    shift = torch.eye(8).double().roll(1, 1)
    powers = [torch.linalg.matrix_power(shift, k) for k in range(8)]
    torch.testing.assert_close(nearest("circulant"), sum((w * p).sum() / 8 * p for p in powers))
    torch.testing.assert_close(nearest("block_diagonal"), w * torch.block_diag(*[torch.ones(2, 2)] * 4))
    planted = nn.Linear(8, 8).double()
    planted.weight.data = torch.outer(w[0], w[1]) + torch.diag(w[2])
    got = structured.convert(planted, "*", structured.LowRankDiagonal(1), None, generator=seeded()).weight
    torch.testing.assert_close(got, planted.weight, atol=1e-3, rtol=0)
    mask = normal(8, 8) > 0
    torch.testing.assert_close(nearest(structured.Masked(mask)), w * mask)


@pytest.mark.parametrize(
    ("name", "n"), [("low_rank_diagonal", 2 * (8 + 12) + 8), ("block_diagonal", 2 * 4 * 6), ("orthogonal", 96)]
)
def test_only_the_free_numbers_are_stored(name, n):
    model = structured.convert(linear(8, 12), "*", STRUCTURES[name], None, generator=seeded())
    assert sum(p.numel() for p in model.parameters()) == n + 12


@pytest.mark.parametrize("depth", [1, 4, 16])
def test_singular_values_of_a_deep_stack_lie_within_the_bound(depth):
    scale = 0.2
    stack = nn.Sequential(*[linear(12, 12, seed) for seed in range(depth)]).double()
    model: Any = structured.convert(stack, "*", "orthogonal", structured.Correction(12, scale), generator=seeded(1))
    fit(model, normal(16, 12, seed=3).double(), 30, rate=0.05)
    model.eval()
    largest, smallest = 0.0, 9.0
    for layer in model:
        assert norm(layer.correction.inner.weight) < 1.005
        assert norm(layer.correction.outer.weight) < 1.005
    for seed in range(5):
        x = 0.3 * normal(12, seed=seed).double()
        values = torch.linalg.svdvals(torch.func.jacrev(model)(x))
        largest, smallest = max(largest, values.max().item()), min(smallest, values.min().item())
    e = scale * 1.01
    assert (1 - e) ** depth <= smallest < 0.99
    assert 1.01 < largest <= (1 + e) ** depth
    assert largest / smallest <= ((1 + e) / (1 - e)) ** depth


def test_the_ratio_is_that_of_the_last_training_pass_and_has_a_gradient():
    model, x = converted("perceptron")
    fit(model, x, 20)
    model.train()(x)
    ratios = structured.correction_ratios(model)
    assert list(ratios) == ["linear0", "linear1", "linear2"]
    layer = model.linear0
    expected = layer.correction(x).square().mean() / (x @ layer.weight.T).square().mean()
    torch.testing.assert_close(ratios["linear0"], expected, rtol=1e-5, atol=0)  # it is small
    penalty = structured.correction_penalty(model)
    torch.testing.assert_close(penalty, torch.stack(list(ratios.values())).mean())
    penalty.backward()
    assert layer.correction.outer.parametrizations.weight.original.grad.any()
    model.eval()(2 * x)
    assert structured.correction_ratios(model)["linear0"] == ratios["linear0"]
    with torch.no_grad():
        model.train()(x)
    assert not any(ratio.requires_grad for ratio in structured.correction_ratios(model).values())
    free, weighed = (fit(converted("perceptron")[0], x, 60, penalty) for penalty in (0.0, 1e3))
    assert structured.correction_penalty(weighed) < structured.correction_penalty(free) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_given_model_is_left_as_it_was(kind):
    model, layers, x = models()[kind]
    model.eval()
    before, outputs, state = copy.deepcopy(model.state_dict()), model(x), torch.random.get_rng_state()
    new = structured.convert(model, layers, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), outputs)
    assert not any(m.training for m in (*model.modules(), *new.modules()))
    again = structured.convert(model, layers, generator=seeded())
    assert torch.equal(new(x), again(x))
    assert all(m.training for m in structured.convert(model.train(), layers, generator=seeded()).modules())


@pytest.mark.parametrize("correction", [None, structured.Correction()])
@pytest.mark.parametrize("name", ANY_SHAPE)
@pytest.mark.parametrize("kind", KINDS)
def test_export_copy_and_reloading_keep_the_function(kind, name, correction):
    model, x = converted(kind, STRUCTURES[name], correction=correction)
    fit(model, x, 5)
    copied = copy.deepcopy(model)  # in the middle of training
    model.eval()
    outputs = model(x)
    exported = structured.export(model)
    torch.testing.assert_close(exported(x), outputs, rtol=0, atol=1e-6)
    torch.testing.assert_close(copied.eval()(x), outputs, rtol=0, atol=1e-6)
    assert not any("parametrizations" in key for key in exported.state_dict())
    fresh, _ = converted(kind, STRUCTURES[name], correction=correction)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), outputs)
    assert structured.is_structured(model)
    assert not structured.is_structured(exported)


def test_a_converted_linear_layer_is_still_one():
    layer = linear(6, 4)
    model: Any = structured.convert(layer, "*", generator=seeded())
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features, model.weight.shape) == (6, 4, (4, 6))
    assert torch.equal(model.bias, layer.bias)
    assert type(structured.export(model)) is nn.Linear
    bare = nn.Sequential(nn.Linear(3, 3, bias=False))
    model = structured.convert(bare, "0", generator=seeded())
    model(normal(2, 3))
    assert structured.correction_ratios(model)["0"] == 0


def mean_square(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("name", ["orthogonal", "spectral"])
@pytest.mark.parametrize("kind", ["perceptron", "particles"])
def test_learning_coefficient_and_curvature_can_be_measured(kind, name):
    model, x = converted(kind, STRUCTURES[name])
    fit(model, x, 20)
    batches = [(x, normal(*model(x).shape, seed=6))]
    settings = {"nbeta": 5.0, "step_size": 1e-5, "localization": 10.0, "n_chains": 2, "n_draws": 5, "n_burnin": 2}
    estimate = estimate_llc(model, batches, loss_fn=mean_square, generator=seeded(), **settings)
    assert torch.isfinite(torch.tensor(estimate.value))
    top = top_eigenvalues(model, batches, loss_fn=mean_square, k=1, generator=seeded())
    assert top.converged.all()
    # along the top eigenvector the loss bends as told
    direction = torch.as_tensor(top.vectors[0]).flatten()
    exact = copy.deepcopy(model).double().eval()
    batch = tuple(t.double() for t in batches[0])

    def loss_at(step: float) -> float:
        shifted, start = {}, 0
        for key, p in exact.named_parameters():
            shifted[key] = p + step * direction[start : start + p.numel()].view_as(p)
            start += p.numel()
        outputs = torch.func.functional_call(exact, shifted, (batch[0],))
        return (outputs - batch[1]).square().mean().item()

    bend = (loss_at(1e-3) + loss_at(-1e-3) - 2 * loss_at(0)) / 1e-6
    assert bend == pytest.approx(float(top.values[0]), rel=0.05)


def test_copies_with_weights_of_their_own_run_side_by_side():
    model, x = converted("particles")
    model.eval()
    stacked = {key: torch.stack([p, 1.1 * p + 0.01]).detach() for key, p in model.named_parameters()}
    together = torch.func.vmap(lambda own: torch.func.functional_call(model, own, (x,)))(stacked)
    for i, outputs in enumerate(together):
        alone = torch.func.functional_call(model, {key: p[i] for key, p in stacked.items()}, (x,))
        torch.testing.assert_close(outputs, alone, rtol=1e-4, atol=1e-5)


def test_heads_are_found_and_stay_apart():
    model, x = converted("particles", STRUCTURES["low_rank_diagonal"])
    heads = head_parameters(model)
    assert list(heads) == [f"blocks.{layer}.attn.head{head}" for layer in (0, 1) for head in (0, 1)]
    masks = heads["blocks.1.attn.head1"]
    assert len(masks) == 12  # product and diagonal of four weights
    attention = model.blocks[1].attn
    before = {kind: getattr(attention, kind).detach().clone() for kind in ("W_Q", "W_O")}
    with torch.no_grad():
        for key, mask in masks.items():
            model.get_parameter(key)[mask] += 1.0
    for kind, weight in before.items():
        now = getattr(attention, kind)
        assert torch.equal(now[0], weight[0])
        assert not torch.isclose(now[1], weight[1]).any()
    blocks = hessian_blocks(
        model, [(x, normal(3, 5, 4))], loss_fn=mean_square, blocks=heads, generator=seeded(), n_probes=2, n_steps=3, k=1
    )
    assert set(blocks) == set(heads)


def test_every_head_is_orthogonal_by_itself():
    model, _ = converted("particles")
    for kind in ("W_Q", "W_K", "W_V"):
        for weight in getattr(model.blocks[0].attn, kind):
            torch.testing.assert_close(weight.T @ weight, torch.eye(4))


def test_hooks_caches_and_ablation_work_as_on_the_plain_model():
    model, x = converted("particles")
    fit(model, x, 5)
    model.eval()
    outputs, cache = model.run_with_cache(x)
    assert torch.equal(outputs, model(x))
    block = model.blocks[1]
    total = cache["blocks.1.hook_resid_mid"] - cache["blocks.1.hook_resid_pre"]
    torch.testing.assert_close(cache["blocks.1.hook_attn_out"], total, rtol=1e-4, atol=1e-5)
    normed = block.ln1(cache["blocks.1.hook_resid_pre"])
    z = cache["blocks.1.attn.hook_z"].flatten(-2)
    expected = z @ block.attn.W_O.flatten(0, 1) + block.attn.b_O + block.attn.correction(normed)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    groups = {"all": torch.ones(3, 5, dtype=torch.bool)}
    options: dict[str, Any] = {"query_loss": lambda m, b: m(b).square().mean(-1), "n_layers": 2, "n_heads": 2}
    got, plain = (
        head_ablation(m, x, groups, kind="zero", generator=seeded(), **options)
        for m in (model, structured.export(model))
    )
    assert np.abs(got.increase["all"]).min() > 0
    np.testing.assert_allclose(got.increase["all"], plain.increase["all"], rtol=1e-3, atol=1e-6)


def compiled_models_train_alike() -> None:
    """Outputs, ratios and their gradients, for the two structures that compute most."""
    for kind, name in product(("perceptron", "particles"), ("orthogonal", "spectral")):
        torch.compiler.reset()
        x = models()[kind][2]
        plain, compiled = (fit(converted(kind, STRUCTURES[name])[0], x, 3) for _ in range(2))
        fast = torch.compile(compiled)
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)
        ratios = [structured.correction_penalty(model) for model in (plain, compiled)]
        torch.testing.assert_close(*ratios, rtol=1e-3, atol=1e-7)
        for model, ratio in zip((plain, compiled), ratios, strict=True):
            ratio.backward()
            model.eval()
        gradients = [[p.grad for p in model.parameters()] for model in (plain, compiled)]
        torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-5)
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_models_train_alike():
    """In a process of its own: the compiler cannot see through the checks of annotations that the tests switch on."""
    call = "import test_interventions_structured as tests; tests.compiled_models_train_alike()"
    subprocess.run([sys.executable, "-c", call], cwd=Path(__file__).parent, check=True, timeout=280)


def test_half_precision_outside_does_not_reach_the_structure():
    model, x = converted("perceptron")
    with torch.autocast("cpu", torch.bfloat16):
        weight = model.linear1.weight
        assert model(x).dtype == torch.bfloat16
    assert keeps_promise("orthogonal", weight, weight)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown layer": (
        {"layers": "linaer1"},
        "'linaer1' matches no layer that can be converted; did you mean 'linear1'",
    ),
    "no match": ({"layers": "head*"}, "there are linear0, linear1, linear2"),
    "not a layer": ({"layers": "activation1"}, "'activation1' matches no layer"),
    "none": ({"layers": []}, "layers is empty"),
    "not a name": ({"layers": [3]}, "layers must hold names or patterns, got int"),
    "unknown structure": ({"structure": "unitary"}, "structure must be one of orthogonal, spectral.* got 'unitary'"),
    "not a structure": ({"structure": 3}, "structure must be a name or settings such as Orthogonal\\(\\), got int"),
    "not a correction": ({"correction": 0.1}, r"correction must be Correction\(...\) or None, got float"),
    "not square": (
        {"structure": "circulant"},
        "layer 'linear0': structure 'circulant' needs square weights, got 8 by 6",
    ),
    "blocks": ({"structure": "block_diagonal"}, "layer 'linear0': n_blocks=4 must divide both sides .* got 8 by 6"),
    "rank": ({"structure": "low_rank_diagonal"}, "rank=8 must be at most the shorter side of a weight, got 8 by 6"),
    "mask": (
        {"structure": structured.Masked(torch.ones(2, 2).bool())},
        r"mask has shape \(2, 2\), the weight \(8, 6\)",
    ),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_converted_is_refused(case):
    options, message = REFUSALS[case]
    model, layers, _ = models()["perceptron"]
    assert_refused(structured.convert, model, **({"layers": layers, "generator": seeded()} | options), message=message)


@pytest.mark.usefixtures("as_users_run")
def test_models_that_cannot_be_converted_are_refused():
    model, layers, _ = models()["perceptron"]
    once = structured.convert(model, layers, generator=seeded())
    assert_refused(structured.convert, once, layers, generator=seeded(), message="'linear0' is converted already")
    exported = structured.export(once)
    assert_refused(structured.convert, exported, layers, generator=seeded(), message="converted already")
    assert_refused(structured.export, model, message="plain already")
    assert_refused(structured.correction_ratios, model, message="model has no correction")
    assert_refused(structured.correction_ratios, once, message="'linear0' has not run in training mode yet")
    model.linear1.weight.data[0, 0] = torch.nan
    assert_refused(structured.convert, model, layers, generator=seeded(), message="weights that are not finite")
    tied = nn.Sequential(linear(4, 4), linear(4, 4))
    tied[1].weight = tied[0].weight
    assert_refused(structured.convert, tied, "1", generator=seeded(), message="0.weight and 1.weight; untie")
    assert_refused(structured.convert, nn.Sequential(nn.ReLU()), "*", generator=seeded(), message="the model has none")
    assert_refused(structured.convert, "model", "*", generator=seeded(), message="must be a torch.nn.Module")


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (structured.Spectral, {"bound": 0.0}, "bound must be positive"),
        (structured.Antisymmetric, {"damping": -1.0}, "damping must be zero or positive"),
        (structured.LowRankDiagonal, {"rank": 0}, "rank must be at least 1"),
        (structured.BlockDiagonal, {"n_blocks": 0}, "n_blocks must be at least 1"),
        (structured.Masked, {"density": 0.0}, "density must be above 0"),
        (structured.Masked, {"mask": torch.ones(2)}, "mask must be a tensor of bool"),
        (structured.Correction, {"scale": 0.0}, "scale must be positive .*correction=None leaves it out"),
        (structured.Correction, {"width": 0}, "width must be at least 1"),
        (Structured, {"structure": "unitary"}, "structured.structure must be one of orthogonal"),
        (Structured, {"layers": ()}, "structured.layers is empty"),
        (Structured, {"correction": -1.0}, "structured.correction must be zero or positive"),
        (Structured, {"correction": 0.0, "penalty": 1.0}, "structured.penalty=1.0 has no correction to weigh"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, options, message):
    assert_refused(settings, **options, message=message)


def test_the_example_of_the_docstring_runs(generator):
    _, example = (structured.__doc__ or "").split("::\n\n", 1)
    code = [line.strip() if not line.startswith("     ") else line[4:] for line in example.split("\n\n")[0].split("\n")]
    assert len(code) <= 10
    loader = [(normal(5, 6, seed=s), normal(5, 4, seed=s)) for s in range(3)]
    names: dict[str, Any] = {
        "structured": structured, "torch": torch, "generator": generator, "loader": loader,
        "model": models()["perceptron"][0], "loss_fn": nn.functional.mse_loss,
    }  # fmt: skip
    exec("\n".join(code), names)
    torch.testing.assert_close(names["plain"](loader[0][0]), names["model"](loader[0][0]), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_study_trains_converted_models_and_opens_them_again(tmp_path):
    settings = Structured(penalty=0.1)
    run_study(micro(intervention=settings, ghost_control=False), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.config.intervention == settings
    models: list[Any] = [run.checkpoints(0).load(step) for step in (0, 30)]
    first, last = models
    weight = last.blocks[0].attn.W_V
    torch.testing.assert_close(weight.mT @ weight, torch.eye(8).expand(2, 8, 8))
    assert not torch.allclose(weight, first.blocks[0].attn.W_V)
    assert last.blocks[0].mlp.correction.outer.weight.any()
    assert {"llc", "hessian"} <= set(run.summary)
    assert 0 < attention_wire(last) < 1
    assert not {float(head["edge_knockout_partner"]) for head in run.summary["heads"]} & {0.0}

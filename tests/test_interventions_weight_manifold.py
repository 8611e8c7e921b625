"""Weights on a manifold: its metric, batches of contexts against models at each, and the law of its step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from refusals import assert_refused
from torch import nn

from emergence.config import ModelConfig
from emergence.interventions import structured, weight_manifold
from emergence.interventions.weight_manifold import Ellipse, Line, Spline, Torus
from emergence.model import MLP, Attention, ParticleTransformer
from emergence.perceptron import Perceptron
from probes import estimate_llc, top_eigenvalues

MANIFOLDS = {
    "end points": Line(),
    "slope": Line("slope"),
    "centred": Line("centred"),
    "ellipse": Ellipse(),
    "torus": Torus(),
    "product": Torus(product=True),
    "spline": Spline(),
    "quadratic": Spline(6, 2),
    "broken line": Spline(4, 1),
    "ring": Spline(5, 3, periodic=True),
    "least ring": Spline(3, 2, periodic=True),
}
LINES = ["end points", "slope", "centred"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def contexts(manifold: Any, n: int, seed: int = 0) -> torch.Tensor:
    shape = (n,) if manifold.n_context == 1 else (n, manifold.n_context)
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in double precision, no parameter or running mean at its usual start."""
    for i, p in enumerate(model.double().parameters()):
        p.data = p.data * 0 + 0.5 * normal(*p.shape, seed=seed + i)
    return model


def particles() -> nn.Module:
    return drawn(ParticleTransformer(ModelConfig(2, 2, 8, 4, 12), 6, 4, seeded()).use_explicit_attention())


def models() -> dict[str, tuple[nn.Module, Any, torch.Tensor]]:
    """A model of every kind of layer, its layers, and an input."""
    conv = nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="circular")
    image, series = normal(5, 4, 6, 6, seed=4), normal(5, 4, 9, seed=4)
    plain_nets: dict[str, tuple[nn.Module, Any, torch.Tensor]] = {
        "linear": (nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)), "*", normal(5, 6, seed=4)),
        "linear in the middle": (nn.Linear(6, 4), "*", normal(5, 2, 3, 6, seed=4)),
        "conv1d": (nn.Conv1d(4, 3, 3, stride=2), "*", series),
        "conv2d": (nn.Sequential(conv, nn.Tanh(), nn.Conv2d(6, 2, 1, bias=False)), ["0", "2"], image),
        "conv3d": (nn.Conv3d(2, 3, 2, dilation=2), "*", normal(5, 2, 4, 4, 4, seed=4)),
        "layer norm": (nn.Sequential(nn.LayerNorm(9), nn.LayerNorm([4, 9], bias=False)), "*", series),
        "rms norm": (nn.RMSNorm(9), "*", series),
        "group norm": (nn.GroupNorm(2, 4), "*", series),
        "batch norm": (nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None)), "*", series),
        "batch norm 2d": (nn.BatchNorm2d(4), "*", image),
        "encoder": (
            nn.TransformerEncoderLayer(8, 2, 12, dropout=0, batch_first=True),
            ["linear*", "norm1"],
            normal(5, 3, 8, seed=4),
        ),
    }
    return {
        **{name: (drawn(model).eval(), layers, x) for name, (model, layers, x) in plain_nets.items()},
        "perceptron": (drawn(Perceptron([6, 8, 8, 4], seeded())), "linear*", normal(5, 6, seed=4)),
        "particles": (particles(), ["blocks.*", "ln_final"], normal(5, 3, 6, seed=4)),
    }


KINDS = list(models())


def converted(kind: str, manifold: Any = "ellipse", spread: float = 1.0, seed: int = 9) -> tuple[Any, torch.Tensor]:
    model, layers, x = models()[kind]
    return weight_manifold.convert(model, layers, manifold, spread=spread, generator=seeded(seed)), x


def quadrature(manifold: Any, n: int = 2520) -> torch.Tensor:
    """Midpoints on a circle, Gauss-Legendre points in 60 pieces of a line, whose borders include all our knots."""
    if manifold.n_context == 2:
        side = torch.arange(50, dtype=torch.float64) / 50
        f = manifold.basis(torch.cartesian_prod(side, side))
        return f.T @ f / len(f)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    s = torch.from_numpy(((nodes + 1) / 2 + np.arange(60)[:, None]).ravel() / 60)
    f = manifold.basis(s)
    return f.T @ (f * torch.from_numpy(np.tile(weights, 60))[:, None] / 120)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_metric_is_the_integral_over_contexts(name):
    manifold = MANIFOLDS[name]
    assert manifold.gram().dtype == torch.float64
    assert manifold.gram().shape == (manifold.n_points,) * 2
    gram = quadrature(manifold)
    torch.testing.assert_close(manifold.gram(), gram, rtol=0, atol=1e-8)
    s, other = contexts(manifold, 7), contexts(manifold, 7, seed=1)
    expected = manifold.basis(s) @ torch.linalg.inv(gram) @ manifold.basis(other).T
    torch.testing.assert_close(weight_manifold.kernel(manifold, s, other), expected.diagonal(), rtol=0, atol=1e-8)
    constant = manifold.basis(s) @ torch.tensor(manifold.constant).double()
    torch.testing.assert_close(constant, torch.ones(7).double())
    measured = weight_manifold.measured_gram(manifold, contexts(manifold, 100_000))
    torch.testing.assert_close(measured, manifold.gram(), rtol=0, atol=0.01)


def test_kernels_in_closed_form():
    s, other = (torch.rand(9, generator=seeded(i), dtype=torch.float64) for i in (0, 1))
    for name in LINES:
        found = weight_manifold.kernel(MANIFOLDS[name], s, other)
        torch.testing.assert_close(found, 4 - 6 * (s + other) + 12 * s * other)
    torch.testing.assert_close(weight_manifold.kernel("ellipse", s, other), 1 + 2 * (2 * torch.pi * (s - other)).cos())
    uv, there = contexts(Torus(), 9), contexts(Torus(), 9, seed=1)
    circles = (2 * torch.pi * (uv - there)).cos()
    torch.testing.assert_close(weight_manifold.kernel(Torus(), uv, there), 1 + 2 * circles.sum(-1))
    torch.testing.assert_close(weight_manifold.kernel(Torus(True), uv, there), (1 + 2 * circles).prod(-1))


def test_metrics_of_the_table():
    inverses = {
        "end points": [[4, -2], [-2, 4]], "slope": [[4, -6], [-6, 12]], "centred": [[1, 0], [0, 3]],
        "ellipse": [[1, 0, 0], [0, 2, 0], [0, 0, 2]],
    }  # fmt: skip
    for name, inverse in inverses.items():
        torch.testing.assert_close(torch.linalg.inv(MANIFOLDS[name].gram()), torch.tensor(inverse).double())


def test_splines_are_those_of_scipy_and_close_smoothly():
    from scipy.interpolate import BSpline

    s = torch.linspace(0, 1, 41, dtype=torch.float64)
    knots = [0, 0, 0, 0, 0.5, 1, 1, 1, 1]
    truth = BSpline.design_matrix(s.numpy(), np.array(knots), 3).toarray()
    torch.testing.assert_close(Spline().basis(s), torch.from_numpy(truth))
    for name in ("ring", "least ring"):
        ring = MANIFOLDS[name]
        torch.testing.assert_close(ring.basis(s + 3), ring.basis(s))
        # a turn by one interval moves every function on to the next
        torch.testing.assert_close(ring.basis(s + 1 / ring.n_points), ring.basis(s).roll(1, -1))
    for name, manifold in MANIFOLDS.items():
        if name != "broken line":  # whose slope jumps
            assert torch.autograd.gradcheck(manifold.basis, (contexts(manifold, 6).requires_grad_(),))


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_a_conversion_begins_at_the_given_weights(name, spread):
    manifold = MANIFOLDS[name]
    model, layers, x = models()["linear"]
    m = weight_manifold.convert(model, layers, manifold, spread=spread, generator=seeded())
    is_same = [torch.allclose(m(x, context), model(x)) for context in contexts(manifold, 4)]
    assert is_same == [spread == 0] * 4
    points = m.get_parameter("model.0.weight")
    assert points.shape == (manifold.n_points, 7, 6)
    if spread == 0:
        assert torch.equal(points, torch.stack([c * model.get_parameter("0.weight") for c in manifold.constant]))
    else:
        many = nn.Linear(100, 100).double()
        m = weight_manifold.convert(many, "*", manifold, spread=0.1, generator=seeded())
        axis = (m.get_parameter("model.weight")[-1] - manifold.constant[-1] * many.weight).detach().square().mean()
        assert float((axis / many.weight.detach().square().mean()).sqrt()) == pytest.approx(0.1, rel=0.03)  # 1e4 draws


EVERY_MIX = [(kind, "ellipse") for kind in KINDS] + [("linear", name) for name in MANIFOLDS if name != "ellipse"]
"""Every layer and every manifold; a layer knows its manifold by coefficients alone."""


@pytest.mark.parametrize(("kind", "name"), [*EVERY_MIX, ("particles", "product"), ("conv2d", "ring")])
def test_a_batch_of_contexts_is_each_example_at_its_own(kind, name):
    """Outputs, and gradients of points: the sum over examples of f_k times the gradient at their own weights."""
    manifold = MANIFOLDS[name]
    m, x = converted(kind, manifold)
    s = contexts(manifold, len(x))
    push = normal(*m(x, s).shape, seed=7)
    outputs = m(x, s)
    (push * outputs).sum().backward()
    f = manifold.basis(s)
    expected = {key: torch.zeros_like(p) for key, p in m.named_parameters()}
    for b in range(len(x)):
        model = weight_manifold.at(m, s[b])
        alone = model(x[b : b + 1])
        torch.testing.assert_close(outputs[b : b + 1], alone, rtol=0, atol=1e-9)
        torch.testing.assert_close(m(x[b : b + 1], s[b]), alone, rtol=0, atol=1e-9)
        (push[b : b + 1] * alone).sum().backward()
        for key, p in model.named_parameters():
            at_point, total = p.grad, expected[f"model.{key}"]
            assert at_point is not None
            total += at_point if total.shape == p.shape else torch.tensordot(f[b], at_point[None], 0).squeeze(1)
    for key, p in m.named_parameters():
        torch.testing.assert_close(p.grad, expected[key], rtol=0, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_one_point_serves_the_whole_batch(kind):
    m, x = converted(kind)
    together, plain = m(x, 0.3), weight_manifold.at(m, 0.3)(x)
    torch.testing.assert_close(together, plain)
    torch.testing.assert_close(m(x, torch.full((5, 1), 0.3, dtype=torch.float64)), plain)
    with torch.no_grad():
        torch.testing.assert_close(m(x, torch.full((5,), 1.3, dtype=torch.float64)), plain)


def test_batch_norm_keeps_the_statistics_of_the_plain_layer():
    model, layers, x = models()["batch norm"]
    m = weight_manifold.convert(model.train(), layers, "line", generator=seeded())
    for _ in range(3):
        torch.testing.assert_close(m(x, contexts(Line(), 5)), model(x))
    for key, value in model.state_dict().items():
        if key.rsplit(".")[-1] not in ("weight", "bias"):
            torch.testing.assert_close(m.model.state_dict()[key], value)


def trained(manifold: Any, is_preconditioned: bool, rate: float = 0.02) -> Any:
    m, _ = converted("perceptron", manifold, spread=0.0)
    optimizer = torch.optim.SGD(m.parameters(), rate)
    for step in range(100):
        x, s = normal(16, 6, seed=step), torch.rand(16, generator=seeded(step), dtype=torch.float64)
        loss = (m(x, s) - (x[:, :4] * s[:, None]).sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if is_preconditioned:
            weight_manifold.precondition(m)
        optimizer.step()
    return m


def spread_of_weights(forms: list[Any]) -> float:
    """The largest difference between weights of the first and the others, over contexts."""
    found = 0.0
    for s in (0.0, 0.3, 1.0):
        first, *rest = [dict(weight_manifold.at(m, s).named_parameters()) for m in forms]
        found = max(found, *((first[key] - other[key]).abs().max().item() for other in rest for key in first))
    return found


def test_three_ways_to_write_a_line_learn_the_same_and_only_when_preconditioned():
    forms = [trained(MANIFOLDS[name], is_preconditioned=True) for name in LINES]
    assert spread_of_weights(forms) < 1e-6
    start = converted("perceptron", spread=0.0)[0]
    assert spread_of_weights([start, forms[0]]) > 0.1
    assert spread_of_weights([trained(MANIFOLDS[name], is_preconditioned=False) for name in LINES]) > 1e-2


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_a_step_moves_weights_by_the_kernel(name, measured):
    """dW(s) = -rate mean over the batch of K(s, s_b) grad loss_b, by gradients at models of single contexts."""
    manifold, rate = MANIFOLDS[name], 0.1
    m, x = converted("perceptron", manifold)
    s = contexts(manifold, len(x))
    gram = weight_manifold.measured_gram(manifold, contexts(manifold, 40) ** 2) if measured else None
    where = contexts(manifold, 3, seed=5)
    before = [weight_manifold.at(m, point) for point in where]
    singles = [weight_manifold.at(m, point) for point in s]
    for b, single in enumerate(singles):
        single(x[b : b + 1]).square().sum().backward()
    m(x, s).square().sum(-1).mean().backward()
    weight_manifold.precondition(m, gram)
    torch.optim.SGD(m.parameters(), rate).step()
    if gram is None:
        k = weight_manifold.kernel(manifold, where[:, None], s[None])
    else:
        k = manifold.basis(where) @ torch.linalg.inv(gram) @ manifold.basis(s).T
    for i, point in enumerate(where):
        now = dict(weight_manifold.at(m, point).named_parameters())
        for key, old in before[i].named_parameters():
            gradients: list[Any] = [single.get_parameter(key).grad for single in singles]
            push = sum(k[i, b] * gradients[b] for b in range(len(x))) / len(x)
            torch.testing.assert_close(now[key] - old, -rate * push, rtol=1e-7, atol=1e-9)


def test_the_gradient_by_context_is_there():
    m, x = converted("perceptron")
    assert torch.autograd.gradcheck(lambda s: m(x, s), (contexts(Ellipse(), 5).requires_grad_(),))


@pytest.mark.parametrize("kind", KINDS)
def test_the_given_model_is_left_as_it_was(kind):
    model, layers, x = models()[kind]
    model.eval()
    before, outputs, state = copy.deepcopy(model.state_dict()), model(x), torch.random.get_rng_state()
    m = weight_manifold.convert(model, layers, "spline", spread=1.0, generator=seeded())
    m(x, contexts(Line(), 5)).sum().backward()
    points = copy.deepcopy(m.state_dict())
    plain = weight_manifold.at(m, 0.5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, points[key]) for key, value in m.state_dict().items())
    assert all(p.grad is None for p in (*model.parameters(), *plain.parameters()))
    assert torch.equal(model(x), outputs)
    assert not any(module.training for module in (*model.modules(), *m.modules()))
    assert all(p.is_leaf and type(p) is nn.Parameter for p in plain.parameters())
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    assert {key: p.shape for key, p in plain.named_parameters()} == {k: p.shape for k, p in model.named_parameters()}
    assert all(
        module.training for module in weight_manifold.convert(model.train(), layers, generator=seeded()).modules()
    )
    assert weight_manifold.is_manifold(m)
    assert not weight_manifold.is_manifold(plain)
    assert weight_manifold.manifold_of(m) == Spline()


@pytest.mark.parametrize("kind", ["linear", "conv2d", "batch norm", "particles"])
def test_copies_reloading_and_given_parameters_keep_the_function(kind):
    m, x = converted(kind)
    s = contexts(Ellipse(), 5)
    outputs = m(x, s)
    assert torch.equal(copy.deepcopy(m)(x, s), outputs)
    fresh, _ = converted(kind, seed=10)
    assert not torch.allclose(fresh(x, s), outputs)
    given = dict(m.named_parameters())
    torch.testing.assert_close(torch.func.functional_call(fresh, given, (x, s)), outputs)
    fresh.load_state_dict(m.state_dict())
    assert torch.equal(fresh(x, s), outputs)


def test_gradients_of_each_example_by_vmap():
    m, x = converted("perceptron")
    s, parameters = contexts(Ellipse(), 5), dict(m.named_parameters())

    def loss(own: Any, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(m, own, (x[None], s[None])).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, s)
    m(x, s).square().sum().backward()
    for key, p in m.named_parameters():
        torch.testing.assert_close(each[key].sum(0), p.grad)


class Calling(nn.Module):
    """Two layers, between them another model on a manifold is called, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()

    def forward(self, x, inner):
        return self.last(inner(self.first(x), 0.7))


def test_context_is_there_for_one_call_alone():
    inner = weight_manifold.convert(nn.Linear(6, 6).double(), "*", "line", spread=1.0, generator=seeded())
    m: Any = weight_manifold.convert(Calling(), ["first", "last"], "ellipse", spread=1.0, generator=seeded())
    x = normal(5, 6)
    first, last = (weight_manifold.at(m, 0.2).get_submodule(name) for name in ("first", "last"))
    torch.testing.assert_close(m(x, 0.2, inner), last(weight_manifold.at(inner, 0.7)(first(x))))
    with pytest.raises(ZeroDivisionError):
        m(x, 0.2, lambda x, context: 1 / 0)
    assert_refused(m.model, x, inner, message="Linear on a manifold was called without context")


def mean_square(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("kind", ["perceptron", "particles"])
def test_learning_coefficient_and_curvature_can_be_measured_at_a_point(kind):
    m, x = converted(kind, spread=0.1)
    model = weight_manifold.at(m.float(), 0.3)
    x = x.float()
    batches = [(x, model(x).detach() + 0.1)]
    settings = {"nbeta": 5.0, "step_size": 1e-5, "localization": 10.0, "n_chains": 2, "n_draws": 5, "n_burnin": 2}
    estimate = estimate_llc(model, batches, loss_fn=mean_square, generator=seeded(), **settings)
    assert torch.isfinite(torch.tensor(estimate.value))
    top = top_eigenvalues(model, batches, loss_fn=mean_square, k=1, generator=seeded())
    assert float(top.values[0]) > 0


def test_hooks_of_the_particle_transformer_fire():
    m, x = converted("particles")
    s, seen = contexts(Ellipse(), 5), {}
    names = ("blocks.1.attn.hook_q", "blocks.1.attn.hook_pattern", "blocks.0.mlp.hook_post")
    for name in names:
        m.model.add_hook(name, lambda value, hook: seen.__setitem__(hook.name, value))
    m(x, s)
    m.model.reset_hooks()
    models_at: list[Any] = [weight_manifold.at(m, point) for point in s]
    for b, model in enumerate(models_at):
        _, cache = model.run_with_cache(x[b : b + 1])
        for name in names:
            torch.testing.assert_close(seen[name][b : b + 1], cache[name])
    assert type(models_at[0].blocks[0].attn) is Attention
    assert type(models_at[0].blocks[0].mlp) is MLP


REFUSED_CONVERSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown layer": ({"layers": "linaer1"}, "'linaer1' matches no layer .* did you mean 'linear1'"),
    "no match": ({"layers": "head*"}, "there are linear0, linear1, linear2"),
    "none": ({"layers": []}, "layers is empty"),
    "not a name": ({"layers": [3]}, "layers must hold names or patterns, got int"),
    "unknown manifold": ({"manifold": "elipse"}, "manifold must be one of line, .* did you mean 'ellipse'"),
    "class": ({"manifold": Ellipse}, r"settings such as Line\(\), got the class Ellipse"),
    "not a manifold": ({"manifold": 3}, "manifold must be a name or settings such as .*, got int"),
    "spread": ({"spread": -1.0}, "spread must be zero or positive and finite, got -1.0"),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", REFUSED_CONVERSIONS)
def test_what_cannot_be_converted_is_refused(case):
    options, message = REFUSED_CONVERSIONS[case]
    model = models()["perceptron"][0]
    options = {"layers": "linear*", "generator": seeded()} | options
    assert_refused(weight_manifold.convert, model, **options, message=message)


@pytest.mark.usefixtures("as_users_run")
def test_models_that_cannot_be_converted_are_refused():
    model: Any = models()["perceptron"][0]
    convert, generator = weight_manifold.convert, seeded()
    once = convert(model, "linear1", generator=generator)
    assert_refused(convert, once, "model.linear2", generator=generator, message="on a manifold already")
    shaped = structured.convert(model, "linear1", generator=generator)
    assert_refused(convert, shaped, "linear1", generator=generator, message="'linear1' matches no layer")
    model.linear1.weight.data[0, 0] = torch.nan
    assert_refused(
        convert, model, "linear1", generator=generator, message="'linear1' holds weights that are not finite"
    )
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert_refused(convert, tied, "1", generator=generator, message="0.weight and 1.weight; untie")
    plain = nn.Sequential(nn.ReLU(), nn.LayerNorm(3, elementwise_affine=False))
    assert_refused(convert, plain, "*", generator=generator, message="the model has none")
    assert_refused(convert, "model", "*", generator=generator, message="must be a torch.nn.Module")
    assert_refused(weight_manifold.at, model, 0.5, message="m must be a model from convert, got Perceptron")
    assert_refused(weight_manifold.manifold_of, model, message="m must be a model from convert")


NAN = float("nan")
REFUSED_CONTEXTS: dict[str, tuple[Any, Any, str]] = {
    "missing": ("line", None, r"context is missing; call the model as m\(x, context\)"),
    "outside": ("line", torch.tensor([0.0, 0.5, 1.5, 0, 0]), r"on Line must lie in \[0, 1\], got 1.5"),
    "below": ("spline", -0.1, r"on Spline must lie in \[0, 1\], got -0.1"),
    "nan on a line": ("line", torch.full((5,), NAN), "got nan"),
    "nan on a circle": ("ellipse", NAN, "context must be finite, got nan"),
    "batch": ("line", torch.zeros(4), r"context has 4 points, the input has shape \(5, 6\)"),
    "shape": ("line", torch.zeros(5, 2), r"must have shape \(batch,\), .* got \(5, 2\)"),
    "one number on a torus": ("torus", 0.5, r"must have shape \(batch, 2\) .* 2 number\(s\), got \(\)"),
    "three on a torus": ("torus", torch.zeros(5, 3), r"got \(5, 3\)"),
    "whole numbers": ("line", torch.zeros(5).long(), "floating point, got torch.int64"),
    "text": ("line", "far", "context must be a tensor or numbers, got str"),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", REFUSED_CONTEXTS)
def test_contexts_off_the_manifold_are_refused(case):
    manifold, context, message = REFUSED_CONTEXTS[case]
    m, x = converted("perceptron", manifold)
    assert_refused(m, x, context, message=message)


@pytest.mark.usefixtures("as_users_run")
def test_other_misuse_is_refused():
    m, x = converted("perceptron", "line")
    assert_refused(m, x, message="context is missing")
    assert_refused(weight_manifold.at, m, torch.zeros(5), message="context must be one point, got 5")
    folded = weight_manifold.convert(nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 3)), "1", generator=seeded())
    assert_refused(folded, torch.zeros(5, 2, 3), torch.zeros(5), message=r"shape \(10, 3\); its first axis must be the")
    alone = weight_manifold.convert(nn.Conv1d(4, 3, 3), "*", generator=seeded())
    assert_refused(
        alone, torch.zeros(4, 9), torch.zeros(4), message="context has 4 points, but a Conv1d .* without batch"
    )
    precondition = weight_manifold.precondition
    assert_refused(precondition, m, message="no point has a gradient; call precondition after backward")
    assert_refused(precondition, models()["perceptron"][0], message="Perceptron has nothing on a manifold")
    m(x, 0.5).sum().backward()
    assert_refused(precondition, m, torch.eye(3), message=r"gram on Line must have shape \(2, 2\), got \(3, 3\)")
    assert_refused(precondition, m, torch.zeros(2, 2), message="gram must be positive definite")
    assert_refused(precondition, m, torch.tensor([[1.0, 0.5], [0, 1]]), message="gram must be symmetric and finite")
    assert_refused(precondition, m, 3.0, message="gram must be a tensor, got float")
    measured = weight_manifold.measured_gram
    assert_refused(measured, "line", torch.full((9,), 0.5), message="contexts at 2 or more different places")
    assert_refused(measured, "line", torch.tensor(0.5), message="contexts must be a batch")
    assert_refused(Line, "middle", message="form of a line must be one of end_points, slope, centred, got 'middle'")
    assert_refused(Spline, 3, message="n_points of a spline of degree 3 must be at least 4, got 3")
    assert_refused(Spline, 3, 0, message="degree of a spline must be at least 1, got 0")


def test_the_example_of_the_docstring_runs(generator):
    _, example = (weight_manifold.__doc__ or "").split("::\n\n", 1)
    code = [line[4:] for line in example.split("\n\n")[0].split("\n")]
    assert len(code) <= 10
    model = models()["perceptron"][0].float()
    loader = [
        (normal(5, 6, seed=i).float(), torch.rand(5, generator=generator), normal(5, 4).float()) for i in range(3)
    ]
    names: dict[str, Any] = {
        "weight_manifold": weight_manifold, "torch": torch, "generator": generator, "loader": loader,
        "model": model, "loss_fn": nn.functional.mse_loss,
    }  # fmt: skip
    exec("\n".join(code), names)
    x = loader[0][0]
    torch.testing.assert_close(names["plain"](x), names["m"](x, 0.25))
    assert not torch.allclose(names["plain"](x), model(x))

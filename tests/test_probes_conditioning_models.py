"""Conditioning of any torch model: each kind is measured and left as it was; what makes no sense is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import left_as_found, seeded
from refusals import assert_refused
from torch import Tensor, nn

from probes import (
    branch_ratio,
    conditioning_bound,
    gradient_conditioning,
    jacobian_spectrum,
    layer_robustness,
    perturbation_sensitivity,
    sensitivity_bound,
)


def mean_square(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).sin().square().mean()


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    body = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8, 2))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "perceptron": (perceptron, (5, 6), ["0", "3"]),
    "convolutional": (convolutional, (5, 2, 4, 4), ["0", "3", "5"]),
    "transformer": (transformer, (5, 3, 6), ["layers.*.linear?"]),
}


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Tensor], list[str]]:
    """A model in training mode, with one gradient set, its weights from a state of their own."""
    make, shape, layers = MODELS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(seeded(0).get_state())
        model = make()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    return model, [torch.randn(shape, generator=seeded(i)) for i in range(3)], layers


def test_every_probe_leaves_every_model_as_found(case, rng, generator):
    model, batches, layers = case
    x = batches[0]
    with left_as_found(model):
        gradients = gradient_conditioning(model, batches, loss_fn=mean_square, layers=layers, rng=rng)
        noise = layer_robustness(
            model, batches, loss_fn=mean_square, layers=layers, scales=[0.1], n_draws=2, generator=generator
        )
        whole, parts = jacobian_spectrum(model, x), jacobian_spectrum(model, x, layers=layers)
        moved = perturbation_sensitivity(model, x, scales=[0.01], n_draws=2, generator=generator)
        first, last = gradients.layers[0], gradients.layers[-1]
        ratio = branch_ratio(model, batches, branches={"ends": (first, last)})
    assert gradients.layers == noise.layers == parts.layers
    assert np.isfinite(gradients.norms).all()
    assert 1 <= gradients.ratio_interval[0] <= gradients.ratio_interval[1]
    assert moved.value[0] <= 1.01 * whole.singular_values["model"].max()  # a nudge moves it by the norm at most
    assert ratio.value[0] > 0
    assert np.isfinite(noise.rise).all()


def test_jacobians_are_those_of_torch(case):
    """The route of torch.autograd, one example at a time, and the order of the examples."""
    model, (x, *_), _ = case
    got = jacobian_spectrum(model, x)
    model.eval()
    for i, example in enumerate(x):
        dense = torch.autograd.functional.jacobian(lambda e: model(e[None])[0].reshape(-1), example)
        assert isinstance(dense, Tensor)
        expected = torch.linalg.svdvals(dense.reshape(len(dense), -1).double())
        np.testing.assert_allclose(got.singular_values["model"][i], expected, atol=1e-5 * float(expected[0]))
    backwards = jacobian_spectrum(model, x.flip(0))
    np.testing.assert_allclose(backwards.singular_values["model"][::-1], got.singular_values["model"], atol=1e-5)


def test_layers_stand_in_the_order_of_the_forward_pass(rng, generator):
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    model, x = Crossed(), torch.ones(2, 4)
    options: dict[str, Any] = {"loss_fn": mean_square, "layers": ["*"]}
    noise = layer_robustness(model, [x], scales=[1.0], n_draws=1, generator=generator, **options)
    assert noise.layers == gradient_conditioning(model, [x], rng=rng, **options).layers == ("first", "last")
    assert jacobian_spectrum(model, x, layers=["last", "first"]).layers == ("first", "last")


def test_tokens_may_enter_a_model_whose_layers_are_asked_for():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4))
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6]])
    got = jacobian_spectrum(model, tokens, layers=["1"])
    expected = torch.linalg.svdvals(next(model[1].parameters()).detach()).repeat_interleave(2)
    np.testing.assert_allclose(got.singular_values["1"], expected[None].expand(3, -1), rtol=1e-5, atol=1e-6)


def test_a_model_at_fault_is_left_as_found(case):
    model, (x, *_), layers = case
    with left_as_found(model), pytest.raises(ValueError, match="bytes, over the memory_budget of 10;"):
        jacobian_spectrum(model, x, layers=layers, memory_budget=10)


# refusals

X = torch.ones(4, 6)
NET = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def gradients(batches: Any = (X,), **options: Any) -> Any:
    rng = np.random.default_rng(0)
    return gradient_conditioning(
        options.pop("model", NET), batches, **{"loss_fn": mean_square, "layers": ["0", "2"], "rng": rng, **options}
    )


def jacobians(inputs: Any = X, **options: Any) -> Any:
    return jacobian_spectrum(options.pop("model", NET), inputs, **options)


def sensitivity(inputs: Any = X, **options: Any) -> Any:
    defaults = {"scales": [0.1], "n_draws": 1, "generator": seeded()}
    return perturbation_sensitivity(options.pop("model", NET), inputs, **{**defaults, **options})


def robustness(**options: Any) -> Any:
    defaults = {"loss_fn": mean_square, "layers": ["0"], "scales": [0.1], "n_draws": 1, "generator": seeded()}
    return layer_robustness(NET, [X], **{**defaults, **options})


def ratios(branches: Any, batches: Any = (X,)) -> Any:
    return branch_ratio(NET, batches, branches=branches)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.cell(x))


class Pairing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(6, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, x)


NAN = torch.tensor([[1.0, float("nan")]])
REFUSALS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "string": (gradients, {"layers": "0"}, "layers must be a sequence of names or patterns, got the string '0'"),
    "empty": (gradients, {"layers": []}, "layers is empty"),
    "alone": (gradients, {"layers": ["0"]}, "layers must name at least 2 layers to compare, got only 0"),
    "unknown": (gradients, {"layers": ["0", "22"]}, "no submodule '22'; alike: 2"),
    "pattern": (gradients, {"layers": ["blocks.*"]}, r"no submodule 'blocks\.\*'"),
    "twice": (gradients, {"model": Twice(), "layers": ["cell"]}, "'cell' is called 2 times in one evaluation"),
    "resamples": (gradients, {"n_resamples": 10}, "n_resamples must be at least 100, got 10"),
    "one batch": (gradients, {"batches": X}, "batches must be a collection of batches, got one Tensor"),
    "vector loss": (gradients, {"loss_fn": lambda model, x: model(x)}, "must return a real scalar tensor"),
    "infinite loss": (gradients, {"batches": [X * torch.inf]}, "the loss is nan"),
    "detached": (
        gradients,
        {"loss_fn": lambda model, x: model(x).detach().mean() + model[2].bias.sum() * 0},
        "the loss does not depend on layer '0'",
    ),
    "constant": (gradients, {"loss_fn": lambda model, x: model(x).detach().mean()}, "does not depend on layer '0'"),
    "no tensor": (jacobians, {"inputs": [1.0]}, "inputs must be a tensor with examples on the first axis, got list"),
    "tokens": (
        jacobians,
        {"inputs": torch.ones(2, 6, dtype=torch.int64)},
        "real floating-point numbers, got torch.int",
    ),
    "nan": (jacobians, {"inputs": NAN}, r"inputs must be finite, got nan at \(0, 1\)"),
    "none": (jacobians, {"inputs": X[:0]}, r"not be empty, got \(0, 6\)"),
    "mixing": (jacobians, {"model": Mixing()}, "examples of a batch must not affect each other, they do in 'model'"),
    "budget": (
        jacobians,
        {"memory_budget": 100},
        "'model' at one input is 3 x 6, 144 bytes, over the memory_budget of 100",
    ),
    "pair": (jacobians, {"model": Pairing(), "layers": ["both"]}, "layer 'both' must take one tensor"),
    "tuple": (jacobians, {"model": nn.LSTM(6, 2)}, "the output of 'model' must be a tensor, got tuple"),
    "pooled": (jacobians, {"model": nn.Flatten(0)}, r"must have the 4 examples on the first axis, got \(24,\)"),
    "overflow": (sensitivity, {"model": nn.Threshold(9.0, torch.inf)}, "the model's output must be finite, got inf"),
    "zeros": (sensitivity, {"inputs": 0 * X}, "inputs are all zero"),
    "no scale": (sensitivity, {"scales": []}, "scales must be a sequence of at least one number"),
    "negative": (sensitivity, {"scales": [0.1, -1.0]}, r"scales must be positive and finite, got \[0.1, -1.0\]"),
    "no draw": (sensitivity, {"n_draws": 0}, "n_draws must be at least 1, got 0"),
    "vanishing": (sensitivity, {"scales": [1e-12]}, "1e-12 of the inputs vanishes in torch.float32"),
    "zero scale": (robustness, {"scales": [0.0]}, "scales must be positive and finite"),
    "blown up": (robustness, {"layers": ["2"], "scales": [1e39]}, r"not finite with noise of 1e\+39 at layer '2'"),
    "no pairs": (ratios, {"branches": {"a": "01"}}, r"branches\['a'\] must be two names of submodules"),
    "a list": (ratios, {"branches": [("0", "1")]}, "branches must map a layer to"),
    "no layers": (ratios, {"branches": {}}, "branches is empty"),
    "other": (ratios, {"branches": {"a": ("0", "9")}}, "no submodule '9'"),
    "no power": (
        ratios,
        {"branches": {"a": ("0", "1")}, "batches": [X * torch.nan]},
        "'0' puts out values that are not",
    ),
    "epsilon": (conditioning_bound, {"epsilon": [0.5, 1.0], "depth": 3}, r"epsilon must lie in \[0, 1\), got 1.0"),
    "depth": (
        sensitivity_bound,
        {"epsilon": 0.1, "depth": [2, 0]},
        "depth must be a whole number of layers, at least 1",
    ),
    "half": (sensitivity_bound, {"epsilon": 0.1, "depth": 2.5}, "got 2.5"),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", REFUSALS)
def test_refused_in_one_line(name):
    call, options, message = REFUSALS[name]
    with left_as_found(options.get("model", NET)):
        assert_refused(call, message=message, **options)


def test_a_trunk_of_zeros_is_refused():
    model = nn.Sequential(nn.Linear(6, 6), nn.Threshold(1e9, 0.0))
    assert_refused(branch_ratio, model, [X], branches={"a": ("0", "1")}, message="the trunk '1' of layer 'a' puts out")


def test_gradients_flow_though_the_caller_switched_them_off():
    with torch.no_grad():
        off = gradients()
        spectrum = jacobians()
    np.testing.assert_array_equal(off.norms, gradients().norms)
    np.testing.assert_array_equal(spectrum.condition, jacobians().condition)

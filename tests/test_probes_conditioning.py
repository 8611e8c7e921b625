"""Conditioning against networks whose singular values, gradients and losses are known, and its intervals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import seeded, squared_error
from scipy.special import ellipe
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
from probes.conditioning.gradients import ratio_interval


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = weight.double().clone()
    return layer


def stack(depth: int, scale: float = 1.0, width: int = 6) -> nn.Sequential:
    """Orthogonal maps times a number."""
    return nn.Sequential(*(linear(scale * torch.linalg.qr(normal(width, width, seed=i))[0]) for i in range(depth)))


def regression(n: int = 6, width: int = 6, d_out: int = 6, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    return [(normal(size, width, seed=10 + i), normal(size, d_out, seed=50 + i)) for i in range(n)]


def tanh_net(seed: int = 3) -> nn.Sequential:
    maps = [linear(normal(5, 5, seed=seed + i) * 0.6) for i in range(3)]
    return nn.Sequential(maps[0], nn.Tanh(), maps[1], nn.Tanh(), maps[2])


def coverage(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


# gradients


def test_an_orthogonal_stack_is_perfectly_conditioned(rng):
    got = gradient_conditioning(stack(5), regression(), loss_fn=squared_error, layers=["*"], rng=rng)
    assert got.layers == ("0", "1", "2", "3", "4")
    assert got.ratio == pytest.approx(1.0, rel=1e-12)
    assert got.ratio_interval == pytest.approx((1.0, 1.0), rel=1e-12)
    assert got.slope == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.7])
def test_scaled_layers_shrink_gradients_by_their_scale(rng, scale):
    """The norm at layer l of L is c^(L - l) that of the last, which is |2 (f - y) / size|."""
    model, batches = stack(5, scale), regression()
    got = gradient_conditioning(model, batches, loss_fn=squared_error, layers=["*"], rng=rng)
    with torch.no_grad():
        last = [2 * (model(x) - y).norm().item() / y.numel() for x, y in batches]
    np.testing.assert_allclose(got.norms, np.outer(last, scale ** np.arange(4.0, -1, -1)), rtol=1e-12)
    np.testing.assert_allclose(got.mean, got.norms.mean(axis=0))
    np.testing.assert_allclose(got.standard_error, got.norms.std(axis=0, ddof=1) / np.sqrt(6))
    assert got.ratio == pytest.approx(max(scale, 1 / scale) ** 4)
    assert got.slope == pytest.approx(-np.log(scale))
    assert got.slope_interval == pytest.approx((got.slope, got.slope))


def test_resamples_are_drawn_by_the_generator_passed_in():
    def interval(seed: int) -> tuple[float, float]:
        drawn = np.random.default_rng(seed)
        options = {"loss_fn": squared_error, "layers": ["0", "1", "2"]}
        return gradient_conditioning(tanh_net(), regression(8, 5, 5), rng=drawn, **options).ratio_interval

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


def test_gradients_are_those_of_finite_differences(rng):
    """Move one entry of a layer's output at a time, without any gradient."""
    model, (batch,) = tanh_net(), regression(1, 5, 5, size=3)
    got = gradient_conditioning(model, [batch], loss_fn=squared_error, layers=["0", "1", "2"], rng=rng)
    x, y = batch
    with torch.no_grad():
        for i in range(3):
            inner = model[: i + 1](x)
            slopes = []
            for entry in range(inner.numel()):
                step = torch.zeros_like(inner).reshape(-1)
                step[entry] = 1e-5
                up, down = (
                    nn.functional.mse_loss(model[i + 1 :](inner + sign * step.reshape(inner.shape)), y)
                    for sign in (1, -1)
                )
                slopes.append((up - down).item() / 2e-5)
            assert got.norms[0, i] == pytest.approx(np.linalg.norm(slopes), rel=1e-7)
    assert np.isnan([*got.ratio_interval, *got.slope_interval, got.standard_error[0]]).all()  # of a single batch


class Skipping(nn.Module):
    """A hook that hands on its input, which a skip connection reads as well; then a layer that writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = linear(torch.eye(4))  # what the hook hands on has a graph already
        self.hook, self.inner, self.relu = nn.Identity(), linear(2 * torch.eye(4)), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return 10 * x + self.relu(self.inner(self.hook(x)))


def test_only_what_is_read_from_a_layer_counts(rng):
    """The skip of 10 is no part of the gradient at the hook; the gradient at inner is that before the ReLU."""
    x = torch.tensor([[1.0, -1.0, 2.0, 3.0]], dtype=torch.float64)
    got = gradient_conditioning(
        Skipping(), [x], loss_fn=lambda model, x: model(x).sum(), layers=["hook", "inner", "relu"], rng=rng
    )
    np.testing.assert_allclose(got.norms[0], [2 * np.sqrt(3), np.sqrt(3), 2.0])


def test_frozen_weights_have_gradients_at_their_outputs_too(rng):
    model, options = tanh_net(), {"loss_fn": squared_error, "layers": ["0", "2"]}
    free = gradient_conditioning(model, regression(2, 5, 5), rng=rng, **options)
    frozen = gradient_conditioning(model.requires_grad_(False), regression(2, 5, 5), rng=rng, **options)
    np.testing.assert_array_equal(free.norms, frozen.norms)


def test_a_dead_layer_is_infinitely_ill_conditioned(rng):
    dead = nn.Sequential(stack(1), linear(-torch.eye(6, dtype=torch.float64)), nn.ReLU(), stack(1))
    batches = [(x.abs() @ next(dead[0].parameters()).detach(), y) for x, y in regression(3)]
    got = gradient_conditioning(dead, batches, loss_fn=squared_error, layers=["1", "2"], rng=rng)
    assert got.mean[0] == 0
    assert got.ratio == np.inf
    assert np.isnan([*got.ratio_interval, got.slope]).all()


def test_the_order_of_batches_the_scale_of_the_loss_and_the_seed():
    model, batches = tanh_net(), regression(5, 5, 5)
    options = {"layers": ["*"], "n_resamples": 4000}
    a = gradient_conditioning(model, batches, loss_fn=squared_error, rng=np.random.default_rng(0), **options)
    b = gradient_conditioning(
        model,
        batches[::-1],
        loss_fn=lambda model, batch: 7 * squared_error(model, batch),
        rng=np.random.default_rng(1),
        **options,
    )
    np.testing.assert_allclose(7 * a.mean, b.mean)
    assert (b.ratio, b.slope) == pytest.approx((a.ratio, a.slope))
    assert b.ratio_interval == pytest.approx(a.ratio_interval, rel=0.05)
    assert a.slope_interval == pytest.approx(b.slope_interval)


@pytest.mark.parametrize(("means", "band"), [((1.0, 2.0, 3.0, 8.0), (0.92, 0.98)), ((1, 1, 3, 3), (0.9, 0.98))])
def test_the_interval_of_the_ratio_covers_it(rng, means, band):
    """400 worlds of 10 batches, norms log-normal (0.3) with half their variance common to the layers."""
    common, own = rng.normal(size=(400, 10, 1)), rng.normal(size=(400, 10, 4))
    worlds = np.asarray(means) * np.exp(0.3 * np.sqrt(0.5) * (common + own))
    share = coverage([ratio_interval(norms, 300, rng) for norms in worlds], max(means) / min(means))
    assert band[0] <= share <= band[1]


# Jacobians


def test_singular_values_of_a_linear_net_are_those_of_the_product():
    model = nn.Sequential(*(linear(normal(a, b, seed=a)) for b, a in pairwise((7, 6, 5, 4))))
    product = torch.linalg.multi_dot([next(layer.parameters()).detach() for layer in reversed(list(model))])
    got = jacobian_spectrum(model, normal(3, 7))
    expected = torch.linalg.svdvals(product).numpy()
    np.testing.assert_allclose(got.singular_values["model"], np.tile(expected, (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(got.condition, expected[0] / expected[-1])
    np.testing.assert_allclose(got.geometric_mean_interval, expected[0] / expected[-1])
    assert got.shapes == ((4, 7),)
    assert (got.rank == 4).all()
    layers = jacobian_spectrum(model, normal(3, 7), layers=["*"])
    assert layers.shapes == ((6, 7), (5, 6), (4, 5))
    for name, layer in model.named_children():
        np.testing.assert_allclose(
            layers.singular_values[name][1], torch.linalg.svdvals(next(layer.parameters()).detach())
        )


def test_an_orthogonal_stack_is_an_isometry():
    got = jacobian_spectrum(stack(8), normal(4, 6))
    np.testing.assert_allclose(got.singular_values["model"], 1.0, rtol=1e-12)
    np.testing.assert_allclose(got.quantiles, 1.0)


def test_jacobians_are_those_of_finite_differences():
    model, x = tanh_net(), normal(2, 5)
    got = jacobian_spectrum(model, x, layers=["1", "4"])
    whole = jacobian_spectrum(model, x)
    for i in range(2):
        columns = [(model(x[i] + step) - model(x[i] - step)).detach() / 2e-5 for step in 1e-5 * torch.eye(5)]
        np.testing.assert_allclose(
            whole.singular_values["model"][i], torch.linalg.svdvals(torch.stack(columns, dim=1)), rtol=1e-7
        )
    slopes = (1 - model[:2](x).detach() ** 2).numpy()
    np.testing.assert_allclose(got.singular_values["1"], np.sort(slopes, axis=1)[:, ::-1])
    np.testing.assert_allclose(got.condition[0], slopes.max(axis=1) / slopes.min(axis=1))


def test_portions_make_no_difference():
    model, x = tanh_net(), normal(7, 5)
    whole, portions = jacobian_spectrum(model, x), jacobian_spectrum(model, x, memory_budget=2 * 8 * 25)
    np.testing.assert_allclose(whole.singular_values["model"], portions.singular_values["model"], rtol=1e-11)


def test_rank_deficiency_is_an_infinite_condition():
    flat = linear(torch.diag(torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64)))
    got = jacobian_spectrum(nn.Sequential(flat, stack(1, width=3)), normal(3, 3))
    assert (got.rank == 2).all()
    assert (got.condition == np.inf).all()
    assert (got.geometric_mean == np.inf).all()
    assert np.isnan(got.geometric_mean_interval).all()
    np.testing.assert_allclose(got.range_condition, 2.0)
    norm = jacobian_spectrum(nn.LayerNorm(8, eps=0.0).double(), normal(3, 8))
    assert (norm.rank == 6).all()  # mean and scale are lost
    np.testing.assert_allclose(norm.range_condition, 1.0)


def test_the_condition_of_random_inputs_covers_its_mean():
    """d out / d in = diag(exp(x1), 1): the log condition is |x1|, of mean sqrt(2 / pi). 200 worlds of 12 inputs."""

    class Stretch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0].exp(), x[:, 1]], dim=1)

    worlds = [jacobian_spectrum(Stretch(), normal(12, 2, seed=seed)) for seed in range(200)]
    truth = np.exp(np.sqrt(2 / np.pi))
    assert 0.91 <= coverage([tuple(w.geometric_mean_interval[0]) for w in worlds], truth) <= 0.98
    logs = np.array([np.log(w.geometric_mean[0]) for w in worlds])
    assert abs(logs.mean() - np.log(truth)) < 4 * logs.std() / np.sqrt(200)
    spectrum = worlds[0].mean_spectrum()
    np.testing.assert_allclose(spectrum.value, worlds[0].singular_values["model"].mean(axis=0))


# sensitivity


def test_a_scaled_isometry_moves_the_output_by_its_scale(generator):
    got = perturbation_sensitivity(
        stack(3, 1.5), normal(5, 6), scales=[1e-3, 0.1, 10.0], n_draws=3, generator=generator
    )
    np.testing.assert_allclose(got.per_input, 1.5**3, rtol=1e-9)
    np.testing.assert_allclose(got.value, 1.5**3, rtol=1e-9)


def test_sensitivity_of_a_linear_map_and_its_coverage(generator):
    """E |A d| / |d| over directions in the plane is 2 a E(1 - b² / a²) / pi. 200 worlds of 20 inputs, 3 draws."""
    model = linear(torch.diag(torch.tensor([3.0, 0.5], dtype=torch.float64)))
    truth = 2 * 3 / np.pi * ellipe(1 - (0.5 / 3) ** 2)
    worlds = [
        perturbation_sensitivity(model, normal(20, 2), scales=[0.1, 2.0], n_draws=3, generator=generator)
        for _ in range(200)
    ]
    values = np.array([w.value[0] for w in worlds])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(200) < 0.02 * truth
    assert 0.91 <= coverage([tuple(w.interval[0]) for w in worlds], truth) <= 0.98
    np.testing.assert_allclose(worlds[0].per_input[0], worlds[0].per_input[1])  # the same directions at every scale


def test_the_noise_has_the_stated_size(generator):
    """f(x) = |x + d|² - |x|² would need it; here a recorder takes what the model was given."""
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return x

    x = 5 * normal(400, 3, 4)
    got = perturbation_sensitivity(Recorder(), x, scales=[0.2], n_draws=4, generator=generator)
    assert got.input_rms == pytest.approx(x.square().mean().sqrt().item())
    power = torch.stack([(moved - x).square().sum(dim=(1, 2)) for moved in seen[1:]]).numpy()
    expected = 0.2**2 * x.square().sum(dim=(1, 2)).mean().item()
    assert power.mean() == pytest.approx(expected, rel=4 * np.sqrt(2 / 12 / 1600))


def test_draws_of_one_input_are_no_independent_units(generator):
    """The slope differs from input to input, so more draws do not shrink the error below that of 10 inputs."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**2

    x = normal(10, 1).abs() + 1
    few, many = (perturbation_sensitivity(Square(), x, scales=[1e-4], n_draws=n, generator=generator) for n in (2, 200))
    expected = (2 * x).std().item() / np.sqrt(10)
    assert few.standard_error[0] == pytest.approx(expected, rel=1e-3)
    assert many.standard_error[0] == pytest.approx(expected, rel=1e-3)


# noise at a layer


@pytest.mark.slow
def test_noise_in_a_linear_regression_and_its_coverage(generator):
    """Noise s r at x, r the root mean square, raises E (w x - y)² by s² r² |w|². 150 worlds of 6 batches of 16."""
    w = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    model, scale = nn.Sequential(nn.Identity(), linear(w)), 0.5
    truth = scale**2 * w.square().sum().item()  # r² is 1 in the mean
    worlds = []
    for seed in range(150):
        x = normal(6, 16, 3, seed=seed)
        batches = [(inputs, inputs @ w.T) for inputs in x]
        worlds.append(
            layer_robustness(
                model, batches, loss_fn=squared_error, layers=["0"], scales=[scale], n_draws=1, generator=generator
            )
        )
    rises = np.array([world.rise[0, 0] for world in worlds])
    assert abs(rises.mean() - truth) < 4 * rises.std() / np.sqrt(150)
    assert 0.91 <= coverage([tuple(world.interval[0, 0]) for world in worlds], truth) <= 0.98
    assert all(world.clean == 0 for world in worlds)


def test_noise_relative_to_each_layer_grows_as_its_square(generator):
    """In an isometric stack noise of one relative size costs the same at every layer, whatever the layer's scale."""
    model = nn.Sequential(stack(1, 3.0), stack(1, 0.2), stack(1, 5.0))
    batches = [(x, model(x).detach()) for x, _ in regression(10)]
    got = layer_robustness(
        model, batches, loss_fn=squared_error, layers=["?"], scales=[0.1, 0.3], n_draws=20, generator=generator
    )
    power = np.mean([model(x).square().mean().item() for x, _ in batches])
    assert got.rise.shape == got.standard_error.shape == (3, 2)
    np.testing.assert_array_less(abs(got.rise / (power * got.scales**2) - 1), 0.1)
    np.testing.assert_array_less(abs(got.rise - power * got.scales**2), 5 * got.standard_error)


def test_the_rise_is_paired_by_batch(generator):
    """Batches differ by 1000 in their loss, which is no part of the error of the rise."""
    model = nn.Sequential(nn.Identity(), linear(torch.ones(1, 4, dtype=torch.float64)))
    batches = [(normal(500, 4, seed=i), i) for i in range(4)]

    def loss_fn(model: nn.Module, batch: tuple[Tensor, int]) -> Tensor:
        return model(batch[0]).square().mean() + 1000 * batch[1]

    got = layer_robustness(model, batches, loss_fn=loss_fn, layers=["0"], scales=[0.1], n_draws=5, generator=generator)
    assert got.rise[0, 0] == pytest.approx(0.04, abs=4 * got.standard_error[0, 0])
    assert got.standard_error[0, 0] < 0.02
    np.testing.assert_allclose(got.per_batch.mean(axis=0), got.rise)


# branches


class Corrected(nn.Module):
    """x -> S x + phi(x), layer by layer, S orthogonal and |dphi / dx| <= epsilon."""

    def __init__(self, depth: int, epsilon: float, width: int = 6) -> None:
        super().__init__()
        self.trunk = stack(depth, width=width)
        contractions = []
        for i in range(depth):
            w = normal(width, width, seed=100 + i)
            contractions.append(nn.Sequential(linear(w / torch.linalg.matrix_norm(w, 2)), nn.Tanh()))
        self.branch, self.epsilon = nn.ModuleList(contractions), epsilon
        self.scaled = nn.ModuleList(nn.Identity() for _ in range(depth))
        self.out = nn.ModuleList(nn.Identity() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for s, phi, scaled, out in zip(self.trunk, self.branch, self.scaled, self.out, strict=True):
            x = out(s(x) + scaled(self.epsilon * phi(x)))
        return x


def test_the_ratio_by_hand():
    model = nn.Sequential(linear(3 * torch.eye(2, dtype=torch.float64)), linear(torch.diag(torch.tensor([2.0, 0.0]))))
    model = model.double()
    x = torch.tensor([[[1.0, 1.0], [1.0, 3.0]], [[2.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)
    got = branch_ratio(model, list(x), branches={"first": ("1", "0"), "second": ("0", "1")})
    # trunk: 9 |x|² = 18, 90 | 36, 36; branch: 36 x1² = 36, 36 | 144, 0
    np.testing.assert_allclose(got.trunk_power[:, 0], [54, 36])
    np.testing.assert_allclose(got.branch_power[:, 0], [36, 72])
    np.testing.assert_allclose(got.value, [108 / 90, 90 / 108])
    residual = np.array([36 - 1.2 * 54, 72 - 1.2 * 36]) / 90
    np.testing.assert_allclose(got.standard_error[0], np.sqrt((residual**2).sum() * 2))
    doubled = branch_ratio(model, [5 * x[1], 5 * x[0]], branches={"first": ("1", "0"), "second": ("0", "1")})
    np.testing.assert_allclose(doubled.interval, got.interval)
    pairs = [{"image": batch} for batch in x]
    named = branch_ratio(model, pairs, branches={"first": ("1", "0")}, inputs=lambda batch: batch["image"])
    np.testing.assert_array_equal(named.value, got.value[:1])


@pytest.mark.slow
def test_the_ratio_covers_its_truth():
    """E (2 x1)² / E |x|² = 4 / 3 for isotropic x in three dimensions. 300 worlds of 10 batches of 4."""
    model = nn.Sequential(linear(torch.eye(3, dtype=torch.float64)), linear(torch.diag(torch.tensor([2.0, 0, 0]))))
    model = model.double()
    worlds = [
        branch_ratio(model, list(normal(10, 4, 3, seed=seed)), branches={"only": ("1", "0")}) for seed in range(300)
    ]
    assert 0.91 <= coverage([tuple(world.interval[0]) for world in worlds], 4 / 3) <= 0.98


# bounds


def test_the_bounds_hold_over_depth(rng, generator):
    for epsilon in (0.2, 0.6):
        for depth in (1, 8):
            model = Corrected(depth, epsilon)
            x = normal(12, 6)
            slack = 1 + 1e-9
            condition = jacobian_spectrum(model, x).condition
            assert condition.max() <= conditioning_bound(epsilon, depth) * slack
            moved = perturbation_sensitivity(model, x, scales=[0.1, 1.0], n_draws=2, generator=generator)
            assert moved.per_input.max() <= sensitivity_bound(epsilon, depth) * slack
            if depth > 1:
                got = gradient_conditioning(
                    model, regression(3), loss_fn=squared_error, layers=["out.*"], rng=rng, n_resamples=100
                )
                assert got.ratio <= conditioning_bound(epsilon, depth - 1) * slack
            ratio = branch_ratio(model, [x], branches={"0": ("scaled.0", "trunk.0")})
            assert ratio.value[0] <= epsilon**2 * slack


def test_the_bounds_are_reached_and_broadcast():
    """(1 + e) and (1 - e) on the two axes, layer after layer."""
    model = nn.Sequential(*(linear(torch.diag(torch.tensor([1.2, 0.8], dtype=torch.float64))) for _ in range(7)))
    got = jacobian_spectrum(model, normal(1, 2))
    assert got.condition[0, 0] == pytest.approx(conditioning_bound(0.2, 7))
    assert got.singular_values["model"][0, 0] == pytest.approx(sensitivity_bound(0.2, 7))
    table = conditioning_bound(np.array([0.0, 0.1, 0.5])[:, None], np.arange(1, 5))
    np.testing.assert_allclose(table[2], 3.0 ** np.arange(1, 5))
    np.testing.assert_allclose(table[0], 1.0)
    np.testing.assert_allclose(sensitivity_bound(0.5, [1, 2]), [1.5, 2.25])
    assert conditioning_bound(0.9, 10_000) == np.inf

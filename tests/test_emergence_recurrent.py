"""The recurrent network: two paths that are one function, which is that of the textbook."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import seeded
from torch import Tensor
from torch.autograd.functional import hessian
from torch.func import functional_call

from emergence.recurrent import ContinuousTimeRNN
from probes import top_eigenvalues

LEAKS = [1.0, 0.5, 0.13]


def network(leak: float = 1.0, n_units: int = 7, seed: int = 0, **options: Any) -> ContinuousTimeRNN:
    """In double precision, with recurrent weights that are no longer half the identity."""
    model = ContinuousTimeRNN(3, n_units, 2, seeded(seed), leak=leak, **options).double()
    with torch.no_grad():
        model.cell.weight_hh.add_(0.3 * torch.randn(n_units, n_units, generator=seeded(seed + 1), dtype=torch.float64))
    return model


def inputs(n_sequences: int = 4, n_steps: int = 9, seed: int = 5) -> Tensor:
    return torch.randn(n_sequences, n_steps, 3, generator=seeded(seed), dtype=torch.float64)


def by_hand(model: ContinuousTimeRNN, x: Tensor) -> Tensor:
    """One unit, one time step, one sequence at a time."""
    p = {name: parameter.tolist() for name, parameter in model.named_parameters()}
    n_units = model.cell.hidden_size
    answers = torch.zeros(*x.shape[:2], 2, dtype=torch.float64)
    for s, sequence in enumerate(x.tolist()):
        h = [0.0] * n_units
        for t, u in enumerate(sequence):
            drive = [
                p["cell.bias_ih"][i]
                + p["cell.bias_hh"][i]
                + sum(p["cell.weight_ih"][i][j] * u[j] for j in range(3))
                + sum(p["cell.weight_hh"][i][j] * h[j] for j in range(n_units))
                for i in range(n_units)
            ]
            h = [(1 - model.leak) * h[i] + model.leak * max(0.0, drive[i]) for i in range(n_units)]
            for o in range(2):
                weights = p["readout.weight"][o]
                answers[s, t, o] = p["readout.bias"][o] + sum(w * rate for w, rate in zip(weights, h, strict=True))
    return answers


def gradients(model: ContinuousTimeRNN, x: Tensor, seed: int | None = None) -> list[Tensor]:
    generator = None if seed is None else seeded(seed)
    answers = model(x, generator)
    weights = torch.randn(answers.shape, generator=seeded(9), dtype=torch.float64).to(answers.dtype)
    return list(torch.autograd.grad((answers * weights).sum(), list(model.parameters())))


@pytest.mark.parametrize("explicit", [False, True], ids=["fast", "explicit"])
@pytest.mark.parametrize("leak", LEAKS)
def test_it_computes_what_the_formula_says(leak, explicit):
    model, x = network(leak), inputs()
    model.explicit = explicit
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("noise_seed", [None, 3])
@pytest.mark.parametrize("leak", LEAKS)
def test_both_paths_agree_in_values_and_gradients(leak, noise_seed):
    model, x = network(leak), inputs().requires_grad_()
    fast = gradients(model, x, noise_seed)
    values = model.rates(x, None if noise_seed is None else seeded(noise_seed))
    (to_inputs,) = torch.autograd.grad(values.square().sum(), x)
    model.explicit = True
    for a, b in zip(fast, gradients(model, x, noise_seed), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    again = model.rates(x, None if noise_seed is None else seeded(noise_seed))
    torch.testing.assert_close(values, again, rtol=0, atol=1e-13)
    torch.testing.assert_close(to_inputs, torch.autograd.grad(again.square().sum(), x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("leak", LEAKS)
def test_the_fast_gradient_is_that_of_finite_differences(leak):
    model = network(leak, n_units=4)
    names = [name for name, _ in model.named_parameters()]

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    arguments = (inputs(2, 5).requires_grad_(), *(p.detach().clone().requires_grad_() for p in model.parameters()))
    assert torch.autograd.gradcheck(call, arguments)


def test_second_derivatives_of_the_explicit_path_are_those_of_finite_differences():
    model, x = network(0.5, n_units=3), inputs(2, 4)
    model.explicit = True
    fixed = {name: p.detach() for name, p in model.named_parameters()}

    def loss(recurrent: Tensor) -> Tensor:
        return functional_call(model, fixed | {"cell.weight_hh": recurrent}, (x,)).square().mean()

    def slope(recurrent: Tensor) -> Tensor:
        w = recurrent.clone().requires_grad_()
        return torch.autograd.grad(loss(w), w)[0]

    w = fixed["cell.weight_hh"]
    exact: Any = hessian(loss, w)
    for i in range(3):
        for j in range(3):
            bump = torch.zeros_like(w)
            bump[i, j] = 1e-5
            measured = (slope(w + bump) - slope(w - bump)) / 2e-5
            torch.testing.assert_close(exact[i, j], measured, rtol=0, atol=1e-8)


def test_the_fast_path_refuses_second_derivatives():
    """torch's once_differentiable would let them pass, without the part of the recurrent weights."""
    model, x = network(), inputs()
    with pytest.raises(RuntimeError, match="no double backward; set model.explicit = True"):
        torch.autograd.grad(model(x).square().mean(), list(model.parameters()), create_graph=True)

    def loss_fn(model, batch):
        return model(batch).square().mean()

    arguments: Any = {"loss_fn": loss_fn, "k": 1}
    with pytest.raises(ValueError, match=r"cannot be differentiated twice.*set model.explicit = True"):
        top_eigenvalues(model, [x], **arguments, generator=seeded())
    model.explicit = True
    assert top_eigenvalues(model, [x], **arguments, generator=seeded()).converged.all()


def test_a_hook_sees_every_step_and_a_silenced_unit_stays_silent():
    model, x = network(0.5), inputs()
    rates = model.rates(x)
    assert (rates[..., 2] > 0).any()
    seen = []

    def silence(tensor, hook):
        seen.append(tensor.clone())
        tensor[:, 2] = 0
        return tensor

    model.hook_hidden.add_hook(silence)  # pyright: ignore[reportArgumentType]
    silenced = model.rates(x)
    assert len(seen) == 9
    torch.testing.assert_close(seen[0], rates[:, 0], rtol=0, atol=1e-13)  # nothing was silent before the first step
    assert not silenced[..., 2].any()
    without = network(0.5)
    with torch.no_grad():  # the same network with the unit cut off
        for p in (without.cell.weight_ih, without.cell.weight_hh, without.cell.bias_ih, without.cell.bias_hh):
            p[2] = 0
    torch.testing.assert_close(silenced, without.rates(x), rtol=0, atol=1e-13)
    model.hook_hidden.remove_hooks()
    assert torch.equal(model.rates(x), rates)


def test_permuting_the_units_permutes_their_rates():
    model, x = network(0.5), inputs()
    order = torch.randperm(7, generator=seeded(2))
    moved = network(0.5)
    with torch.no_grad():
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            getattr(moved.cell, name).copy_(getattr(model.cell, name)[order])
        moved.cell.weight_hh.copy_(model.cell.weight_hh[order][:, order])
        moved.readout.weight.copy_(model.readout.weight[:, order])
    torch.testing.assert_close(moved.rates(x), model.rates(x)[..., order], rtol=0, atol=1e-13)
    torch.testing.assert_close(moved(x), model(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("leak", [1.0, 0.25])
def test_the_noise_has_the_variance_it_should(leak):
    """Units driven far above zero and without recurrence are a leaky sum of their noise: variance 2 s^2 / (2 - a)."""
    model = ContinuousTimeRNN(3, 50, 2, seeded(), leak=leak, noise=0.05).double()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.cell.bias_ih.fill_(10.0)
        rates = model.rates(torch.zeros(100, 100, 3).double(), seeded(1))
    settled = rates[:, -1]  # 5000 independent values: a standard error of the variance of 2 %
    assert model.noise == pytest.approx(0.05 * math.sqrt(2 / leak))
    assert settled.var().item() == pytest.approx(2 * 0.05**2 / (2 - leak), rel=0.06)
    if leak == 1:  # successive steps share nothing
        a, b = rates[:, 10:-1].flatten() - 10, rates[:, 11:].flatten() - 10
        assert abs((a * b).mean() / (a.std() * b.std())).item() < 4 / math.sqrt(len(a))


def test_noise_is_drawn_by_the_generator_alone():
    model, x = network(), inputs()
    assert torch.equal(model(x, seeded(1)), model(x, seeded(1)))
    assert not torch.equal(model(x, seeded(1)), model(x, seeded(2)))
    assert torch.equal(model(x), model(x))


def test_weights_begin_as_the_recipe_has_them():
    model = ContinuousTimeRNN(50, 400, 17, seeded())
    assert torch.equal(model.cell.weight_hh, 0.5 * torch.eye(400))
    for name, p in model.named_parameters():
        if not name.endswith("weight_hh"):
            bound = 1 / math.sqrt(50 if "_ih" in name else 400)
            assert p.abs().max() <= bound
            assert p.var().item() == pytest.approx(bound**2 / 3, rel=4 * math.sqrt(0.8 / p.numel()))  # uniform
    assert torch.equal(ContinuousTimeRNN(50, 400, 17, seeded()).readout.weight, model.readout.weight)


def test_half_precision_runs_both_ways_and_is_near():
    model = ContinuousTimeRNN(3, 20, 2, seeded())
    x = inputs().float()
    exact, slopes = model(x), gradients(model, x)
    for explicit in (False, True):
        model.explicit = explicit
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
        assert rough.dtype == torch.bfloat16
        assert not torch.equal(rough.float(), exact)
        torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.02)
        with torch.autocast("cpu", torch.bfloat16):
            rough_slopes = gradients(model, x)
        for a, b in zip(rough_slopes, slopes, strict=True):
            assert a.dtype == torch.float32
            assert (a - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("leak", [0.0, -0.1, 1.1, float("nan")])
def test_a_leak_out_of_range_is_refused(leak):
    with pytest.raises(ValueError, match="leak must be above 0 and at most 1, got"):
        ContinuousTimeRNN(3, 4, 2, leak=leak)

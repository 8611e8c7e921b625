"""Hessian-vector products against a dense Hessian, their memory, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Case, attention, dense_hessian, in_float32, left_as_found, mlp, seeded, squared_error
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from probes.landscape import curvature_operator, hessian_trace, spectral_density, top_eigenvalues

PROBES = {
    "eigenvalues": lambda case, **k: top_eigenvalues(case.model, case.batches, loss_fn=case.loss_fn, k=3, **k),
    "trace": lambda case, **k: hessian_trace(case.model, case.batches, loss_fn=case.loss_fn, n_probes=3, **k),
    "density": lambda case, **k: spectral_density(
        case.model, case.batches, loss_fn=case.loss_fn, n_probes=2, n_steps=5, **k
    ),
}
every_probe = pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES.keys())


def product(case: Case, vector: torch.Tensor, **options: Any) -> np.ndarray:
    with curvature_operator(case.model, case.batches, loss_fn=case.loss_fn, **options) as hessian:
        return hessian(vector).numpy()


@pytest.mark.parametrize("memory_budget", [0, 2**30])
@pytest.mark.parametrize("case", [mlp(), attention(), attention(is_fused=True)], ids=["mlp", "attention", "fused"])
def test_product_equals_dense(case: Case, memory_budget: int) -> None:
    dense = dense_hessian(attention() if isinstance(case.model, type(attention().model)) else case)
    vector = torch.randn(len(dense), generator=seeded(), dtype=torch.float64)
    ours = product(case, vector, memory_budget=memory_budget)
    np.testing.assert_allclose(ours, dense @ vector.numpy(), rtol=0, atol=1e-12 * np.abs(ours).max())


def test_masked_product_is_the_sub_block() -> None:
    case = attention()
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in case.model.named_parameters()}
    masks["W_Q"][0] = masks["W_O"][0] = True
    chosen = torch.cat([mask.reshape(-1) for mask in masks.values()]).numpy()
    dense = dense_hessian(case)[np.ix_(chosen, chosen)]
    vector = torch.randn(len(dense), generator=seeded(), dtype=torch.float64)
    ours = product(case, vector, parameters=masks)
    np.testing.assert_allclose(ours, dense @ vector.numpy(), rtol=0, atol=1e-12 * np.abs(ours).max())


def test_graphs_beyond_the_budget_are_rebuilt_to_the_same_bits() -> None:
    case = mlp()
    kept, bits = [], []
    with curvature_operator(case.model, case.batches, loss_fn=case.loss_fn) as hessian:
        vector = hessian.random_normal(seeded())
    for budget in (0, 25_000, 2**30):
        with curvature_operator(case.model, case.batches, loss_fn=case.loss_fn, memory_budget=budget) as hessian:
            kept.append(hessian.n_retained)
            bits.append(hessian(vector))
            assert torch.equal(hessian(vector), bits[-1])
            assert hessian.n_matvecs == 2
    assert kept == [0, 1, 2]
    assert all(torch.equal(b, bits[0]) for b in bits)


def test_graph_memory_is_measured() -> None:
    """On 4000 samples at least inputs, activations and their gradients are saved: 4000 (6 + 2 24 + 3) floats."""
    case = mlp(n_samples=8000)
    low = 4000 * (6 + 2 * 24 + 3) * 8
    for budget, n_retained in ((low, 0), (8 * low, 2)):
        with curvature_operator(case.model, case.batches, loss_fn=case.loss_fn, memory_budget=budget) as hessian:
            assert hessian.n_retained == n_retained


def test_float32_product_is_exact_to_its_rounding() -> None:
    case = mlp()
    dense = dense_hessian(case)
    vector = torch.randn(len(dense), generator=seeded())
    ours = product(in_float32(case), vector)
    assert ours.dtype == np.float32
    truth = dense @ vector.double().numpy()
    assert np.linalg.norm(ours - truth) < 1e-6 * np.linalg.norm(truth)  # 8 float32 roundings


def test_mixed_precision_is_as_good_as_its_coarsest_tensor() -> None:
    case = in_float32(mlp())
    model = nn.Sequential(case.model, nn.Linear(3, 3).double())

    def loss_fn(m: nn.Module, batch: Any) -> torch.Tensor:
        return (model[1](case.model(batch[0]).double()) - batch[1]).square().mean()

    with curvature_operator(model, case.batches, loss_fn=loss_fn) as hessian:
        assert hessian.dtype == torch.float32
        assert hessian.eps == torch.finfo(torch.float32).eps
        assert hessian(hessian.random_signs(seeded())).isfinite().all()


def test_a_linear_loss_has_zero_curvature() -> None:
    case = mlp()
    linear = Case(nn.Linear(6, 3).double(), case.batches, lambda model, batch: model(batch[0]).mean())
    assert product(linear, torch.ones(21, dtype=torch.float64)).tolist() == [0.0] * 21


@every_probe
def test_model_is_left_as_found(probe) -> None:
    case = mlp()
    case.model.train()
    next(case.model.parameters()).grad = torch.ones_like(next(case.model.parameters()))
    with left_as_found(case.model):
        probe(case, generator=seeded())
    with left_as_found(case.model), torch.no_grad():  # a caller's no_grad does not matter
        probe(case, generator=seeded())


@every_probe
def test_same_generator_same_bits(probe) -> None:
    case = mlp()
    first, again, other = (probe(case, generator=seeded(s)) for s in (1, 1, 2))
    arrays = [k for k, v in vars(first).items() if isinstance(v, np.ndarray) and v.dtype == float]
    assert arrays
    assert all(np.array_equal(getattr(first, k), getattr(again, k), equal_nan=True) for k in arrays)
    assert any(not np.array_equal(getattr(first, k), getattr(other, k)) for k in arrays)


def _dropout(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.dropout(model(batch[0]), training=True).square().mean()


def _fused(model: nn.Module, batch: Any) -> torch.Tensor:
    x = model(batch[0])[None, None]
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return nn.functional.scaled_dot_product_attention(x, x, x).square().mean()


def _kinked(model: nn.Module, batch: Any) -> torch.Tensor:
    return (0 * model(batch[0])).abs().sqrt().mean() + squared_error(model, batch)


@every_probe
@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (_dropout, "not deterministic"),
        (_fused, "cannot be differentiated twice, because of loss_fn itself .* explicit softmax"),
        (_kinked, "Hessian-vector product is not finite"),
        (lambda model, batch: squared_error(model, batch).detach(), "depends on no parameter"),
        (lambda model, batch: (model(batch[0]) - batch[1]).square(), "must return a real scalar tensor"),
    ],
    ids=["dropout", "fused", "kinked", "detached", "not scalar"],
)
def test_a_loss_without_a_hessian_is_refused(probe, loss_fn, message: str) -> None:
    case = mlp()
    with left_as_found(case.model), pytest.raises(ValueError, match=message):
        probe(Case(case.model, case.batches, loss_fn), generator=seeded())


def test_other_errors_of_the_loss_pass_unchanged() -> None:
    case = mlp()
    bad = Case(case.model, case.batches, lambda model, batch: model(batch[0].T).mean())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PROBES["trace"](bad, generator=seeded())


@every_probe
def test_bad_data_and_weights_are_refused(probe) -> None:
    case = mlp()
    with pytest.raises(ValueError, match="batches is empty"):
        probe(Case(case.model, [], case.loss_fn), generator=seeded())
    with pytest.raises(TypeError, match="one-shot"):
        probe(Case(case.model, iter(case.batches), case.loss_fn), generator=seeded())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="matches no trainable tensor"):
        probe(case, parameters="blocks.*", generator=seeded())
    with torch.no_grad():
        next(case.model.parameters())[0] = torch.nan
    with pytest.raises(ValueError, match="loss is nan"):
        probe(case, generator=seeded())

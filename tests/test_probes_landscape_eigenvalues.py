"""Extreme eigenpairs against dense Hessians and planted spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import (
    Case,
    attention,
    dense_hessian,
    in_float32,
    initialized,
    mlp,
    quadratic,
    seeded,
    squared_error,
    trained,
)
from torch import nn

from probes.landscape import Eigenvalues, top_eigenvalues
from probes.landscape.lanczos import Krylov


def top(case: Case, k: int, seed: int = 0, **options) -> Eigenvalues:
    return top_eigenvalues(case.model, case.batches, loss_fn=case.loss_fn, k=k, generator=seeded(seed), **options)


CASES = {
    "mlp": mlp,
    "trained mlp": lambda: trained(mlp()),
    "attention": attention,
    "trained attention": lambda: trained(attention()),
}
each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


@each_case
def test_top_20_match_the_dense_hessian(make) -> None:
    case = make()
    dense = dense_hessian(case)
    truth = np.linalg.eigvalsh(dense)[::-1][:20]
    result = top(case, 20)
    assert result.converged.all()
    assert result.is_multiplicity_checked
    assert result.n_entries == len(dense)
    assert result.n_matvecs < len(dense) / 2
    np.testing.assert_allclose(result.values, truth, rtol=1e-6)
    np.testing.assert_allclose(result.vectors @ result.vectors.T, np.eye(20), atol=1e-12)
    norms = np.linalg.norm(dense @ result.vectors.T - result.vectors.T * result.values, axis=0)
    np.testing.assert_allclose(result.residuals, norms / result.values, rtol=1e-3, atol=1e-10)


@each_case
def test_float32_is_exact_to_its_rounding(make) -> None:
    case = make()
    truth = np.linalg.eigvalsh(dense_hessian(case))[::-1][:20]
    result = top(in_float32(case), 20)
    assert result.converged.all()
    assert np.abs(result.values - truth).max() < 1e-6 * truth[0]  # 8 float32 roundings of the norm


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_the_end_of_the_spectrum_is_the_one_asked_for(which) -> None:
    spectrum = np.array([-9.0, -4.0, 0.0, 0.1, 1.0, 3.0, 7.0])
    expected = {"largest": [7.0, 3.0, 1.0], "smallest": [-9.0, -4.0, 0.0], "magnitude": [-9.0, 7.0, -4.0]}
    result = top(quadratic(spectrum), 3, which=which)
    np.testing.assert_allclose(result.values, expected[which], rtol=1e-10, atol=1e-12)
    assert result.converged.all()


@pytest.mark.parametrize("seed", range(5))
def test_multiple_eigenvalues_are_all_found(seed: int) -> None:
    spectrum = np.r_[[10.0] * 3, [5.0] * 4, 3.0, np.linspace(0, 1, 80), -1.0, -1.0]
    result = top(quadratic(spectrum, seed), 9, seed)
    np.testing.assert_allclose(result.values, [10] * 3 + [5] * 4 + [3, 1], rtol=1e-6)
    assert result.converged.all()
    assert result.is_multiplicity_checked


def test_values_beyond_the_rank_are_zero_to_rounding() -> None:
    result = top(quadratic(np.r_[2.0, 1.0, np.zeros(28)]), 5)
    np.testing.assert_allclose(result.values, [2, 1, 0, 0, 0], atol=1e-14)
    assert result.converged.all()


def test_the_whole_spectrum() -> None:
    spectrum = np.r_[np.linspace(-1, 3, 17), 3.0]
    result = top(quadratic(spectrum), 18)
    np.testing.assert_allclose(result.values, np.sort(spectrum)[::-1], atol=1e-12)
    assert result.n_matvecs == 18
    assert result.is_multiplicity_checked


def test_a_zero_hessian() -> None:
    result = top(quadratic(np.zeros(6)), 2)
    assert result.values.tolist() == [0.0, 0.0]
    assert result.converged.all()


def test_unconverged_pairs_are_flagged() -> None:
    """Evenly spaced eigenvalues are the slow case; residuals must still bound the errors."""
    spectrum = np.linspace(1, 2, 400)
    result = top(quadratic(spectrum), 10, max_matvecs=30)
    assert result.n_matvecs == result.max_matvecs == 30
    assert not result.converged.any()
    assert not result.is_multiplicity_checked
    distance = np.abs(result.values[:, None] - spectrum).min(axis=1)
    assert (distance <= result.residuals * result.values).all()
    assert (result.residuals > result.tolerance).all()


def test_scaling_the_loss_scales_the_values() -> None:
    case = mlp()
    scaled = Case(case.model, case.batches, lambda model, batch: 3.7 * squared_error(model, batch))
    np.testing.assert_allclose(top(scaled, 10).values, 3.7 * top(case, 10).values, rtol=1e-9)


def test_permuting_hidden_units_keeps_the_values() -> None:
    case, permuted = mlp(), mlp()
    order = torch.randperm(24, generator=seeded(3))
    first, last = permuted.model[0], permuted.model[2]  # type: ignore[index]
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        last.weight.copy_(last.weight[:, order])
    np.testing.assert_allclose(top(permuted, 10).values, top(case, 10).values, rtol=1e-6)


@pytest.mark.parametrize("head", [0, 1])
def test_block_of_one_head_is_the_dense_sub_block(head: int) -> None:
    case = attention()
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in case.model.named_parameters()}
    for mask in masks.values():
        mask[head] = True
    chosen = torch.cat([mask.reshape(-1) for mask in masks.values()]).numpy()
    block = dense_hessian(case)[np.ix_(chosen, chosen)]
    values, vectors = np.linalg.eigh(block)
    result = top(case, 10, parameters=masks)
    np.testing.assert_allclose(result.values, values[::-1][:10], rtol=1e-6)
    overlap = np.abs((result.vectors * vectors[:, ::-1].T[:10]).sum(axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-6)


def test_products_are_shared_by_batches_alike() -> None:
    """The mean over batches: one batch of all data gives the same Hessian as its equal parts."""
    case = mlp()
    whole = tuple(torch.cat(parts) for parts in zip(*case.batches, strict=True))
    np.testing.assert_allclose(top(Case(case.model, [whole], case.loss_fn), 5).values, top(case, 5).values, rtol=1e-7)


def test_basis_stays_orthonormal_without_ghosts() -> None:
    """Far outliers make plain Lanczos copy the top value after a few steps; here every value appears once."""
    n = 300
    values = torch.cat([torch.tensor([1e3, 3e2, 1e2]), torch.linspace(0, 1, n - 3)]).double()

    class Diagonal:
        n_entries, eps, device, dtype = n, 2.2e-16, torch.device("cpu"), torch.float64

        def __call__(self, vector: torch.Tensor) -> torch.Tensor:
            return values * vector

    krylov = Krylov(Diagonal())
    krylov.start(torch.randn(n, generator=seeded(), dtype=torch.float64))
    for _ in range(120):
        krylov.step()
    ritz, residuals, coefficients = krylov.ritz()
    vectors = krylov.vectors(coefficients)
    assert np.abs((vectors @ vectors.T).numpy() - np.eye(120)).max() < 1e-13
    assert (ritz > 50).sum() == 3
    assert np.diff(ritz).min() > 1e-6
    true = (vectors * values - torch.from_numpy(ritz)[:, None] * vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(residuals, true, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must lie between 1 and the 243 chosen entries, got 0"),
        ({"k": 244}, "k must lie between 1 and the 243 chosen entries, got 244"),
        ({"k": 4, "parameters": "2.bias"}, "between 1 and the 3 chosen entries, got 4"),
        ({"k": 5, "max_matvecs": 4}, "max_matvecs must be at least k = 5, got 4"),
        ({"k": 5, "tolerance": 0.0}, "tolerance must lie between 0 and 1, got 0.0"),
    ],
)
def test_bad_numbers_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top(mlp(), **options)


def test_defaults_alone_on_a_float32_model() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
    initialized(model, seeded())
    batch = (torch.randn(8, 2, generator=seeded()), torch.randn(8, 1, generator=seeded(1)))
    result = top_eigenvalues(model, [batch], loss_fn=squared_error, k=1, generator=seeded())
    assert result.converged.all()
    assert result.values[0] > 0
    assert result.which == "largest"

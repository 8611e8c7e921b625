"""Trace estimates: unbiased, with an honest standard error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Case, attention, dense_hessian, mlp, quadratic, seeded
from torch import nn

from probes.landscape import TraceEstimate, hessian_trace


def trace(case: Case, n_probes: int, seed: int = 0, **options) -> TraceEstimate:
    return hessian_trace(
        case.model, case.batches, loss_fn=case.loss_fn, n_probes=n_probes, generator=seeded(seed), **options
    )


def known_deviation(dense: np.ndarray) -> float:
    """A sample's variance is twice the sum of squared off-diagonal entries."""
    return float(np.sqrt(2 * ((dense**2).sum() - (np.diag(dense) ** 2).sum())))


def test_planted_trace_within_four_standard_errors() -> None:
    spectrum = np.linspace(0, 1, 400)
    result = trace(quadratic(spectrum), 64)
    assert result.standard_error < 0.007 * spectrum.sum()  # so that a bias of 5 % fails
    assert abs(result.value - spectrum.sum()) < 4 * result.standard_error
    assert result.n_matvecs == 64
    assert result.n_entries == 400


@pytest.mark.parametrize("make", [mlp, attention])
def test_network_trace_within_four_standard_errors(make) -> None:
    case = make()
    dense = dense_hessian(case)
    result = trace(case, 200)
    assert abs(result.value - dense.trace()) < 4 * result.standard_error
    assert result.standard_error == pytest.approx(known_deviation(dense) / np.sqrt(200), rel=0.2)


def test_standard_error_is_the_known_one() -> None:
    case = quadratic(np.r_[10.0, 5.0, np.linspace(0, 1, 58)])
    samples = trace(case, 2000).samples
    known = known_deviation(case.model.hessian.numpy())  # type: ignore[union-attr]
    assert samples.std(ddof=1) == pytest.approx(known, rel=0.08)  # 5 times its own error if samples were normal


def test_interval_covers_as_often_as_it_says() -> None:
    spectrum = np.r_[10.0, 5.0, np.linspace(0, 1, 38)]  # outliers skew the samples
    case = quadratic(spectrum)
    intervals = np.array([trace(case, 10, seed).interval(0.9) for seed in range(300)])
    covered = ((intervals[:, 0] < spectrum.sum()) & (spectrum.sum() < intervals[:, 1])).mean()
    assert covered == pytest.approx(0.9, abs=0.04)  # two standard errors of 300 repeats are 0.035


def test_a_diagonal_hessian_is_exact() -> None:
    class Separable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(5, dtype=torch.float64))

    case = Case(Separable(), [torch.arange(5.0).double()], lambda model, batch: (batch * model.w**2).sum() / 2)  # type: ignore[operator]
    result = trace(case, 2)
    assert result.value == pytest.approx(10.0, rel=1e-14)
    assert result.standard_error < 1e-13


def test_scaling_the_loss_scales_value_and_error() -> None:
    case = mlp()
    scaled = Case(case.model, case.batches, lambda model, batch: 3.7 * case.loss_fn(model, batch))
    one, other = trace(case, 20), trace(scaled, 20)
    assert other.value == pytest.approx(3.7 * one.value, rel=1e-12)
    assert other.standard_error == pytest.approx(3.7 * one.standard_error, rel=1e-12)


def test_too_few_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_probes must be at least 2 for a standard error, got 1"):
        trace(mlp(), 1)

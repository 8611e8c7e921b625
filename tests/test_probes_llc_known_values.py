"""Published learning coefficients, and how far from them one is at finite nbeta.

The localized posterior at nbeta has ``nbeta E[K] = λ - (m - 1)/ln(nbeta) + ...``, m the multiplicity, so an estimate
reads λ only as nbeta grows: quickly, like a power of nbeta, where m is 1, and very slowly where it is more. That bias
is the posterior's own; no sampler removes it. Localization acts through nbeta alone: for a loss of degree k both enter
as ``nbeta / γ^(k/2)``.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from learning_coefficients import (
    crossing,
    deep_linear_coefficient,
    exact_crossing,
    exact_reduced_rank,
    linear_network,
    reduced_rank_coefficient,
    regular,
)

from probes.llc import estimate_llc

FULL = [torch.zeros(1, dtype=torch.float64)]
NBETAS = np.logspace(2, 6, 5)


def test_the_two_published_formulas_agree_on_two_layers():
    for widths in product(range(1, 7), repeat=3):
        for rank in range(min(widths) + 1):
            assert deep_linear_coefficient(widths, rank) == pytest.approx(reduced_rank_coefficient(widths, rank))


@pytest.mark.parametrize(
    ("widths", "rank", "value"),
    [
        ((1, 1, 1, 1), 0, (1 / 2, 3)),  # xyz
        ((3, 1, 1, 3), 0, (1 / 2, 1)),  # |a| b |c|, a and c of three entries
        ((2, 4, 6, 2), 0, (2.0, 1)),  # wide inside: as good as the 4 entries of the product
        ((5, 5, 5), 5, (12.5, 1)),  # full rank: a chart of all 25 entries
    ],
)
def test_deep_linear_coefficients_known_without_the_formula(widths, rank, value):
    assert deep_linear_coefficient(widths, rank) == pytest.approx(value)


@pytest.mark.parametrize("widths", [(4, 1, 2), (6, 2, 2), (6, 2, 3), (2, 2, 2), (4, 2, 4), (5, 2, 5)])
def test_the_bias_of_a_simple_coefficient_falls_like_a_power(widths):
    coefficient, multiplicity = reduced_rank_coefficient(widths, 0)
    bias = exact_reduced_rank(widths, NBETAS) / coefficient - 1
    assert multiplicity == 1
    assert (np.abs(bias[1:]) < 0.5 * np.abs(bias[:-1]) + 1e-4).all()
    assert abs(bias[1]) < 0.04  # nbeta 1000
    assert abs(bias[-1]) < 0.003


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 2), (3, 1, 3)])
def test_the_bias_of_a_double_coefficient_falls_like_a_logarithm(widths):
    coefficient, multiplicity = reduced_rank_coefficient(widths, 0)
    missing = coefficient - exact_reduced_rank(widths, NBETAS[-1:])[0]
    assert multiplicity == 2
    assert missing * math.log(NBETAS[-1]) == pytest.approx(1.0, abs=0.12)


def test_crossings_converge_to_the_smaller_power():
    for a, b in ((2, 4), (4, 2), (2, 6)):
        bias = exact_crossing(a, b, NBETAS) / crossing(a, b).coefficient - 1
        assert (np.diff(bias) > 0).all()
        assert -0.02 < bias[-1] < 0
    missing = 0.5 - exact_crossing(2, 2, NBETAS[-1:])[0]
    assert missing * math.log(NBETAS[-1]) == pytest.approx(1.0, abs=0.15)


def test_quadrature_scales_with_localization_as_stated():
    np.testing.assert_allclose(exact_crossing(2, 2, np.array([400.0]), 2.0), exact_crossing(2, 2, np.array([100.0])))
    wide, narrow = (exact_reduced_rank((2, 2, 2), np.array([100.0 * g**2]), g)[0] for g in (1.0, 2.0))
    assert wide == pytest.approx(narrow, rel=1e-4)


NBETA = 1000.0
CASES = {
    known.name: (known, exact)
    for known, exact in (
        (regular(4), 2 * NBETA / (NBETA + 1)),
        (regular(20), 10 * NBETA / (NBETA + 1)),
        (crossing(2, 4), exact_crossing(2, 4, np.array([NBETA]))[0]),
        (crossing(2, 6), exact_crossing(2, 6, np.array([NBETA]))[0]),
        (linear_network(4, 1, 2, rank=0), exact_reduced_rank((4, 1, 2), np.array([NBETA]))[0]),
        (linear_network(6, 2, 3, rank=0), exact_reduced_rank((6, 2, 3), np.array([NBETA]))[0]),
        (linear_network(2, 2, 2, rank=0), exact_reduced_rank((2, 2, 2), np.array([NBETA]))[0]),
        (linear_network(4, 2, 3, rank=1), None),
        (linear_network(3, 2, 3, 2, rank=1), None),
    )
}


STEP_SIZES = {"linear 3-2-3-2 rank 1": 2e-5}  # three layers: a chain in 64 diverges at 4e-5


def estimated(name: str, n_steps: int, n_chains: int):
    known, _ = CASES[name]
    assert known.multiplicity == 1
    return estimate_llc(
        known.model, FULL, loss_fn=known.loss_fn, nbeta=NBETA, step_size=STEP_SIZES.get(name, 1e-4), localization=1.0,
        n_chains=n_chains, n_draws=n_steps, n_burnin=n_steps, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_estimates_read_the_published_coefficients():
    """At nbeta 1000 and localization 1 the mean absolute relative error is at most 5 %; the finite nbeta is part of it.

    The spread of flat directions relaxes in 10 000 steps here, hence the long chains.
    """
    errors = []
    for name, (known, exact) in CASES.items():
        got = estimated(name, 20_000, 64)
        errors.append(got.value_at_zero_step / known.coefficient - 1)
        print(
            f"{name}: published {known.coefficient:g}, estimate {got.value:.4f} ± {got.standard_error:.4f}, exact at "
            f"this nbeta {math.nan if exact is None else exact:.4f}, owed to the step {got.step_excess:.4f}"
        )
        assert got.n_diverged == 0
        if exact is not None:
            assert abs(got.value_at_zero_step - exact) < 4 * got.standard_error + 0.01 * exact
    print(f"mean absolute relative error {np.mean(np.abs(errors)):.4f}")
    assert np.mean(np.abs(errors)) <= 0.05

"""The sampler against exact expectations under the localized posterior: 95 % intervals cover what they say.

One run holds the chains of all replicates; every four of them are one estimate. Steps are short enough that the
bias of the discretised dynamics stays well below a replicate's error.
"""

from typing import Any

import numpy as np
import pytest
import torch
from learning_coefficients import Point, boltzmann, exact_crossing

from probes.llc import Rmsprop, estimate_llc
from probes.llc.diagnostics import mean_estimate

N_REPLICATES = 200
FULL = [torch.zeros(1, dtype=torch.float64)]
PRECONDITIONERS = {"sgld": None, "rmsprop": Rmsprop()}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadratic(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * model.w.square().sum()


def quartic(model: Any, batch: Any) -> torch.Tensor:
    return model.w.pow(4).sum()


def crossing(model: Any, batch: Any) -> torch.Tensor:
    return model.w.square().prod()


CASES = {
    "quadratic": (quadratic, 2, 100.0, 20.0, 5e-4, 1000, 2 * boltzmann(lambda w: w**2 / 2, 100.0, 20.0)),
    "quartic": (quartic, 2, 100.0, 2.0, 1e-3, 1000, 2 * boltzmann(lambda w: w**4, 100.0, 2.0)),
    "crossing": (crossing, 2, 100.0, 4.0, 1e-3, 2500, float(exact_crossing(2, 2, np.array([100.0]), 4.0)[0])),
}


def replicates(case: str, preconditioner: Rmsprop | None) -> list[Any]:
    loss_fn, n, nbeta, localization, step_size, n_draws, _ = CASES[case]
    got = estimate_llc(
        Point(n), FULL, loss_fn=loss_fn, nbeta=nbeta, localization=localization, n_chains=4 * N_REPLICATES,
        step_size=step_size if preconditioner is None else step_size * preconditioner.damping,
        n_draws=n_draws, n_burnin=n_draws // 2, preconditioner=preconditioner, generator=seeded(),
    )  # fmt: skip
    assert got.n_diverged == 0
    return [mean_estimate(d) for d in nbeta * (got.loss_trace - got.init_loss).reshape(N_REPLICATES, 4, n_draws)]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", PRECONDITIONERS)
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_exact_expectation(case, sampler):
    """Between 90 and 98 %; one binomial error is 1.5 %."""
    estimates = replicates(case, PRECONDITIONERS[sampler])
    exact = CASES[case][-1]
    covered = np.mean([lo <= exact <= hi for lo, hi in (e.interval() for e in estimates)])
    values = np.array([e.value for e in estimates])
    print(f"{case} {sampler}: covered {covered:.3f}, mean/exact {values.mean() / exact:.4f}")
    assert 0.90 <= covered <= 0.98


def run_quadratic(preconditioner: Rmsprop, step_size: float) -> Any:
    return estimate_llc(
        Point(20), FULL, loss_fn=quadratic, nbeta=100.0, localization=20.0, step_size=step_size, n_chains=200,
        n_draws=1000, n_burnin=500, preconditioner=preconditioner, generator=seeded(),
    )  # fmt: skip


def test_a_held_preconditioner_keeps_the_posterior():
    got = run_quadratic(Rmsprop(), 2e-4)
    exact = 20 * boltzmann(lambda w: w**2 / 2, 100.0, 20.0)
    assert got.standard_error < 0.005 * exact
    assert abs(got.value_at_zero_step - exact) < 4 * got.standard_error
    assert got.warnings == ()


def test_an_adapting_preconditioner_favours_steep_places_as_documented():
    """Without memory V is the squared gradient here and now, so the draws follow ``(damping + |w|) exp(-U)``."""
    got = run_quadratic(Rmsprop(decay=0.0, adapts_while_drawing=True), 2e-5)
    steep = 20 * boltzmann(lambda w: w**2 / 2, 100.0, 20.0, weight=lambda w: 0.1 + abs(w))
    exact = 20 * boltzmann(lambda w: w**2 / 2, 100.0, 20.0)
    print(f"adapting without memory: {got.value / exact:.4f} of the exact value, predicted {steep / exact:.4f}")
    assert steep > 1.2 * exact
    assert abs(got.value_at_zero_step - steep) < 4 * got.standard_error

"""Every way an estimate goes wrong is named and kept out; a sound one is left in peace."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from learning_coefficients import Point
from scipy.stats import norm

from probes.llc import LLCEstimate, estimate_llc, estimate_llcs
from probes.llc.diagnostics import drift_p_value
from probes.llc.walkers import Place, log_acceptance

FULL = [torch.zeros(1, dtype=torch.float64)]
SOUND: dict[str, Any] = {
    "nbeta": 100.0, "step_size": 2e-3, "localization": 20.0, "n_chains": 4, "n_draws": 200, "n_burnin": 100,
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bowl(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * model.w.square().sum()


def saddle(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * (model.w[:10].square().sum() - 0.1 * model.w[10:].square().sum())


def slope(model: Any, batch: Any) -> torch.Tensor:
    return 0.3 * model.w.sum() + model.w.square().sum()


def abyss(model: Any, batch: Any) -> torch.Tensor:
    """A bowl that falls without end beyond 0.33."""
    w = model.w
    return torch.where(w.abs() < 0.33, 0.5 * w.square(), -1e4 * w.square()).sum()


def saturating(model: Any, batch: Any) -> torch.Tensor:
    """Cannot diverge, however long the step."""
    return 1.0 - torch.exp(-0.5 * model.w.square().sum())


def replicates(loss_fn, n_replicates: int = 20, n: int = 20, **change) -> list[LLCEstimate]:
    scopes = {str(i): None for i in range(n_replicates)}
    return list(
        estimate_llcs(
            Point(n), FULL, scopes=scopes, loss_fn=loss_fn, **{**SOUND, **change}, generator=seeded()
        ).values()
    )  # fmt: skip


INJECTED = {
    "divergence": (abyss, {}, "diverged"),
    "slope, so negative": (slope, {}, "negative"),
    "saddle, so negative": (saddle, {"localization": 10.5}, "negative"),
    "no burn-in": (bowl, {"n_burnin": 0}, "short burn-in"),
    "short burn-in": (bowl, {"n_burnin": 5, "step_size": 2e-4, "n_draws": 600}, "short burn-in"),
    "step too small": (bowl, {"step_size": 2e-6}, "not mixed"),
    "step too large": (bowl, {"step_size": 1.5e-2}, "step too large"),
    "step far too large, bounded loss": (saturating, {"step_size": 0.15}, "above d/2"),
}


@pytest.mark.parametrize("fault", INJECTED)
def test_an_injected_fault_is_flagged_every_time(fault):
    """20 replicates each; diverged chains are excluded, and no faulty estimate counts as sound."""
    loss_fn, change, name = INJECTED[fault]
    estimates = replicates(loss_fn, **change)
    if fault == "divergence":
        estimates = [e for e in estimates if e.n_diverged]
        assert len(estimates) > 3
        assert all(np.isnan(e.per_chain).sum() == e.n_diverged for e in estimates)
    shares = {n: np.mean([n in e.faults for e in estimates]) for n in {n for e in estimates for n in e.faults}}
    print(fault, shares)
    assert not any(e.is_sound for e in estimates)
    assert shares[name] == 1.0


def test_a_sound_estimate_is_left_in_peace():
    """No more than one false alarm in 20."""
    estimates = replicates(bowl, n_draws=400)
    found = [e.warnings for e in estimates if e.warnings]
    assert len(found) <= 1, found
    assert math.isfinite(estimates[0].drift_p)


def test_acceptance_is_that_of_metropolis_on_a_quadratic():
    """Against the densities themselves, in draws from the discretised dynamics' own stationary law."""
    a, n, step = 120.0, 20, 6e-3
    rng = np.random.default_rng(0)
    w = rng.normal(size=(100_000, n)) / math.sqrt(a * (1 - step * a / 4))
    new = w * (1 - step * a / 2) + math.sqrt(step) * rng.normal(size=w.shape)
    there = norm.logpdf(new, w * (1 - step * a / 2), math.sqrt(step)) - a * w**2 / 2
    back = norm.logpdf(w, new * (1 - step * a / 2), math.sqrt(step)) - a * new**2 / 2
    exact = np.minimum(1.0, np.exp((back - there).sum(axis=1))).mean()
    got = estimate_llc(
        Point(n), FULL, loss_fn=bowl, **{**SOUND, "step_size": step, "n_chains": 1000, "n_draws": 400},
        generator=seeded(),
    )  # fmt: skip
    assert 0.5 < exact < 0.95
    assert got.acceptance == pytest.approx(exact, abs=0.01)  # 10000 checks: one standard error is 0.0025


def test_the_log_ratio_is_that_of_potentials_and_proposals_away_from_equilibrium():
    """A quartic potential and a scale for each entry; in equilibrium the ratio's sign would not show."""
    rng, step = np.random.default_rng(1), 0.02
    w, new, scale = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.uniform(0.5, 2.0, size=4)

    def place(x: np.ndarray) -> Place:
        t, gradient = torch.tensor(x), torch.tensor(4 * x**3)
        return Place(position=t, gradient=gradient, force=gradient, potential=t.pow(4).sum(1))

    def log_proposal(end: np.ndarray, start: np.ndarray) -> np.ndarray:
        return norm.logpdf(end, start - step / 2 * scale * 4 * start**3, np.sqrt(step * scale)).sum(axis=1)

    exact = (w**4).sum(1) - (new**4).sum(1) + log_proposal(w, new) - log_proposal(new, w)
    got = log_acceptance(place(w), place(new), torch.tensor(scale), step)
    np.testing.assert_allclose(got, exact, rtol=1e-9)


def test_the_step_excess_is_exact_for_a_quadratic_loss():
    h = torch.linspace(0.2, 2.0, 20, dtype=torch.float64)
    nbeta, step, localization = 100.0, 6e-3, 60.0
    a = nbeta * h + localization
    exact = (0.5 * nbeta * h / a * (1 / (1 - step * a / 4) - 1)).sum().item()

    def ellipse(model: Any, batch: Any) -> torch.Tensor:
        return 0.5 * (h * model.w.square()).sum()

    got = estimate_llc(
        Point(20), FULL, loss_fn=ellipse, nbeta=nbeta, step_size=step,
        localization=localization, n_chains=2000, n_draws=50, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    assert got.step_excess == pytest.approx(exact, rel=0.02)


def test_the_step_excess_counts_the_noise_of_minibatches():
    """Minibatches that pull apart by ±s at the same curvature: variance up by ``ε nbeta² s²/4`` of itself."""
    nbeta, step, s, n = 100.0, 2e-3, 0.3, 20
    batches = [torch.tensor(s, dtype=torch.float64), torch.tensor(-s, dtype=torch.float64)]

    def tilted(model: Any, batch: Any) -> torch.Tensor:
        return bowl(model, batch) + batch * model.w.sum()

    got = estimate_llc(
        Point(n), batches, loss_fn=tilted, nbeta=nbeta, step_size=step,
        localization=0.0, n_chains=2000, n_draws=50, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    noise, length = step * (nbeta * s) ** 2 / 4, step * nbeta / 4
    exact = n / 2 * (noise + length) / (1 - length)
    assert got.step_excess == pytest.approx(exact, rel=0.02)
    assert got.value - n / 2 == pytest.approx(exact, rel=0.05)
    assert got.acceptance > 0.8  # both ends on one minibatch; on two, half at most


def test_drift_p_values_are_uniform_without_drift_and_small_with_it():
    rng = np.random.default_rng(0)
    flat = np.empty((500, 4, 200))
    flat[..., 0] = rng.normal(size=(500, 4))
    for t in range(1, 200):
        flat[..., t] = 0.5 * flat[..., t - 1] + math.sqrt(0.75) * rng.normal(size=(500, 4))
    p = np.array([drift_p_value(x) for x in flat])
    assert np.mean(p < 0.05) < 0.1  # errors are the larger of two, so this leans to caution
    assert np.mean(p < 1e-3) <= 0.004
    outward = flat - 4.0 * np.exp(-np.arange(200) / 20.0)
    assert np.mean([drift_p_value(x) < 1e-3 for x in outward]) > 0.9


def test_too_few_or_constant_draws_have_no_drift():
    assert math.isnan(drift_p_value(np.random.default_rng(0).normal(size=(4, 7))))
    assert math.isnan(drift_p_value(np.ones((4, 100))))

"""LLC against the localized posterior's exact value, and against its laws.

Sizes are fixed first; a mean passes within 4 standard errors, with the standard error small enough that a bias of 5 %
fails. Steps are small enough that the O(step_size) bias of the discretised dynamics stays below one standard error,
except where the discretised dynamics' own exact value is the target.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from probes.llc import estimate_llc, estimate_llcs, wbic_nbeta

DTYPE = torch.float64
FULL = [torch.zeros(1, dtype=DTYPE)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Point(nn.Module):
    """A bare parameter vector at the origin."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(n, dtype=DTYPE))


def even_powers(*powers):
    """``sum_i w_i^k``, the coordinates shared out equally over the even powers k."""

    def loss(model: Any, batch: Any) -> torch.Tensor:
        parts = zip(model.w.square().chunk(len(powers)), powers, strict=True)
        return torch.stack([(squares if k == 2 else squares ** (k // 2)).sum() for squares, k in parts]).sum()

    return loss


def exact_power(k: float, nbeta: float, localization: float) -> float:
    """E[nbeta |w|^k] under exp(-nbeta |w|^k - localization w^2/2), by quadrature."""

    def weight(w):
        return math.exp(-nbeta * w**k - localization * w**2 / 2)

    top = quad(lambda w: nbeta * w**k * weight(w), 0, 20 * nbeta ** (-1 / k), epsabs=1e-12, limit=500)[0]
    return top / quad(weight, 0, 20 * nbeta ** (-1 / k), epsabs=1e-12, limit=500)[0]


def crossing(model: Any, batch: Any) -> torch.Tensor:
    first, second = model.w.chunk(2)
    return (first**2 * second**2).sum()


def slope(model: Any, batch: Any) -> torch.Tensor:
    return model.w.sum() + model.w.square().sum()


def assert_matches(estimate, exact: float, largest_error: float = 0.007) -> None:
    """Within 4 standard errors, each below ``largest_error`` of the value."""
    assert estimate.n_diverged == 0
    assert estimate.standard_error < largest_error * exact
    assert abs(estimate.value - exact) < 4 * estimate.standard_error


def quadratic(n: int = 20):
    """A model, its loss ``sum h w^2 / 2`` and the curvatures h."""
    h = torch.linspace(0.5, 1.5, n, dtype=DTYPE)

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return 0.5 * (h * model.w.square()).sum()

    return Point(n), loss, h


def sgld_quadratic(curvature, nbeta, localization, step_size) -> float:
    """Exact stationary value of the discretised dynamics for ``sum h w^2 / 2``."""
    a = nbeta * curvature + localization
    return float((0.5 * nbeta * curvature / (a * (1 - step_size * a / 4))).sum())


def test_quadratic_loss_gives_half_its_dimension():
    model, loss, h = quadratic(20)
    nbeta, localization = 100.0, 0.05
    exact = float((0.5 * nbeta * h / (nbeta * h + localization)).sum())
    assert exact == pytest.approx(20 / 2, rel=1e-3)
    got = estimate_llc(
        model, FULL, loss_fn=loss, nbeta=nbeta, step_size=1.5e-4,
        localization=localization, n_chains=600, n_draws=1200, n_burnin=500, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, exact)


def test_localization_lowers_a_quadratic_by_the_known_share():
    model, loss, h = quadratic(20)
    nbeta, localization = 100.0, 60.0
    got = estimate_llc(
        model, FULL, loss_fn=loss, nbeta=nbeta, step_size=1.5e-4,
        localization=localization, n_chains=400, n_draws=800, n_burnin=500, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, float((0.5 * nbeta * h / (nbeta * h + localization)).sum()))


@pytest.mark.parametrize("step_size", [3e-3, 1.5e-2])
def test_a_large_step_gives_the_exact_value_of_the_discretised_dynamics(step_size):
    model, loss, h = quadratic(20)
    got = estimate_llc(
        model, FULL, loss_fn=loss, nbeta=100.0, step_size=step_size,
        localization=5.0, n_chains=200, n_draws=600, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, sgld_quadratic(h, 100.0, 5.0, step_size), largest_error=0.003)
    assert got.rhat < 1.02
    assert list(got.faults) == (["step too large", "above d/2"] if step_size > 1e-2 else [])


def test_a_quartic_loss_gives_a_quarter_per_direction():
    n, nbeta, localization = 64, 16.0, 1e-3
    exact = exact_power(4, nbeta, localization)
    assert exact == pytest.approx(1 / 4, rel=1e-3)
    got = estimate_llc(
        Point(n), FULL, loss_fn=even_powers(4), nbeta=nbeta, step_size=1.2e-3,
        localization=localization, n_chains=250, n_draws=1000, n_burnin=500, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, n * exact)


def test_quadratic_and_quartic_directions_add():
    n, nbeta, localization = 32, 16.0, 2.0
    exact = n * (exact_power(2, nbeta, localization) + exact_power(4, nbeta, localization))
    got = estimate_llc(
        Point(2 * n), FULL, loss_fn=even_powers(2, 4), nbeta=nbeta,
        step_size=1e-3, localization=localization, n_chains=150, n_draws=800, n_burnin=400, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, exact)


def test_crossing_valleys_match_quadrature():
    """w1^2 w2^2: coefficient 1/2 with multiplicity 2, so the value at finite nbeta is below 1/2."""
    n, nbeta, localization = 64, 10.0, 4.0

    def weight(w):  # w2 integrated out
        return math.exp(-localization * w**2 / 2) / math.sqrt(2 * nbeta * w**2 + localization)

    def loss(w):  # E[nbeta w1^2 w2^2 | w1]
        return nbeta * w**2 / (2 * nbeta * w**2 + localization)

    exact = quad(lambda w: loss(w) * weight(w), 0, 6)[0] / quad(weight, 0, 6)[0]
    assert exact < 0.5
    got = estimate_llc(
        Point(2 * n), FULL, loss_fn=crossing, nbeta=nbeta, step_size=2e-3,
        localization=localization, n_chains=150, n_draws=1200, n_burnin=500, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, n * exact)


class Regression(nn.Module):
    def __init__(self, w) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return x @ self.w


def regression():
    """400 samples of 20 features at unit noise, at the least-squares solution, in four batches."""
    g = seeded(3)
    x = torch.randn(400, 20, generator=g, dtype=DTYPE)
    y = x @ torch.randn(20, generator=g, dtype=DTYPE) + torch.randn(400, generator=g, dtype=DTYPE)
    w = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    return Regression(w), list(zip(x.split(100), y.split(100), strict=True)), torch.linalg.eigvalsh(x.T @ x / 400)


def half_squares(model, batch):
    x, y = batch
    return 0.5 * (model(x) - y).square().mean()


def test_minibatches_match_the_closed_form_of_linear_regression():
    model, batches, h = regression()
    nbeta, localization = wbic_nbeta(400), 5.0
    exact = float((0.5 * nbeta * h / (nbeta * h + localization)).sum())
    got = estimate_llc(
        model, batches, loss_fn=half_squares, nbeta=nbeta, step_size=2.4e-4, localization=localization,
        n_chains=160, n_draws=2000, n_burnin=300, generator=seeded(),
    )  # fmt: skip
    assert_matches(got, exact)
    assert got.init_loss == pytest.approx(float(np.mean([half_squares(model, b).item() for b in batches])), rel=1e-12)


def test_a_draw_at_the_center_has_no_minibatch_noise():
    model, batches, _ = regression()
    got = estimate_llc(
        model, batches, loss_fn=half_squares, nbeta=10.0, step_size=1e-4, localization=5.0, n_chains=6, n_draws=4,
        n_burnin=0, generator=seeded(),
    )  # fmt: skip
    np.testing.assert_allclose(got.loss_trace[:, 0], got.init_loss, rtol=1e-14)
    assert len(set(got.loss_trace[:, 1])) == 6  # chains walk apart


@pytest.mark.parametrize(
    ("n_repeats", "least", "most"), [(200, 0.90, 0.99), pytest.param(2000, 0.935, 0.98, marks=pytest.mark.slow)]
)
def test_coverage_of_the_interval(n_repeats, least, most):
    """Repeats of a short four-chain run, as scopes with their own random numbers; bounds: 3 binomial errors."""
    model, loss, h = quadratic(5)
    options: dict[str, Any] = {"nbeta": 100.0, "step_size": 2e-3, "localization": 5.0}
    got = estimate_llcs(
        model, FULL, scopes={str(i): None for i in range(n_repeats)}, loss_fn=loss,
        **options, n_chains=4, n_draws=200, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    exact = sgld_quadratic(h, **options)
    covered = np.mean([e.interval[0] <= exact <= e.interval[1] for e in got.values()])
    assert least <= covered <= most
    errors = np.array([e.value - exact for e in got.values()])
    stated = np.sqrt(np.mean([e.standard_error**2 for e in got.values()]))
    assert 0.85 < stated / errors.std() < 1.4  # the larger of two estimates leans to caution


def test_scaling_the_loss_against_nbeta_changes_nothing():
    model, loss, _ = quadratic(6)
    shared = {"step_size": 1e-3, "localization": 3.0, "n_chains": 3, "n_draws": 20, "n_burnin": 5}
    a = estimate_llc(model, FULL, loss_fn=loss, nbeta=64.0, **shared, generator=seeded())
    b = estimate_llc(model, FULL, loss_fn=lambda m, b: 4 * loss(m, b), nbeta=16.0, **shared, generator=seeded())
    assert a.value == b.value  # powers of two scale exactly
    np.testing.assert_array_equal(4 * a.loss_trace, b.loss_trace)


def test_the_more_singular_point_scores_lower():
    n, shared = 16, {"step_size": 5e-3, "localization": 1.0, "n_chains": 20, "n_draws": 200, "n_burnin": 200}
    values = [
        estimate_llc(
            Point(n), FULL, loss_fn=even_powers(k), nbeta=16.0, **shared,
            generator=seeded(),
        ).value
        for k in (2, 4, 6)
    ]  # fmt: skip
    assert values[0] > 1.3 * values[1] > 1.3 * values[2]


def test_scopes_of_a_separable_loss_give_their_share():
    n = 24
    model, loss, h = quadratic(n)
    first = torch.arange(n) < n // 2
    scopes = {"first": {"w": first}, "second": {"w": ~first}, "all": None}
    options: dict[str, Any] = {"nbeta": 100.0, "step_size": 3e-3, "localization": 5.0}
    got = estimate_llcs(
        model, FULL, scopes=scopes, loss_fn=loss, **options,
        n_chains=100, n_draws=600, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    assert list(got) == ["first", "second", "all"]
    assert [e.n_entries for e in got.values()] == [12, 12, 24]
    assert_matches(got["first"], sgld_quadratic(h[first], **options))
    assert_matches(got["second"], sgld_quadratic(h[~first], **options))
    assert_matches(got["all"], sgld_quadratic(h, **options))
    error = math.hypot(*(e.standard_error for e in got.values()))
    assert abs(got["first"].value + got["second"].value - got["all"].value) < 4 * error


def test_a_slope_gives_a_flagged_negative_value():
    got = estimate_llc(
        Point(3), FULL, loss_fn=slope, nbeta=50.0, step_size=1e-3,
        localization=1.0, n_chains=4, n_draws=400, n_burnin=200, generator=seeded(),
    )  # fmt: skip
    assert got.is_negative
    assert got.value == pytest.approx(-50 * 3 / 4 + 3 / 2, rel=0.05)  # w* is 3/4 above the minimum
    assert any("negative" in w for w in got.warnings)


def test_short_chains_are_flagged_as_not_mixed():
    model, loss, _ = quadratic(20)
    got = estimate_llc(
        model, FULL, loss_fn=loss, nbeta=100.0, step_size=1e-5,
        localization=5.0, n_chains=4, n_draws=50, n_burnin=0, generator=seeded(),
    )  # fmt: skip
    assert got.rhat > 1.1
    assert any("R-hat" in w and "n_burnin" in w for w in got.warnings)


def test_wbic_nbeta():
    assert wbic_nbeta(1000) == pytest.approx(1000 / math.log(1000), rel=1e-15)
    with pytest.raises(ValueError, match="n_samples must be at least 2, got 1"):
        wbic_nbeta(1)


def test_assert_matches_fails_on_a_five_percent_bias():
    model, loss, h = quadratic(20)
    got = estimate_llc(
        model, FULL, loss_fn=loss, nbeta=100.0, step_size=3e-3,
        localization=5.0, n_chains=100, n_draws=600, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    exact = sgld_quadratic(h, 100.0, 5.0, 3e-3)
    assert_matches(got, exact)
    for factor in (0.95, 1.05):
        with pytest.raises(AssertionError):
            assert_matches(got, factor * exact)

"""Other losses along the same chains: a part of the data, under the posterior of all of it."""

from typing import Any

import numpy as np
import pytest
import torch
from learning_coefficients import Point
from torch import nn

from probes.llc import ObservedLLC, estimate_llc, estimate_llcs

CURVATURES = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
FULL = [torch.zeros(1, dtype=torch.float64)]
SETTINGS: dict[str, Any] = {"nbeta": 100.0, "step_size": 2e-3, "localization": 20.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bowl(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * (CURVATURES * model.w.square()).sum()


def first_third(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * (CURVATURES[:4] * model.w[:4].square()).sum()


def others(model: Any, batch: Any) -> torch.Tensor:
    return bowl(model, batch) - first_third(model, batch)


def test_a_part_of_a_separable_loss_has_its_exact_share_and_parts_add():
    got = estimate_llc(
        Point(12), FULL, loss_fn=bowl, observed_loss_fns={"first": first_third, "others": others}, **SETTINGS,
        n_chains=200, n_draws=800, n_burnin=100, generator=seeded(),
    )  # fmt: skip
    h = CURVATURES[:4]
    stiffness = SETTINGS["nbeta"] * h + SETTINGS["localization"]
    exact = (0.5 * SETTINGS["nbeta"] * h / (stiffness * (1 - SETTINGS["step_size"] * stiffness / 4))).sum().item()
    first = got.observed["first"]
    assert first.standard_error < 0.007 * exact
    assert abs(first.value - exact) < 4 * first.standard_error
    assert first.interval[0] < first.value < first.interval[1]
    assert first.value + got.observed["others"].value == pytest.approx(got.value, rel=1e-12)
    assert first.init_loss == 0.0


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3, dtype=torch.float64))


def squared_error(model: Any, batch: Any) -> torch.Tensor:
    x, y = batch
    return (x @ model.w - y).square().mean()


def of_large_inputs(model: Any, batch: Any) -> torch.Tensor:
    """Mean over a part of the batch, written with weights so that it vectorises."""
    x, y = batch
    chosen = (x[:, 0] > 0).double()
    return (chosen * (x @ model.w - y).square()).sum() / chosen.sum()


def regression_batches(n: int = 5) -> list[Any]:
    g = seeded(1)
    return [tuple(torch.randn(8, *shape, generator=g, dtype=torch.float64) for shape in ((3,), ())) for _ in range(n)]


SHORT: dict[str, Any] = {**SETTINGS, "nbeta": 10.0, "n_chains": 3, "n_draws": 9, "n_burnin": 4}


def test_observing_changes_nothing_and_the_sampled_loss_observed_is_itself():
    plain = estimate_llc(Regression(), regression_batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    got = estimate_llc(
        Regression(), regression_batches(), loss_fn=squared_error, **SHORT, generator=seeded(),
        observed_loss_fns={"same": squared_error, "part": of_large_inputs},
    )  # fmt: skip
    np.testing.assert_array_equal(got.loss_trace, plain.loss_trace)
    np.testing.assert_allclose(got.observed["same"].loss_trace, got.loss_trace, rtol=1e-12)
    assert got.observed["same"].value == pytest.approx(got.value, rel=1e-12)
    assert got.observed["part"].value != got.value
    assert got.vectorized


def test_every_scope_is_observed_and_a_stubborn_loss_is_evaluated_one_by_one():
    def stubborn(model: Any, batch: Any) -> torch.Tensor:
        return of_large_inputs(model, batch) + 0.0 * model.w.sum().item()

    scopes = {"some": {"w": torch.tensor([True, False, True])}, "all": None}
    fast, slow = (
        estimate_llcs(
            Regression(), regression_batches(), scopes=scopes, loss_fn=squared_error, **SHORT, generator=seeded(),
            observed_loss_fns={"part": loss},
        )
        for loss in (of_large_inputs, stubborn)
    )  # fmt: skip
    for scope in scopes:
        assert fast[scope].vectorized
        assert not slow[scope].vectorized
        assert isinstance(fast[scope].observed["part"], ObservedLLC)
        np.testing.assert_allclose(
            fast[scope].observed["part"].loss_trace, slow[scope].observed["part"].loss_trace, rtol=1e-12
        )


def test_a_diverged_chain_is_left_out_of_observed_losses_too():
    def cliff(model: Any, batch: Any) -> torch.Tensor:
        w = model.w[0]
        return torch.where(w.abs() < 0.8, 0.5 * w**2, -1e3 * w**4)

    got = estimate_llc(
        Point(1), FULL, loss_fn=cliff, observed_loss_fns={"same": cliff}, nbeta=10.0, step_size=0.02,
        localization=0.1, n_chains=40, n_draws=150, n_burnin=20, generator=seeded(),
    )  # fmt: skip
    assert 0 < got.n_diverged < 40
    assert got.observed["same"].value == pytest.approx(got.value, rel=1e-12)


def test_a_bad_observed_loss_is_named():
    def nothing(model: Any, batch: Any) -> torch.Tensor:
        return squared_error(model, batch) * torch.nan

    with pytest.raises(ValueError, match=r"observed_loss_fns\['part'\]: the loss is nan at the given parameters"):
        estimate_llc(
            Regression(), regression_batches(), loss_fn=squared_error, **SHORT, generator=seeded(),
            observed_loss_fns={"part": nothing},
        )  # fmt: skip

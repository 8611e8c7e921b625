"""The recommended setting lies on the plateau of a loss whose right answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from probes.llc import calibrate_llc, estimate_llc
from probes.llc.calibration import recommend


class Bowl(nn.Module):
    """``sum h w^2 / 2`` with curvatures between 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(50, dtype=torch.float64))
        self.h = torch.linspace(1.0, 2.0, 50, dtype=torch.float64)


def bowl_loss(model, batch):
    return 0.5 * (model.h * model.w.square()).sum()


BATCHES = [torch.zeros(1)]
STEP_SIZES = (1e-6, 1e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def calibrate(**change):
    options = {"step_sizes": STEP_SIZES, "localizations": (1.0, 10.0), "n_draws": 150, "n_burnin": 100, **change}
    return calibrate_llc(Bowl(), BATCHES, loss_fn=bowl_loss, nbeta=100.0, **options, generator=seeded())


@pytest.fixture(scope="module")
def surface():
    return calibrate()


def test_the_recommended_setting_is_accurate(surface):
    got = surface
    assert got.is_found
    assert got.localization == 1.0
    assert 3e-3 <= got.step_size <= 1e-2  # the largest on the plateau; unstable above 4/201, 33 % too high at 1e-2
    check = estimate_llc(
        Bowl(), BATCHES, loss_fn=bowl_loss, nbeta=100.0, step_size=got.step_size, localization=got.localization,
        n_chains=8, n_draws=500, n_burnin=200, generator=seeded(1),
    )  # fmt: skip
    assert check.value == pytest.approx(25.0, rel=0.2)


def test_the_surface_shows_all_three_regimes(surface):
    got = surface
    assert got.value.shape == got.rhat.shape == got.n_diverged.shape == (8, 2)
    assert (got.rhat[0] > 1.1).all()  # not relaxed
    assert (got.value[0] < 5.0).all()
    np.testing.assert_allclose(got.value[2, 0], 25.0, rtol=0.15)
    assert (got.n_diverged[-2:] == 4).all()
    assert np.isnan(got.value[-2:]).all()
    assert got.n_gradients == 16 * 4 * 250


def test_no_plateau_is_an_answer():
    got = calibrate(step_sizes=(3e-2, 1e-1), localizations=(1.0,))
    assert not got.is_found
    assert math.isnan(got.step_size)
    assert math.isnan(got.localization)


def test_defaults_run():
    """The grid of the defaults; the chains of the defaults cost a second more."""
    got = calibrate_llc(
        Bowl(), BATCHES, loss_fn=bowl_loss, nbeta=100.0, n_draws=4, n_burnin=0, n_chains=1, generator=seeded()
    )
    assert got.value.shape == (5, 3)


def test_bad_grids_are_refused():
    with pytest.raises(ValueError, match="at least 2 step_sizes and 1 localization, got 1 and 2"):
        calibrate(step_sizes=(1e-3,))
    with pytest.raises(ValueError, match="step_size must be finite and positive, got -1"):
        calibrate(step_sizes=(-1.0, 1e-3))


@pytest.mark.parametrize("fault", [{"n_diverged": 1}, {"rhat": 1.5}, {"value": -1.0}, {"value": 40.0}])
@pytest.mark.parametrize("faulty", [0, 1])
def test_an_unsound_or_disagreeing_cell_is_no_plateau(fault, faulty):
    good = estimate_llc(
        Bowl(), BATCHES, loss_fn=bowl_loss, nbeta=100.0, step_size=1e-3, localization=1.0, n_chains=4, n_draws=300,
        n_burnin=50, generator=seeded(),
    )  # fmt: skip
    larger = replace(good, settings=replace(good.settings, step_size=2e-3))
    assert recommend([[good], [larger]]) == (2e-3, 1.0)
    cells = [[good], [larger]]
    cells[faulty] = [replace(cells[faulty][0], **fault)]
    assert all(map(math.isnan, recommend(cells)))

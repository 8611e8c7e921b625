"""Estimates as xarray data sets, under the names devinterp's users know."""

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learning_coefficients import Point

from probes import estimate_llc, estimate_llcs, join_llcs
from probes.llc import Rmsprop

FULL = [torch.zeros(1, dtype=torch.float64)]
SHORT: dict[str, Any] = {
    "nbeta": 100.0, "step_size": 2e-3, "localization": 20.0, "n_chains": 3, "n_draws": 8, "n_burnin": 4,
}  # fmt: skip


def bowl(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * model.w.square().sum()


def estimate(**change: Any):
    generator = torch.Generator().manual_seed(0)
    observed = {"same": bowl}
    options = {**SHORT, **change}
    return estimate_llc(Point(5), FULL, loss_fn=bowl, observed_loss_fns=observed, **options, generator=generator)


def test_without_xarray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"xarray is not installed; pip install 'emergence-lab\[results\]'"):
        estimate().to_xarray()


def test_unequal_settings_and_nothing_at_all_do_not_join():
    pytest.importorskip("xarray", reason="pip install 'emergence-lab[results]'")
    a, b = estimate(), estimate(nbeta=50.0)
    with pytest.raises(ValueError, match=r"must share their settings to be compared; 10 has .*nbeta=100.0.*20 has"):
        join_llcs({10: a, 20: b}, dim="step")
    with pytest.raises(ValueError, match="estimates is empty; give at least one"):
        join_llcs({})


def test_names_shapes_and_values_are_those_of_devinterp():
    pytest.importorskip("xarray", reason="pip install 'emergence-lab[results]'")
    got = estimate()
    data = got.to_xarray()
    assert data["loss_trace"].dims == ("chain", "draw")
    np.testing.assert_array_equal(data["loss_trace"], got.loss_trace)
    np.testing.assert_array_equal(data["llc_per_chain"], got.per_chain)
    assert data["init_loss"].item() == got.init_loss
    assert data["llc_mean"].item() == got.value == pytest.approx(data["llc_per_chain"].mean().item(), rel=1e-12)
    assert data["llc_std"].item() == pytest.approx(got.per_chain.std(ddof=1), rel=1e-12)
    assert data["interval"].sel(bound="low").item() == got.interval[0]
    assert data["observed_same"].item() == got.observed["same"].value
    assert data.attrs["sampler"] == "sgld"
    assert data.attrs["nbeta"] == 100.0
    held = Rmsprop(decay=0.5)
    attrs = estimate(preconditioner=held).to_xarray().attrs
    assert (attrs["sampler"], attrs["rmsprop_decay"]) == ("rmsprop_sgld", 0.5)


def test_diverged_chains_do_not_count_in_the_spread():
    pytest.importorskip("xarray", reason="pip install 'emergence-lab[results]'")
    got = estimate()
    one_left = replace(got, per_chain=np.array([math.nan, 2.0, math.nan]))
    assert math.isnan(one_left.to_xarray()["llc_std"].item())
    two_left = replace(got, per_chain=np.array([math.nan, 2.0, 4.0]))
    assert two_left.to_xarray()["llc_std"].item() == pytest.approx(math.sqrt(2.0))


def test_scopes_and_steps_join_and_survive_a_file(tmp_path):
    xarray = pytest.importorskip("xarray", reason="pip install 'emergence-lab[results]'")
    pytest.importorskip("h5netcdf", reason="pip install 'emergence-lab[results]'")
    scopes = {"first": {"w": torch.arange(5) < 2}, "all": None}
    generator = torch.Generator().manual_seed(0)
    got = estimate_llcs(Point(5), FULL, scopes=scopes, loss_fn=bowl, **SHORT, generator=generator)
    joined = join_llcs(got)
    assert joined["loss_trace"].dims == ("scope", "chain", "draw")
    joined.to_netcdf(tmp_path / "llc.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "llc.nc", engine="h5netcdf") as again:
        assert again["llc_mean"].sel(scope="first").item() == got["first"].value
        assert again["llc_mean"].sel(scope="all").item() == got["all"].value
        assert again.attrs["step_size"] == SHORT["step_size"]

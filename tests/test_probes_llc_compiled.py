"""The compiled step: the same chains, one compilation for models of one form, clear refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from probes import estimate_llcs
from probes.llc import ensemble
from probes.llc.compiled import _compiled

SHORT: dict[str, Any] = {
    "nbeta": 20.0, "step_size": 1e-3, "localization": 2.0, "n_draws": 8, "n_burnin": 4,
}  # fmt: skip


class Net(nn.Module):
    """A normalised layer, a buffer that is changed before it is used, and a constant made in the forward pass."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
        for p in self.parameters():
            p.data = 0.5 * torch.randn(p.shape, generator=g, dtype=torch.float64)
        self.register_buffer("scale", torch.rand(2, generator=g, dtype=torch.float64))

    def forward(self, x):
        return self.layers(x) * (2 * self.get_buffer("scale")).sqrt() + torch.tensor(0.25, dtype=x.dtype)


def batches() -> list:
    g = torch.Generator().manual_seed(7)
    return [tuple(torch.randn(6, k, generator=g, dtype=torch.float64) for k in (3, 2)) for _ in range(4)]


def squared_error(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def traces(
    seed: int, *, loss_fn: Any = squared_error, compiled: bool = True, data: Any = None, n_chains: int = 3
) -> dict:
    scopes = {"model": None, "first": "layers.0.*"}
    found = estimate_llcs(
        Net(seed), batches() if data is None else data, scopes=scopes, loss_fn=loss_fn, **SHORT, n_chains=n_chains,
        compiled=compiled, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    return {name: estimate.loss_trace for name, estimate in found.items()}


@pytest.mark.slow
def test_chains_are_those_of_the_plain_step_and_another_model_compiles_nothing():
    _compiled.cache_clear()
    for seed in (0, 1):  # the second uses what was compiled for the first, with its own weights, buffer and data
        expected, got = traces(seed, compiled=False), traces(seed)
        for name, trace in expected.items():
            np.testing.assert_allclose(got[name], trace, rtol=1e-10)
    info = _compiled.cache_info()
    assert (info.misses, info.hits) == (2, 2)  # a function a scope
    compiled = counters["stats"]["unique_graphs"]
    traces(2)
    assert counters["stats"]["unique_graphs"] == compiled

    def other(model: Any, batch: Any) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).abs().mean()

    for name, trace in traces(0, loss_fn=other, compiled=False).items():
        np.testing.assert_allclose(traces(0, loss_fn=other)[name], trace, rtol=1e-10)
    assert _compiled.cache_info().misses > info.misses


@pytest.mark.slow
@pytest.mark.parametrize(
    "budget", [("_SAVED_BYTES_ALONE", 0), ("_SAVED_BYTES", 6000)], ids=["one by one", "of 4, 3 fit"]
)
def test_copies_that_take_turns_share_what_was_compiled_for_the_first(monkeypatch, budget):
    monkeypatch.setattr(ensemble, *budget)
    before = counters["stats"]["unique_graphs"]
    got = traces(0, n_chains=4)
    assert counters["stats"]["unique_graphs"] <= before + 2  # a function a scope: turns are of one size
    for name, trace in traces(0, n_chains=4, compiled=False).items():
        np.testing.assert_allclose(got[name], trace, rtol=1e-10)


def test_a_loss_that_reads_values_is_refused():
    def reads(model: Any, batch: Any) -> torch.Tensor:
        return squared_error(model, batch) * (1.0 + 0.0 * batch[0].sum().item())

    with pytest.raises(ValueError, match="compiled: the loss or its batches do not vectorise over chains; leave"):
        traces(0, loss_fn=reads)


def test_batches_of_unequal_sizes_are_refused():
    whole = batches()
    uneven = [*whole[:-1], tuple(t[:-1] for t in whole[-1])]
    with pytest.raises(ValueError, match="compiled: the loss or its batches do not vectorise over chains; leave"):
        traces(0, data=uneven)


def test_without_a_compiler_one_line_says_so(monkeypatch):
    import torch._inductor.config as inductor

    _compiled.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    with pytest.raises(ValueError, match=r"compiled: torch\.compile failed .*; leave compiled out"):
        traces(0, loss_fn=lambda model, batch: squared_error(model, batch).cos())

"""The sampler: reproducibility, divergence, isolation, fall-back, bad input."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from probes.llc import ChainsDiverged, SgldOptions, estimate_llc, estimate_llcs
from probes.llc.sampler import divergence_bound

SHORT: dict[str, Any] = {
    "nbeta": 20.0, "step_size": 1e-3, "localization": 2.0, "n_chains": 3, "n_draws": 8, "n_burnin": 4,
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Batch and layer norm, dropout, a frozen bias, and a layer the loss never reads; in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5))
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
        self.idle = nn.Linear(2, 2)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(0.5 * torch.randn(p.shape, generator=seeded(i)))
        self.get_parameter("layers.0.bias").requires_grad_(False)
        self.double()

    def forward(self, x):
        return self.layers(self.inputs(x))


def batches(n: int = 4):
    g = seeded(7)
    return [tuple(torch.randn(6, k, generator=g, dtype=torch.float64) for k in (3, 2)) for _ in range(n)]


def squared_error(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def test_equal_generators_give_equal_bits_and_others_do_not():
    a, b, c = (estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.loss_trace, b.loss_trace)
    assert a.value == b.value
    assert (a.loss_trace != c.loss_trace).all()


def test_the_generator_moves_on():
    g = seeded()
    a, b = (estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=g) for _ in range(2))
    assert a.value != b.value


def test_a_scope_alone_walks_as_it_does_among_others():
    scopes = {"first": "layers.0.*", "last": "layers.3.*", "all": None, "last again": "layers.3.*"}
    together = estimate_llcs(Net(), batches(), scopes=scopes, loss_fn=squared_error, **SHORT, generator=seeded())
    for name, parameters in scopes.items():
        alone = estimate_llcs(
            Net(), batches(), scopes={name: parameters}, loss_fn=squared_error, **SHORT, generator=seeded()
        )
        np.testing.assert_allclose(alone[name].loss_trace, together[name].loss_trace, rtol=1e-12)
    assert (together["last"].loss_trace[:, 1:] != together["last again"].loss_trace[:, 1:]).all()


def test_one_scope_is_the_plain_estimate():
    plain = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, parameters="layers.3.*", generator=seeded())
    scoped = estimate_llcs(
        Net(), batches(), scopes={"model": "layers.3.*"}, loss_fn=squared_error, **SHORT, generator=seeded()
    )["model"]
    np.testing.assert_array_equal(plain.loss_trace, scoped.loss_trace)


def test_a_mask_moves_its_own_entries_only():
    """The loss records where the chain went, through a linear read-out of each entry."""
    model = nn.Linear(4, 1, bias=False).double()
    seen = []

    def loss(m: Any, batch: Any) -> torch.Tensor:
        m.weight.sum().item()  # keeps vmap away, so that what is recorded are plain tensors
        seen.append(m.weight.detach().clone())
        return m.weight.square().mean()

    mask = torch.tensor([[True, False, True, False]])
    got = estimate_llc(model, [torch.zeros(1)], loss_fn=loss, **SHORT, parameters={"weight": mask}, generator=seeded())
    moved = torch.stack(seen) != model.weight.detach()
    assert not got.vectorized
    assert not moved[..., [1, 3]].any()
    assert moved[-3:, :, [0, 2]].all()
    assert got.n_entries == 2


def test_a_loss_that_cannot_be_vectorised_gives_the_same_numbers():
    def unfriendly(model: Any, batch: Any) -> torch.Tensor:
        return squared_error(model, batch) + 0.0 * model.layers[3].weight.sum().item()

    fast = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    slow = estimate_llc(Net(), batches(), loss_fn=unfriendly, **SHORT, generator=seeded())
    assert (fast.vectorized, slow.vectorized) == (True, False)
    np.testing.assert_allclose(fast.loss_trace, slow.loss_trace, rtol=1e-12)


@pytest.mark.parametrize(
    ("n_rows", "n_layers", "together"), [(1024, 20, False), (32, 300, True)], ids=["few large ones", "many small ones"]
)
def test_copies_share_calls_where_operations_are_small(n_rows, n_layers, together):
    """Both save more than 4 MB a copy."""
    model = nn.Linear(32, 32, bias=False).double()
    x = torch.randn(n_rows, 32, generator=seeded(), dtype=torch.float64)

    def loss(m: Any, batch: torch.Tensor) -> torch.Tensor:
        for _ in range(n_layers):
            batch = m(batch).tanh()
        return batch.square().mean()

    options = {**SHORT, "n_chains": 2, "n_draws": 4, "n_burnin": 0}
    assert estimate_llc(model, [x], loss_fn=loss, **options, generator=seeded()).vectorized == together


def test_fused_attention_vectorises():
    """Torch has no batching rule for it on a CPU; evaluated alone, copies use it."""
    model = nn.Linear(4, 12, bias=False).double()
    data = [torch.randn(2, 5, 4, generator=seeded(i), dtype=torch.float64) for i in range(3)]

    def fused(m: Any, batch: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*m(batch)[:, None].chunk(3, -1)).square().mean()

    def explicit(m: Any, batch: torch.Tensor) -> torch.Tensor:
        q, k, v = m(batch)[:, None].chunk(3, -1)
        m.weight.sum().item()  # keeps vmap away
        return ((q @ k.mT / 2).softmax(-1) @ v).square().mean()

    fast, slow = (estimate_llc(model, data, loss_fn=f, **SHORT, generator=seeded()) for f in (fused, explicit))
    assert (fast.vectorized, slow.vectorized) == (True, False)
    np.testing.assert_allclose(fast.loss_trace, slow.loss_trace, rtol=1e-10)


def test_an_operator_without_a_batching_rule_does_not_warn():
    def loss(model: Any, batch: Any) -> torch.Tensor:
        return squared_error(model, batch) + torch.renorm(model.layers[3].weight, 2, 0, 1.0).mean()

    got = estimate_llc(Net(), batches(), loss_fn=loss, **SHORT, generator=seeded())
    assert not got.vectorized


def test_ragged_batches_are_sampled_one_by_one():
    ragged = [*batches(3), tuple(leaf[:4] for leaf in batches(1)[0])]
    got = estimate_llc(Net(), ragged, loss_fn=squared_error, **SHORT, generator=seeded())
    assert not got.vectorized
    assert np.isfinite(got.loss_trace).all()


def test_dict_batches_vectorise():
    plain = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    named = estimate_llc(
        Net(), [{"x": x, "y": y} for x, y in batches()], loss_fn=lambda m, b: squared_error(m, (b["x"], b["y"])),
        **SHORT, generator=seeded(),
    )  # fmt: skip
    assert named.vectorized
    np.testing.assert_array_equal(plain.loss_trace, named.loss_trace)


def test_chunks_change_nothing(monkeypatch):
    whole = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    monkeypatch.setattr("probes.llc.ensemble._SAVED_BYTES", 1)
    pieces = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    np.testing.assert_allclose(whole.loss_trace, pieces.loss_trace, rtol=1e-12)


def linear(model: Any, batch: Any) -> torch.Tensor:
    return 2.0 * model.weight.sum()


def test_the_drift_is_the_documented_one():
    """Of a linear loss 2 w, whose trace reveals the position; averaged over chains the noise drops out."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.7)
    nbeta, step, localization = 5.0, 0.04, 3.0
    got = estimate_llc(
        model, [torch.zeros(1)], loss_fn=linear, nbeta=nbeta, step_size=step,
        localization=localization, n_chains=4000, n_draws=4, n_burnin=2, generator=seeded(),
    )  # fmt: skip
    w = np.concatenate([got.burnin_trace, got.loss_trace], axis=1) / 2.0  # chain step
    np.testing.assert_allclose(w[:, 0], 0.7, rtol=1e-14)
    noise = w[:, 1:] - (w[:, :-1] - step / 2 * (nbeta * 2.0 + localization * (w[:, :-1] - 0.7)))
    assert abs(noise.mean()) < 4 * math.sqrt(step / noise.size)
    assert noise.var() == pytest.approx(step, rel=4 * math.sqrt(2 / noise.size))
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 4 / math.sqrt(4000)


def test_bookkeeping():
    got = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    assert got.loss_trace.shape == (3, 8)
    assert got.burnin_trace.shape == (3, 4)
    assert got.n_gradients == 3 * (4 + 8 + 1)  # burn-in, draws, and one check
    assert got.n_entries == 24 + 16 + 16 + 2 + 4 + 2  # the frozen bias stays out
    assert got.value == pytest.approx(20.0 * (got.loss_trace.mean() - got.init_loss), rel=1e-9)
    np.testing.assert_allclose(got.per_chain, 20.0 * (got.loss_trace.mean(axis=1) - got.init_loss), rtol=1e-9)


def test_noise_has_the_documented_variance():
    model = nn.Linear(50, 1, bias=False).double()
    options = {"nbeta": 1e-9, "step_size": 0.04, "localization": 0.0, "n_chains": 400, "n_draws": 4, "n_burnin": 0}
    got = estimate_llc(model, [torch.zeros(1)], loss_fn=linear, **options, generator=seeded())
    increments = np.diff(got.loss_trace / 2.0, axis=1)  # sums of 50 normals of variance 0.04
    assert increments.var() == pytest.approx(50 * 0.04, rel=4 * math.sqrt(2 / increments.size))


class Cliff(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))


def half_square(model: Any, batch: Any) -> torch.Tensor:
    return 0.5 * model.w.square().sum()


CLIFF: dict[str, Any] = {
    "nbeta": 10.0, "step_size": 0.02, "localization": 0.1, "n_chains": 40, "n_draws": 150, "n_burnin": 20,
}  # fmt: skip


@pytest.mark.parametrize(
    "beyond",
    [lambda w: -1e3 * w**4, lambda w: torch.full_like(w, math.nan), lambda w: 1e4 + 0.0 * w],
    ids=["falls", "nan", "plateau"],
)
def test_diverged_chains_are_counted_and_excluded(beyond):
    """Chains that cross 0.8 leave for minus infinity, for NaN, or for a finite plateau beyond the bound."""

    def loss(model: Any, batch: Any) -> torch.Tensor:
        w = model.w[0]
        return torch.where(w.abs() < 0.8, 0.5 * w**2, beyond(w))

    got = estimate_llc(Cliff(), [torch.zeros(1)], loss_fn=loss, **CLIFF, generator=seeded())
    trace = np.concatenate([got.burnin_trace, got.loss_trace], axis=1)
    sound = (np.isfinite(trace) & (trace >= 0) & (trace < 0.5 * 0.8**2)).all(axis=1)
    assert 0 < got.n_diverged < 40
    assert got.n_diverged == (~sound).sum()
    np.testing.assert_array_equal(np.isnan(got.per_chain), ~sound)
    assert got.value == pytest.approx(10.0 * got.loss_trace[sound].mean(), rel=1e-12)
    assert 0 < got.standard_error < 0.1
    assert any(f"{got.n_diverged} of 40 chains diverged" in w for w in got.warnings)


def test_all_chains_diverged_raises_with_a_remedy():
    with pytest.raises(ChainsDiverged, match=r"all 40 chains of model diverged at step_size 5, .* try step_size 0\.5"):
        estimate_llc(
            Cliff(), [torch.zeros(1)], loss_fn=half_square, **{**CLIFF, "step_size": 5.0},
            generator=seeded(),
        )  # fmt: skip


def test_one_diverged_scope_is_nan_beside_the_others():
    model = nn.ParameterDict({"calm": torch.zeros(2).double(), "wild": torch.zeros(2).double()})

    def loss(m: Any, batch: Any) -> torch.Tensor:
        return 0.5 * m["calm"].square().sum() + 500.0 * m["wild"].square().sum()

    got = estimate_llcs(
        model, [torch.zeros(1)], scopes={"calm": "calm", "wild": "wild"}, loss_fn=loss, **CLIFF, generator=seeded()
    )
    assert got["calm"].n_diverged == 0
    assert got["calm"].value == pytest.approx(1.0, rel=0.1)
    assert got["wild"].n_diverged == 40
    assert math.isnan(got["wild"].value)
    assert math.isnan(got["wild"].standard_error)
    assert all(map(math.isnan, got["wild"].interval))


def test_the_bound_is_out_of_reach_of_sound_chains():
    assert divergence_bound(20) == 200.0


def global_numpy_state() -> np.ndarray:
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002 - the global state is the point


def test_the_model_is_left_as_it_was_found():
    model = Net().train()
    first, last = model.get_submodule("layers.0"), model.get_submodule("layers.3")
    last.eval()
    squared_error(model, batches()[0]).backward()
    model.get_parameter("layers.3.weight").grad = None
    state = {k: v.clone() for k, v in model.state_dict().items()}
    grads = {n: (p.grad, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()}
    flags = {n: m.training for n, m in model.named_modules()}
    needs = {n: p.requires_grad for n, p in model.named_parameters()}
    seen = []
    hook = first.register_forward_hook(lambda *_: seen.append(1))
    random = torch.get_rng_state(), global_numpy_state()
    estimate_llc(model, batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    assert seen
    assert list(first._forward_hooks) == [hook.id]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for name, p in model.named_parameters():
        assert p.grad is grads[name][0]
        before = grads[name][1]
        assert (p.grad is None) == (before is None)
        assert before is None or p.grad is None or torch.equal(before, p.grad)
        assert p.requires_grad == needs[name]
    assert {n: m.training for n, m in model.named_modules()} == flags
    assert torch.equal(torch.get_rng_state(), random[0])
    np.testing.assert_array_equal(global_numpy_state(), random[1])


def test_the_model_is_restored_after_an_error_midway():
    calls = []

    def loss(model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 30:
            raise RuntimeError("stop")
        return squared_error(model, batch) + 0.0 * model.layers[3].weight.sum().item()

    model = Net().train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"):
        estimate_llc(model, batches(), loss_fn=loss, **SHORT, generator=seeded())
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_results_and_options_are_frozen():
    got = estimate_llc(Net(), batches(), loss_fn=squared_error, **SHORT, generator=seeded())
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.value = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    assert got.settings == SgldOptions(**SHORT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nbeta": 0.0}, r"nbeta must be finite and positive, got 0\.0"),
        ({"step_size": -1e-3}, r"step_size must be finite and positive, got -0\.001"),
        ({"step_size": math.nan}, "step_size must be finite and positive, got nan"),
        ({"localization": -1.0}, r"localization must be finite and not negative, got -1\.0"),
        ({"n_chains": 0}, "n_chains must be at least 1, got 0"),
        ({"n_draws": 3}, "n_draws must be at least 4, got 3"),
        ({"n_burnin": -1}, "n_burnin must be at least 0, got -1"),
        ({"parameters": "layers.9.*"}, r"'layers\.9\.\*' matches no trainable tensor"),
        ({"parameters": "idle.*"}, r"does not depend on the chosen tensors: idle\.weight"),
        ({"loss_fn": lambda m, b: m(b[0])}, r"scalar tensor, the mean over the batch; got shape \(6, 2\)"),
        ({"loss_fn": lambda m, b: math.nan * squared_error(m, b)}, "the loss is nan at the given parameters"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        estimate_llc(
            Net(), batches(), **{"loss_fn": squared_error, **SHORT, **change}, generator=seeded()
        )  # fmt: skip


def test_no_batches_no_scopes_and_half_precision_are_refused():
    with pytest.raises(ValueError, match="batches is empty"):
        estimate_llc(Net(), [], loss_fn=squared_error, **SHORT, generator=seeded())
    with pytest.raises(ValueError, match="scopes is empty"):
        estimate_llcs(Net(), batches(), scopes={}, loss_fn=squared_error, **SHORT, generator=seeded())
    half = nn.Linear(3, 2).to(torch.bfloat16)
    data = [tuple(leaf.to(torch.bfloat16) for leaf in batches(1)[0])]
    with pytest.raises(ValueError, match=r"all float32 or all float64 on one device; got torch\.bfloat16 on cpu"):
        estimate_llc(half, data, loss_fn=squared_error, **SHORT, generator=seeded())


def test_one_chain_still_has_an_error():
    got = estimate_llc(
        Net(), batches(), loss_fn=squared_error, **{**SHORT, "n_chains": 1, "n_draws": 100}, generator=seeded()
    )
    assert got.standard_error > 0
    assert got.interval[0] < got.value < got.interval[1]

"""Whatever goes wrong in a user's hands is handled, or refused in one clear line; the model stays as it was."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from cases import Case, HookedAttention, attention, initialized, left_as_found, mlp, seeded, squared_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from probes import (
    calibrate_llc,
    curvature_operator,
    edge_knockout,
    estimate_llc,
    estimate_llcs,
    head_ablation,
    hessian_blocks,
    hessian_trace,
    record_outputs,
    spectral_density,
    top_eigenvalues,
)

pytestmark = pytest.mark.usefixtures("as_users_run")


SGLD: dict[str, Any] = {
    "nbeta": 10.0, "step_size": 1e-4, "localization": 10.0, "n_chains": 2, "n_draws": 4, "n_burnin": 1,
}  # fmt: skip


def product(model: nn.Module, batches: Any, *, generator: torch.Generator, **options: Any) -> Tensor:
    with curvature_operator(model, batches, **options) as operator:
        return operator(operator.random_normal(generator))


def calibrated(model: nn.Module, batches: Any, **options: Any) -> Any:
    sizes = {name: SGLD[name] for name in ("nbeta", "n_chains", "n_draws", "n_burnin")}
    return calibrate_llc(model, batches, step_sizes=(1e-5, 1e-4), localizations=(1.0,), **sizes, **options)


LOSS_PROBES: dict[str, Callable[..., Any]] = {
    "product": product,
    "top_eigenvalues": lambda m, b, **o: top_eigenvalues(m, b, k=2, **o),
    "spectral_density": lambda m, b, **o: spectral_density(m, b, n_probes=2, n_steps=4, **o),
    "hessian_trace": lambda m, b, **o: hessian_trace(m, b, n_probes=2, **o),
    "hessian_blocks": lambda m, b, parameters=None, **o: hessian_blocks(
        m, b, blocks={"all": parameters}, k=1, n_probes=2, n_steps=3, **o
    ),
    "estimate_llc": lambda m, b, **o: estimate_llc(m, b, **SGLD, **o),
    "estimate_llcs": lambda m, b, parameters=None, **o: estimate_llcs(m, b, scopes={"all": parameters}, **SGLD, **o),
    "calibrate_llc": calibrated,
}
every_probe = pytest.mark.parametrize("probe", LOSS_PROBES.values(), ids=LOSS_PROBES.keys())


def run(probe: Callable[..., Any], case: Case, **options: Any) -> Any:
    """Call a probe of the loss as users do, and see that nothing of theirs has changed."""
    states = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    with left_as_found(case.model):
        try:
            return probe(case.model, case.batches, loss_fn=case.loss_fn, generator=seeded(), **options)
        finally:
            assert states == (random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    assert 20 < len(str(error)) < 500
    return str(error)


class Dropped(nn.Module):
    """Dropout that ignores evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp().model

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.inner(x), 0.5, training=True)


class Shuffled:
    """Batches drawn anew each time they are asked for."""

    def __init__(self) -> None:
        self.inputs = torch.randn(40, 6, generator=seeded(), dtype=torch.float64)
        self.generator = seeded(1)

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(40, generator=self.generator).chunk(2):
            yield self.inputs[index], self.inputs[index, :3]


def buffered() -> Case:
    """Batch norm, whose buffers count batches in integers, after a layer that is frozen."""
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    initialized(model, seeded()).train()
    model[0].requires_grad_(False)
    return Case(model, mlp().batches, squared_error)


def tied() -> Case:
    first = nn.Linear(6, 6).double()
    model = nn.Sequential(first, nn.Tanh(), nn.Linear(6, 6).double())
    model[2].weight = first.weight
    return Case(initialized(model, seeded()), [(x, x) for x, _ in mlp().batches], squared_error)


HANDLED = {
    "dropout left on": lambda: Case(nn.Sequential(mlp().model, nn.Dropout(0.5)).train(), mlp().batches, squared_error),
    "frozen parameters, integer buffers": buffered,
    "shared weights": tied,
    "a loader that shuffles": lambda: Case(mlp().model, Shuffled(), squared_error),  # type: ignore[arg-type]
    "fused attention": lambda: attention(is_fused=True),
}


@every_probe
@pytest.mark.parametrize("make", HANDLED.values(), ids=HANDLED.keys())
def test_handled(probe, make) -> None:
    assert np.isfinite(_numbers(run(probe, make()))).all()


@every_probe
def test_shared_weights_count_once_and_go_by_either_name(probe) -> None:
    case = tied()
    assert sum(p.numel() for p in case.model.parameters()) == 6 * 6 + 6 + 6
    results = [run(probe, case, parameters=name) for name in ("0.weight", "2.weight")]
    for name, value in vars(results[0]).items() if hasattr(results[0], "__dict__") else ():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(results[1], name))


def in_half(dtype: torch.dtype) -> Case:
    case = mlp()
    batches = [tuple(t.to(dtype) for t in batch) for batch in case.batches]
    return Case(case.model.to(dtype), batches, squared_error)


def with_nan() -> Case:
    case = mlp()
    with torch.no_grad():
        next(case.model.parameters())[0] = torch.nan
    return case


class Numpy(torch.autograd.Function):
    """Its backward leaves the graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * x.detach().numpy() * grads[0].detach().numpy())


class Once(torch.autograd.Function):
    """Its backward says that it can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 2 * x * grads[0]


class OnceModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp().model

    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(self.inner(x))  # type: ignore[return-value]


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def loss_of(function: Callable[[nn.Module, Any], Any]) -> Callable[[], Case]:
    return lambda: Case(mlp().model, mlp().batches, function)


def batches_of(make: Callable[[], Any]) -> Callable[[], Case]:
    return lambda: Case(mlp().model, make(), squared_error)


REFUSED: dict[str, tuple[Callable[[], Case], type[Exception], str]] = {
    "dropout in every mode": (lambda: Case(Dropped(), mlp().batches, squared_error), ValueError, "not deterministic"),
    "NaN weights": (with_nan, ValueError, "the loss is nan at the given parameters"),
    "NaN data": (batches_of(lambda: [(x * torch.nan, y) for x, y in mlp().batches]), ValueError, "the loss is nan"),
    "all frozen": (
        lambda: Case(mlp().model.requires_grad_(False), mlp().batches, squared_error),
        ValueError,
        "no parameters that require gradients",
    ),
    "weights on the meta device": (
        lambda: Case(mlp().model.to("meta"), mlp().batches, squared_error),
        ValueError,
        "on the meta device",
    ),
    "data on another device": (
        batches_of(lambda: [(x.to("meta"), y) for x, y in mlp().batches]),
        ValueError,
        "model and data must be on the same",
    ),
    "lazy layers": (
        lambda: Case(nn.LazyLinear(3).double(), mlp().batches, squared_error),
        ValueError,
        "has no shape yet",
    ),
    "float16": (lambda: in_half(torch.float16), ValueError, "float32 or (all )?float64"),
    "bfloat16": (lambda: in_half(torch.bfloat16), ValueError, "float32 or (all )?float64"),
    "no batches": (batches_of(list), ValueError, "batches is empty"),
    "an empty batch": (
        batches_of(lambda: [*mlp().batches, (torch.zeros(0, 6).double(), torch.zeros(0, 3).double())]),
        ValueError,
        r"batch 2 holds an empty tensor of shape \(0, 6\)",
    ),
    "a used-up iterator": (batches_of(lambda: iter(mlp().batches)), TypeError, "one-shot"),
    "a generator": (batches_of(lambda: (b for b in mlp().batches)), TypeError, "one-shot"),
    "a bare tensor": (
        batches_of(lambda: mlp().batches[0][0]),
        TypeError,
        "got one Tensor; put a single batch in a list",
    ),
    "a bare dict": (batches_of(lambda: {"x": mlp().batches[0][0]}), TypeError, "got one dict"),
    "no batches at all": (batches_of(lambda: None), TypeError, "got one NoneType"),
    "no loss": (loss_of(None), TypeError, "loss_fn must be called as"),  # type: ignore[arg-type]
    "a loss that is a number": (loss_of(lambda model, batch: 1.0), ValueError, "real scalar tensor, .* got float"),
    "a loss per example": (
        loss_of(lambda model, batch: (model(batch[0]) - batch[1]).square().mean(1)),
        ValueError,
        r"got shape \(24,\)",
    ),
    "a complex loss": (
        loss_of(lambda model, batch: model(batch[0]).mean() * 1j),
        ValueError,
        "got torch.complex128",
    ),
    "a loss of nothing": (loss_of(lambda model, batch: batch[0].mean()), ValueError, "depend"),
    "no model": (
        lambda: Case(lambda x: x, mlp().batches, squared_error),  # type: ignore[arg-type]
        TypeError,
        "must be a torch.nn.Module, got function",
    ),
}


@every_probe
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(probe, make, error, message: str) -> None:
    case = make()
    is_readable = isinstance(case.model, nn.Module) and not any(
        isinstance(p, nn.UninitializedParameter) or p.is_meta for p in case.model.parameters()
    )
    with pytest.raises(error, match=message) as caught, left_as_found(case.model) if is_readable else nullcontext():
        probe(case.model, case.batches, loss_fn=case.loss_fn, generator=seeded())
    one_line(caught.value)


class Flash(nn.Module):
    """Attention that insists on its fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])[0, 0]


class Cached(nn.Module):
    """Keeps its last input in a buffer, writes over it in every pass, and multiplies by it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.ones(24, 6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.last, Tensor)
        self.last.copy_(x.detach())
        return x.square() * self.last


@pytest.mark.parametrize(
    ("culprit", "message"),
    [
        (Applied(Once.apply), r"because of submodule '1' \(Applied\) \(the custom function Once is marked once_diff"),
        (
            nn.Sequential(nn.Tanh(), Flash()),
            r"because of submodule '1\.1' \(Flash\) \(.* is not implemented",
        ),
        (Cached(), r"because of submodule '1' \(Cached\) \(.*inplace operation"),
        (
            Applied(Numpy.apply),
            r"'1' \(Applied\) \(the backward of the custom function Numpy leaves the graph",
        ),
    ],
    ids=["once differentiable", "fused attention", "in place", "detached"],
)
def test_what_has_no_second_derivative_is_named(culprit: nn.Module, message: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6), culprit, nn.Linear(6, 3)).double()
    model[1].training = False
    case = Case(initialized(model, seeded()), mlp().batches, squared_error)
    with left_as_found(model), pytest.raises(ValueError, match=message) as caught:
        product(model, case.batches, loss_fn=case.loss_fn, generator=seeded())
    one_line(caught.value)


def test_a_sound_custom_function_is_no_reason_to_refuse() -> None:
    """Linear in a loss that is linear in it: only a seed with a graph tells it from one that leaves the graph."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    case = mlp()
    losses = (lambda m, b: Doubled.apply(m(b[0])).mean(), lambda m, b: 2 * m(b[0]).mean())  # type: ignore[union-attr]
    found = [product(case.model, case.batches, loss_fn=loss, generator=seeded()) for loss in losses]
    torch.testing.assert_close(*found)


def test_the_forward_of_the_model_itself_is_named() -> None:
    model = OnceModel()
    case = Case(model, mlp().batches, squared_error)
    with pytest.raises(ValueError, match=r"because of the forward of the model \(OnceModel\)"):
        product(model, case.batches, loss_fn=case.loss_fn, generator=seeded())


@every_probe
@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu"), torch.inference_mode, torch.no_grad])
def test_the_callers_modes_do_not_reach_inside(probe, mode) -> None:
    """Autocast would round to bfloat16 unsaid."""
    case = mlp()
    case = Case(case.model.float(), [tuple(t.float() for t in b) for b in case.batches], case.loss_fn)
    plain = _numbers(run(probe, case))
    with mode():
        inside = _numbers(run(probe, case))
    assert plain
    np.testing.assert_array_equal(inside, plain)


SCORES, Z = "blocks.{layer}.attn.hook_attn_scores", "blocks.{layer}.attn.hook_z"


def query_error(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) - batch).square().mean(-1)


def knocked_out(model: nn.Module, batch: Any) -> Any:
    edges = np.array([[0, 0, 1], [1, 2, 0]])
    return edge_knockout(model, batch, edges, query_loss=query_error, n_layers=2, n_heads=3)


def ablated(model: nn.Module, batch: Any) -> Any:
    groups = {"all": torch.ones(batch.shape[:2], dtype=torch.bool)}
    sizes: dict[str, Any] = {"n_layers": 2, "n_heads": 3}
    return head_ablation(model, batch, groups, query_loss=query_error, kind="resample", generator=seeded(), **sizes)


HEAD_PROBES: dict[str, Callable[[nn.Module, Any], Any]] = {
    "record_outputs": lambda model, batch: record_outputs(model, [batch], ["blocks.0.attn.hook_pattern"]),
    "edge_knockout": knocked_out,
    "head_ablation": ablated,
}
every_head_probe = pytest.mark.parametrize("probe", HEAD_PROBES.values(), ids=HEAD_PROBES.keys())


def hooked(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    model = initialized(HookedAttention().train(), seeded()).to(dtype)
    return model, torch.randn(3, 4, 6, generator=seeded(1)).to(dtype)


@every_head_probe
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_head_probes_handle_precision_frozen_weights_and_buffers(probe, dtype) -> None:
    model, batch = hooked(dtype)
    model.register_buffer("n_batches", torch.tensor(3))
    next(model.parameters()).requires_grad_(False)
    with left_as_found(model), torch.no_grad():
        assert np.isfinite(_numbers(probe(model, batch))).all()


@every_head_probe
def test_head_probes_refuse_what_has_no_values(probe) -> None:
    model, batch = hooked()
    for wrong in (model.to("meta"), lambda x: x):
        with pytest.raises((ValueError, TypeError), match="meta device|must be a torch.nn.Module") as caught:
            probe(wrong, batch)
        one_line(caught.value)
    model, batch = hooked()
    with left_as_found(model), pytest.raises(ValueError, match="model and data must be on the same device") as caught:
        probe(model, batch.to("meta"))
    one_line(caught.value)


MAY_BE_MISSING = ("drift_p", "step_size", "localization")  # with few draws; a recommendation where nothing is sound


def _numbers(result: Any) -> list[float]:
    """All floats of a result."""
    if isinstance(result, dict):
        return [x for value in result.values() for x in _numbers(value)]
    if isinstance(result, Tensor):
        return result.double().flatten().tolist()
    found: list[float] = []
    for name, value in vars(result).items():
        if name in MAY_BE_MISSING:
            continue
        if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
            found += np.ravel(value).astype(float).tolist()
        elif hasattr(value, "__dataclass_fields__"):
            found += _numbers(value)
    return found


BAD_NUMBERS = {
    "top_eigenvalues": {"k": [0, -1, 10**9], "tolerance": [0.0, -1.0, 1.0, np.nan], "max_matvecs": [0, 1]},
    "spectral_density": {"n_probes": [0, -1], "n_steps": [0, -3], "vectors_at_once": [0, -1]},
    "hessian_trace": {"n_probes": [1, 0, -1]},
    "hessian_blocks": {"k": [0, 10**9], "n_probes": [1], "n_steps": [0]},
    "estimate_llc": {
        "nbeta": [0.0, -1.0, np.nan, np.inf],
        "step_size": [0.0, np.nan, np.inf],
        "localization": [-1.0, np.nan],
        "n_chains": [0],
        "n_draws": [0],
        "n_burnin": [-1],
    },
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "top_eigenvalues": (top_eigenvalues, {"k": 2}),
    "spectral_density": (spectral_density, {"n_probes": 2, "n_steps": 4}),
    "hessian_trace": (hessian_trace, {"n_probes": 2}),
    "hessian_blocks": (hessian_blocks, {"k": 1, "n_probes": 2, "n_steps": 3, "blocks": {"all": None}}),
    "estimate_llc": (estimate_llc, SGLD),
}
MODELS = {"mlp": mlp, **{name: HANDLED[name] for name in HANDLED if name != "fused attention"}}
DEFECTS = {
    name: parts
    for name, parts in REFUSED.items()
    if name not in ("lazy layers", "weights on the meta device", "no model")
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Case, dict[str, Any], str | None]:
    """A probe, a case, its options, and the word that its refusal must hold; None if it must answer."""
    name = draw(st.sampled_from(sorted(FUNCTIONS)))
    options = dict(FUNCTIONS[name][1])
    defect = draw(st.sampled_from([None, *sorted(DEFECTS)]))
    bad = draw(st.sampled_from([None, *sorted(BAD_NUMBERS[name])]))
    case = MODELS[draw(st.sampled_from(sorted(MODELS)))]() if defect is None else DEFECTS[defect][0]()
    if bad is not None:
        options[bad] = draw(st.sampled_from(BAD_NUMBERS[name][bad]))
        return name, case, options, bad if defect is None else ""
    return name, case, options, None if defect is None else ""


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls())
def test_a_hundred_calls_answer_or_refuse(call: tuple[str, Case, dict[str, Any], str | None]) -> None:
    name, case, options, refusal = call
    with left_as_found(case.model):
        answer = answer_or_refusal(FUNCTIONS[name][0], case, options)
    if refusal is None:
        assert not isinstance(answer, Exception), answer
        assert np.isfinite(_numbers(answer)).all()
    else:
        assert isinstance(answer, Exception)
        assert refusal in one_line(answer)


def answer_or_refusal(function: Callable[..., Any], case: Case, options: dict[str, Any]) -> Any:
    try:
        return function(case.model, case.batches, loss_fn=case.loss_fn, generator=seeded(), **options)
    except (ValueError, TypeError) as error:
        return error

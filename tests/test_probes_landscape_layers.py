"""Hessian and Gauss-Newton products on every kind of layer, against dense matrices by another route."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Attention, Case, attention, initialized, mlp, seeded, unchecked
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from probes import SplitLoss, hessian_trace, spectral_density, top_eigenvalues
from probes.landscape import curvature_operator


def outputs_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch[0])


SQUARED = SplitLoss(outputs_of, lambda output, batch: nn.functional.mse_loss(output, batch[1]))
ENTROPY = SplitLoss(outputs_of, lambda output, batch: nn.functional.cross_entropy(output, batch[1]))


class Tied(nn.Module):
    """Tokens in and out by one table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.unembed = nn.Linear(4, 7, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:  # batch pos
        return self.unembed(nn.functional.gelu(self.embed(tokens)).mean(1))


class Multihead(nn.Module):
    """torch's own attention, which takes its fused kernel where it may."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # batch pos d_model
        return self.attn(x, x, x, need_weights=False)[0]


def vectors(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def regression(model: nn.Module, *shape: int) -> Case:
    """Two batches of three, with targets of the outputs' shape; running statistics are set, none is learned."""
    model = initialized(model.double(), seeded()).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(2.0)
    inputs = [vectors(3, *shape, seed=s) for s in (1, 2)]
    with torch.no_grad():
        return Case(model, [(x, vectors(*model(x).shape, seed=3)) for x in inputs], SQUARED)


def tied() -> Case:
    tokens, targets = (torch.randint(7, s, generator=seeded(3)) for s in ((2, 3, 5), (2, 3)))
    model = initialized(Tied().double(), seeded())
    return Case(model, list(zip(tokens, targets, strict=True)), ENTROPY)


LAYERS = {
    "relu": lambda: regression(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), 3),
    "tanh": lambda: regression(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), 3),
    "layer norm, gelu": lambda: regression(
        nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 2)), 3
    ),
    "rms norm, silu": lambda: regression(nn.Sequential(nn.Linear(3, 5), nn.RMSNorm(5), nn.SiLU(), nn.Linear(5, 2)), 3),
    "batch norm": lambda: regression(
        nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Sigmoid(), nn.Linear(5, 2)), 3
    ),
    "convolution": lambda: regression(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)), 1, 6, 6
    ),
    "softmax attention": lambda: regression(Attention(4, 2), 5, 4),
    "fused attention": lambda: regression(Attention(4, 2, is_fused=True), 5, 4),
    "multihead": lambda: regression(Multihead(), 5, 4),
    "tied embedding, cross-entropy": tied,
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def differenced_hessian(case: Case, step: float = 1e-5) -> np.ndarray:
    """Central differences of the gradient, good to 1e-9.

    Not torch.func.hessian: its forward mode over a layer norm is wrong in torch 2.13 (not even symmetric).
    """
    parameters = list(case.model.parameters())

    def gradient() -> Tensor:
        loss = torch.stack([case.loss_fn(case.model, batch) for batch in case.batches]).mean()
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])

    rows = []
    for entries in [p.detach().view(-1) for p in parameters]:
        for i, value in enumerate(entries.tolist()):
            entries[i] = value + step
            above = gradient()
            entries[i] = value - step
            rows.append((above - gradient()) / (2 * step))
            entries[i] = value
    return torch.stack(rows).numpy()


def dense_ggn(case: Case) -> np.ndarray:
    """J^T H_out J from explicit Jacobians of the outputs."""
    weights = {name: p.detach() for name, p in case.model.named_parameters()}
    total: Any = 0
    for batch in case.batches:
        loss: Any = case.loss_fn
        with sdpa_kernel(SDPBackend.MATH):
            columns = jacrev(lambda w, batch=batch: functional_call(case.model, w, (batch[0],)))(weights)
        output = case.model(batch[0]).detach()
        n = output.numel()
        jacobian = torch.cat([columns[name].reshape(n, -1) for name in weights], dim=1)
        curved = jacrev(jacrev(lambda out, batch=batch, loss=loss: loss.output_loss_fn(out, batch)))(output).reshape(
            n, n
        )
        total = total + jacobian.T @ curved @ jacobian
    return (total / len(case.batches)).numpy()


DENSE = {"hessian": (differenced_hessian, 1e-8), "ggn": (dense_ggn, 1e-12)}


@pytest.mark.parametrize("matrix", DENSE)
@every_layer
def test_products_equal_dense(make, matrix) -> None:
    """One vector, and several together, with graphs kept or rebuilt."""
    case = make()
    rows = vectors(5, sum(p.numel() for p in case.model.parameters()))
    dense, accuracy = DENSE[matrix]
    truth = rows.numpy() @ dense(case)
    options: Any = {"loss_fn": case.loss_fn, "matrix": matrix, "vectors_at_once": 3}
    for memory_budget in (0, 2**30):
        with curvature_operator(case.model, case.batches, memory_budget=memory_budget, **options) as operator:
            alone, together = operator(rows[0]), operator.products(rows)
            assert operator.n_matvecs == 6
            assert operator.vectors_at_once == (3 if memory_budget else 1)  # and no model was found not to vectorise
        np.testing.assert_allclose(together.numpy(), truth, rtol=0, atol=accuracy * np.abs(truth).max())
        torch.testing.assert_close(alone, together[0], rtol=1e-12, atol=1e-12)


@every_layer
def test_gauss_newton_spectrum_is_the_dense_one(make) -> None:
    case = make()
    options: Any = {"loss_fn": case.loss_fn, "matrix": "ggn"}
    top = top_eigenvalues(case.model, case.batches, k=4, generator=seeded(), **options)
    trace = hessian_trace(case.model, case.batches, n_probes=40, generator=seeded(), **options)
    density = spectral_density(case.model, case.batches, n_probes=2, n_steps=8, generator=seeded(), **options)
    truth = np.linalg.eigvalsh(dense_ggn(case))[::-1]
    np.testing.assert_allclose(top.values, truth[:4], rtol=1e-6)
    assert abs(trace.value - truth.sum()) < 4 * trace.standard_error
    assert np.nanmin(density.nodes) > -1e-12 * truth[0]  # squared error and cross-entropy are convex


def test_gauss_newton_is_the_hessian_at_a_perfect_fit_and_only_there() -> None:
    case = mlp()
    fitted = [(x, case.model(x).detach()) for x, _ in case.batches]
    rows = vectors(2, 243)
    found = {}
    for name, batches in (("fitted", fitted), ("unfitted", case.batches)):
        for matrix in ("hessian", "ggn"):
            with curvature_operator(case.model, batches, loss_fn=SQUARED, matrix=matrix) as operator:  # type: ignore[arg-type]
                found[name, matrix] = operator.products(rows)
    torch.testing.assert_close(found["fitted", "hessian"], found["fitted", "ggn"], rtol=1e-10, atol=1e-10)
    assert (found["unfitted", "hessian"] - found["unfitted", "ggn"]).norm() > 0.01 * found["unfitted", "ggn"].norm()


def test_a_masked_gauss_newton_product_is_the_sub_block() -> None:
    case = Case(attention().model, attention().batches, SQUARED)
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in case.model.named_parameters()}
    masks["W_K"][1] = masks["W_V"][0] = True
    chosen = torch.cat([mask.reshape(-1) for mask in masks.values()]).numpy()
    truth = dense_ggn(case)[np.ix_(chosen, chosen)]
    rows = vectors(3, len(truth))
    options: Any = {"loss_fn": SQUARED, "matrix": "ggn", "parameters": masks, "vectors_at_once": 3}
    with curvature_operator(case.model, case.batches, **options) as operator:
        ours = operator.products(rows).numpy()
    np.testing.assert_allclose(ours, rows.numpy() @ truth, rtol=0, atol=1e-12 * np.abs(truth).max())


def test_several_probes_at_once_are_the_same_probes() -> None:
    case = mlp()
    options: Any = {"loss_fn": case.loss_fn}
    one, more = (
        spectral_density(
            case.model, case.batches, n_probes=5, n_steps=8, generator=seeded(), vectors_at_once=m, **options
        )
        for m in (1, 3)
    )
    np.testing.assert_allclose(more.nodes, one.nodes, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(more.weights, one.weights, atol=1e-8)
    assert one.n_matvecs == more.n_matvecs == 40
    one, more = (
        hessian_trace(case.model, case.batches, n_probes=5, generator=seeded(), vectors_at_once=m, **options)
        for m in (1, 3)
    )
    np.testing.assert_allclose(more.samples, one.samples, rtol=1e-10)


def test_a_model_that_does_not_vectorise_is_multiplied_row_by_row() -> None:
    class Cubed(torch.autograd.Function):
        """Twice differentiable, but its backward asks for a number, which vmap cannot give."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return Slope.apply(grads[0], x)

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
            ctx.save_for_backward(g, x)
            return 3 * g * x**2

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            g, x = ctx.saved_tensors
            assert grads[0].sum().item() != 1e300
            return 3 * grads[0] * x**2, 6 * grads[0] * g * x

    case = mlp()
    bent = Case(case.model, case.batches, lambda model, batch: Cubed.apply(model(batch[0]) - batch[1]).mean())  # type: ignore[union-attr]
    plain = Case(case.model, case.batches, lambda model, batch: ((model(batch[0]) - batch[1]) ** 3).mean())
    rows = vectors(4, 243)
    found = []
    for each in (bent, plain):
        with curvature_operator(each.model, each.batches, loss_fn=each.loss_fn, vectors_at_once=4) as operator:
            found.append(operator.products(rows))
            assert operator.vectors_at_once == (1 if each is bent else 4)
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vectors_at_once": 0}, ValueError, "vectors_at_once must be at least 1, got 0"),
        ({"matrix": "ggn"}, TypeError, r"give loss_fn=SplitLoss\(output_fn, output_loss_fn\) instead of a function"),
        (
            {"matrix": "ggn", "loss_fn": SplitLoss(lambda model, batch: (model(batch[0]),), lambda o, b: o[0].sum())},  # type: ignore[arg-type,return-value]
            ValueError,
            "output_fn must return a tensor, got tuple",
        ),
        (
            {"matrix": "ggn", "loss_fn": SplitLoss(lambda m, b: m(b[0]).detach(), SQUARED.output_loss_fn)},
            ValueError,
            "output_fn returned an output that depends on no parameter",
        ),
        (
            {"matrix": "ggn", "loss_fn": SplitLoss(outputs_of, lambda output, batch: batch[1].mean())},
            ValueError,
            "output_loss_fn returned a loss that depends on no output",
        ),
    ],
    ids=["vectors", "not split", "no tensor", "no parameter", "no output"],
)
def test_bad_requests_are_refused(options, error, message: str) -> None:
    case = mlp()
    options = {"loss_fn": case.loss_fn, **options}
    with pytest.raises(error, match=message):
        unchecked(hessian_trace)(case.model, case.batches, n_probes=2, generator=seeded(), **options)

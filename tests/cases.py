"""Small named cases (model, loss, data), a dense Hessian to compare with, and the check that nothing was touched."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian


@dataclass(frozen=True)
class Case:
    model: nn.Module
    batches: list[Any]
    loss_fn: Callable[[nn.Module, Any], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return nn.functional.mse_loss(model(inputs), targets)


class Attention(nn.Module):
    """One layer of attention, heads as slices of the weights, read out at every position."""

    def __init__(self, d_model: int = 8, n_heads: int = 2, *, is_fused: bool = False) -> None:
        super().__init__()
        d_head = d_model // n_heads
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(n_heads, d_model, d_head)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(n_heads, d_head, d_model))
        self.is_fused = is_fused

    def forward(self, x: Tensor) -> Tensor:  # batch pos d_model
        q, k, v = (torch.einsum("bpd,hde->bhpe", x, w) for w in (self.W_Q, self.W_K, self.W_V))
        if self.is_fused:
            z = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            scores = torch.einsum("bhqe,bhke->bhqk", q, k) / q.shape[-1] ** 0.5
            z = torch.einsum("bhqk,bhke->bhqe", scores.softmax(-1), v)
        return torch.einsum("bhpe,hed->bpd", z, self.W_O)


class Quadratic(nn.Module):
    """L(w) = 1/2 w^T H w + b^T w with a given spectrum in a random orthonormal basis."""

    def __init__(self, spectrum: Any, generator: torch.Generator) -> None:
        super().__init__()
        values = torch.as_tensor(np.asarray(spectrum), dtype=torch.float64)
        n = len(values)
        basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
        self.hessian: Tensor = (basis * values) @ basis.T
        self.linear: Tensor = torch.randn(n, generator=generator, dtype=torch.float64)
        self.w = nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64))


def quadratic_loss(model: nn.Module, batch: float) -> Tensor:
    assert isinstance(model, Quadratic)
    return batch * (0.5 * model.w @ model.hessian @ model.w + model.linear @ model.w)


def quadratic(spectrum: Any, seed: int = 0) -> Case:
    """Its batches have weights 0.5 and 1.5, so the mean over batches has exactly the given Hessian."""
    return Case(Quadratic(spectrum, seeded(seed)), [0.5, 1.5], quadratic_loss)


class HookedAttention(nn.Module):
    """Attention layers on a residual stream, with TransformerLens' names for scores, pattern and z, in plain torch."""

    def __init__(self, n_layers: int = 2, n_heads: int = 3, d_model: int = 6, d_head: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Module() for _ in range(n_layers))
        for block in self.blocks:
            attn = block.attn = nn.Module()
            for name in ("W_Q", "W_K", "W_V"):
                attn.register_parameter(name, nn.Parameter(torch.zeros(n_heads, d_model, d_head, dtype=torch.float64)))
            attn.W_O = nn.Parameter(torch.zeros(n_heads, d_head, d_model, dtype=torch.float64))
            attn.hook_attn_scores, attn.hook_pattern, attn.hook_z = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # scene pos d_model
        for block in self.blocks:
            attn: Any = block.attn
            q, k, v = (torch.einsum("spd,hde->sphe", x, w) for w in (attn.W_Q, attn.W_K, attn.W_V))
            pattern = attn.hook_pattern(attn.hook_attn_scores(torch.einsum("sqhe,skhe->shqk", q, k)).softmax(-1))
            z = attn.hook_z(torch.einsum("shqk,skhe->sqhe", pattern, v))
            x = x + torch.einsum("sqhe,hed->sqd", z, attn.W_O)
        return x


def initialized(model: nn.Module, generator: torch.Generator, scale: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def mlp(d_in: int = 6, d_hidden: int = 24, d_out: int = 3, *, n_samples: int = 48, seed: int = 0) -> Case:
    """Two layers of tanh on a noisy linear map, two batches, float64; 243 parameters by default."""
    generator = seeded(seed)
    net = nn.Sequential(nn.Linear(d_in, d_hidden), nn.Tanh(), nn.Linear(d_hidden, d_out)).double()
    model = initialized(net, generator)
    inputs = torch.randn(n_samples, d_in, generator=generator, dtype=torch.float64)
    targets = inputs[:, :d_out] + 0.3 * torch.randn(n_samples, d_out, generator=generator, dtype=torch.float64)
    return Case(model, list(zip(inputs.chunk(2), targets.chunk(2), strict=True)), squared_error)


def attention(*, is_fused: bool = False, d_model: int = 8, n_heads: int = 2, seed: int = 0) -> Case:
    """Self-attention over five tokens, two batches, float64; 256 parameters by default."""
    generator = seeded(seed)
    model = initialized(Attention(d_model, n_heads, is_fused=is_fused).double(), generator)
    inputs = torch.randn(12, 5, d_model, generator=generator, dtype=torch.float64)
    targets = inputs.roll(1, dims=1) + 0.1 * torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
    return Case(model, list(zip(inputs.chunk(2), targets.chunk(2), strict=True)), squared_error)


def trained(case: Case, n_steps: int = 60, lr: float = 0.02) -> Case:
    """The same case after a few full-batch Adam steps; the model is changed in place."""
    optimizer = torch.optim.Adam(case.model.parameters(), lr=lr)
    for _ in range(n_steps):
        optimizer.zero_grad()
        torch.stack([case.loss_fn(case.model, batch) for batch in case.batches]).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return case


def dense_hessian(case: Case) -> np.ndarray:
    """Hessian of the mean loss over all parameters by torch.func, a route that shares no code with ours."""
    parameters = {name: p.detach() for name, p in case.model.named_parameters()}
    shapes = [p.shape for p in parameters.values()]
    sizes = [p.numel() for p in parameters.values()]
    flat = torch.cat([p.reshape(-1) for p in parameters.values()])

    def loss(vector: Tensor) -> Tensor:
        pieces = [piece.reshape(shape) for piece, shape in zip(vector.split(sizes), shapes, strict=True)]
        module = _Called(case.model, dict(zip(parameters, pieces, strict=True)))
        return torch.stack([case.loss_fn(module, batch) for batch in case.batches]).mean()

    with warnings.catch_warnings():  # torch's own forward-mode rules still go through torch.jit.script
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        return hessian(loss)(flat).numpy()


class _Called(nn.Module):
    """The model with other weights put in, for losses that only call the model."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._call = lambda *args: functional_call(model, weights, args)

    def forward(self, *args: Any) -> Any:
        return self._call(*args)


def in_float32(case: Case) -> Case:
    """The same case in single precision; the model is changed in place."""
    return Case(case.model.float(), [tuple(t.float() for t in batch) for batch in case.batches], case.loss_fn)


def unchecked(function: Any) -> Any:
    """The function as users call it, without the run-time type checks of the tests: its own refusals are heard."""

    def call(*args: Any, **options: Any) -> Any:
        with torch.no_grad():  # unwrapping also takes that off
            return inspect.unwrap(function)(*args, **options)

    return call


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Fail unless weights, gradients, buffers, flags, hooks and the global random state are the same afterwards."""
    before = _fingerprint(model)
    yield
    after = _fingerprint(model)
    for what, value in before.items():
        assert after[what] == value, f"{what} changed"


def _fingerprint(model: nn.Module) -> dict[str, Any]:
    def content(t: Tensor | None) -> Any:
        return None if t is None else (id(t), t.dtype, t.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())

    modules = list(model.modules())
    return {
        "parameters": {name: content(p) for name, p in model.named_parameters()},
        "gradients": {name: content(p.grad) for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "buffers": {name: content(b) for name, b in model.named_buffers()},
        "training": [module.training for module in modules],
        "hooks": [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in modules],
        "random state": torch.get_rng_state().numpy().tobytes(),
        "grad mode": torch.is_grad_enabled(),
    }

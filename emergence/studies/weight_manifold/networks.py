"""Ways to let a network know its context; all are called as ``network(inputs, contexts)``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...interventions import weight_manifold
from ...perceptron import Perceptron
from .config import ArmName, TaskName
from .task import CONTEXTS, N_CLASSES, N_INPUTS, uniform

MANIFOLDS: dict[TaskName, weight_manifold.WeightManifold] = {
    "rotated-digits": weight_manifold.Ellipse(),
    "noisy-digits": weight_manifold.Line(),
}
"""Angles lie on a circle, strengths on a line; the wrong topology is that of the other task."""

N_SEPARATE = 5
"""Networks that share the learnt contexts among them, evenly; our choice."""


class Concatenated(nn.Module):
    """The context beside the inputs, as it is or through basis functions."""

    def __init__(self, basis: Callable[[Tensor], Tensor], n_basis: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.basis = basis
        self.network = Perceptron([N_INPUTS + n_basis, width, width, N_CLASSES], generator)

    def forward(self, x: Float[Tensor, "batch 64"], context: Float[Tensor, " batch"]) -> Float[Tensor, "batch 10"]:
        """Logits."""
        return self.network(torch.cat([x, self.basis(context)], dim=-1))


class FiLM(nn.Module):
    """Each hidden unit scaled and shifted by linear functions of the basis (Perez et al. 2018, arXiv 1709.07871)."""

    def __init__(self, basis: Callable[[Tensor], Tensor], n_basis: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.basis, self.width = basis, width
        self.network = Perceptron([N_INPUTS, width, width, N_CLASSES], generator)
        self.modulation = nn.Parameter(torch.zeros(2, 2, n_basis, width))  # layer, (scale, shift), basis, unit

    def forward(self, x: Float[Tensor, "batch 64"], context: Float[Tensor, " batch"]) -> Float[Tensor, "batch 10"]:
        """Logits."""
        f, layer = self.basis(context), 0
        for module in self.network:
            x = module(x)
            if isinstance(module, nn.Linear) and layer < len(self.modulation):
                scale, shift = f @ self.modulation[layer][0], f @ self.modulation[layer][1]
                x, layer = (1 + scale) * x + shift, layer + 1
        return x


class Separate(nn.Module):
    """A network for each part of the learnt contexts; the one whose part has its middle nearest answers."""

    middles: Tensor

    def __init__(self, task: TaskName, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.is_circle = MANIFOLDS[task].is_periodic
        sizes = [N_INPUTS, width, width, N_CLASSES]
        self.networks = nn.ModuleList([Perceptron(sizes, generator) for _ in range(N_SEPARATE)])
        shares = (torch.arange(N_SEPARATE, dtype=torch.float64) + 0.5) / N_SEPARATE
        self.register_buffer("middles", torch.from_numpy(uniform(CONTEXTS[task].learnt, shares.numpy())).float())

    def forward(self, x: Float[Tensor, "batch 64"], context: Float[Tensor, " batch"]) -> Float[Tensor, "batch 10"]:
        """Logits."""
        away = (context[:, None] - self.middles).abs()
        if self.is_circle:
            away = torch.minimum(away, 1 - away)
        answers = torch.stack([network(x) for network in self.networks])
        return answers[away.argmin(-1), torch.arange(len(x))]


def make_network(arm: ArmName, task: TaskName, width: int, generator: torch.Generator) -> nn.Module:
    """The network of an arm, freshly drawn."""
    manifold = MANIFOLDS[task]
    if arm in ("manifold", "plain_gradient", "wrong_topology"):
        if arm == "wrong_topology":
            (manifold,) = (other for name, other in MANIFOLDS.items() if name != task)
        plain = Perceptron([N_INPUTS, width, width, N_CLASSES], generator)
        return weight_manifold.convert(plain, "linear*", manifold, generator=generator)
    if arm == "separate":
        return Separate(task, width, generator)
    if arm == "film":
        return FiLM(manifold.basis, manifold.n_points, width, generator)
    basis, n_basis = (_raw, 1) if arm in ("raw", "raw_wide") else (manifold.basis, manifold.n_points)
    if arm.endswith("wide"):
        width = matched_width(manifold.n_points * n_numbers(N_INPUTS, width), N_INPUTS + n_basis)
    return Concatenated(basis, n_basis, width, generator)


def n_numbers(n_in: int, width: int) -> int:
    """Weights and biases of two hidden layers."""
    return (n_in + 1) * width + (width + 1) * width + (width + 1) * N_CLASSES


def matched_width(n: int, n_in: int) -> int:
    """The width at which a network has ``n`` numbers, rounded: ``w^2 + (n_in + 2 + classes) w + classes = n``."""
    half = (n_in + 2 + N_CLASSES) / 2
    return round(math.sqrt(half**2 + n - N_CLASSES) - half)


def _raw(context: Tensor) -> Tensor:
    return context[:, None]

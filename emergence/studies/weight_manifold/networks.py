"""Ways to let a network know its context; all are called as ``network(inputs, contexts)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...config import ModelConfig
from ...interventions import weight_manifold
from ...interventions.weight_manifold.context import at_coefficients, current_coefficients
from ...model import ParticleTransformer
from ...perceptron import Perceptron
from . import digits, particles
from .config import DIGITS, ArmName, TaskName
from .contexts import CONTEXTS, MANIFOLDS, WRONG, contexts_of, even_shares

N_SEPARATE = 5
"""Networks that share the learnt contexts among them, evenly; our choice."""
N_LAYERS, N_HEADS = 2, 4
Basis = Callable[[Tensor], Tensor]


class Unaware(nn.Module):
    """A network that is not told its context."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "batch ..."], context: Float[Tensor, "batch ..."]) -> Tensor:
        """What it answers at any context."""
        return self.network(x)


class Concatenated(nn.Module):
    """The context beside the inputs (of every particle), as it is or through basis functions."""

    def __init__(self, network: nn.Module, basis: Basis) -> None:
        super().__init__()
        self.network, self.basis = network, basis

    def forward(self, x: Float[Tensor, "batch ..."], context: Float[Tensor, "batch ..."]) -> Tensor:
        """What it answers."""
        f = _beside(self.basis(context), x)
        return self.network(torch.cat([x, f.expand(*x.shape[:-1], f.shape[-1])], dim=-1))


class FiLM(nn.Module):
    """Units scaled and shifted by linear functions of the basis (Perez et al. 2018, arXiv 1709.07871).

    Args:
        network: some of its layers are replaced, in place.
        layers: their names.
        basis, n_basis: functions of the context, and how many.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], basis: Basis, n_basis: int) -> None:
        super().__init__()
        self.network, self.basis = network, basis
        for name in layers:
            network.set_submodule(name, Modulated(network.get_submodule(name), n_basis))

    def forward(self, x: Float[Tensor, "batch ..."], context: Float[Tensor, "batch ..."]) -> Tensor:
        """What it answers."""
        with at_coefficients(self.basis(context)):
            return self.network(x)


class Modulated(nn.Module):
    """A layer whose outputs are scaled and shifted; neither, at the start."""

    def __init__(self, layer: nn.Module, n_basis: int) -> None:
        super().__init__()
        self.layer = layer
        n_units = len(next(layer.parameters()))
        self.modulation = nn.Parameter(torch.zeros(2, n_basis, n_units))  # scale and shift

    def forward(self, x: Float[Tensor, "batch ..."]) -> Tensor:
        """The layer's outputs at the context of this pass."""
        outputs = self.layer(x)
        scale, shift = (_beside(current_coefficients("FiLM", x) @ m, outputs) for m in self.modulation)
        return (1 + scale) * outputs + shift


class Separate(nn.Module):
    """Networks that each have a part of the learnt contexts; the one with the middle of its part nearest answers.

    Args:
        networks: as many as there are parts.
        middles: of the parts, (n, axis).
        is_periodic: whether contexts lie on circles.
    """

    middles: Tensor

    def __init__(self, networks: Sequence[nn.Module], middles: Float[Tensor, "n axis"], is_periodic: bool) -> None:
        super().__init__()
        self.networks, self.is_periodic = nn.ModuleList(networks), is_periodic
        self.register_buffer("middles", middles)

    def forward(self, x: Float[Tensor, "batch ..."], context: Float[Tensor, "batch ..."]) -> Tensor:
        """What each example's own network answers."""
        away = (context.view(len(x), 1, -1) - self.middles).abs()
        if self.is_periodic:
            away = torch.minimum(away, 1 - away)
        nearest = away.square().sum(-1).argmin(-1)
        order = nearest.argsort(stable=True)
        counts = nearest.bincount(minlength=len(self.networks)).tolist()
        answers = [network(part) for network, part in zip(self.networks, x[order].split(counts), strict=True)]
        return torch.cat(answers)[order.argsort()]


def make_network(arm: ArmName, task: TaskName, width: int, generator: torch.Generator) -> nn.Module:
    """The network of an arm, freshly drawn."""
    manifold = WRONG[task] if arm == "wrong_topology" else MANIFOLDS[task]
    n_basis = manifold.n_points
    if arm in ("manifold", "plain_gradient", "wrong_topology"):
        plain = backbone(task, 0, width, generator)
        return weight_manifold.convert(plain, _layers(task), manifold, generator=generator)
    if arm == "plain":
        return Unaware(backbone(task, 0, width, generator))
    if arm == "separate":
        networks = [backbone(task, 0, width, generator) for _ in range(N_SEPARATE)]
        middles = contexts_of(task, "learnt", even_shares(task, N_SEPARATE))
        return Separate(networks, torch.from_numpy(middles).float(), manifold.is_periodic)
    if arm == "film":
        return FiLM(backbone(task, 0, width, generator), _modulated_layers(task), manifold.basis, n_basis)
    n_axes = len(CONTEXTS[task])
    basis, n_more = (_raw, n_axes) if arm in ("raw", "raw_wide") else (manifold.basis, n_basis)
    if arm.endswith("wide"):
        width = matched_width(task, n_more, _n_numbers(make_network("manifold", task, width, torch.Generator())))
    return Concatenated(backbone(task, n_more, width, generator), basis)


def backbone(task: TaskName, n_more: int, width: int, generator: torch.Generator) -> nn.Module:
    """A perceptron with two hidden layers, or a particle transformer, with so many more inputs."""
    if task in DIGITS:
        return Perceptron([digits.N_INPUTS + n_more, width, width, digits.N_CLASSES], generator)
    config = ModelConfig(n_layers=N_LAYERS, n_heads=N_HEADS, d_model=width, d_head=width // N_HEADS, d_mlp=4 * width)
    return ParticleTransformer(config, particles.N_FEATURES + n_more, particles.N_OUTPUTS, generator)


def matched_width(task: TaskName, n_more: int, n: int) -> int:
    """The width at which a network with more inputs has nearest to ``n`` numbers."""
    step = 1 if task in DIGITS else N_HEADS

    def numbers(width: int) -> int:
        return _n_numbers(backbone(task, n_more, width, torch.Generator()))

    low, high = step, step * math.isqrt(n)  # numbers grow with the square of the width
    while high - low > step:
        middle = (low + high) // (2 * step) * step
        low, high = (middle, high) if numbers(middle) < n else (low, middle)
    return min((low, high), key=lambda width: abs(numbers(width) - n))


def _layers(task: TaskName) -> tuple[str, ...]:
    return ("linear*",) if task in DIGITS else ("blocks.*.attn", "blocks.*.mlp")


def _modulated_layers(task: TaskName) -> list[str]:
    if task in DIGITS:
        return ["linear0", "linear1"]
    return [f"blocks.{layer}.{norm}" for layer in range(N_LAYERS) for norm in ("ln1", "ln2")]


def _n_numbers(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _beside(f: Float[Tensor, "batch n"], x: Float[Tensor, "batch ... m"]) -> Tensor:
    """With an axis of one for each that ``x`` has between the first and the last."""
    return f.view(len(f), *[1] * (x.dim() - 2), -1)


def _raw(context: Tensor) -> Tensor:
    return context.view(len(context), -1)

"""A particle transformer whose weights follow the scene it reads: no context has to be given."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from emergence.model import ParticleTransformer, head_masks

from .context import at_coefficients
from .convert import ManifoldModel, at, convert
from .manifolds import WeightManifold


class SteeredTransformer(ParticleTransformer):
    """Finds its context, how hot a scene is, in the velocities that it reads; otherwise the plain model.

    Attributes:
        manifold: where its weights are.
        velocities: columns of the features, normalised to a deviation of one.
    """

    manifold: WeightManifold
    velocities: slice

    def forward(self, features: Float[Tensor, "batch particle feature"]) -> Float[Tensor, "batch particle output"]:
        """Predict with the weights of each scene's own context."""
        context = colder_share(features[..., self.velocities])
        with at_coefficients(self.manifold.basis(context)):
            return super().forward(features)


def colder_share(velocities: Float[Tensor, "batch particle dim"]) -> Float[Tensor, " batch"]:
    """The share of scenes at equilibrium whose squared velocities add up to less.

    Velocities of deviation one that follow Maxwell's distribution have a chi-squared sum; its cumulative distribution
    spreads such scenes evenly over zero to one.
    """
    n = velocities.shape[-2] * velocities.shape[-1]
    half = velocities.new_tensor(n / 2)
    return torch.special.gammainc(half, velocities.square().sum((-2, -1)) / 2)


def steer(
    model: ParticleTransformer,
    layers: str | Iterable[str],
    manifold: WeightManifold | str,
    *,
    dim: int,
    generator: torch.Generator,
) -> SteeredTransformer:
    """Convert a particle transformer to one that is steered by how hot each scene is.

    Args:
        model: it is left as it is.
        layers: as for ``convert``.
        manifold: one whose context is one number.
        dim: of space; features begin with position and velocity.
        generator: as for ``convert``.

    Raises:
        TypeError, ValueError: as ``convert``.
    """
    converted = convert(model, layers, manifold, generator=generator)
    steered = converted.model
    steered.__class__ = SteeredTransformer
    assert isinstance(steered, SteeredTransformer)
    steered.manifold, steered.velocities = converted.manifold, slice(dim, 2 * dim)
    return steered


def on_manifold(model: SteeredTransformer) -> ManifoldModel:
    """The same weights as a model that is told its context, for ``precondition`` and the like."""
    return ManifoldModel(model, model.manifold)


def plain_at(model: SteeredTransformer, context: float) -> ParticleTransformer:
    """The ordinary transformer at one context."""
    plain = at(on_manifold(model), context)
    plain.__class__ = ParticleTransformer
    assert isinstance(plain, ParticleTransformer)
    del plain.manifold, plain.velocities
    return plain


@head_masks.register
def _(model: SteeredTransformer) -> dict[tuple[int, int], dict[str, Tensor]]:
    """A head is its slices at every point."""
    points = dict(model.named_parameters())
    return {
        place: {name: mask.expand_as(points[name]).clone() for name, mask in masks.items()}
        for place, masks in head_masks(plain_at(model, 0.5)).items()
    }

"""Attention, MLP and read-out of the particle transformer on the rule.

Replaced are the linear maps alone: ``Attention.project`` (W_Q W_K W_V), ``Attention.merge`` (W_O), ``MLP.linear`` and
``ParticleTransformer.read_out`` (W_U). What lies between them, the softmax over particles included, passes gradients
as ever.
"""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from emergence.model import MLP, Attention, ParticleTransformer

from .layers import NextLayer
from .linear_maps import DENSE


class NextLayerAttention(NextLayer, Attention):
    """A listener is a number of some head's query, key or value; for W_O, one of the residual stream."""

    plain = Attention
    weights = ("W_Q", "W_K", "W_V", "W_O")

    def project(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        """The plain layer's."""
        name = next(name for name in self.weights if getattr(self, name) is W)
        flat = self.hear(name, DENSE, x, _all_heads(W).T, b.flatten())
        return rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=W.shape[0])

    def merge(self, z: Float[Tensor, "batch pos z"]) -> Float[Tensor, "batch pos d_model"]:
        """The plain layer's."""
        return self.hear("W_O", DENSE, z, self.W_O.flatten(0, 1).T, self.b_O)

    @classmethod
    def listeners(cls, module: nn.Module, name: str) -> Tensor:
        """The heads' weights as one."""
        weight = getattr(module, name)
        return weight.flatten(0, 1).T if name == "W_O" else _all_heads(weight).T


class NextLayerMLP(NextLayer, MLP):
    """Both maps."""

    plain = MLP
    weights = ("W_in", "W_out")

    def linear(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos n_out"]:
        """Either of its two maps."""
        return self.hear("W_in" if W is self.W_in else "W_out", DENSE, x, W.T, b)

    @classmethod
    def listeners(cls, module: nn.Module, name: str) -> Tensor:
        """Outputs first."""
        return getattr(module, name).T


class NextLayerParticleTransformer(NextLayer, ParticleTransformer):
    """Its read-out alone; the blocks are layers of their own."""

    plain = ParticleTransformer
    weights = ("W_U",)

    def read_out(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos n_out"]:
        """The plain model's."""
        return self.hear("W_U", DENSE, resid, self.W_U.T, self.b_U)

    @classmethod
    def listeners(cls, module: nn.Module, name: str) -> Tensor:
        """Outputs first."""
        return getattr(module, name).T


def _all_heads(weight: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "d_model z"]:
    return rearrange(weight, "head d_model d_head -> d_model (head d_head)")


PARTICLE_LAYERS: dict[type[nn.Module], type[NextLayer]] = {
    cls.plain: cls for cls in (NextLayerAttention, NextLayerMLP, NextLayerParticleTransformer)
}
"""The particle transformer and its layers to those on the rule."""

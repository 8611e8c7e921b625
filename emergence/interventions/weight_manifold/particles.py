"""Attention and MLP of the particle transformer on a manifold; their forward and hooks are those of the plain ones.

Replaced are the linear maps alone: ``Attention.project`` (W_Q W_K W_V), ``Attention.merge`` (W_O) and ``MLP.linear``.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from emergence.model import MLP, Attention

from .context import current_coefficients
from .layers import OnManifold, combined, mixed


class ManifoldAttention(OnManifold, Attention):
    """Each weight has the points in front: ``W_Q`` is ``(k, head, d_model, d_head)``."""

    plain = Attention

    def project(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        """The points are like more heads until their outputs are mixed."""
        f = current_coefficients("Attention", x)
        if f.dim() == 1:
            return super().project(x, combined(W, f), combined(b, f))
        outputs = super().project(x, W.flatten(0, 1), b.flatten(0, 1))  # batch pos (k head) d_head
        return mixed(outputs.unflatten(2, b.shape[:2]), f, 2)

    def merge(self, z: Float[Tensor, "batch pos z"]) -> Float[Tensor, "batch pos d_model"]:
        """The output map of all heads."""
        return _linear(z, self.W_O.flatten(1, 2), self.b_O, "Attention")


class ManifoldMLP(OnManifold, MLP):
    """Each weight has the points in front: ``W_in`` is ``(k, d_model, d_mlp)``."""

    plain = MLP

    def linear(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos n_out"]:
        """Either of its two maps."""
        return _linear(x, W, b, "MLP")


def _linear(x: Tensor, W: Float[Tensor, "k n_in n_out"], b: Float[Tensor, "k n_out"], layer: str) -> Tensor:
    f = current_coefficients(layer, x)
    if f.dim() == 1:
        return F.linear(x, combined(W, f).T, combined(b, f))
    outputs = F.linear(x, W.mT.flatten(0, 1), b.flatten())  # batch pos (k n_out)
    return mixed(outputs.unflatten(-1, b.shape), f, outputs.dim() - 1)


PARTICLE_LAYERS: dict[type[nn.Module], type[OnManifold]] = {cls.plain: cls for cls in (ManifoldAttention, ManifoldMLP)}
"""The particle transformer's layers to those on a manifold."""

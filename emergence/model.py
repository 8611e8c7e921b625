"""A transformer with one token a particle: it reads a scene and writes how each particle will have changed."""

from __future__ import annotations

import math
from functools import singledispatch
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from probes import head_parameters

from .config import ModelConfig


class Attention(nn.Module):
    """Full (non-causal) multi-head attention between particles.

    Two paths compute the same function. The fused one is for speed; the explicit one materialises scores and
    pattern, and is taken when one of the two is hooked or when ``explicit`` is set, as second-order derivatives
    need it (the fused kernel has no double backward).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = (config.n_heads, config.d_model, config.d_head)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(shape)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(config.n_heads, config.d_head, config.d_model))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(config.n_heads, config.d_head)) for _ in range(3))
        self.b_O = nn.Parameter(torch.zeros(config.d_model))
        self.scale = 1 / math.sqrt(config.d_head)
        self.explicit = False
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern, self.hook_z = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Mix information between particles."""
        q, k, v = (
            hook(self.project(x, W, b))
            for hook, W, b in (
                (self.hook_q, self.W_Q, self.b_Q),
                (self.hook_k, self.W_K, self.b_K),
                (self.hook_v, self.W_V, self.b_V),
            )
        )
        z = self._explicit(q, k, v) if self._pattern_needed() else self._fused(q, k, v)
        return self.merge(rearrange(self.hook_z(z), "batch pos head d_head -> batch pos (head d_head)"))

    def project(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        """One matrix product for all heads of a kind."""
        W_all = rearrange(W, "head d_model d_head -> d_model (head d_head)")  # copied in runs of d_head, not one by one
        flat = F.linear(x, W_all.T, b.flatten())
        return rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=W.shape[0])

    def merge(self, z: Float[Tensor, "batch pos z"]) -> Float[Tensor, "batch pos d_model"]:
        """One matrix product for what all heads write."""
        return F.linear(z, self.W_O.flatten(0, 1).T, self.b_O)

    def _pattern_needed(self) -> bool:
        hooks = (self.hook_attn_scores, self.hook_pattern)
        return self.explicit or any(hook._forward_hooks or hook._backward_hooks for hook in hooks)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = einsum(q, k, "batch query head d, batch key head d -> batch head query key") * self.scale
        pattern = self.hook_pattern(self.hook_attn_scores(scores).softmax(dim=-1))
        return einsum(pattern, v, "batch head query key, batch key head d -> batch query head d")

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # batch head pos d
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2)  # batch pos head d


class MLP(nn.Module):
    """Two linear maps with a GELU between, applied to each particle alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(config.d_model, config.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(config.d_mlp))
        self.W_out = nn.Parameter(torch.empty(config.d_mlp, config.d_model))
        self.b_out = nn.Parameter(torch.zeros(config.d_model))
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Transform each particle's features."""
        pre = self.hook_pre(self.linear(x, self.W_in, self.b_in))
        return self.linear(self.hook_post(F.gelu(pre)), self.W_out, self.b_out)

    def linear(self, x: Tensor, W: Tensor, b: Tensor) -> Float[Tensor, "batch pos n_out"]:
        """Either of its two maps."""
        return F.linear(x, W.T, b)


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.attn, self.mlp = Attention(config), MLP(config)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Update the residual stream."""
        resid = self.hook_resid_pre(resid)
        resid = self.hook_resid_mid(resid + self.hook_attn_out(self.attn(self.ln1(resid))))
        return self.hook_resid_post(resid + self.hook_mlp_out(self.mlp(self.ln2(resid))))


class ParticleTransformer(HookedRootModule):
    """Predicts the normalised change of every particle's state over one frame interval.

    No positional index: permuting the particles permutes the outputs. Hook points carry TransformerLens' names
    (``blocks.0.attn.hook_pattern``, ``blocks.1.hook_resid_post``, ...), so its hooks, caches and patching work;
    ``run_with_cache`` returns a dictionary.

    Args:
        config: sizes.
        n_features: input features a particle; see ``emergence.data`` for ours.
        n_outputs: predicted quantities a particle, positions then velocities.
        generator: draws the initial weights. None leaves them undefined, for loading a checkpoint into.
    """

    def __init__(
        self, config: ModelConfig, n_features: int, n_outputs: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.cfg = config
        self.W_E = nn.Parameter(torch.empty(n_features, config.d_model))
        self.b_E = nn.Parameter(torch.zeros(config.d_model))
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = nn.LayerNorm(config.d_model)
        self.W_U = nn.Parameter(torch.empty(config.d_model, n_outputs))
        self.b_U = nn.Parameter(torch.zeros(n_outputs))
        self.setup()
        if generator is not None:
            self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw each weight matrix from a normal of standard deviation 1/sqrt(fan in).

        ==========  ==========================================================
        W_E         1/sqrt(n_features)
        W_Q W_K W_V 1/sqrt(d_model)
        W_O, W_out  1/sqrt(fan in) / sqrt(2 n_layers), so depth keeps the variance of the residual stream
        W_in        1/sqrt(d_model)
        W_U         1/sqrt(d_model) / 10: predictions start near zero, "nothing will change"
        biases      0; layer norms 1 and 0
        ==========  ==========================================================
        """
        into_stream = 1 / math.sqrt(2 * self.cfg.n_layers)
        for name, parameter in self.named_parameters():
            kind = name.rsplit(".", 1)[-1]
            if not kind.startswith("W_"):
                continue
            fan_in = {
                "W_E": parameter.shape[0],
                "W_O": self.cfg.n_heads * self.cfg.d_head,
                "W_out": self.cfg.d_mlp,
            }
            gain = {"W_O": into_stream, "W_out": into_stream, "W_U": 0.1}.get(kind, 1.0)
            std = gain / math.sqrt(fan_in.get(kind, self.cfg.d_model))
            parameter.normal_(0.0, std, generator=generator)

    def forward(self, features: Float[Tensor, "batch particle feature"]) -> Float[Tensor, "batch particle output"]:
        """Predict the normalised change of state of each particle."""
        resid = self.hook_embed(F.linear(features, self.W_E.T, self.b_E))
        for block in self.blocks:
            resid = block(resid)
        return self.read_out(self.ln_final(resid))

    def read_out(self, resid: Float[Tensor, "batch particle d_model"]) -> Float[Tensor, "batch particle output"]:
        """From the residual stream to predictions."""
        return F.linear(resid, self.W_U.T, self.b_U)

    def use_explicit_attention(self, explicit: bool = True) -> ParticleTransformer:
        """Choose the attention path for good; second-order probes need the explicit one. Returns the model."""
        for block in self.layers:
            block.attn.explicit = explicit
        return self

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their type."""
        return cast(list[Block], list(self.blocks))


@singledispatch
def head_masks(model: ParticleTransformer) -> dict[tuple[int, int], dict[str, Tensor]]:
    """Boolean masks of the weights of each head (its slices of W_Q, W_K, W_V and W_O), by (layer, head).

    These are the scopes of a head's refined learning coefficient and of its block of the Hessian.
    """
    places = product(range(len(model.layers)), range(model.cfg.n_heads))
    return dict(zip(places, head_parameters(model).values(), strict=True))

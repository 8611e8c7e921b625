"""Who wrote the output: the final residual stream split into what each component put there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .groups import Groups, interval
from .hooking import named_submodule, record_outputs, replaced_output
from .isolation import isolated

HOOKS = re.compile(r"(hook_embed|hook_pos_embed|blocks\.\d+\.hook_(attn|mlp)_out)")
"""TransformerLens' names of all that is added up in the residual stream."""


@dataclass(frozen=True)
class OutputAttribution:
    """The output as a sum: what each component wrote, seen through the last layer norm and the read-out.

    Attributes:
        components: names; a head is ``blocks.0.attn.hook_z[2]``, the bias its layer adds after the heads
            ``blocks.0.hook_attn_out bias``.
        contributions: of each component to each output, shape (component, scene, ...).
        constant: what the output is with nothing in the residual stream: biases of norm and read-out.
        output: of the model; contributions and constant add up to it.
        largest_error: greatest difference between that sum and the output.
        n_forward: forward passes spent.
    """

    components: tuple[str, ...]
    contributions: Float[np.ndarray, "component scene ..."]
    constant: Float[np.ndarray, "scene ..."]
    output: Float[np.ndarray, "scene ..."]
    largest_error: float
    n_forward: int

    def share(self, groups: Groups | None = None) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, "c 2"]]:
        """Share of each component in the mean square of the output (less the constant), with its 95 % interval.

        The shares add up to 1. A component that works against the others has a negative one.

        Args:
            groups: label of the independent unit each scene belongs to; None takes scenes for independent.
        """
        varying = self.output - self.constant
        along = (self.contributions * varying).reshape(*self.contributions.shape[:2], -1).sum(axis=-1).T
        total = (varying**2).reshape(len(varying), -1).sum(axis=-1, keepdims=True)
        share = along.sum(axis=0) / total.sum()
        return share, interval(share, (along - share * total) / total.sum(), groups)


@torch.no_grad()
def attribute_output(
    model: nn.Module,
    inputs: Any,
    *,
    components: Sequence[str] | None = None,
    heads: Mapping[str, str] | None = None,
    final_norm: str = "ln_final",
) -> OutputAttribution:
    r"""Direct output attribution: each component's part of the output, the scale of the last norm held fixed.

    The residual stream before the last norm is a sum over components, :math:`x = \sum_c x_c`. With its scale
    :math:`\sigma(x)` taken as given, the norm and the affine read-out behind it are linear, so the output is a sum of
    the same kind. No weights are read: the model itself maps each normed part to the output.

    Args:
        model: left as it was found; called as ``model(inputs)``, which must return a tensor.
        inputs: scenes.
        components: submodules whose outputs add up to what enters ``final_norm``. None finds TransformerLens' names:
            the embedding, and each block's ``hook_attn_out`` and ``hook_mlp_out``.
        heads: an attention component to the submodule that returns its heads' z, shape (scene, pos, head, d_head);
            it is then split into heads and a bias. None finds ``attn.hook_z`` beside ``hook_attn_out``.
        final_norm: a ``LayerNorm`` or ``RMSNorm`` of torch, or an ``Identity`` where there is none.

    Raises:
        ValueError: unknown or missing components, or parts that do not add up to the output (a component left
            out, or a read-out that is not affine).
        TypeError: another kind of norm.

    Cost: four forward passes, one a component, and two a head.

    References:
        Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; for logits this is direct logit
        attribution.
    """
    names = _components(model) if components is None else list(components)
    split = _heads(model, names) if heads is None else dict(heads)
    norm = named_submodule(model, final_norm)
    with isolated(model):
        known, stream = _recorded(model, inputs, [*names, *split.values()], norm)
        parts: dict[str, Tensor] = {}
        for name in names:
            parts |= _by_head(model, inputs, name, split[name], known) if name in split else {name: known[name]}

        def read_out(normed: Tensor) -> Tensor:
            with replaced_output(model, final_norm, lambda _output: normed):
                return model(inputs)

        output = model(inputs)
        nothing = read_out(torch.zeros_like(stream))
        shift = norm.bias if isinstance(norm, nn.LayerNorm) and norm.bias is not None else torch.zeros_like(stream[:1])
        constant = read_out(shift.expand_as(stream))
        normed = [_with_fixed_scale(norm, part.expand_as(stream), stream) for part in parts.values()]
        written = torch.stack([read_out(part) - nothing for part in normed])
    error = (written.sum(0) + constant - output).abs().max().item()
    scale = max(output.abs().max().item(), written.abs().sum(0).max().item())
    if not error <= 1e3 * torch.finfo(output.dtype).eps * scale:
        raise ValueError(
            f"the parts must add up to the output, they miss it by {error:.3g} (output up to {scale:.3g}); name every "
            f"component that writes into the stream before {final_norm!r}; the read-out behind it must be affine"
        )
    n_forward = 3 + len(parts) + sum(known[z].shape[2] + 1 for z in split.values()) + 1
    return OutputAttribution(
        components=tuple(parts),
        contributions=written.double().cpu().numpy(),
        constant=constant.double().cpu().numpy(),
        output=output.double().cpu().numpy(),
        largest_error=error,
        n_forward=n_forward,
    )


def _recorded(model: nn.Module, inputs: Any, names: Sequence[str], norm: nn.Module) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of the named submodules, and what enters the norm."""
    entering: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _module, args: entering.append(args[0].clone()))
    try:
        known = record_outputs(model, [inputs], names)
    finally:
        handle.remove()
    if len(entering) != 1:
        raise ValueError(f"final_norm must be called once in a forward pass, it was called {len(entering)} times")
    return known, entering[0]


def _components(model: nn.Module) -> list[str]:
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if HOOKS.fullmatch(name)]
    if not names:
        raise ValueError(
            "model has no submodule named as in TransformerLens (hook_embed, blocks.0.hook_attn_out, ...); "
            "name the components that add up to the residual stream"
        )
    return names


def _heads(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """The z beside each hook_attn_out, where there is one."""
    modules = dict(model.named_modules(remove_duplicate=False))
    beside = {name: name.replace("hook_attn_out", "attn.hook_z") for name in names if name.endswith("hook_attn_out")}
    return {name: z for name, z in beside.items() if z in modules}


def _by_head(model: nn.Module, inputs: Any, out: str, z: str, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each head adds: the layer's output with the z of the others at zero, less its output at z = 0."""
    value = known[z]
    if value.ndim != 4:
        raise ValueError(f"{z!r} must return shape (scene, pos, head, d_head), got {tuple(value.shape)}")

    def written(kept: Tensor) -> Tensor:
        with replaced_output(model, z, lambda _output: kept):
            return record_outputs(model, [inputs], [out])[out]

    bias = written(torch.zeros_like(value))
    parts = {}
    for head in range(value.shape[2]):
        alone = torch.zeros_like(value)
        alone[:, :, head] = value[:, :, head]
        parts[f"{z}[{head}]"] = written(alone) - bias
    return parts | {f"{out} bias": bias}


def _with_fixed_scale(norm: nn.Module, part: Tensor, stream: Tensor) -> Tensor:
    """The norm of a part, without its shift and with the scale that the whole stream has."""
    if isinstance(norm, nn.Identity):
        return part
    if isinstance(norm, nn.LayerNorm):
        axes = tuple(range(-len(norm.normalized_shape), 0))
        scale = (stream.var(axes, correction=0, keepdim=True) + norm.eps).sqrt()
        part = part - part.mean(axes, keepdim=True)
    elif isinstance(norm, nn.RMSNorm):
        axes = tuple(range(-len(norm.normalized_shape), 0))
        eps = torch.finfo(stream.dtype).eps if norm.eps is None else norm.eps
        scale = (stream.square().mean(axes, keepdim=True) + eps).sqrt()
    else:
        raise TypeError(f"final_norm must be a LayerNorm, RMSNorm or Identity of torch, got {type(norm).__name__}")
    return part / scale if norm.weight is None else part / scale * norm.weight

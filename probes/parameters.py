"""Which parameters a probe looks at: all of them, some tensors, or slices such as one attention head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

Parameters = None | str | Iterable[str] | Mapping[str, Tensor]
"""None for all trainable parameters; a name, a glob pattern or several; or a boolean mask per tensor name."""


@dataclass(frozen=True)
class ParameterSelection:
    """Chosen entries of a model's parameters, in the order of ``model.named_parameters()``.

    Attributes:
        masks: tensor name to boolean mask of the tensor's shape; None selects the whole tensor.
        n_entries: number of chosen scalars, the dimension of the flat vectors.
    """

    masks: Mapping[str, Tensor | None]
    n_entries: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that hold at least one chosen entry."""
        return tuple(self.masks)

    def tensors(self, model: nn.Module) -> list[nn.Parameter]:
        """The model's own tensors that hold chosen entries; differentiate with respect to these."""
        parameters = dict(model.named_parameters())
        return [parameters[name] for name in self.masks]

    def gather(self, tensors: Sequence[Tensor]) -> Float[Tensor, " n_entries"]:
        """Flatten tensors shaped like the chosen ones, keeping the chosen entries only."""
        pairs = zip(tensors, self.masks.values(), strict=True)
        return torch.cat([t.reshape(-1) if mask is None else t[mask] for t, mask in pairs])

    def scatter(self, vector: Float[Tensor, " n_entries"], like: Sequence[Tensor]) -> list[Tensor]:
        """Undo ``gather``: tensors shaped as ``like``, zero where nothing was chosen."""
        out, start = [], 0
        for t, mask in zip(like, self.masks.values(), strict=True):
            n = t.numel() if mask is None else int(mask.sum())
            piece = vector[start : start + n].to(t.dtype)
            start += n
            out.append(piece.reshape(t.shape) if mask is None else torch.zeros_like(t).masked_scatter(mask, piece))
        return out


def select_parameters(model: nn.Module, parameters: Parameters = None) -> ParameterSelection:
    """Resolve names, glob patterns or masks against a model.

    Args:
        model: any torch module.
        parameters: see ``Parameters``. Glob patterns follow ``fnmatch``, so ``"blocks.1.*"`` takes a block.

    Raises:
        ValueError: a name or pattern matches nothing, a mask has the wrong shape or dtype, or nothing is chosen.
    """
    available = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not available:
        raise ValueError("model has no parameters that require gradients; nothing to probe")
    if parameters is None:
        return ParameterSelection(dict.fromkeys(available), sum(p.numel() for p in available.values()))
    if isinstance(parameters, Mapping):
        return _select_masks(available, parameters)
    patterns = [parameters] if isinstance(parameters, str) else list(parameters)
    chosen = set()
    for pattern in patterns:
        matches = [name for name in available if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(
                f"parameters: {pattern!r} matches no trainable tensor; the model has {', '.join(available)}"
            )
        chosen.update(matches)
    if not chosen:
        raise ValueError("parameters is empty; give names, patterns, masks, or None for all")
    masks = {name: None for name in available if name in chosen}
    return ParameterSelection(masks, sum(available[name].numel() for name in masks))


def _select_masks(available: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ParameterSelection:
    for name, mask in masks.items():
        if name not in available:
            raise ValueError(f"parameters: no trainable tensor {name!r}; the model has {', '.join(available)}")
        if mask.dtype != torch.bool or mask.shape != available[name].shape:
            raise ValueError(
                f"parameters: the mask of {name!r} must be bool of shape {tuple(available[name].shape)}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
    kept = {
        name: masks[name].to(p.device) for name, p in available.items() if name in masks and bool(masks[name].any())
    }
    if not kept:
        raise ValueError("parameters: the masks choose no entry")
    return ParameterSelection(kept, sum(int(mask.sum()) for mask in kept.values()))

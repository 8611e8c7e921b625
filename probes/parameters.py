"""Which parameters a probe looks at: all of them, some tensors, or slices such as one attention head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .isolation import check_values

Parameters = None | str | Iterable[str] | Mapping[str, Tensor]
"""None for all trainable parameters; a name, a glob pattern or several; or a boolean mask per tensor name."""

HEAD_WEIGHTS = ("W_Q", "W_K", "W_V", "W_O")
"""TransformerLens' names of an attention layer's weights, the heads on the first axis."""

_HEAD_TENSOR = re.compile(
    rf"(?P<layer>(.*?\.)?)(parametrizations\.)?(?P<kind>{'|'.join(HEAD_WEIGHTS)})(\.original\d*)?"
)


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

    def gather(self, tensors: Sequence[Tensor], n_leading: int = 0) -> Float[Tensor, "*leading n_entries"]:
        """Flatten tensors shaped like the chosen ones, after ``n_leading`` axes kept; chosen entries only."""
        pairs = zip(tensors, self.masks.values(), strict=True)
        return torch.cat(
            [t.reshape(*t.shape[:n_leading], -1) if mask is None else t[..., mask] for t, mask in pairs], dim=-1
        )

    def scatter(self, vector: Float[Tensor, "*leading n_entries"], like: Sequence[Tensor]) -> list[Tensor]:
        """Undo ``gather``: tensors shaped as ``like`` after the leading axes, zero where nothing was chosen."""
        out, start, leading = [], 0, vector.shape[:-1]
        for t, mask in zip(like, self.masks.values(), strict=True):
            n = t.numel() if mask is None else int(mask.sum())
            piece = vector[..., start : start + n].to(t.dtype)
            start += n
            if mask is None:
                out.append(piece.reshape(*leading, *t.shape))
            else:
                whole = piece.new_zeros(*leading, *t.shape)
                whole[..., mask] = piece
                out.append(whole)
        return out


def select_parameters(model: nn.Module, parameters: Parameters = None) -> ParameterSelection:
    """Resolve names, glob patterns or masks against a model.

    A tensor shared by several submodules is one tensor: any of its names chooses it, and it counts once.

    Args:
        model: any torch module.
        parameters: see ``Parameters``. Glob patterns follow ``fnmatch``, so ``"blocks.1.*"`` takes a block.

    Raises:
        TypeError: ``parameters`` is none of these kinds, or ``model`` no module.
        ValueError: a name or pattern matches nothing, a mask has the wrong shape or dtype, or nothing is chosen.
    """
    check_values(model)
    available = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not available:
        raise ValueError("model has no parameters that require gradients; nothing to probe")
    if parameters is None:
        return ParameterSelection(dict.fromkeys(available), sum(p.numel() for p in available.values()))
    first_name = {id(p): name for name, p in available.items()}
    aliases = {
        name: first_name[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if id(p) in first_name
    }
    if isinstance(parameters, Mapping):
        return _select_masks(available, aliases, parameters)
    patterns = [parameters] if isinstance(parameters, str) else list(parameters)
    chosen = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"parameters must hold names or patterns, got {type(pattern).__name__}; masks need names")
        matches = [alias for name, alias in aliases.items() if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(
                f"parameters: {pattern!r} matches no trainable tensor; the model has {', '.join(available)}"
            )
        chosen.update(matches)
    if not chosen:
        raise ValueError("parameters is empty; give names, patterns, masks, or None for all")
    masks = {name: None for name in available if name in chosen}
    return ParameterSelection(masks, sum(available[name].numel() for name in masks))


def group_by_tensors(selections: Mapping[str, ParameterSelection]) -> dict[tuple[str, ...], list[str]]:
    """Names of the selections that lie in the same tensors, as the heads of one layer do."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, selection in selections.items():
        groups.setdefault(selection.names, []).append(name)
    return groups


def head_parameters(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Masks of the weights of every attention head of a TransformerLens-style model.

    A head is its slices of W_Q, W_K, W_V and W_O; biases are left out, as those of the keys have no effect. A weight
    under ``torch.nn.utils.parametrize`` counts by the tensors it is made from, if the heads stand on their first axis.

    Args:
        model: with submodules that hold the four weights as trainable parameters, heads on the first axis.

    Returns:
        ``"blocks.0.attn.head2"`` and so on to masks, in the model's order: ``blocks`` of ``hessian_blocks`` or
        ``scopes`` of ``estimate_llcs``; one value is the ``parameters`` of any probe.

    Raises:
        ValueError: no submodule holds the four, or they disagree on the number of heads (grouped queries).
    """
    layers: dict[str, dict[str, list[str]]] = {}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name in parameters:
        if found := _HEAD_TENSOR.fullmatch(name):
            layers.setdefault(found["layer"], {}).setdefault(found["kind"], []).append(name)
    heads = {}
    for layer, kinds in layers.items():
        if len(kinds) < len(HEAD_WEIGHTS):
            continue
        weights = {name: parameters[name] for kind in HEAD_WEIGHTS for name in kinds[kind]}
        numbers = {name: len(w) for name, w in weights.items()}
        if len(set(numbers.values())) > 1:
            raise ValueError(f"model: heads stand on the first axis, but its lengths are {numbers}; give masks instead")
        for head in range(next(iter(numbers.values()))):
            heads[f"{layer}head{head}"] = {name: _slice_mask(w, head) for name, w in weights.items()}
    if not heads:
        raise ValueError(f"model has no submodule with trainable {', '.join(HEAD_WEIGHTS)}; give masks instead")
    return heads


def _slice_mask(tensor: Tensor, index: int) -> Tensor:
    mask = torch.zeros_like(tensor, dtype=torch.bool)
    mask[index] = True
    return mask


def _select_masks(
    available: Mapping[str, Tensor], aliases: Mapping[str, str], masks: Mapping[str, Tensor]
) -> ParameterSelection:
    own: dict[str, Tensor] = {}
    for name, mask in masks.items():
        if name not in aliases:
            raise ValueError(f"parameters: no trainable tensor {name!r}; the model has {', '.join(available)}")
        shape = available[aliases[name]].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            got = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"parameters: the mask of {name!r} must be bool of shape {tuple(shape)}, got {got}")
        if aliases[name] in own:
            raise ValueError(f"parameters: {name!r} is the same tensor as {aliases[name]!r}; give one mask for it")
        own[aliases[name]] = mask
    kept = {name: own[name].to(p.device) for name, p in available.items() if name in own and bool(own[name].any())}
    if not kept:
        raise ValueError("parameters: the masks choose no entry")
    return ParameterSelection(kept, sum(int(mask.sum()) for mask in kept.values()))

"""The loss a landscape is made of: checked once, before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves  # the public name is younger than our torch floor

from .protocols import Batches, LossFn


@dataclass(frozen=True)
class SplitLoss:
    """A loss in two steps: the model's output, then the loss of that output.

    It is a ``loss_fn`` like any other, and the only kind with a Gauss-Newton matrix, which depends on where the loss
    is cut: ``SplitLoss(lambda model, batch: model(batch[0]), lambda output, batch: mse_loss(output, batch[1]))``.

    Attributes:
        output_fn: ``output_fn(model, batch)``, a tensor of any shape.
        output_loss_fn: ``output_loss_fn(output, batch)``, a scalar, the mean over the batch; it sees no parameter.
    """

    output_fn: Callable[[nn.Module, Any], Tensor]
    output_loss_fn: Callable[[Tensor, Any], Tensor]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch."""
        return self.output_loss_fn(self.output_fn(model, batch), batch)


def checked_batches(batches: Batches) -> Sequence[Any]:
    """Return the batches as a sequence.

    Raises:
        TypeError: something that is no collection of batches, or an iterator that would be used up.
        ValueError: no batch, or a tensor without entries in one of them.
    """
    if isinstance(batches, (Tensor, Mapping, str)) or not hasattr(batches, "__iter__"):
        kind = type(batches).__name__
        raise TypeError(f"batches must be a collection of batches, got one {kind}; put a single batch in a list")
    if iter(batches) is batches:
        raise TypeError(f"batches must iterate again and again; got the one-shot {type(batches).__name__}: pass a list")
    sequence = batches if isinstance(batches, Sequence) else list(batches)
    if not sequence:
        raise ValueError("batches is empty; give at least one batch")
    for i, batch in enumerate(sequence):
        for leaf in tree_leaves(batch):
            if isinstance(leaf, Tensor) and leaf.numel() == 0:
                raise ValueError(f"batch {i} holds an empty tensor of shape {tuple(leaf.shape)}; leave it out")
    return sequence


@torch.no_grad()
def batch_losses(model: nn.Module, batches: Sequence[Any], loss_fn: LossFn) -> Float[Tensor, " batch"]:
    """The loss of each batch.

    Raises:
        TypeError: ``loss_fn`` cannot be called.
        ValueError: the loss is not a scalar tensor, is not finite, or changes when it is evaluated again on the
            first batch (dropout, shuffling), which would make every derived number meaningless.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be called as loss_fn(model, batch), got {type(loss_fn).__name__}")
    losses = [_checked_loss(loss_fn(model, batch)) for batch in batches]
    first, again = losses[0], loss_fn(model, batches[0])
    if not torch.equal(first, again) and not torch.isnan(first):
        raise ValueError(
            f"loss_fn is not deterministic: {first.item():.9g}, then {again.item():.9g} on the same batch; "
            "switch off dropout and random augmentation"
        )
    stacked = torch.stack(losses)
    value = stacked.double().mean().item()
    if not math.isfinite(value):
        raise ValueError(
            f"the loss is {value} at the given parameters; probe a checkpoint with finite weights and data"
        )
    return stacked


def mean_loss(model: nn.Module, batches: Sequence[Any], loss_fn: LossFn) -> float:
    """Mean of the loss over the batches, all weighted alike; refuses what ``batch_losses`` refuses."""
    return batch_losses(model, batches, loss_fn).double().mean().item()


def _checked_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        got = type(loss).__name__
    elif loss.ndim:
        got = f"shape {tuple(loss.shape)}"
    elif loss.is_complex():
        got = str(loss.dtype)
    else:
        return loss
    raise ValueError(f"loss_fn must return a real scalar tensor, the mean over the batch; got {got}")

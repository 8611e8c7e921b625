"""The loss a landscape is made of: checked once, before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .protocols import Batches, LossFn


def checked_batches(batches: Batches) -> Sequence[Any]:
    """Return the batches as a sequence; refuse none at all, or an iterator that would be used up."""
    if iter(batches) is batches:
        raise TypeError(f"batches must iterate again and again; got the one-shot {type(batches).__name__}: pass a list")
    sequence = batches if isinstance(batches, Sequence) else list(batches)
    if not sequence:
        raise ValueError("batches is empty; give at least one batch")
    return sequence


@torch.no_grad()
def batch_losses(model: nn.Module, batches: Sequence[Any], loss_fn: LossFn) -> Float[Tensor, " batch"]:
    """The loss of each batch.

    Raises:
        ValueError: the loss is not a scalar tensor, is not finite, or changes when it is evaluated again on the
            first batch (dropout, shuffling), which would make every derived number meaningless.
    """
    losses = [loss_fn(model, batch) for batch in batches]
    first = losses[0]
    if not isinstance(first, Tensor) or first.ndim != 0:
        got = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"loss_fn must return a scalar tensor, the mean over the batch; got {got}")
    again = loss_fn(model, batches[0])
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

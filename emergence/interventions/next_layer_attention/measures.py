"""What the rule does to a model: how its gradients lie to the true ones, and what crosses between layers for it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probes.isolation import isolated

from .convert import check_converted, export
from .rule import recorded_uses


def alignment(m: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]) -> dict[str, float]:
    """The cosine between the rule's gradient and the true one, for each parameter that learns.

    Args:
        m: from ``convert``; it is left as it is, gradients and generator included. Measured in evaluation mode.
        batch: what ``loss_fn`` takes.
        loss_fn: ``loss_fn(model, batch)``, a scalar.

    Returns:
        Cosines by the parameters' names; NaN where a gradient is zero or the loss does not reach. With ``drop``, those
        of the messages that happen to be lost.

    Raises:
        ValueError: nothing in the model was converted.

    Cost: two backward passes and two copies of the model.
    """
    check_converted(m)
    rule, true = (_gradients(model, batch, loss_fn) for model in (copy.deepcopy(m), export(m)))
    return {name: _cosine(rule[name], true[name]) for name in rule}


def _gradients(model: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]) -> dict[str, Tensor | None]:
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with isolated(model), torch.enable_grad():
        found = torch.autograd.grad(loss_fn(model, batch), list(free.values()), allow_unused=True)
    return dict(zip(free, found, strict=True))


def _cosine(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        return math.nan
    a, b = a.double().flatten(), b.double().flatten()
    norms = a.norm() * b.norm()
    return float(a @ b / norms) if norms > 0 else math.nan


@dataclass(frozen=True)
class LayerMessages:
    """What crosses one converted weight when a batch is learned.

    Attributes:
        weight: its name.
        activities: numbers that its listeners are told, forwards.
        signals: numbers sent back for its sources: the listeners' ``d_j``, or with direct feedback the output's error,
            lost ones included; 0 where what it hears is not learned.
        copied_weights: numbers about the weights that the way back needs as well, all where signals pass through
            ``F'(W)`` (weight transport), none through a random matrix.
    """

    weight: str
    activities: int
    signals: int
    copied_weights: int


def messages(m: nn.Module, *inputs: Any) -> list[LayerMessages]:
    """Count the numbers that cross between layers in one forward and backward pass.

    Args:
        m: from ``convert``; it is left as it is. Run in evaluation mode.
        inputs: of the model.

    Returns:
        An entry for every use of a converted weight, in the order of the forward pass.

    Raises:
        ValueError: nothing in the model was converted.

    Cost: a forward pass of a copy.
    """
    check_converted(m)
    model = copy.deepcopy(m)
    with isolated(model), torch.enable_grad(), recorded_uses() as uses:
        output = model(*inputs)
    counts = []
    for use in uses:
        senders = use.outputs if use.route.broadcast is None else output
        signals = senders.numel() if use.x.requires_grad else 0
        copied = use.weight.numel() if signals and use.route.feedback.copies_weights else 0
        counts.append(LayerMessages(use.route.name, use.x.numel(), signals, copied))
    return counts

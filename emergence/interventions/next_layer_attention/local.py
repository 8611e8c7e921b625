"""What a neuron can find out by itself: its error, read off the change of the weights that listen to it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .attention import NeuronAttention
from .feedback import FromAttention, named_feedback

_SILENT = 1e-6
"""Activities below this share of the layer's largest are silent: rounding of weights would be read as a signal."""


def local_signal(
    weight_before: Float[Tensor, "listener source"],
    weight_after: Float[Tensor, "listener source"],
    activity: Float[Tensor, " source"],
    rate: float,
    attention: str | NeuronAttention | Callable[[Tensor], Tensor] = "squared",
    *,
    match_norm: bool = True,
    silent: float = math.nan,
) -> Float[Tensor, " source"]:
    """``-(1 / (rate a_i)) sum over j of F'(w_ij) dw_ij``: the signal at each neuron's activity, from what it sees.

    Listeners stepped by plain gradient descent on one example, ``dw_ij = -rate d_j a_i``, so this is
    ``sum over j of F'(w_ij) d_j``, the gradient that ``convert`` gives to the activity. On a batch the changes of
    several examples are mixed and it is not.

    Args:
        weight_before: of the layer that listens, before the step.
        weight_after: after it.
        activity: of the neurons listened to, on the one example of the step.
        rate: learning rate of the step.
        attention: F, as for ``convert``.
        match_norm: as for ``convert``.
        silent: given for units whose activity is below 1e-6 of the layer's largest: their listeners' weights do not
            move, so nothing can be known. NaN says so; 0.0 lets them rest, as an exactly silent ReLU unit would.

    Raises:
        TypeError: unknown kinds of attention.
        ValueError: shapes that do not fit, more than one example, a rate that is not positive and finite, or a
            feedback that is no attention.
    """
    if weight_before.dim() != 2 or weight_before.shape != weight_after.shape:
        shapes = f"{tuple(weight_before.shape)} and {tuple(weight_after.shape)}"
        raise ValueError(f"weights before and after must both be (listener, source), got {shapes}")
    if activity.shape != weight_before.shape[1:]:
        raise ValueError(
            f"activity must be of one example, of shape {tuple(weight_before.shape[1:])}, got {tuple(activity.shape)}"
        )
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive and finite, got {rate}")
    feedback = named_feedback(attention, match_norm)
    if not isinstance(feedback, FromAttention):
        raise ValueError(f"attention must be one that neurons seek, got the feedback {type(feedback).__name__}")
    before, after, activity = weight_before.detach(), weight_after.detach(), activity.detach()
    pushed = (feedback.matrix(before, None) * (after - before)).sum(0)
    is_silent = activity.abs() <= _SILENT * activity.abs().max()
    return torch.where(is_silent, silent, -pushed / (rate * activity.where(~is_silent, 1)))


def attention_received(
    weight: Float[Tensor, "listener source *kernel"],
    attention: str | NeuronAttention | Callable[[Tensor], Tensor] = "squared",
) -> Float[Tensor, " source *kernel"]:
    """``A_i = sum over listeners j of A_ij``: what the rule makes neurons seek.

    Raises:
        TypeError: unknown kinds of attention.
        ValueError: unknown name, or a feedback that is no attention.
    """
    feedback = named_feedback(attention, True)
    if not isinstance(feedback, FromAttention):
        raise ValueError(f"attention must be one that neurons seek, got the feedback {type(feedback).__name__}")
    return feedback.attention.paid(weight).sum(0)

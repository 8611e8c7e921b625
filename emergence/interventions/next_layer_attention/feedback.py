"""Which matrix carries error signals back: attention's, or one of those it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..naming import by_name
from .attention import ATTENTIONS, Absolute, Elementwise, NeuronAttention, matched_norm


class Feedback:
    """A way back for signals, in place of the weights; derive your own for one that is missing.

    Attributes:
        copies_weights: whether neurons must know the weights of their listeners (weight transport).
        is_random: whether a fixed random matrix is drawn.
    """

    copies_weights = True
    is_random = False

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """What stands in the place of the weight, of shape ``(listener, source, ...)``, on the way back."""
        raise NotImplementedError

    def drawn(self, weight: Tensor, n_sources: int, generator: torch.Generator) -> Tensor:
        """The random matrix, where there is one; ``n_sources`` counts channels of all groups."""
        raise NotImplementedError


@dataclass(frozen=True)
class FromAttention(Feedback):
    """Neurons that seek attention: ``F'(W)``.

    Attributes:
        attention: F.
        match_norm: whether each matrix is brought to the Frobenius norm of its weight.
    """

    attention: NeuronAttention
    match_norm: bool = True

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """The derivative of attention."""
        derivative = self.attention.derivative(weight)
        return matched_norm(derivative, weight) if self.match_norm else derivative


@dataclass(frozen=True)
class Backpropagation(Feedback):
    """``W``: the true gradient; the same as ``Squared()``."""

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """The weight itself."""
        return weight


@dataclass(frozen=True)
class SignSymmetric(Feedback):
    """``sign(W)`` at the Frobenius norm of W (Liao, Leibo & Poggio 2016, arXiv 1510.05067).

    The same as seeking attention ``|w|`` with ``match_norm``. Its signs alone are copied.
    """

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """Signs at the scale of the layer."""
        return matched_norm(Absolute().derivative(weight), weight)


@dataclass(frozen=True)
class FeedbackAlignment(Feedback):
    """A fixed random matrix (Lillicrap et al. 2016, doi 10.1038/ncomms13276).

    Normal, of the root mean square that the weight has at conversion, or 1/sqrt(fan in) for a weight of zero.
    """

    copies_weights = False
    is_random = True

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """The random one."""
        assert random is not None
        return random

    def drawn(self, weight: Tensor, n_sources: int, generator: torch.Generator) -> Tensor:
        """A matrix of the weight's shape."""
        size = float(weight.detach().double().square().mean().sqrt()) or weight[0].numel() ** -0.5
        return size * _normal(weight.shape, weight, generator)


@dataclass(frozen=True)
class DirectFeedbackAlignment(Feedback):
    """The output's error through a fixed random matrix, to every layer at once (Nøkland 2016, arXiv 1609.01596).

    The gradient that a converted layer gives to its input is ``e B``, where e is the gradient of the loss by the
    model's output: so the activities that it hears, whatever made them, get theirs from the output. The layers before
    it turn that into a gradient of their own weights as ever; the output layer's error is the true one. Where a layer
    sees several positions and the output has one, the same signal reaches each of them. Signals still run along skip
    connections as they are.

    B is normal with variance 1/(number of sources), so that a signal is on average as large as the error.

    Attributes:
        n_outputs: size of the last axis of the model's output; None is that of the model's last layer.
    """

    n_outputs: int | None = None

    copies_weights = False
    is_random = True

    def __post_init__(self) -> None:
        if self.n_outputs is not None and self.n_outputs < 1:
            raise ValueError(f"n_outputs must be at least 1, got {self.n_outputs}")

    def matrix(self, weight: Tensor, random: Tensor | None) -> Tensor:
        """From outputs to sources."""
        assert random is not None
        return random

    def drawn(self, weight: Tensor, n_sources: int, generator: torch.Generator) -> Tensor:
        """A matrix ``(output, source)``."""
        assert self.n_outputs is not None
        return n_sources**-0.5 * _normal((self.n_outputs, n_sources), weight, generator)


FEEDBACKS: dict[str, Feedback] = {
    "backpropagation": Backpropagation(),
    "sign_symmetric": SignSymmetric(),
    "feedback_alignment": FeedbackAlignment(),
    "direct_feedback_alignment": DirectFeedbackAlignment(),
}
"""What attention is compared with."""


def named_feedback(
    attention: str | NeuronAttention | Feedback | Callable[[Tensor], Tensor], match_norm: bool
) -> Feedback:
    """The way back for an attention, a feedback, a name of either, or a function of a weight.

    Raises:
        ValueError: unknown name, or a scale asked of a feedback that has its own.
        TypeError: none of these.
    """
    if callable(attention) and not isinstance(attention, type | NeuronAttention | Feedback):
        attention = Elementwise(attention)
    if isinstance(attention, Feedback):
        chosen = attention
    else:
        named: dict[str, NeuronAttention | Feedback] = {**ATTENTIONS, **FEEDBACKS}
        chosen = by_name("attention", attention, named, NeuronAttention)
    if isinstance(chosen, NeuronAttention):
        return FromAttention(chosen, match_norm)
    if not match_norm:
        raise ValueError(f"match_norm=False is for attentions; {type(chosen).__name__} has a scale of its own")
    return chosen


def to_outputs(feedback: Feedback, n_outputs: int) -> Feedback:
    """The same, its number of outputs filled in where it was left open."""
    if isinstance(feedback, DirectFeedbackAlignment) and feedback.n_outputs is None:
        return replace(feedback, n_outputs=n_outputs)
    return feedback


def _normal(shape: Any, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)

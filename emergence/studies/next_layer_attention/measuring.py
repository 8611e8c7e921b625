"""What is measured of a network while it learns and when it has learnt."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from probes import Measurement

from ...interventions import next_layer_attention
from ...tasks.examples import Examples, ExampleTask
from ..layers import Layer

N_ALIGNED = 256
"""Examples of the fixed batch on which gradients are compared; our choice."""
SHARES = (0.1, 0.2, 0.3, 0.5)
N_DRAWS = 8
"""Shares of the neurons of each hidden layer that are silenced, and how often which ones is drawn."""


def measure(m: nn.Module, task: ExampleTask, validation: Examples) -> Iterator[Measurement]:
    """Errors and losses, and how the rule's gradient lies to the true one in every layer."""
    plain = next_layer_attention.export(m)
    held_out = ExampleTask(task.train, validation)
    yield Measurement("error", task.error(plain))
    yield Measurement("validation_error", held_out.error(plain))
    with torch.no_grad():
        yield Measurement("validation_loss", task.loss(plain, validation).item())
        yield Measurement("train_loss", task.loss(plain, task.train).item())
    batch = Examples(*(t[:N_ALIGNED] for t in task.train))
    cosines = next_layer_attention.alignment(m, batch, task.loss)
    weights = [cosine for name, cosine in cosines.items() if name.endswith("weight")]
    for depth, cosine in enumerate(weights):
        yield Measurement("alignment", cosine, coordinate=float(depth))


def measure_trained(m: nn.Module, task: ExampleTask, generator: torch.Generator) -> Iterator[Measurement]:
    """Errors with neurons silenced, and the numbers that cross between layers when one example is learnt.

    Weights are copied once a step, however many examples it learns from.
    """
    plain = next_layer_attention.export(m)
    for share in SHARES:
        errors = torch.tensor([silenced_error(plain, task, share, generator) for _ in range(N_DRAWS)])
        yield Measurement("error_silenced", errors.mean().item(), coordinate=share)
    crossing = next_layer_attention.messages(m, task.train.inputs[:1])
    for name in ("activities", "signals", "copied_weights"):
        yield Measurement(name, float(sum(getattr(each, name) for each in crossing)))


def silenced_error(plain: nn.Module, task: ExampleTask, share: float, generator: torch.Generator) -> float:
    """Error on test with a share of the neurons of each hidden layer at zero, drawn anew."""
    layers = [layer for layer in plain.modules() if isinstance(layer, Layer)]
    hooks = [layer.register_forward_hook(_silence(_kept(layer, share, generator))) for layer in layers]
    try:
        return task.error(plain)
    finally:
        for hook in hooks:
            hook.remove()


def _kept(layer: Layer, share: float, generator: torch.Generator) -> Bool[Tensor, " width"]:
    width = layer.linear.out_features
    return torch.randperm(width, generator=generator) >= round(share * width)


def _silence(kept: Tensor):
    return lambda layer, inputs, activity: activity * kept

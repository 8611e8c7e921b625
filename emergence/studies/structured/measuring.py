"""What is measured of a network before and after training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from probes import (
    Measurement,
    gradient_conditioning,
    jacobian_spectrum,
    layer_robustness,
    perturbation_sensitivity,
)
from probes.protocols import LossFn

from ...interventions import structured
from ...tasks.examples import Examples, ExampleTask
from ..layers import Layer
from .networks import hidden_layers

N_BATCHES, BATCH = 8, 32
N_INPUTS = 16
"""Inputs at which the Jacobian of the hidden stack is taken; our choice."""
LEAST = 1e-16
"""Share of the largest singular value below which double precision tells nothing."""
SCALES = (0.01, 0.1, 1.0)
"""Of the noise, in units of the root mean square of what it is added to; our choice."""


def measure(
    model: nn.Sequential,
    task: ExampleTask,
    validation: Examples,
    *,
    has_correction: bool,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Iterator[Measurement]:
    """Errors, gradients across depth, the Jacobian of the hidden layers, sensitivity, robustness, corrections.

    Ratios and singular values as decimal logarithms. Structured weights are written out first: the function is the
    same, and hundreds of passes need not make them anew.
    """
    if structured.is_structured(model):
        exported = structured.export(model)
        assert isinstance(exported, nn.Sequential)
        model = exported
    yield Measurement("error", task.error(model))
    yield Measurement("validation_error", ExampleTask(task.train, validation).error(model))
    with torch.no_grad():
        yield Measurement("validation_loss", task.loss(model, validation).item())
    yield Measurement("train_loss", task.loss(model, task.train).item())
    batches = list(zip(*(t[: N_BATCHES * BATCH].split(BATCH) for t in task.train), strict=True))
    yield from _gradients(model, task, batches, rng)
    yield from _jacobian(model, task.test.inputs[:N_INPUTS])
    yield from _without_tanh(model, task.test.inputs[:N_INPUTS])
    yield from _noise(model, task, batches, generator)
    if has_correction:
        yield from _corrections(model, batches)


def loss_of(task: ExampleTask) -> LossFn:
    """The task's loss as probes call it."""
    return lambda model, batch: task.loss(model, Examples(*batch))


def _gradients(
    model: nn.Module, task: ExampleTask, batches: Sequence, rng: np.random.Generator
) -> Iterator[Measurement]:
    found = gradient_conditioning(model, batches, loss_fn=loss_of(task), layers=hidden_layers(model), rng=rng)
    yield Measurement("gradient_ratio", float(np.log10(found.ratio)))
    yield Measurement("gradient_slope", found.slope, found.slope_standard_error)
    for depth, (value, error) in enumerate(zip(found.mean, found.standard_error, strict=True)):
        yield Measurement("gradient_norm", float(value), float(error), coordinate=float(depth))


def _jacobian(model: nn.Sequential, inputs: torch.Tensor) -> Iterator[Measurement]:
    """Of the hidden layers together, in double precision: single would call singular what is only badly conditioned."""
    exact = copy.deepcopy(model).double()
    largest, smallest = _extreme_values(exact[0], nn.Sequential(*list(exact)[1:-1]), inputs.double())
    yield Measurement("condition", float((largest - smallest).mean()))
    yield Measurement("largest_singular_value", float(largest.mean()))
    yield Measurement("smallest_singular_value", float(smallest.mean()))


def _without_tanh(model: nn.Sequential, inputs: torch.Tensor) -> Iterator[Measurement]:
    """Condition number of the hidden maps alone, one after the other, of the input at which it is worst.

    This is what the bound speaks of; a tanh may have any slope from zero to one.
    """
    exact = copy.deepcopy(model).double()
    maps = [layer.linear for layer in exact if isinstance(layer, Layer)]
    if maps:
        largest, smallest = _extreme_values(exact[0], nn.Sequential(*maps), inputs.double())
        yield Measurement("condition_without_tanh", float((largest - smallest).max()))


def _extreme_values(first: nn.Module, stack: nn.Sequential, inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Decimal logarithms of the largest and the smallest singular value of the stack's Jacobian, an input."""
    with torch.no_grad():
        start = first(inputs)
    (values,) = jacobian_spectrum(stack, start).singular_values.values()
    largest, smallest = values.max(axis=1), values.min(axis=1)
    return np.log10(largest), np.log10(np.maximum(smallest, largest * LEAST))


def _noise(model: nn.Module, task: ExampleTask, batches: Sequence, generator: torch.Generator) -> Iterator[Measurement]:
    options = {"scales": SCALES, "n_draws": 4, "generator": generator}
    inputs = perturbation_sensitivity(model, task.test.inputs[:64], **options)
    layers = layer_robustness(model, batches[:2], loss_fn=loss_of(task), layers=hidden_layers(model), **options)
    for index, scale in enumerate(SCALES):
        yield Measurement("sensitivity", inputs.value[index], inputs.standard_error[index], coordinate=scale)
        yield Measurement("noise_rise", float(layers.rise[:, index].mean()), coordinate=scale)
        yield Measurement("noise_rise_worst", float(layers.rise[:, index].max()), coordinate=scale)


def _corrections(model: nn.Module, batches: Sequence) -> Iterator[Measurement]:
    """Share of the correction in each hidden layer's output."""
    model.train()
    with torch.no_grad():
        model(batches[0][0])
    ratios = structured.correction_ratios(model.eval())
    for depth, ratio in enumerate(ratios.values()):
        yield Measurement("correction_ratio", float(ratio), coordinate=float(depth))

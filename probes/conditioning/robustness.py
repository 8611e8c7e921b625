"""What noise at one layer costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..hooking import replaced_output
from ..isolation import isolated
from ..objective import batch_losses, checked_batches
from ..protocols import Batches, LossFn
from .arguments import Scales, check_count, positive_scales
from .averages import average
from .layers import called_in_order


@dataclass(frozen=True)
class LayerRobustness:
    """Loss added by noise at the output of one layer at a time.

    Attributes:
        layers: names, in the order of the forward pass.
        scales: root mean square of the noise over that of the layer's own output.
        clean: mean loss without noise.
        rise: loss with noise less the loss of the same batch without, mean over draws and batches.
        standard_error: over batches, each the mean of its draws; NaN for a single batch.
        interval: 95 %, Student's t over batches.
        per_batch: mean rise of each batch.
        n_draws: a layer, scale and batch.
    """

    layers: tuple[str, ...]
    scales: Float[np.ndarray, " scale"]
    clean: float
    rise: Float[np.ndarray, "layer scale"]
    standard_error: Float[np.ndarray, "layer scale"]
    interval: Float[np.ndarray, "layer scale 2"]
    per_batch: Float[np.ndarray, "batch layer scale"]
    n_draws: int


@torch.no_grad()
def layer_robustness(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    layers: Sequence[str],
    scales: Scales,
    n_draws: int,
    generator: torch.Generator,
) -> LayerRobustness:
    """Add Gaussian noise to the output of one layer at a time and measure what the loss gains.

    The noise is independent in every entry, with ``scale`` times the root mean square of that layer's output over
    the batch (all its entries together), so layers of any size compare.

    Args:
        model: any torch module; it is left as it was found and measured in evaluation mode.
        batches: re-iterable, all weighted alike; the independent units of the errors.
        loss_fn: the loss of a batch, or any other scalar, such as the share of wrong answers.
        layers: names or glob patterns of submodules that return a tensor.
        scales: relative sizes of the noise.
        n_draws: noises a batch, layer and scale.
        generator: draws the noise.

    Raises:
        ValueError: an unknown layer, one not called or called several times; a loss that is not a finite scalar with
            or without noise, or changes when it is repeated; scales that are not positive; no draw.
        TypeError: a layer that returns no tensor of floating-point numbers, or ``batches`` of one pass.

    Cost: batches x (1 + layers x scales x ``n_draws``) + 2 forward passes.
    """
    sizes, sequence = positive_scales(scales), checked_batches(batches)
    check_count("n_draws", n_draws, 1)
    with isolated(model):
        clean = batch_losses(model, sequence, loss_fn).double().cpu().numpy()
        names = called_in_order(model, layers, lambda: loss_fn(model, sequence[0]))

        def noisy_loss(batch: Any, name: str, size: float) -> float:
            with replaced_output(model, name, _adding_noise(name, size, generator)):
                losses = [float(loss_fn(model, batch)) for _ in range(n_draws)]
            if not np.isfinite(losses).all():
                raise ValueError(f"the loss is not finite with noise of {size:g} at layer {name!r}; use smaller scales")
            return float(np.mean(losses))

        noisy = [[[noisy_loss(batch, name, size) for size in sizes] for name in names] for batch in sequence]
    per_batch = np.array(noisy) - clean[:, None, None]
    rise = average(per_batch)
    return LayerRobustness(
        layers=names,
        scales=sizes,
        clean=float(clean.mean()),
        rise=rise.value,
        standard_error=rise.standard_error,
        interval=rise.interval,
        per_batch=per_batch,
        n_draws=n_draws,
    )


def _adding_noise(name: str, size: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    def add(output: Tensor) -> Tensor:
        if not output.is_floating_point():
            raise TypeError(f"layer {name!r} must return floating-point numbers, got {output.dtype}")
        noise = torch.randn(output.shape, generator=generator, device=generator.device, dtype=output.dtype)
        return output + size * output.square().mean().sqrt() * noise.to(output.device)

    return add

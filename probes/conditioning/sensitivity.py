"""How far the output moves when the input is nudged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..isolation import isolated
from .arguments import Scales, check_count, finite_inputs, one_an_example, positive_scales
from .averages import average


@dataclass(frozen=True)
class Sensitivity:
    """Movement of the output over movement of the input, at several sizes of the latter.

    Attributes:
        scales: root mean square of the noise over that of the inputs.
        value: E |f(x + d) - f(x)| / |d|, in units of output over input, mean over inputs.
        standard_error: over inputs, each the mean of its draws; NaN for a single input.
        interval: 95 %, Student's t over inputs.
        per_input: mean over the draws of each input.
        input_rms: root mean square of the entries of the inputs: the noise has this times ``scales``.
        n_draws: a scale and input.
    """

    scales: Float[np.ndarray, " scale"]
    value: Float[np.ndarray, " scale"]
    standard_error: Float[np.ndarray, " scale"]
    interval: Float[np.ndarray, "scale 2"]
    per_input: Float[np.ndarray, "scale input"]
    input_rms: float
    n_draws: int


@torch.no_grad()
def perturbation_sensitivity(
    model: nn.Module,
    inputs: Tensor,
    *,
    scales: Scales,
    n_draws: int,
    generator: torch.Generator,
) -> Sensitivity:
    """Measure E |f(x + d) - f(x)| / |d| for Gaussian d, norms over the whole flattened example.

    Every entry of d is drawn alike and independently, with E|d|^2 = scale^2 E|x|^2. The same directions serve all
    scales, so scales may be compared; draws of one input are not independent, so errors are over inputs. For layers
    with singular values at most 1 + e it is at most (1 + e)^L (``sensitivity_bound``).

    Args:
        model: any torch module, called as ``model(inputs)``; it is left as it was found and measured in evaluation
            mode. It must return a tensor and not mix examples.
        inputs: examples on the first axis, independent of each other.
        scales: sizes of the noise relative to the root mean square of the inputs. In float32 the difference of two
            outputs is good to about 1e-7 / scale of itself; give float64 models for scales below 1e-4.
        n_draws: noises an input and scale.
        generator: draws the noise.

    Raises:
        ValueError: inputs or outputs that are not finite, inputs that are all zero, scales that are not positive,
            no draw, or a scale so small that an input plus its noise is the input again.
        TypeError: inputs that are no floating-point tensor, or an output that is no tensor.

    Cost: 1 + scales x ``n_draws`` forward passes over all inputs at once.

    References:
        Novak et al. 2018, arXiv 1802.08760, section 3, for sensitivity to the input; there infinitesimal.
    """
    x, sizes = finite_inputs(inputs), positive_scales(scales)
    check_count("n_draws", n_draws, 1)
    rms = float(x.double().square().mean().sqrt())
    if rms == 0:
        raise ValueError("inputs are all zero; noise relative to them would be zero too")
    moved = np.zeros((n_draws, len(sizes), len(x)))
    with isolated(model):
        clean = one_an_example("the model's output", model(x.clone()), len(x)).clone()
        for draw in range(n_draws):
            noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
            for s, size in enumerate(sizes):
                nudged = x + size * rms * noise
                step = _norms(nudged - x)  # as it is after rounding
                if not step.all():
                    raise ValueError(
                        f"scales: {size:g} of the inputs vanishes in {x.dtype}; use a larger one or float64"
                    )
                output = one_an_example("the model's output", model(nudged), len(x))
                moved[draw, s] = _norms(output - clean) / step
    per_input = moved.mean(axis=0)
    over_inputs = average(per_input.T)
    return Sensitivity(
        scales=sizes,
        value=over_inputs.value,
        standard_error=over_inputs.standard_error,
        interval=over_inputs.interval,
        per_input=per_input,
        input_rms=rms,
        n_draws=n_draws,
    )


def _norms(values: Tensor) -> Float[np.ndarray, " example"]:
    return values.double().reshape(len(values), -1).norm(dim=1).cpu().numpy()

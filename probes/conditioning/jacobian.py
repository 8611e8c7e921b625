"""Singular values of what a layer, or the whole model, does to a small change of one input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves  # the public name is younger than our torch floor

from ..hooking import named_submodule
from ..isolation import isolated
from .arguments import finite_inputs, one_an_example
from .averages import Average, average
from .layers import called_in_order

MODEL = "model"
"""The name of the whole model in a result."""

MEMORY_BUDGET = 2**30
"""Bytes of Jacobians held at once; one GiB is our choice, as of the landscape probes."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the condition number over inputs."""


@dataclass(frozen=True)
class JacobianSpectrum:
    """Singular values of d out / d in, flattened, of each layer at single inputs.

    Attributes:
        layers: names, in the order of the forward pass; ``("model",)`` for the whole.
        shapes: (size of the output, size of the input) of one flattened example.
        singular_values: layer to values, descending, as many as the smaller of the two sizes.
        rank: singular values that can be told from zero: over max(shape) times the rounding unit of the largest.
        condition: largest over smallest singular value at each input; infinite where the rank is not full, as it
            always is behind a layer norm, which forgets the mean: see ``range_condition``.
        geometric_mean: of the condition number over inputs, a mean that heavy tails do not carry off; infinite where
            one of them is.
        geometric_mean_interval: 95 %, Student's t over inputs on the logarithmic scale; NaN for a single input or an
            infinite mean.
        log_standard_error: of the mean natural logarithm of the condition number.
        quantiles: of the condition number over inputs, at 5, 25, 50, 75 and 95 %.
    """

    layers: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    singular_values: Mapping[str, Float[np.ndarray, "input value"]]
    rank: Int[np.ndarray, "layer input"]
    condition: Float[np.ndarray, "layer input"]
    geometric_mean: Float[np.ndarray, " layer"]
    geometric_mean_interval: Float[np.ndarray, "layer 2"]
    log_standard_error: Float[np.ndarray, " layer"]
    quantiles: Float[np.ndarray, "layer quantile"]

    @property
    def range_condition(self) -> Float[np.ndarray, "layer input"]:
        """Largest over smallest singular value that can be told from zero; NaN for a constant map."""
        last = np.maximum(self.rank - 1, 0)
        smallest = np.stack(
            [
                np.take_along_axis(v, i[:, None], axis=1)[:, 0]
                for v, i in zip(self.singular_values.values(), last, strict=True)
            ]
        )
        largest = np.stack([values[:, 0] for values in self.singular_values.values()])
        return largest / np.where(self.rank > 0, smallest, np.nan)

    def mean_spectrum(self, layer: str = MODEL) -> Average:
        """Mean over inputs of each singular value by rank, with its error.

        Raises:
            KeyError: a layer that was not measured.
        """
        return average(self.singular_values[layer])


def jacobian_spectrum(
    model: nn.Module,
    inputs: Tensor,
    *,
    layers: Sequence[str] | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> JacobianSpectrum:
    """Compute all singular values of the Jacobian of the model, or of each layer alone, at each input.

    Exact: every row of the Jacobian by one backward pass, for all inputs together. Sequences and sets of particles
    are flattened, so the Jacobian has an entry for each (output of a particle, input of a particle). A layer is taken
    at the activations that reach it when the model runs on ``inputs``. In a stack of linear maps the condition number
    of the whole is at most the product of those of the layers (``conditioning_bound``).

    Args:
        model: any torch module, called as ``model(inputs)``; it is left as it was found and measured in evaluation
            mode.
        inputs: examples on the first axis, independent of each other. Of a whole model they must be floating-point.
        layers: names or glob patterns of submodules whose one tensor argument and one result have the examples on
            the first axis; None takes the whole model.
        memory_budget: bytes of Jacobians in float64 held at once; inputs are taken in portions that fit.

    Raises:
        ValueError: an unknown layer, one not called or called several times; a Jacobian of a single input over the
            memory budget; examples that affect each other; values that are not finite, or an output that does not
            depend on the input.
        TypeError: inputs or outputs that are no floating-point tensors, or a layer that takes several tensors.

    Cost: one forward pass, and as many backward passes as an example's output has entries; the decomposition of an
        (out, in) matrix costs about out x in x min(out, in) multiplications an input.

    References:
        Pennington, Schoenholz & Ganguli 2017, arXiv 1711.04735, for the spectrum of the input-output Jacobian.
    """
    if layers is not None and not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor with examples on the first axis, got {type(inputs).__name__}")
    spectra: dict[str, np.ndarray] = {}
    shapes: list[tuple[int, int]] = []
    ranks: list[np.ndarray] = []
    with isolated(model):
        maps = _whole(model, inputs) if layers is None else _parts(model, inputs, layers)
        for name, (function, x) in maps.items():
            with torch.enable_grad():
                spectra[name], shape, eps = _singular_values(name, function, x, memory_budget)
            shapes.append(shape)
            ranks.append((spectra[name] > max(shape) * eps * spectra[name][:, :1]).sum(axis=1))
    rank = np.stack(ranks)
    condition = np.stack([_condition(values, r) for values, r in zip(spectra.values(), rank, strict=True)])
    logarithm = _finite_average(np.log(condition).T)
    return JacobianSpectrum(
        layers=tuple(spectra),
        shapes=tuple(shapes),
        singular_values=spectra,
        rank=rank,
        condition=condition,
        geometric_mean=np.exp(logarithm.value),
        geometric_mean_interval=np.exp(logarithm.interval),
        log_standard_error=logarithm.standard_error,
        quantiles=np.quantile(condition, QUANTILES, axis=1, method="inverted_cdf").T,
    )


_Map = tuple[Callable[[Tensor], Any], Tensor]


def _whole(model: nn.Module, inputs: Tensor) -> dict[str, _Map]:
    return {MODEL: (model, finite_inputs(inputs))}


@torch.no_grad()
def _parts(model: nn.Module, inputs: Tensor, layers: Sequence[str]) -> dict[str, _Map]:
    """Each layer as a function of its one tensor argument, and that argument."""
    names = called_in_order(model, layers, lambda: model(inputs))
    found: dict[str, _Map] = {}

    def catching(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def catch(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            others = [leaf for leaf in tree_leaves((args[1:], options)) if isinstance(leaf, Tensor)]
            if not args or not isinstance(args[0], Tensor) or others:
                raise TypeError(f"layer {name!r} must take one tensor, its first argument; name one inside it")
            x = finite_inputs(args[0], f"the input of layer {name!r}").clone()  # later layers may write into it
            found[name] = (lambda value: module(value, *args[1:], **options)), x

        return catch

    handles = [named_submodule(model, n).register_forward_pre_hook(catching(n), with_kwargs=True) for n in names]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names}


def _singular_values(
    name: str, function: Callable[[Tensor], Any], inputs: Tensor, memory_budget: int
) -> tuple[Float[np.ndarray, "input value"], tuple[int, int], float]:
    """Singular values at each input, the shape of one Jacobian, and the rounding unit of its entries."""
    x, output = _applied(name, function, inputs)
    _check_apart(name, x, output)
    n_out, n_in = output[0].numel(), x[0].numel()
    n_bytes = 8 * n_out * n_in
    if n_bytes > memory_budget:
        raise ValueError(
            f"the Jacobian of {name!r} at one input is {n_out} x {n_in}, {n_bytes:,} bytes, over the memory_budget of "
            f"{memory_budget:,}; name smaller layers or raise the budget"
        )
    eps = max(torch.finfo(output.dtype).eps, torch.finfo(x.dtype).eps)
    values = [_portion(name, function, some) for some in inputs.split(max(1, memory_budget // n_bytes))]
    return np.concatenate(values), (n_out, n_in), eps


def _portion(name: str, function: Callable[[Tensor], Any], inputs: Tensor) -> Float[np.ndarray, "input value"]:
    x, output = _applied(name, function, inputs)
    jacobians = torch.stack([row.cpu().double() for row in _rows(x, output)], dim=1)  # input out in
    if not torch.isfinite(jacobians).all():
        raise ValueError(f"the Jacobian of {name!r} is not finite at these inputs")
    return torch.linalg.svdvals(jacobians).numpy()


def _rows(x: Tensor, output: Tensor) -> Iterator[Float[Tensor, "input in"]]:
    """Row after row, for all inputs together: examples do not mix, so the gradient of a sum is that of each."""
    for entry in output.reshape(len(output), -1).sum(dim=0):
        (gradient,) = torch.autograd.grad(entry, x, retain_graph=True)
        yield gradient.reshape(len(x), -1)


def _applied(name: str, function: Callable[[Tensor], Any], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A differentiable copy of the inputs, and the output on it."""
    x = inputs.clone().requires_grad_()
    output = one_an_example(f"the output of {name!r}", function(x.clone()), len(x))  # it may write into its input
    if not output.is_floating_point():
        raise TypeError(f"the output of {name!r} must be real floating-point numbers, got {output.dtype}")
    if (
        not output.requires_grad
        or torch.autograd.grad(output.sum(), x, retain_graph=True, allow_unused=True)[0] is None
    ):
        raise ValueError(f"the output of {name!r} does not depend on its input in a differentiable way")
    return x, output


def _check_apart(name: str, x: Tensor, output: Tensor) -> None:
    """Refuse a map in which the first example reads the others."""
    weights = torch.linspace(1, 2, output[0].numel(), dtype=output.dtype, device=output.device)  # no sum cancels
    (gradient,) = torch.autograd.grad((output[0].reshape(-1) * weights).sum(), x, retain_graph=True)
    if gradient[1:].any():
        raise ValueError(
            f"examples of a batch must not affect each other, they do in {name!r}; is its first axis another?"
        )


def _condition(values: Float[np.ndarray, "input value"], rank: Int[np.ndarray, " input"]) -> np.ndarray:
    """Largest over smallest of each input; infinite where the rank is not full, hence of a constant map too."""
    is_full = rank == values.shape[1]
    return np.where(is_full, values[:, 0] / np.where(is_full, values[:, -1], 1.0), np.inf)


def _finite_average(logarithms: Float[np.ndarray, "input layer"]) -> Average:
    """Average of each layer; infinite without an error where one input is."""
    finite = np.isfinite(logarithms)
    result, bounded = average(np.where(finite, logarithms, 0.0)), np.all(finite, axis=0, keepdims=True)[0]
    return Average(
        value=np.where(bounded, result.value, np.inf),
        standard_error=np.where(bounded, result.standard_error, np.nan),
        interval=np.where(bounded[:, None], result.interval, np.nan),
    )

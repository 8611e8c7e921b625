"""How much a correction branch writes beside its trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ..groups import error_of_sum, interval
from ..hooking import record_outputs
from ..objective import checked_batches
from ..protocols import Batches


@dataclass(frozen=True)
class BranchRatio:
    """Power of a branch over that of the trunk it is added to, a layer.

    Attributes:
        layers: names as given.
        value: E|branch|^2 / E|trunk|^2, the ratio of the means over batches; dimensionless.
        standard_error: over batches, delta method; NaN for a single batch.
        interval: 95 %, Student's t over batches.
        branch_power: mean square norm of an example's output of the branch, in each batch.
        trunk_power: the same of the trunk.
    """

    layers: tuple[str, ...]
    value: Float[np.ndarray, " layer"]
    standard_error: Float[np.ndarray, " layer"]
    interval: Float[np.ndarray, "layer 2"]
    branch_power: Float[np.ndarray, "batch layer"]
    trunk_power: Float[np.ndarray, "batch layer"]


def branch_ratio(
    model: nn.Module,
    batches: Batches,
    *,
    branches: Mapping[str, tuple[str, str]],
    inputs: Callable[[Any], Any] | None = None,
) -> BranchRatio:
    """Compare what two submodules put out, layer by layer: a correction and the map that it corrects.

    Args:
        model: any torch module; it is left as it was found and measured in evaluation mode.
        batches: re-iterable, all weighted alike; the independent units of the errors.
        branches: a name for the layer to the names of its two submodules, branch first and trunk second.
        inputs: takes the model's one argument out of a batch; None is the batch itself, or the first entry of a
            tuple or list.

    Raises:
        ValueError: no layer, an unknown submodule, one not called or called several times; outputs that are not
            finite, or a trunk that is zero throughout.
        TypeError: branches that are no pairs, or a submodule that returns no tensor.

    Cost: one forward pass a batch.
    """
    pairs = _checked_pairs(branches)
    names = sorted({name for pair in pairs.values() for name in pair})
    pick = _first_entry if inputs is None else inputs
    powers = []
    for batch in checked_batches(batches):
        outputs = record_outputs(model, [pick(batch)], names)
        powers.append({name: _power(name, outputs[name]) for name in names})
    branch, trunk = (np.array([[power[pair[i]] for pair in pairs.values()] for power in powers]) for i in (0, 1))
    for layer, total in zip(pairs, trunk.sum(axis=0), strict=True):
        if total == 0:
            raise ValueError(f"the trunk {pairs[layer][1]!r} of layer {layer!r} puts out zero throughout; no ratio")
    value = branch.mean(axis=0) / trunk.mean(axis=0)
    influence = (branch - value * trunk) / trunk.sum(axis=0)
    return BranchRatio(
        layers=tuple(pairs),
        value=value,
        standard_error=error_of_sum(influence, None),
        interval=interval(value, influence, None),
        branch_power=branch,
        trunk_power=trunk,
    )


def _checked_pairs(branches: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    if not isinstance(branches, Mapping):
        raise TypeError(f"branches must map a layer to (branch, trunk), got {type(branches).__name__}")
    if not branches:
        raise ValueError("branches is empty; name at least one layer")
    for layer, pair in branches.items():
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise TypeError(f"branches[{layer!r}] must be two names of submodules, (branch, trunk), got {pair!r}")
    return {layer: (pair[0], pair[1]) for layer, pair in branches.items()}


def _first_entry(batch: Any) -> Any:
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def _power(name: str, output: Tensor) -> float:
    """Mean square norm of an example."""
    power = float(output.abs().double().square().sum()) / len(output)
    if not np.isfinite(power):
        raise ValueError(f"submodule {name!r} puts out values that are not finite; give other inputs")
    return power

"""Which entries of which tensors belong to a neuron, and which tensors connect two populations of neurons."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Where the neurons of a population stand in a tensor.

    Attributes:
        tensor: name of a parameter or buffer.
        dims: its dimension that counts neurons; two for attention, ``(head, neuron inside the head)``.
        start: index of the first neuron, where several populations or gates share the dimension.
    """

    tensor: str
    dims: tuple[int, ...]
    start: int = 0

    def neurons_first(self, t: Tensor, n: int) -> Tensor:
        """View ``t`` with the neurons' dimensions in front."""
        if len(self.dims) == 1:
            t = t.narrow(self.dims[0], self.start, n)
        return t.movedim(self.dims, tuple(range(len(self.dims))))

    def permute_(self, t: Tensor, order: Int[Tensor, " neuron"]) -> None:
        """Let place i hold what place ``order[i]`` held, in place."""
        view = self.neurons_first(t, len(order))
        picked = view[torch.unravel_index(order, view.shape[: len(self.dims)])]
        view.copy_(picked.reshape(view.shape))


@dataclass(frozen=True)
class Population:
    """Neurons that are exchanged among each other.

    Attributes:
        name: of the layer that computes them, or ``input``.
        size: number of neurons.
        axes: everywhere they appear. A tensor that holds them twice (recurrent weights) is listed twice.
        n_blocks: neurons stay inside their block (an attention head); blocks are exchanged whole.
        layer: populations of one attention layer have equal names here: their blocks (heads) move together.
        is_terminal: inputs and outputs, whose order the world outside fixes: their places move, not their weights.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    n_blocks: int = 1
    layer: str = ""
    is_terminal: bool = False


@dataclass(frozen=True)
class Connection:
    """Weights from one population to another.

    Attributes:
        source, target: names of populations; None as the source of an embedding, whose tokens have no place.
        source_axis, target_axis: the population's axis in the weights; ``source_axis`` is None with ``source``.
    """

    source: str | None
    target: str
    source_axis: Axis | None
    target_axis: Axis

    @property
    def tensor(self) -> str:
        """Name of the weights."""
        return self.target_axis.tensor

    def matrix(self, weights: Tensor, n_target: int, n_source: int) -> Float[Tensor, "target source"]:
        """The weights as a matrix: one row a target neuron, one column a source neuron (or token)."""
        return _chosen(weights, self.target_axis, n_target, self.source_axis, n_source).reshape(n_target, -1)


@dataclass(frozen=True)
class Wiring:
    """Populations of a network, what connects them, and their biases; ``spatial.place`` reads it off a model."""

    populations: dict[str, Population] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    biases: tuple[tuple[str, Axis], ...] = ()


def _chosen(weights: Tensor, target: Axis, n_target: int, source: Axis | None, n_source: int) -> Tensor:
    """Narrow to the two populations, then bring the target's dimensions to the front."""
    dims = target.dims if source is None else target.dims + source.dims
    for axis, n in ((target, n_target), (source, n_source)):
        if axis is not None and len(axis.dims) == 1:
            weights = weights.narrow(axis.dims[0], axis.start, n)
    return weights.movedim(dims, tuple(range(len(dims))))

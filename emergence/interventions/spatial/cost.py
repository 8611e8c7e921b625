"""The wire a network needs: every weight pays for its size, and for how far it reaches."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .placement import Placement


def wiring_cost(model: nn.Module, placement: Placement, *, biases: bool = True) -> Float[Tensor, ""]:
    """Distance-weighted L1 norm of a placed model; add a multiple of it to the loss.

    ``sum over weights of |w_ij| (locality d_ij + layer_gap) + sum over biases of |b_i| layer_gap``, each tensor's sum
    or mean; Liu, Gan & Tegmark 2023 (arXiv 2305.08746), eq. 1 and 2. Norm layers cost nothing.

    Args:
        model: the one that was placed.
        placement: from ``spatial.place``.
        biases: whether biases pay (the method's symbolic examples spare them for the first three quarters).

    Returns:
        A scalar, differentiable in the weights; its subgradient at a weight of zero is zero.

    Raises:
        ValueError: the model is another one than was placed.

    Cost: one multiplication and one addition a weight, forward and backward.
    """
    weights = dict(model.named_parameters())
    terms = []
    for connection in placement.wiring.connections:
        w = _tensor(weights, connection.tensor)
        magnitudes = placement.magnitudes(connection, w)
        price = placement.locality * placement.distances(connection).to(w) + placement.layer_gap
        terms.append((magnitudes * price).sum() * placement.share(w))
    if biases:
        for population, axis in placement.wiring.biases:
            b = _tensor(weights, axis.tensor)
            magnitudes = axis.neurons_first(b, placement.wiring.populations[population].size).abs()
            terms.append(magnitudes.sum() * placement.layer_gap * placement.share(b))
    return sum(terms[1:], terms[0])


def _tensor(weights: dict[str, nn.Parameter], name: str) -> Tensor:
    if name not in weights:
        raise ValueError(f"model has no parameter {name}; give the model that was placed")
    return weights[name]

"""Weights that follow a context: what is learned is a manifold of weights, a line or a ring, not a point.

On a model of your own, in its own training loop::

    m = weight_manifold.convert(model, "linear*", "ellipse", generator=generator)
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    for x, angle, y in loader:  # angle: (batch,), a turn is one
        loss = loss_fn(m(x, angle), y)
        optimizer.zero_grad()
        loss.backward()
        weight_manifold.precondition(m)
        optimizer.step()
    plain = weight_manifold.at(m, 0.25)

Benjamin, Daruwalla, Pehle & Zador 2025 (arXiv 2505.22994), of which the abstract and reviews are known to us: line and
ellipse, their objective and the form of the update. Splines' details, the torus' points, the start and what is done in
normalisation layers are ours.
"""

from .convert import ManifoldModel, at, convert, is_manifold, manifold_of
from .manifolds import MANIFOLDS, Ellipse, Line, LineForm, Torus, WeightManifold
from .preconditioning import kernel, measured_gram, precondition
from .spline import Spline
from .training import ManifoldTraining

__all__ = [
    "MANIFOLDS",
    "Ellipse",
    "Line",
    "LineForm",
    "ManifoldModel",
    "ManifoldTraining",
    "Spline",
    "Torus",
    "WeightManifold",
    "at",
    "convert",
    "is_manifold",
    "kernel",
    "manifold_of",
    "measured_gram",
    "precondition",
]

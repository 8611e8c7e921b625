"""Structured layers with a correction beside them: ``S(W) x + b + a phi(x)``.

On a model of your own, in its own training loop::

    model = structured.convert(model, "linear*", generator=generator)  # orthogonal, and a = 0.1
    optimizer = torch.optim.Adam(model.parameters())
    for x, y in loader:
        loss = loss_fn(model(x), y) + 0.1 * structured.correction_penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain = structured.export(model.eval())

Nikooroo & Engel 2025 (arXiv 2508.00127), of which the abstract and a figure are known to us: a shaping operator on the
weight in parallel with a learned nonlinear map. The operators offered, the form of the map, the bound on it, its start
at zero and the penalty are ours. What they give: with an orthogonal S and ``|a dphi/dx| <= a < 1`` the Jacobian of a
linear stack of L layers has its singular values in ``[(1 - a)^L, (1 + a)^L]``.
"""

from ..settings import Structured, StructureName
from .convert import convert, export, is_structured
from .correction import Correction, correction_penalty, correction_ratios
from .low_rank import LowRankDiagonal
from .orthogonal import Orthogonal
from .patterns import Antisymmetric, BlockDiagonal, Circulant, Masked
from .shaping import Shaping, Structure
from .spectral import Spectral
from .structures import STRUCTURES
from .training import StructuredTraining

__all__ = [
    "STRUCTURES",
    "Antisymmetric",
    "BlockDiagonal",
    "Circulant",
    "Correction",
    "LowRankDiagonal",
    "Masked",
    "Orthogonal",
    "Shaping",
    "Spectral",
    "Structure",
    "StructureName",
    "Structured",
    "StructuredTraining",
    "convert",
    "correction_penalty",
    "correction_ratios",
    "export",
    "is_structured",
]

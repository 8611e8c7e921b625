"""Which contexts each task has, which of them are learnt and which held out, and the manifold of their topology."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...interventions.weight_manifold import Ellipse, Line, Torus, WeightManifold
from .config import TaskName

Range = tuple[float, float]
Kind = Literal["learnt", "interpolation", "extrapolation"]
KINDS: tuple[Kind, ...] = ("learnt", "interpolation", "extrapolation")


@dataclass(frozen=True)
class Contexts:
    """Which contexts along one axis are learnt and which are held out: between learnt ones, and beyond them.

    On a circle nothing lies beyond; a gap of a third of it is the nearest there is.
    """

    learnt: tuple[Range, ...]
    interpolation: tuple[Range, ...]
    extrapolation: tuple[Range, ...]


_CIRCLE = Contexts(((0.0, 0.3), (0.4, 0.65)), ((0.3, 0.4),), ((0.65, 1.0),))
_LINE = Contexts(((0.2, 0.45), (0.55, 0.8)), ((0.45, 0.55),), ((0.0, 0.2), (0.8, 1.0)))
_HALF = Contexts(((0.1, 0.225), (0.275, 0.4)), ((0.225, 0.275),), ((0.0, 0.1), (0.4, 0.5)))

CONTEXTS: dict[TaskName, tuple[Contexts, ...]] = {
    "rotated-digits": (_CIRCLE,),
    "noisy-digits": (_LINE,),
    "gravity-strength": (_LINE,),
    "gravity-direction": (_CIRCLE,),
    "direction-and-restitution": (_CIRCLE, _HALF),
}
"""One entry an axis; a context of some kind is of that kind along every axis. Our choice: which angles and strengths
the paper holds out is not known. Restitution takes half a circle only, as its two ends are not the same."""


@dataclass(frozen=True)
class Plane:
    """Weights that are linear in two numbers: a torus cut open twice, and the shape of a manifold of one's own."""

    n_context = 2
    n_points = 3
    is_periodic = False
    constant = (1.0, 0.0, 0.0)

    def basis(self, context: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
        """One, and both numbers."""
        return torch.cat([torch.ones_like(context[..., :1]), context], -1)

    def gram(self) -> Float[Tensor, "3 3"]:
        """In closed form."""
        return torch.tensor([[1, 1 / 2, 1 / 2], [1 / 2, 1 / 3, 1 / 4], [1 / 2, 1 / 4, 1 / 3]], dtype=torch.float64)


MANIFOLDS: dict[TaskName, WeightManifold] = {
    "rotated-digits": Ellipse(),
    "noisy-digits": Line(),
    "gravity-strength": Line(),
    "gravity-direction": Ellipse(),
    "direction-and-restitution": Torus(),
}
"""Angles lie on a circle, strengths on a line."""

WRONG: dict[TaskName, WeightManifold] = {
    "rotated-digits": Line(),
    "noisy-digits": Ellipse(),
    "gravity-strength": Ellipse(),
    "gravity-direction": Line(),
    "direction-and-restitution": Plane(),
}
"""Circles cut open, and lines whose ends are glued together."""


def contexts_of(task: TaskName, kind: Kind, shares: Float[np.ndarray, "n axis"]) -> Float[np.ndarray, "n axis"]:
    """Where these shares of each axis' ranges of a kind lie."""
    ranges = [getattr(axis, kind) for axis in CONTEXTS[task]]
    return np.stack([uniform(r, share) for r, share in zip(ranges, shares.T, strict=True)], axis=1)


def kind_of(task: TaskName, context: float) -> Kind:
    """Of a place along the first axis; where two ranges meet, the one that is held out."""
    first = CONTEXTS[task][0]
    return next(kind for kind in reversed(KINDS) if any(low <= context <= high for low, high in getattr(first, kind)))


def even_shares(task: TaskName, n: int) -> Float[np.ndarray, "n axis"]:
    """``n`` shares that cover all axes evenly: equal steps along the first, a golden lattice across the second."""
    index = np.arange(n)
    shares = [(index + 0.5) / n, (index * (math.sqrt(5) - 1) / 2 + 0.5) % 1]
    return np.stack(shares[: len(CONTEXTS[task])], axis=1)


def along(task: TaskName, first: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n axis"]:
    """Contexts along the first axis, in the middle of a second one."""
    middles = [np.full(len(first), 0.25) for _ in CONTEXTS[task][1:]]
    return np.stack([first, *middles], axis=1)


def as_tensor(contexts: Float[np.ndarray, "n axis"]) -> Tensor:
    """As models take them: (n,) of one axis, else (n, axis)."""
    return torch.from_numpy(contexts).float().squeeze(-1)


def uniform(ranges: Sequence[Range], share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Where these shares of the total length of the ranges lie."""
    lengths = np.array([high - low for low, high in ranges])
    ends = np.concatenate([[0.0], lengths.cumsum()])
    place = share * ends[-1]
    part = np.clip(np.searchsorted(ends, place, side="right") - 1, 0, len(ranges) - 1)
    return np.array([low for low, _ in ranges])[part] + place - ends[part]

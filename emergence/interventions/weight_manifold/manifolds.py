"""The shapes that weights can run along: a line, an ellipse, a torus, a spline, each linear in a few points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..naming import by_name
from .spline import Spline

LineForm = Literal["end_points", "slope", "centred"]


@runtime_checkable
class WeightManifold(Protocol):
    """Weights at context s are ``W(s) = sum over k of f_k(s) P_k``; write your own for one that is missing.

    Attributes:
        n_context: numbers that make a context.
        n_points: points P of each weight, K.
        is_periodic: whether contexts lie on circles of period one; if not, they must lie in [0, 1].
        constant: coefficients c with ``sum of c_k f_k = 1``: where they are zero, a point is an axis.
    """

    @property
    def n_context(self) -> int: ...  # noqa: D102
    @property
    def n_points(self) -> int: ...  # noqa: D102
    @property
    def is_periodic(self) -> bool: ...  # noqa: D102
    @property
    def constant(self) -> tuple[float, ...]: ...  # noqa: D102

    def basis(self, context: Float[Tensor, "*context"]) -> Float[Tensor, "*batch k"]:
        """Values f, differentiable; contexts of two numbers have them along the last axis."""
        ...

    def gram(self) -> Float[Tensor, "k k"]:
        """``G = integral of f f^T ds`` over uniform contexts, in double precision."""
        ...


@dataclass(frozen=True)
class Line:
    """From one weight to another as s goes from 0 to 1.

    Attributes:
        form: how it is written. ``end_points`` (1 - s) P_1 + s P_2, ``slope`` P_1 + s P_2, ``centred``
            P_1 + (2s - 1) P_2. With ``precondition`` the three learn the same, without it they do not.
    """

    form: LineForm = "end_points"

    n_context = 1
    n_points = 2
    is_periodic = False

    def __post_init__(self) -> None:
        if self.form not in get_args(LineForm):
            raise ValueError(f"form of a line must be one of {', '.join(get_args(LineForm))}, got {self.form!r}")

    @property
    def constant(self) -> tuple[float, ...]:
        """Equal end points, or no slope."""
        return (1.0, 1.0) if self.form == "end_points" else (1.0, 0.0)

    def basis(self, context: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
        """Values of both functions."""
        s, one = context, torch.ones_like(context)
        return torch.stack({"end_points": (1 - s, s), "slope": (one, s), "centred": (one, 2 * s - 1)}[self.form], -1)

    def gram(self) -> Float[Tensor, "2 2"]:
        """In closed form."""
        first, cross, second = {
            "end_points": (1 / 3, 1 / 6, 1 / 3),
            "slope": (1, 1 / 2, 1 / 3),
            "centred": (1, 0, 1 / 3),
        }[self.form]
        return torch.tensor([[first, cross], [cross, second]], dtype=torch.float64)


@dataclass(frozen=True)
class Ellipse:
    """Around a center as s goes round a circle of period one: ``P_1 + P_2 cos(2 pi s) + P_3 sin(2 pi s)``."""

    n_context = 1
    n_points = 3
    is_periodic = True
    constant = (1.0, 0.0, 0.0)

    def basis(self, context: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
        """One, cosine, sine."""
        angle = 2 * math.pi * context
        return torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], -1)

    def gram(self) -> Float[Tensor, "3 3"]:
        """In closed form."""
        return torch.diag(torch.tensor([1, 0.5, 0.5], dtype=torch.float64))


@dataclass(frozen=True)
class Torus:
    """Around two circles of period one, ``s = (u, v)``.

    Attributes:
        product: all nine products of the two ellipses' functions; without it each circle adds its two axes to the
            center, five points in all.
    """

    product: bool = False

    n_context = 2
    is_periodic = True

    @property
    def n_points(self) -> int:
        """Five, or nine."""
        return 9 if self.product else 5

    @property
    def constant(self) -> tuple[float, ...]:
        """The center."""
        return (1.0,) + (0.0,) * (self.n_points - 1)

    def basis(self, context: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch k"]:
        """Values of the functions; of products, those of v run fastest."""
        u, v = (Ellipse().basis(angle) for angle in context.unbind(-1))
        if self.product:
            return (u[..., :, None] * v[..., None, :]).flatten(-2)
        return torch.cat([u, v[..., 1:]], -1)

    def gram(self) -> Float[Tensor, "k k"]:
        """In closed form."""
        circle = Ellipse().gram()
        if self.product:
            return torch.kron(circle, circle)
        return torch.block_diag(circle, circle[1:, 1:])


MANIFOLDS: dict[str, WeightManifold] = {"line": Line(), "ellipse": Ellipse(), "torus": Torus(), "spline": Spline()}
"""The manifolds with their default settings. The paper's abstract and reviews name all four; the defaults are ours."""


def named_manifold(manifold: WeightManifold | str) -> WeightManifold:
    """Accept a manifold, or the name of one with its defaults. Raises what ``by_name`` raises."""
    return by_name("manifold", manifold, MANIFOLDS, WeightManifold)

"""B-splines as polynomials on equal intervals: cheap to evaluate, differentiable, and integrated exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Spline:
    """A smooth curve that control points pull towards themselves.

    Attributes:
        n_points: control points; more let the weights bend more often.
        degree: of the polynomials between knots.
        periodic: closed, contexts on a circle of period one. An open spline begins and ends in its outer points.
    """

    n_points: int = 5
    degree: int = 3
    periodic: bool = False

    n_context = 1

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise ValueError(f"degree of a spline must be at least 1, got {self.degree}")
        if self.n_points <= self.degree:
            raise ValueError(
                f"n_points of a spline of degree {self.degree} must be at least {self.degree + 1}, got {self.n_points}"
            )

    @property
    def is_periodic(self) -> bool:
        """Whether it is closed."""
        return self.periodic

    @property
    def constant(self) -> tuple[float, ...]:
        """All control points equal."""
        return (1.0,) * self.n_points

    def basis(self, context: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch k"]:
        """Values of the B-splines, which sum to one."""
        pieces = torch.from_numpy(_pieces(self)).to(context)
        place = (context.remainder(1) if self.periodic else context) * len(pieces)
        interval = place.detach().floor().long().clamp(0, len(pieces) - 1)  # the end belongs to the last one
        powers = torch.stack([(place - interval) ** power for power in range(self.degree + 1)], -1)
        return (powers[..., None, :] @ pieces[interval]).squeeze(-2)

    def gram(self) -> Float[Tensor, "k k"]:
        """In closed form: the powers of ``u`` and their products have known integrals over an interval."""
        pieces = _pieces(self)
        power = np.arange(self.degree + 1)
        integrals = 1 / (power + power[:, None] + 1)
        return torch.from_numpy((pieces.transpose(0, 2, 1) @ integrals @ pieces).mean(0))


@lru_cache
def _pieces(spline: Spline) -> np.ndarray:
    """Coefficients ``[interval, power, point]`` of the B-splines by ``u``, which runs from 0 to 1 in each interval."""
    from scipy.interpolate import BSpline  # loaded by those who use splines

    n, degree = spline.n_points, spline.degree
    if spline.periodic:
        n_intervals = n
        knots = np.arange(-degree, n + degree + 1) / n
        coefficients = np.concatenate([np.eye(n), np.eye(n)[:degree]])
    else:
        n_intervals = n - degree
        knots = np.concatenate([np.zeros(degree), np.linspace(0, 1, n_intervals + 1), np.ones(degree)])
        coefficients = np.eye(n)
    curve = BSpline(knots, coefficients, degree)
    starts = np.arange(n_intervals) / n_intervals
    taylor = [curve(starts, nu=power) / (math.factorial(power) * n_intervals**power) for power in range(degree + 1)]
    return np.stack(taylor, 1)

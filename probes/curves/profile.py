"""Profile intervals of one shape parameter, with a critical value from resampled curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .least_squares import ShapeFn, Solution, linear_parameters, solve

LEVEL = 0.95
"""Coverage aimed at by every interval."""

Starts = Callable[[np.ndarray], np.ndarray]
"""Curves ``(batch, curve, point)`` to start values ``(batch, start, parameter)`` of the least squares search."""


@dataclass(frozen=True)
class Problem:
    """A least squares problem in the shape parameters.

    Attributes:
        shape: the unscaled curves.
        weight: 1 / standard error ``(curve, point)``.
        lower: lower end of the box ``(parameter,)``.
        upper: upper end of the box ``(parameter,)``.
        starts: where to search from.
        freedom: points less parameters.
        least_variance: floor of the residual variance: 1 when standard errors are known, else 0.
    """

    shape: ShapeFn
    weight: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    starts: Starts
    freedom: int
    least_variance: float

    def minimise(self, y: np.ndarray, extra: np.ndarray, pinned: tuple[int, np.ndarray] | None = None) -> Solution:
        """Best solution of each curve set ``(batch, curve, point)``, or of one for each pinned value.

        Args:
            y: the curves; one set serves all pinned values.
            extra: one more start ``(parameter,)``.
            pinned: index of a parameter and the value ``(batch,)`` it is held at.
        """
        starts = self.starts(y)
        starts = np.concatenate([starts, np.broadcast_to(extra, (len(starts), 1, len(extra)))], axis=1)
        n_batch = len(y) if pinned is None else len(pinned[1])
        starts = np.broadcast_to(starts, (n_batch, *starts.shape[1:])).copy()
        n_starts = starts.shape[1]
        lower = np.tile(self.lower, (n_batch * n_starts, 1))
        upper = np.tile(self.upper, (n_batch * n_starts, 1))
        if pinned is not None:
            index, values = pinned
            starts[:, :, index] = values[:, None]
            lower[:, index] = upper[:, index] = np.repeat(values, n_starts)
        curves = y if len(y) == 1 else np.repeat(y, n_starts, axis=0)
        solution = solve(self.shape, starts.reshape(-1, starts.shape[2]), curves, self.weight, lower, upper)
        rss = solution.rss.reshape(n_batch, n_starts)
        best = np.arange(n_batch) * n_starts + rss.argmin(axis=1)
        return Solution(solution.theta[best], solution.rss[best], solution.converged[best])

    def fitted(self, theta: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fitted curves ``(curve, point)`` at given shape parameters, offsets and amplitudes in closed form."""
        shapes = self.shape(theta[None])
        offset, amplitude = linear_parameters(shapes, y[None], self.weight)
        return offset[0, :, None] + amplitude[0, :, None] * shapes[0]

    def ratio(self, rss: np.ndarray | float, least: np.ndarray | float) -> np.ndarray:
        """F statistic of a pinned against a free fit."""
        variance = np.maximum(least / self.freedom, self.least_variance)
        return np.asarray(np.maximum(rss - least, 0.0) / np.maximum(variance, 1e-300))


def profile_interval(
    problem: Problem, y: np.ndarray, theta: np.ndarray, index: int, resampled: np.ndarray, free: Solution
) -> tuple[float, float]:
    """Values of one shape parameter whose profile F statistic stays below its resampled quantile.

    Args:
        problem: the least squares problem.
        y: the measured curves ``(curve, point)``.
        theta: the fit ``(parameter,)``.
        index: which shape parameter.
        resampled: curves drawn around the fit ``(resample, curve, point)``.
        free: the problem's solution for each resampled curve.

    Returns:
        Lower and upper end; infinite where the profile never leaves the accepted range inside the box.
    """
    held = problem.minimise(resampled, theta, (index, np.full(len(resampled), theta[index])))
    least = np.minimum(free.rss, held.rss)
    critical = float(np.quantile(problem.ratio(held.rss, least), LEVEL, method="higher"))
    spread = np.quantile(free.theta[:, index], [0.01, 0.99]) - theta[index]
    near = np.concatenate(
        [theta[index] + spread[0] * np.linspace(3.0, 0.0, 25), theta[index] + spread[1] * np.linspace(0.0, 3.0, 25)]
    )
    wide = np.linspace(problem.lower[index], problem.upper[index], 41)
    values = np.unique(np.clip(np.concatenate([near, wide]), problem.lower[index], problem.upper[index]))
    rss = problem.minimise(y[None], theta, (index, values)).rss
    best = problem.minimise(y[None], theta).rss[0]
    excess = problem.ratio(rss, np.minimum(rss.min(), best)) - critical
    inside = np.flatnonzero(excess <= 0)
    if not inside.size:
        return float(theta[index]), float(theta[index])
    return _crossing(values, excess, int(inside[0]), -1), _crossing(values, excess, int(inside[-1]), +1)


def _crossing(values: np.ndarray, excess: np.ndarray, i: int, direction: int) -> float:
    """Where the excess passes zero between point i, inside, and its outer neighbor; infinite past the box."""
    j = i + direction
    if not 0 <= j < len(values):
        return direction * float("inf")
    share = excess[j] / (excess[j] - excess[i])
    return float(values[j] + share * (values[i] - values[j]))

"""Batched least squares of curve laws: linear parameters in closed form, shape parameters by Levenberg-Marquardt.

Golub and Pereyra's variable projection with Kaufman's Jacobian, on many starts and many resampled curves at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ShapeFn = Callable[[np.ndarray], np.ndarray]
"""Shape parameters ``(batch, parameter)`` to unscaled curves ``(batch, curve, point)``."""


@dataclass(frozen=True)
class Solution:
    """Least squares solutions of a batch of problems.

    Attributes:
        theta: shape parameters ``(batch, parameter)``.
        rss: weighted residual sum of squares ``(batch,)``.
        converged: the last step changed the sum of squares by less than 1e-9 of itself ``(batch,)``.
    """

    theta: np.ndarray
    rss: np.ndarray
    converged: np.ndarray

    def best(self) -> tuple[np.ndarray, float, bool]:
        """Shape parameters, sum of squares and convergence of the best problem."""
        i = int(np.argmin(self.rss))
        return self.theta[i], float(self.rss[i]), bool(self.converged[i])


def _project(
    shapes: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residuals after offset and amplitude, the two orthonormal directions, and the amplitudes, curve by curve."""
    ones = weight / np.linalg.norm(weight, axis=-1, keepdims=True)
    target = y * weight
    target = target - ones * (target * ones).sum(-1, keepdims=True)
    scaled = shapes * weight
    scaled = scaled - ones * (scaled * ones).sum(-1, keepdims=True)
    norm = np.linalg.norm(scaled, axis=-1, keepdims=True)
    direction = scaled / np.maximum(norm, 1e-300)
    along = (target * direction).sum(-1, keepdims=True)
    return target - direction * along, ones, direction, along / np.maximum(norm, 1e-300)


def linear_parameters(shapes: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and amplitude of each curve, ``(batch, curve)`` each."""
    amplitude = _project(shapes, y, weight)[3]
    square = weight**2
    offset = ((y - amplitude * shapes) * square).sum(-1) / square.sum(-1)
    return offset, amplitude[..., 0]


def grid_rss(shapes: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum of squares of every curve set against every grid shape: ``(batch, grid)`` from ``(batch, curve, point)``."""
    ones = weight / np.linalg.norm(weight, axis=-1, keepdims=True)
    target = y * weight
    target = target - ones * (target * ones).sum(-1, keepdims=True)
    scaled = shapes * weight
    scaled = scaled - ones * (scaled * ones).sum(-1, keepdims=True)
    direction = scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1e-300)
    rss = np.zeros((len(y), len(shapes)))
    for curve in range(shapes.shape[1]):
        total = (target[:, curve] ** 2).sum(-1, keepdims=True)
        rss += total - (target[:, curve] @ direction[:, curve].T) ** 2
    return rss


def _jacobian(shape: ShapeFn, theta: np.ndarray, weight: np.ndarray, projected: tuple[np.ndarray, ...]) -> np.ndarray:
    """Kaufman's Jacobian of the projected residuals, ``(batch, curve * point, parameter)``."""
    _, ones, direction, amplitude = projected
    columns = []
    for d in range(theta.shape[1]):
        h = 1e-5 * np.maximum(1.0, np.abs(theta[:, d]))
        ahead, behind = theta.copy(), theta.copy()
        ahead[:, d] += h
        behind[:, d] -= h
        slope = (shape(ahead) - shape(behind)) / (2.0 * h)[:, None, None] * weight
        slope = slope - ones * (slope * ones).sum(-1, keepdims=True)
        slope = slope - direction * (slope * direction).sum(-1, keepdims=True)
        columns.append(-(amplitude * slope).reshape(len(theta), -1))
    return np.stack(columns, axis=-1)


def solve(
    shape: ShapeFn,
    start: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    n_iterations: int = 40,
) -> Solution:
    """Minimise the weighted sum of squares from each start, inside the box; a parameter with an empty box is fixed.

    Args:
        shape: the unscaled curves.
        start: ``(batch, parameter)``.
        y: ``(batch, curve, point)``, or ``(1, curve, point)`` when every start fits the same curves.
        weight: 1 / standard error, ``(curve, point)``.
        lower: ends of the box, ``(parameter,)`` or ``(batch, parameter)``.
        upper: as ``lower``.
        n_iterations: Levenberg-Marquardt steps at most; most problems need 5 to 15.
    """
    theta = np.clip(start, lower, upper)
    y = np.broadcast_to(y, (len(theta), *y.shape[1:]))
    lower, upper = np.broadcast_to(lower, theta.shape), np.broadcast_to(upper, theta.shape)
    damping = np.full(len(theta), 1e-2)
    rss = (_project(shape(theta), y, weight)[0] ** 2).sum((1, 2))
    converged = np.zeros(len(theta), dtype=bool)
    active = np.arange(len(theta))
    for _ in range(n_iterations):
        now = theta[active]
        projected = _project(shape(now), y[active], weight)
        residual = projected[0].reshape(len(now), -1)
        jacobian = _jacobian(shape, now, weight, projected)
        gradient = np.einsum("bnd,bn->bd", jacobian, residual)
        stuck = ((now <= lower[active]) & (gradient > 0)) | ((now >= upper[active]) & (gradient < 0))
        gradient = np.where(stuck, 0.0, gradient)
        jacobian = np.where(stuck[:, None, :], 0.0, jacobian)
        normal = np.einsum("bnd,bne->bde", jacobian, jacobian)
        diagonal = np.einsum("bdd->bd", normal)
        floor = 1e-12 * diagonal.max(-1, keepdims=True) + 1e-300
        normal = normal + np.einsum("bd,de->bde", damping[active][:, None] * diagonal + floor, np.eye(now.shape[1]))
        step = -np.linalg.solve(normal, gradient[..., None])[..., 0]
        trial = np.clip(now + np.clip(step, -2.0, 2.0), lower[active], upper[active])
        trial_rss = (_project(shape(trial), y[active], weight)[0] ** 2).sum((1, 2))
        better = trial_rss <= rss[active]
        gain = rss[active] - trial_rss
        theta[active[better]] = trial[better]
        converged[active] = (better & (gain <= 1e-9 * rss[active])) | (damping[active] > 1e9)
        rss[active[better]] = trial_rss[better]
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 8.0)
        active = active[~converged[active]]
        if not active.size:
            break
    return Solution(theta, rss, converged)


def standard_errors(
    shape: ShapeFn, theta: np.ndarray, y: np.ndarray, weight: np.ndarray, variance: float
) -> np.ndarray:
    """Linearised standard errors of the shape parameters of one solution, ``(parameter,)``."""
    theta = theta[None]
    jacobian = _jacobian(shape, theta, weight, _project(shape(theta), y, weight))[0]
    covariance = np.linalg.pinv(jacobian.T @ jacobian, hermitian=True) * variance
    return np.sqrt(np.maximum(np.diag(covariance), 0.0))

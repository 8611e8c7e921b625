"""Noise like the residuals of a fit, with their serial correlation."""

from __future__ import annotations

import numpy as np


def significant_correlation(residuals: np.ndarray, n_parameters: int, quantile: float = 2.326) -> tuple[float, float]:
    """Correlation of successive residuals and the largest that independent errors explain (one-sided 1 %).

    Residuals of a fit with p parameters are anticorrelated by about (p + 1) / n in the mean; that is added back
    (our choice, first order).
    """
    n = len(residuals)
    power = float(residuals @ residuals)
    if n < 8 or power <= 0:
        return 0.0, 0.0
    rho = float(residuals[1:] @ residuals[:-1]) / power + (n_parameters + 1) / n
    return rho, quantile / float(np.sqrt(n))


def lag_correlation(residuals: np.ndarray, n_parameters: int) -> float:
    """Correlation of successive residuals, zero unless it is significantly positive (one-sided 5 %).

    A significant one is corrected once more by (1 + 3 rho) / n for the small-sample bias of the estimator.
    """
    rho, threshold = significant_correlation(residuals, n_parameters, 1.645)
    if rho <= threshold:
        return 0.0
    return min(rho + (1.0 + 3.0 * rho) / len(residuals), 0.95)


def effective_points(n: int, rho: float) -> float:
    """Independent points that n points of serial correlation rho are worth: ``n (1 - rho) / (1 + rho)``."""
    return n * (1.0 - rho) / (1.0 + rho)


def resampled_noise(
    residuals: np.ndarray, rho: float, n_parameters: int, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw noise like the residuals, ``(resample, point)``: independent, or first-order autoregressive of lag rho.

    The innovations are the residuals (less rho times their forerunner) drawn with replacement, centred, and widened
    by ``sqrt(n / (n - p))`` for the p fitted parameters.
    """
    n = len(residuals)
    innovations = residuals if rho == 0.0 else residuals[1:] - rho * residuals[:-1]
    innovations = (innovations - innovations.mean()) * np.sqrt(n / max(n - n_parameters, 1))
    if rho == 0.0:
        return rng.choice(innovations, size=(n_resamples, n))
    burn_in = int(np.ceil(np.log(1e-3) / np.log(rho)))
    draws = rng.choice(innovations, size=(n_resamples, burn_in + n))
    for i in range(1, burn_in + n):
        draws[:, i] += rho * draws[:, i - 1]
    return draws[:, burn_in:]

"""One quantity estimated in several runs: its mean over runs, its spread between them, and whether there is any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, chdtri, stdtrit


@dataclass(frozen=True)
class RandomEffects:
    """A normal population of true values behind estimates with known standard errors.

    Attributes:
        mean: population mean.
        standard_error: its standard error.
        interval: its 95 % interval.
        spread: standard deviation of the true values between runs; zero if errors explain the scatter.
        spread_interval: its 95 % interval.
        q: Cochran's Q, the scatter in units of the errors.
        p_value: chance of as large a Q without any spread.
        n: number of runs.
    """

    mean: float
    standard_error: float
    interval: tuple[float, float]
    spread: float
    spread_interval: tuple[float, float]
    q: float
    p_value: float
    n: int


def random_effects(values: np.ndarray, standard_errors: np.ndarray) -> RandomEffects:
    """Fit ``estimate_i = mean + spread u_i + standard_error_i v_i`` with standard normal u and v.

    The spread by restricted maximum likelihood, its interval from Q's distribution at each spread (Q profile), the
    mean's interval from Student's t with the errors scaled to the scatter that was seen (Hartung and Knapp).

    Args:
        values: estimates ``(run,)``, at least two.
        standard_errors: their standard errors ``(run,)``, positive.

    References:
        Hartung and Knapp 2001, doi:10.1002/sim.791 (interval). Viechtbauer 2005, doi:10.3102/10769986030003261
        (restricted likelihood), 2007, doi:10.1002/sim.2514 (Q profile).
    """
    n, variances = len(values), standard_errors**2
    largest = 3.0 * float(np.ptp(values)) + 1e-3 * float(standard_errors.max())
    grid = np.append(0.0, np.geomspace(1e-4 * largest, largest, 40))
    i = int(np.argmin([_deviance(values, variances, s) for s in grid]))
    bounds = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, 40)]))
    from scipy.optimize import fminbound  # late: it takes as long to import as all other probes

    spread = float(np.asarray(fminbound(lambda s: _deviance(values, variances, s), *bounds, xtol=1e-9 * largest)))
    if _deviance(values, variances, spread) >= _deviance(values, variances, 0.0):
        spread = 0.0
    weights, mean, scatter = _weighted(values, variances, spread)
    error = float(np.sqrt(scatter / (n - 1) / weights.sum()))
    half = float(stdtrit(n - 1, 0.975)) * error
    q = _weighted(values, variances, 0.0)[2]
    ends = (_spread_end(values, variances, 0.975), _spread_end(values, variances, 0.025))
    return RandomEffects(mean, error, (mean - half, mean + half), spread, ends, q, float(chdtrc(n - 1, q)), n)


def _weighted(values: np.ndarray, variances: np.ndarray, spread: float) -> tuple[np.ndarray, float, float]:
    """Weights at one spread, the weighted mean and the weighted scatter about it."""
    weights = 1.0 / (variances + spread**2)
    mean = float(weights @ values / weights.sum())
    return weights, mean, float(weights @ (values - mean) ** 2)


def _deviance(values: np.ndarray, variances: np.ndarray, spread: float) -> float:
    """Minus twice the restricted log likelihood of a spread."""
    weights, _, scatter = _weighted(values, variances, spread)
    return scatter - float(np.log(weights).sum()) + float(np.log(weights.sum()))


def _spread_end(values: np.ndarray, variances: np.ndarray, level: float) -> float:
    """Spread at which the scatter is the quantile of that level; zero if it is less already without spread."""
    quantile = float(chdtri(len(values) - 1, 1 - level))
    if _weighted(values, variances, 0.0)[2] <= quantile:
        return 0.0
    largest = 1e3 * float(np.ptp(values))  # the scatter there is below 1e-6 n
    from scipy.optimize import brentq  # late: it takes as long to import as all other probes

    end = brentq(lambda spread: _weighted(values, variances, spread)[2] - quantile, 0.0, largest)
    return float(np.asarray(end))

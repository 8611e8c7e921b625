"""Have the chains mixed, and how many independent draws are they worth?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri, stdtr, stdtrit


@dataclass(frozen=True)
class MeanEstimate:
    """The mean of correlated draws from several chains.

    Attributes:
        value: mean over all draws.
        standard_error: the larger of the autocorrelation and the between-chain estimate of the mean's error.
        dof: degrees of freedom of that estimate, for Student's t.
        ess: draws the sample is worth for the mean.
    """

    value: float
    standard_error: float
    dof: float
    ess: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval from Student's t."""
        half = float(stdtrit(self.dof, 0.5 + level / 2)) * self.standard_error
        return self.value - half, self.value + half


def split_rhat(draws: Float[np.ndarray, "chain draw"]) -> float:
    """Rank-normalised split R-hat: the larger of the bulk and the folded (tail) one; near 1 when mixed.

    Chains are cut in halves, so a common drift shows too. NaN when the draws do not vary.

    References: Vehtari et al. 2021, Rank-normalization, folding, and localization, arXiv 1903.08008, eqs. 4, 14.
    """
    halves = _split(draws)
    return max(_rhat(_normal_scores(halves)), _rhat(_normal_scores(np.abs(halves - np.median(halves)))))


def effective_draws(draws: Float[np.ndarray, "chain draw"]) -> float:
    """Effective sample size for the mean, over split chains with Geyer's initial monotone sequence.

    References: Vehtari et al. 2021, arXiv 1903.08008, eqs. 10-13; Geyer 1992, doi 10.1214/ss/1177011137.
    """
    halves = _split(draws)
    n_chains, n = halves.shape
    covariance = _autocovariance(halves).mean(axis=0)
    within, pooled = _variances(halves)
    if not pooled > 0:
        return math.nan
    rho = 1.0 - (within - covariance * n / (n - 1)) / pooled
    rho[0] = 1.0
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    kept = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    tau = max(2.0 * kept.sum() - 1.0, 1.0 / math.log10(n_chains * n))
    return n_chains * n / tau


def mean_estimate(draws: Float[np.ndarray, "chain draw"]) -> MeanEstimate:
    """Mean of the draws with an error that honours both autocorrelation and disagreement between chains."""
    n_chains, _ = draws.shape
    halves = _split(draws)
    ess = effective_draws(draws)
    _, pooled = _variances(halves)
    error, dof = math.sqrt(pooled / ess) if pooled > 0 else math.nan, max(ess - 1.0, 1.0)
    if n_chains > 1:
        between = float(draws.mean(axis=1).std(ddof=1)) / math.sqrt(n_chains)
        if not error >= between:
            error, dof = between, n_chains - 1.0
    return MeanEstimate(value=float(draws.mean()), standard_error=error, dof=dof, ess=ess)


def drift_p_value(draws: Float[np.ndarray, "chain draw"]) -> float:
    """How likely the first tenth and the last half of the draws would differ so much in mean, were there no drift.

    Errors are those of ``mean_estimate``, compared by Welch's test. NaN below 8 draws a chain, or if they do not vary.

    References: Geweke 1992, in Bayesian Statistics 4; he compares spectral densities at zero, we effective draws.
    """
    n = draws.shape[1]
    if n < 8:
        return math.nan
    first, last = mean_estimate(draws[:, : max(n // 10, 4)]), mean_estimate(draws[:, -(n // 2) :])
    squares = first.standard_error**2, last.standard_error**2
    if not min(squares) > 0:
        return math.nan
    dof = sum(squares) ** 2 / (squares[0] ** 2 / first.dof + squares[1] ** 2 / last.dof)
    return float(2.0 * stdtr(dof, -abs(first.value - last.value) / math.sqrt(sum(squares))))


def _split(draws: np.ndarray) -> np.ndarray:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _variances(halves: np.ndarray) -> tuple[float, float]:
    """Within-chain variance, and the pooled one that also counts the spread of the chain means."""
    n = halves.shape[1]
    within = float(halves.var(axis=1, ddof=1).mean())
    return within, (n - 1) / n * within + float(halves.mean(axis=1).var(ddof=1))


def _rhat(halves: np.ndarray) -> float:
    within, pooled = _variances(halves)
    return math.sqrt(pooled / within) if within > 0 else math.nan


def _normal_scores(halves: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # late: it takes as long to import as all other probes

    return ndtri((rankdata(halves).reshape(halves.shape) - 0.375) / (halves.size + 0.25))


def _autocovariance(halves: np.ndarray) -> np.ndarray:
    """Biased autocovariance of each chain at all lags, by FFT."""
    n = halves.shape[1]
    spectrum = np.fft.rfft(halves - halves.mean(axis=1, keepdims=True), 2 * n, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n] / n

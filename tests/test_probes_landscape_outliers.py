"""Effective rank and the split into bulk and outliers, on spectra of known truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import seeded
from torch import Tensor

from probes import bulk_outlier_split, degeneracy
from probes.landscape import CurvatureOperator, SpectralDensity
from probes.landscape.density import lanczos_quadrature


class Diagonal(CurvatureOperator):
    """A diagonal matrix; its probes are normal, which in the eigenbasis is what signs are in a random one."""

    def __init__(self, spectrum: np.ndarray) -> None:
        self.values = torch.from_numpy(spectrum.copy())
        self.n_entries, self.n_matvecs, self.vectors_at_once = len(spectrum), 0, 1
        self.eps, self.device, self.dtype = 2.2e-16, torch.device("cpu"), torch.float64

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.n_matvecs += 1
        return self.values * vectors

    def random_signs(self, generator: torch.Generator) -> Tensor:
        return self.random_normal(generator)


def density_of(spectrum: np.ndarray, seed: int = 0, *, n_probes: int = 8, n_steps: int = 40) -> SpectralDensity:
    return lanczos_quadrature(Diagonal(spectrum), n_probes, n_steps, seeded(seed))


def wishart(n: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Nonzero eigenvalues of a sample covariance, in the interval (1 -+ sqrt ratio)^2."""
    x = rng.standard_normal((n, round(n / ratio)))
    return np.linalg.eigvalsh(x @ x.T / x.shape[1])


def semicircle(n: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(n) + 0.5) / n)


SPLIT = {
    "covariance, zeros, five apart": lambda rng: (np.r_[np.zeros(595), wishart(200, 0.5, rng), 6, 8, 12, 20, 60], 5),
    "covariance, zeros, ten close": lambda rng: (
        np.r_[np.zeros(590), wishart(200, 0.5, rng), np.linspace(5, 8, 10)],
        10,
    ),
    "covariance and zeros alone": lambda rng: (np.r_[np.zeros(600), wishart(200, 0.5, rng)], 0),
    "flat": lambda _: (np.linspace(0, 1, 800), 0),
    "semicircle, three on two sides": lambda _: (np.r_[semicircle(797), 3.0, 6.0, -4.0], 3),
    "long tail, three apart": lambda rng: (np.r_[rng.exponential(0.01, 797), 1, 2, 3], 3),
}


@pytest.mark.parametrize("make", SPLIT.values(), ids=SPLIT.keys())
def test_planted_outliers_are_counted(make, rng: np.random.Generator) -> None:
    spectrum, n_outliers = make(rng)
    spectrum = np.sort(spectrum)[::-1]
    apart = spectrum[np.argsort(-np.abs(spectrum - np.median(spectrum)), kind="stable")[:n_outliers]]
    found = bulk_outlier_split(density_of(spectrum))
    assert found.n_outliers == n_outliers
    assert found.n_outliers_interval[0] <= n_outliers <= found.n_outliers_interval[1]
    np.testing.assert_allclose(found.outliers, np.sort(apart)[::-1], rtol=1e-4)


def effective_rank(spectrum: np.ndarray) -> float:
    shares = np.abs(spectrum[spectrum != 0]) / np.abs(spectrum).sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def trace_share(spectrum: np.ndarray, n_outliers: int) -> float:
    """Of those farthest from the bulk."""
    order = np.argsort(-np.abs(spectrum - np.median(spectrum)), kind="stable")
    return float(spectrum[order[:n_outliers]].sum() / spectrum.sum())


COVERED = {
    name: SPLIT[name]
    for name in ("covariance, zeros, five apart", "covariance and zeros alone", "long tail, three apart")
}


@pytest.mark.slow
@pytest.mark.parametrize("make", COVERED.values(), ids=COVERED.keys())
def test_intervals_cover_as_often_as_they_say(make, rng: np.random.Generator) -> None:
    spectrum, n_outliers = make(rng)
    rank, share = effective_rank(spectrum), trace_share(spectrum, n_outliers)
    hits = np.zeros(3)
    for seed in range(200):
        density = density_of(spectrum, seed, n_probes=10, n_steps=30)
        split, flat = bulk_outlier_split(density), degeneracy(density)
        intervals = (split.n_outliers_interval, split.trace_share_interval, flat.effective_rank_interval)
        for i, (truth, (low, high)) in enumerate(zip((n_outliers, share, rank), intervals, strict=True)):
            hits[i] += low <= truth <= high
    assert hits[0] == 200
    assert hits[1] / 200 > 0.92  # two standard errors of 200 repeats below 0.95
    assert hits[2] / 200 > 0.84  # the jackknife is too short where outliers dominate: 0.885 here


def test_effective_rank_within_its_interval_and_quadrature_within_its_resolution() -> None:
    """Zeros between two signs are hard on quadrature: more steps move the rank by a few percent."""
    spectrum = np.r_[np.zeros(150), np.linspace(-1, 2, 100) ** 3, 1 / np.arange(1, 51)]
    truth = effective_rank(spectrum)
    whole = density_of(spectrum, n_probes=20, n_steps=120)
    assert degeneracy(whole).effective_rank == pytest.approx(degeneracy(whole.shortened(100)).effective_rank, rel=0.01)
    for n_steps in (20, 30, 40, 60):
        found = degeneracy(density_of(spectrum, n_probes=20, n_steps=n_steps))
        assert abs(found.effective_rank - degeneracy(whole).effective_rank) < found.effective_rank_resolution
        assert found.effective_rank_resolution < 0.3 * truth
        low, high = found.effective_rank_interval
        assert max(low - 1.0, 0.0) <= max(found.effective_rank - found.effective_rank_resolution - 1.0, 0.0)
        assert high >= found.effective_rank + found.effective_rank_resolution
        assert low < truth < high


def test_effective_rank_of_equal_eigenvalues_is_their_number() -> None:
    found = degeneracy(density_of(np.r_[np.full(50, -2.0), np.zeros(150)], n_probes=60, n_steps=5))
    low, high = found.effective_rank_interval
    assert low < 50 < high
    assert high / low < 1.1


def test_effective_rank_and_split_do_not_depend_on_scale() -> None:
    spectrum = np.r_[np.linspace(0, 1, 200), 4.0, 9.0]
    one, other = density_of(spectrum), density_of(3.7 * spectrum)
    assert degeneracy(other).effective_rank == pytest.approx(degeneracy(one).effective_rank, rel=1e-10)
    split, scaled = bulk_outlier_split(one), bulk_outlier_split(other)
    assert split.n_outliers == scaled.n_outliers == 2
    assert scaled.trace_share == pytest.approx(split.trace_share, rel=1e-10)
    np.testing.assert_allclose(scaled.bulk_edges, 3.7 * np.array(split.bulk_edges), rtol=1e-8)


def test_share_of_the_trace_and_edges_of_the_bulk() -> None:
    spectrum = np.r_[1 + semicircle(300), 5.0, 8.0]
    found = bulk_outlier_split(density_of(spectrum, n_probes=60, n_steps=30))
    truth = 13 / spectrum.sum()
    assert abs(found.trace_share - truth) < 4 * found.trace_share_standard_error
    assert 4 * found.trace_share_standard_error < 0.05 * truth  # so that a bias of 5 % fails
    assert found.trace_share_interval[0] < found.trace_share < found.trace_share_interval[1]
    np.testing.assert_allclose(found.bulk_edges, (0, 2), atol=0.06)
    np.testing.assert_allclose(found.outliers, [8, 5], rtol=1e-8)


def test_a_spectrum_without_a_gap_says_so() -> None:
    """More steps find more outliers of a power law: the interval is wide."""
    found = bulk_outlier_split(density_of(1 / np.arange(1, 801)))
    low, high = found.n_outliers_interval
    assert high > 1.5 * low
    assert bulk_outlier_split(density_of(1 / np.arange(1, 801), n_steps=80)).n_outliers > found.n_outliers


def test_a_closed_chain_has_no_bulk() -> None:
    found = bulk_outlier_split(density_of(np.repeat([0.0, 1.0, 5.0], [900, 90, 10]), n_steps=20))
    assert np.isnan(found.n_outliers)
    assert np.isnan(found.trace_share_interval).all()
    assert found.outliers.size == 0


def test_a_single_probe_has_no_errors() -> None:
    density = density_of(np.linspace(0, 1, 200), n_probes=1)
    assert np.isnan(degeneracy(density).effective_rank_interval).all()
    found = bulk_outlier_split(density)
    assert np.isnan(found.trace_share_standard_error)
    assert np.isnan(found.trace_share_interval).all()
    assert found.n_outliers == 0


@pytest.mark.parametrize(
    ("n_steps", "options", "message"),
    [
        (11, {}, "at least 12 steps to tell bulk from outliers, got 11"),
        (12, {"margin": 0.0}, "margin must be positive, got 0.0"),
        (12, {"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
    ],
)
def test_bad_requests_are_refused(n_steps: int, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bulk_outlier_split(density_of(np.linspace(0, 1, 50), n_steps=n_steps), **options)

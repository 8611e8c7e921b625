"""Spectral density: moments, bounds, no ghosts; and the near-null share counted from it."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, dense_hessian, in_float32, mlp, quadratic, seeded, trained

from probes.landscape import SpectralDensity, curvature_operator, degeneracy, spectral_density


def density_of(case: Case, n_probes: int, n_steps: int, seed: int = 0, **options) -> SpectralDensity:
    return spectral_density(
        case.model,
        case.batches,
        loss_fn=case.loss_fn,
        n_probes=n_probes,
        n_steps=n_steps,
        generator=seeded(seed),
        **options,
    )


@pytest.fixture(scope="module")
def flat() -> tuple[Case, np.ndarray]:
    """1,803 parameters trained to interpolate 144 numbers: most directions are null."""
    case = trained(mlp(6, 180, 3, n_samples=48), 2000, 0.01)
    return case, np.linalg.eigvalsh(dense_hessian(case))


@pytest.fixture(scope="module")
def crowded() -> tuple[Case, np.ndarray]:
    """803 parameters early in training: eigenvalues crowd around zero, on both sides of any threshold."""
    case = trained(mlp(6, 80, 3, n_samples=100))
    return case, np.linalg.eigvalsh(dense_hessian(case))


def test_moments_estimate_powers_of_the_hessian(crowded) -> None:
    case, values = crowded
    density = density_of(case, 200, 4)
    for power in (0, 1, 2, 3):
        samples = density.moments(power)
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        assert abs(samples.mean() - (values**power).mean()) <= 4 * error + 1e-12
    assert density.n_matvecs == 800


def test_weights_sum_to_one_and_nodes_do_not_repeat(crowded) -> None:
    case, values = crowded
    for each in (case, in_float32(trained(mlp(6, 80, 3, n_samples=100)))):
        density = density_of(each, 3, 100)
        np.testing.assert_allclose(density.weights.sum(axis=1), 1.0, rtol=1e-12)
        outliers = np.sort(values)[::-1][:15]
        found = np.sort(density.nodes, axis=1)[:, ::-1][:, :15]
        np.testing.assert_allclose(found, np.tile(outliers, (3, 1)), rtol=1e-5)  # each once, none between


def test_density_integrates_to_one_and_peaks_at_the_planted_values() -> None:
    density = density_of(quadratic(np.repeat([0.0, 2.0, 5.0], [60, 30, 10])), 20, 10)
    grid = np.linspace(-2, 7, 1801)
    curve, error = density.density(grid, 0.1)
    assert np.trapezoid(curve, grid) == pytest.approx(1.0, abs=1e-9)
    for value, share in ((0.0, 0.6), (2.0, 0.3), (5.0, 0.1)):
        near = np.abs(grid - value) < 0.6
        i = np.abs(grid - value).argmin()
        peak = share / (0.1 * np.sqrt(2 * np.pi))
        assert np.trapezoid(curve[near], grid[near]) == pytest.approx(share, abs=0.05)
        assert abs(curve[i] - peak) < 4 * error[i]
    assert density.density(grid)[0].max() > 0


def test_a_closed_chain_is_padded_and_exact() -> None:
    density = density_of(quadratic(np.repeat([0.0, 2.0, 5.0], [6, 3, 1])), 4, 10)
    assert np.isnan(density.nodes[:, 3:]).all()
    assert (density.weights[:, 3:] == 0).all()
    np.testing.assert_allclose(density.nodes[:, :3], np.tile([0, 2, 5], (4, 1)), atol=1e-12)
    lower, upper = density.cumulative_bounds(np.array([-1.0, 1.0, 3.0, 6.0]))
    np.testing.assert_allclose(lower, upper, atol=1e-12)
    np.testing.assert_allclose(lower, np.cumsum(np.pad(density.weights[:, :3], ((0, 0), (1, 0))), axis=1), atol=1e-12)


@pytest.mark.parametrize("n_steps", [2, 5])
def test_shortened_is_the_run_of_fewer_steps(crowded, n_steps: int) -> None:
    long, short = (density_of(crowded[0], 3, n) for n in (8, n_steps))
    cut = long.shortened(n_steps)
    np.testing.assert_allclose(cut.nodes[:, :n_steps], short.nodes, rtol=1e-9)
    np.testing.assert_allclose(cut.weights[:, :n_steps], short.weights, rtol=1e-9)
    assert np.isnan(cut.nodes[:, n_steps:]).all()
    closed = density_of(quadratic(np.repeat([0.0, 2.0, 5.0], [6, 3, 1])), 3, 8)
    np.testing.assert_array_equal(closed.shortened(n_steps).nodes, closed.nodes)  # three values: exact, kept whole


def test_bounds_hold_and_close_with_steps() -> None:
    """The measure of one probe is known from the eigenvectors: bounds must hold everywhere and close with steps."""
    case = quadratic(np.r_[np.linspace(-1, 1, 150) ** 3, 4.0])
    values, vectors = np.linalg.eigh(case.model.hessian.numpy())  # type: ignore[union-attr]
    with curvature_operator(case.model, case.batches, loss_fn=case.loss_fn) as hessian:
        probe = hessian.random_signs(seeded()).numpy()  # the one drawn inside
    masses = (vectors.T @ probe) ** 2 / len(values)
    points = np.array([-0.5, -0.01, 0.003, 0.2, 0.9, 2.0])
    truth = np.array([masses[values < x].sum() for x in points])
    widths = []
    for n_steps in (5, 20, 60):
        lower, upper = density_of(case, 1, n_steps).cumulative_bounds(points)
        assert (lower[0] <= truth + 1e-10).all()
        assert (truth <= upper[0] + 1e-10).all()
        widths.append(float((upper - lower).mean()))
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@pytest.mark.parametrize("threshold", [1e-4, 1e-2])
def test_near_null_share_of_a_network_within_two_percent(flat, threshold: float) -> None:
    case, values = flat
    result = degeneracy(density_of(case, 10, 80), relative_threshold=threshold)
    truth = float((np.abs(values) < threshold * values.max()).mean())
    assert result.near_null_share == pytest.approx(truth, abs=0.02)
    assert abs(result.near_null_share - truth) < 4 * result.near_null_standard_error
    assert result.near_null_interval[0] < truth < result.near_null_interval[1]
    assert result.near_null_resolution < 0.002
    assert result.largest == pytest.approx(values.max(), rel=1e-8)
    ratio = values.sum() ** 2 / (values**2).sum()
    assert abs(result.participation_ratio - ratio) < 4 * result.participation_standard_error
    assert result.participation_standard_error < 0.1 * ratio


@pytest.mark.parametrize("n_steps", [40, 80])
def test_unresolved_share_has_an_interval_that_holds_the_truth(crowded, n_steps: int) -> None:
    """With few steps a Ritz value stands for hundreds of eigenvalues; spread between probes does not show it.

    Counting Ritz values inside the threshold of 1e-3 gives 0.58 and 0.39 here for a true 0.45.
    """
    case, values = crowded
    density = density_of(case, 10, n_steps)
    for threshold in (1e-4, 1e-3):
        result = degeneracy(density, relative_threshold=threshold)
        truth = float((np.abs(values) < result.threshold).mean())
        assert result.near_null_share == pytest.approx(truth, abs=0.05)
        assert result.near_null_resolution > 5 * result.near_null_standard_error
        low, high = result.near_null_interval
        assert low <= max(result.near_null_share - result.near_null_resolution, 0.0)
        assert high >= result.near_null_share + result.near_null_resolution
        assert low <= truth <= high


def test_planted_null_and_negative_shares() -> None:
    spectrum = np.r_[np.zeros(240), np.repeat(np.linspace(1, 3, 14), 10), np.repeat([-2.0, -1.0], 10)]
    result = degeneracy(density_of(quadratic(spectrum), 40, 20), relative_threshold=0.01)
    assert result.near_null_resolution < 1e-6
    assert 4 * result.near_null_standard_error < 0.03  # so that a bias of 5 % fails
    assert abs(result.near_null_share - 0.6) < 4 * result.near_null_standard_error
    assert abs(result.negative_share - 0.05) < 4 * result.negative_standard_error
    assert result.threshold == pytest.approx(0.03)


def test_participation_ratio_of_equal_eigenvalues() -> None:
    result = degeneracy(density_of(quadratic(np.r_[np.full(50, 2.0), np.zeros(150)]), 100, 5))
    assert abs(result.participation_ratio - 50) < 4 * result.participation_standard_error
    assert result.participation_standard_error < 0.03 * 50


def test_shares_do_not_depend_on_the_scale_of_the_loss(crowded) -> None:
    case, _ = crowded
    scaled = Case(case.model, case.batches, lambda model, batch: 3.7 * case.loss_fn(model, batch))
    one, other = (degeneracy(density_of(each, 2, 30), relative_threshold=1e-2) for each in (case, scaled))
    assert other.near_null_share == pytest.approx(one.near_null_share, rel=1e-8)
    assert other.participation_ratio == pytest.approx(one.participation_ratio, rel=1e-8)
    assert other.largest == pytest.approx(3.7 * one.largest, rel=1e-10)


def test_a_single_probe_has_no_errors() -> None:
    result = degeneracy(density_of(mlp(), 1, 20))
    assert 0 <= result.near_null_share <= 1
    assert np.isnan(result.near_null_standard_error)
    assert np.isnan(result.near_null_interval).all()
    assert np.isnan(result.participation_standard_error)


def test_a_zero_hessian_is_all_null() -> None:
    result = degeneracy(density_of(quadratic(np.zeros(8)), 2, 5))
    assert (result.near_null_share, result.negative_share) == (1.0, 0.0)
    assert np.isnan(result.participation_ratio)


@pytest.mark.parametrize(
    ("n_probes", "n_steps", "message"),
    [(0, 5, "n_probes must be at least 1, got 0"), (2, 0, "n_steps must be at least 1, got 0")],
)
def test_bad_sizes_are_refused(n_probes: int, n_steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density_of(mlp(), n_probes, n_steps)


def test_bad_thresholds_are_refused() -> None:
    density = density_of(mlp(), 2, 5)
    with pytest.raises(ValueError, match="relative_threshold must lie between 0 and 1, got 0"):
        degeneracy(density, relative_threshold=0.0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        degeneracy(density, level=95.0)
    with pytest.raises(ValueError, match="width must be positive, got -1"):
        density.density(np.zeros(3), -1.0)

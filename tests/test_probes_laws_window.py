import numpy as np
import pytest

from probes import choose_window, fit_law

P = 0.6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def delayed_law(n, begin, noise, rng, *, rho=0.0):
    """A plateau up to ``begin``, then a power law; four decades."""
    t = np.geomspace(1, 1e4, n)
    clean = 1 + 3 * (np.maximum(t - begin, 0) + 5.0) ** -P
    e = rng.standard_normal(n)
    for i in range(1, n):
        e[i] = rho * e[i - 1] + np.sqrt(1 - rho**2) * e[i]
    return t, clean + noise * np.ptp(clean) * e


def coverage(n_curves, begin, *, chosen=True, n=60, noise=0.02, seed=0):
    """Share of intervals, after the choice of the window, that hold the exponent; and the starts."""
    rng = np.random.default_rng(seed)
    hits, starts = 0, []
    for _ in range(n_curves):
        t, y = delayed_law(n, begin, noise, rng)
        start = choose_window(t, y, laws=["power_law"]).start if chosen else 0
        fit = fit_law(t[start:], y[start:], laws=["power_law"], n_bootstrap=100, rng=rng)
        hits += fit.interval[0] <= P <= fit.interval[1]
        starts.append(t[start])
    return hits / n_curves, np.array(starts)


def test_a_law_that_holds_everywhere_keeps_the_whole_window():
    rng = np.random.default_rng(1)
    found = [choose_window(*delayed_law(60, 0.0, 0.02, rng), laws=["power_law"]) for _ in range(30)]
    assert np.mean([w.start == 0 for w in found]) >= 0.85  # 1 % leave it
    assert found[0].window == pytest.approx((1.0, 1e4, 4.0))
    assert found[0].reason == ""
    assert found[0].correlations[-1] <= found[0].thresholds[-1] == pytest.approx(2.326 / np.sqrt(60))


def test_a_plateau_is_left_out():
    rng = np.random.default_rng(2)
    for _ in range(4):
        t, y = delayed_law(60, 30.0, 0.02, rng)
        found = choose_window(t, y)
        assert found.reason == ""
        assert 10 <= found.window[0] <= 200
        assert found.window == (t[found.start], 1e4, np.log10(1e4 / t[found.start]))
        assert found.tried[-1] == found.start
        assert all(c > h for c, h in zip(found.correlations[:-1], found.thresholds[:-1], strict=True))
        assert found.law in fit_law(t, y, n_bootstrap=0, rng=rng).weights


def test_correlated_noise_leaves_no_window(rng):
    t, y = delayed_law(200, 0.0, 0.05, rng, rho=0.8)
    found = choose_window(t, y)
    assert found.start == 0
    assert "uncorrelated" in found.reason
    assert found.window == pytest.approx((1.0, 1e4, 4.0))
    assert found.law == ""
    assert len(found.tried) > 3


def test_less_than_a_decade_and_constants_have_no_window():
    t = np.geomspace(10, 90, 30)
    assert "less than a decade" in choose_window(t, 1 / t).reason
    t = np.geomspace(1, 1000, 30)
    assert choose_window(t, np.ones(30)).reason == "the curve is constant"


def test_units_do_not_matter(rng):
    t, y = delayed_law(80, 30.0, 0.02, rng)
    one, two = choose_window(t, y), choose_window(1e3 * t, 5 - 1e-4 * y)
    assert two.start == one.start
    assert two.correlations == pytest.approx(one.correlations, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("begin", [0.0, 20.0])
def test_the_interval_covers_after_the_choice(begin):
    covered, starts = coverage(300, begin)
    assert 0.90 <= covered <= 0.99  # standard error 1.3 %
    if begin:  # without the choice the plateau spoils the fit
        assert np.median(starts) >= 0.5 * begin
        assert coverage(60, begin, chosen=False)[0] <= 0.85


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": np.arange(20.0)}, r"t must be positive"),
        ({"laws": ["cubic"]}, r"unknown law 'cubic'"),
        ({"sigma": -1.0}, r"sigma must be positive"),
        ({"t": np.arange(1.0, 6), "y": np.arange(5.0)}, r"at least 6 points are needed here; got 5"),
    ],
)
def test_bad_input_gets_one_clear_line(change, message):
    arguments = {"t": np.arange(1, 21.0), "y": np.arange(20.0)} | change
    with pytest.raises(ValueError, match=message):
        choose_window(**arguments)

"""Curves of known law and of known onset, for tests and benchmarks."""

import numpy as np

LAWS = ("power_law", "exponential", "stretched_exponential", "logarithmic", "logistic")

KINDS = ("ramp", "relaxation", "smooth step", "power", "logistic")
FOOT_OF_LOGISTIC = 3.52
"""Widths before the middle at which the closest cubic step to a logistic starts (test_probes_onset computes it)."""


def planted_law(law, t, rng):
    """A curve of one law with resolved parameters: its change lies inside the window."""

    def between(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high)))

    first, last = t[0], t[-1]
    if law == "power_law":
        y = (t - first + first * between(0.3, 3)) ** -rng.uniform(0.4, 1.5)
    elif law == "exponential":
        y = np.exp(-t / between(0.01 * last, 0.3 * last))
    elif law == "stretched_exponential":
        y = np.exp(-((t / between(0.01 * last, 0.3 * last)) ** rng.uniform(0.35, 0.65)))
    elif law == "logarithmic":
        y = np.log(t + first * between(0.1, 3))
    else:
        middle = between(0.1 * last, 0.6 * last)
        y = 1 / (1 + np.exp(-(t - middle) / (middle * rng.uniform(0.1, 0.3))))
    return rng.normal() + rng.choice([-1, 1]) * between(0.1, 10) * (y - y.min()) / np.ptp(y)


def planted_onset(kind, t, onset, width):
    """A curve from 0 to 1 that begins to change at ``onset``; a logistic by the definition in the docstring."""
    x = np.maximum(t - onset, 0) / width
    if kind == "ramp":
        return np.minimum(x / 3, 1)
    if kind == "relaxation":
        return 1 - np.exp(-x)
    if kind == "smooth step":
        u = np.minimum(x / 3, 1)
        return u * u * (3 - 2 * u)
    if kind == "power":
        return 1 - (1 + x) ** -0.7
    return 1 / (1 + np.exp(-(2 * (t - onset) / width - FOOT_OF_LOGISTIC)))


def onset_curves(n_curves, grid, noise, seed):
    """Noisy curves of all kinds with their onsets and a distance between onsets: points, or log step."""
    rng = np.random.default_rng(seed)
    for i in range(n_curves):
        if grid == "linear":
            t, onset, width = np.arange(1, 151.0), rng.uniform(40, 90), rng.uniform(5, 20)
        else:
            t, onset = np.geomspace(10, 1e4, 40), np.exp(rng.uniform(np.log(60), np.log(600)))
            width = onset * rng.uniform(0.3, 1)
        sign, scale = rng.choice([-1, 1]), np.exp(rng.uniform(-2, 2))
        y = planted_onset(KINDS[i % len(KINDS)], t, onset, width) + noise * rng.standard_normal(len(t))
        yield t, 0.3 + sign * scale * y, onset, rng

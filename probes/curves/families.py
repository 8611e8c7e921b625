"""The curve laws: each a shape with one or two shape parameters, scaled and shifted freely.

Every law reads ``y(t) = offset + amplitude * shape(t; theta)``. The offset and the amplitude are linear and are
solved in closed form; ``theta`` is searched inside a box. The boxes keep the laws apart: a power law with a huge
exponent *is* an exponential, one with a vanishing exponent *is* a logarithm, and a comparison between a law and
its own limit means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SMALLEST_EXPONENT = 0.15
"""Power laws with a smaller |exponent| count as logarithmic. Our choice, measured: with 0.1 a planted logarithm never
won, since a power law of such an exponent and an adjusted t0 follows it within 1 % of the range."""

LARGEST_EXPONENT = 4.0
"""Power laws with a larger |exponent| count as exponential (our choice: potentials x^k have k/(k-2) <= 3)."""

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``shape(t, theta)``: clock ``(point,)`` and shape parameters ``(batch, parameter)`` to ``(batch, point)``."""


@dataclass(frozen=True)
class Law:
    """One curve law.

    Attributes:
        name: the name users pass.
        shape: the unscaled curve.
        axes: for a clock, the search grid of each shape parameter; its ends are the box.
        describe: shape parameters, offset, amplitude and clock to the named parameters of the formula.
        n_exponents: how many of the first shape parameters are exponents p, with one box for either sign.
    """

    name: str
    shape: Shape
    axes: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    describe: Callable[[np.ndarray, float, float, np.ndarray], dict[str, float]]
    n_exponents: int = 0

    @property
    def n_parameters(self) -> int:
        """Free parameters with offset and amplitude."""
        return 2 + len(self.axes(np.array([1.0, 2.0, 3.0])))


def boxes(law: Law, t: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the search box of each start, ``(start, parameter)`` each."""
    axes = law.axes(t)
    lower = np.tile([axis[0] for axis in axes], (len(starts), 1))
    upper = np.tile([axis[-1] for axis in axes], (len(starts), 1))
    for d in range(law.n_exponents):
        grows = starts[:, d] < 0
        lower[~grows, d], upper[grows, d] = SMALLEST_EXPONENT, -SMALLEST_EXPONENT
    return lower, upper


def delays(t: np.ndarray, n: int = 36) -> np.ndarray:
    """Grid of ``log(t[0] - t0)``: from a tenth of the first gap to three times the window."""
    return np.linspace(np.log(0.1 * (t[1] - t[0])), np.log(3.0 * (t[-1] - t[0])), n)


def time_scales(t: np.ndarray, n: int) -> np.ndarray:
    """Grid of log time scales: from the first gap to three times the window."""
    return np.linspace(np.log(t[1] - t[0]), np.log(3.0 * (t[-1] - t[0])), n)


def power(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Box-Cox form ``(1 - u^-p) / p`` of a power of ``u = (t - t0) / (t[0] - t0)``; theta is (p, log(t[0] - t0)).

    Smooth through p = 0, where it is the logarithm, so a profile over p may cross zero.
    """
    p = theta[:, :1]
    log_u = np.log1p((t - t[0]) * np.exp(-theta[:, 1:2]))
    tiny = np.abs(p) < 1e-9
    return np.where(tiny, log_u, -np.expm1(-p * log_u) / np.where(tiny, 1.0, p))


def _describe_power(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    p, delay = float(theta[0]), float(np.exp(theta[1]))
    return {"y_inf": offset + amplitude / p, "a": -amplitude / p * delay**p, "t0": float(t[0]) - delay, "p": p}


def _describe_unshifted(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    described = _describe_power(np.append(theta, np.log(t[0])), offset, amplitude, t)
    return {name: described[name] for name in ("y_inf", "a", "p")}


def _broken(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """One at the break; slope -p_early far before it and -p_late far after it on doubly logarithmic axes."""
    early, late, log_break, log_width = (theta[:, d : d + 1] for d in range(4))
    log_u, width = np.log(t) - log_break, np.exp(log_width)
    return np.exp(-early * log_u - (late - early) * width * (np.logaddexp(0.0, log_u / width) - np.log(2.0)))


def _breaks(t: np.ndarray) -> np.ndarray:
    """Grid of log break times: half a decade from either end, in a short window a quarter of it."""
    first, last = np.log(t[0]), np.log(t[-1])
    margin = min(0.5 * np.log(10.0), 0.25 * (last - first))
    return np.linspace(first + margin, last - margin, 9)


def _describe_broken(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    return {
        "y_inf": offset,
        "a": amplitude,
        "p_early": float(theta[0]),
        "p_late": float(theta[1]),
        "t_break": float(np.exp(theta[2])),
        "width": float(np.exp(theta[3])),
    }


def _finite_time(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    p, lead = theta[:, :1], np.exp(theta[:, 1:2])
    return np.expm1(-p * np.log((t[-1] - t + lead) / (t[-1] - t[0] + lead))) / p


def _describe_finite_time(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    p, lead = float(theta[0]), float(np.exp(theta[1]))
    scale = float(t[-1] - t[0]) + lead
    return {"y_inf": offset - amplitude / p, "a": amplitude / p * scale**p, "t_c": float(t[-1]) + lead, "p": p}


def _exponential(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return np.exp(-(t - t[0]) * np.exp(-theta[:, :1]))


def _describe_exponential(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    scale = float(np.exp(theta[0]))
    with np.errstate(over="ignore"):
        return {"y_inf": offset, "a": float(amplitude * np.exp(t[0] / scale)), "T": scale}


def _stretched(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return np.exp(-np.exp(theta[:, 1:2] * (np.log(t) - theta[:, :1])))


def _describe_stretched(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    return {"y_inf": offset, "a": amplitude, "T": float(np.exp(theta[0])), "beta": float(theta[1])}


def _logarithmic(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return np.log1p((t - t[0]) * np.exp(-theta[:, :1]))


def _describe_logarithmic(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    delay = float(np.exp(theta[0]))
    return {"a": offset - amplitude * float(theta[0]), "b": amplitude, "t0": delay - float(t[0])}


def _logistic(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * (t - np.exp(theta[:, :1])) * np.exp(-theta[:, 1:2]))


def _describe_logistic(theta: np.ndarray, offset: float, amplitude: float, t: np.ndarray) -> dict[str, float]:
    return {"y_0": offset, "a": amplitude, "t_mid": float(np.exp(theta[0])), "width": float(np.exp(theta[1]))}


def _log_logistic(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * (np.log(t) - theta[:, :1]) * np.exp(-theta[:, 1:2]))


def _both_signs(largest: float, n: int) -> np.ndarray:
    return np.concatenate([-np.geomspace(largest, SMALLEST_EXPONENT, n), np.geomspace(SMALLEST_EXPONENT, largest, n)])


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "power_law",
            power,
            lambda t: (_both_signs(LARGEST_EXPONENT, 16), delays(t)),
            _describe_power,
            n_exponents=1,
        ),
        Law("exponential", _exponential, lambda t: (time_scales(t, 60),), _describe_exponential),
        Law(
            "stretched_exponential",
            _stretched,
            lambda t: (np.linspace(np.log(t[0]), np.log(3.0 * t[-1]), 40), np.linspace(0.2, 0.85, 12)),
            _describe_stretched,
        ),
        Law("logarithmic", _logarithmic, lambda t: (delays(t, 60),), _describe_logarithmic),
        Law(
            "logistic",
            _logistic,
            lambda t: (
                np.log(np.linspace(t[0], t[-1], 60)),
                np.log(np.ptp(t) * np.geomspace(1e-3, 0.5, 24)),
            ),
            _describe_logistic,
        ),
        Law(
            "log_logistic",
            _log_logistic,
            lambda t: (
                np.linspace(np.log(t[0]), np.log(t[-1]), 40),
                np.log(np.ptp(np.log(t)) * np.geomspace(5e-3, 0.5, 20)),
            ),
            _describe_logistic,
        ),
        Law(
            "finite_time_power_law",
            _finite_time,
            lambda t: (_both_signs(LARGEST_EXPONENT, 16), delays(-t[::-1])),
            _describe_finite_time,
            n_exponents=1,
        ),
        Law(
            "unshifted_power_law",
            lambda t, theta: power(t, np.column_stack([theta, np.full(len(theta), np.log(t[0]))])),
            lambda t: (_both_signs(LARGEST_EXPONENT, 40),),
            _describe_unshifted,
            n_exponents=1,
        ),
        Law(
            "broken_power_law",
            _broken,
            lambda t: (
                _both_signs(LARGEST_EXPONENT, 6),
                _both_signs(LARGEST_EXPONENT, 6),
                _breaks(t),
                np.log(np.geomspace(0.1, 1.0, 3)),
            ),
            _describe_broken,
            n_exponents=2,
        ),
    )
}
"""Every law by name. The first five are the default of ``fit_law``. Extra are ``log_logistic`` (a logistic in log t,
whose tail is itself a power law), ``finite_time_power_law`` (``(t_c - t)^-p``, the escape from a saddle),
``unshifted_power_law`` (t0 held at zero) and ``broken_power_law`` (two exponents with a smooth break)."""

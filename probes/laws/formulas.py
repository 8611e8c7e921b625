"""The laws as functions of time and the parameters that ``fit_law`` reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def _broken(
    t: np.ndarray, y_inf: float, a: float, p_early: float, p_late: float, t_break: float, width: float
) -> np.ndarray:
    log_u = np.log(t / t_break)
    bend = width * (np.logaddexp(0.0, log_u / width) - np.log(2.0))
    return y_inf + a * np.exp(-p_early * log_u - (p_late - p_early) * bend)


FORMULAS: dict[str, Callable[..., np.ndarray]] = {
    "power_law": lambda t, y_inf, a, t0, p: y_inf + a * (t - t0) ** -p,
    "exponential": lambda t, y_inf, a, T: y_inf + a * np.exp(-t / T),
    "stretched_exponential": lambda t, y_inf, a, T, beta: y_inf + a * np.exp(-((t / T) ** beta)),
    "logarithmic": lambda t, a, b, t0: a + b * np.log(t + t0),
    "logistic": lambda t, y_0, a, t_mid, width: y_0 + a / (1 + np.exp(-(t - t_mid) / width)),
    "log_logistic": lambda t, y_0, a, t_mid, width: y_0 + a / (1 + (t / t_mid) ** (-1 / width)),
    "finite_time_power_law": lambda t, y_inf, a, t_c, p: y_inf + a * (t_c - t) ** -p,
    "unshifted_power_law": lambda t, y_inf, a, p: y_inf + a * t**-p,
    "broken_power_law": _broken,
}


def law_values(
    law: str, t: Float[np.ndarray, " point"] | ArrayLike, parameters: Mapping[str, float]
) -> Float[np.ndarray, " point"]:
    """Values of a law at times ``t``, from the parameters that ``fit_law`` names; to draw or extrapolate a fit.

    Raises:
        ValueError: an unknown law.
    """
    if law not in FORMULAS:
        raise ValueError(f"law must be one of {', '.join(FORMULAS)}; got {law!r}")
    return FORMULAS[law](np.asarray(t, dtype=np.float64), **parameters)

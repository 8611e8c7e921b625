"""Curve laws y(t) of training quantities: shapes, batched least squares, comparison, resampling.

The common ground of ``probes.laws``, ``probes.onset`` and ``probes.potential``, which do not import each other.
"""

from .comparison import EVIDENCE_OF_CHANGE, WEIGHT_THRESHOLD, Comparison, LawSolution, compare_laws, law_errors
from .curve import Curve, checked_curve
from .families import LARGEST_EXPONENT, LAWS, SMALLEST_EXPONENT, Law, delays, power
from .least_squares import Solution, grid_rss, linear_parameters, solve
from .profile import LEVEL, Problem, profile_interval
from .resampling import effective_points, lag_correlation, resampled_noise, significant_correlation

__all__ = [
    "EVIDENCE_OF_CHANGE",
    "LARGEST_EXPONENT",
    "LAWS",
    "LEVEL",
    "SMALLEST_EXPONENT",
    "WEIGHT_THRESHOLD",
    "Comparison",
    "Curve",
    "Law",
    "LawSolution",
    "Problem",
    "Solution",
    "checked_curve",
    "compare_laws",
    "delays",
    "effective_points",
    "grid_rss",
    "lag_correlation",
    "law_errors",
    "linear_parameters",
    "power",
    "profile_interval",
    "resampled_noise",
    "significant_correlation",
    "solve",
]

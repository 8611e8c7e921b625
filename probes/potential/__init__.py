"""The effective potential behind a relaxation: its degree from a loss and an observable, checked against the LLC."""

from .agreement import DegreeReport, compare_degrees
from .estimate import EffectivePotential, LLCCrossCheck, fit_effective_potential, llc_cross_check

__all__ = [
    "DegreeReport",
    "EffectivePotential",
    "LLCCrossCheck",
    "compare_degrees",
    "fit_effective_potential",
    "llc_cross_check",
]

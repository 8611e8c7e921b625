"""The effective potential behind a relaxation: its degree from a loss and an observable, checked against the LLC."""

from .estimate import EffectivePotential, LLCCrossCheck, fit_effective_potential, llc_cross_check

__all__ = ["EffectivePotential", "LLCCrossCheck", "fit_effective_potential", "llc_cross_check"]

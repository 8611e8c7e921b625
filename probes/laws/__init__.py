"""Which law training curves follow: one curve, or the curves of several seeds together."""

from .estimate import DEFAULT_LAWS, LawFit, fit_law
from .formulas import law_values
from .population import LawPopulation, fit_laws
from .random_effects import RandomEffects, random_effects
from .window import LawWindow, choose_window

__all__ = [
    "DEFAULT_LAWS",
    "LawFit",
    "LawPopulation",
    "LawWindow",
    "RandomEffects",
    "choose_window",
    "fit_law",
    "fit_laws",
    "law_values",
    "random_effects",
]

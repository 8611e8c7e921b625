"""Heavy tails of samples: power-law exponent, where the tail begins, whether a power law is plausible at all."""

from .alternatives import TailComparison
from .estimate import TailFit, fit_tail

__all__ = ["TailComparison", "TailFit", "fit_tail"]

"""Local learning coefficients by stochastic gradient Langevin dynamics.

``estimate_llc`` measures a model, ``estimate_llcs`` many parts of it (every head) in one vectorised run, both with an
error, R-hat and a count of excluded chains; ``calibrate_llc`` chooses step size and localization before that.
"""

from .calibration import LLCCalibration, calibrate_llc
from .estimate import ChainsDiverged, estimate_llc, estimate_llcs, wbic_nbeta
from .options import Rmsprop, SgldOptions
from .result import LLCEstimate, ObservedLLC, join_llcs

__all__ = [
    "ChainsDiverged",
    "LLCCalibration",
    "LLCEstimate",
    "ObservedLLC",
    "Rmsprop",
    "SgldOptions",
    "calibrate_llc",
    "estimate_llc",
    "estimate_llcs",
    "join_llcs",
    "wbic_nbeta",
]

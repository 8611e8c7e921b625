"""Curvature of the loss: extreme eigenpairs, trace, spectral density and degeneracy of the Hessian."""

from .degeneracy import Degeneracy, degeneracy
from .density import SpectralDensity, spectral_density
from .eigenvalues import Eigenvalues, top_eigenvalues
from .hvp import HessianOperator, hessian_operator
from .trace import TraceEstimate, hessian_trace

__all__ = [
    "Degeneracy",
    "Eigenvalues",
    "HessianOperator",
    "SpectralDensity",
    "TraceEstimate",
    "degeneracy",
    "hessian_operator",
    "hessian_trace",
    "spectral_density",
    "top_eigenvalues",
]

"""Curvature of the loss: eigenpairs, trace, spectral density and degeneracy of its Hessian or Gauss-Newton matrix."""

from .blocks import BlockCurvature, hessian_blocks
from .degeneracy import Degeneracy, degeneracy
from .density import SpectralDensity, spectral_density
from .eigenvalues import Eigenvalues, top_eigenvalues
from .operator import CurvatureOperator, curvature_operator
from .outliers import BulkOutlierSplit, bulk_outlier_split
from .trace import TraceEstimate, hessian_trace

__all__ = [
    "BlockCurvature",
    "BulkOutlierSplit",
    "CurvatureOperator",
    "Degeneracy",
    "Eigenvalues",
    "SpectralDensity",
    "TraceEstimate",
    "bulk_outlier_split",
    "curvature_operator",
    "degeneracy",
    "hessian_blocks",
    "hessian_trace",
    "spectral_density",
    "top_eigenvalues",
]

"""How well conditioned a network is across depth: gradients, Jacobians, sensitivity, noise at a layer, branches."""

from .averages import Average
from .bounds import conditioning_bound, sensitivity_bound
from .branches import BranchRatio, branch_ratio
from .gradients import GradientConditioning, gradient_conditioning
from .jacobian import JacobianSpectrum, jacobian_spectrum
from .robustness import LayerRobustness, layer_robustness
from .sensitivity import Sensitivity, perturbation_sensitivity

__all__ = [
    "Average",
    "BranchRatio",
    "GradientConditioning",
    "JacobianSpectrum",
    "LayerRobustness",
    "Sensitivity",
    "branch_ratio",
    "conditioning_bound",
    "gradient_conditioning",
    "jacobian_spectrum",
    "layer_robustness",
    "perturbation_sensitivity",
    "sensitivity_bound",
]

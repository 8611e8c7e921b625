"""Every result of a probe as a picture, with its uncertainty: each function draws on one matplotlib Axes.

``from probes.plots import plot_llc_traces, theme``; ``import probes`` alone loads no matplotlib. Without ``ax`` a
function draws on a figure of its own and returns its axes::

    with theme():
        ax = plot_spectral_density(density)
    ax.figure.savefig("density.pdf")
"""

from .axes import theme
from .conditioning import (
    plot_branch_ratio,
    plot_gradient_conditioning,
    plot_jacobian_spectrum,
    plot_layer_robustness,
    plot_perturbation_sensitivity,
)
from .curves import plot_effective_potential, plot_law_fit, plot_onset, plot_over_steps, plot_tail
from .heads import (
    plot_approach_preference,
    plot_average_precision,
    plot_distance_correlation,
    plot_edge_knockout,
    plot_head_ablation,
    plot_radial_attention,
)
from .landscape import plot_eigenvalues, plot_near_null_share, plot_spectral_density
from .llc import plot_llc_calibration, plot_llc_traces, plot_llcs
from .modularity import plot_cluster_ablation, plot_cluster_map, plot_functional_clusters, plot_shuffle_test
from .tracking import plot_head_tracking, plot_hessian_blocks, plot_patching

__all__ = [
    "plot_approach_preference",
    "plot_average_precision",
    "plot_branch_ratio",
    "plot_cluster_ablation",
    "plot_cluster_map",
    "plot_distance_correlation",
    "plot_edge_knockout",
    "plot_effective_potential",
    "plot_eigenvalues",
    "plot_functional_clusters",
    "plot_gradient_conditioning",
    "plot_head_ablation",
    "plot_head_tracking",
    "plot_hessian_blocks",
    "plot_jacobian_spectrum",
    "plot_law_fit",
    "plot_layer_robustness",
    "plot_llc_calibration",
    "plot_llc_traces",
    "plot_llcs",
    "plot_near_null_share",
    "plot_onset",
    "plot_over_steps",
    "plot_patching",
    "plot_perturbation_sensitivity",
    "plot_radial_attention",
    "plot_shuffle_test",
    "plot_spectral_density",
    "plot_tail",
    "theme",
]

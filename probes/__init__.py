"""Measure any torch model across its training: heads, causes, loss landscape, learning coefficient, laws.

Functions take a model (or plain arrays), leave it as it was found, and return a frozen record with the estimate, its
uncertainty and what it cost. Randomness is an argument::

    estimate = estimate_llc(model, batches, loss_fn=loss_fn, nbeta=100, step_size=3e-4, localization=10,
                            n_chains=4, n_draws=200, n_burnin=200, generator=torch.Generator())
"""

from .adapters import attention_patterns
from .attribution import attribute_output
from .causal import edge_knockout, head_ablation, partner_edges
from .circuits import head_circuits
from .conditioning import (
    branch_ratio,
    conditioning_bound,
    gradient_conditioning,
    jacobian_spectrum,
    layer_robustness,
    perturbation_sensitivity,
    sensitivity_bound,
)
from .heads import (
    approach_preference,
    contact_average_precision,
    distance_correlation,
    permutation_null,
    radial_attention,
    radius_score,
    what_heads_track,
)
from .hooking import record_outputs
from .landscape import (
    bulk_outlier_split,
    curvature_operator,
    degeneracy,
    hessian_blocks,
    hessian_trace,
    spectral_density,
    top_eigenvalues,
)
from .laws import choose_window, fit_law, fit_laws, law_values
from .llc import Rmsprop, calibrate_llc, estimate_llc, estimate_llcs, join_llcs, wbic_nbeta
from .modularity import (
    cluster_ablation,
    cluster_spread,
    functional_clusters,
    graph_modularity,
    interference,
    isolated_fraction,
    newman_q,
    partition_agreement,
    task_variance,
    wiring_length,
)
from .objective import SplitLoss
from .online_onset import OnlineOnset
from .onset import detect_onset
from .parameters import head_parameters
from .patching import Site, patch_activation, patch_path
from .potential import compare_degrees, fit_effective_potential, llc_cross_check
from .series import FunctionSeries, StateDictSeries
from .sweep import FunctionProbe, Measurement, sweep_checkpoints
from .tails import fit_tail

__all__ = [
    "FunctionProbe",
    "FunctionSeries",
    "Measurement",
    "OnlineOnset",
    "Rmsprop",
    "Site",
    "SplitLoss",
    "StateDictSeries",
    "approach_preference",
    "attention_patterns",
    "attribute_output",
    "branch_ratio",
    "bulk_outlier_split",
    "calibrate_llc",
    "choose_window",
    "cluster_ablation",
    "cluster_spread",
    "compare_degrees",
    "conditioning_bound",
    "contact_average_precision",
    "curvature_operator",
    "degeneracy",
    "detect_onset",
    "distance_correlation",
    "edge_knockout",
    "estimate_llc",
    "estimate_llcs",
    "fit_effective_potential",
    "fit_law",
    "fit_laws",
    "fit_tail",
    "functional_clusters",
    "gradient_conditioning",
    "graph_modularity",
    "head_ablation",
    "head_circuits",
    "head_parameters",
    "hessian_blocks",
    "hessian_trace",
    "interference",
    "isolated_fraction",
    "jacobian_spectrum",
    "join_llcs",
    "law_values",
    "layer_robustness",
    "llc_cross_check",
    "newman_q",
    "partition_agreement",
    "partner_edges",
    "patch_activation",
    "patch_path",
    "permutation_null",
    "perturbation_sensitivity",
    "radial_attention",
    "radius_score",
    "record_outputs",
    "sensitivity_bound",
    "spectral_density",
    "sweep_checkpoints",
    "task_variance",
    "top_eigenvalues",
    "wbic_nbeta",
    "what_heads_track",
    "wiring_length",
]

"""What users may rely on: names, and what an import costs."""

import json
import subprocess
import sys

import pytest

import emergence
import probes
import simulators

SURFACE = {
    emergence: ["ParticleTransformer", "StudyConfig", "open_run", "preset", "run_study", "train"],
    probes: [
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
    ],
    simulators: [
        "TASKS",
        "ChargedParticles",
        "CognitiveTrials",
        "CollisionChains",
        "CollisionLog",
        "GravitatingBodies",
        "HardSpheres",
        "LennardJones",
        "ParticleState",
        "RotatingBox",
        "SoftSpheres",
        "SpringNetwork",
        "System",
        "Trajectories",
        "TrajectoryWindows",
        "TrajectoryWriter",
        "TrialParameters",
        "VibratedBox",
        "cognitive_accuracy",
        "cognitive_sequences",
        "cognitive_trials",
        "collision_chains",
        "collision_counts",
        "contact_impulse",
        "contact_labels",
        "kinetic_energy",
        "minimum_image",
        "noise_free_trials",
        "open_trajectories",
        "periodic_axes",
        "recover_collisions",
        "replay",
        "save_trajectories",
        "simulate",
        "time_to_contact",
        "touching_labels",
        "wall_contact_labels",
        "write_trajectories",
    ],
}


@pytest.mark.parametrize("package", SURFACE, ids=lambda package: package.__name__)
def test_the_surface_is_this_and_all_of_it_is_there(package):
    assert package.__all__ == SURFACE[package]
    for name in package.__all__:
        assert getattr(package, name).__doc__, f"{package.__name__}.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'emergence' has no attribute 'run_studdy'"):
        emergence.run_studdy  # noqa: B018


def modules_after(code: str) -> set[str]:
    """Top-level modules a fresh interpreter holds after running some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_simulators_load_neither_torch_nor_pictures():
    loaded = modules_after("import simulators")
    assert "simulators" in loaded
    assert loaded.isdisjoint({"torch", "transformer_lens", "matplotlib", "seaborn", "pandas", "emergence", "probes"})


def test_probes_load_neither_transformer_lens_nor_pictures():
    loaded = modules_after("import probes")
    assert {"probes", "torch"} <= loaded
    assert loaded.isdisjoint({"transformer_lens", "matplotlib", "seaborn", "pandas", "emergence", "simulators"})
    assert loaded.isdisjoint({"sklearn", "networkx"})  # the probes of modules load them when called


def test_emergence_loads_nothing_until_asked():
    assert modules_after("import emergence").isdisjoint({"torch", "transformer_lens", "matplotlib", "pandas", "numba"})


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["train", "--help"], ["--version"], ["trian"]])
def test_help_and_usage_errors_come_without_torch(arguments):
    code = f"""
from emergence.cli import main
try:
    main({arguments})
except SystemExit:
    pass
"""
    loaded = modules_after(code)
    assert "emergence" in loaded
    assert loaded.isdisjoint({"torch", "transformer_lens", "matplotlib", "pandas", "numba"})


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert emergence.__version__ == version("emergence-lab")

"""Every plot draws what its result holds, on the axes given or on its own, and loads nothing before it is asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import probes
from probes import plots


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def scenes() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    places = generator.random((40, 6, 2))
    distances = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
    scores = np.stack([-8 * distances, generator.standard_normal(distances.shape)], axis=1)
    scores[..., np.arange(6), np.arange(6)] = -np.inf
    pattern = np.exp(scores - scores.max(-1, keepdims=True))
    return {
        "pattern": pattern / pattern.sum(-1, keepdims=True),
        "distances": distances,
        "contacts": (distances < 0.2) & (distances > 0),
        "approaching": generator.random(distances.shape) < 0.5,
    }


@pytest.fixture(scope="module")
def landscape() -> dict:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 3, generator=generator), torch.randn(16, 1, generator=generator)) for _ in range(2)]

    def loss_fn(model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    common = {"loss_fn": loss_fn, "generator": generator}
    chains = {**common, "nbeta": 20.0, "n_chains": 3, "n_draws": 20, "n_burnin": 10}
    density = probes.spectral_density(model, batches, n_probes=3, n_steps=15, **common)
    blocks = {"first": "0.*", "last": "2.*"}
    (x, _), (other, _) = batches
    return {
        "blocks": probes.hessian_blocks(model, batches, blocks=blocks, k=2, n_probes=2, n_steps=4, **common),
        "patching": probes.patch_activation(model, x, other, ["0", "2"], metric=lambda output: output[:, 0]),
        "eigenvalues": probes.top_eigenvalues(model, batches, k=4, **common),
        "density": density,
        "flat": probes.degeneracy(density, relative_threshold=1e-2),
        "estimate": probes.estimate_llc(model, batches, step_size=1e-3, localization=10.0, **chains),
        "calibration": probes.calibrate_llc(
            model, batches, step_sizes=(1e-4, 1e-3), localizations=(1.0, 10.0), **chains
        ),
    }


EDGES = np.linspace(0, 1.2, 9)
T = np.geomspace(1, 1000, 30)


def heads_plots(s: dict[str, np.ndarray]) -> dict:
    precision = probes.contact_average_precision(s["pattern"], s["contacts"])
    null = probes.permutation_null(s["pattern"], s["contacts"], rng=rng(), n_permutations=20)
    radial = probes.radial_attention(s["pattern"], s["distances"], edges=EDGES)
    correlation = probes.distance_correlation(s["pattern"], s["distances"], edges=EDGES)
    tracked = {"distance": s["distances"], "contact": s["contacts"], "approaching": s["approaching"]}
    tracking = probes.what_heads_track(s["pattern"], tracked, rng=rng(), n_permutations=99)
    approach = probes.approach_preference(s["pattern"], s["distances"], s["approaching"], edges=EDGES)
    return {
        "average_precision": lambda **ax: plots.plot_average_precision(
            precision, null=null, baselines={"nearest": 0.4}, names=["a", "b"], **ax
        ),
        "radial_attention": lambda **ax: plots.plot_radial_attention(radial, **ax),
        "distance_correlation": lambda **ax: plots.plot_distance_correlation(correlation, **ax),
        "head_tracking": lambda **ax: plots.plot_head_tracking(tracking, **ax),
        "approach_preference": lambda **ax: plots.plot_approach_preference(approach, head=0, **ax),
    }


def landscape_plots(s: dict) -> dict:
    return {
        "eigenvalues": lambda **ax: plots.plot_eigenvalues(s["eigenvalues"], **ax),
        "spectral_density": lambda **ax: plots.plot_spectral_density(s["density"], **ax),
        "near_null_share": lambda **ax: plots.plot_near_null_share(s["density"], s["flat"], **ax),
        "hessian_blocks": lambda **ax: plots.plot_hessian_blocks(s["blocks"], **ax),
        "patching": lambda **ax: plots.plot_patching(s["patching"], **ax),
        "llc_traces": lambda **ax: plots.plot_llc_traces(s["estimate"], **ax),
        "llc_calibration": lambda **ax: plots.plot_llc_calibration(s["calibration"], **ax),
        "llcs": lambda **ax: plots.plot_llcs({"model": s["estimate"], "head": s["estimate"]}, **ax),
    }


def curve_plots() -> dict:
    noise = np.random.default_rng(2).standard_normal(len(T))
    y = 0.1 + T**-0.5 + 0.005 * noise
    rise = np.where(T > 30, 1 - (30 / T) ** 2, 0.0) + 0.02 * noise
    sizes = rng().pareto(1.5, 300) + 1
    tail = probes.fit_tail(sizes, n_bootstrap=40, rng=rng())
    fit, onset = probes.fit_law(T, y, n_bootstrap=40, rng=rng()), probes.detect_onset(T, rise, rng=rng())
    potential = probes.fit_effective_potential(T, T**-2.0 + 1e-4 * noise, T**-0.5, n_bootstrap=40, rng=rng())
    return {
        "law_fit": lambda **ax: plots.plot_law_fit(T, y, fit, sigma=0.005, **ax),
        "onset": lambda **ax: plots.plot_onset(T, rise, onset, **ax),
        "tail": lambda **ax: plots.plot_tail(sizes, tail, **ax),
        "effective_potential": lambda **ax: plots.plot_effective_potential(potential, **ax),
    }


def module_plots() -> dict:
    cells = np.argwhere(np.ones((8, 8)))
    quarter = cells // 4 @ [2, 1]
    variance = np.eye(4)[:, quarter] + 0.2 * rng().random((4, 64))
    variance[:, cells.sum(axis=1) < 3] = 0.0
    clusters = probes.functional_clusters(variance, rng=rng(), n_subsamples=5)
    layer = nn.Sequential(nn.Identity())

    def evaluate(model):
        return [model(torch.ones(10, 64))[:, quarter == c].mean(1) for c in range(4)]

    ablation = probes.cluster_ablation(layer, clusters, evaluate, layer="0", rng=rng(), n_draws=9)
    test = probes.isolated_fraction(clusters, cells, rng=rng(), n_shuffles=200)
    return {
        "shuffle_test": lambda **ax: plots.plot_shuffle_test(test, **ax),
        "functional_clusters": lambda **ax: plots.plot_functional_clusters(clusters, tasks=list("abcd"), **ax),
        "cluster_map": lambda **ax: plots.plot_cluster_map(clusters, cells, **ax),
        "cluster_ablation": lambda **ax: plots.plot_cluster_ablation(ablation, **ax),
    }


def conditioning_plots() -> dict:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    x = [torch.randn(6, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    common = {"loss_fn": lambda model, x: model(x).square().mean(), "layers": ["0", "2"]}
    noise = {"scales": [0.1, 1.0], "n_draws": 3, "generator": torch.Generator().manual_seed(0)}
    gradients = probes.gradient_conditioning(model, x, rng=rng(), **common)
    spectrum = probes.jacobian_spectrum(model, x[0], layers=["0", "1", "2"])
    sensitivity = probes.perturbation_sensitivity(model, x[0], **noise)
    robustness = probes.layer_robustness(model, x, **common, **noise)
    single = probes.layer_robustness(model, x[:1], **common, **noise)  # no interval
    ratio = probes.branch_ratio(model, x, branches={"first": ("1", "0")})
    return {
        "gradient_conditioning": lambda **ax: plots.plot_gradient_conditioning(gradients, **ax),
        "jacobian_spectrum": lambda **ax: plots.plot_jacobian_spectrum(spectrum, **ax),
        "perturbation_sensitivity": lambda **ax: plots.plot_perturbation_sensitivity(sensitivity, **ax),
        "layer_robustness": lambda **ax: plots.plot_layer_robustness(robustness, **ax),
        "layer_robustness of one batch": lambda **ax: plots.plot_layer_robustness(single, **ax),
        "branch_ratio": lambda **ax: plots.plot_branch_ratio(ratio, **ax),
    }


def check(draw) -> None:
    """On its own figure and on given axes: labels, something drawn, and a file that can be written."""
    with plots.theme():
        for ax in (draw(), draw(ax=Figure().subplots())):
            assert isinstance(ax, Axes)
            assert ax.get_xlabel()
            assert ax.get_ylabel() or ax.get_yticklabels()
            assert ax.lines or ax.patches or ax.collections
            figure = ax.figure
            assert isinstance(figure, Figure)
            figure.canvas.draw()


@pytest.mark.parametrize(
    "name",
    ["average_precision", "radial_attention", "distance_correlation", "approach_preference", "head_tracking"],
)
def test_heads(scenes, name):
    check(heads_plots(scenes)[name])


@pytest.mark.parametrize(
    "name",
    [
        "eigenvalues",
        "spectral_density",
        "near_null_share",
        "hessian_blocks",
        "patching",
        "llc_traces",
        "llc_calibration",
        "llcs",
    ],
)
def test_landscape_and_llc(landscape, name):
    check(landscape_plots(landscape)[name])


@pytest.mark.parametrize("name", ["law_fit", "onset", "tail", "effective_potential"])
def test_curves(name):
    check(curve_plots()[name])


@pytest.mark.parametrize("name", ["shuffle_test", "functional_clusters", "cluster_map", "cluster_ablation"])
def test_modules(name):
    check(module_plots()[name])


def test_conditioning():
    draw = conditioning_plots()
    for one in draw.values():
        check(one)
    (points,) = draw["branch_ratio"]().containers
    assert points.lines[0].get_xdata().tolist() == [0]
    assert [text.get_text() for text in draw["gradient_conditioning"]().get_xticklabels()] == ["0", "2"]


def test_the_modules_drawn_are_those_of_the_results():
    draw = module_plots()
    shuffles = draw["shuffle_test"]()
    histogram: Any = shuffles.patches[-1]
    assert shuffles.lines[0].get_xdata()[0] == 0.0  # quarters of the grid leave no unit alone
    assert histogram.get_data().values.sum() == 200
    continuous: Any = plots.plot_shuffle_test(probes.graph_modularity(rng().random((12, 12)), rng=rng()).test)
    assert len(continuous.patches[-1].get_data().values) < 40
    squares = draw["cluster_map"]().patches
    assert len(squares) == 64 - 6
    assert (
        squares[0].get_facecolor() == squares[5].get_facecolor() != squares[1].get_facecolor()
    )  # (0, 3), (1, 2), (0, 4)
    drops = draw["cluster_ablation"]().collections[0].get_array()
    np.testing.assert_allclose(np.reshape(drops, (4, 4)), np.diag([10 / 16, 1, 1, 1]))


def test_the_density_drawn_integrates_to_one(landscape):
    line = plots.plot_spectral_density(landscape["density"]).lines[-1]
    x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)


def test_whiskers_are_the_intervals(scenes):
    precision = probes.contact_average_precision(scenes["pattern"], scenes["contacts"])
    ax = plots.plot_average_precision(precision)
    container: Any = ax.containers[0]
    (bars,) = container.lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, precision.interval, atol=1e-12)


def test_a_sweep_over_steps():
    import pandas as pd

    from probes.sweep import measurements_table

    row = {"seed": 0, "probe": "p", "quantity": "ap", "coordinate": np.nan, "standard_error": 0.1}
    rows = [{**row, "step": s, "layer": 0, "head": h, "value": 0.1 * s + h} for s in (0, 1, 10) for h in (0, 1)]
    table = measurements_table(rows)
    assert isinstance(table, pd.DataFrame)
    ax = plots.plot_over_steps(table, "ap")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["head 0", "head 1"]  # pyright: ignore[reportOptionalMemberAccess]
    np.testing.assert_allclose(np.asarray(ax.lines[1].get_ydata(), dtype=float), [1.0, 1.1, 2.0])
    with pytest.raises(ValueError, match=r"quantity must be one of ap; got 'llc'"):
        plots.plot_over_steps(table, "llc")


def test_names_must_fit(scenes):
    radial = probes.radial_attention(scenes["pattern"], scenes["distances"], edges=EDGES)
    with pytest.raises(ValueError, match="names must label each of the 2 heads, got 1"):
        plots.plot_radial_attention(radial, names=["only"])


def test_importing_probes_loads_no_matplotlib():
    code = "import sys, probes; sys.exit(any(m in sys.modules for m in ('matplotlib', 'seaborn', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

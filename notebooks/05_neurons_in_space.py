# %% [markdown]
# # Do modules grow if wire has a price?
#
# In a brain, neurons that work together lie together, because wire is expensive. Brain-inspired modular training
# (Liu, Gan & Tegmark 2023; Liu, Khona, Fiete & Tegmark 2023) gives every neuron of a network a place, lets each
# weight pay for its size and its length, and lets neurons change places. This notebook asks what that does: first
# on a model of your own, then on a formula whose two halves have nothing to do with each other, then on a recurrent
# network of 400 units that learns twenty cognitive tasks.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from emergence.interventions import spatial
from emergence.studies.spatial.config import SpatialRun, SpatialStudyConfig
from emergence.studies.spatial.figures import ARM_LABELS, draw_grid, draw_layers, family_legend
from emergence.studies.spatial.measuring import cognitive_clusters, grid_cells
from emergence.studies.spatial.study import run_spatial_study
from emergence.studies.spatial.training import trained_run
from probes.modularity import isolated_fraction
from probes.plots import plot_shuffle_test

small = os.environ.get("EMERGENCE_SMALL") == "1"

# %% [markdown]
# ## On a model of your own
# Three calls: `place` gives neurons their places, `wiring_cost` is a differentiable scalar, `swap` exchanges
# neurons in place, their optimizer state along, and says what it saved.

# %%
model = nn.Sequential(nn.Linear(8, 36), nn.Tanh(), nn.Linear(36, 36), nn.Tanh(), nn.Linear(36, 4))
placement = spatial.place(model, "grid", inputs="line", outputs="ring", example=torch.zeros(1, 8))
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
for step in range(200):
    optimizer.zero_grad()
    (nn.functional.mse_loss(model(x), x[:, :4] * x[:, 4:]) + 1e-3 * spatial.wiring_cost(model, placement)).backward()
    optimizer.step()
    if step % 50 == 49:
        swaps = spatial.swap(model, placement, optimizer)
        print(f"step {step}: {len(swaps.moved)} exchanges saved {swaps.saved:.3f}")

# %% [markdown]
# The function of the network does not change, whatever moves:

# %%
before = model(x).detach()
spatial.swap(model, placement, optimizer)
assert torch.allclose(model(x), before, atol=1e-5)

# %% [markdown]
# ## Two formulas that share nothing
# Four inputs, two outputs: $(x_1+x_3)^3$ and $x_2^2+\sin\pi x_4$. Nobody tells the network that they are
# independent. The same from the shell: `emergence spatial independence`.

# %%
folder = Path(tempfile.mkdtemp()) / "independence"
config = SpatialStudyConfig(example="independence", seeds=(0,), n_steps=1500 if small else None, n_shuffles=19)
summary = run_spatial_study(config, folder, n_workers=1)
for arm in summary["arms"]:
    numbers = (f"{name} {arm[name]['mean']:.3g}" for name in ("error", "n_active", "wiring_count"))
    print(f"{ARM_LABELS[arm['arm']]:<24}", ", ".join(numbers))

# %%
figure = Figure(figsize=(10.5, 3.6), layout="constrained")
for ax, arm in zip(figure.subplots(1, 3), config.arms, strict=True):
    trained = trained_run(folder, SpatialRun(arm, 1.0, 0), config.example_settings())
    network, places = trained.load(trained.checkpoints.steps[-1])
    draw_layers(ax, network, places, (trained.task.input_names, trained.task.target_names))
    ax.set_title(ARM_LABELS[arm])
figure

# %% [markdown]
# With distance and swaps the network falls apart into its two modules. How much does each output depend on each
# input?

# %%
inputs = trained.task.test.inputs[:200]
jacobian = torch.func.vmap(torch.func.jacrev(network))(inputs).abs().mean(0)
print((jacobian / jacobian.sum(1, keepdim=True)).detach().numpy().round(3))

# %% [markdown]
# ## Twenty cognitive tasks
# The recurrent network of the second paper: 400 units on a 20 x 20 grid, trained on the tasks of Yang et al. 2019.
# The whole study, `emergence spatial cognitive`, takes about 40 minutes on two cores. Here a short run shows how it is
# read.

# %%
folder = Path(tempfile.mkdtemp()) / "cognitive"
config = SpatialStudyConfig(
    example="cognitive",
    arms=("full",),
    seeds=(0,),
    n_steps=60 if small else 6000,
    n_trials=20 if small else 200,
    n_shuffles=9,
)
run_spatial_study(config, folder, n_workers=1)
trained = trained_run(folder, SpatialRun("full", 1.0, 0), config.example_settings())
network, places = trained.load(trained.checkpoints.steps[-1])
rng = np.random.default_rng(0)
clusters = cognitive_clusters(network, rng, n_trials=50)
figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
draw_grid(left, network, places, clusters)
family_legend(left)
isolated = isolated_fraction(clusters, grid_cells(places.positions["cell"]), rng=rng, n_shuffles=2000)
plot_shuffle_test(isolated, ax=right)
figure

# %% [markdown]
# A unit is isolated if none of its four neighbours on the grid is in its functional cluster. Shuffling the clusters
# among the active units says what chance would give. Trained to the end, the observed share lies far below it.

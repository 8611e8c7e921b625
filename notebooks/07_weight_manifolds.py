# %% [markdown]
# # Can a network walk through its weights as the context changes?
#
# Handwritten digits turned by some angle want other weights at every angle, but similar ones at similar angles. So
# learn not a point in weight space but a closed curve, $W(s) = P_1 + P_2 \cos 2\pi s + P_3 \sin 2\pi s$, with the
# update under which the whole curve moves least (Benjamin et al. 2025, arXiv 2505.22994; of their method the abstract
# and reviews are known to us, sizes and settings are ours). This notebook puts a model of your own on such a curve,
# walks round it, and asks whether it does better at angles never seen than a network that is simply told the angle.

# %%
# %matplotlib inline
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import nn

from emergence.interventions import weight_manifold
from emergence.studies.weight_manifold.config import ManifoldStudyConfig
from emergence.studies.weight_manifold.digits import digits_task, rotated
from emergence.studies.weight_manifold.figures import over_context_figure
from emergence.studies.weight_manifold.page import verdict
from emergence.studies.weight_manifold.study import run_manifold_study
from probes import top_eigenvalues

small = os.environ.get("EMERGENCE_SMALL") == "1"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## On a model of your own
# One call puts chosen layers on a manifold; the model is then called with a context for each example, and the gradients
# of its points take the manifold's metric before the optimizer's step. Here all angles but those from 0.3 to 0.4 turns
# and from 0.65 on are learnt.

# %%
task = digits_task("rotated-digits", rng=np.random.default_rng(0))
plain = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 10))
for p in plain.parameters():  # as torch draws them, by a seed of our own
    nn.init.uniform_(p, -1 / 8, 1 / 8, generator=seeded(p.numel()))


def train(m, metric, n_steps=300 if small else 3000, rate=0.1):
    angles = torch.cat([task.training_batch(0, step, 500).contexts for step in range(20)])
    gram = weight_manifold.measured_gram("ellipse", angles)  # those learnt, which are not uniform
    optimizer = torch.optim.SGD(m.parameters(), rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, n_steps, pct_start=0.1)
    for step in range(n_steps):
        x, angle, digit = task.training_batch(0, step, 128)
        optimizer.zero_grad()
        nn.functional.cross_entropy(m(x, angle), digit).backward()
        if metric:
            weight_manifold.precondition(m, gram)
        optimizer.step()
        schedule.step()
    return m.eval()


m = train(weight_manifold.convert(plain, ["0", "2", "4"], "ellipse", generator=seeded()), metric=True)
no_metric = train(weight_manifold.convert(plain, ["0", "2", "4"], "ellipse", generator=seeded()), metric=False)

# %% [markdown]
# ## A walk in pictures
# `at` reads one point of the curve out as an ordinary network. Above, a digit as it looks at each angle; below, what
# three units of the first layer look for in the network that answers there. If the curve has understood rotation, what
# a unit looks for turns with the digit. Red angles were never learnt.

# %%
angles = np.arange(10) / 10
digit = task.test[0][:1]
walk: list[Any] = [weight_manifold.at(m, float(angle)) for angle in angles]
strength = walk[0][0].weight.norm(dim=1)
units = strength.argsort(descending=True)[:3]
figure = Figure(figsize=(11, 4.8), layout="constrained")
for column, (angle, axes) in enumerate(zip(angles, figure.subplots(4, len(angles)).T, strict=True)):
    axes[0].imshow(rotated(digit, torch.tensor([angle]).float()).view(8, 8), cmap="gray_r")
    for ax, unit in zip(axes[1:], units, strict=True):
        weights = walk[column][0].weight[unit].detach().view(8, 8)
        ax.imshow(weights, cmap="RdBu_r", vmin=-1.5, vmax=1.5)
    learnt = angle < 0.3 or 0.4 <= angle < 0.65
    axes[0].set_title(f"{angle:.1f}", color="black" if learnt else "firebrick", fontsize=10)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
figure

# %% [markdown]
# How far did the weights move? The curve through weight space, in the plane of its two axes, is an ellipse in each
# layer; the size of its axes against its center tells how much a layer needs the context.

# %%
for name, points in m.named_parameters():
    if name.endswith("weight"):
        center, first, second = (float(p.norm()) for p in points)
        print(f"{name}: center {center:.2f}, axes {first:.2f} and {second:.2f}")

# %% [markdown]
# ## Every probe walks along
# What `at` returns is a plain model, so anything that measures a model measures a place on the curve: its error, its
# largest Hessian eigenvalue, or whatever you probe checkpoints with.

# %%
places = np.linspace(0, 1, 11 if small else 21)
rng = np.random.default_rng(0)
errors, sharpness = {"manifold": [], "manifold, no metric": []}, []
for place in places:
    for name, model in (("manifold", m), ("manifold, no metric", no_metric)):
        errors[name].append(task.error(model, "test", np.array([place]), rng))
    x, _, y = task.seen(*task.test, np.full((len(task.test[0]), 1), place), rng)
    found = top_eigenvalues(
        weight_manifold.at(m, float(place)),
        [(x, y)],
        loss_fn=lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
        k=1,
        generator=seeded(),
    )
    sharpness.append(found.values[0])
figure = Figure(figsize=(10, 3.2), layout="constrained")
left, right = figure.subplots(1, 2)
for ax in (left, right):
    ax.axvspan(0.3, 0.4, color="0.93", linewidth=0)
    ax.axvspan(0.65, 1, color="0.85", linewidth=0)
    ax.set(xlabel="angle (turns)", xlim=(0, 1))
for name, values in errors.items():
    left.plot(places, values, label=name)
left.set(ylabel="fraction of digits mistaken", ylim=(0, None))
left.legend(frameon=False)
right.plot(places, sharpness, color="black")
right.set(ylabel="largest Hessian eigenvalue", ylim=(0, None))
sns.despine(figure)
figure

# %% [markdown]
# ## Is it better than being told the angle?
# The study `emergence manifold rotated-digits` trains ten ways to know the context, each at its own best learning
# rate. At its full size it takes about half an hour on two cores; here a small one.

# %%
config = ManifoldStudyConfig(
    arms=("manifold", "raw", "basis")
    if small
    else ("manifold", "plain_gradient", "plain", "raw", "basis", "basis_wide"),
    learning_rates=(0.1,) if small else (0.1, 0.3),
    seeds=(0, 1) if small else (0, 1, 2),
    n_steps=60 if small else 1500,
)
folder = Path(tempfile.mkdtemp()) / "rotated"
summary = run_manifold_study(config, folder, n_workers=1)
print(verdict(summary))

# %%
over_context_figure(pd.read_parquet(folder / "measurements.parquet"), config)

# %% [markdown]
# `emergence manifold gravity-direction` asks the same of a particle transformer that is steered by gravity, and walks
# along its weights: which heads see collisions at each angle, and how degenerate the loss is there.

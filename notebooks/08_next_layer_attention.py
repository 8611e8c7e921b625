# %% [markdown]
# # Can neurons learn by seeking the attention of the next layer?
#
# Backpropagation sends every neuron the derivative of a loss it knows nothing about. Suppose instead that a neuron
# wants one thing only: that the neurons of the next layer listen to it, $A_i = \sum_j F(w_{ij})$. Its best move is
# along $-\sum_j F'(w_{ij})\, d_j$, where $d_j$ is the error of listener $j$, so it takes that as its own error. With
# $F = w^2/2$ this *is* backpropagation; with any other $F$ it is a rule of its own (after Soltani Moakhar et al. 2023,
# arXiv 2310.09952, of which the abstract is known to us; the formula is our reading of it).

# %%
# %matplotlib inline
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from emergence import ParticleTransformer
from emergence.config import ModelConfig
from emergence.data import make_transitions, prediction_loss
from emergence.interventions import next_layer_attention
from emergence.measuring import attention_patterns
from emergence.studies.next_layer_attention.config import NextLayerStudyConfig
from emergence.studies.next_layer_attention.figures import over_depth_figure
from emergence.studies.next_layer_attention.page import verdict
from emergence.studies.next_layer_attention.study import run_next_layer_study
from emergence.tasks.datasets import dataset_task
from probes import contact_average_precision
from simulators import HardSpheres, simulate

small = os.environ.get("EMERGENCE_SMALL") == "1"
RULES = {
    "squared": "$w^2/2$ (backpropagation)",
    "absolute": "$|w|$",
    "competitive": "competition",
    "feedback_alignment": "fixed random",
    "direct_feedback_alignment": "fixed random, from the output",
}
COLORS = dict(zip(RULES, ["black", *sns.color_palette("colorblind", 4)], strict=True))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## On a model of your own
# One call returns a copy with the same outputs whose `backward` follows the rule. A small network reads handwritten
# digits; for each rule, here is how far its gradient lies from the true one before anything is learnt.

# %%
task = dataset_task("digits", rng=np.random.default_rng(0))
widths = [64, 96, 96, 96, 96, 10]
layers: list[nn.Module] = []
for n_in, n_out in pairwise(widths):
    linear = nn.Linear(n_in, n_out)
    nn.init.normal_(linear.weight, 0, n_in**-0.5, generator=seeded(len(layers)))
    nn.init.zeros_(linear.bias)
    layers += [linear, nn.Tanh()]
plain = nn.Sequential(*layers[:-1])


def loss_fn(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def converted(rule):
    return next_layer_attention.convert(plain, "*", rule, generator=seeded(7))


def cosines(m):
    found = next_layer_attention.alignment(m, task.train, loss_fn)
    return [cosine for name, cosine in found.items() if name.endswith("weight")]


before = pd.DataFrame({RULES[rule]: cosines(converted(rule)) for rule in RULES}, index=range(1, 6)).T
figure = Figure(figsize=(6.4, 2.6), layout="constrained")
ax = sns.heatmap(before, ax=figure.subplots(), vmin=-1, vmax=1, cmap="PuOr", annot=True, fmt=".2f", cbar=False)
ax.set_xlabel("layer, inputs first")
ax.set_title("cosine to the true gradient, before learning", fontsize=11)
figure

# %% [markdown]
# ## Do they learn, and do they fall into line?
# Your own training loop, nothing changed. A random way back knows nothing of the weights; as the weights learn they
# turn towards it, and the gradient becomes useful. Attention $|w|$ needs no such help.

# %%
n_steps = 100 if small else 1000
measured_at = np.unique(np.geomspace(1, n_steps, 12).astype(int))
errors, directions = {}, {}
for rule in RULES:
    m = converted(rule)
    optimizer = torch.optim.Adam(m.parameters(), 1e-3)
    errors[rule], directions[rule] = [], []
    for step in range(1, n_steps + 1):
        optimizer.zero_grad()
        loss_fn(m, task.training_batch(0, step, 64)).backward()
        optimizer.step()
        if step in measured_at:
            errors[rule].append(task.error(next_layer_attention.export(m)))
            directions[rule].append(cosines(m)[0])

figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for rule, label in RULES.items():
    left.plot(measured_at, errors[rule], color=COLORS[rule], label=label)
    right.plot(measured_at, directions[rule], color=COLORS[rule])
for ax in (left, right):
    ax.set(xscale="log", xlabel="training step")
left.set(ylabel="fraction of digits mistaken", ylim=(0, 1))
figure.legend(loc="outside upper center", ncols=len(RULES), frameon=False)
right.set(ylabel="cosine to the true gradient,\nfirst layer")
right.axhline(0, color="0.8", linewidth=0.8)
sns.despine(figure)
figure

# %% [markdown]
# ## What has to cross between layers
# Numbers that travel for one example, and weights that the way back must know. A random way back knows none; direct
# feedback sends no more than the output's error.

# %%
rows = []
for rule, label in RULES.items():
    counts = next_layer_attention.messages(converted(rule), task.train.inputs[:1])
    rows.append(
        [label, *(sum(getattr(c, what) for c in counts) for what in ("activities", "signals", "copied_weights"))]
    )
pd.DataFrame(rows, columns=["rule", "forwards", "backwards", "weights known on the way back"]).set_index("rule")

# %% [markdown]
# ## How deep does it go?
# The study `emergence next-layer digits` trains every rule at every depth, each at its own best learning rate; here a
# small one.

# %%
config = NextLayerStudyConfig(
    rules=("backpropagation", "absolute", "feedback_alignment"),
    depths=(2, 4) if small else (2, 8, 16),
    learning_rates=(1e-3,) if small else (1e-3, 3e-3),
    seeds=(0, 1),
    n_steps=40 if small else 300,
)
folder = Path(tempfile.mkdtemp()) / "depth"
summary = run_next_layer_study(config, folder, n_workers=1)
print(verdict(summary))
over_depth_figure(summary, 0.0)

# %% [markdown]
# ## Does a contact head emerge without the exact gradient?
# The particle transformer, its attention, MLPs and read-out converted: what must be learnt now travels through softmax
# and residual stream as ever, but through every weight by the rule.

# %%
n_steps = 60 if small else 1200
steps = np.unique(np.geomspace(10, n_steps, 9).astype(int))


def scenes_of(n_systems, seed, normalization=None):
    run = simulate(
        HardSpheres(n_particles=6, radius=0.08), n_systems=n_systems, n_frames=5, frame_interval=0.1,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return make_transitions(run, normalization=normalization)


seen = scenes_of(200 if small else 5000, 0)
kept = scenes_of(100, 1, seen.normalization)
contacts, boxes = kept.contacts.numpy(), kept.scene_system.numpy()


def best_head(model):
    patterns = attention_patterns(model, kept, torch.arange(len(kept)))
    return max(contact_average_precision(p, contacts, groups=boxes).value.max() for p in patterns)


transformer = ParticleTransformer(ModelConfig(d_model=32, n_heads=4, d_head=8, d_mlp=64), 6, 4, seeded())
precision, losses = {}, {}
for rule in ("squared", "absolute", "feedback_alignment"):
    m = next_layer_attention.convert(transformer, ("blocks.*.attn", "blocks.*.mlp", "W_U"), rule, generator=seeded())
    optimizer = torch.optim.AdamW(m.parameters(), 1e-2)
    precision[rule], losses[rule] = [], []
    for step in range(1, n_steps + 1):
        optimizer.zero_grad()
        prediction_loss(m, seen.training_batch(0, step, 128)).backward()
        optimizer.step()
        if step in steps:
            trained = next_layer_attention.export(m).eval()
            precision[rule].append(best_head(trained))
            with torch.no_grad():
                losses[rule].append(prediction_loss(trained, kept.batch).item())
nearest = contact_average_precision(-kept.gaps.numpy()[:, None], contacts, groups=boxes).value[0]

figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for rule in precision:
    left.plot(steps, precision[rule], color=COLORS[rule], label=RULES[rule])
    right.plot(steps, losses[rule], color=COLORS[rule])
left.axhline(nearest, color="0.6", linestyle="--", linewidth=1)
left.text(steps[0], nearest, " nearest neighbour", va="bottom", color="0.4", fontsize=9)
for ax in (left, right):
    ax.set(xscale="log", xlabel="training step")
left.set(ylabel="contact average precision\nof the best head", ylim=(0, 1))
left.legend(frameon=False)
right.set(ylabel="test loss", ylim=(0, None))
sns.despine(figure)
figure

# %% [markdown]
# `emergence run intervention:next-layer-attention` asks this in the full study, with nulls, ablations, learning
# coefficients and laws; `emergence compare plain next-layer-attention` puts both on one page.

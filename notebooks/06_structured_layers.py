# %% [markdown]
# # Do structured layers keep a deep network well conditioned?
#
# Replace the free weight of a layer by a structured one, an orthogonal matrix say, and let a small nonlinear
# correction run beside it: $S(W)x + b + a\,\varphi(x)$ (Nikooroo & Engel 2025, arXiv 2508.00127; of their method only
# the abstract and a figure are known to us, the operators and the correction are ours). Then every layer's Jacobian
# has its singular values within $a$ of one, and depth can do no worse than $((1+a)/(1-a))^L$. This notebook converts
# a model of your own, looks at what training does to it, and asks where it pays.

# %%
# %matplotlib inline
import copy
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from emergence.interventions import structured
from emergence.studies.structured.config import StructuredStudyConfig
from emergence.studies.structured.figures import over_depth_figure
from emergence.studies.structured.page import verdict
from emergence.studies.structured.study import run_structured_study
from probes import conditioning_bound, gradient_conditioning, jacobian_spectrum, layer_robustness
from probes.plots import plot_gradient_conditioning, plot_jacobian_spectrum, plot_layer_robustness

small = os.environ.get("EMERGENCE_SMALL") == "1"

# %% [markdown]
# ## On a model of your own
# One call. Names or patterns choose the layers; everything else stays as it is, the training loop too.

# %%
DEPTH, WIDTH = 16, 32


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


plain = nn.Sequential(nn.Linear(8, WIDTH))
for _ in range(DEPTH):
    plain.extend([nn.Linear(WIDTH, WIDTH), nn.Tanh()])
plain.append(nn.Linear(WIDTH, 4))
with torch.no_grad():
    for p in plain.parameters():  # the scale at which tanh networks neither grow nor vanish
        p.copy_(torch.randn(p.shape, generator=seeded(p.numel())) / p.shape[-1] ** 0.5 if p.ndim == 2 else 0 * p)

hidden = [str(1 + 2 * layer) for layer in range(DEPTH)]
model = structured.convert(plain, hidden, generator=seeded())  # orthogonal, with a correction of at most 0.1

# %%
x = torch.randn(2000, 8, generator=seeded(1))
y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin(), x[:, 3] * x[:, 4], x[:, 5].abs()], dim=1)


def train(network, n_steps=200 if small else 1500):
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(n_steps):
        chosen = torch.randint(len(x), (64,), generator=seeded(step))
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return network.eval()


networks = {"affine": train(copy.deepcopy(plain)), "structured": train(model)}
for name, network in networks.items():
    print(f"{name:<12} loss {nn.functional.mse_loss(network(x), y).item():.4f}")

# %% [markdown]
# The weights kept their promise, and the correction wrote little:

# %%
weights = [networks["structured"].get_submodule(layer).weight.detach().double() for layer in hidden]
print(f"farthest from orthogonal: {max((w.T @ w - torch.eye(WIDTH)).abs().max() for w in weights):.1e}")
networks["structured"].train()(x[:256])
ratios = [float(r.detach()) for r in structured.correction_ratios(networks["structured"].eval()).values()]
print(f"correction's share of a layer's output: {min(ratios):.1e} to {max(ratios):.1e}")

# %% [markdown]
# ## What depth does to gradients and signals
# The same probes on both networks: the gradient at each layer, the singular values of the whole Jacobian, and what
# noise at one layer costs.

# %%
batches = list(zip(x[:512].split(64), y[:512].split(64), strict=True))
layers = [str(2 + 2 * layer) for layer in range(DEPTH)]


def loss_fn(network, batch):
    return nn.functional.mse_loss(network(batch[0]), batch[1])


figure = Figure(figsize=(11, 9.5), layout="constrained")
for (name, network), axes in zip(networks.items(), figure.subplots(3, 2, sharey="row").T, strict=True):
    options = {"loss_fn": loss_fn, "layers": layers}
    gradients = gradient_conditioning(network, batches, rng=np.random.default_rng(0), **options)
    spectrum = jacobian_spectrum(copy.deepcopy(network[1:-1]).double(), network[0](x[:16]).double().detach())
    robust = layer_robustness(network, batches, scales=(0.01, 0.1, 1.0), n_draws=4, generator=seeded(), **options)
    plot_gradient_conditioning(gradients, ax=axes[0])
    plot_jacobian_spectrum(spectrum, ax=axes[1])
    plot_layer_robustness(robust, ax=axes[2])
    axes[1].get_legend().remove()
    if name == "affine":
        axes[2].get_legend().remove()
    titles = (
        f"{name}: gradients, largest over smallest {gradients.ratio:.3g}",
        f"{name}: Jacobian, condition number {spectrum.geometric_mean[0]:.3g}",
        f"{name}: noise at one layer",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=10)
figure

# %% [markdown]
# Tanh flattens, whatever the weights: the bound speaks of the maps between the tanhs. Without them it must hold, at
# every input:

# %%
stack = nn.Sequential(*[copy.deepcopy(networks["structured"].get_submodule(layer)) for layer in hidden]).double()
condition = jacobian_spectrum(stack, networks["structured"][0](x[:16]).double().detach()).condition.max()
print(f"condition number {condition:.2f}, bound {conditioning_bound(0.1, DEPTH):.1f}")
assert condition <= conditioning_bound(0.1, DEPTH)

# %% [markdown]
# ## Where it pays
# The study `emergence structured digits` trains four kinds of layers at every depth with the same choice of learning
# rates, and picks each one's best by validation. At its full size it takes half an hour; here a small one.

# %%
config = StructuredStudyConfig(
    task="digits",
    depths=(2, 4) if small else (2, 8, 32),
    widths=(16,) if small else (32,),
    learning_rates=(1e-3, 3e-3),
    seeds=(0, 1) if small else (0, 1, 2),
    n_steps=40 if small else 400,
)
summary = run_structured_study(config, Path(tempfile.mkdtemp()) / "digits", n_workers=1)
print(verdict(summary))
over_depth_figure(summary, config.widths[0])

# %% [markdown]
# ## Back to plain layers
# `export` writes the weights out, with the same function, for whatever comes after training.

# %%
plain_again = structured.export(networks["structured"])
assert type(plain_again.get_submodule(hidden[0])) is nn.Linear
assert torch.allclose(plain_again(x), networks["structured"](x), atol=1e-5)

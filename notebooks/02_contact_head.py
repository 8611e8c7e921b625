# %% [markdown]
# # A head becomes a collision detector: is it the physics, or just distance?
#
# We open a finished run and take one head apart with the same functions that work on your own models: a TransformerLens
# cache, average precision with its null, attention at equal distance, and knocked-out edges.

# %%
import os
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from emergence import open_run, preset, run_study
from probes import approach_preference, contact_average_precision, permutation_null

small = os.environ.get("EMERGENCE_SMALL") == "1"

# %%
folder = Path("runs/standard")
if small or not folder.is_dir():
    study = preset("quick")
    llc = replace(study.probes.llc, n_draws=20, n_burnin=20)
    study = replace(study, probes=replace(study.probes, llc=llc))
    folder = run_study(study, Path(mkdtemp()) / "quick" if small else Path("runs/quick")).folder
run = open_run(folder)
best = max(run.summary["heads"], key=lambda head: head["contact_ap"])
layer, head = best["layer"], best["head"]

# %% [markdown]
# ## The attention pattern, through TransformerLens
# The model is a `HookedRootModule`; its hook points carry TransformerLens' names.

# %%
_, scenes = run.transitions()
checkpoints = run.checkpoints(best["seed"])
name = f"blocks.{layer}.attn.hook_pattern"


def pattern_at(step: int) -> np.ndarray:
    with torch.no_grad():
        _, cache = checkpoints.load(step).run_with_cache(scenes.batch.features, names_filter=name)
    return cache[name].numpy()


first, last = pattern_at(checkpoints.steps[0]), pattern_at(checkpoints.steps[-1])
assert np.allclose(last.sum(-1), 1, atol=1e-5)

# %% [markdown]
# ## Before and after

# %%
contacts, boxes = scenes.contacts.numpy(), scenes.scene_system.numpy()
for label, pattern in (("initialisation", first), ("trained", last)):
    ap = contact_average_precision(pattern, contacts, groups=boxes)
    value, error = ap.value[head], ap.standard_error[head]
    print(f"{label:15s} head {layer}.{head}: {value:.3f} ± {error:.3f} (chance {ap.chance:.3f})")
null = permutation_null(last, contacts, rng=np.random.default_rng(0), n_permutations=199)
print(f"shuffled partners: at most {null.null[:, head].max():.3f}, p = {null.p_value[head]:.3f}")
assert null.p_value[head] < 0.01

# %% [markdown]
# ## Not just distance
# Two particles at the same distance may approach or part. A detector of collisions must tell them apart.

# %%
approach = approach_preference(
    last, scenes.distances.numpy(), scenes.approaching.numpy(), edges=np.linspace(0, 0.5, 26), groups=boxes
)
low, high = approach.interval[head]
print(f"approaching pairs get {approach.ratio[head]:.1f} [{low:.1f}, {high:.1f}] times the attention of parting ones")
assert low > 2

# %% [markdown]
# ## Cause
# The run measured, for particles with exactly one partner, how the loss changes when one edge is cut.

# %%
last_step = run.measurements.query("quantity.str.startswith('edge_knockout') and step == step.max()")
layers = last_step[last_step["head"].isna()].pivot_table(index="layer", columns="quantity", values="value")
print((layers / best["knockout_baseline_loss"]).round(3))
assert layers["edge_knockout_partner"].loc[layer] > 0.5 * best["knockout_baseline_loss"]

# %% [markdown]
# **Answer.** The physics. The head prefers approaching pairs at equal distance, and the whole layer's edge to the
# true partner carries most of the prediction of a collision.

# %% [markdown]
# # Quickstart: does a network that only predicts motion come to know what a collision is?
#
# Discs fly in a box and collide. A transformer with one token a particle learns to predict where they will be a moment
# later. Nobody tells it which pairs will collide. We simulate, train, and ask its attention.

# %%
import os
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from emergence import preset, run_study
from simulators import HardSpheres, contact_labels, simulate

small = os.environ.get("EMERGENCE_SMALL") == "1"

# %% [markdown]
# ## The physics
# The event-driven engine solves every collision in closed form, so energy is conserved to rounding and the log of
# collisions is exact. The labels below come from that log.

# %%
boxes = simulate(HardSpheres(), n_systems=50, n_frames=51, frame_interval=0.1, rng=np.random.default_rng(0))
height = boxes.positions[..., 1]
energy = (boxes.masses[:, None] * ((boxes.velocities**2).sum(-1) / 2 + height)).sum(-1)
drift = np.abs(energy / energy[:, :1] - 1).max()
contacts = contact_labels(boxes)
print(f"{len(boxes.collisions.time)} collisions, energy drift {drift:.1e}")
print(f"a particle meets another within an interval in {contacts.any(-1).mean():.0%} of cases")
assert drift < 1e-10

# %% [markdown]
# ## The study
# `preset("quick")` simulates, trains 600 steps and probes every checkpoint. A run that is stopped goes on where it was
# when it is called again.

# %%
study = preset("quick")
if small:
    llc, hessian = replace(study.probes.llc, n_draws=20, n_burnin=20), replace(study.probes.hessian, n_steps=10)
    study = replace(
        study,
        data=replace(study.data, n_systems=300),
        training=replace(study.training, n_steps=400, n_checkpoints=8),
        probes=replace(study.probes, llc=llc, hessian=hessian),
    )
run = run_study(study, Path(mkdtemp()) / "quick" if small else Path("runs/quick"))

# %% [markdown]
# ## What was found
# Average precision: rank all pairs by a head's attention; how purely do the pairs that will collide come first?

# %%
table = run.measurements
precision = table.query("quantity == 'contact_ap'").pivot_table(index="step", columns=["layer", "head"], values="value")
precision.round(2)

# %%
best = max(run.summary["heads"], key=lambda head: head["contact_ap"])
low, high = best["contact_ap_interval"]
print(
    f"head {best['layer']}.{best['head']}: {best['contact_ap']:.2f} [{low:.2f}, {high:.2f}], p = {best['p_value']:.3f}"
)
print(f"chance {best['chance_ap']:.2f}, nearest neighbour {best['nearest_neighbor_ap']:.2f}")
assert low > best["nearest_neighbor_ap"] > best["chance_ap"]

# %% [markdown]
# ## Is it used?
# Attention alone proves nothing. Cutting the one edge to the true partner must hurt; cutting the edge to the nearest
# other particle must not.

# %%
partner = best["edge_knockout_partner"] / best["knockout_baseline_loss"]
other = best["edge_knockout_nonpartner"] / best["knockout_baseline_loss"]
print(f"loss of the particle: {partner:+.0%} without the edge to its partner, {other:+.1%} without the other edge")
assert partner > 5 * abs(other)

# %% [markdown]
# **Answer.** Yes: without being told, a head of the last layer ranks the coming collisions far above its nearest
# neighbours, and the network's prediction depends on that edge. `report.html` in the run folder tells the whole story.

# %%
print(run.folder / "report.html")

# %% [markdown]
# # Collision data: can the labels be trusted?
#
# Labels are only as good as the physics behind them. Three checks, each from the collision log alone: the pressure of
# hard spheres against theory, a replay of the whole run, and how long a collision stays predictable at all.

# %%
import os
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from simulators import HardSpheres, ParticleState, collision_chains, kinetic_energy, replay, simulate

small = os.environ.get("EMERGENCE_SMALL") == "1"
sns.set_theme(style="ticks")

# %% [markdown]
# ## Pressure
# Every collision pushes momentum across the box. By the virial theorem `PV / NT = 1 + sum(sigma J) / (d N T t)`, the
# sum over the impulses `J` in the log. Carnahan and Starling's formula is good to a few tenths of a percent.


# %%
def compressibility(packing: float, n_systems: int) -> np.ndarray:
    radius = (packing / 256 / (4 / 3 * np.pi)) ** (1 / 3)
    gas = HardSpheres(
        n_particles=256, dim=3, radius=radius, radius_spread=0.0, density=1 / (4 / 3 * np.pi * radius**3),
        gravity=(0.0, 0.0, 0.0), box=(1.0, 1.0, 1.0), boundary="periodic", velocity_scale=1.0,
    )  # fmt: skip
    start = gas.draw_state(n_systems, rng=np.random.default_rng(0))
    flow = start.velocities - start.velocities.mean(axis=1, keepdims=True)  # no total momentum
    start = ParticleState(start.positions, flow, start.radii, start.masses)
    mean_free = 1 / (np.pi * np.sqrt(2) * 256 * 4 * radius**2)
    run = simulate(
        gas, n_systems=n_systems, n_frames=2, frame_interval=60 * mean_free, rng=np.random.default_rng(0), initial=start
    )
    push = np.bincount(run.collisions.system, run.collisions.impulse, minlength=n_systems) * 2 * radius
    return 1 + push / (2 * kinetic_energy(start) * 256 / 255) / run.frame_interval


packings = np.array([0.05, 0.15, 0.3, 0.45])
measured = np.array([compressibility(packing, n_systems=2 if small else 8) for packing in packings])
h = np.linspace(0, 0.47, 200)
fig, ax = plt.subplots(figsize=(5, 3.4))
ax.plot(h, (1 + h + h**2 - h**3) / (1 - h) ** 3, color="0.6", label="Carnahan–Starling")
ax.errorbar(
    packings, measured.mean(1), measured.std(1, ddof=1) / np.sqrt(measured.shape[1]), fmt="o", label="from the log"
)
ax.set(xlabel="packing fraction", ylabel="P V / (N T)", title="Hard spheres push as they should")
ax.legend(frameon=False)
sns.despine()

# %% [markdown]
# ## The log is complete
# Start state and log alone give back every frame.

# %%
run = simulate(
    HardSpheres(), n_systems=20 if small else 200, n_frames=51, frame_interval=0.1, rng=np.random.default_rng(1)
)
positions, velocities = replay(run)
print(
    f"{len(run.collisions):,} collisions; largest difference {np.abs(positions - run.positions).max():.1e} box lengths"
)

# %% [markdown]
# ## How far ahead can anyone see?
# Two runs whose starts differ by a billionth of a box length part exponentially: each collision multiplies the
# difference. A model that predicts single intervals is asked something answerable; twenty intervals ahead it is not.

# %%
start = run.state(0)
nudge = 1e-9 * np.random.default_rng(2).standard_normal(start.positions.shape)
other = simulate(
    run.system, n_systems=len(nudge), n_frames=51, frame_interval=0.1, rng=np.random.default_rng(0),
    initial=replace(start, positions=start.positions + nudge),
)  # fmt: skip
difference = np.linalg.norm(run.positions - other.positions, axis=-1).mean(-1)  # (system, frame)
fig, ax = plt.subplots(figsize=(5, 3.4))
low, middle, high = np.quantile(difference, [0.1, 0.5, 0.9], axis=0)
ax.fill_between(run.times, low, high, alpha=0.25, label="80 % of the boxes")
ax.plot(run.times, middle, label="median")
ax.set(
    yscale="log",
    xlabel="time",
    ylabel="mean difference (box lengths)",
    title="Chaos: a billionth grows to a box length",
)
ax.legend(frameon=False)
sns.despine()

# %% [markdown]
# ## Chains of collisions
# Within one interval a struck particle may strike the next, so that the cause lies further away than one partner. The
# share of collisions with a collision before them in the interval says how often looking at pairs alone falls short.

# %%
chains = collision_chains(run, intervals=1)
generation = np.bincount(chains.generation[run.collisions.j >= 0])
for k, count in enumerate(generation[:4]):
    print(f"generation {k}: {count / generation.sum():.1%} of the collisions between particles")

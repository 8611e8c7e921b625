# pyright: reportMissingImports=false, reportArgumentType=false, reportFunctionMemberAccess=false
"""jax-md: soft spheres with energy terms of our own for walls and gravity, many systems by vmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import energy, partition, simulate, space

from .gas import GRAVITY, RADIUS, STIFFNESS, TIME_STEP, box_side

jax.config.update("jax_enable_x64", True)  # else float64 arrays become float32
_PAIR = {"sigma": 2 * RADIUS, "epsilon": STIFFNESS * (2 * RADIUS) ** 2, "alpha": 2.0}  # force: stiffness * overlap

_SKIN = 0.3  # diameters: with it a list lives for dozens of steps
_EXTRA = {"Dense": 4, "OrderedSparse": 512}  # room for what gathers later


def _outside(places: jax.Array, side: float) -> jax.Array:
    """Return the energy in walls and height."""
    sinks = jnp.maximum(RADIUS - places, 0.0) ** 2 + jnp.maximum(places - (side - RADIUS), 0.0) ** 2
    return 0.5 * STIFFNESS * jnp.sum(sinks) + GRAVITY * jnp.sum(places[:, 1])


def _start(init, positions: jax.Array, velocities: jax.Array, **kwargs):
    """Return the state with our velocities instead of drawn ones; the mass is 1."""
    return init(jax.random.PRNGKey(0), positions, kT=1.0, **kwargs).set(momentum=velocities)


class _JaxGas:
    """Steps are one compiled loop; systems go side by side (vmap) or one after the other (map)."""

    state: simulate.NVEState

    def positions(self) -> np.ndarray:
        """Return (system, particle, 2)."""
        return np.asarray(self.state.position, np.float64)

    def velocities(self) -> np.ndarray:
        return np.asarray(self.state.momentum, np.float64)


class JaxAllPairs(_JaxGas):
    """All pairs; arrays (system, particle, 2)."""

    def __init__(self, positions: np.ndarray, velocities: np.ndarray, *, batching: str, dtype: str) -> None:
        self.name = f"jax-md, all pairs, {batching} over {len(positions)} systems, {dtype}"
        side = box_side(positions.shape[1])
        displacement, shift = space.free()
        pairs = energy.soft_sphere_pair(displacement, **_PAIR)
        init, apply = simulate.nve(lambda places, **_: pairs(places) + _outside(places, side), shift, TIME_STEP)
        self.state = jax.vmap(partial(_start, init))(jnp.asarray(positions, dtype), jnp.asarray(velocities, dtype))

        def run(state, n):
            return jax.lax.fori_loop(0, n, lambda _, one: apply(one), state)

        self.run = jax.jit(lambda states, n: _batched(batching, lambda state: run(state, n), states))

    def advance(self, steps: int) -> float:
        self.state = jax.block_until_ready(self.run(self.state, steps))
        return float(steps * self.state.position[..., 0].size)


class JaxNeighborList(_JaxGas):
    """Neighbour lists of one capacity for all systems; arrays (system, particle, 2)."""

    def __init__(
        self, positions: np.ndarray, velocities: np.ndarray, *, batching: str, layout: str, dtype: str
    ) -> None:
        self.name = f"jax-md, neighbour list ({layout}), {batching} over {len(positions)} systems, {dtype}"
        side = box_side(positions.shape[1])
        displacement, shift = space.free()
        neighbors, pairs = energy.soft_sphere_neighbor_list(
            displacement, side, **_PAIR, dr_threshold=_SKIN, format=partition.NeighborListFormat[layout]
        )
        init, apply = simulate.nve(
            lambda places, neighbor, **_: pairs(places, neighbor) + _outside(places, side), shift, TIME_STEP
        )
        places = jnp.asarray(positions, dtype)
        room = neighbors.allocate(places[0], extra_capacity=_EXTRA[layout])
        self.lists = jax.vmap(room.update)(places)
        self.state = jax.vmap(lambda place, velocity, near: _start(init, place, velocity, neighbor=near))(
            places, jnp.asarray(velocities, dtype), self.lists
        )

        def step(_, pair):
            state, near = pair
            near = near.update(state.position)
            return apply(state, neighbor=near), near

        def run(pair, n):
            return jax.lax.fori_loop(0, n, step, pair)

        self.run = jax.jit(lambda pairs, n: _batched(batching, lambda pair: run(pair, n), pairs))

    def advance(self, steps: int) -> float:
        self.state, self.lists = jax.block_until_ready(self.run((self.state, self.lists), steps))
        if np.any(np.asarray(self.lists.did_buffer_overflow)):
            raise RuntimeError("the neighbour list of jax-md overflowed: give it more capacity")
        return float(steps * self.state.position[..., 0].size)


def _batched(batching: str, run, states):
    """Apply ``run`` to every system."""
    return jax.vmap(run)(states) if batching == "vmap" else jax.lax.map(run, states)

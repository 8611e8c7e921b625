"""Springs against normal modes, and what drawn networks are."""

import numpy as np
import pytest

from simulators import ParticleState, simulate
from simulators.systems import SpringNetwork

RNG = np.random.default_rng


def tied(edges, places, velocities, masses):
    n = len(masses)
    return ParticleState(
        np.array([places]), np.array([velocities]), np.full((1, n), 0.01), np.array([masses]), edges=np.array([edges])
    )


def test_networks_without_natural_length_follow_their_normal_modes():
    system = SpringNetwork(n_particles=6, boundary="open", stiffness=1.3, time_step=1e-3)
    state = system.draw_state(3, rng=RNG(0))
    masses = RNG(1).uniform(0.5, 2.0, state.masses.shape)
    state = ParticleState(state.positions, state.velocities, state.radii, masses, edges=state.edges)
    run = simulate(system, n_systems=3, n_frames=5, frame_interval=1.0, rng=RNG(0), initial=state)
    assert state.edges is not None
    for s in range(3):
        edges, root = state.edges[s], np.sqrt(masses[s])
        matrix = (np.diag(edges.sum(axis=1)) - edges) / np.outer(root, root)
        squares, modes = np.linalg.eigh(matrix)
        omega = np.sqrt(np.maximum(squares, 0.0))
        a, b = modes.T @ (root[:, None] * state.positions[s]), modes.T @ (root[:, None] * state.velocities[s])
        for frame, t in enumerate(run.times):
            swing = np.where(omega > 1e-6, np.sin(omega * t) / np.maximum(omega, 1e-6), t)
            exact = modes @ (np.cos(omega * t)[:, None] * a + swing[:, None] * b) / root[:, None]
            np.testing.assert_allclose(run.positions[s, frame], exact, rtol=0, atol=1e-5)


def test_a_stretched_pair_swings_at_its_frequency():
    k, m1, m2, length = 2.0, 1.0, 3.0, 0.7
    omega = np.sqrt(k * (1 / m1 + 1 / m2))
    edges = k * np.array([[0.0, 1.0], [1.0, 0.0]])
    start = tied(edges, [[0.0, 0.0], [0.8, 0.0]], np.zeros((2, 2)).tolist(), [m1, m2])
    system = SpringNetwork(n_particles=2, natural_length=length, boundary="open", time_step=1e-3)
    run = simulate(system, n_systems=1, n_frames=60, frame_interval=0.1, rng=RNG(0), initial=start)
    distance = run.positions[0, :, 1, 0] - run.positions[0, :, 0, 0]
    np.testing.assert_allclose(distance, length + 0.1 * np.cos(omega * run.times), rtol=0, atol=1e-6)


def test_drawn_networks_have_the_probability_and_are_symmetric():
    system = SpringNetwork(n_particles=10, edge_probability=0.3, stiffness=0.7)
    state = system.draw_state(2000, rng=RNG(2))
    assert state.edges is not None
    assert set(np.unique(state.edges)) == {0.0, 0.7}
    assert not state.edges[:, np.arange(10), np.arange(10)].any()
    upper = state.edges[:, *np.triu_indices(10, k=1)] > 0
    assert upper.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / upper.size))
    speed = np.sqrt((state.velocities**2).sum(axis=-1))
    np.testing.assert_allclose(speed, 0.5, rtol=1e-12)
    assert (state.positions - 5.0).std() == pytest.approx(0.5, rel=0.015)


def test_edges_of_the_run_are_those_of_the_start():
    run = simulate(SpringNetwork(), n_systems=3, n_frames=2, frame_interval=0.1, rng=RNG(3))
    again = SpringNetwork().draw_state(3, rng=RNG(3))
    assert run.edges is not None
    assert again.edges is not None
    assert np.array_equal(run.edges, again.edges)
    assert run.engine == "smooth_forces"


def test_energy_of_a_triangle_by_hand():
    edges = [[0.0, 1.0, 0.0], [1.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    state = tied(edges, [[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]], np.zeros((3, 2)).tolist(), [1.0, 1.0, 1.0])
    system = SpringNetwork(n_particles=3, natural_length=1.0, boundary="open")
    assert system.potential_energy(state)[0] == pytest.approx(0.5 * 16 + 0.5 * 2 * 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_particles": 0}, r"n_particles must be at least 1, got 0"),
        ({"stiffness": 0.0}, r"stiffness must be positive and finite, got 0.0"),
        ({"edge_probability": 1.2}, r"edge_probability must be in \[0, 1\], got 1.2"),
        ({"natural_length": -0.1}, r"natural_length must be zero or more, and finite, got -0.1"),
        ({"radius": 3.0}, r"radius must be at most a quarter of the sides of box=\(10.0, 10.0\), got 3.0"),
        ({"speed": float("nan")}, r"speed must be zero or more, and finite, got nan"),
        ({"boundary": "periodic"}, r"boundary must be 'walls' or 'open', .*, got 'periodic'"),
        ({"time_step": -1.0}, r"time_step must be None, or positive and finite, got -1.0"),
    ],
)
def test_impossible_networks(settings, message):
    with pytest.raises(ValueError, match=message):
        SpringNetwork(**settings)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (None, r"initial must have edges \(system, particle, particle\), got None"),
        ([[[0.0, -1.0], [-1.0, 0.0]]], r"edges must be zero or more; system 0, particles 0 and 1: -1.0"),
    ],
)
def test_starts_without_springs_are_refused(edges, message):
    places = np.full((1, 2, 2), 5.0)
    ties = None if edges is None else np.array(edges)
    start = ParticleState(places, np.zeros_like(places), np.full((1, 2), 0.1), np.ones((1, 2)), edges=ties)
    with pytest.raises(ValueError, match=message):
        simulate(SpringNetwork(n_particles=2), n_systems=1, n_frames=2, frame_interval=0.1, rng=RNG(0), initial=start)

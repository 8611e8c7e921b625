"""The Lennard-Jones fluid against quadrature, virial coefficients and closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from simulators import ParticleState, simulate
from simulators.systems import LennardJones, kinetic_energy

RNG = np.random.default_rng


def test_potential_and_force_end_smoothly_at_the_cutoff_and_keep_the_well():
    system = LennardJones(epsilon=1.7, sigma=0.6)
    end = system.cutoff
    near = np.array([end - 1e-6, end, end + 1e-6]) ** 2
    assert np.abs(system.pair_energy(near)).max() < 1e-9
    assert abs(type(system.law).pair_force(system.law, near[0])) < 1e-5
    assert type(system.law).pair_force(system.law, near[2]) == 0.0
    bottom = system.pair_energy(np.array([2 ** (1 / 3) * 0.6**2]))[0]
    assert -1.7 < bottom < -0.9 * 1.7
    wide = LennardJones(n_particles=4000, cutoff_in_sigma=20.0)
    r = np.linspace(0.9, 3.0, 30)
    np.testing.assert_allclose(wide.pair_energy(r**2), 4 * (r**-12 - r**-6), rtol=0, atol=1e-6)


def test_a_bound_pair_swings_with_the_period_of_the_quadrature():
    system = LennardJones(n_particles=2, number_density=0.01, time_step=1e-3)
    r0 = 1.25
    places = np.array([[[5.0, 5.0], [5.0 + r0, 5.0]]])
    start = ParticleState(places, np.zeros_like(places), np.full((1, 2), 0.5), np.ones((1, 2)))
    energy = system.pair_energy(np.array([r0**2]))[0]

    def potential(r):
        return system.pair_energy(np.array([r**2]))[0]

    inner = float(np.asarray(brentq(lambda r: potential(r) - energy, 0.9, 1.12)))
    middle, half = (r0 + inner) / 2, (r0 - inner) / 2  # r = middle + half sin(u) takes the ends' roots away
    period = (
        2
        * quad(
            lambda u: half * np.cos(u) / np.sqrt(max(4 * (energy - potential(middle + half * np.sin(u))), 1e-300)),
            -np.pi / 2 + 1e-7,
            np.pi / 2 - 1e-7,
        )[0]
    )
    run = simulate(system, n_systems=1, n_frames=2, frame_interval=period, rng=RNG(0), initial=start)
    distance = run.positions[0, 1, 1, 0] - run.positions[0, 1, 0, 0]
    assert distance == pytest.approx(r0, abs=1e-4)
    half_run = simulate(system, n_systems=1, n_frames=2, frame_interval=period / 2, rng=RNG(0), initial=start)
    assert half_run.positions[0, 1, 1, 0] - half_run.positions[0, 1, 0, 0] == pytest.approx(inner, abs=1e-4)


def virial_pressure(run):
    """Return P / (n T) of each system from kinetic energy and the virial, mean over the frames."""
    system, law = run.system, run.system.law
    virial, heat = np.zeros(len(run.positions)), np.zeros(len(run.positions))
    frames = range(len(run.times) // 3, len(run.times))
    for frame in frames:
        state = run.state(frame)
        heat += 2 * kinetic_energy(state) / (system.dim * (system.n_particles - 1))
        for i in range(system.n_particles - 1):
            r = state.positions[:, i + 1 :] - state.positions[:, i : i + 1]
            r -= system.box[0] * np.round(r / system.box[0])
            squared = (r**2).sum(axis=-1)
            s6 = (system.sigma**2 / squared) ** 3
            force = 24 * system.epsilon * (2 * s6**2 - s6) / squared - 2 * law.bend
            virial += np.where(squared < system.cutoff**2, force * squared, 0.0).sum(axis=1)
    return 1 + virial / (system.dim * system.n_particles * heat), heat / len(frames)


def second_virial(system, temperature):
    """Return B2 by quadrature of - (exp(-V / T) - 1) / 2 over space."""
    sphere = 2 * np.pi if system.dim == 2 else 4 * np.pi

    def density(r):
        return -0.5 * sphere * r ** (system.dim - 1) * np.expm1(-system.pair_energy(np.array([r * r]))[0] / temperature)

    return quad(density, 1e-3, system.cutoff, limit=200)[0]


def third_virial(system, temperature):
    """Return B3 = - <f f f> / 3 over triangles with one corner at the origin, by a fixed sample."""
    end = system.cutoff
    a, b = RNG(0).uniform(-end, end, (2, 2_000_000, system.dim))
    f = 1.0
    for side in (a, b, a - b):
        f = f * np.expm1(-system.pair_energy((side**2).sum(axis=-1)) / temperature)
    return -f.mean() / 3 * (2 * end) ** (2 * system.dim)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "density", "temperature"), [(2, 0.04, 8.0), (3, 0.05, 20.0)])
def test_dilute_gas_has_the_virial_coefficients_of_the_potential(dim, density, temperature):
    # hot, where B2 is far above its noise; the third coefficient is some hundredths of the second
    system = LennardJones(n_particles=64, dim=dim, number_density=density, temperature=temperature)
    run = simulate(system, n_systems=256, n_frames=121, frame_interval=0.5, rng=RNG(1))
    z, heat = virial_pressure(run)
    second, third = second_virial(system, heat.mean()), third_virial(system, heat.mean())
    measured = (z.mean() - 1) / (density * (1 - 1 / 64)) - third * density
    assert measured == pytest.approx(second, rel=0.05)


def test_temperatures_of_halves_of_a_mixed_fluid_agree():
    # equipartition: heavy and light atoms come to the same kinetic energy
    system = LennardJones(n_particles=100, temperature=2.0)
    start = system.draw_state(32, rng=RNG(3))
    masses = np.tile(np.repeat([1.0, 4.0], 50), (32, 1))
    start = ParticleState(start.positions, start.velocities, start.radii, masses)
    run = simulate(system, n_systems=32, n_frames=41, frame_interval=0.5, rng=RNG(0), initial=start)
    energy = 0.5 * (run.masses[:, None, :, None] * run.velocities[:, 20:] ** 2).sum(axis=-1)
    light, heavy = energy[..., :50].mean(axis=(1, 2)), energy[..., 50:].mean(axis=(1, 2))
    assert run.velocities[:, 0, 50:].std() == pytest.approx(run.velocities[:, 0, :50].std(), rel=0.05)
    ratio = heavy.mean() / light.mean()
    assert ratio == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("dim", "n"), [(2, 64), (2, 70), (3, 64)])
def test_drawn_fluids_stand_on_a_lattice_at_rest_as_a_whole(dim, n):
    system = LennardJones(n_particles=n, dim=dim, number_density=0.2, temperature=2.0, mass=3.0)
    state = system.draw_state(200, rng=RNG(4))
    system.check_state(state)
    assert np.abs(state.velocities.sum(axis=1)).max() < 1e-11
    heat = 3.0 * (state.velocities**2).mean() * n / (n - 1)
    assert heat == pytest.approx(2.0, rel=4 * np.sqrt(2 / (200 * n * dim)))
    r = state.positions[:, :, None] - state.positions[:, None]
    r -= system.box[0] * np.round(r / system.box[0])
    squared = (r**2).sum(axis=-1) + 100 * np.eye(n)
    spacing = system.box[0] / np.ceil(n ** (1 / dim) - 1e-9)
    assert squared.min() == pytest.approx(spacing**2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_particles": 9}, r"n_particles=9 at number_density=0.4 fill a box of side 4.74342, expected .*, 5;"),
        ({"number_density": 1.6}, r"number_density=1.6 leaves 0.790569 between the sites .*, expected .*= 0.85"),
        ({"number_density": 0.0}, r"number_density must be positive and finite, got 0.0"),
        ({"temperature": -1.0}, r"temperature must be zero or more, and finite, got -1.0"),
        ({"cutoff_in_sigma": 1.1}, r"cutoff_in_sigma must be above 2\^\(1/6\), .*, got 1.1"),
        ({"dim": 4}, r"dim must be 2 or 3, got 4"),
        ({"boundary": "open"}, r"boundary must be 'periodic' or 'walls', .*, got 'open'"),
        ({"time_step": float("nan")}, r"time_step must be None, or positive and finite, got nan"),
    ],
)
def test_impossible_fluids(settings, message):
    with pytest.raises(ValueError, match=message):
        LennardJones(**settings)


def test_a_step_too_long_for_collisions_is_refused():
    with pytest.raises(ValueError, match=r"time_step must be below 0\.035\d* .*, got a step of 0\.05"):
        simulate(LennardJones(time_step=0.05), n_systems=1, n_frames=2, frame_interval=0.1, rng=RNG(0))

"""The statistical mechanics of hard discs and spheres, each estimate against theory and in its own standard errors.

Units: diameter 1, mass 1, temperature T with k_B = 1, dimension d, packing fraction h, number density n.
Pressure from the log: Z = P / (n T) = 1 + sum |J| / (d N T t), with T = 2 E / (d (N - 1)) at rest as a whole. In a
periodic box of N particles Z - 1 is low by about 1 / N of itself.
"""

import numpy as np
import pytest
from scipy.stats import kstest

from simulators import HardSpheres, ParticleState
from simulators.engines import event_cells

RNG = np.random.default_rng
VIRIALS = {  # B_k / B_2^(k - 1), k = 3, 4, ...: Clisby and McCoy 2006, doi:10.1007/s10955-005-8080-0
    2: (0.782004, 0.5322318, 0.3335560, 0.1988425, 0.1148728, 0.0649930, 0.0362193, 0.0199537),
    3: (0.625, 0.2869495, 0.110252, 0.0388820, 0.0130235, 0.0041832, 0.0013094, 0.0004035),
}


def gas(n, dim, packing, *, n_systems, seed, masses=None, **settings):
    """Return a periodic gas of temperature about 1 and its starts, at rest as a whole."""
    side = float((n * {2: np.pi / 4, 3: np.pi / 6}[dim] / packing) ** (1 / dim))
    options = {"radius_spread": 0.0, "gravity": (0.0,) * dim, "boundary": "periodic", "velocity_scale": 1.0} | settings
    system = HardSpheres(n_particles=n, dim=dim, radius=0.5, box=(side,) * dim, **options)
    start = system.draw_state(n_systems, rng=RNG(seed))
    masses = np.ones((n_systems, n)) if masses is None else np.broadcast_to(masses, (n_systems, n)).copy()
    velocities = start.velocities / np.sqrt(masses)[..., None]
    momentum = (masses[..., None] * velocities).sum(axis=1, keepdims=True)
    velocities -= momentum / masses.sum(axis=1)[:, None, None]
    return system, ParticleState(start.positions, velocities, start.radii, masses)


def relaxed(system, start, time):
    """Return the state after some time."""
    motion = event_cells.run(system, start, n_frames=2, frame_interval=time)
    return ParticleState(motion.positions[:, -1], motion.velocities[:, -1], start.radii, start.masses)


def temperature(state):
    """Return the temperature of each system."""
    _, n, dim = state.velocities.shape
    return (state.masses[..., None] * state.velocities**2).sum(axis=(1, 2)) / (dim * (n - 1))


def compressibility(packing, dim):
    """Return Z from ten virial coefficients and a geometric tail."""
    y = 2 ** (dim - 1) * packing
    terms = [1.0, y, *(b * y ** (k + 2) for k, b in enumerate(VIRIALS[dim]))]
    ratio = terms[-1] / terms[-2]
    return sum(terms) + terms[-1] * ratio / (1 - ratio)


def enskog_rate(packing, dim):
    """Return the collisions of a particle a unit time at temperature 1, from the contact value in Z."""
    density = packing / {2: np.pi / 4, 3: np.pi / 6}[dim]
    contact = (compressibility(packing, dim) - 1) / (2 ** (dim - 1) * packing)
    return 2 ** (dim - 1) * np.sqrt(np.pi) * density * contact


def error_of_mean(values):
    """Return the standard error of the mean over independent systems."""
    return values.std(ddof=1) / np.sqrt(len(values))


def measure(n, dim, packing, collisions):
    """Return Z and the rate at temperature 1 of 16 systems, each as an array, from so many collisions a particle."""
    system, start = gas(n, dim, packing, n_systems=16, seed=1)
    duration = collisions / enskog_rate(packing, dim)
    start = relaxed(system, start, 0.3 * duration)
    log = event_cells.run(system, start, n_frames=2, frame_interval=duration).collisions
    heat = temperature(start)
    z = 1 + np.bincount(log.system, weights=log.impulse) / (dim * n * heat * duration)
    return z, 2 * np.bincount(log.system) / (n * duration * np.sqrt(heat))


@pytest.mark.parametrize(
    ("dim", "n", "packing", "collisions"),
    [
        (2, 300, 0.05, 60),
        (2, 300, 0.20, 200),
        (2, 300, 0.40, 250),
        (3, 300, 0.10, 150),
        (3, 500, np.pi / 12, 250),  # n s^3 = 0.5
        (3, 500, 0.40, 250),
    ],
)
def test_pressure_and_collision_rate(dim, n, packing, collisions):
    z, rate = measure(n, dim, packing, collisions)
    of_many = 1 - 1 / n
    excess = (compressibility(packing, dim) - 1) * of_many
    assert z.mean() == pytest.approx(1 + excess, rel=0.005)
    assert error_of_mean(z) < 0.0015 * z.mean()
    assert abs(z.mean() - 1 - excess) < 4 * error_of_mean(z)
    assert rate.mean() == pytest.approx(enskog_rate(packing, dim) * of_many, rel=0.01)
    # each collision gives on average the impulse sqrt(pi T / m) m: pressure and rate say the same
    consistency = (z - 1) / (np.sqrt(np.pi) / (2 * dim) * rate)
    assert consistency.mean() == pytest.approx(1, abs=0.003)
    assert abs(consistency.mean() - 1) < 4 * error_of_mean(consistency)
    if packing == np.pi / 12:  # Lue 2005, doi:10.1063/1.1834498
        assert 1 / (rate.mean() / of_many) == pytest.approx(0.13031, rel=0.01)


@pytest.mark.parametrize("dim", [2, 3])
def test_velocities_become_maxwellian(dim):
    n = 100
    system, start = gas(n, dim, 0.2, n_systems=60, seed=2)
    speed = np.sqrt((start.velocities**2).sum(axis=-1, keepdims=True))
    start = ParticleState(start.positions, start.velocities / speed, start.radii, start.masses)  # all equally fast
    end = relaxed(system, start, 30.0)
    square = (end.velocities**2).sum(axis=-1)
    drift = end.velocities.mean(axis=1, keepdims=True)
    heat = ((end.velocities - drift) ** 2).mean(axis=(1, 2)) * n / (n - 1)
    kurtosis = (square**2).mean() / square.mean() ** 2
    assert kurtosis == pytest.approx(1 + 2 / dim, rel=0.05)
    for axis in range(dim):
        scaled = (end.velocities - drift)[..., axis] / np.sqrt(heat * (1 - 1 / n))[:, None]
        assert kstest(scaled.ravel(), "norm").pvalue > 0.05
        assert scaled.mean() == pytest.approx(0, abs=1e-12)


def test_light_and_heavy_share_the_energy():
    n = 100
    masses = np.where(np.arange(n) % 2 == 0, 1.0, 4.0)
    system, start = gas(n, 2, 0.2, n_systems=60, seed=3, masses=masses)
    velocities = start.velocities * np.sqrt(masses)[:, None]  # now four times the energy in heavy ones
    total = masses.sum()
    velocities -= (masses[:, None] * velocities).sum(axis=1, keepdims=True) / total
    start = ParticleState(start.positions, velocities, start.radii, start.masses)
    motion = event_cells.run(system, start, n_frames=21, frame_interval=10.0)
    energy = 0.5 * masses * (motion.velocities[:, 5:] ** 2).sum(axis=-1).mean(axis=1)  # (system, particle)
    light, heavy = energy[:, ::2].mean(axis=1), energy[:, 1::2].mean(axis=1)
    ratio = heavy / light
    expected = (1 - 4 / total) / (1 - 1 / total)  # the momentum is fixed, which takes more from heavy ones
    assert error_of_mean(ratio) < 0.008
    assert abs(ratio.mean() - expected) < 3 * error_of_mean(ratio)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("restitution", [0.9, 0.98])
def test_a_dissipative_gas_cools_as_haff_says(dim, restitution):
    # T = T0 / (1 + t / tau)^2, 1 / tau = (1 - e^2) w0 / (2 d) (1 + 3 a2 / 16): van Noije and Ernst 1998,
    # doi:10.1007/s100350050009; from 10 to 40 collisions a particle, before clusters form
    n, e, packing = 500, restitution, 0.05
    elastic, start = gas(n, dim, packing, n_systems=8, seed=4)
    start = relaxed(elastic, start, 20.0)
    system, _ = gas(n, dim, packing, n_systems=1, seed=4, restitution=e)
    rate = enskog_rate(packing, dim) * np.sqrt(temperature(start))  # (system,)
    a2 = 16 * (1 - e) * (1 - 2 * e**2) / (9 + 24 * dim + (8 * dim - 41) * e + 30 * e**2 * (1 - e))
    expected = (1 - e**2) * rate / (2 * dim) * (1 + 3 * a2 / 16)
    tau = float(1 / expected.mean())
    begin, end = (tau * (np.exp(c * (1 - e**2) / (2 * dim)) - 1) for c in (10, 40))
    motion = event_cells.run(system, start, n_frames=31, frame_interval=float(end / 30))
    times = np.arange(31) * end / 30
    heat = (motion.velocities**2).sum(axis=(2, 3)) / (dim * (n - 1))
    growth = np.sqrt(heat[:, :1] / heat) - 1  # t / tau
    late = times >= begin
    slope = np.polyfit(times[late], growth[:, late].T, 1)[0] / expected
    assert error_of_mean(slope) < 0.01
    assert slope.mean() == pytest.approx(1, abs=0.04)

"""The Warp engines against the numba ones, against conservation laws, and against themselves in pieces.

Everything runs on Warp's CPU device, which compiles the same kernels as a GPU; tests marked ``gpu`` repeat it there.
"""

# ruff: noqa: E402 (engines are imported only where Warp is installed)

import subprocess
import sys

import numpy as np
import pytest

wp = pytest.importorskip("warp")

from simulators import (
    HardSpheres,
    ParticleState,
    RotatingBox,
    SoftSpheres,
    VibratedBox,
    contact_labels,
    kinetic_energy,
    minimum_image,
    periodic_axes,
    simulate,
    wall_contact_labels,
)
from simulators.engines import (
    event_driven,
    soft_contact,
    warp_device,
    warp_hard,
    warp_hard_kernel,
    warp_soft,
    warp_soft_kernel,
)

RNG = np.random.default_rng
COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    try:
        with warp_device.quiet_device(request.param):
            return request.param
    except ValueError as error:
        pytest.skip(str(error))


def box(n, **settings):
    """Return n discs in a box at packing 0.15, whose sides do not fall together with any period of the motion."""
    return HardSpheres(n_particles=n, radius=(0.15 * 1.1 / (n * np.pi)) ** 0.5, box=(1.0, 1.1), **settings)


def both(system, device, *, n_systems=10, duration=2.0, n_frames=3, seed=0):
    """Return the motion by Warp and by numba from the same starts."""
    start = system.draw_state(n_systems, rng=RNG(seed))
    settings = {"n_frames": n_frames, "frame_interval": duration / (n_frames - 1)}
    return warp_hard.run(system, start, **settings, device=device), event_driven.run(system, start, **settings)


CASES = {
    "walls": box(16),
    "many": box(64),
    "inelastic": box(16, restitution=0.9, restitution_velocity=0.5),
    "forced": box(16, restitution=0.6, contact_time=0.02),
    "periodic": box(16, boundary="periodic", gravity=(0.0, 0.0)),
    "mixed": HardSpheres(
        n_particles=16,
        dim=3,
        radius=0.09,
        gravity=(0.0, 0.3, -1.0),
        box=(1.0, 1.2, 0.9),
        boundary=("periodic", "walls", "walls"),
    ),
    "ghosts": box(16, interacting=False),
    "periodic ghosts": box(16, interacting=False, boundary=("periodic", "walls")),
}


@pytest.mark.parametrize("name", CASES)
def test_event_lists_agree_up_to_the_horizon_of_chaos(name, device):
    system = CASES[name]
    n = system.n_particles
    horizon = (5 if n == 64 else 8) * n // 2  # events: a collision is one for each of its two partners
    ours, theirs = both(system, device, duration=3.0)
    for s in range(10):
        a, b = ours.collisions.of_system(s), theirs.collisions.of_system(s)
        assert min(len(a), len(b)) > horizon
        for column in ("i", "j", "forced"):
            assert getattr(a, column)[:horizon].tolist() == getattr(b, column)[:horizon].tolist()
        for column in ("time", "impulse", "normal"):
            np.testing.assert_allclose(getattr(a, column)[:horizon], getattr(b, column)[:horizon], rtol=0, atol=1e-5)
    if name == "forced":
        assert ours.collisions.forced.any()


def test_frames_and_labels_agree_before_the_horizon(device):
    system = CASES["walls"]
    settings = {"n_systems": 20, "n_frames": 9, "frame_interval": 0.05}
    ours = simulate(system, **settings, rng=RNG(1), engine="event_driven_warp", device=device)
    theirs = simulate(system, **settings, rng=RNG(1), engine="event_driven")
    assert (ours.engine, theirs.engine) == ("event_driven_warp", "event_driven")
    np.testing.assert_allclose(ours.positions, theirs.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.velocities, theirs.velocities, rtol=0, atol=1e-10)
    assert contact_labels(theirs).sum() > 200
    assert (contact_labels(ours) == contact_labels(theirs)).all()
    assert (wall_contact_labels(ours) == wall_contact_labels(theirs)).all()


@pytest.mark.parametrize("name", ["walls", "many", "mixed", "periodic"])
def test_energy_is_conserved(name, device):
    system = CASES[name]
    run = simulate(
        system,
        n_systems=4,
        n_frames=6,
        frame_interval=10.0,
        rng=RNG(2),
        engine="event_driven_warp",
        device=device,
    )
    assert len(run.collisions) > 4000
    energy = np.array([kinetic_energy(run.state(k)) + system.potential_energy(run.state(k)) for k in range(6)])
    np.testing.assert_allclose(energy, np.broadcast_to(energy[0], energy.shape), rtol=1e-11)


@pytest.mark.parametrize("name", ["walls", "inelastic", "mixed", "periodic"])
def test_momentum_changes_by_the_logged_wall_impulses_and_gravity_alone(name, device):
    system = CASES[name]
    run = simulate(
        system, n_systems=6, n_frames=3, frame_interval=3.0, rng=RNG(3), engine="event_driven_warp", device=device
    )
    momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
    log = run.collisions
    wall = log.j < 0
    pushed = np.zeros((6, system.dim))
    np.add.at(pushed, log.system[wall], log.impulse[wall, None] * log.normal[wall])
    pushed += run.masses.sum(axis=1)[:, None] * np.array(system.gravity) * run.times[-1]
    np.testing.assert_allclose(momentum[:, -1] - momentum[:, 0], pushed, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["walls", "mixed"])
def test_nobody_overlaps_or_leaves(name, device):
    system = CASES[name]
    run = simulate(
        system, n_systems=5, n_frames=80, frame_interval=0.1, rng=RNG(4), engine="event_driven_warp", device=device
    )
    i, j = np.triu_indices(16, 1)
    separation = run.positions[:, :, i] - run.positions[:, :, j]
    gap = np.sqrt((minimum_image(separation, system) ** 2).sum(axis=-1)) - (run.radii[:, i] + run.radii[:, j])[:, None]
    assert gap.min() > -1e-12
    reach = np.where(periodic_axes(system), 0.0, run.radii[:, None, :, None])
    assert (run.positions - reach).min() > -1e-12
    assert (np.array(system.box) - reach - run.positions).min() > -1e-12


@pytest.mark.parametrize("name", ["walls", "ghosts", "mixed"])
def test_full_buffers_pause_and_change_no_bit(name, device):
    system = CASES[name]
    start = system.draw_state(5, rng=RNG(5))
    settings = {"n_frames": 4, "frame_interval": 0.8, "device": device}
    wide = warp_hard.run(system, start, **settings)
    tight = warp_hard.run(system, start, **settings, rows_at_once=1)
    again = warp_hard.run(system, start, **settings)
    assert len(wide.collisions) > 200
    for other in (tight, again):
        assert wide.positions.tobytes() == other.positions.tobytes()
        assert wide.velocities.tobytes() == other.velocities.tobytes()
        for column in COLUMNS:
            assert getattr(wide.collisions, column).tobytes() == getattr(other.collisions, column).tobytes(), column


def test_blocks_of_systems_and_logs_brought_home_early_change_no_bit(monkeypatch, device):
    system = CASES["walls"]
    start = system.draw_state(7, rng=RNG(6))
    settings = {"n_frames": 3, "frame_interval": 0.8, "device": device}
    whole = warp_hard.run(system, start, **settings)
    monkeypatch.setattr(warp_device, "_MOST_SYSTEMS", 3)
    monkeypatch.setattr(warp_device, "_MOST_KEPT", 100)
    parts = warp_hard.run(system, start, **settings, rows_at_once=30)
    assert whole.positions.tobytes() == parts.positions.tobytes()
    for column in COLUMNS:
        assert getattr(whole.collisions, column).tobytes() == getattr(parts.collisions, column).tobytes(), column


def test_a_collision_is_forced_exactly_where_a_partner_collided_within_the_contact_time(device):
    system = HardSpheres(restitution=0.99, gravity=(0.0, 0.0), contact_time=1e-2)
    start = system.draw_state(3, rng=RNG(14))
    motion = warp_hard.run(system, start, n_frames=2, frame_interval=40.0, device=device)
    for s in range(3):
        log = motion.collisions.of_system(s)
        last = np.full(10, -np.inf)
        expected = []
        for time, i, j in zip(log.time, log.i, log.j, strict=True):
            discs = [i] if j < 0 else [i, j]
            expected.append(time - last[discs].max() < 1e-2)
            last[discs] = time
        assert log.forced.tolist() == expected
        assert len(log) > 4 * 64  # local time has started again
        assert 10 < log.forced.sum() < len(log) / 2


def test_bouncing_disc_meets_the_floor_at_the_closed_form_times(device):
    e, bounces = 0.8, 30
    system = HardSpheres(n_particles=1, restitution=e, box=(1.0, 3.0), contact_time=1e-6)
    start = ParticleState(np.array([[[0.5, 1.1]]]), np.zeros((1, 1, 2)), np.array([[0.1]]), np.ones((1, 1)))
    log = warp_hard.run(system, start, n_frames=2, frame_interval=12.72, device=device).collisions
    k = np.arange(bounces)
    fall = np.sqrt(2.0)
    np.testing.assert_allclose(log.time[:bounces], fall * (1 + 2 * e * (1 - e**k) / (1 - e)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(log.impulse[:bounces], fall * e**k * (1 + e), rtol=1e-10)
    assert (log.j == -3).all()


def test_a_dead_ball_bounces_twice_a_contact_time(device):
    system = HardSpheres(n_particles=1, restitution=0.0, contact_time=1e-3)
    start = ParticleState(np.array([[[0.5, 0.6]]]), np.zeros((1, 1, 2)), np.array([[0.1]]), np.ones((1, 1)))
    log = warp_hard.run(system, start, n_frames=2, frame_interval=1.50025, device=device).collisions
    np.testing.assert_allclose(np.diff(log.time), 5e-4, rtol=1e-8)
    np.testing.assert_allclose(log.impulse[1:], 5e-4, rtol=1e-8)  # arrives and leaves at g t_c / 4
    assert len(log) == 1001
    assert log.forced.all()


def test_a_frame_at_the_very_time_of_a_collision_shows_its_outcome(device):
    system = HardSpheres(n_particles=1, gravity=(0.0, 0.0))
    start = ParticleState(np.array([[[0.5, 0.5]]]), np.array([[[-1.0, 0.0]]]), np.array([[0.25]]), np.ones((1, 1)))
    run = warp_hard.run(system, start, n_frames=3, frame_interval=0.25, device=device)
    assert run.collisions.time.tolist() == [0.25]
    assert run.velocities[0, :, 0, 0].tolist() == [-1.0, 1.0, 1.0]
    assert run.positions[0, :, 0, 0].tolist() == [0.5, 0.25, 0.5]


def test_a_jammed_row_and_a_pile_are_refused(monkeypatch, device):
    x = np.array([0.125, 0.375, 0.625, 0.875])  # radius 1/8: no room at all
    centres = np.stack([x, np.full(4, 0.5)], axis=-1)[None]
    velocities = np.array([[[1.0, 0], [0, 0], [0, 0], [0, 0]]])
    start = ParticleState(centres, velocities, np.full((1, 4), 0.125), np.ones((1, 4)))
    jammed = HardSpheres(n_particles=4, gravity=(0.0, 0.0))
    with pytest.raises(ValueError, match=r"system 0: more than 1000 collisions a disc while time stood still"):
        warp_hard.run(jammed, start, n_frames=2, frame_interval=0.5, device=device)
    monkeypatch.setattr(warp_hard, "MOST_FORCED", 100)
    pile = box(16, restitution=0.5, contact_time=2e-3)
    with pytest.raises(ValueError, match=r"collisions of discs at rest, expected at most"):
        warp_hard.run(pile, pile.draw_state(1, rng=RNG(7)), n_frames=2, frame_interval=5.0, device=device)


def soft_box(n, kind=SoftSpheres, **settings):
    """Return n soft discs in a box at packing 0.15."""
    return kind(n_particles=n, radius=(0.15 * 1.1 / (n * np.pi)) ** 0.5, box=(1.0, 1.1), **settings)


SOFT_CASES = {
    "elastic": soft_box(16),
    "many": soft_box(64),
    "clipped": soft_box(16, restitution=0.8, tension=False),
    "hertz": soft_box(16, contact="hertz", restitution=0.9),
    "rubbing": soft_box(16, restitution=0.9, friction=0.4),
    "rubbing spheres": SoftSpheres(
        n_particles=16,
        dim=3,
        radius=0.09,
        gravity=(0.0, 0.3, -1.0),
        box=(1.0, 1.2, 0.9),
        boundary=("periodic", "walls", "walls"),
        restitution=0.9,
        friction=0.4,
    ),
    "open": soft_box(16, boundary="open", gravity=(0.0, 0.0), friction=0.3),
    "ghosts": soft_box(16, interacting=False, boundary=("periodic", "walls")),
    "shaken": soft_box(16, VibratedBox, restitution=0.9, amplitude=0.05),
    "rotating": soft_box(16, RotatingBox, restitution=0.9, friction=0.3),
    "rotating spheres": RotatingBox(
        n_particles=16, dim=3, radius=0.09, gravity=(0.0, 0.3, -1.0), box=(1.0, 1.2, 0.9), friction=0.4
    ),
}
SOFT_COLUMNS = ("time", "impulse", "normal", "duration", "overlap")


@pytest.mark.parametrize("name", SOFT_CASES)
def test_contacts_agree_up_to_the_horizon_of_chaos(name, device):
    system = SOFT_CASES[name]
    n = system.n_particles
    start = system.draw_state(6, rng=RNG(8))
    settings = {"n_frames": 3, "frame_interval": 0.3 if n == 64 else 0.6}
    ours = warp_soft.run(system, start, **settings, device=device)
    theirs = soft_contact.run(system, start, **settings)
    for s in range(6):
        a, b = ours.collisions.of_system(s), theirs.collisions.of_system(s)
        horizon = min(5 * n // 2, len(b))
        assert horizon > (0 if name == "open" else 3 * n // 2)
        for column in ("i", "j"):
            assert getattr(a, column)[:horizon].tolist() == getattr(b, column)[:horizon].tolist()
        for column in SOFT_COLUMNS:
            np.testing.assert_allclose(getattr(a, column)[:horizon], getattr(b, column)[:horizon], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.positions[:, 1], theirs.positions[:, 1], rtol=0, atol=1e-7)
    assert (ours.angular_velocities is None) == (system.friction == 0)
    if ours.angular_velocities is not None and theirs.angular_velocities is not None:
        np.testing.assert_allclose(ours.angular_velocities[:, 1], theirs.angular_velocities[:, 1], rtol=0, atol=1e-5)
        assert np.abs(ours.angular_velocities[:, 1]).max() > 1.0


@pytest.mark.parametrize("name", ["elastic", "hertz", "rubbing spheres"])
def test_soft_momentum_changes_by_the_logged_wall_impulses_and_gravity_alone(name, device):
    system = SOFT_CASES[name]
    run = simulate(
        system, n_systems=6, n_frames=2, frame_interval=2.0, rng=RNG(9), engine="soft_contact_warp", device=device
    )
    momentum = (run.masses[:, None, :, None] * run.velocities).sum(axis=2)
    log = run.collisions
    wall = log.j < 0
    pushed = np.zeros((6, system.dim))
    np.add.at(pushed, log.system[wall], log.impulse[wall, None] * log.normal[wall])
    pushed += run.masses.sum(axis=1)[:, None] * np.array(system.gravity) * run.times[-1]
    np.testing.assert_allclose(momentum[:, -1] - momentum[:, 0], pushed, rtol=0, atol=1e-10)


def test_elastic_soft_discs_keep_their_energy(device):
    system = SOFT_CASES["elastic"]
    run = simulate(
        system, n_systems=6, n_frames=5, frame_interval=2.0, rng=RNG(10), engine="soft_contact_warp", device=device
    )
    energy = np.array([kinetic_energy(run.state(k)) + system.potential_energy(run.state(k)) for k in range(5)])
    np.testing.assert_allclose(energy, np.broadcast_to(energy[0], energy.shape), rtol=2e-3)


def test_discs_that_rub_in_open_space_keep_momentum_and_angular_momentum(device):
    system = soft_box(16, boundary="open", gravity=(0.0, 0.0), friction=0.3, restitution=0.8)
    drawn = system.draw_state(3, rng=RNG(11))
    inwards = 3 * (np.array([0.5, 0.55]) - drawn.positions)  # so that they meet
    start = ParticleState(
        drawn.positions, inwards, drawn.radii, drawn.masses, angular_velocities=drawn.angular_velocities
    )
    motion = warp_soft.run(system, start, n_frames=2, frame_interval=0.5, device=device)
    assert len(motion.collisions) > 30
    assert motion.angular_velocities is not None
    x, v, mass = motion.positions, motion.velocities, start.masses[:, None]
    inertia = (0.5 * start.masses * start.radii**2)[:, None]
    orbital = mass * (x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0])
    angular = (orbital + inertia * motion.angular_velocities[..., 0]).sum(axis=-1)
    np.testing.assert_allclose(angular[:, 1], angular[:, 0], rtol=0, atol=1e-13)
    momentum = (mass[..., None] * v).sum(axis=2)
    np.testing.assert_allclose(momentum[:, 1], momentum[:, 0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["elastic", "rubbing spheres", "ghosts"])
def test_full_buffers_pause_soft_systems_and_change_no_bit(name, monkeypatch, device):
    system = SOFT_CASES[name]
    start = system.draw_state(4, rng=RNG(12))
    settings = {"n_frames": 3, "frame_interval": 0.4, "device": device}
    wide = warp_soft.run(system, start, **settings)
    again = warp_soft.run(system, start, **settings)
    monkeypatch.setattr(warp_soft, "CONTACTS_A_PARTICLE", 1 / 16)  # of 16 particles: room for one contact
    monkeypatch.setattr(warp_soft, "_STEPS_A_LAUNCH", 77)
    tight = warp_soft.run(system, start, **settings, rows_at_once=1)
    assert len(wide.collisions) > 50
    for other in (tight, again):
        assert wide.positions.tobytes() == other.positions.tobytes()
        assert wide.velocities.tobytes() == other.velocities.tobytes()
        for column in ("system", "i", "j", *SOFT_COLUMNS):
            assert getattr(wide.collisions, column).tobytes() == getattr(other.collisions, column).tobytes(), column


def test_a_system_too_soft_and_one_that_diverges_are_refused(device):
    system = soft_box(16, contact_time=0.2)
    with pytest.raises(ValueError, match=r"sank .* lower contact_time=0.2"):
        simulate(
            system, n_systems=2, n_frames=2, frame_interval=2.0, rng=RNG(13), engine="soft_contact_warp", device=device
        )
    far = ParticleState(np.array([[[0.5, 0.5]]]), np.array([[[1e200, 0.0]]]), np.array([[0.1]]), np.ones((1, 1)))
    alone = SoftSpheres(n_particles=1)
    with pytest.raises(ValueError, match=r"system 0 diverged: .* lower time_step or the speeds"):
        warp_soft.run(alone, far, n_frames=2, frame_interval=0.1, device=device)


def test_kernels_compile_for_cuda_without_a_gpu(tmp_path):
    with warp_device.quiet_device("cpu"):
        for module in (warp_hard_kernel, warp_soft_kernel):
            (built,) = wp.compile_aot_module(module, arch=90, module_dir=tmp_path, use_ptx=True)
            assert built.suffix == ".ptx"


QUIET = """
import warnings; warnings.simplefilter("error")
import numpy, simulators
rng = numpy.random.default_rng(0)
settings = dict(n_systems=2, n_frames=2, frame_interval=0.1, rng=rng)
simulators.simulate(simulators.HardSpheres(), **settings, engine="event_driven_warp")
"""


def test_a_correct_call_prints_nothing_and_leaves_the_log_level_alone():
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wp.config.log_level == wp.LOG_INFO


MISSING = """
import sys; sys.modules["warp"] = None
import numpy, simulators
rng = numpy.random.default_rng(0)
simulators.simulate(simulators.HardSpheres(), n_systems=1, n_frames=2, frame_interval=0.1, rng=rng, device="cuda")
"""


def test_what_to_do_without_warp_is_said():
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'emergence-lab[gpu]'" in done.stderr.splitlines()[-1]


def test_devices_that_are_not_there_are_refused():
    settings = {"n_systems": 1, "n_frames": 2, "frame_interval": 0.1, "rng": RNG(0)}
    with pytest.raises(ValueError, match=r"device must be one of cpu, cuda, got 'tpu'"):
        simulate(HardSpheres(), **settings, device="tpu")
    if not wp.is_cuda_available():
        with pytest.raises(ValueError, match=r"Warp finds no CUDA device or driver .*; use device='cpu'"):
            simulate(HardSpheres(), **settings, device="cuda")

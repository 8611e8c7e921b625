"""Every bad input ends in one line that names the argument, what was expected and what came."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import simulators
from simulators import CollisionLog, HardSpheres, ParticleState, Trajectories, simulate

RNG = np.random.default_rng
SETTINGS = {"n_systems": 2, "n_frames": 3, "frame_interval": 0.1}


def drawn(n_systems=2):
    """Return start states of the default system."""
    return HardSpheres().draw_state(n_systems, rng=RNG(0))


def changed(array, index, value):
    """Return a copy with one entry replaced."""
    copy = array.copy()
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_particles": 0}, r"n_particles must be at least 1, got 0"),
        ({"dim": 1}, r"dim must be 2 or 3, got 1"),
        ({"dim": 3}, r"gravity must have 3 entries for dim=3, got \(0.0, -1.0\)"),
        ({"dim": 3, "gravity": (0.0, 0.0, -1.0)}, r"box must have 3 entries for dim=3, got \(1.0, 1.0\)"),
        ({"radius": -0.06}, r"radius must be positive and finite, got -0.06"),
        ({"radius": 0.0}, r"radius must be positive and finite, got 0.0"),
        ({"radius": float("nan")}, r"radius must be positive and finite, got nan"),
        ({"radius_spread": 1.0}, r"radius_spread must be in \[0, 1\), got 1.0"),
        ({"density": 0.0}, r"density must be positive and finite, got 0.0"),
        ({"restitution": 1.1}, r"restitution must be in \[0, 1\], got 1.1"),
        ({"restitution": -0.1}, r"restitution must be in \[0, 1\], got -0.1"),
        ({"velocity_scale": -1.0}, r"velocity_scale must be zero or more, and finite, got -1.0"),
        ({"contact_time": 0.0}, r"contact_time must be positive and finite, got 0.0"),
        ({"gravity": (0.0, float("inf"))}, r"gravity must be finite, got \(0.0, inf\)"),
        ({"box": (1.0, 0.0)}, r"box must be positive and finite in every entry, got \(1.0, 0.0\)"),
        ({"boundary": "open"}, r"boundary must be .*, got .open.$"),
        (
            {"radius": 0.4},
            r"diameters reach 1.04, and a walls axis must be longer than 1.04, got 1; lower radius",
        ),
        (
            {"radius": 0.2, "gravity": (0.0, 0.0), "boundary": "periodic"},
            r"diameters reach 0.52, and a periodic axis must be longer than 1.04, got 1; lower radius",
        ),
        ({"boundary": "periodic"}, r"gravity must be 0 along periodic axes \(periodic\), got \(0.0, -1.0\)"),
        ({"boundary": ("walls", "periodic")}, r"gravity must be 0 along periodic axes .*, got \(0.0, -1.0\)"),
        ({"boundary": ("walls",)}, r"boundary must be .* for each of 2 axes, got \('walls',\)"),
        ({"restitution_velocity": -0.1}, r"restitution_velocity must be zero or more, and finite, got -0.1"),
        ({"n_particles": 100}, r"n_particles=100 of radius 0.06 cannot fit: packing fraction 1.165, expected below 1"),
    ],
)
def test_impossible_systems(settings, message):
    with pytest.raises(ValueError, match=message):
        HardSpheres(**settings)


def test_integers_and_lists_are_welcome_as_numbers():
    # in a process of its own: the type checker of this one takes no int for a float
    code = (
        "from simulators import HardSpheres\n"
        "loose = HardSpheres(radius_spread=0, gravity=[0, -1], box=[1, 1], velocity_scale=1)\n"
        "assert loose == HardSpheres(radius_spread=0.0, velocity_scale=1.0)\n"
        "print(hash(loose) == hash(HardSpheres(radius_spread=0.0, velocity_scale=1.0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_systems": 0}, r"n_systems must be at least 1, got 0"),
        ({"n_frames": 1}, r"n_frames must be at least 2 .*, got 1"),
        ({"frame_interval": 0.0}, r"frame_interval must be positive and finite, got 0.0"),
        ({"frame_interval": float("nan")}, r"frame_interval must be positive and finite, got nan"),
        ({"engine": "soft"}, r"engine must be one of auto, event_driven.* for HardSpheres, got 'soft'"),
        ({"device": "tpu"}, r"device must be .*cpu.*, got 'tpu'"),
    ],
)
def test_impossible_runs(settings, message):
    with pytest.raises(ValueError, match=message):
        simulate(HardSpheres(), **(SETTINGS | settings), rng=RNG(0))


def test_a_packing_without_room_is_refused():
    system = HardSpheres(n_particles=80, radius_spread=0.0)
    with pytest.raises(ValueError, match=r"2 of 2 systems: 80 particles at packing fraction 0.905 .*lower n_particles"):
        simulate(system, **SETTINGS, rng=RNG(0))


@pytest.mark.parametrize(
    "system", [HardSpheres(n_particles=36), HardSpheres(dim=3, gravity=(0.0,) * 3, box=(1.0,) * 3)]
)
def test_drawn_states_are_allowed_and_follow_their_law(system):
    state = system.draw_state(300, rng=RNG(1))
    system.check_state(state)
    assert state.radii.min() >= 0.7 * 0.06
    assert state.radii.max() <= 1.3 * 0.06
    assert state.radii.mean() == pytest.approx(0.06, rel=0.01)
    packing = (state.masses / system.density).sum(axis=1).mean()
    assert packing == pytest.approx(system.packing_fraction, rel=0.01)
    scale = np.sqrt((state.velocities**2).mean())
    assert abs(scale - 0.7) < 4 * 0.7 / np.sqrt(2 * state.velocities.size)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("positions", (1, 3, 0), np.nan, r"positions must be finite; system 1, particle 3, dim 0 is nan"),
        ("velocities", (0, 2, 1), np.inf, r"velocities must be finite; system 0, particle 2, dim 1 is inf"),
        ("radii", (1, 4), -0.1, r"radii must be positive; system 1, particle 4 has -0.1"),
        ("masses", (0, 0), 0.0, r"masses must be positive; system 0, particle 0 has 0.0"),
    ],
)
def test_impossible_states(name, index, value, message):
    state = drawn()
    with pytest.raises(ValueError, match=message):
        replace(state, **{name: changed(getattr(state, name), index, value)})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 10), r"velocities must have the axes \(system, particle, dim\), got shape \(2, 10\)"),
        ((2, 9, 2), r"velocities must have 10 entries along particle, got shape \(2, 9, 2\)"),
    ],
)
def test_shapes_that_disagree(shape, message):
    with pytest.raises(ValueError, match=message):
        replace(drawn(), velocities=np.zeros(shape))


def test_empty_states_and_other_dtypes():
    with pytest.raises(ValueError, match=r"positions must not be empty, got shape \(0, 10, 2\)"):
        ParticleState(np.zeros((0, 10, 2)), np.zeros((0, 10, 2)), np.ones((0, 10)), np.ones((0, 10)))
    with pytest.raises(TypeError, match=r"positions must be a float64 numpy array, got float32"):
        replace(drawn(), positions=drawn().positions.astype(np.float32))


def test_start_states_the_system_cannot_have():
    state = drawn()
    overlapping = replace(state, positions=changed(state.positions, (1, 7), state.positions[1, 2] + 0.01))
    with pytest.raises(ValueError, match=r"system 1, particles 2 and 7 overlap by 0"):
        simulate(HardSpheres(), **SETTINGS, rng=RNG(0), initial=overlapping)
    outside = replace(state, positions=changed(state.positions, (0, 5), [0.5, -0.2]))
    with pytest.raises(ValueError, match=r"system 0, particle 5 is outside the box .*centre \[0.5, -0.2\], radius 0.0"):
        simulate(HardSpheres(), **SETTINGS, rng=RNG(0), initial=outside)
    with pytest.raises(ValueError, match=r"initial must hold n_systems=2 systems, got 3"):
        simulate(HardSpheres(), **SETTINGS, rng=RNG(0), initial=drawn(3))
    with pytest.raises(ValueError, match=r"n_particles=9 and dim=2, got positions of shape \(2, 10, 2\)"):
        simulate(HardSpheres(n_particles=9), **SETTINGS, rng=RNG(0), initial=state)


def test_start_states_a_periodic_box_cannot_have():
    system = HardSpheres(n_particles=2, gravity=(0.0, 0.0), boundary=("periodic", "walls"))
    state = ParticleState(
        np.array([[[0.02, 0.5], [0.96, 0.5]]]), np.zeros((1, 2, 2)), np.full((1, 2), 0.05), np.ones((1, 2))
    )
    with pytest.raises(ValueError, match=r"particles 0 and 1 overlap by 0.04, expected at most 1e-10; move them apart"):
        system.check_state(state)
    system.check_state(replace(state, positions=changed(state.positions, (0, 1, 0), 0.91)))
    for x in (-0.01, 1.0):
        with pytest.raises(ValueError, match=r"system 0, particle 0 is outside the box"):
            system.check_state(replace(state, positions=changed(state.positions, (0, 0, 0), x)))
    with pytest.raises(
        ValueError, match=r"particle 1 has diameter 0.6, expected less than half of the periodic side 1"
    ):
        system.check_state(replace(state, radii=changed(state.radii, (0, 1), 0.3)))


@pytest.mark.parametrize("n", [300, 5000])  # each way to find pairs among many
@pytest.mark.parametrize("large", [1.0, 3.0])
def test_a_slight_overlap_across_the_border_is_found(n, large):
    # one pair meets across the border, each with a neighbor that is nearer but does not overlap; others are far apart
    side = int(np.ceil(np.sqrt(n)))
    system = HardSpheres(n_particles=n, box=(10.0 * side,) * 2, radius=1.0, boundary="periodic", gravity=(0.0, 0.0))
    x = 10.0 * (np.indices((side, side)).reshape(2, -1).T[:n] + 0.5)
    radii = np.ones(n)
    radii[0], x[0, 1], x[1] = large, 1.0, (x[0, 0], 10.0 * side - large)
    radii[2], x[2] = 0.1 * large, x[0] + (1.2 * large, 0.0)
    x[3] = x[1] + (2.1, 0.0)
    state = ParticleState(x[None], np.zeros((1, n, 2)), radii[None], np.ones((1, n)))
    system.check_state(state)
    with pytest.raises(ValueError, match=r"system 0, particles 0 and 1 overlap by 1e-06"):
        system.check_state(replace(state, positions=changed(state.positions, (0, 0, 1), 1.0 - 1e-6)))


def test_an_overlap_in_the_last_of_many_systems_is_found():
    n_systems, n = 600, 64  # more pairs than are looked at at once
    system = HardSpheres(n_particles=n, box=(40.0, 40.0), radius=1.0)
    x = np.tile(5.0 * (np.indices((8, 8)).reshape(2, -1).T + 0.5), (n_systems, 1, 1))
    x[-1, 3] = x[-1, 2] + 1.0
    state = ParticleState(x, np.zeros_like(x), np.ones((n_systems, n)), np.ones((n_systems, n)))
    with pytest.raises(ValueError, match=r"system 599, particles 2 and 3 overlap by 0.58"):
        system.check_state(state)


@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_overlaps_among_many_are_found_as_by_all_pairs(boundary):
    n, box = 400, (30.0, 20.0)
    radii = np.exp(RNG(2).uniform(np.log(0.02), np.log(0.6), (1, n)))
    system = HardSpheres(n_particles=n, radius=0.1, gravity=(0.0, 0.0), box=box, boundary=boundary)
    found = 0
    for seed in range(20):
        positions = RNG(seed).uniform(0.6, np.array(box) - 0.6, (1, n, 2))
        separation = positions[0, :, None] - positions[0]
        if boundary == "periodic":
            separation -= np.array(box) * np.round(separation / np.array(box))
        overlap = np.sqrt((separation**2).sum(axis=-1)) < radii[0] + radii[0, :, None]
        crowd = np.flatnonzero(np.triu(overlap, 1).any(axis=1))
        keep = np.delete(np.arange(n), crowd)  # no pair overlaps among these
        few = replace(system, n_particles=len(keep))
        state = ParticleState(positions[:, keep], np.zeros((1, len(keep), 2)), radii[:, keep], np.ones((1, len(keep))))
        few.check_state(state)
        one = np.append(keep, crowd[0])  # its partner has a higher index, and may be of the crowd itself
        if overlap[crowd[0], keep].any():
            more = replace(system, n_particles=len(one))
            with pytest.raises(ValueError, match=rf"particles \d+ and {len(keep)} overlap"):
                more.check_state(
                    ParticleState(positions[:, one], np.zeros((1, len(one), 2)), radii[:, one], np.ones((1, len(one))))
                )
            found += 1
    assert found > 10


def test_a_trajectory_with_nan_names_the_place():
    run = simulate(HardSpheres(), **SETTINGS, rng=RNG(0))
    with pytest.raises(ValueError, match=r"positions must be finite; system 1, frame 2, particle 3, dim 0 is nan"):
        replace(run, positions=changed(run.positions, (1, 2, 3, 0), np.nan))
    with pytest.raises(ValueError, match=r"frame_interval must be positive and finite, got -1.0"):
        replace(run, frame_interval=-1.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("system", 2, r"collisions.system must lie in \[0, 1\], got \[0, 2\]"),
        ("i", 10, r"collisions.i must lie in \[0, 9\], got \[\d, 10\]"),
        ("j", -5, r"collisions.j must lie in \[-4, 9\], got \[-5, \d\]"),
        ("time", 0.3, r"collisions.time must lie in \[0.0, 0.2\], got \[0.0\d+, 0.3\]"),
    ],
)
def test_a_log_of_another_run(name, value, message):
    run = simulate(HardSpheres(), **SETTINGS, rng=RNG(0))
    log = replace(run.collisions, **{name: changed(getattr(run.collisions, name), -1, value)})
    with pytest.raises(ValueError, match=message):
        Trajectories(run.positions, run.velocities, run.radii, run.masses, 0.1, run.system, run.seed, collisions=log)


def test_times_outside_the_run_in_any_system_of_a_log():
    run = simulate(HardSpheres(), n_systems=3, n_frames=3, frame_interval=0.1, rng=RNG(0))
    begin, end = np.searchsorted(run.collisions.system, (1, 2))
    assert 0 < begin < end - 1 < len(run.collisions) - 1
    for row, time in ((begin, -0.1), (end - 1, 0.3), (0, -0.1)):
        log = replace(run.collisions, time=changed(run.collisions.time, row, time))
        with pytest.raises(ValueError, match=rf"collisions.time must lie in \[0.0, 0.2\], got .*{time}"):
            replace(run, collisions=log)


def test_a_log_out_of_order():
    log = simulate(HardSpheres(), **SETTINGS, rng=RNG(0)).collisions
    with pytest.raises(
        ValueError, match=r"sorted by \(system, time\); row 1 \(system 0, time 0.0\) comes after system 0"
    ):
        replace(log, time=changed(log.time, 1, 0.0))
    with pytest.raises(TypeError, match=r"i must be int32, got int64"):
        replace(log, i=log.i.astype(np.int64))
    with pytest.raises(ValueError, match=r"j must have one entry for each of \d+ events, got \(2,\)"):
        replace(log, j=log.j[:2])


def test_a_log_may_be_empty():
    columns = (np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), np.zeros((0, 2)))
    assert len(CollisionLog(np.zeros(0, np.int32), *columns, np.zeros(0, bool))) == 0
    still = HardSpheres(n_particles=1, gravity=(0.0, 0.0), velocity_scale=0.0)
    run = simulate(still, **SETTINGS, rng=RNG(0))
    assert len(run.collisions) == 0
    assert not simulators.contact_labels(run).any()


def test_import_loads_neither_torch_nor_numba():
    code = "import sys, simulators; print([name for name in ('torch', 'numba', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

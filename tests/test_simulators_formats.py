"""Other programs' formats: what their readers expect, the same run back, and the log found again from frames."""

import json
import os
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from simulators import HardSpheres, Trajectories, contact_labels, open_trajectories, save_trajectories, simulate
from simulators.contacts import central_differences, recover_collisions
from simulators.formats import (
    export_gns,
    export_gsd,
    export_h5md,
    export_lammps,
    export_nri,
    import_gns,
    import_gsd,
    import_h5md,
    import_lammps,
    import_nri,
)
from simulators.systems import System
from simulators.systems.imported import ImportedSystem

h5py: Any = import_module("h5py")
hoomd: Any = import_module("gsd.hoomd")


def run_of(seed, *, dim=2, n_systems=3, n_frames=101, frame_interval=0.01, **settings):
    """Return a run in a box with unequal sides."""
    box, gravity = ((1.0, 1.5), (0.0, -1.0)) if dim == 2 else ((1.0, 1.2, 1.5), (0.0, 0.0, -1.0))
    system = HardSpheres(dim=dim, box=box, gravity=gravity, **settings)
    rng = np.random.default_rng(seed)
    return simulate(system, n_systems=n_systems, n_frames=n_frames, frame_interval=frame_interval, rng=rng)


@pytest.fixture(scope="module")
def run():
    return run_of(0)


@pytest.fixture(scope="module", params=[2, 3])
def either(request):
    return run_of(1, dim=request.param, n_frames=41)


def assert_frames(back, run, *, rtol=0.0, velocities=True):
    """Require the frames of a run to have come back."""
    scale = np.abs(run.positions).max()
    np.testing.assert_allclose(back.positions, run.positions, rtol=rtol, atol=rtol * scale)
    if velocities:
        np.testing.assert_allclose(back.velocities, run.velocities, rtol=rtol, atol=rtol * np.abs(run.velocities).max())
    assert back.engine == "imported"
    assert isinstance(back.system, ImportedSystem)
    assert (back.system.n_particles, back.system.dim) == run.positions.shape[2:]


def of_one(run, s):
    """Return one system of a run."""
    log = run.collisions.of_system(s)
    arrays = {name: getattr(run, name)[s : s + 1] for name in ("positions", "velocities", "radii", "masses")}
    return replace(run, **arrays, seed=None, collisions=replace(log, system=log.system - np.int32(s)))


# --- GNS


def load_as_gns(path):
    """Read a split in the words of the geoelements loader's documentation."""
    with np.load(path, allow_pickle=True) as file:
        return [item for _, item in file.items()]


def test_gns_is_what_its_loader_expects(run, tmp_path):
    export_gns(run, tmp_path, connectivity_radius=0.2)
    data = load_as_gns(tmp_path / "train.npz")
    assert len(data) == 3
    for s, entry in enumerate(data):
        positions, particle_type = entry
        assert (positions.shape, positions.dtype) == ((101, 10, 2), np.float32)
        assert (positions == run.positions[s].astype(np.float32)).all()
        assert np.full(10, particle_type, dtype=int).tolist() == [0] * 10  # as the loader spreads it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metadata.json", "train.npz"]


def test_gns_metadata(run, tmp_path):
    export_gns(run, tmp_path, connectivity_radius=0.2)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    keys = "bounds sequence_length default_connectivity_radius dim dt vel_mean vel_std acc_mean acc_std"
    assert set(metadata) == set(keys.split())
    assert metadata["bounds"] == [[0.0, 1.0], [0.0, 1.5]]
    assert (metadata["sequence_length"], metadata["dim"], metadata["dt"]) == (101, 2, 0.01)
    assert metadata["default_connectivity_radius"] == 0.2
    positions = run.positions.astype(np.float32).astype(np.float64)
    for axis in range(2):
        steps = [p[t + 1, i, axis] - p[t, i, axis] for p in positions for t in range(100) for i in range(10)]
        bends = [
            p[t + 2, i, axis] - 2 * p[t + 1, i, axis] + p[t, i, axis]
            for p in positions
            for t in range(99)
            for i in range(10)
        ]
        for name, values in (("vel", steps), ("acc", bends)):
            assert metadata[f"{name}_mean"][axis] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-12)
            assert metadata[f"{name}_std"][axis] == pytest.approx(np.std(values), rel=1e-9)


def test_gns_back(either, tmp_path):
    export_gns(either, tmp_path, connectivity_radius=0.2, split="valid", with_radii=True)
    back = import_gns(tmp_path, split="valid", allow_pickle=True)
    assert_frames(back, either, rtol=1e-7, velocities=False)
    np.testing.assert_allclose(back.radii, either.radii, rtol=1e-7)
    assert back.system.box == either.system.box
    assert back.system.boundary == "walls"
    # central differences: exact but at collisions and ends
    error = np.linalg.norm(back.velocities - either.velocities, axis=-1)[:, 1:-1]
    assert np.median(error) < 1e-4


def test_gns_refuses_what_it_should(run, tmp_path):
    export_gns(run, tmp_path, connectivity_radius=0.2)
    with pytest.raises(ValueError, match=r"reading them runs whatever code is inside; pass allow_pickle=True if you"):
        import_gns(tmp_path)
    with pytest.raises(ValueError, match=r"the file has no radii; pass radii="):
        import_gns(tmp_path, allow_pickle=True)
    assert import_gns(tmp_path, allow_pickle=True, radii=0.06).radii.tolist() == [[0.06] * 10] * 3
    with pytest.raises(ValueError, match=r"GNS needs at least 3 frames for an acceleration, got 2"):
        export_gns(run_of(0, n_frames=2), tmp_path, connectivity_radius=0.2)
    periodic = replace(run, system=ImportedSystem(10, 2, (1.0, 1.5), ("walls", "periodic")))
    with pytest.raises(ValueError, match=r"GNS has no periodic boundary"):
        export_gns(periodic, tmp_path, connectivity_radius=0.2)


# --- NRI


def test_nri_layout_and_back(either, tmp_path):
    rng = np.random.default_rng(0)
    springs = np.triu(rng.integers(0, 2, (3, 10, 10)).astype(float), 1)
    run = replace(either, edges=springs + springs.swapaxes(1, 2))
    export_nri(run, tmp_path, suffix="_springs10")
    loc, vel, edges = (np.load(tmp_path / f"{name}_train_springs10.npy") for name in ("loc", "vel", "edges"))
    assert loc.shape == vel.shape == (3, 41, run.system.dim, 10)
    assert loc[2, 7, 1, 4] == run.positions[2, 7, 4, 1]
    assert vel[2, 7, 1, 4] == run.velocities[2, 7, 4, 1]
    assert (edges == run.edges).all()
    back = import_nri(
        tmp_path, suffix="_springs10", frame_interval=0.01, radii=run.radii, masses=run.masses, box=run.system.box,
        boundary="walls",
    )  # fmt: skip
    assert_frames(back, run)
    assert (back.edges == run.edges).all()
    assert back.charges is None


def test_nri_charges_come_back_up_to_their_common_sign(run, tmp_path):
    charges = np.random.default_rng(1).choice([-1.0, 0.0, 2.0], size=(3, 10))
    export_nri(replace(run, charges=charges), tmp_path, split="test")
    back = import_nri(tmp_path, split="test", frame_interval=0.01, radii=0.06)
    assert back.edges is None
    assert back.charges is not None
    products = back.charges[:, :, None] * back.charges[:, None, :]
    np.testing.assert_allclose(products, charges[:, :, None] * charges[:, None, :], atol=1e-14)
    assert back.system.boundary == "open"


def test_nri_without_edges(run, tmp_path):
    export_nri(run, tmp_path)
    assert not np.load(tmp_path / "edges_train.npy").any()
    back = import_nri(tmp_path, frame_interval=0.01, radii=run.radii)
    assert back.edges is back.charges is None
    with pytest.raises(FileNotFoundError, match="loc_valid.npy"):
        import_nri(tmp_path, split="valid", frame_interval=0.01, radii=0.06)


# --- H5MD


def test_h5md_is_what_the_specification_asks(run, tmp_path):
    path = tmp_path / "run.h5"
    export_h5md(run, path, author="A. Person")
    with h5py.File(path, "r") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert file["h5md/author"].attrs["name"] == "A. Person"
        assert file["h5md/creator"].attrs["name"] == "emergence-lab"
        assert file["h5md/creator"].attrs["version"]
        group = file["particles/system_00002"]
        assert group["box"].attrs["dimension"] == 2
        assert group["box"].attrs["boundary"].tolist() == ["none", "none"]
        assert group["box/edges"][()].tolist() == [1.0, 1.5]
        for name in ("position", "velocity"):
            assert group[name]["value"].shape == (101, 10, 2)
            assert (group[name]["step"][()], group[name]["time"][()]) == (1, 0.01)
            assert (group[name]["step"].attrs["offset"], group[name]["time"].attrs["offset"]) == (0, 0.0)
        assert group["species"].shape == group["mass"].shape == group["id"].shape == (10,)


def test_h5md_back_with_its_log(either, tmp_path):
    run = replace(either, charges=np.random.default_rng(0).standard_normal(either.radii.shape))
    export_h5md(run, tmp_path / "run.h5")
    back = import_h5md(tmp_path / "run.h5")
    assert_frames(back, run)
    for name in ("radii", "masses", "charges"):
        assert (getattr(back, name) == getattr(run, name)).all()
    for name, column in vars(run.collisions).items():
        assert column is None or getattr(back.collisions, name).tobytes() == column.tobytes()
    assert back.system == ImportedSystem(10, run.system.dim, run.system.box, ("walls",) * run.system.dim, "h5md")


def test_h5md_of_another_program(run, tmp_path):
    """Explicit times, a box that is stored each frame, neither velocities nor radii nor log."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.create_group("h5md").attrs["version"] = [1, 0]
        group = file.create_group("particles/all")
        group["position/value"] = run.positions[1].astype(np.float32)
        group["position/step"] = np.arange(101) * 5
        group["position/time"] = 3.0 + np.arange(101) * 0.01
        group.create_group("box").attrs["boundary"] = ["periodic", "none"]
        group["box/edges/value"] = np.tile(np.diag([1.0, 1.5]), (101, 1, 1))
    with pytest.raises(ValueError, match=r"other.h5 has no radii; pass radii="):
        import_h5md(path)
    back = import_h5md(path, radii=run.radii[1], masses=2.0)
    assert_frames(back, of_one(run, 1), rtol=1e-7, velocities=False)
    assert back.system.boundary == ("periodic", "open")
    assert back.frame_interval == pytest.approx(0.01)
    assert (back.masses == 2.0).all()
    with h5py.File(path, "r+") as file:
        file["particles/all/position/time"][50] = 9.0
    with pytest.raises(ValueError, match=r"position/time must be evenly spaced"):
        import_h5md(path, radii=0.06)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"is no H5MD file: it lacks the group h5md or particles"):
        import_h5md(path)


# --- GSD


def test_gsd_as_its_own_reader_sees_it(either, tmp_path):
    export_gsd(either, tmp_path / "run.gsd", system=2)
    dim = either.system.dim
    with hoomd.open(str(tmp_path / "run.gsd")) as file:
        assert len(file) == 41
        frame = file[7]
        assert frame.configuration.step == 7
        assert frame.configuration.dimensions == dim
        box = [*either.system.box, 0.0][:3]
        np.testing.assert_allclose(frame.configuration.box, [*box, 0, 0, 0], rtol=1e-7)
        assert frame.particles.N == 10
        assert (np.abs(frame.particles.position) <= np.array(box) / 2).all()
        expected = either.positions[2, 7] - np.array(either.system.box) / 2
        np.testing.assert_allclose(frame.particles.position[:, :dim], expected, atol=1e-7)
        np.testing.assert_allclose(frame.particles.diameter, 2 * either.radii[2], rtol=1e-7)
        assert not frame.particles.position[:, dim:].any()


def test_gsd_back(either, tmp_path):
    run = replace(either, charges=np.random.default_rng(0).standard_normal(either.radii.shape))
    export_gsd(run, tmp_path / "run.gsd", system=1)
    back = import_gsd(tmp_path / "run.gsd")
    assert_frames(back, of_one(either, 1), rtol=2e-7)
    for name in ("radii", "masses", "charges"):
        np.testing.assert_allclose(getattr(back, name)[0], getattr(run, name)[1], rtol=1e-7)
    assert back.system.boundary == ("walls",) * run.system.dim
    assert back.frame_interval == 0.01
    assert import_gsd(tmp_path / "run.gsd", boundary="open", frame_interval=0.5).frame_interval == 0.5
    with pytest.raises(ValueError, match=r"system must be in \[0, 2\], got 3"):
        export_gsd(run, tmp_path / "run.gsd", system=3)


def test_gsd_of_another_program(tmp_path):
    with hoomd.open(str(tmp_path / "a.gsd"), "w") as file:
        for k in range(3):
            frame = hoomd.Frame()
            frame.particles.N, frame.particles.position = 2, [[-1.0, 0.5, k], [1.0, 0.0, 1.5]]
            frame.configuration.box = [4.0, 4.0, 8.0, 0, 0, 0]
            file.append(frame)
    with pytest.raises(ValueError, match=r"a.gsd does not tell the time between frames; pass frame_interval="):
        import_gsd(tmp_path / "a.gsd")
    back = import_gsd(tmp_path / "a.gsd", frame_interval=1.0)
    assert back.positions[0, 2].tolist() == [[1.0, 2.5, 6.0], [3.0, 2.0, 5.5]]
    assert back.system == ImportedSystem(2, 3, (4.0, 4.0, 8.0), "periodic", "gsd")


# --- LAMMPS


def test_lammps_back_to_the_last_bit(either, tmp_path):
    export_lammps(either, tmp_path / "run.dump", system=1)
    back = import_lammps(tmp_path / "run.dump")
    assert_frames(back, of_one(either, 1))
    assert (back.radii[0] == either.radii[1]).all()
    assert (back.masses[0] == either.masses[1]).all()
    assert back.system.boundary == ("walls",) * either.system.dim
    assert back.frame_interval == pytest.approx(0.01, rel=1e-12)
    lines = (tmp_path / "run.dump").read_text().splitlines()
    third = ["pp"] if either.system.dim == 2 else ["ff"]
    assert lines[:7] == [
        "ITEM: TIME", "0.0", "ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", "10",
        " ".join(["ITEM: BOX BOUNDS ff ff", *third]),
    ]  # fmt: skip
    assert lines[10] == "ITEM: ATOMS id type x y z vx vy vz radius mass"
    assert [line.split()[0] for line in lines[11:21]] == [str(k) for k in range(1, 11)]


DUMP = """ITEM: UNITS
lj
ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp ff ss
-1.0 3.0
0.0 2.0
0.0 2.0
ITEM: ATOMS id xu yu zu diameter
2 {x} 1.0 0.5 0.5
1 0.0 0.25 0.5 1.0
"""


def test_lammps_of_another_program(tmp_path):
    path = tmp_path / "a.dump"
    path.write_text("".join(DUMP.format(step=100 * k, x=2.5 + k) for k in range(3)))
    with pytest.raises(ValueError, match=r"a.dump does not tell the time between frames; pass frame_interval="):
        import_lammps(path)
    back = import_lammps(path, frame_interval=0.5)
    assert back.positions[0, :, 1, 0].tolist() == [3.5, 0.5, 1.5]  # sorted by id, wrapped, counted from the corner
    assert back.velocities[0, :, 1, 0].tolist() == [2.0, 2.0, 2.0]
    assert back.radii.tolist() == [[0.5, 0.25]]
    assert back.system == ImportedSystem(2, 3, (4.0, 2.0, 2.0), ("periodic", "walls", "open"), "lammps")
    path.write_text(DUMP.format(step=0, x=1) + DUMP.format(step=0, x=1).replace("3.0", "4.0"))
    with pytest.raises(ValueError, match=r"box, columns and number of atoms must not change"):
        import_lammps(path, frame_interval=0.5)
    path.write_text(DUMP.format(step=0, x=1).replace("pp ff ss", "xy xz yz pp pp pp"))
    with pytest.raises(ValueError, match=r"the box must be orthogonal with three boundaries"):
        import_lammps(path, frame_interval=0.5)
    path.write_text(DUMP.format(step=0, x=1)[:-25])
    with pytest.raises(ValueError, match=r"ends within a frame: 1 of 2 atoms"):
        import_lammps(path, frame_interval=0.5)
    path.write_text("")
    with pytest.raises(ValueError, match=r"holds no frame"):
        import_lammps(path, frame_interval=0.5)
    path.write_text("LAMMPS data file\n")
    with pytest.raises(ValueError, match=r"is no dump of style custom: 'LAMMPS data file'"):
        import_lammps(path, frame_interval=0.5)


# --- all


@pytest.mark.parametrize(
    "export",
    [
        lambda run, folder: export_gns(run, folder, connectivity_radius=0.2),
        export_nri,
        lambda run, folder: export_h5md(run, folder / "a.h5"),
        lambda run, folder: export_gsd(run, folder / "a.gsd"),
        lambda run, folder: export_lammps(run, folder / "a.dump"),
    ],
    ids=["gns", "nri", "h5md", "gsd", "lammps"],
)
def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(run, tmp_path, export, monkeypatch):
    export(run, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export(run_of(5, n_frames=4), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_imported_trajectories_can_be_saved(run, tmp_path):
    export_lammps(run, tmp_path / "a.dump")
    back = import_lammps(tmp_path / "a.dump")
    save_trajectories(back, tmp_path / "stored")
    again = open_trajectories(tmp_path / "stored")
    assert (again.system, again.engine, again.seed) == (back.system, "imported", None)
    assert (contact_labels(again) == contact_labels(back)).all()
    with pytest.raises(ValueError, match=r"imported trajectories have no start states to draw"):
        back.system.draw_state(1, rng=np.random.default_rng(0))
    settings = {"n_systems": 1, "n_frames": 2, "frame_interval": 0.1, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=r"imported trajectories have no law to go on with"):
        simulate(back.system, **settings, initial=back.state(0))
    assert isinstance(back.system, System)
    assert np.isnan(back.system.potential_energy(back.state(0))).all()


# --- logs recovered from frames


def compared(found, exact, tolerance):
    """Match two logs by system and partners, each row once; return precision, recall and the matched rows."""
    waiting = {}
    for row in range(len(exact)):
        waiting.setdefault((exact.system[row], exact.i[row], exact.j[row]), []).append(row)
    matched = []
    for row in range(len(found)):
        rows = waiting.get((found.system[row], found.i[row], found.j[row]), [])
        for other in rows:
            if abs(exact.time[other] - found.time[row]) < tolerance:
                rows.remove(other)
                matched.append((row, other))
                break
    return len(matched) / len(found), len(matched) / len(exact), np.array(matched)


def rounded(run):
    """Return a run as its files have it, in single precision."""
    single = {name: getattr(run, name).astype(np.float32).astype(float) for name in ("positions", "velocities")}
    return replace(run, **single)


@pytest.mark.parametrize(
    ("frame_interval", "from_positions", "precision", "recall"),
    [(0.005, False, 0.995, 0.94), (0.02, False, 0.995, 0.80), (0.005, True, 0.98, 0.85), (0.02, True, 0.97, 0.58)],
)
def test_recovered_logs_are_the_exact_ones(frame_interval, from_positions, precision, recall):
    n_frames = round(2 / frame_interval) + 1
    run = rounded(run_of(2, n_systems=20, n_frames=n_frames, frame_interval=frame_interval, restitution=0.95))
    log = recover_collisions(run, from_positions=from_positions)
    right, complete, matched = compared(log, run.collisions, 0.1 * frame_interval)
    assert right > precision
    assert complete > recall
    found, exact = matched.T
    walls = log.j[found] < 0
    assert 0.2 < walls.mean() < 0.8
    error = np.abs(log.impulse[found] - run.collisions.impulse[exact])
    assert np.median(error / run.collisions.impulse[exact]) < 1e-3
    aligned = (log.normal[found] * run.collisions.normal[exact]).sum(axis=1)
    assert np.quantile(aligned, 0.05) > 0.999
    assert np.median(np.abs(log.time[found] - run.collisions.time[exact])) < 1e-3 * frame_interval


def test_nothing_is_recovered_where_nothing_happens():
    run = rounded(run_of(3, interacting=False, n_frames=201, frame_interval=0.005))
    log = recover_collisions(run)
    walls = run.collisions.j < 0
    assert (log.j[log.duration == 0] < 0).all()  # ghosts pass through each other
    assert (log.duration == 0).sum() > 0.9 * walls.sum()
    overlaps = np.asarray(log.duration) > 0
    assert overlaps.sum() > 0.9 * (~walls).sum()  # but their overlaps are contacts


def spring_contact():
    """Return two discs that meet head on with a linear spring of contact, in closed form, by frames of 0.01."""
    k, speed, radius, mass, start = 400.0, 1.0, 0.1, 1.0, 0.155
    omega = np.sqrt(2 * k / mass)  # of the gap: reduced mass 1/2
    begin, lasting = (2 * start - 2 * radius) / (2 * speed), np.pi / omega
    t = np.arange(61) * 0.01
    gap = np.where(
        t < begin,
        2 * speed * (begin - t),
        np.where(
            t < begin + lasting, -2 * speed / omega * np.sin(omega * (t - begin)), 2 * speed * (t - begin - lasting)
        ),
    )
    rate = np.where(t < begin, -2 * speed, np.where(t < begin + lasting, -2 * speed * np.cos(omega * (t - begin)), 2))
    x = (gap + 2 * radius) / 2
    positions = np.zeros((1, 61, 2, 2))
    velocities = np.zeros_like(positions)
    positions[0, :, 0, 0], positions[0, :, 1, 0] = -x, x
    velocities[0, :, 0, 0], velocities[0, :, 1, 0] = -rate / 2, rate / 2
    run = Trajectories(
        positions, velocities, np.full((1, 2), radius), np.full((1, 2), mass), 0.01,
        ImportedSystem(2, 2, (2.0, 2.0), "open"), None, recover_nothing(),
    )  # fmt: skip
    return run, begin, lasting, 2 * speed / omega, 2 * mass * speed


def recover_nothing():
    """Return an empty log."""
    return simulate(
        HardSpheres(n_particles=1), n_systems=1, n_frames=2, frame_interval=1e-6, rng=np.random.default_rng(0)
    ).collisions


def test_a_soft_contact_is_one_event():
    run, begin, lasting, depth, impulse = spring_contact()
    log = recover_collisions(run)
    assert len(log) == 1
    assert (log.i[0], log.j[0]) == (0, 1)
    assert log.time[0] == pytest.approx(begin, abs=5e-4)
    assert log.duration is not None
    assert log.overlap is not None
    assert log.duration[0] == pytest.approx(lasting, abs=1e-3)
    assert log.impulse[0] == pytest.approx(impulse, rel=1e-3)
    assert log.overlap[0] == pytest.approx(depth, rel=0.01)
    assert log.normal[0].tolist() == [-1.0, 0.0]


def test_central_differences_are_exact_under_constant_acceleration():
    t = np.arange(9) * 0.1
    system = ImportedSystem(1, 2, (1.0, 4.0), ("periodic", "open"))
    path = np.stack([(0.9 + 3 * t) % 1.0, 1 + t - 2 * t**2], axis=-1)[None, :, None]
    expected = np.stack([np.full(9, 3.0), 1 - 4 * t], axis=-1)
    differences = central_differences(path, 0.1, system)
    np.testing.assert_allclose(differences[0, 1:-1, 0], expected[1:-1], atol=1e-12)
    np.testing.assert_allclose(differences[0, [0, -1], 0, 1], [0.8, -2.0], atol=1e-12)

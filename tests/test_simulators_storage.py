"""The trajectories folder: the same run back, the same bytes again, and a refusal for anything else."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators import (
    HardSpheres,
    Trajectories,
    TrajectoryWriter,
    open_trajectories,
    save_trajectories,
    simulate,
    write_trajectories,
)

COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")


def run_of(seed):
    """Return a small run."""
    rng = np.random.default_rng(seed)
    return simulate(HardSpheres(restitution=0.9), n_systems=3, n_frames=5, frame_interval=0.2, rng=rng)


def contents(folder):
    """Return every file of a folder as bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def saved(tmp_path):
    """Return a folder with a run in it."""
    folder = tmp_path / "run" / "trajectories"
    save_trajectories(run_of(0), folder)
    return folder


def test_round_trip(tmp_path):
    run = run_of(7)
    save_trajectories(run, tmp_path, provenance={"preset": "quick"})
    back = open_trajectories(tmp_path)
    for name in ("positions", "velocities"):
        stored, original = getattr(back, name), getattr(run, name)
        assert stored[:, 0].tobytes() == original[:, 0].tobytes()
        assert stored[:, 1:].tobytes() == original[:, 1:].astype(np.float32).astype(np.float64).tobytes()
    for name in ("radii", "masses"):
        assert getattr(back, name).tobytes() == getattr(run, name).tobytes()
    for name in COLUMNS:
        stored, original = getattr(back.collisions, name), getattr(run.collisions, name)
        assert stored.dtype == original.dtype
        assert stored.tobytes() == original.tobytes()
    assert (back.system, back.frame_interval, back.seed, back.engine) == (run.system, 0.2, 7, run.engine)


def test_a_stored_start_repeats_the_run(saved):
    back = open_trajectories(saved)
    settings = {"n_systems": 3, "n_frames": 5, "frame_interval": 0.2, "rng": np.random.default_rng(1)}
    again = simulate(back.system, **settings, initial=back.state(0))
    assert again.collisions.time.tobytes() == back.collisions.time.tobytes()


def test_the_manifest_tells_what_is_there(tmp_path):
    run = run_of(3)
    save_trajectories(run, tmp_path, provenance={"preset": "quick"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["system"]["class"] == "HardSpheres"
    assert manifest["system"]["restitution"] == 0.9
    assert manifest["shape"] == {"system": 3, "frame": 5, "particle": 10, "dim": 2}
    assert manifest["seed"] == 3
    assert manifest["provenance"] == {"preset": "quick"}
    (shard,) = manifest["shards"]
    assert shard["n_events"] == len(run.collisions)
    assert set(shard["files"]) | {"manifest.json"} == {path.name for path in tmp_path.iterdir()}
    frames = np.load(tmp_path / "positions_00000.npy")
    assert (frames.dtype, frames.shape) == (np.float32, (3, 5, 10, 2))
    for name, entry in shard["files"].items():
        assert entry["sha256"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_equal_runs_give_equal_bytes(saved, tmp_path):
    save_trajectories(run_of(0), tmp_path / "again")
    assert contents(saved) == contents(tmp_path / "again")


@pytest.mark.parametrize("n_renames", range(0, 14))
def test_killed_at_any_rename_nothing_false_is_read_and_saving_again_heals(saved, monkeypatch, n_renames):
    whole = contents(saved)
    rename, done = os.replace, []

    def killed(source, target):
        if len(done) == n_renames:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_trajectories(run_of(1), saved)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"has no manifest.json: writing was interrupted"):
        open_trajectories(saved)
    save_trajectories(run_of(0), saved)
    assert contents(saved) == whole


def test_a_full_disk_is_named(saved, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(
        OSError, match=r"cannot write trajectories to .* \(No space left on device\); free space"
    ) as info:
        save_trajectories(run_of(0), saved)
    assert info.value.errno == errno.ENOSPC


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"cannot write trajectories to .*taken"):
        save_trajectories(run_of(0), tmp_path / "taken")


def test_provenance_must_be_json(tmp_path):
    with pytest.raises(TypeError, match=r"provenance must hold JSON values only"):
        save_trajectories(run_of(0), tmp_path, provenance={"when": object()})
    assert not list(tmp_path.iterdir())


def test_missing_things_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trajectories folder at .*nowhere; simulate first"):
        open_trajectories(tmp_path / "nowhere")
    (saved / "radii_00000.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"radii_00000.npy is missing though the manifest lists it"):
        open_trajectories(saved)
    (saved / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no manifest.json: writing was interrupted"):
        open_trajectories(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"manifest.json is not a readable manifest \(Expecting"),
        ("[]", r"manifest.json is not a readable manifest"),
        ('{"schema": 1}', r"manifest.json has schema 1, this version reads 2; simulate again"),
        ('{"schema": 2}', r"manifest.json lacks 'shape'; it was edited or damaged: simulate again"),
    ],
)
def test_damaged_manifests(saved, text, message):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_trajectories(saved)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_files(saved, damage):
    path = saved / "velocities_00000.npy"
    data = bytearray(path.read_bytes())
    if damage == "altered":
        data[-1] ^= 1
    path.write_bytes(data if damage == "altered" else data[:-1])
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    with pytest.raises(ValueError, match=rf"velocities_00000.npy was altered or truncated: sha256 {found}, expected"):
        open_trajectories(saved)


def test_stored_nan_is_named(saved):
    # whoever writes NaN with a right hash is still refused
    path, manifest = saved / "positions_00000.npy", json.loads((saved / "manifest.json").read_text())
    frames = np.load(path)
    frames[2, 3, 4, 1] = np.nan
    np.save(path, frames)
    manifest["shards"][0]["files"][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"holds no valid run: positions must be finite; system 2, frame 3, particle 4"
    ):
        open_trajectories(saved)


def everything(run):
    """Return the same run with every optional array, as another engine would leave it."""
    rng = np.random.default_rng(9)
    n_systems, n_frames, n_particles, _ = run.positions.shape
    edges = rng.random((n_systems, n_particles, n_particles))
    n_events = len(run.collisions)
    return replace(
        run,
        charges=rng.standard_normal((n_systems, n_particles)),
        edges=edges + edges.swapaxes(1, 2),
        angular_velocities=rng.standard_normal((n_systems, n_frames, n_particles, 1)),
        collisions=replace(run.collisions, duration=rng.random(n_events), overlap=rng.random(n_events)),
    )


def assert_equal(left, right, *, frames: Any = np.float64):
    """Require the same run, its frames after the first rounded."""
    for name in ("positions", "velocities", "angular_velocities"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one[:, 0].tobytes() == other[:, 0].tobytes()
            assert one[:, 1:].tobytes() == other[:, 1:].astype(frames).astype(np.float64).tobytes()
    for name in ("radii", "masses", "charges", "edges"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        assert one is None or one.tobytes() == other.tobytes()
    for name, column in vars(left.collisions).items():
        other = getattr(right.collisions, name)
        assert (column is None) == (other is None)
        assert column is None or column.tobytes() == other.tobytes()
    assert (left.system, left.frame_interval, left.engine) == (right.system, right.frame_interval, right.engine)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optional_arrays_and_both_precisions(tmp_path, dtype):
    run = everything(run_of(2))
    save_trajectories(run, tmp_path, frame_dtype=dtype)
    assert_equal(open_trajectories(tmp_path), run, frames=dtype)
    assert np.load(tmp_path / "positions_00000.npy").dtype == dtype


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"frame_dtype must be one of float32, float64, got 'float16'"):
        save_trajectories(run_of(0), tmp_path, frame_dtype="float16")


def shards(n=3):
    """Return runs of one, two, three systems of the same kind."""
    settings = {"n_frames": 5, "frame_interval": 0.2}
    return [simulate(HardSpheres(), n_systems=k + 1, rng=np.random.default_rng((5, k)), **settings) for k in range(n)]


def joined(runs):
    """Return runs as one, the slow way."""
    first, rows = 0, []
    for run in runs:
        log = run.collisions
        rows.append((log.system + np.int32(first), *(getattr(log, name) for name in COLUMNS[1:])))
        first += len(run.positions)
    log = type(runs[0].collisions)(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    names = ("positions", "velocities", "radii", "masses")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(run, name) for run in runs]) for name in names}
    return Trajectories(**arrays, frame_interval=0.2, system=runs[0].system, seed=None, collisions=log)


def test_shards_of_unequal_size_read_as_one_run(tmp_path):
    runs = shards()
    with TrajectoryWriter(tmp_path) as writer:
        for run in runs:
            writer.append(run)
        assert (writer.n_shards, writer.n_systems) == (3, 6)
    back = open_trajectories(tmp_path)
    assert_equal(back, joined(runs), frames=np.float32)
    assert back.seed is None
    assert not list(tmp_path.glob("shard_*")) + list(tmp_path.glob("unfinished*"))


@pytest.mark.parametrize("systems", [slice(0, 1), slice(2, 5), slice(4, None), slice(-2, None), slice(1, 2)])
def test_some_systems(tmp_path, systems):
    with TrajectoryWriter(tmp_path) as writer:
        for run in shards():
            writer.append(run)
    whole, part = open_trajectories(tmp_path), open_trajectories(tmp_path, systems=systems)
    assert part.positions.tobytes() == whole.positions[systems].tobytes()
    assert part.radii.tobytes() == whole.radii[systems].tobytes()
    chosen = range(6)[systems]
    for number, system in enumerate(chosen):
        one, other = part.collisions.of_system(number), whole.collisions.of_system(system)
        assert one.time.tobytes() == other.time.tobytes()
        assert one.normal.tobytes() == other.normal.tobytes()
    assert len(part.collisions) == sum(len(whole.collisions.of_system(system)) for system in chosen)


@pytest.mark.parametrize("systems", [slice(0, 6, 2), slice(6, None), slice(3, 3)])
def test_some_systems_that_cannot_be_read(tmp_path, systems):
    with TrajectoryWriter(tmp_path) as writer:
        for run in shards():
            writer.append(run)
    with pytest.raises(ValueError, match=r"systems must be a slice without step that holds some of 6 systems"):
        open_trajectories(tmp_path, systems=systems)


def test_only_the_shards_asked_for_are_read(tmp_path):
    with TrajectoryWriter(tmp_path) as writer:
        for run in shards():
            writer.append(run)
    (tmp_path / "positions_00000.npy").unlink()
    assert open_trajectories(tmp_path, systems=slice(1, 6)).positions.shape[0] == 5
    with pytest.raises(FileNotFoundError, match="positions_00000.npy is missing"):
        open_trajectories(tmp_path)


def test_a_run_that_does_not_belong_is_refused(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    writer.append(shards(1)[0])
    with pytest.raises(ValueError, match=r"holds a run with system .*, got .*'restitution': 0.9"):
        writer.append(run_of(0))
    with pytest.raises(ValueError, match=r"holds a run with provenance \{\}, got \{'a': 1\}"):
        TrajectoryWriter(tmp_path, provenance={"a": 1})
    with pytest.raises(ValueError, match=r"all shards must have the same optional arrays"):
        writer.append(everything(shards(1)[0]))
    writer.append(shards(2)[1])
    writer.finish()
    assert open_trajectories(tmp_path).positions.shape[0] == 3
    with pytest.raises(FileExistsError, match=r"holds a finished run; open it, or choose another folder"):
        TrajectoryWriter(tmp_path)


def test_nothing_to_finish(tmp_path):
    with pytest.raises(ValueError, match=r"has no shard to finish; append one first"):
        TrajectoryWriter(tmp_path).finish()


def test_saving_over_a_sharded_run_leaves_nothing_of_it(tmp_path, saved):
    writer = TrajectoryWriter(tmp_path / "a")
    for run in shards(2):
        writer.append(run)
    save_trajectories(run_of(0), tmp_path / "a")
    assert contents(tmp_path / "a") == contents(saved)


SETTINGS = {"n_systems": 7, "n_frames": 4, "frame_interval": 0.1, "seed": 11, "systems_per_shard": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a run of four shards that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_trajectories(folder, HardSpheres(), **SETTINGS)
    return folder


def test_written_shards_are_their_streams(tmp_path):
    calls = []
    write_trajectories(tmp_path, HardSpheres(), **SETTINGS, progress=lambda *done: calls.append(done))
    assert calls == [(2, 7), (4, 7), (6, 7), (7, 7)]
    back = open_trajectories(tmp_path, systems=slice(4, 6))
    rng = np.random.default_rng((11, 2))
    alone = simulate(HardSpheres(), n_systems=2, n_frames=4, frame_interval=0.1, rng=rng)
    assert_equal(back, alone, frames=np.float32)
    before = contents(tmp_path)
    write_trajectories(tmp_path, HardSpheres(), **SETTINGS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 12}, r"holds a run with seed 11, got 12; choose another folder, or delete it"),
        ({"n_systems": 8}, r"holds a run with n_systems 7, got 8"),
        ({"n_frames": 5}, r"holds a run with n_frames 4, got 5"),
        ({"frame_interval": 0.2}, r"holds a run with frame_interval 0.1, got 0.2"),
    ],
)
def test_other_arguments_than_those_of_the_folder(tmp_path, change, message):
    write_trajectories(tmp_path, HardSpheres(), **SETTINGS)
    with pytest.raises(ValueError, match=message):
        write_trajectories(tmp_path, HardSpheres(), **{**SETTINGS, **change})
    with pytest.raises(ValueError, match=r"n_systems must be at least 1, got 0"):
        write_trajectories(tmp_path / "b", HardSpheres(), **{**SETTINGS, "n_systems": 0})


@pytest.mark.parametrize("n_renames", [0, 1, 7, 13, 14, 15, 28, 29, 42, 43, 56, 57])
def test_stopped_at_any_rename_writing_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch, n_renames):
    rename, done = os.replace, []

    def killed(source, target):
        if len(done) == n_renames:
            raise KeyboardInterrupt
        done.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_trajectories(tmp_path / "run", HardSpheres(), **SETTINGS)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"has no manifest.json: writing was interrupted"):
        open_trajectories(tmp_path / "run")
    finished = sum(name.startswith("shard_") for name in done)
    assert TrajectoryWriter(tmp_path / "run", provenance=plan_of(whole)).n_shards == finished
    calls = []
    write_trajectories(tmp_path / "run", HardSpheres(), **SETTINGS, progress=lambda *done: calls.append(done))
    assert len(calls) == 4 - finished + (finished > 0)
    assert contents(tmp_path / "run") == contents(whole)


def plan_of(folder):
    """Return what ``write_trajectories`` remembers."""
    return json.loads((folder / "manifest.json").read_text())["provenance"]


CHILD = """
import sys
from simulators import HardSpheres, write_trajectories
write_trajectories(
    sys.argv[1], HardSpheres(), n_systems=40, n_frames=4, frame_interval=0.1, seed=3, systems_per_shard=2,
    progress=lambda done, _: print(done, flush=True),
)
"""


def drive(folder, n_kills):
    """Start the writer again and again, kill each after a while, and check that what it had reported is there."""
    rng, kept, kills = np.random.default_rng(0), 0, 0
    while kills < n_kills:
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()  # from here on it writes shard after shard
        time.sleep(rng.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        reported = [int(line) for line in (first + process.stdout.read()).split()]
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
        if (folder / "manifest.json").is_file():
            break  # it was through before the signal came
        whole = 2 * len(list(folder.glob("shard_?????.json")))
        assert whole >= max(kept, *reported, 2)
        kept = whole
    return kills


@pytest.mark.parametrize("n_kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_by_a_signal_no_finished_shard_is_lost(tmp_path, n_kills):
    whole = {"n_systems": 40, "n_frames": 4, "frame_interval": 0.1, "seed": 3, "systems_per_shard": 2}
    write_trajectories(tmp_path / "whole", HardSpheres(), **whole)
    kills, round_ = 0, 0
    while kills < n_kills:
        kills += drive(tmp_path / f"run_{round_}", n_kills - kills)
        write_trajectories(tmp_path / f"run_{round_}", HardSpheres(), **whole)
        assert contents(tmp_path / f"run_{round_}") == contents(tmp_path / "whole")
        round_ += 1

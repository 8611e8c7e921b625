"""The trajectories folder: the same run back, the same bytes again, and a refusal for anything else."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest

from simulators import HardSpheres, open_trajectories, save_trajectories, simulate

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
    assert (back.system, back.frame_interval, back.seed) == (run.system, 0.2, 7)


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
        ('{"schema": 2}', r"manifest.json has schema 2, this version reads 1; simulate again"),
        ('{"schema": 1}', r"manifest.json lacks 'shards'; it was edited or damaged: simulate again"),
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

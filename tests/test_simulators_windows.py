"""Windows read from the disk against slices of the whole run in memory."""

import json
import os

import numpy as np
import pytest

import simulators.storage.files as files
from simulators import (
    HardSpheres,
    TrajectoryWindows,
    TrajectoryWriter,
    contact_labels,
    open_trajectories,
    simulate,
    write_trajectories,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a run of three shards of unequal size."""
    folder = tmp_path_factory.mktemp("run")
    with TrajectoryWriter(folder) as writer:
        for k, n_systems in enumerate((3, 1, 5)):
            rng = np.random.default_rng((0, k))
            writer.append(simulate(HardSpheres(), n_systems=n_systems, n_frames=21, frame_interval=0.1, rng=rng))
    return folder


def every_window(windows):
    """Return each window of a run, in an order that is not the disk's."""
    n_firsts = windows.n_frames - windows.length + 1
    order = np.random.default_rng(1).permutation(windows.n_systems * n_firsts)
    return order // n_firsts, order % n_firsts


@pytest.mark.parametrize("length", [1, 2, 7, 21])
@pytest.mark.parametrize("lacking", [(), ("_HAS_NOWAIT",), ("_HAS_NOWAIT", "_HAS_PREADV", "_HAS_ADVICE")])
def test_every_window_is_a_slice_of_the_run(folder, length, lacking, monkeypatch):
    for ability in lacking:
        monkeypatch.setattr(files, ability, False)
    run = open_trajectories(folder)
    windows = TrajectoryWindows(folder, length=length)
    batch = windows.read(*every_window(windows))
    labels, whole = windows.contact_labels(batch), contact_labels(run)
    assert batch.positions.dtype == batch.velocities.dtype == np.float32
    for w, (system, first) in enumerate(zip(batch.systems, batch.first_frames, strict=True)):
        frames = slice(first, first + length)
        assert (batch.positions[w] == run.positions[system, frames].astype(np.float32)).all()
        assert (batch.velocities[w] == run.velocities[system, frames].astype(np.float32)).all()
        assert (labels[w] == whole[system, first : first + length - 1]).all()
    assert length == 1 or labels.sum() > 300
    assert (windows.radii == run.radii).all()
    assert (windows.masses == run.masses).all()
    assert windows.frame_interval == run.frame_interval


def test_batches_are_uniform_and_follow_the_generator(folder):
    windows = TrajectoryWindows(folder, length=2)
    batches = list(windows.batches(50, rng=np.random.default_rng(3), n_batches=72))
    again = list(windows.batches(50, rng=np.random.default_rng(3), n_batches=72))
    for one, other in zip(batches, again, strict=True):
        assert one.positions.tobytes() == other.positions.tobytes()
        assert (one.systems == other.systems).all()
    cells = np.concatenate([batch.systems * 20 + batch.first_frames for batch in batches])
    counts = np.bincount(cells, minlength=180)  # 3600 draws, 20 a cell
    assert counts.shape == (180,)
    chi_square = ((counts - 20) ** 2 / 20).sum()
    assert abs(chi_square - 179) < 4 * np.sqrt(2 * 179)
    apart = windows.read(batches[5].systems, batches[5].first_frames)
    assert apart.positions.tobytes() == batches[5].positions.tobytes()


def test_batches_do_not_share_memory(folder):
    first, second = TrajectoryWindows(folder, length=3).batches(4, rng=np.random.default_rng(0), n_batches=2)
    assert not np.shares_memory(first.positions, second.positions)
    assert list(TrajectoryWindows(folder, length=3).batches(4, rng=np.random.default_rng(0), n_batches=0)) == []


def test_leaving_early_leaves_no_thread(folder):
    import threading

    batches = TrajectoryWindows(folder, length=3).batches(4, rng=np.random.default_rng(0), n_batches=10)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("windows")]


def test_what_is_not_in_memory_is_read_after_a_hint(folder, monkeypatch):
    run, windows, hints = open_trajectories(folder), TrajectoryWindows(folder, length=4), []
    systems, firsts = every_window(windows)
    monkeypatch.setattr(files, "_not_in_memory", lambda descriptor, places: places[::2])
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("this platform has no hints")
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: hints.append(arguments))
    monkeypatch.setattr(os, "preadv", lambda *arguments, read=os.preadv: hints.append(None) or read(*arguments))
    windows.read(systems, firsts)
    n_hints = hints.index(None)
    assert None not in hints[:n_hints]
    assert hints[n_hints:] == [None] * n_hints  # all hints come before the first read
    assert 160 <= n_hints <= 170
    assert {hint[2] for hint in hints[:n_hints]} == {4 * run.positions[0, 0].size * 4}


def test_few_files_are_open_at_once(folder, monkeypatch):
    monkeypatch.setattr(files, "_OPEN_FILES", 2)
    windows = TrajectoryWindows(folder, length=3)
    batch = windows.read(*every_window(windows))
    assert len(windows._frame_files._descriptors) == 2
    run = open_trajectories(folder)
    expected = run.positions[batch.systems[:, None], batch.first_frames[:, None] + np.arange(3)]
    assert (batch.positions == expected.astype(np.float32)).all()


def test_double_precision_on_the_disk(tmp_path):
    settings = {"n_systems": 5, "n_frames": 6, "frame_interval": 0.1, "seed": 0, "systems_per_shard": 2}
    write_trajectories(tmp_path / "single", HardSpheres(), **settings)
    write_trajectories(tmp_path / "double", HardSpheres(), **settings, frame_dtype="float64")
    index = np.array([4, 0, 2]), np.array([1, 3, 0])
    single, double = (TrajectoryWindows(tmp_path / name, length=3).read(*index) for name in ("single", "double"))
    assert single.positions.tobytes() == double.positions.tobytes()
    assert double.velocities.dtype == np.float32


def test_arguments_out_of_range(folder):
    for length in (0, 22):
        with pytest.raises(ValueError, match=rf"length must be in \[1, 21\], the frames of the run, got {length}"):
            TrajectoryWindows(folder, length=length)
    windows = TrajectoryWindows(folder, length=5)
    with pytest.raises(ValueError, match=r"systems must lie in \[0, 8\], got \[0, 9\]"):
        windows.read(np.array([0, 9]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"first_frames must lie in \[0, 16\], got \[-1, 17\]"):
        windows.read(np.array([0, 1]), np.array([-1, 17]))
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        next(windows.batches(0, rng=np.random.default_rng(0), n_batches=1))


def test_damage_is_named(tmp_path):
    write_trajectories(tmp_path, HardSpheres(), n_systems=2, n_frames=6, frame_interval=0.1, seed=0)
    path = tmp_path / "velocities_00000.npy"
    whole = path.read_bytes()
    windows = TrajectoryWindows(tmp_path, length=3)
    os.truncate(path, len(whole) - 1)
    with pytest.raises(ValueError, match=r"velocities_00000.npy was altered or truncated: \d+ bytes, expected \d+"):
        TrajectoryWindows(tmp_path, length=3)
    with pytest.raises(OSError, match=r"velocities_00000.npy ends early: it was truncated while open"):
        windows.read(np.array([1]), np.array([3]))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"velocities_00000.npy is missing though the manifest lists it"):
        TrajectoryWindows(tmp_path, length=3)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(ValueError, match=r"manifest.json lacks 'shape'; it was edited or damaged: simulate again"):
        TrajectoryWindows(tmp_path, length=3)

import json
import multiprocessing
from dataclasses import replace

import pandas as pd
import pytest
from micro_study import micro

from emergence.config import SGD, DataConfig, TrainingConfig
from emergence.run import config_to_dict, create_run, open_run
from simulators import HardSpheres


def test_a_run_is_opened_as_it_was_created(tmp_path):
    config = micro(training=TrainingConfig(optimizer=SGD(0.2)))
    created = create_run(tmp_path / "deep" / "run", config)
    opened = open_run(str(tmp_path / "deep" / "run"))
    assert opened == created
    assert opened.config == config
    assert json.loads((created.folder / "config.json").read_text()) == config_to_dict(config)
    assert [path.name for path in created.folder.iterdir()] == ["config.json"]


def test_creating_a_run_again_returns_it_untouched(tmp_path):
    create_run(tmp_path, micro())
    before = (tmp_path / "config.json").stat().st_mtime_ns
    assert create_run(tmp_path, micro()).config == micro()
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seeds": (3,)}, r"seeds is \[0\] there, \[3\] here"),
        ({"data": DataConfig(n_systems=21, n_frames=20)}, "data.n_systems is 20 there, 21 here"),
        (
            {"data": DataConfig(HardSpheres(radius=0.05), n_systems=20, n_frames=20, n_evaluation_systems=20)},
            "data.system.radius is 0.06 there, 0.05 here",
        ),
        (
            {"training": replace(micro().training, optimizer=SGD())},
            "training.optimizer.learning_rate is 0.001 there, 0.1 here",
        ),
    ],
)
def test_other_settings_are_refused_naming_the_first_difference(tmp_path, change, difference):
    create_run(tmp_path, micro())
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=rf"holds a run with other settings \({difference}\); choose another --out"):
        create_run(tmp_path, micro(**change))
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=rf"{folder} is no run folder .*: emergence run --out {folder}$"):
            open_run(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", r"config.json is not JSON \(.*\); restore it"),
        ('{"seeds": [0', r"config.json is not JSON \(.*\); restore it"),
        ("[1, 2]", "config.json: expected a table of settings"),
        ('{"n_thread": 1}', "config.json: unknown key n_thread; did you mean n_threads?"),
        ('{"model": {"n_head": 1}}', "config.json: unknown key model.n_head; did you mean model.n_heads?"),
    ],
)
def test_a_damaged_or_foreign_configuration_is_refused(tmp_path, content, problem):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=problem) as refused:
        open_run(tmp_path)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize(("name", "stage"), [("measurements", "probe"), ("summary", "report")])
def test_what_is_not_there_yet_names_the_stage_that_makes_it(tmp_path, name, stage):
    run = create_run(tmp_path, micro())
    with pytest.raises(FileNotFoundError, match=rf"is not there yet; make it with: emergence {stage} {tmp_path}"):
        getattr(run, name)


def test_cells_are_seeds_then_the_ghosts_of_the_first(tmp_path):
    run = create_run(tmp_path, micro(seeds=(4, 2)))
    assert list(run.cells) == [("discs", 4), ("discs", 2), ("ghosts", 4)]
    assert list(create_run(tmp_path / "b", micro(ghost_control=False)).cells) == [("discs", 0)]


def test_a_finished_run_opens_with_all_it_holds(micro_run):
    run = open_run(micro_run.folder)
    assert run.summary["schema"] == 1
    assert isinstance(run.measurements, pd.DataFrame)
    train, evaluation = run.transitions()
    assert len(train) == len(evaluation) == 20 * 19
    assert run.checkpoints(0).steps == run.checkpoints(0, "ghosts").steps == [0, 1, 3, 10, 30]
    assert run.checkpoints(0).load(30).W_E.shape == (6, 16)


def _hold(folder, held, release):
    with open_run(folder).exclusive():
        held.set()
        release.wait(60)


def test_two_processes_do_not_write_into_one_run(tmp_path):
    run = create_run(tmp_path, micro())
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, release))
    other.start()
    try:
        assert held.wait(60)
        with (
            pytest.raises(BlockingIOError, match=f"another process is at work in {tmp_path}; wait for it"),
            run.exclusive(),
        ):
            pass
    finally:
        release.set()
        other.join()
    with run.exclusive():
        pass


def test_a_lock_does_not_outlive_its_holder(tmp_path):
    run = create_run(tmp_path, micro())
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join()
    with run.exclusive():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]

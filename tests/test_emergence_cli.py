"""What goes wrong at the command line: one line that says what to do, an exit code, nothing lost."""

import errno
import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from micro_study import MODEL, TOML, contents, micro, results

import emergence.progress
from emergence import preset
from emergence.cli import main, parse_run
from emergence.config import SGD, AdamW
from simulators import HardSpheres, SoftSpheres, VibratedBox


@pytest.fixture
def fails(capsys):
    """Run a command that must fail as it should; returns its line and its code."""

    def run(*arguments: object) -> tuple[str, int]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert err.startswith("emergence: ")
        assert "Traceback" not in err
        assert code != 0
        return err.removeprefix("emergence: ").rstrip("\n"), code

    return run


@pytest.fixture
def toml(tmp_path) -> Path:
    (tmp_path / "micro.toml").write_text(TOML)
    return tmp_path / "micro.toml"


@pytest.fixture
def copy(micro_run, tmp_path) -> Path:
    """A copy of a finished run, to be spoilt."""
    return Path(shutil.copytree(micro_run.folder, tmp_path / "copy"))


USAGE = [
    (["trian"], "unknown command trian; did you mean train?"),
    (["xyz"], "unknown command xyz; choose run, simulate, train, probe, report"),
    (["run", "--preset", "fast"], "unknown preset 'fast'; choose one of quick, standard, paper"),
    (["run", "--preset=fast"], "unknown preset 'fast'; choose one of quick, standard, paper"),
    (["run", "--preset"], "Missing value for argument '--preset'. Expected 1 values."),
    (["run", "--training.n-stps", "3"], "unknown option --training.n-stps; did you mean --training.n-steps?"),
    (["run", "--training.n-stps=3"], "unknown option --training.n-stps; did you mean --training.n-steps?"),
    (["run", "--n-steps", "3"], "unknown option --n-steps; did you mean --training.n-steps?"),
    (["run", "--zzz"], "unknown option --zzz; emergence run --help lists them"),
    (["run", "stray"], "unknown option stray; emergence run --help lists them"),
    (
        ["run", "--training.n-steps", "abc"],
        "Error parsing --training.n-steps: invalid literal for int() with base 10: 'abc'",
    ),
    (["run", "--training.n-steps", "0"], "training.n_steps must be at least 1, got 0"),
    (["run", "--data.system.radius", "-1"], "radius must be positive and finite, got -1.0"),
    (["run", "--data.system.n-particles", "0"], "n_particles must be at least 1, got 0"),
    (["run", "--data.system.n-particles", "500"], "cannot fit"),
    (["run", "--device", "tpu"], "--device"),
    (["run", "--seed", "x"], "Error parsing --seed"),
    (["run", "--seed", "-1"], "seeds must be zero or positive, got (-1,)"),
    (["train"], "Missing from emergence train: PATH"),
    (["spacial"], "unknown command spacial; did you mean spatial?"),
    (["spatial", "independance"], "unknown example independance; did you mean independence?"),
    (["spatial", "xyz"], "unknown example xyz; choose independence, feature-sharing, composition, two-moons, modular-"),
    (["spatial", "two-moons", "--n-stps", "3"], "unknown option --n-stps; did you mean --n-steps?"),
    (["spatial", "two-moons", "--zzz"], "unknown option --zzz; emergence spatial two-moons --help lists them"),
    (["spatial", "two-moons", "composition"], "unknown option composition"),
    (["spatial", "two-moons", "--example", "composition"], "unknown option --example"),
    (["spatial", "two-moons", "--n-steps", "0"], "spatial study.n_steps must be at least 1, got 0"),
    (["spatial", "two-moons", "--arms", "l7"], "--arms"),
    (["spatial", "two-moons", "--strengths", "0"], "strengths must be positive and finite, got (0.0,)"),
    (["spatial", "two-moons", "--seeds", "1", "1"], "seeds must be distinct, and at least one, got (1, 1)"),
    (["report", "a", "b"], "unknown option b"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE, ids=[" ".join(arguments) for arguments, _ in USAGE])
def test_a_command_that_cannot_be_understood(fails, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    line, code = fails(*arguments)
    assert said in line
    assert code in (1, 2)
    assert not list(tmp_path.iterdir())


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "emergence COMMAND --help" in capsys.readouterr().out
    assert main(["--help"]) == 0
    with pytest.raises(SystemExit) as stop:
        main(["run", "--help"])
    assert stop.value.code == 0
    assert "--training.n-steps" in capsys.readouterr().out


def test_help_of_the_spatial_study(capsys):
    assert main(["spatial"]) == 2
    assert main(["spatial", "--help"]) == 0
    assert "emergence spatial independence" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["spatial", "two-moons", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for option in (
        "--arms",
        "--seeds",
        "--strengths",
        "--n-steps",
        "--n-trials",
        "--n-shuffles",
        "--out",
        "--n-workers",
    ):
        assert option in said
    assert "--example" not in said


def test_a_spatial_study_from_the_shell(fails, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emergence.studies.spatial.page.N_FRAMES", 1)
    command = ["spatial", "two-moons", "--n-steps", "4", "--arms", "full", "--seeds", "0", "--n-shuffles", "2"]
    assert main([*command, "--n-workers", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("train and measure: ")
    assert said[-2].startswith("With distance and swaps the error is ")
    assert said[-1] == "runs/spatial-two-moons/report.html"
    assert said[-2] in (tmp_path / said[-1]).read_text()
    line, code = fails(*command, "--n-trials", "3")
    assert "holds a study with other settings (n_trials is 200 there, 3 here); choose another --out, or delete" in line
    assert code == 1
    assert "n_workers must be zero (all cores) or positive, got -1" in fails(*command, "--n-workers", "-1")[0]


def test_defaults_are_the_standard_preset():
    parsed = parse_run([])
    assert parsed.study == preset("standard")
    assert parsed.out is None


def test_flags_change_fields_of_the_preset():
    parsed = parse_run(
        ["--preset", "quick", "--seed", "7", "--training.n-steps", "9", "--no-ghost-control", "--out", "here"]
    )
    expected = preset("quick")
    assert parsed.study.seeds == (7,)
    assert parsed.study.training.n_steps == 9
    assert not parsed.study.ghost_control
    assert parsed.study.probes == expected.probes
    assert parsed.out == Path("here")


@pytest.mark.parametrize(
    ("arguments", "optimizer"),
    [
        (["--training.optimizer.learning-rate", "0.3"], AdamW(learning_rate=0.3)),
        (["training.optimizer:sgd", "--training.optimizer.momentum", "0.5", "--out", "x"], SGD(momentum=0.5)),
        (["--out", "x", "training.optimizer:sgd"], SGD()),
    ],
)
def test_the_optimizer_is_chosen_and_set_by_flags(arguments, optimizer):
    assert parse_run(arguments).study.training.optimizer == optimizer


def test_a_file_changes_the_preset_and_flags_win(tmp_path):
    (tmp_path / "my.toml").write_text("seeds = [5]\n[training]\nn_steps = 11\nbatch_size = 12\n")
    parsed = parse_run(["--preset", "quick", "--config", str(tmp_path / "my.toml"), "--training.n-steps", "22"])
    assert parsed.study.seeds == (5,)
    assert parsed.study.training.n_steps == 22
    assert parsed.study.training.batch_size == 12
    assert parsed.study.data == preset("quick").data


def test_a_file_may_name_its_preset(tmp_path):
    (tmp_path / "my.toml").write_text('preset = "quick"\n')
    assert parse_run(["--config", str(tmp_path / "my.toml")]).study == preset("quick")
    assert parse_run(["--config", str(tmp_path / "my.toml"), "--preset", "paper"]).study == preset("paper")


@pytest.mark.parametrize(
    ("arguments", "system"),
    [
        (["--data.system.radius", "0.05"], HardSpheres(radius=0.05)),
        (["--data.system.boundary", "periodic", "walls"], HardSpheres(boundary=("periodic", "walls"))),
        (["data.system:soft-spheres", "--data.system.friction", "0.2", "--out", "x"], SoftSpheres(friction=0.2)),
        (["--out", "x", "data.system:vibrated-box"], VibratedBox()),
    ],
)
def test_the_system_is_chosen_and_set_by_flags(arguments, system):
    assert parse_run(arguments).study.data.system == system


def test_a_system_without_ghosts_asks_for_none(capsys):
    assert main(["run", "data.system:lennard-jones", "--out", "x"]) == 1
    assert "ghost_control must be false for LennardJones" in capsys.readouterr().err


def test_a_file_may_choose_the_other_optimizer(tmp_path):
    (tmp_path / "my.toml").write_text('[training.optimizer]\nkind = "SGD"\nlearning_rate = 0.2\n')
    assert parse_run(["--config", str(tmp_path / "my.toml")]).study.training.optimizer == SGD(0.2)


def test_the_micro_file_is_the_micro_configuration(toml):
    assert parse_run(["--config", str(toml)]).study == micro()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[trainin]\n", "my.toml: unknown key trainin; did you mean training?"),
        ("[training]\nn_step = 1\n", "my.toml: unknown key training.n_step; did you mean training.n_steps?"),
        ("[training]\nn_steps = 1.5\n", "my.toml: training.n_steps: expected int, got 1.5"),
        ("[data.system]\nradius = -0.1\n", "radius must be positive and finite, got -0.1"),
        ('preset = "fast"\n', "unknown preset 'fast'; choose one of quick, standard, paper"),
        ("seeds = [", "my.toml is not TOML: "),
        ("\xff", "my.toml is not TOML: "),
    ],
)
def test_a_bad_file(fails, tmp_path, content, said):
    (tmp_path / "my.toml").write_bytes(content.encode("latin-1"))
    line, _ = fails("run", "--config", tmp_path / "my.toml", "--out", tmp_path / "out")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_missing_file(fails, tmp_path):
    assert "no such configuration file" in fails("run", "--config", tmp_path / "no.toml")[0]


@pytest.mark.parametrize("stage", ["train", "probe", "report"])
def test_a_missing_folder(fails, tmp_path, stage):
    line, _ = fails(stage, tmp_path / "nowhere")
    assert f"{tmp_path}/nowhere is no run folder" in line
    assert f"make one with: emergence run --out {tmp_path}/nowhere" in line
    assert not (tmp_path / "nowhere").exists()


def test_stages_before_their_turn(fails, toml, tmp_path):
    assert main(["simulate", "--config", str(toml), "--out", str(tmp_path / "run")]) == 0
    assert f"train first: emergence train {tmp_path}/run" in fails("probe", tmp_path / "run")[0]
    assert f"emergence probe {tmp_path}/run" in fails("report", tmp_path / "run")[0]
    shutil.rmtree(tmp_path / "run" / "trajectories")
    assert "simulate first" in fails("train", tmp_path / "run")[0]


@pytest.mark.parametrize("where", ["a_file", "a_file/below", "/proc/nothing/here"])
def test_an_output_that_cannot_be_written(fails, toml, tmp_path, where):
    """Under a file or in /proc, where even root cannot."""
    (tmp_path / "a_file").write_text("mine")
    line, code = fails("run", "--config", toml, "--out", tmp_path / where)
    assert line.startswith("cannot write (") or "No such file or directory" in line
    assert code == 1
    assert (tmp_path / "a_file").read_text() == "mine"


def test_other_settings_than_those_of_the_run(fails, toml, copy):
    before = contents(copy)
    line, _ = fails("run", "--config", toml, "--seed", "9", "--out", copy)
    assert "holds a run with other settings (seeds is [0] there, [9] here); choose another --out, or delete it" in line
    assert contents(copy) == before


def test_a_run_that_is_at_work_elsewhere(fails, toml, copy):
    from emergence import open_run

    before = contents(copy)
    with open_run(copy).exclusive():
        line, _ = fails("run", "--config", toml, "--out", copy)
    assert f"another process is at work in {copy}" in line
    assert contents(copy) == before


def test_nan_in_a_trajectory(fails, copy):
    """Written by somebody who fixed the manifest's hash, too."""
    folder = copy / "trajectories" / "discs" / "evaluation"
    positions = np.load(folder / "positions_00000.npy")
    positions[3, 5, 2, 0] = np.nan
    np.save(folder / "positions_00000.npy", positions)
    before = contents(copy)
    line, _ = fails("probe", copy)
    assert "positions_00000.npy was altered or truncated" in line
    assert "simulate again" in line
    from emergence.checkpoints import file_sha256

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["files"]["positions_00000.npy"]["sha256"] = file_sha256(folder / "positions_00000.npy")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    line, _ = fails("probe", copy)
    assert "system 3, frame 5, particle 2, dim 0 is nan" in line
    before["trajectories/discs/evaluation/manifest.json"] = file_sha256(folder / "manifest.json")
    after = contents(copy)
    for name in ("timings.json",):
        before.pop(name)
        after.pop(name)
    assert after == before


def test_a_damaged_checkpoint_then_its_remedy(fails, micro_run, copy):
    weights = copy / "checkpoints" / "discs" / "seed_0" / "step_00000010" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    line, _ = fails("probe", copy)
    assert f"{weights} cannot be read (sha256 is" in line
    assert f"delete {weights.parent} and run again to rewrite it" in line
    shutil.rmtree(weights.parent)
    assert main(["train", str(copy)]) == 0
    assert results(copy) == results(micro_run.folder)


def test_a_checkpoint_of_another_model(fails, copy):
    config = json.loads((copy / "config.json").read_text())
    config["model"]["d_model"] = MODEL.d_model * 2
    (copy / "config.json").write_text(json.dumps(config))
    line, _ = fails("probe", copy)
    assert "belongs to another model: W_E has shape (6, 16), the model (6, 32)" in line


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the page, which takes longer to draw than the rest of a micro study to run."""
    monkeypatch.setattr("emergence.report.write_report", lambda run, summary: None)


class Interrupting(emergence.progress.Silent):
    """Somebody presses Ctrl-C when a stage has come this far."""

    def __init__(self, title: str, done: int) -> None:
        self.title, self.done = title, done

    @contextmanager
    def stage(self, title, total):
        def advance(done):
            if title.startswith(self.title) and done == self.done:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_says_how_to_go_on_and_going_on_works(fails, micro_run, toml, tmp_path, monkeypatch):
    command = ["run", "--config", str(toml), "--out", str(tmp_path / "run")]
    for stage, done in (
        ("simulate", 1),
        ("train on discs", 17),
        ("train on ghosts", 5),
        ("probe discs", 3),
        ("write", 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("emergence.progress.for_terminal", lambda at=(stage, done): Interrupting(*at))
            line, code = fails(*command)
        assert line == "stopped; give the same command again to go on from here"
        assert code == 130
    assert main(command) == 0
    assert results(tmp_path / "run") == results(micro_run.folder)


def test_a_full_disk_midway_keeps_what_is_done(fails, micro_run, toml, tmp_path, monkeypatch):
    """The disk takes some more writes of each kind, then no more, until somebody frees space."""
    written, write = [], Path.write_bytes

    def until_full(path, data):
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    assert main(["simulate", "--config", str(toml), "--out", str(tmp_path / "run")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        line, _ = fails("train", tmp_path / "run")
    assert line.startswith("the disk is full (")
    assert line.endswith("free some space and give the same command again, what is done is kept")
    assert "checkpoints/discs/seed_0/step_00000001/weights.safetensors" in contents(tmp_path / "run")
    assert main(["train", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == {
        name: digest for name, digest in results(micro_run.folder).items() if name != "measurements.parquet"
    }


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a given size in kB, which can be made larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(kilobytes: int) -> None:
        options = f"size={kilobytes}k" if not folder.is_mount() else f"remount,size={kilobytes}k"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("needs the right to mount a tmpfs (root outside a restricted container)")

    yield folder, resize
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.mark.usefixtures("no_pictures")
def test_a_really_full_disk_at_every_stage(capsys, micro_run, toml, small_disk):
    """Too small a disk, made larger until the study fits: each time one line, and nothing is spoilt."""
    folder, resize = small_disk
    begun = []
    for kilobytes in range(500, 20_000, 350):
        resize(kilobytes)
        if main(["run", "--config", str(toml), "--out", str(folder / "run")]) == 0:
            break
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert "the disk is full" in err or "No space left on device" in err, err
        begun.append(
            [name for name in ("trajectories", "checkpoints", "measurements") if (folder / "run" / name).exists()]
        )
    assert {len(stages) for stages in begun} == {1, 2, 3}, "the disk should have been too small for every stage"
    assert results(folder / "run") == results(micro_run.folder)
    names = contents(folder / "run")
    assert not [name for name in names if "partial" in name or name.endswith(".tmp")]

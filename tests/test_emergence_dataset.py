import numpy as np
import pytest
from micro_study import contents

from emergence.cli import main
from emergence.dataset import SYSTEM_NAMES
from simulators import HardSpheres, open_trajectories
from simulators.systems import SYSTEMS

FEW = ["--n-systems", "3", "--n-frames", "4", "--frame-interval", "0.05", "--n-particles", "4"]


def test_every_system_has_its_name():
    assert set(SYSTEM_NAMES.values()) == set(SYSTEMS.values())
    assert SYSTEM_NAMES["hard-spheres"] is HardSpheres


def test_a_data_set_and_its_animation(tmp_path, capsys):
    out, film = tmp_path / "set", tmp_path / "film.html"
    command = ["simulate", "hard-spheres", *FEW, "--radius", "0.08", "--seed", "5", "--out", str(out)]
    assert main([*command, "--animate", str(film)]) == 0
    assert "3 systems of HardSpheres" in capsys.readouterr().out
    run = open_trajectories(out)
    assert run.positions.shape == (3, 4, 4, 2)
    assert run.system == HardSpheres(n_particles=4, radius=0.08)
    assert run.frame_interval == 0.05
    assert film.is_file()
    before = contents(out)
    assert main(command) == 0  # done already
    assert contents(out) == before


def test_the_seed_alone_makes_the_data(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["simulate", "hard-spheres", *FEW, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    a, b, c = (open_trajectories(tmp_path / name) for name in "abc")
    np.testing.assert_array_equal(a.positions, b.positions)
    assert not np.array_equal(a.positions, c.positions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hard-sphere"], "unknown system hard-sphere; did you mean hard-spheres?"),
        (["hard-spheres", "--radus", "1"], "unknown option --radus; did you mean --radius?"),
        (["hard-spheres", "--radius", "-1"], "radius must be positive and finite, got -1.0"),
        (["hard-spheres", "--n-systems", "0"], "n_systems must be at least 1, got 0"),
        (["hard-spheres", "--animate", "film.avi"], "must end in .gif, .mp4, .html, got 'film.avi'"),
        (["hard-spheres", "--engine", "soft"], "engine must be one of auto, event_driven"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *arguments]) != 0
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("*.npy"))


def test_another_data_set_is_not_overwritten(tmp_path, capsys):
    out = str(tmp_path / "set")
    assert main(["simulate", "hard-spheres", *FEW, "--out", out]) == 0
    before = contents(tmp_path)
    assert main(["simulate", "hard-spheres", *FEW, "--seed", "9", "--out", out]) == 1
    assert "holds a run with seed 0, got 9" in capsys.readouterr().err
    assert contents(tmp_path) == before

import json

import pytest
import torch
from micro_study import checkpoints_in, fresh_model

from emergence.checkpoints import (
    META,
    TRAINING_STATE,
    WEIGHTS,
    CheckpointError,
    Checkpoints,
    file_sha256,
    log_spaced_steps,
)
from emergence.config import ModelConfig
from emergence.model import ParticleTransformer


@pytest.fixture
def saved(tmp_path) -> Checkpoints:
    checkpoints = checkpoints_in(tmp_path / "checkpoints")
    for step in (0, 1, 12):
        checkpoints.save(step, fresh_model(seed=step), {"step/W_E": torch.tensor(float(step))}, {"seed": 5})
    return checkpoints


def flip_a_byte(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_loaded(saved):
    assert saved.steps == [0, 1, 12]
    loaded = saved.load(12)
    assert not loaded.training
    for (name, p), q in zip(fresh_model(seed=12).named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert saved.training_state(12) == {"step/W_E": torch.tensor(12.0)}
    assert saved.meta(12)["step"] == 12
    assert saved.meta(12)["seed"] == 5
    assert {path.name for path in saved.path(12).iterdir()} == {WEIGHTS, TRAINING_STATE, META}


def test_loading_twice_gives_two_models(saved):
    first, second = saved.load(1), saved.load(1)
    assert first is not second
    assert first.W_E.data_ptr() != second.W_E.data_ptr()


def test_saving_the_same_twice_gives_the_same_bytes(saved, tmp_path):
    again = checkpoints_in(tmp_path / "again")
    again.save(12, fresh_model(seed=12), {"step/W_E": torch.tensor(12.0)}, {"seed": 5})
    for name in (WEIGHTS, TRAINING_STATE, META):
        assert (again.path(12) / name).read_bytes() == (saved.path(12) / name).read_bytes()


def test_a_half_written_checkpoint_is_none_and_is_replaced(saved):
    aside = saved.folder / ".step_00000100.partial"
    aside.mkdir()
    (aside / WEIGHTS).write_bytes(b"torn")
    assert saved.steps == [0, 1, 12]
    saved.save(100, fresh_model(), {}, {})
    assert saved.steps == [0, 1, 12, 100]
    assert not aside.exists()
    saved.load(100)


def test_a_save_that_fails_leaves_no_checkpoint(saved, monkeypatch):
    monkeypatch.setattr("emergence.checkpoints.file_sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saved.save(50, fresh_model(), {}, {})
    assert saved.steps == [0, 1, 12]


def test_a_missing_step_names_those_that_exist(saved):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*checkpoints; steps there: 0, 1, 12$"):
        saved.load(7)
    with pytest.raises(CheckpointError, match="steps there: none"):
        checkpoints_in(saved.folder / "nowhere").load(0)


@pytest.mark.parametrize("position", [20, -1])
def test_damaged_weights_are_refused(saved, position):
    flip_a_byte(saved.path(12) / WEIGHTS, position)
    with pytest.raises(CheckpointError, match=r"step_00000012/weights.safetensors cannot be read \(sha256 is .*delete"):
        saved.load(12)
    saved.load(1)


def test_a_damaged_training_state_is_refused(saved):
    flip_a_byte(saved.path(12) / TRAINING_STATE)
    with pytest.raises(CheckpointError, match=r"training_state.safetensors cannot be read \(sha256 is "):
        saved.training_state(12)


@pytest.mark.parametrize("name", [WEIGHTS, TRAINING_STATE])
def test_a_missing_file_is_named(saved, name):
    (saved.path(12) / name).unlink()
    with pytest.raises(
        CheckpointError, match=rf"{name} cannot be read \(file is missing\); delete .*step_00000012 and"
    ):
        saved.load(12) if name == WEIGHTS else saved.training_state(12)


@pytest.mark.parametrize("content", ["", "{", "\xff"])
def test_an_unreadable_meta_is_named(saved, content):
    (saved.path(1) / META).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"step_00000001/meta.json cannot be read"):
        saved.load(1)


def test_weights_that_never_were_safetensors_are_refused(saved):
    path = saved.path(1) / WEIGHTS
    path.write_bytes(b"not tensors at all")
    meta = saved.meta(1)
    (saved.path(1) / META).write_text(json.dumps({**meta, "weights_sha256": file_sha256(path)}))
    with pytest.raises(CheckpointError, match="weights.safetensors cannot be read"):
        saved.load(1)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (ModelConfig(2, 2, 32, 8, 32), r"W_E has shape \(6, 16\), the model \(6, 32\) \(and \d+ more differences\)"),
        (ModelConfig(3, 2, 16, 8, 32), r"it lacks blocks.2.ln1.weight \(and 15 more differences\)"),
        (ModelConfig(1, 2, 16, 8, 32), r"it has blocks.1.[\w.]+, the model has not \(and 15 more differences\)"),
    ],
)
def test_a_checkpoint_of_another_model_says_how_it_differs(saved, config, problem):
    foreign = Checkpoints(saved.folder, lambda: ParticleTransformer(config, 6, 4))
    with pytest.raises(CheckpointError, match=rf"belongs to another model: {problem}; check the model's configuration"):
        foreign.load(12)


def test_foreign_weights_leave_a_model_unchanged(saved):
    model = ParticleTransformer(ModelConfig(2, 2, 16, 8, 64), 6, 4)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        saved.load_into(model, 12)
    for name, p in model.state_dict().items():
        assert torch.equal(p.nan_to_num(), before[name].nan_to_num()), name


@pytest.mark.parametrize(
    ("n_steps", "n", "expected"),
    [
        (1, 1, [0, 1]),
        (1, 5, [0, 1]),
        (10, 1, [0, 1, 10]),
        (100, 3, [0, 1, 10, 100]),
        (1000, 4, [0, 1, 10, 100, 1000]),
        (8, 20, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_log_spaced_steps(n_steps, n, expected):
    assert log_spaced_steps(n_steps, n) == expected


def test_log_spaced_steps_ascend_and_spread_evenly_in_log_step():
    steps = log_spaced_steps(3000, 24)
    assert steps[0] == 0
    assert steps[-1] == 3000
    assert all(a < b for a, b in zip(steps, steps[1:], strict=False))
    ratios = [b / a for a, b in zip(steps, steps[1:], strict=False) if a > 100]
    assert max(ratios) / min(ratios) < 1.02

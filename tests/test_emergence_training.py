import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from micro_study import checkpoints_in, contents, few_transitions, fresh_model, short_training

from emergence.checkpoints import CheckpointError
from emergence.config import SGD, AdamW, TrainingConfig
from emergence.data import Transitions, prediction_loss
from emergence.interventions.intervention import Intervention
from emergence.tasks import batch_indices
from emergence.training import learning_rate, train, training_time


@pytest.fixture(scope="module")
def data() -> Transitions:
    return few_transitions(n_systems=10)


def run(folder, data, config, *, seed=0, on_step=None, model=None, intervention=None):
    return train(
        model or fresh_model(),
        data,
        config,
        seed=seed,
        checkpoints=checkpoints_in(folder),
        intervention=intervention,
        metrics_file=folder / "metrics.jsonl",
        on_step=on_step,
    )


def stop_after(step):
    def stop(done):
        if done == step:
            raise KeyboardInterrupt

    return stop


OPTIMIZERS = {"AdamW": AdamW(learning_rate=1e-2, weight_decay=0.01), "SGD": SGD(0.1), "SGD+momentum": SGD(0.03, 0.9)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_training_lowers_the_loss(tmp_path, data, optimizer):
    initial = prediction_loss(fresh_model(), data.batch).item()
    model = run(tmp_path, data, short_training(optimizer=optimizer))
    assert prediction_loss(model, data.batch).item() < 0.8 * initial
    assert not model.training


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_step_is_that_of_the_textbook(tmp_path, data, optimizer):
    """Three steps against torch's plain optimizers, fed by hand."""
    config = short_training(n_steps=3, n_checkpoints=1, n_warmup_steps=2, optimizer=optimizer)
    model = fresh_model()
    if isinstance(optimizer, AdamW):
        stepper = torch.optim.AdamW(model.parameters(), betas=optimizer.betas, weight_decay=optimizer.weight_decay)
    else:
        stepper = torch.optim.SGD(model.parameters(), momentum=optimizer.momentum)
    for step in (1, 2, 3):
        stepper.param_groups[0]["lr"] = optimizer.learning_rate * min(1.0, step / 2)
        scenes = torch.from_numpy(batch_indices(0, step, len(data), 16))
        stepper.zero_grad()
        prediction_loss(model, type(data.batch)(*(t[scenes] for t in data.batch))).backward()
        stepper.step()
    for (name, p), q in zip(run(tmp_path, data, config).named_parameters(), model.parameters(), strict=True):
        if not name.endswith("b_K"):  # its gradient is zero but for rounding, which Adam blows up to a whole step
            torch.testing.assert_close(p, q, rtol=0, atol=1e-6, msg=name)


def test_checkpoints_and_metrics_are_where_they_were_planned(tmp_path, data):
    run(tmp_path, data, short_training(n_steps=60, n_checkpoints=6))
    checkpoints = checkpoints_in(tmp_path)
    assert checkpoints.steps == [0, 1, 2, 5, 12, 26, 60]
    assert checkpoints.meta(12)["training_time"] == training_time(short_training(), 12)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 5, 10, 12, 20, 26, 30, 40, 50, 60]
    scenes = torch.from_numpy(batch_indices(0, 1, len(data), 16))
    first = prediction_loss(fresh_model(), type(data.batch)(*(t[scenes] for t in data.batch))).item()
    assert lines[0]["loss"] == pytest.approx(first, rel=1e-6)
    assert lines[0]["training_time"] == training_time(short_training(), 1)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, data):
    config = short_training(n_steps=20)
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        run(tmp_path / name, data, config, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["step_00000020/weights.safetensors"] != other["step_00000020/weights.safetensors"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, data):
    """Contents of the folder of a run nobody stopped, by optimizer."""
    folders = {name: tmp_path_factory.mktemp("unbroken") for name in OPTIMIZERS}
    for name, folder in folders.items():
        run(folder, data, short_training(optimizer=OPTIMIZERS[name]))
    return {name: contents(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stops", [(1,), (12,), (25, 26, 27), (3, 11, 59), (60,)])
def test_stopped_and_resumed_is_the_same_to_the_byte(tmp_path, data, unbroken, name, stops):
    config = short_training(optimizer=OPTIMIZERS[name])
    for step in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, data, config, on_step=stop_after(step))
    run(tmp_path, data, config)
    assert contents(tmp_path) == unbroken[name]


def test_resuming_does_not_begin_again(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, short_training(), on_step=stop_after(30))
    seen = []
    run(tmp_path, data, short_training(), on_step=seen.append)
    assert seen == list(range(27, 61))


@pytest.mark.parametrize("lost", [0, 5, 60])
def test_a_deleted_checkpoint_is_written_again(tmp_path, data, unbroken, lost):
    """As the message about a damaged checkpoint promises."""
    config = short_training(optimizer=OPTIMIZERS["AdamW"])
    run(tmp_path, data, config)
    for path in (folder := checkpoints_in(tmp_path).path(lost)).iterdir():
        path.unlink()
    folder.rmdir()
    run(tmp_path, data, config)
    assert contents(tmp_path) == unbroken["AdamW"]


@pytest.mark.parametrize("name", ["weights.safetensors", "training_state.safetensors"])
def test_resuming_from_a_damaged_checkpoint_is_refused(tmp_path, data, name):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, short_training(), on_step=stop_after(30))
    path = checkpoints_in(tmp_path).path(26) / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match=f"step_00000026/{name} cannot be read .*delete .*step_00000026 and run"):
        run(tmp_path, data, short_training())


def test_a_torn_last_line_of_metrics_is_dropped(tmp_path, data, unbroken):
    config = short_training(optimizer=OPTIMIZERS["AdamW"])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, config, on_step=stop_after(40))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "trai')
    run(tmp_path, data, config)
    assert contents(tmp_path) == unbroken["AdamW"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoints(tmp_path, data):
    config = short_training(n_steps=200, n_checkpoints=4, n_warmup_steps=0, optimizer=SGD(learning_rate=1e18))
    with pytest.raises(FloatingPointError, match=r"is (nan|inf) at step 1?\d: lower the learning rate.*are kept"):
        run(tmp_path, data, config)
    checkpoints = checkpoints_in(tmp_path)
    assert checkpoints.steps == [0, 1]
    for step in checkpoints.steps:
        assert all(p.isfinite().all() for p in checkpoints.load(step).parameters())


def test_weights_that_are_not_finite_are_never_a_checkpoint(tmp_path, data):
    """The loss of a step is taken before its update, so it can be finite when the weights no longer are."""
    config = short_training(n_steps=2, n_checkpoints=2, n_warmup_steps=0, optimizer=SGD(learning_rate=1e38))
    steep = replace(data, batch=data.batch._replace(targets=1e6 * data.batch.targets))
    with pytest.raises(FloatingPointError, match="weights are not finite at step 1"):
        run(tmp_path, steep, config)
    assert checkpoints_in(tmp_path).steps == [0]


def test_nan_in_the_data_stops_at_the_first_logged_step(tmp_path, data):
    targets = data.batch.targets.clone()
    targets[3] = torch.nan
    spoilt = replace(data, batch=data.batch._replace(targets=targets))
    with pytest.raises(FloatingPointError, match="training loss is nan at step .*NaN in the data"):
        run(tmp_path, spoilt, short_training(batch_size=64))


def test_bfloat16_trains_float32_weights(tmp_path, data):
    initial = prediction_loss(fresh_model(), data.batch).item()
    model = run(tmp_path / "half", data, short_training(precision="bfloat16"))
    assert prediction_loss(model, data.batch).item() < 0.8 * initial
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole = run(tmp_path / "whole", data, short_training())
    assert not torch.equal(
        model.get_parameter("W_U"), whole.get_parameter("W_U")
    )  # the forward pass was in another precision


COMPILED = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from micro_study import checkpoints_in, few_transitions, fresh_model, short_training
from emergence.training import train
data, config = few_transitions(n_systems=10), short_training(n_steps=10, n_checkpoints=2)
models = [
    train(fresh_model(), data, replace(config, compile=compile), seed=0, checkpoints=checkpoints_in(Path(str(compile))))
    for compile in (False, True)
]
parameters = zip(*(model.named_parameters() for model in models))
print(max((p - q).abs().max().item() for (name, p), (_, q) in parameters if not name.endswith("b_K")))
"""


@pytest.mark.slow
def test_the_compiled_step_trains_alike(tmp_path):
    """In a process of its own: the compiler cannot look through the type checks of a test run."""
    command = [sys.executable, "-c", COMPILED, str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.splitlines()[-1]) < 1e-4  # other kernels, so other rounding


def test_the_learning_rate_rises_linearly_then_stays():
    config = TrainingConfig(n_warmup_steps=4, optimizer=AdamW(learning_rate=0.8))
    assert [learning_rate(config, step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert learning_rate(replace(config, n_warmup_steps=0), 0) == 0.8


@pytest.mark.parametrize("optimizer", [AdamW(0.3), SGD(0.3), SGD(0.3, momentum=0.9)])
@pytest.mark.parametrize("n_warmup_steps", [0, 1, 7])
def test_training_time_is_the_sum_of_learning_rates(optimizer, n_warmup_steps):
    config = TrainingConfig(n_warmup_steps=n_warmup_steps, optimizer=optimizer)
    per_step = 1 / (1 - getattr(optimizer, "momentum", 0.0))
    for step in range(20):
        expected = per_step * math.fsum(learning_rate(config, s) for s in range(step))
        assert training_time(config, step) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_falls_linearly_at_the_end():
    config = TrainingConfig(n_steps=10, n_warmup_steps=2, n_decay_steps=4, optimizer=AdamW(learning_rate=0.8))
    rates = [learning_rate(config, step) for step in range(10)]
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("optimizer", [AdamW(0.3), SGD(0.3, momentum=0.9)])
@pytest.mark.parametrize(("n_warmup_steps", "n_decay_steps"), [(0, 1), (0, 30), (7, 5), (10, 20), (29, 1)])
def test_training_time_is_the_sum_of_learning_rates_that_fall(optimizer, n_warmup_steps, n_decay_steps):
    config = TrainingConfig(n_steps=30, n_warmup_steps=n_warmup_steps, n_decay_steps=n_decay_steps, optimizer=optimizer)
    per_step = 1 / (1 - getattr(optimizer, "momentum", 0.0))
    for step in range(31):
        expected = per_step * math.fsum(learning_rate(config, s) for s in range(step))
        assert training_time(config, step) == pytest.approx(expected, rel=1e-12)


# what a method may do


def by_hand(data, config, change=lambda model, step: None, penalty=lambda model, step: 0.0):
    """The loop in plain torch; ``change`` is called between backward and the step."""
    model = fresh_model()
    stepper = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    for step in range(1, config.n_steps + 1):
        stepper.param_groups[0]["lr"] = learning_rate(config, step - 1)
        scenes = torch.from_numpy(batch_indices(0, step, len(data), config.batch_size))
        stepper.zero_grad()
        loss = prediction_loss(model, type(data.batch)(*(t[scenes] for t in data.batch)))
        (loss + penalty(model, step)).backward()
        change(model, step)
        stepper.step()
    return model


PLAIN = short_training(n_steps=12, n_checkpoints=2, n_warmup_steps=3, n_decay_steps=6, optimizer=SGD(0.5))


def same_bits(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_without_a_method_it_is_the_plain_loop_to_the_bit(tmp_path, data):
    assert same_bits(run(tmp_path, data, PLAIN), by_hand(data, PLAIN))


@pytest.mark.parametrize("longest", [0.05, 1e9])
def test_long_gradients_are_scaled_down_and_short_ones_left(tmp_path, data, longest):
    lengths = []

    def clip(model, step):
        length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        lengths.append(length.item())
        for p in model.parameters():
            p.grad *= min(1.0, longest / length.item())

    model = run(tmp_path, data, replace(PLAIN, max_gradient_norm=longest))
    for p, q in zip(model.parameters(), by_hand(data, PLAIN, clip).parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert min(lengths) > 0.05  # so that every step tells
    if longest == 1e9:
        assert same_bits(model, by_hand(data, PLAIN))


class Recorder(Intervention):
    """Does nothing, and writes down when it was asked to."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def penalty(self, step):
        self.calls.append(("penalty", step))

    def after_backward(self, step):
        assert all(p.grad is not None for p in self.model.parameters())
        self.calls.append(("after_backward", step))
        self.before = [p.detach().clone() for p in self.model.parameters()]

    def after_step(self, step, optimizer):
        assert not all(torch.equal(p, q) for p, q in zip(self.model.parameters(), self.before, strict=True))
        assert optimizer.param_groups[0]["params"][0] is next(self.model.parameters())
        self.calls.append(("after_step", step))

    def state(self):
        self.calls.append(("state", None))
        return {"n_calls": torch.tensor(len(self.calls))}

    def load_state(self, state):
        self.calls.append(("load_state", {name: int(t) for name, t in state.items()}))


def test_a_method_is_let_in_at_every_point_in_order(tmp_path, data):
    config = replace(PLAIN, n_steps=7, n_decay_steps=0, n_checkpoints=2)  # checkpoints of steps 0, 1, 7
    model = fresh_model()
    recorder = Recorder(model)
    trained = run(tmp_path, data, config, model=model, intervention=recorder)
    points = ("penalty", "after_backward", "after_step")
    calls = [(point, step) for step in range(1, 8) for point in points]
    first, later = calls[:3], calls[3:]
    state = ("state", None)
    assert recorder.calls == [state, *first, state, *later, state]
    assert same_bits(trained, by_hand(data, config))  # it did nothing
    resumed = Recorder(model)
    (tmp_path / "step_00000007").rename(tmp_path / "step_7")
    run(tmp_path, data, config, model=model, intervention=resumed)
    assert resumed.calls == [("load_state", {"n_calls": 5}), *later, state]


class Shrinking(Intervention):
    """Weight decay by its gradient, stronger at every step, and momentum of its own: a state."""

    def __init__(self, model):
        self.model = model
        self.push = {name: torch.zeros_like(p) for name, p in model.named_parameters()}

    def penalty(self, step):
        return 0.01 * step * torch.stack([p.square().sum() for p in self.model.parameters()]).sum()

    def after_backward(self, step):
        for name, p in self.model.named_parameters():
            p.grad += 0.5 * self.push[name]
            self.push[name].copy_(p.grad)

    def after_step(self, step, optimizer):
        with torch.no_grad():
            next(self.model.parameters()).clamp_(-0.4, 0.4)

    def state(self):
        return self.push

    def load_state(self, state):
        for name, t in state.items():
            self.push[name].copy_(t)


def test_a_penalty_reaches_the_weights_and_not_the_log(tmp_path, data):
    def penalty(model, step):
        return 0.01 * step * sum(p.square().sum() for p in model.parameters())

    class Decay(Intervention):
        def penalty(self, step):
            return penalty(model, step)

    config = replace(PLAIN, n_steps=3, n_decay_steps=0, n_checkpoints=3)
    model = fresh_model()
    trained = run(tmp_path, data, config, model=model, intervention=Decay())
    for p, q in zip(trained.parameters(), by_hand(data, config, penalty=penalty).parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)
    assert not same_bits(trained, by_hand(data, config))
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    scenes = torch.from_numpy(batch_indices(0, 1, len(data), 16))
    plain = prediction_loss(fresh_model(), type(data.batch)(*(t[scenes] for t in data.batch))).item()
    assert first["loss"] == pytest.approx(plain, rel=1e-6)


def shrunk(folder, data, **options):
    model = fresh_model()
    return run(folder, data, replace(PLAIN, n_checkpoints=5), model=model, intervention=Shrinking(model), **options)


def test_a_method_with_a_state_resumes_at_the_same_bytes(tmp_path, data):
    shrunk(tmp_path / "whole", data)
    for step in (2, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            shrunk(tmp_path / "torn", data, on_step=stop_after(step))
    model = shrunk(tmp_path / "torn", data)
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")
    assert next(model.parameters()).abs().max() <= 0.4
    (tmp_path / "plain").mkdir()
    run(tmp_path / "plain", data, replace(PLAIN, n_checkpoints=5))
    at_start = [checkpoints_in(tmp_path / name).path(0) / "weights.safetensors" for name in ("plain", "whole")]
    assert at_start[0].read_bytes() == at_start[1].read_bytes()  # every arm begins alike


def test_batches_are_a_function_of_seed_and_step():
    a = batch_indices(3, 5, 1000, 64)
    assert np.array_equal(a, batch_indices(3, 5, 1000, 64))
    assert len({tuple(batch_indices(3, step, 1000, 64)) for step in range(20)}) == 20
    assert not np.array_equal(a, batch_indices(4, 5, 1000, 64))
    many = np.concatenate([batch_indices(0, step, 10, 100) for step in range(200)])
    counts = np.bincount(many, minlength=10)
    assert counts.size == 10
    assert ((counts - 2000) ** 2 / 2000).sum() < 33.7  # chi squared of 9 degrees of freedom, p = 1e-4

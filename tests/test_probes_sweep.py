"""A sweep gives one table, however it was stopped, resumed or spread over workers."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import unchecked
from torch import nn

from probes import sweep_checkpoints
from probes.sweep import COLUMNS, FunctionProbe, Measurement, Probe, ProbeFailed, weights_hash


@dataclass(frozen=True)
class Series:
    """Step s has weights (s, 2s)."""

    steps: tuple[int, ...] = (0, 10, 100)

    def load(self, step: int) -> nn.Module:
        model = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 2.0]]) * step)
        return model.eval()


@dataclass(frozen=True)
class Norm:
    """Of the weights, with a random number of the cell; counts its calls in a file, so that other processes count."""

    counter: Path
    name: str = "norm"
    settings: dict[str, Any] = field(default_factory=dict)
    fails_at: float | None = None

    def __call__(self, model: nn.Module, seed: int) -> Any:
        weight = next(model.parameters())
        with self.counter.open("a") as file:
            file.write(f"{weight[0, 0].item():.0f}\n")
        yield Measurement("norm", weight.norm().item(), 0.1)
        if weight[0, 0].item() == self.fails_at:
            raise ZeroDivisionError("no such luck")
        yield Measurement("draw", np.random.default_rng(seed).random(), layer=1, head=2)
        for x in (0.5, 1.5):
            yield Measurement("curve", np.float64(x) ** 2, math.nan, coordinate=x)
        yield Measurement("endless", math.inf)


@pytest.fixture
def probe(tmp_path) -> Norm:
    return Norm(tmp_path / "calls")


def calls(probe: Norm) -> list[str]:
    return probe.counter.read_text().split() if probe.counter.exists() else []


def sweep(probe, tmp_path, *, store="store", **options) -> Any:
    probes = probe if isinstance(probe, list) else [probe]
    return sweep_checkpoints(options.pop("series", Series()), probes, store=tmp_path / store, **options)


def test_the_table(probe, tmp_path):
    table = sweep(probe, tmp_path, seed=3)
    assert list(table.columns) == list(COLUMNS)
    numbers = table.drop(columns=["probe", "quantity"]).dtypes.astype(str)
    assert numbers.tolist() == ["int64", "int64", "Int64", "Int64", "float64", "float64", "float64"]
    assert table["step"].tolist() == [0] * 5 + [10] * 5 + [100] * 5
    assert set(table["seed"]) == {3}
    assert set(table["probe"]) == {"norm"}
    assert table["quantity"].tolist() == ["norm", "draw", "curve", "curve", "endless"] * 3
    norm = table[table["quantity"] == "norm"]
    np.testing.assert_allclose(norm["value"], [0, 10 * 5**0.5, 100 * 5**0.5], rtol=1e-6)
    assert norm["standard_error"].tolist() == [0.1] * 3
    assert norm["layer"].isna().all()
    draw = table[table["quantity"] == "draw"]
    assert draw["layer"].tolist() == [1] * 3
    assert draw["head"].tolist() == [2] * 3
    assert draw["value"].nunique() == 3  # each cell has random numbers of its own
    assert table[table["quantity"] == "curve"]["coordinate"].tolist() == [0.5, 1.5] * 3
    assert (table[table["quantity"] == "endless"]["value"] == np.inf).all()


def test_a_finished_cell_is_not_measured_again(probe, tmp_path):
    first = sweep(probe, tmp_path, steps=[0, 10])
    assert calls(probe) == ["0", "10"]
    second = sweep(probe, tmp_path)
    assert calls(probe) == ["0", "10", "100"]
    pd.testing.assert_frame_equal(second[second["step"] < 100], first)
    pd.testing.assert_frame_equal(second, sweep(probe, tmp_path, store="another"))


@pytest.mark.parametrize("change", ["settings", "seed", "name", "weights"])
def test_what_decides_the_content_makes_another_cell(probe, tmp_path, change):
    sweep(probe, tmp_path, steps=[10])
    options: dict[str, Any] = {"steps": [10]}
    if change == "settings":
        probe = Norm(probe.counter, settings={"radius": 0.1})
    elif change == "name":
        probe = Norm(probe.counter, name="other")
    elif change == "seed":
        options["seed"] = 1
    else:
        options = {"steps": [11], "series": Series((11,))}
    sweep(probe, tmp_path, **options)
    assert len(calls(probe)) == 2


def test_a_resumed_sweep_gives_the_same_table(probe, tmp_path):
    """Stopped by Ctrl-C after the second cell."""

    def stop(name, step):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(probe, tmp_path, on_cell=stop)
    resumed = sweep(probe, tmp_path)
    assert calls(probe) == ["0", "10", "100"]
    pd.testing.assert_frame_equal(resumed, sweep(probe, tmp_path, store="another"))


@pytest.mark.parametrize(
    "rest", ["", '{"cell": {}, "rows": [{"quan', "[]", '{"rows": [{"quantity": "norm"}]}', "\x00\x00"]
)
def test_a_damaged_cell_is_measured_again(probe, tmp_path, rest, caplog):
    whole = sweep(probe, tmp_path)
    damaged = sorted((tmp_path / "store").glob("*.json"))[1]
    text = damaged.read_text()
    damaged.write_text(rest)
    damaged.with_suffix(".4711.partial").write_text(text[:40])  # what a killed process leaves
    pd.testing.assert_frame_equal(sweep(probe, tmp_path), whole)
    assert len(calls(probe)) == 4
    assert damaged.read_text() == text
    assert f"{damaged} cannot be read" in caplog.text


def test_a_cell_that_cannot_be_written_leaves_nothing_behind(probe, tmp_path, monkeypatch):
    def full(self, text):
        with self.open("w") as file:
            file.write(text[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ProbeFailed, match=r"'norm' failed at step 0: .*No space left"):
        sweep(probe, tmp_path)
    assert list((tmp_path / "store").iterdir()) == []


def test_cells_are_plain_json(probe, tmp_path):
    sweep(probe, tmp_path, steps=[10])
    (cell,) = (tmp_path / "store").iterdir()
    content = json.loads(cell.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    assert content["step"] == 10
    assert content["cell"]["weights"] == weights_hash(Series(), 10)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_executor_gives_the_same_table(probe, tmp_path, kind):
    other = Norm(probe.counter, name="other")
    seen = []
    expected = sweep([probe, other], tmp_path, store="here")
    if kind == "threads":
        executor: Any = ThreadPoolExecutor(3)
    else:
        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with executor:
        got = sweep([probe, other], tmp_path, executor=executor, on_cell=lambda *cell: seen.append(cell))
    pd.testing.assert_frame_equal(got, expected)
    assert seen == [(name, step) for step in (0, 10, 100) for name in ("norm", "other")]
    assert len(calls(probe)) == 12
    sweep([probe, other], tmp_path)
    assert len(calls(probe)) == 12


def test_an_error_cancels_the_cells_not_begun(probe, tmp_path):
    many = Series(tuple(range(200)))
    with ThreadPoolExecutor(1) as executor, pytest.raises(ProbeFailed):
        sweep(Norm(probe.counter, fails_at=0), tmp_path, series=many, executor=executor)
    assert len(calls(probe)) < 100


def test_errors_stop_the_sweep_or_are_recorded(probe, tmp_path, caplog):
    broken = Norm(probe.counter, fails_at=10)
    with pytest.raises(ProbeFailed, match="probe 'norm' failed at step 10: ZeroDivisionError: no such luck") as caught:
        sweep(broken, tmp_path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with caplog.at_level(logging.WARNING):
        table = sweep(broken, tmp_path, on_error="record")
    assert "probe 'norm' failed at step 10: ZeroDivisionError: no such luck" in caplog.text
    assert calls(probe) == ["0", "10", "10", "100"]
    failed = table[table["step"] == 10]
    assert failed["quantity"].tolist() == ["error"]
    assert failed["value"].isna().all()
    mended = sweep(probe, tmp_path)  # a failed cell was not stored
    assert calls(probe)[4:] == ["10"]
    pd.testing.assert_frame_equal(mended, sweep(probe, tmp_path, store="another"))


class Broken(Executor):
    """What a pool becomes when the system kills one of its processes."""

    def submit(self, fn, /, *args, **kwargs) -> Any:
        future = Future()
        future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        return future


def test_a_worker_that_dies_is_not_a_probe_that_failed(probe, tmp_path):
    with pytest.raises(BrokenProcessPool, match="terminated abruptly"):
        sweep(probe, tmp_path, executor=Broken(), on_error="record")


def test_a_probe_may_be_a_function_and_may_find_nothing(tmp_path):
    probe = FunctionProbe("empty", lambda model, seed: [])
    assert isinstance(probe, Probe)
    table = sweep(probe, tmp_path)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 0


def test_the_hash_sees_values_names_shapes_and_types(generator):
    def digest(**tensors):
        class One:
            steps = (0,)

            def load(self, step):
                model = nn.Module()
                for name, tensor in tensors.items():
                    model.register_buffer(name, tensor)
                return model

        return weights_hash(One(), 0)

    a = torch.randn(2, 3, generator=generator)
    others = [
        digest(a=a + 1e-6), digest(b=a), digest(a=a.T.contiguous()), digest(a=a.view(torch.int32)),
        digest(a=a, b=torch.tensor(1)), digest(a=a.reshape(3, 2)), digest(a=a.bfloat16()),
    ]  # fmt: skip
    assert len({digest(a=a), *others}) == 8
    assert digest(a=a) == digest(a=a.T.contiguous().T)


# requests that are refused before any work


def refused(probe, tmp_path, error, said, **options):
    with pytest.raises(error, match=said):
        sweep(probe, tmp_path, **options)
    assert calls(probe if isinstance(probe, Norm) else Norm(tmp_path / "calls")) == []


def test_bad_requests_are_refused_before_any_work(probe, tmp_path):
    refused(probe, tmp_path, ValueError, "no checkpoint of step 7; steps there: 0, 10, 100", steps=[0, 7])
    refused(probe, tmp_path, ValueError, "no step to measure; the series has 0, 10, 100", steps=[])
    refused(probe, tmp_path, ValueError, "no step to measure; the series has none", series=Series(()))
    refused(probe, tmp_path, ValueError, "step 10 is asked for 2 times", steps=[10, 10])
    refused([], tmp_path, ValueError, "probes is empty")
    refused([probe, probe], tmp_path, ValueError, "distinct names, got norm, norm")
    refused(probe, tmp_path, ValueError, "steps 0 and 5 hold the same weights", series=Twins())
    (tmp_path / "file").touch()
    refused(probe, tmp_path, NotADirectoryError, "store must be a folder, but .*file is a file", store="file")


@dataclass(frozen=True)
class Twins(Series):
    steps: tuple[int, ...] = (0, 5, 10)

    def load(self, step: int) -> nn.Module:
        return super().load(0 if step == 5 else step)


def test_an_unknown_way_with_errors_is_refused(probe, tmp_path):
    with pytest.raises(ValueError, match="on_error must be raise or record, got 'ignore'"):
        unchecked(sweep_checkpoints)(Series(), [probe], store=tmp_path, on_error="ignore")


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"radii": np.arange(2)}, "ndarray is not JSON serializable"), ({1: 0, "b": 0}, "not supported between")],
)
def test_settings_that_json_cannot_write_are_refused(tmp_path, settings, said):
    probe = Norm(tmp_path / "calls", settings=settings)
    refused(probe, tmp_path, TypeError, f"settings of probe 'norm' must be what JSON can write .*{said}")


def test_what_a_process_cannot_receive_is_refused(tmp_path):
    probe = FunctionProbe("local", lambda model, seed: [])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        refused(probe, tmp_path, TypeError, "probe 'local' cannot be sent to another process", executor=executor)


@dataclass(frozen=True)
class Slow(Norm):
    """Takes its time before it finds anything, so that a kill meets it at work."""

    def __call__(self, model: nn.Module, seed: int) -> Any:
        time.sleep(0.02)
        yield from super().__call__(model, seed)


FIFTY = tuple(range(50))


def sweep_fifty(folder: Path) -> None:
    """What the process that gets killed runs."""
    sweep_checkpoints(Series(FIFTY), [Slow(folder / "calls"), Slow(folder / "calls", "again")], store=folder / "store")


@pytest.mark.slow
def test_kills_at_random_points_lose_at_most_one_cell_each(tmp_path):
    """Fifty checkpoints, two probes: the table is that of an unbroken run."""
    context, random = multiprocessing.get_context("fork"), np.random.default_rng(0)
    n_kills = 0
    while len(list((tmp_path / "store").glob("*.json"))) < 100:
        process = context.Process(target=sweep_fifty, args=(tmp_path,))
        process.start()
        process.join(random.uniform(0.05, 0.5))
        if process.is_alive():
            process.kill()
            n_kills += 1
        process.join()
    assert n_kills >= 5
    assert len((tmp_path / "calls").read_text().split()) <= 100 + n_kills
    probes = [Slow(tmp_path / "calls"), Slow(tmp_path / "calls", "again")]
    resumed = sweep(probes, tmp_path, series=Series(FIFTY))
    pd.testing.assert_frame_equal(resumed, sweep(probes, tmp_path, series=Series(FIFTY), store="unbroken"))

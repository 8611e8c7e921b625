"""Any probe over any checkpoint series, one file a finished cell, gathered into one tidy table.

A cell is one probe at one checkpoint. Its file is named by the hash of all that decides its content: the weights, the
probe, its settings and the seed. So a sweep that is killed resumes where it stopped, and nothing is measured twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from .protocols import CheckpointSeries

logger = logging.getLogger(__name__)

COLUMNS = {
    "seed": "int64",
    "step": "int64",
    "probe": "str",
    "layer": "Int64",
    "head": "Int64",
    "quantity": "str",
    "coordinate": "float64",
    "value": "float64",
    "standard_error": "float64",
}
"""Columns of the table. ``layer`` and ``head`` are missing for the whole model; ``coordinate`` is the abscissa of a
curve (a distance, an index of an eigenvalue), missing for a number."""


@dataclass(frozen=True)
class Measurement:
    """One number a probe found."""

    quantity: str
    value: float
    standard_error: float = float("nan")
    layer: int | None = None
    head: int | None = None
    coordinate: float = float("nan")


@runtime_checkable
class Probe(Protocol):
    """What a sweep runs: a name, settings that JSON can write, and a call."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides the outcome beside weights and seed, the data included (their hash will do).

        A cell is measured again when its settings change, so a probe whose code changed needs a setting that says so.
        """
        ...

    def __call__(self, model: nn.Module, seed: int) -> Iterable[Measurement]:
        """Measure. ``seed`` differs from cell to cell and is the same when a cell is measured again."""
        ...


@dataclass(frozen=True)
class FunctionProbe:
    """A probe made of a function ``measure(model, seed)``."""

    name: str
    measure: Callable[[nn.Module, int], Iterable[Measurement]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, seed: int) -> Iterable[Measurement]:
        """Measure."""
        return self.measure(model, seed)


class ProbeFailed(RuntimeError):
    """A probe raised at a checkpoint; the cause is chained."""


def sweep_checkpoints(
    series: CheckpointSeries,
    probes: Iterable[Probe],
    *,
    store: Path | str,
    seed: int = 0,
    steps: Sequence[int] | None = None,
    executor: Executor | None = None,
    on_error: Literal["raise", "record"] = "raise",
    on_cell: Callable[[str, int], None] | None = None,
) -> Any:
    """Run probes over checkpoints and return the table of all they found.

    Args:
        series: steps and a way to load each.
        probes: each is run at each step.
        store: folder of the cells; cells that are there are read, not measured.
        seed: names the training run in the table, and enters the random numbers of each cell.
        steps: some of the series' steps; None takes all.
        executor: measures cells in parallel (series and probes must then be picklable); None measures them here.
        on_error: stop at the first probe that fails, or record a row ``error`` (value NaN), log the cause as a
            warning and go on. Failed cells are not stored, so the next sweep tries them again. A checkpoint that
            cannot be loaded, or a worker process that dies, always stops the sweep.
        on_cell: called with probe name and step when a cell is done.

    Returns:
        pandas.DataFrame with the columns ``COLUMNS``.

    Raises:
        ValueError: a step the series has not or that is asked for twice, no step, no probe, two probes of one name,
            or two steps with the same weights (mislabelled checkpoints: every curve over them would be false).
        TypeError: settings that JSON cannot write, or a probe or series that a process pool cannot pickle.
        ProbeFailed: with the probe and step, if ``on_error`` is "raise".
    """
    if on_error not in ("raise", "record"):
        raise ValueError(f"on_error must be raise or record, got {on_error!r}")
    probes, steps = list(probes), list(series.steps if steps is None else steps)
    _check_probes(probes)
    _check_steps(series, steps)
    if isinstance(executor, ProcessPoolExecutor):
        _check_pickles(series, probes)
    store = Path(store)
    if store.exists() and not store.is_dir():
        raise NotADirectoryError(f"store must be a folder, but {store} is a file")
    store.mkdir(parents=True, exist_ok=True)
    hashes = {step: weights_hash(series, step) for step in steps}
    _refuse_repeated_weights(hashes)
    cells = [_Cell(series, probe, step, hashes[step], seed, store) for step in steps for probe in probes]
    pending = [executor.submit(cell.rows) for cell in cells] if executor is not None else []
    rows: list[dict[str, Any]] = []
    try:
        for i, cell in enumerate(cells):
            try:
                found = pending[i].result() if pending else cell.rows()
            except BrokenExecutor:
                raise
            except Exception as error:
                what = f"probe {cell.probe.name!r} failed at step {cell.step}: {type(error).__name__}: {error}"
                if on_error == "raise":
                    raise ProbeFailed(what) from error
                logger.warning(what, exc_info=error)
                found = [asdict(Measurement("error", float("nan")))]
            rows += [{"seed": seed, "step": cell.step, "probe": cell.probe.name, **row} for row in found]
            if on_cell is not None:
                on_cell(cell.probe.name, cell.step)
    finally:
        for future in pending:  # after an error or Ctrl-C the cells not yet begun would still be measured
            future.cancel()
    return measurements_table(rows)


def measurements_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas.DataFrame with the columns ``COLUMNS``, in the order given."""
    import pandas as pd  # here, because importing probes need not wait for it

    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def weights_hash(series: CheckpointSeries, step: int) -> str:
    """Hash of all parameters and buffers of a checkpoint."""
    digest = hashlib.sha256()
    for name, tensor in series.load(step).state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Cell:
    series: CheckpointSeries
    probe: Probe
    step: int
    weights: str
    seed: int
    store: Path

    def rows(self) -> list[dict[str, Any]]:
        """Read the cell, or measure and store it."""
        key = {
            "weights": self.weights,
            "probe": self.probe.name,
            "settings": dict(self.probe.settings),
            "seed": self.seed,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self.store / f"{digest[:32]}.json"
        stored = _read_rows(path)
        if stored is not None:
            return stored
        rows = [_plain(m) for m in self.probe(self.series.load(self.step), int(digest[:12], 16))]
        _write_aside(path, json.dumps({"cell": key, "step": self.step, "rows": rows}, indent=1) + "\n")
        return [_numbers(row) for row in rows]


def _read_rows(path: Path) -> list[dict[str, Any]] | None:
    """Rows of a finished cell; None if there is none, or it cannot be read and must be measured again."""
    if not path.is_file():
        return None
    try:
        return [_numbers(row) for row in json.loads(path.read_text())["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read (%s); the cell is measured again", path, error)
        return None


_NUMBERS = ("value", "standard_error", "coordinate")


def _plain(measurement: Measurement) -> dict[str, Any]:
    """A row that JSON can write. JSON has no NaN and no infinity: they become text."""
    row = asdict(measurement)
    for column in _NUMBERS:
        number = float(row[column])
        row[column] = number if math.isfinite(number) else str(number)
    for column in ("layer", "head"):
        row[column] = None if row[column] is None else int(row[column])
    return row


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Undo ``_plain``."""
    return {**row, **{column: float(row[column]) for column in _NUMBERS}}


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_suffix(f".{os.getpid()}.partial")
    try:
        aside.write_text(text)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_probes(probes: Sequence[Probe]) -> None:
    names = [probe.name for probe in probes]
    if not names:
        raise ValueError("probes is empty; give at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"probes must have distinct names, got {', '.join(names)}")
    for probe in probes:
        try:
            json.dumps(dict(probe.settings), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"settings of probe {probe.name!r} must be what JSON can write ({error}); "
                "turn arrays into lists, or into a hash of their bytes"
            ) from error


def _check_steps(series: CheckpointSeries, steps: Sequence[int]) -> None:
    known = list(series.steps)
    if not steps:
        raise ValueError(f"no step to measure; the series has {', '.join(map(str, known)) or 'none'}")
    for step in steps:
        if step not in known:
            raise ValueError(f"no checkpoint of step {step}; steps there: {', '.join(map(str, known)) or 'none'}")
        if list(steps).count(step) > 1:
            raise ValueError(f"step {step} is asked for {list(steps).count(step)} times; name each step once")


def _check_pickles(series: CheckpointSeries, probes: Sequence[Probe]) -> None:
    for what, thing in [("series", series), *((f"probe {probe.name!r}", probe) for probe in probes)]:
        try:
            pickle.dumps(thing)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"{what} cannot be sent to another process ({error}); define it at the top of a module, or use threads"
            ) from error


def _refuse_repeated_weights(hashes: Mapping[int, str]) -> None:
    first: dict[str, int] = {}
    for step, digest in hashes.items():
        if digest in first:
            raise ValueError(
                f"steps {first[digest]} and {step} hold the same weights; the checkpoints are mislabelled, "
                "or training changed nothing between them"
            )
        first[digest] = step

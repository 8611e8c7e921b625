"""Any probe over any checkpoint series, one file a finished cell, gathered into one tidy table.

A cell is one probe at one checkpoint. Its file is named by the hash of all that decides its content: the weights, the
probe, its settings and the seed. So a sweep that is killed resumes where it stopped, and nothing is measured twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from .protocols import CheckpointSeries

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
        """All that decides the outcome beside weights and seed, the data included (their hash will do)."""
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
        on_error: stop at the first probe that fails, or record a row ``error`` (value NaN) and go on. Failed cells
            are not stored, so the next sweep tries them again.
        on_cell: called with probe name and step when a cell is done.

    Returns:
        pandas.DataFrame with the columns ``COLUMNS``.

    Raises:
        ValueError: a step the series has not, no probe, two probes of one name, or two steps with the same weights
            (mislabelled checkpoints: every curve over them would be false).
        ProbeFailed: with the probe and step, if ``on_error`` is "raise".
    """
    probes, steps = list(probes), list(series.steps if steps is None else steps)
    _check_request(series, probes, steps)
    store = Path(store)
    store.mkdir(parents=True, exist_ok=True)
    hashes = {step: weights_hash(series, step) for step in steps}
    _refuse_repeated_weights(hashes)
    cells = [_Cell(series, probe, step, hashes[step], seed, store) for step in steps for probe in probes]
    pending = {cell: executor.submit(cell.rows) for cell in cells} if executor is not None else {}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        try:
            found = pending[cell].result() if executor is not None else cell.rows()
        except Exception as error:
            if on_error == "raise":
                raise ProbeFailed(f"probe {cell.probe.name!r} failed at step {cell.step}: {error}") from error
            found = [asdict(Measurement("error", float("nan")))]
        rows += [{"seed": seed, "step": cell.step, "probe": cell.probe.name, **row} for row in found]
        if on_cell is not None:
            on_cell(cell.probe.name, cell.step)
    return measurements_table(rows)


def measurements_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas.DataFrame with the columns ``COLUMNS``, in the order given."""
    import pandas as pd  # here, because importing probes need not wait for it

    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def weights_hash(series: CheckpointSeries, step: int) -> str:
    """Hash of all parameters and buffers of a checkpoint."""
    digest = hashlib.sha256()
    for name, tensor in series.load(step).state_dict().items():
        digest.update(name.encode())
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
        if path.is_file():
            return [{**row, **_numbers(row)} for row in json.loads(path.read_text())["rows"]]
        rows = [asdict(m) for m in self.probe(self.series.load(self.step), int(digest[:12], 16))]
        plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
        _write_aside(path, json.dumps({"cell": key, "step": self.step, "rows": plain}, indent=1) + "\n")
        return [{**row, **_numbers(row)} for row in plain]


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for it, and numpy scalars become Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {k: float("nan") if row[k] is None else row[k] for k in ("value", "standard_error", "coordinate")}


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_suffix(f".{os.getpid()}.partial")
    aside.write_text(text)
    aside.replace(path)


def _check_request(series: CheckpointSeries, probes: Sequence[Probe], steps: Sequence[int]) -> None:
    names = [probe.name for probe in probes]
    if not names:
        raise ValueError("probes is empty; give at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"probes must have distinct names, got {', '.join(names)}")
    missing = [step for step in steps if step not in set(series.steps)]
    if missing or not steps:
        known = ", ".join(map(str, series.steps)) or "none"
        raise ValueError(f"no checkpoint of step {missing[0] if missing else '(none asked for)'}; steps there: {known}")


def _refuse_repeated_weights(hashes: Mapping[int, str]) -> None:
    first: dict[str, int] = {}
    for step, digest in hashes.items():
        if digest in first:
            raise ValueError(
                f"steps {first[digest]} and {step} hold the same weights; the checkpoints are mislabelled, "
                "or training changed nothing between them"
            )
        first[digest] = step

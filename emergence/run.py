"""A run folder: what a study wrote, and the way back into it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cattrs
from cattrs.strategies import configure_tagged_union

from .config import SGD, AdamW, StudyConfig
from .files import write_json

if TYPE_CHECKING:
    import pandas as pd

    from .checkpoints import Checkpoints
    from .data import Transitions

ARMS = ("discs", "ghosts")
"""Discs that collide, and the control: discs that pass through each other."""


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    configure_tagged_union(AdamW | SGD, converter, tag_name="kind")
    return converter


def config_to_dict(config: StudyConfig) -> dict[str, Any]:
    """Plain data for JSON; unions carry their kind."""
    return json.loads(json.dumps(_converter().unstructure(config)))


def config_from_dict(data: dict[str, Any], where: str = "config") -> StudyConfig:
    """Build a configuration, refusing unknown keys and wrong values with one line.

    Raises:
        ValueError: names the key, and the nearest known one if it is misspelt.
    """
    try:
        return _converter().structure(data, StudyConfig)
    except cattrs.BaseValidationError as group:
        raise ValueError(f"{where}: {_first_problem(group)}") from None


def _first_problem(error: BaseException, path: str = "") -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = list(error.cl.__dataclass_fields__)  # type: ignore[attr-defined]
        key = sorted(error.extra_fields)[0]
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {path}{key!r}; {hint}"
    if isinstance(error, cattrs.BaseValidationError):
        inner = error.exceptions[0]
        notes = [n for n in getattr(inner, "__notes__", []) if hasattr(n, "name")]
        return _first_problem(inner, f"{path}{notes[0].name}." if notes else path)
    return f"{path.rstrip('.')}: {error}" if path else str(error)


def open_run(folder: Path | str) -> Run:
    """Open a run folder for analysis.

    Raises:
        FileNotFoundError: no such folder, or no config.json in it.
        ValueError: a damaged or foreign config.json.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no run folder (config.json is missing); make one with: emergence run --out {folder}"
        )
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it, or start again in another folder") from error
    return Run(folder, config_from_dict(data, str(path)))


def create_run(folder: Path | str, config: StudyConfig) -> Run:
    """Create a run folder, or return the one there if it has the same configuration.

    Raises:
        ValueError: the folder holds a run with other settings; the first difference is named.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        run = open_run(folder)
        if difference := _first_difference(config_to_dict(run.config), config_to_dict(config)):
            raise ValueError(
                f"{folder} holds a run with other settings ({difference}); choose another --out, or delete it"
            )
        return run
    write_json(folder / "config.json", config_to_dict(config))
    return Run(folder, config)


def _first_difference(there: Any, asked: Any, path: str = "") -> str | None:
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in [*there, *(k for k in asked if k not in there)]:
            if found := _first_difference(there.get(key), asked.get(key), f"{path}.{key}" if path else key):
                return found
        return None
    return None if there == asked else f"{path} is {there} there, {asked} here"


@dataclass(frozen=True)
class Run:
    """A run folder and its configuration; each property reads what a stage has written."""

    folder: Path
    config: StudyConfig

    @property
    def cells(self) -> Iterator[tuple[str, int]]:
        """Training runs as (arm, seed): every seed on discs, the first also on ghosts if that control is on."""
        yield from (("discs", seed) for seed in self.config.seeds)
        if self.config.ghost_control:
            yield "ghosts", self.config.seeds[0]

    def transitions(self, arm: str = "discs") -> tuple[Transitions, Transitions]:
        """Training and evaluation scenes of an arm, on the device of the run."""
        from .simulation import load_transitions

        return load_transitions(self, arm)

    def checkpoints(self, seed: int, arm: str = "discs") -> Checkpoints:
        """Checkpoints of one training run."""
        from .checkpoints import Checkpoints
        from .model import make_model

        n_features, n_outputs = 2 * self.config.data.system.dim + 2, 2 * self.config.data.system.dim
        config = self.config.model
        return Checkpoints(
            self.folder / "checkpoints" / arm / f"seed_{seed}", lambda: make_model(config, n_features, n_outputs)
        )

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """All that was measured, tidy."""
        import pandas as pd

        return pd.read_parquet(self.folder / "measurements.parquet")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The findings."""
        return json.loads((self.folder / "summary.json").read_text())

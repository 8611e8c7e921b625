"""A run folder: what a study wrote, and the way back into it."""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import cattrs
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from .config import SGD, AdamW, AnyIntervention, AnySystem, StudyConfig
from .files import exclusive, write_json

if TYPE_CHECKING:
    import pandas as pd

    from .checkpoints import Checkpoints
    from .data import Transitions

ARMS = ("discs", "ghosts")
"""Discs that collide, and the control: discs that pass through each other."""


def _converter() -> cattrs.Converter:
    """Strict both ways: no key is ignored, no value is bent into the wanted type."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_factory(
        is_dataclass, lambda cls: _from_table(make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True))
    )
    converter.register_structure_hook_func(partial(operator.eq, str | tuple[str, ...]), _boundary)
    for union in (AdamW | SGD, AnySystem, AnyIntervention):
        converter.register_structure_hook_func(partial(operator.eq, union), _tagged(union, converter))
    return converter


def _tagged(union: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Let ``kind`` tell which member of a union a table is; without one it is the first."""
    configure_tagged_union(union, converter, tag_name="kind")
    structure = converter.get_structure_hook(union)
    kinds = [member.__name__ for member in get_args(union)]

    def structured(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected a table of settings, got {value!r}")
        given = {"kind": kinds[0]} | value
        if given["kind"] not in kinds:
            choices = " or ".join(repr(name) for name in kinds)
            raise ValueError(f"kind must be {choices}, got {given['kind']!r}")
        return structure(given, kind)

    return structured


def _exactly(value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


def _boundary(value: Any, kind: Any) -> Any:
    """One name for all axes, or a list with one for each; the system knows which names there are."""
    return tuple(value) if isinstance(value, list) else value


def _from_table(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def checked(value: Any, kind: type) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected a table of settings, got {value!r}")
        return structure(value, kind)

    return checked


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain data for JSON, of the settings of any study; unions carry their kind."""
    return json.loads(json.dumps(_converter().unstructure(config)))


def config_from_dict(data: object, where: str = "config") -> StudyConfig:
    """Build a configuration, refusing unknown keys and wrong values with one line.

    Raises:
        ValueError: names the key, and the nearest known one if it is misspelt.
    """
    try:
        return _converter().structure(data, StudyConfig)
    except (cattrs.BaseValidationError, TypeError) as problem:
        raise ValueError(f"{where}: {_first_problem(problem)}") from None


def _first_problem(error: BaseException, path: str = "") -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = list(error.cl.__dataclass_fields__)  # type: ignore[attr-defined]
        key = sorted(error.extra_fields)[0]
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {path}{near[0]}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {path}{key}; {hint}"
    if isinstance(error, cattrs.BaseValidationError):
        inner = error.exceptions[0]
        notes = [n for n in getattr(inner, "__notes__", []) if hasattr(n, "name")]
        return _first_problem(inner, f"{path}{notes[0].name}." if notes else path)
    path = path.removesuffix(".")
    return str(error) if not path or str(error).startswith(path) else f"{path}: {error}"


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
        if difference := first_difference(config_to_dict(run.config), config_to_dict(config)):
            raise ValueError(
                f"{folder} holds a run with other settings ({difference}); choose another --out, or delete it"
            )
        return run
    write_json(folder / "config.json", config_to_dict(config))
    return Run(folder, config)


def first_difference(there: Any, asked: Any, path: str = "") -> str | None:
    """Name the first setting that differs, with both values; None where all agree."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in [*there, *(k for k in asked if k not in there)]:
            if found := first_difference(there.get(key), asked.get(key), f"{path}.{key}" if path else key):
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

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other processes from writing into the folder; see ``files.exclusive``."""
        return exclusive(self.folder)

    def transitions(self, arm: str = "discs") -> tuple[Transitions, Transitions]:
        """Training and evaluation scenes of an arm, on the device of the run."""
        from .simulation import load_transitions

        return load_transitions(self, arm)

    def checkpoints(self, seed: int, arm: str = "discs") -> Checkpoints:
        """Checkpoints of one training run."""
        from .checkpoints import Checkpoints
        from .interventions.begin import initial_model, measured_model

        settings, model, system = self.config.intervention, self.config.model, self.config.data.system
        return Checkpoints(
            self.folder / "checkpoints" / arm / f"seed_{seed}",
            lambda: initial_model(settings, model, system, seed=seed),
            partial(measured_model, settings),
        )

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """All that was measured, tidy."""
        import pandas as pd

        return pd.read_parquet(self._written_by("probe", "measurements.parquet"))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The findings."""
        return json.loads(self._written_by("report", "summary.json").read_text())

    def _written_by(self, stage: str, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there yet; make it with: emergence {stage} {self.folder}")
        return path

"""``emergence spatial``, ``structured``, ``manifold``, ``next-layer``: a method's study on a task of one's choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..parsing import UsageError, parse, unknown


@dataclass(frozen=True)
class StudyArguments:
    """What every study takes beside its settings.

    Attributes:
        out: folder; the same command again resumes it. Default: runs/COMMAND-TASK.
        n_workers: runs trained side by side; 0 takes as many as there are cores.
    """

    out: Path | None = None
    n_workers: int = 0


def spatial(task: str, arguments: list[str]) -> str:
    """Neurons placed in space."""
    from .spatial.config import SpatialStudyConfig
    from .spatial.examples import EXAMPLES
    from .spatial.page import verdict
    from .spatial.study import run_spatial_study

    if task == "continual":
        return _continual(arguments)
    _require_task("example", task, [*EXAMPLES, "continual"])
    settings: Any = {"example": task}
    return _study(SpatialStudyConfig(**settings), f"spatial {task}", arguments, run_spatial_study, verdict)


def _continual(arguments: list[str]) -> str:
    from .spatial.continual.config import ContinualStudyConfig
    from .spatial.continual.page import verdict
    from .spatial.continual.study import run_continual_study

    return _study(ContinualStudyConfig(), "spatial continual", arguments, run_continual_study, verdict)


def structured(task: str, arguments: list[str]) -> str:
    """Structured layers over depth."""
    from .structured.config import StructuredStudyConfig
    from .structured.page import verdict
    from .structured.study import run_structured_study
    from .supervised import TASKS

    _require_task("task", task, TASKS)
    settings: Any = {"task": task}
    return _study(StructuredStudyConfig(**settings), f"structured {task}", arguments, run_structured_study, verdict)


def manifold(task: str, arguments: list[str]) -> str:
    """Weights that follow a context."""
    from .weight_manifold.config import DIGITS, PARTICLES, ManifoldStudyConfig, SteeredStudyConfig
    from .weight_manifold.page import verdict
    from .weight_manifold.study import run_manifold_study

    _require_task("task", task, [*DIGITS, *PARTICLES])
    settings: Any = {"task": task}
    config = ManifoldStudyConfig(**settings) if task in DIGITS else SteeredStudyConfig(**settings)
    return _study(config, f"manifold {task}", arguments, run_manifold_study, verdict)


def next_layer(task: str, arguments: list[str]) -> str:
    """Learning by next-layer attention, and forgetting."""
    from .next_layer_attention.config import NextLayerStudyConfig
    from .next_layer_attention.forgetting.config import SEQUENCES
    from .next_layer_attention.page import verdict
    from .next_layer_attention.study import run_next_layer_study
    from .supervised import TASKS

    _require_task("task", task, [*TASKS, *SEQUENCES])
    if task in SEQUENCES:
        return _forgetting(task, arguments)
    settings: Any = {"task": task}
    return _study(NextLayerStudyConfig(**settings), f"next-layer {task}", arguments, run_next_layer_study, verdict)


def _forgetting(task: str, arguments: list[str]) -> str:
    from .next_layer_attention.forgetting.config import ForgettingStudyConfig
    from .next_layer_attention.forgetting.page import verdict
    from .next_layer_attention.forgetting.study import run_forgetting_study

    settings: Any = {"task": task}
    return _study(ForgettingStudyConfig(**settings), f"next-layer {task}", arguments, run_forgetting_study, verdict)


COMMANDS: dict[str, Callable[[str, list[str]], str]] = {
    "spatial": spatial,
    "structured": structured,
    "manifold": manifold,
    "next-layer": next_layer,
}
"""From a task and what follows it to what was found, and where the page is."""


def _require_task(what: str, task: str, known: Sequence[str]) -> None:
    if task not in known:
        raise UsageError(unknown(what, task, [*known]))


def _study(
    settings: Any, command: str, arguments: list[str], run: Callable[..., Any], verdict: Callable[..., str]
) -> str:
    from ..progress import for_terminal

    default = _arguments_of(settings)
    parsed = parse(type(default), arguments, f"emergence {command}", default=default)
    out = parsed.out or Path("runs") / _folder_name(command, parsed.study)
    found = run(parsed.study, out, progress=for_terminal(), n_workers=parsed.n_workers)
    return f"{verdict(found)}\n{out / 'report.html'}"


def _arguments_of(settings: Any) -> Any:
    """The arguments with the settings of a study as flags beside them."""
    kind = type(settings)
    field = ("study", Annotated[kind, tyro.conf.arg(name="")], dataclasses.field(default_factory=kind))
    arguments = dataclasses.make_dataclass("StudyArguments", [field], bases=(StudyArguments,), frozen=True)
    arguments.__doc__ = (StudyArguments.__doc__ or "").replace(
        "What every study takes beside its settings.", f"{(kind.__doc__ or '').splitlines()[0]}"
    )
    return arguments(study=settings)


def _folder_name(command: str, study: Any) -> str:
    name = command.replace(" ", "-")
    return f"{name}-{study.example}" if command == "spatial continual" else name

"""``emergence run`` and its parts. Every flag is a field of the configuration; errors are one line and a code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from . import __version__, presets
from .config import StudyConfig


@dataclass(frozen=True)
class RunArguments:
    """Simulate collisions, train a transformer on them, probe every checkpoint, write report.html.

    Attributes:
        study: all settings of the study.
        out: run folder; the same command again resumes it. Default: runs/PRESET.
        seed: train this one seed (short for --seeds N).
        config: TOML file with settings that differ from the preset; flags win over it.
    """

    study: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)
    out: Path | None = None
    seed: int | None = None
    config: Path | None = None


@dataclass(frozen=True)
class StageArguments:
    """Run one stage of an existing run folder; it skips what is done.

    Attributes:
        out: run folder, made by ``emergence run`` or ``emergence simulate``.
    """

    out: Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class CompareArguments:
    """Compare finished runs: what emerged, when, at what cost.

    Attributes:
        runs: run folders of ``emergence run``; the first is what the others are compared with.
        out: folder of the page.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = Path("runs/comparison")


HELP = """usage: emergence COMMAND [options]

  run        the whole study: simulate, train, probe, report
  simulate   only make the collisions of a study; takes the options of run
  simulate SYSTEM   a data set of any system, and animations of it
  train      train on the collisions of a run folder
  probe      measure every checkpoint of a run folder
  probe --model MODULE:FACTORY ...   measure checkpoints of your own model
  report     findings, figures and report.html of a run folder
  compare RUN RUN ...   finished runs side by side: what emerged, when, at what cost
  spatial EXAMPLE   neurons placed in space, wire that costs: independence, feature-sharing, composition, two-moons,
                    modular-addition, cognitive
  spatial continual   the same, then new tasks: what they cost the old ones
  structured TASK   structured layers against three controls, over depth: regression, digits, breast-cancer, diabetes
  manifold TASK     weights that follow a context against other ways to tell it: rotated-digits, noisy-digits,
                    gravity-strength, gravity-direction, direction-and-restitution

emergence run --preset quick     a minute or so, to see it work
emergence run                    the standard study, about five minutes on two cores
emergence run --preset paper     five seeds, for a GPU or patience
emergence run data.system:soft-spheres    the same on another system
emergence spatial independence    a minute a run: a network falls apart into its two modules
emergence simulate hard-spheres --n-systems 1000 --animate film.gif film.html

emergence COMMAND --help lists every option. A stopped command goes on where it was when it is given again.
"""


COMMANDS = ["run", "simulate", "train", "probe", "report", "compare", "spatial", "structured", "manifold"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    # Before torch loads: OpenMP threads that spin long while they wait make a step twenty times slower on a busy
    # machine. Spinning this briefly costs a fifth on an idle one (measured on two cores).
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"emergence-lab {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        return _command(command, rest)
    except UsageError as error:
        return _fail(str(error), code=2)
    except KeyboardInterrupt:
        return _fail("stopped; give the same command again to go on from here", code=130)
    except OSError as error:
        return _fail(_explain(error))
    except (ValueError, TypeError, RuntimeError, FloatingPointError) as error:
        return _fail(str(error))


def _command(command: str, rest: list[str]) -> int:
    if command == "simulate" and rest and not rest[0].startswith("-") and ":" not in rest[0]:
        return _simulate(rest[0], rest[1:])
    if command in ("run", "simulate"):
        return _run(rest, only=None if command == "run" else "simulate")
    if command in ("train", "probe", "report"):
        return _stage(command, rest)
    if command == "spatial":
        return _spatial(rest)
    if command == "structured":
        return _structured(rest)
    if command == "manifold":
        return _manifold(rest)
    if command == "compare":
        return _compare(rest)
    raise UsageError(_unknown("command", command, COMMANDS))


class UsageError(Exception):
    """The command line cannot be understood."""


def _run(arguments: list[str], only: str | None) -> int:
    parsed = parse_run(arguments)
    from .progress import for_terminal
    from .run import create_run
    from .study import run_stage, run_study

    out = parsed.out or Path("runs") / parsed.study.preset
    if only is not None:
        run_stage(create_run(out, parsed.study), only, progress=for_terminal())
        return 0
    run = run_study(parsed.study, out, progress=for_terminal())
    from .report.console import print_findings

    print_findings(run)
    return 0


def _simulate(name: str, arguments: list[str]) -> int:
    from .animation import check_path
    from .dataset import SYSTEM_NAMES, arguments_of, make_dataset
    from .progress import for_terminal

    if name not in SYSTEM_NAMES:
        raise UsageError(_unknown("system", name, list(SYSTEM_NAMES)))
    parsed = _parse(arguments_of(SYSTEM_NAMES[name]), arguments, f"emergence simulate {name}")
    for path in parsed.animate:
        check_path(path)
    print(make_dataset(parsed, parsed.out or Path("runs") / name, progress=for_terminal()))
    return 0


def _compare(arguments: list[str]) -> int:
    from .studies.compare.page import compare_runs, verdict

    parsed = _parse(CompareArguments, arguments, "emergence compare")
    print(f"{verdict(compare_runs(parsed.runs, parsed.out))}\n{parsed.out / 'report.html'}")
    return 0


def _spatial(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(HELP, end="")
        return 0 if arguments[:1] in (["--help"], ["-h"]) else 2
    from .studies.spatial.config import SpatialArguments, SpatialStudyConfig
    from .studies.spatial.examples import EXAMPLES
    from .studies.spatial.page import verdict
    from .studies.spatial.study import run_spatial_study

    name, *rest = arguments
    if name == "continual":
        return _continual(rest)
    if name not in EXAMPLES:
        raise UsageError(_unknown("example", name, [*EXAMPLES, "continual"]))
    default = SpatialArguments(SpatialStudyConfig(example=cast(Any, name)))
    parsed = _parse(SpatialArguments, rest, f"emergence spatial {name}", default=default)
    return _study(run_spatial_study, parsed, Path("runs") / f"spatial-{name}", verdict)


def _continual(arguments: list[str]) -> int:
    from .studies.spatial.continual.config import ContinualArguments
    from .studies.spatial.continual.page import verdict
    from .studies.spatial.continual.study import run_continual_study

    parsed = _parse(ContinualArguments, arguments, "emergence spatial continual")
    return _study(run_continual_study, parsed, Path("runs") / f"spatial-continual-{parsed.study.example}", verdict)


def _structured(arguments: list[str]) -> int:
    from .studies.structured.config import TASKS, StructuredArguments, StructuredStudyConfig
    from .studies.structured.page import verdict
    from .studies.structured.study import run_structured_study

    def default(task: Any) -> StructuredArguments:
        return StructuredArguments(StructuredStudyConfig(task=task))

    return _study_of_task("structured", arguments, TASKS, default, run_structured_study, verdict)


def _manifold(arguments: list[str]) -> int:
    from .studies.weight_manifold.config import DIGITS, PARTICLES, ManifoldArguments, SteeredArguments, default_config
    from .studies.weight_manifold.page import verdict
    from .studies.weight_manifold.study import run_manifold_study

    def default(task: Any) -> ManifoldArguments:
        return (ManifoldArguments if task in DIGITS else SteeredArguments)(default_config(task))

    return _study_of_task("manifold", arguments, [*DIGITS, *PARTICLES], default, run_manifold_study, verdict)


def _study_of_task(
    command: str,
    arguments: list[str],
    tasks: Sequence[str],
    default: Callable[[str], Any],
    run: Callable[..., Any],
    verdict: Callable[..., str],
) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(HELP, end="")
        return 0 if arguments[:1] in (["--help"], ["-h"]) else 2
    task, *rest = arguments
    if task not in tasks:
        raise UsageError(_unknown("task", task, [*tasks]))
    settings = default(task)
    parsed = _parse(type(settings), rest, f"emergence {command} {task}", default=settings)
    return _study(run, parsed, Path("runs") / f"{command}-{task}", verdict)


def _study(run: Callable[..., Any], parsed: Any, default_out: Path, verdict: Callable[..., str]) -> int:
    from .progress import for_terminal

    out = parsed.out or default_out
    print(
        f"{verdict(run(parsed.study, out, progress=for_terminal(), n_workers=parsed.n_workers))}\n{out / 'report.html'}"
    )
    return 0


def _probe_foreign(arguments: list[str]) -> int:
    from .probing import ProbeArguments, probe_checkpoints
    from .progress import for_terminal
    from .report.console import print_last_step

    parsed = _parse(ProbeArguments, arguments, "emergence probe")
    table = probe_checkpoints(parsed, progress=for_terminal())
    print_last_step(table, parsed.out)
    return 0


def _stage(stage: str, arguments: list[str]) -> int:
    if stage == "probe" and _value_of("--model", arguments):
        return _probe_foreign(arguments)
    parsed = _parse(StageArguments, arguments, f"emergence {stage}")
    from .progress import for_terminal
    from .run import open_run
    from .study import run_stage

    run_stage(open_run(parsed.out), stage, progress=for_terminal())
    return 0


def parse_run(arguments: list[str]) -> RunArguments:
    """Preset first, then the file, then the flags.

    Raises:
        UsageError: an unknown preset or flag, or a value of the wrong kind.
        ValueError: a bad configuration file.
    """
    file = _value_of("--config", arguments)
    changes = _read_toml(Path(file)) if file else {}
    name = _value_of("--preset", arguments) or changes.pop("preset", "standard")
    try:
        study = presets.preset(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if file:
        study = _changed(study, changes, file)
    parsed = _parse(RunArguments, arguments, "emergence run", default=RunArguments(study=study))
    return parsed if parsed.seed is None else replace(parsed, study=replace(parsed.study, seeds=(parsed.seed,)))


def _parse(kind: Any, arguments: list[str], prog: str, default: Any = None) -> Any:
    extra = {} if default is None else {"default": default}
    anywhere = (tyro.conf.CascadeSubcommandArgs,)  # else options after or of training.optimizer:sgd are unknown
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                kind, args=arguments, prog=prog, return_unknown_args=True, config=anywhere, **extra
            )
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            raise
        raise UsageError(_first_paragraph(complaint.getvalue())) from None
    if unknown:
        given = unknown[0].split("=", 1)[0]
        raise UsageError(_unknown("option", given, _flags(kind), f"; {prog} --help lists them"))
    return parsed


def _first_paragraph(box: str) -> str:
    """What tyro's error box says before its first rule, on one line.

    A terminal that knows no Unicode gets no box, and the title on a line of its own above a first rule.
    """
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│╰╯─ ")
        if line.startswith("╭") or text == "Got errors:":
            continue
        if not text.strip("-"):
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    said = [" ".join(lines) for lines in paragraphs if lines]
    if "╭" not in box:
        said = said[1:]
    first = said[0] if said else " ".join(box.split())
    return re.sub(r"^Error parsing (study[\w.]*|system|RunArguments|DatasetArguments): ", "", first)


def _flags(kind: Any, prefix: str = "--") -> list[str]:
    found = []
    for f in fields(kind):
        nested = f.default_factory if is_dataclass(f.default_factory) else None
        name = f.name.replace("_", "-")
        if nested is None:
            found.append(prefix + name)
        else:
            top = prefix == "--" and f.name in ("study", "system")  # their fields are flags without a prefix
            found += _flags(nested, prefix if top else f"{prefix}{name}.")
    return found


def _unknown(what: str, given: str, known: list[str], more: str = "") -> str:
    leaf = given.lstrip("-").replace("_", "-")
    near = [name for name in known if name.endswith(f".{leaf}")] or difflib.get_close_matches(given, known, 1, 0.5)
    return f"unknown {what} {given}" + (
        f"; did you mean {near[0]}?" if near else more or f"; choose {', '.join(known)}"
    )


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument.split("=", 1)[1]
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such configuration file", str(path))
    try:
        return tomllib.loads(path.read_text())
    except ValueError as error:  # not TOML, or not text
        raise ValueError(f"{path} is not TOML: {error}") from None


def _changed(study: StudyConfig, changes: dict[str, Any], where: str) -> StudyConfig:
    from .run import config_from_dict, config_to_dict

    return config_from_dict(_merged(config_to_dict(study), changes), where)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Override key by key; a table of another ``kind`` replaces the one there, whose keys it does not have."""
    merged = dict(base)
    for key, value in changes.items():
        there = base.get(key)
        merged[key] = value
        if isinstance(value, dict) and isinstance(there, dict):
            kind = there.get("kind")
            merged[key] = _merged(there, value) if value.get("kind", kind) == kind else value
    return merged


def _explain(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and give the same command again, what is done is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"cannot write{where}: {error.strerror}; choose another --out"
    return f"{error.strerror or error}{where}"


def _fail(message: str, code: int = 1) -> int:
    print(f"emergence: {' '.join(message.split())}", file=sys.stderr)
    return code

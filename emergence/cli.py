"""``emergence run`` and its parts. Every flag is a field of the configuration; errors are one line and a code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import tyro

from . import __version__, presets
from .config import StudyConfig
from .interventions.settings import Plain
from .parsing import UsageError, changed, parse, read_toml, unknown, value_of
from .studies.commands import COMMANDS as STUDIES


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
        runs: run folders of ``emergence run``, or names of methods, which are run first with the options of
            ``emergence run``; the first is what the others are compared with.
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
  compare RUN RUN ...   finished runs side by side: what emerged, when, at what cost; a RUN is a run folder, or a
                    method to run first, with options of run: plain, spatial, structured, weight-manifold,
                    next-layer-attention
  spatial EXAMPLE   neurons placed in space, wire that costs: independence, feature-sharing, composition, two-moons,
                    modular-addition, cognitive
  spatial continual   the same, then new tasks: what they cost the old ones
  structured TASK   structured layers against three controls, over depth: regression, digits, breast-cancer, diabetes
  manifold TASK     weights that follow a context against other ways to tell it: rotated-digits, noisy-digits,
                    gravity-strength, gravity-direction, direction-and-restitution
  next-layer TASK   neurons that seek the next layer's attention against backpropagation, over depth: regression,
                    digits, breast-cancer, diabetes; tasks in sequence: split-digits, permuted-digits

emergence run --preset quick     a minute or so, to see it work
emergence run                    the standard study, about five minutes on two cores
emergence run --preset paper     five seeds, for a GPU or patience
emergence run data.system:soft-spheres    the same on another system
emergence spatial independence    a minute a run: a network falls apart into its two modules
emergence simulate hard-spheres --n-systems 1000 --animate film.gif film.html

emergence COMMAND --help lists every option. A stopped command goes on where it was when it is given again.
"""


COMMANDS = ["run", "simulate", "train", "probe", "report", "compare", *STUDIES]


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
    if command in STUDIES:
        return _study(command, rest)
    if command == "compare":
        return _compare(rest)
    raise UsageError(unknown("command", command, COMMANDS))


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
        raise UsageError(unknown("system", name, list(SYSTEM_NAMES)))
    parsed = parse(arguments_of(SYSTEM_NAMES[name]), arguments, f"emergence simulate {name}")
    for path in parsed.animate:
        check_path(path)
    print(make_dataset(parsed, parsed.out or Path("runs") / name, progress=for_terminal()))
    return 0


def _compare(arguments: list[str]) -> int:
    from .studies.compare.methods import METHODS

    named = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    if METHODS.keys() & set(named):
        runs, out = _run_methods(named, arguments[len(named) :])
    else:
        parsed = parse(CompareArguments, arguments, "emergence compare")
        runs, out = parsed.runs, parsed.out
    from .studies.compare.page import compare_runs, verdict

    print(f"{verdict(compare_runs(runs, out))}\n{out / 'report.html'}")
    return 0


def _run_methods(named: list[str], options: list[str]) -> tuple[list[Path], Path]:
    from .progress import for_terminal
    from .studies.compare.methods import METHODS, run_methods

    for name in named:
        if name not in METHODS and not Path(name).is_dir():
            raise UsageError(unknown("method or run folder", name, [*METHODS]))
    parsed = parse_run(options, "emergence compare")
    if parsed.study.intervention != Plain():
        raise UsageError("emergence compare takes methods by name; for other settings, give folders of emergence run")
    out = parsed.out or CompareArguments.out
    return run_methods(named, parsed.study, out, progress=for_terminal()), out


def _study(command: str, arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(HELP, end="")
        return 0 if arguments[:1] in (["--help"], ["-h"]) else 2
    task, *rest = arguments
    print(STUDIES[command](task, rest))
    return 0


def _probe_foreign(arguments: list[str]) -> int:
    from .probing import ProbeArguments, probe_checkpoints
    from .progress import for_terminal
    from .report.console import print_last_step

    parsed = parse(ProbeArguments, arguments, "emergence probe")
    table = probe_checkpoints(parsed, progress=for_terminal())
    print_last_step(table, parsed.out)
    return 0


def _stage(stage: str, arguments: list[str]) -> int:
    if stage == "probe" and value_of("--model", arguments):
        return _probe_foreign(arguments)
    parsed = parse(StageArguments, arguments, f"emergence {stage}")
    from .progress import for_terminal
    from .run import open_run
    from .study import run_stage

    run_stage(open_run(parsed.out), stage, progress=for_terminal())
    return 0


def parse_run(arguments: list[str], prog: str = "emergence run") -> RunArguments:
    """Preset first, then the file, then the flags.

    Raises:
        UsageError: an unknown preset or flag, or a value of the wrong kind.
        ValueError: a bad configuration file.
    """
    file = value_of("--config", arguments)
    changes = read_toml(Path(file)) if file else {}
    name = value_of("--preset", arguments) or changes.pop("preset", "standard")
    try:
        study = presets.preset(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if file:
        study = changed(study, changes, file)
    parsed = parse(RunArguments, arguments, prog, default=RunArguments(study=study))
    return parsed if parsed.seed is None else replace(parsed, study=replace(parsed.study, seeds=(parsed.seed,)))


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

"""What is typed becomes settings, or one line that says what is wrong with it."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import tyro

from .config import StudyConfig


class UsageError(Exception):
    """The command line cannot be understood."""


def parse(kind: Any, arguments: list[str], prog: str, default: Any = None) -> Any:
    """Settings of a kind, with flags over the default.

    Raises:
        UsageError: an unknown flag, or a value of the wrong kind.
    """
    extra = {} if default is None else {"default": default}
    anywhere = (tyro.conf.CascadeSubcommandArgs,)  # else options after or of training.optimizer:sgd are unknown
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, left_over = tyro.cli(
                kind, args=arguments, prog=prog, return_unknown_args=True, config=anywhere, **extra
            )
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            raise
        raise UsageError(_first_paragraph(complaint.getvalue())) from None
    if left_over:
        given = left_over[0].split("=", 1)[0]
        raise UsageError(unknown("option", given, _flags(kind), f"; {prog} --help lists them"))
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


def unknown(what: str, given: str, known: list[str], more: str = "") -> str:
    """Say that a name is not known, and the nearest that is."""
    leaf = given.lstrip("-").replace("_", "-")
    near = [name for name in known if name.endswith(f".{leaf}")] or difflib.get_close_matches(given, known, 1, 0.5)
    return f"unknown {what} {given}" + (
        f"; did you mean {near[0]}?" if near else more or f"; choose {', '.join(known)}"
    )


def value_of(flag: str, arguments: list[str]) -> str | None:
    """What is given to a flag, read before all others are."""
    for position, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument.split("=", 1)[1]
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such configuration file", str(path))
    try:
        return tomllib.loads(path.read_text())
    except ValueError as error:  # not TOML, or not text
        raise ValueError(f"{path} is not TOML: {error}") from None


def changed(study: StudyConfig, changes: dict[str, Any], where: str) -> StudyConfig:
    """Settings of a study with some of a file in their place. Raises what ``config_from_dict`` raises."""
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

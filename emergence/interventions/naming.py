"""Settings that may be given by name: a structure, a layout, a manifold."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def by_name(argument: str, value: Any, named: Mapping[str, Settings], kind: type) -> Settings:
    """Accept settings of a kind, or the name of ones with their defaults.

    Args:
        argument: what the caller calls it.
        value: a name, or an instance of ``kind``.
        named: names to settings.
        kind: a protocol that can be checked at run time.

    Raises:
        ValueError: unknown name.
        TypeError: neither a name nor such settings.
    """
    if isinstance(value, str):
        if value not in named:
            near = get_close_matches(value, named, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{argument} must be one of {', '.join(named)} or settings, got {value!r}{hint}")
        return named[value]
    if isinstance(value, type) or not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        example = type(next(iter(named.values()))).__name__
        raise TypeError(f"{argument} must be a name or settings such as {example}(), got {got}")
    return value

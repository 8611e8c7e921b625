"""The folder of a method's study: its settings, and nobody else at work in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_json
from ..run import config_to_dict, first_difference


def claim_folder(folder: Path, config: Any) -> None:
    """Write config.json, or check that the one there says the same.

    Raises:
        ValueError: the folder holds a study with other settings; the first difference is named.
        OSError: the folder cannot be written.
    """
    path, settings = folder / "config.json", config_to_dict(config)
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        there = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no table of settings ({error}); delete it, or choose another --out") from None
    if difference := first_difference(there, settings):
        raise ValueError(
            f"{folder} holds a study with other settings ({difference}); choose another --out, or delete it"
        )

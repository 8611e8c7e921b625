"""The page of a method's study: one file, no network, the story in order."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ..files import write_text
from ..report.page import inline_svg
from ..report.style import save
from ..run import config_to_dict

PACKAGES = ("emergence-lab", "torch", "numpy")


@dataclass(frozen=True)
class Section:
    """A part of the story: text, and a figure or a table (its first row the head), or both."""

    heading: str
    text: str
    figure: Markup | None = None
    caption: str = ""
    table: Sequence[Sequence[str]] | None = None


def saved_figure(figure: Figure, folder: Path, name: str) -> Markup:
    """Write a figure as SVG and PNG, and return it for the page."""
    save(figure, folder / "figures", name)
    return inline_svg((folder / "figures" / f"{name}.svg").read_text())


def mean_cell(quantity: dict[str, Any] | None) -> str:
    """A mean with its interval below it, as a cell of a table."""
    if quantity is None or quantity["mean"] is None:
        return "–"
    low, high = quantity["interval"]
    spread = "" if low is None else f"\n[{low:.3g}, {high:.3g}]"
    return f"{quantity['mean']:.3g}{spread}"


def write_method_page(
    folder: Path, config: Any, *, title: str, subtitle: str, verdict: str, sections: Sequence[Section]
) -> None:
    """Write report.html."""
    environment = Environment(
        loader=PackageLoader("emergence.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("method.html.j2").render(
        title=title,
        subtitle=subtitle,
        verdict=verdict,
        sections=sections,
        config=json.dumps(config_to_dict(config), indent=1),
        versions=[(name, version(name)) for name in PACKAGES],
        python=platform.python_version(),
    )
    write_text(folder / "report.html", page)

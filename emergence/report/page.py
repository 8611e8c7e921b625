"""report.html: one file, no network, the story in order."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..files import write_text
from ..findings import CRITERIA
from ..run import Run, config_to_dict
from .console import head_cells, number
from .figures import draw_figures
from .words import controls, law_sentence, potential_sentence, scene_sentence, verdict


def write_report(run: Run, summary: dict[str, Any]) -> None:
    """Draw the figures and write the page."""
    folder = run.folder / "figures"
    figures = {name: inline_svg((folder / f"{name}.svg").read_text()) for name in draw_figures(run, summary, folder)}
    environment = Environment(
        loader=PackageLoader("emergence.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["number"] = number
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        figures=figures,
        verdict=verdict(summary),
        controls=controls(summary),
        head_rows=[(head_cells(head), head["is_contact_head"]) for head in summary["heads"]],
        laws=[law_sentence(law) for law in summary["laws"]],
        potentials=[potential_sentence(potential) for potential in summary["potentials"]],
        criteria=CRITERIA,
        config=json.dumps(config_to_dict(run.config), indent=1),
        system=run.config.data.system,
        scene=scene_sentence(run.config.data.system),
        study=run.config,
        versions=[(name, version(name)) for name in ("emergence-lab", "torch", "transformer-lens", "numpy", "numba")],
        python=platform.python_version(),
    )
    write_text(run.folder / "report.html", page)


def inline_svg(svg: str) -> Markup:
    """The picture without its XML prologue, scaled by the page."""
    return Markup(svg[svg.index("<svg") :])

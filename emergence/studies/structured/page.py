"""The page of a structured study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from probes.plots.axes import theme

from ..page import Section, mean_cell, saved_figure, write_method_page
from .config import StructuredStudyConfig
from .figures import ARM_LABELS, over_depth_figure
from .findings import QUANTITIES, SHOWN_SCALE, wins


def write_page(folder: Path, config: StructuredStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figures and tell what was found."""
    sections = []
    with theme():
        for width in config.widths:
            figure = saved_figure(over_depth_figure(summary, width), folder, f"over_depth_{width}")
            caption = (
                f"Means over {len(config.seeds)} seeds at the end of training with Student's 95 % intervals; noise of "
                f"{SHOWN_SCALE:g} times the root mean square of what it is added to."
            )
            sections.append(Section(f"Over depth, width {width}", "", figure, caption))
    sections += [
        Section(
            "Every number",
            "Each arm at the learning rate with the least validation error, chosen among "
            f"{', '.join(f'{rate:g}' for rate in config.learning_rates)}.",
            table=_rows(summary),
        ),
        Section(
            "Structured layers against each control",
            "Depths and widths at which the interval of the difference, paired by seed, lies on one side of zero: "
            "better, undecided, worse. Not corrected for their number.",
            table=_win_rows(summary),
        ),
    ]
    write_method_page(
        folder,
        config,
        title=f"Structured layers: {config.task.replace('-', ' ')}",
        subtitle=f"{config.structure.replace('_', ' ')} with a correction of at most {config.correction:g}, "
        f"seeds {', '.join(map(str, config.seeds))}.",
        verdict=verdict(summary),
        sections=sections,
    )


def verdict(summary: dict[str, Any]) -> str:
    """The finding in a sentence or two."""
    told = []
    for quantity in ("error", "condition", "gradient_ratio"):
        counts = wins(summary, quantity)
        if counts:
            parts = [f"{ARM_LABELS[arm]} {b}/{u}/{w}" for arm, (b, u, w) in counts.items()]
            told.append(f"{QUANTITIES[quantity]}: {', '.join(parts)}")
    if not told:
        return "Nothing to compare: give two seeds, and a control beside the structured arm."
    return f"Structured layers better/undecided/worse than each control, over depths and widths. {'; '.join(told)}."


def _rows(summary: dict[str, Any]) -> list[list[str]]:
    names = [name for name in QUANTITIES if any(name in entry for entry in summary["arms"])]
    rows = [["arm", "depth", "width", "numbers", "rate", *(QUANTITIES[name] for name in names)]]
    for entry in summary["arms"]:
        head = [ARM_LABELS[entry["arm"]], *(f"{entry[key]:,}" for key in ("depth", "width", "n_parameters"))]
        rows.append([*head, f"{entry['learning_rate']:g}", *(mean_cell(entry.get(name)) for name in names)])
    return rows


def _win_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["quantity", *(f"against {ARM_LABELS[arm]}" for arm in ("plain", "residual", "structure"))]]
    for quantity, label in QUANTITIES.items():
        counts = wins(summary, quantity)
        if counts:
            cells = (
                " / ".join(map(str, counts[arm])) if arm in counts else "–"
                for arm in ("plain", "residual", "structure")
            )
            rows.append([label, *cells])
    return rows

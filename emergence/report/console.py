"""The short table a run ends with on the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..run import Run
from .words import verdict

if TYPE_CHECKING:
    import pandas as pd


def print_findings(run: Run) -> None:
    """Print the verdict, the heads, and where the report is."""
    console, summary = Console(), run.summary
    table = Table(title="heads at the last checkpoint", title_justify="left")
    columns = (
        "seed",
        "head",
        "contact AP [95 %]",
        "nearest",
        "p",
        "cut partner",
        "cut other",
        "onset step",
        "contact head",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for head in summary["heads"]:
        table.add_row(*head_cells(head), style="bold" if head["is_contact_head"] else "dim")
    console.print(table)
    console.print(verdict(summary))
    console.print(f"report: {run.folder / 'report.html'}", soft_wrap=True)


def print_last_step(measurements: pd.DataFrame, folder: Path) -> None:
    """Print what was measured at the last checkpoint, and where all of it is."""
    console, last = Console(), measurements[measurements["step"] == measurements["step"].max()]
    table = Table(title=f"at step {measurements['step'].max():,}", title_justify="left")
    for column in ("probe", "quantity", "value", "standard error"):
        table.add_column(column, justify="left" if column in ("probe", "quantity") else "right")
    columns = (last[name] for name in ("probe", "quantity", "coordinate", "value", "standard_error"))
    for probe, quantity, coordinate, value, error in zip(*columns, strict=True):
        place = "" if math.isnan(coordinate) else f" {coordinate:g}"
        table.add_row(probe, quantity + place, f"{value:.4g}", "" if math.isnan(error) else f"{error:.2g}")
    console.print(table)
    console.print(f"all steps: {folder / 'measurements.csv'}, figures: {folder / 'figures'}", soft_wrap=True)


def head_cells(head: dict[str, Any]) -> list[str]:
    """One head as text, in the order of the columns."""
    low, high = head["contact_ap_interval"]
    base = head["knockout_baseline_loss"]
    onset, interval = head.get("onset_step"), head.get("onset_interval") or [None, None]
    return [
        str(head["seed"]),
        f"{head['layer']}.{head['head']}",
        f"{head['contact_ap']:.2f} [{number(low)}, {number(high)}]",
        f"{head['nearest_neighbor_ap']:.2f}",
        f"{head['p_value']:.3f}",
        f"{head['edge_knockout_partner'] / base:+.0%}",
        f"{head['edge_knockout_nonpartner'] / base:+.1%}",
        "none" if onset is None else f"{onset:.0f} [{number(interval[0], 0)}, {number(interval[1], 0)}]",
        "yes" if head["is_contact_head"] else "no",
    ]


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"

"""The short table a run ends with on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..run import Run
from .words import verdict


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

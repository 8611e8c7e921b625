"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.plots.axes import theme

from ...files import write_aside, write_json
from ...run import Run, config_to_dict, open_run
from ..page import Section, saved_figure, write_method_page
from .figures import onset_figure, quantities_figure
from .findings import QUANTITIES, compare, seed_table


def compare_runs(folders: Sequence[Path | str], out: Path | str) -> dict[str, Any]:
    """Compare finished runs and write ``summary.json``, ``measurements.parquet`` and ``report.html`` in ``out``.

    Args:
        folders: run folders; the first is what the others are compared with.
        out: folder of the page.

    Returns:
        The findings.

    Raises:
        ValueError: fewer than two runs, two of one name, or runs of different worlds (``data`` or ``model`` differ).
        FileNotFoundError: no run there, or one that is not finished.
    """
    runs = _opened(folders)
    table = seed_table(runs)
    summary = compare(table)
    out = Path(out)
    write_aside(out / "measurements.parquet", lambda path: table.to_parquet(path, index=False))
    write_json(out / "summary.json", summary)
    with theme():
        onset = saved_figure(onset_figure(runs), out, "onset")
        quantities = saved_figure(quantities_figure(table, summary), out, "quantities")
    write_method_page(
        out,
        {name: config_to_dict(run.config)["intervention"] for name, run in runs.items()},
        title="What emerged, when, at what cost",
        subtitle=f"Runs: {', '.join(runs)}; differences are from {summary['reference']}.",
        verdict=verdict(summary),
        sections=[
            Section("Contact heads over training", "", onset, "Thin: one seed. Thick: mean over seeds."),
            Section("Every quantity", "", quantities, "Small dots: seeds. Large: mean with Student's 95 % interval."),
            Section(
                f"Differences from {summary['reference']}",
                "Paired by seed, with Student's 95 % intervals and p-values not corrected for the number of rows; bold "
                "claims need more than one row.",
                table=difference_rows(summary),
            ),
        ],
    )
    return summary


def verdict(summary: dict[str, Any]) -> str:
    """One sentence a run: which differences exclude zero."""
    told = []
    for entry in summary["runs"][1:]:
        differ = [
            f"{label} {'up' if difference['mean'] > 0 else 'down'} by {_number(abs(difference['mean']))}"
            for quantity, label in QUANTITIES.items()
            if quantity != "train_seconds" and _excludes_zero(difference := entry[f"{quantity}_difference"])
        ]
        told.append(
            f"{entry['run']} against {summary['reference']}: {'; '.join(differ) or 'no difference excludes zero'}."
        )
    return " ".join(told)


def difference_rows(summary: dict[str, Any]) -> list[list[str]]:
    """A row a run and quantity."""
    rows = [["run", "quantity", "mean", "difference [95 %]", "p", "seeds"]]
    for entry in summary["runs"]:
        for quantity, label in QUANTITIES.items():
            mean = entry[quantity]["mean"]
            difference = entry.get(f"{quantity}_difference")
            cells = ["", "", str(entry[quantity]["n"])]
            if difference is not None and difference["mean"] is not None:
                low, high = difference["interval"]
                spread = "" if low is None else f" [{_number(low)}, {_number(high)}]"
                p = difference["p_value"]
                cells = [_number(difference["mean"]) + spread, "–" if p is None else _p_value(p), str(difference["n"])]
            rows.append([entry["run"], label, "–" if mean is None else _number(mean), *cells])
    return rows


def _opened(folders: Sequence[Path | str]) -> dict[str, Run]:
    if len(folders) < 2:
        raise ValueError(f"give at least two run folders to compare, got {len(folders)}")
    runs: dict[str, Run] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in runs:
            raise ValueError(f"two runs are called {name}; rename a folder, its name is what the page calls it")
        runs[name] = open_run(folder)
    first, *others = runs.items()
    for name, run in others:
        for part in ("data", "model"):
            if getattr(run.config, part) != getattr(first[1].config, part):
                raise ValueError(f"{name} and {first[0]} differ in {part}; compare runs on the same data and model")
    return runs


def _excludes_zero(difference: dict[str, Any]) -> bool:
    low, high = difference["interval"]
    return low is not None and (low > 0 or high < 0)


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

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
                "Below each mean the difference, paired by seed, with Student's 95 % interval, not corrected for their "
                "number: one cell alone carries no bold claim. p-values are in summary.json.",
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
    """A row a quantity, a column a run: its mean, and below it the difference from the first run."""
    return [["quantity", *(entry["run"] for entry in summary["runs"])]] + [
        [label, *(_cell(entry, quantity) for entry in summary["runs"])] for quantity, label in QUANTITIES.items()
    ]


def _cell(entry: dict[str, Any], quantity: str) -> str:
    mean, n = entry[quantity]["mean"], entry[quantity]["n"]
    if mean is None:
        return "–"
    found_in = f" ({n} of {entry['n_seeds']} seeds)" if quantity != "train_seconds" and n < entry["n_seeds"] else ""
    difference = entry.get(f"{quantity}_difference")
    if difference is None or difference["mean"] is None:
        return _number(mean) + found_in
    low, high = difference["interval"]
    spread = "" if low is None else f"\n[{_number(low)}, {_number(high)}]"
    return f"{_number(mean)}{found_in}\n{_number(difference['mean'], signed=True)}{spread}"


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


def _number(value: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"

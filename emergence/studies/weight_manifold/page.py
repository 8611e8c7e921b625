"""The page of a study of weight manifolds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from probes.plots.axes import theme

from ..page import Section, mean_cell, saved_figure, write_method_page
from .config import ManifoldStudyConfig
from .figures import ARM_LABELS, error_label, errors_figure, heads_figure, landscape_figure, over_context_figure
from .findings import QUANTITIES, WALK_QUANTITIES


def write_page(folder: Path, config: ManifoldStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figures and tell what was found."""
    with theme():
        along = saved_figure(over_context_figure(table, config), folder, "over_context")
        errors = saved_figure(errors_figure(summary), folder, "errors")
    rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
    sections = [
        Section(
            "Error along the contexts",
            f"Error: {error_label(config)}.",
            along,
            "Means over seeds. Grey: held out; darker: far from any learnt.",
        ),
        Section("Learnt and never seen", "", errors, "Small dots: seeds. Large: mean with Student's 95 % interval."),
        Section(
            "Every number",
            f"Each arm at the learning rate with the least validation error at contexts learnt, chosen among {rates}. "
            "Differences are the manifold's error less the arm's, paired by seed; not corrected for their number.",
            table=_rows(summary),
        ),
        *_walk_sections(folder, config, table, summary),
    ]
    write_method_page(
        folder,
        config,
        title=f"Weight manifolds: {config.task.replace('-', ' ')}",
        subtitle=f"Seeds {', '.join(map(str, config.seeds))}.",
        verdict=verdict(summary),
        sections=sections,
    )


def _walk_sections(folder: Path, config: ManifoldStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> list:
    if not summary["walks"]:
        return []
    with theme():
        heads = saved_figure(heads_figure(table, config), folder, "heads") if "manifold" in config.arms else None
        landscape = saved_figure(landscape_figure(table, config), folder, "landscape")
    return [
        Section(
            "Contact heads along the manifold",
            "A head's average precision at telling who collides before the next frame, on scenes of each context. "
            "The plain transformer learnt from the same scenes at the same rate, and is not told their context.",
            heads,
            "Thin lines: seeds. Thick: their mean.",
        ),
        Section(
            "The landscape along the manifold",
            "Of the ordinary transformer at each point, on scenes of its context. It follows the learning rate, so "
            "both are shown at the manifold's. Beyond the contexts learnt a point is no minimum of the loss there, and "
            "its learning coefficient may be below zero.",
            landscape,
            "Thin lines: seeds. Thick: their mean.",
        ),
        Section(
            "Every number of the walk", "Means over seeds with Student's 95 % interval.", table=_walk_rows(summary)
        ),
    ]


def verdict(summary: dict[str, Any]) -> str:
    """Against which arms the manifold wins, by kind of context."""
    told = []
    for quantity, label in QUANTITIES.items():
        sides: dict[str, list[str]] = {"better than": [], "worse than": []}
        for entry in summary["arms"]:
            low, high = entry.get(f"{quantity}_difference", {"interval": [None, None]})["interval"]
            if low is not None and (high < 0 or low > 0):
                sides["better than" if high < 0 else "worse than"].append(ARM_LABELS[entry["arm"]])
        parts = [f"{side} {', '.join(arms)}" for side, arms in sides.items() if arms]
        told.append(f"{label}: {'; '.join(parts) or 'undecided'}")
    return f"The manifold, by intervals of paired differences. {'. '.join(told)}."


def _rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["arm", "numbers", "rate", *QUANTITIES.values(), *(f"manifold less it, {q}" for q in QUANTITIES.values())]]
    for entry in summary["arms"]:
        rows.append(
            [
                ARM_LABELS[entry["arm"]],
                f"{entry['n_parameters']:,}",
                f"{entry['learning_rate']:g}",
                *(mean_cell(entry[quantity]) for quantity in QUANTITIES),
                *(mean_cell(entry.get(f"{quantity}_difference")) for quantity in QUANTITIES),
            ]
        )
    return rows


def _walk_rows(summary: dict[str, Any]) -> list[list[str]]:
    """A row a quantity, a column an arm, and how they differ."""
    walks = {entry["arm"]: entry for entry in summary["walks"]}
    rows = [["", *(ARM_LABELS[arm] for arm in walks), "manifold less plain"]]
    for quantity, label in WALK_QUANTITIES.items():
        difference = walks.get("plain", {}).get(f"{quantity}_difference")
        rows.append([label, *(mean_cell(entry[quantity]) for entry in walks.values()), mean_cell(difference)])
    return rows

"""The page of a study of next-layer attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from probes.plots.axes import theme

from ..page import Section, mean_cell, saved_figure, write_method_page
from .config import NextLayerStudyConfig
from .figures import (
    RULE_LABELS,
    alignment_figure,
    lost_figure,
    middle_depth,
    over_depth_figure,
    silenced_figure,
)
from .findings import CROSSING, QUANTITIES, REFERENCE, wins
from .measuring import N_ALIGNED, N_DRAWS

COMPARED = ("error", "steps_to_half", "error_silenced", "silenced_rise")
"""Less of these is better; of alignment, which backpropagation has by definition, nobody can be better."""


def write_page(folder: Path, config: NextLayerStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figures and tell what was found."""
    rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
    sections = [
        *_figure_sections(folder, config, table, summary),
        Section(
            "Every number",
            f"Each rule at the learning rate with the least validation error, chosen among {rates} at each depth. "
            "Steps to half are missing where the error never fell so far; where some seeds got there, the mean is "
            "theirs, and how many they are is told.",
            table=_rows(summary, config),
        ),
        Section(
            "Each rule less backpropagation",
            "Differences paired by seed; not corrected for their number.",
            table=_difference_rows(summary),
        ),
        Section(
            "Better, undecided, worse than backpropagation",
            "Depths (and chances of loss) at which the interval of the difference lies below zero, holds it, or lies "
            "above. A rule that never halved the error has no speed to count, and one that learnt little has little to "
            "lose when neurons are silenced.",
            table=_win_rows(summary),
        ),
        Section(
            "What crosses between layers",
            "Forwards and backwards for one example, lost messages included. Weights that the way back needs are "
            "copied once a step, whatever the batch; of attention |w| and sign-symmetric feedback, their signs and one "
            "scale a layer.",
            table=_crossing_rows(summary),
        ),
    ]
    write_method_page(
        folder,
        config,
        title=f"Next-layer attention: {config.task.replace('-', ' ')}",
        subtitle=f"Hidden layers of {config.width} tanh neurons, {config.n_steps} steps of Adam, seeds "
        f"{', '.join(map(str, config.seeds))}. Matched in norm, attention |w| is sign-symmetric feedback.",
        verdict=verdict(summary),
        sections=sections,
    )


def verdict(summary: dict[str, Any]) -> str:
    """The finding in a sentence or two."""
    told = []
    for quantity in ("error", "steps_to_half"):
        counts = wins(summary, quantity)
        if counts:
            parts = [f"{RULE_LABELS[rule]} {b}/{u}/{w}" for rule, (b, u, w) in counts.items()]
            told.append(f"{QUANTITIES[quantity]}: {', '.join(parts)}")
    if not told:
        return "Nothing to compare: give two seeds, and a rule beside backpropagation."
    return f"Better/undecided/worse than backpropagation, over depths and chances of loss. {'; '.join(told)}."


def _figure_sections(
    folder: Path, config: NextLayerStudyConfig, table: pd.DataFrame, summary: dict[str, Any]
) -> list[Section]:
    means = f"Means over {len(config.seeds)} seeds, with Student's 95 % intervals where there are two or more."
    lossy = f", chance of loss {config.drops[0]:g}" if config.drops != (0.0,) else ""

    def section(heading: str, text: str, name: str, figure: Figure, caption: str = means) -> Section:
        return Section(heading, text, saved_figure(figure, folder, name), caption)

    with theme():
        over_depth = over_depth_figure(summary, config.drops[0])
        sections = [
            section(
                f"Over depth{lossy}",
                "At the end of training. No point is drawn for speed where the error never halved.",
                "over_depth",
                over_depth,
            )
        ]
        layers = alignment_figure(table, config)
        if layers is not None:
            text = (
                "Cosine between the gradient a rule gives to a layer's weights and the true one, on the same "
                f"{N_ALIGNED} examples to learn from. It is one in the last layer, and where nothing is lost also for "
                "backpropagation."
            )
            heading = f"Alignment layer by layer, {middle_depth(config)} hidden layers{lossy}"
            sections.append(section(heading, text, "alignment", layers, f"Means over {len(config.seeds)} seeds."))
        text = (
            f"After training, a share of each hidden layer is set to zero: mean over {N_DRAWS} draws, the same for all."
        )
        sections.append(section(f"Neurons silenced{lossy}", text, "silenced", silenced_figure(table, config)))
        if len(config.drops) > 1:
            text = "Every listener's message back is lost at random, on each example; the others are made larger."
            sections.append(section("Messages lost", text, "lost", lost_figure(table, config)))
    return sections


def _head(entry: dict[str, Any]) -> list[str]:
    return [RULE_LABELS[entry["rule"]], str(entry["depth"]), f"{entry['drop']:g}"]


def _rows(summary: dict[str, Any], config: NextLayerStudyConfig) -> list[list[str]]:
    rows = [["rule", "depth", "messages lost", "rate", *QUANTITIES.values()]]
    for entry in summary["rules"]:
        cells = (_counted(entry[quantity], len(config.seeds)) for quantity in QUANTITIES)
        rows.append([*_head(entry), f"{entry['learning_rate']:g}", *cells])
    return rows


def _counted(found: dict[str, Any], n_seeds: int) -> str:
    """A mean with its interval, and how many seeds it is of where not all."""
    of = f"\n{found['n']} of {n_seeds}" if 0 < found["n"] < n_seeds else ""
    return mean_cell(found) + of


def _difference_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["rule", "depth", "messages lost", *QUANTITIES.values()]]
    for entry in summary["rules"]:
        if f"{next(iter(QUANTITIES))}_difference" in entry:
            rows.append([*_head(entry), *(mean_cell(entry[f"{quantity}_difference"]) for quantity in QUANTITIES)])
    return rows


def _win_rows(summary: dict[str, Any]) -> list[list[str]]:
    counts = {quantity: wins(summary, quantity) for quantity in COMPARED}
    rules = list(dict.fromkeys(entry["rule"] for entry in summary["rules"] if entry["rule"] != REFERENCE))
    rows = [["quantity", *(RULE_LABELS[rule] for rule in rules)]]
    for quantity, of_rules in counts.items():
        cells = (" / ".join(map(str, of_rules[rule])) if rule in of_rules else "–" for rule in rules)
        rows.append([QUANTITIES[quantity], *cells])
    return rows


def _crossing_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["rule", "depth", *CROSSING.values()]]
    for entry in summary["rules"]:
        cells = ("–" if entry[name] is None else f"{entry[name]:,.0f}" for name in CROSSING)
        row = [RULE_LABELS[entry["rule"]], str(entry["depth"]), *cells]
        if row not in rows:  # with messages lost, as many are sent
            rows.append(row)
    return rows

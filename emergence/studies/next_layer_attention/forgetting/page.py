"""The page of a study of forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from probes.plots.axes import theme

from ...page import Section, mean_cell, saved_figure, write_method_page
from ..figures import RULE_LABELS
from ..findings import REFERENCE
from .config import ForgettingStudyConfig
from .figures import kept_figure, rates_figure, rules_figure, second_task_figure
from .findings import QUANTITIES, TOLERANCE, wins


def write_page(folder: Path, config: ForgettingStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figures and tell what was found."""
    rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
    with theme():
        rules = saved_figure(rules_figure(summary), folder, "rules")
        by_rate = saved_figure(rates_figure(table), folder, "rates")
        second = saved_figure(second_task_figure(table, config), folder, "second_task")
        kept = saved_figure(kept_figure(table, config), folder, "kept")
    sections = [
        Section(
            "What each rule forgets",
            f"Every task is left as soon as {100 * config.criterion:.0f} % of its validation are right, so that no "
            "rule forgets less because it has learnt less.",
            rules,
            "Small dots: seeds. Large: mean with Student's 95 % interval.",
        ),
        Section(
            "At every learning rate",
            "A small step forgets less, whatever the rule; so every rule is told at its own best.",
            by_rate,
            "Means over seeds with Student's 95 % interval.",
        ),
        Section(
            "At equal progress in the second task",
            "",
            second,
            "Means over seeds, shaded by their standard error. Dashed: chance.",
        ),
        Section("Every task after every task", "", kept, f"Means over {len(config.seeds)} seeds."),
        Section(
            "Every number",
            f"Each rule at the learning rate of {rates} with the highest accuracy over all tasks at the end, on "
            "validation. Below each mean, its interval.",
            table=_rows(summary, ""),
        ),
        Section(
            "Each rule less backpropagation",
            f"Differences paired by seed; not corrected for their number. Rules are matched if their accuracies in the "
            f"first task differ by at most {TOLERANCE:g}.",
            table=_rows(summary, "_difference"),
        ),
    ]
    write_method_page(
        folder,
        config,
        title=f"Forgetting: {config.task.replace('-', ' ')}",
        subtitle=f"{config.n_tasks} tasks in sequence, {config.depth} hidden layers of {config.width} tanh neurons, "
        f"seeds {', '.join(map(str, config.seeds))}. Matched in norm, attention |w| is sign-symmetric feedback.",
        verdict=verdict(summary),
        sections=sections,
    )


def verdict(summary: dict[str, Any]) -> str:
    """One sentence: who forgets less or more than backpropagation."""
    by_rule, told = wins(summary, "drop"), []
    for entry in summary["rules"]:
        counts = by_rule.get(entry["rule"])
        if counts is None:
            continue
        side = ("less", "as much, as far as can be told", "more")[counts.index(1)]
        matched = "" if entry["is_matched"] else " (not matched in the first task)"
        difference = entry["drop_difference"]
        low, high = (100 * bound for bound in difference["interval"])
        numbers = f"{100 * difference['mean']:+.1f} points [{low:.1f}, {high:.1f}]"
        told.append(f"{RULE_LABELS[entry['rule']]} forgets {side}{matched}, {numbers}")
    if not told:
        return "Nothing to compare: give two seeds, and a rule beside backpropagation."
    return f"Accuracy lost by the end, against {RULE_LABELS[REFERENCE]}: {'; '.join(told)}."


def _rows(summary: dict[str, Any], suffix: str) -> list[list[str]]:
    head = ["rule", *(["matched"] if suffix else ["rate"]), *QUANTITIES.values()]
    rows = [head]
    for entry in summary["rules"]:
        if f"drop{suffix}" in entry:
            second = ("yes" if entry["is_matched"] else "no") if suffix else f"{entry['learning_rate']:g}"
            rows.append([RULE_LABELS[entry["rule"]], second, *(mean_cell(entry[q + suffix]) for q in QUANTITIES)])
    return rows

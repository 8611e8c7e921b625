"""The page of a continual study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from probes.plots.axes import theme

from ...page import Section, saved_figure, write_method_page
from ..figures import ARM_LABELS
from .config import ContinualStudyConfig
from .courses import courses
from .figures import condition_name, interference_figure

CAPTION = (
    "Left: a thin line a seed, the thick one their mean as far as all seeds of the arm came; dashed: the accuracy at "
    "which arms are compared. Right: what is lost there (full colour), and the mean of what is lost on the way there "
    "(pale), with 95 % intervals over seeds and a dot a seed."
)
QUANTITY_NAMES = {"drop": "at the threshold", "drop_on_the_way": "mean on the way there"}


def write_page(folder: Path, config: ContinualStudyConfig, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Draw the figure and tell what was found."""
    with theme():
        conditions = [(found, courses(table, config, found["later_price"])) for found in summary["conditions"]]
        figure = saved_figure(interference_figure(conditions), folder, "interference")
    sections = [
        Section(
            "Before: are the arms alike in the old tasks?",
            f"Accuracy in {_listed(summary['old'])} at the end of the first stage, mean over {len(config.seeds)} seeds "
            "with Student's 95 % intervals. The setting strengths changes an arm's price of wire to bring it nearer "
            "the others.",
            table=_before_rows(summary),
        ),
        Section(
            "What the new tasks cost",
            f"From there on only {_listed(summary['new'])} are learnt, by a fresh optimizer at the same learning rate. "
            "Penalty and swaps go on as in the first stage; where wire costs nothing any more, what is lost is not the "
            "penalty's doing. Where all arms have lost everything the threshold tells nothing apart, and the way there "
            f"does. {' '.join(_threshold_words(found) for found in summary['conditions'])}",
            figure,
            CAPTION,
            _drop_rows(summary),
        ),
        Section(
            "Arm against arm",
            "Differences in what is lost, seed by seed, over old tasks in which both arms began within "
            f"{summary['tolerance']:g} of each other; negative: the full method loses less. An interval that holds "
            "zero tells no difference.",
            table=_difference_rows(summary),
        ),
    ]
    write_method_page(
        folder,
        config,
        title=f"Learning more: {config.example.replace('-', ' ')}",
        subtitle=f"Interference of new tasks with old ones, seeds {', '.join(map(str, config.seeds))}.",
        verdict=verdict(summary),
        sections=sections,
    )


def verdict(summary: dict[str, Any]) -> str:
    """The finding in a sentence a condition, with 95 % intervals over seeds."""
    return " ".join(_said_of(found) for found in summary["conditions"])


def _said_of(found: dict[str, Any]) -> str:
    where = condition_name(found["later_price"])
    start = f"{where[0].upper()}{where[1:]}: "
    if found["threshold"] is None:
        return start + "arms cannot be compared, as some run never got beyond what another knew before."
    lost = ", ".join(f"{ARM_LABELS[entry['arm']]} {_number(entry['drop'])}" for entry in found["arms"])
    said = f"{start}with the new tasks at {found['threshold']:.2f} the old ones have lost {lost}"
    if not found["differences"]:
        return said + "."
    compared = [
        f"{_number(entry)} less {ARM_LABELS[entry['less']]}"
        + (" on the way there" if entry["quantity"] == "drop_on_the_way" else "")
        for entry in found["differences"]
    ]
    return f"{said}; the full method differs by {', '.join(compared)}."


def _threshold_words(found: dict[str, Any]) -> str:
    where = condition_name(found["later_price"])
    if found["threshold"] is None:
        return (
            f"When {where} no accuracy was reached by all runs that none had before ({found['highest_before']:.3f}): "
            "nothing is compared."
        )
    return f"When {where} arms are compared where the new tasks first reach {found['threshold']:.2f}."


def _before_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["arm", "price", "accuracy in the old tasks"]]
    for entry in summary["before"]:
        price = "" if entry["arm"] == "none" else f"{entry['strength']:g}"
        rows.append([ARM_LABELS[entry["arm"]], price, _number(entry["accuracy"])])
    for entry in summary["before_differences"]:
        rows.append([f"{ARM_LABELS[entry['arm']]} less {ARM_LABELS[entry['less']]}", "", _number(entry)])
    return rows


def _drop_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["while the new are learnt", "arm", "seeds that got there", "steps", *QUANTITY_NAMES.values()]]
    n_seeds = len(summary["seeds"])
    for found in summary["conditions"]:
        for entry in found["arms"]:
            steps = entry["steps"]["mean"]
            rows.append(
                [
                    condition_name(found["later_price"]),
                    ARM_LABELS[entry["arm"]],
                    f"{entry['n_reached']} of {n_seeds}",
                    "–" if steps is None else f"{steps:,.0f}",
                    *(_number(entry[name]) for name in QUANTITY_NAMES),
                ]
            )
    return rows


def _difference_rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = [["while the new are learnt", "lost", "difference", "95 % interval", "seeds", "old tasks matched"]]
    for found in summary["conditions"]:
        for entry in found["differences"]:
            low, high = entry["interval"]
            rows.append(
                [
                    condition_name(found["later_price"]),
                    f"{QUANTITY_NAMES[entry['quantity']]}: {ARM_LABELS[entry['arm']]} less {ARM_LABELS[entry['less']]}",
                    "–" if entry["mean"] is None else f"{entry['mean']:.3f}",
                    "–" if low is None else f"{low:.3f} to {high:.3f}",
                    str(entry["n_seeds"]),
                    f"{entry['n_matched']} of {entry['n_cells']}",
                ]
            )
    return rows


def _number(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "–"
    low, high = found["interval"]
    return f"{found['mean']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _listed(names: list[str]) -> str:
    return ", ".join(names)

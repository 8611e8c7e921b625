"""What emerged in each run, seed by seed, and how runs differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import nn

from ...curves import Curves
from ...findings import without_nan
from ...interventions import spatial, structured
from ...interventions.weight_manifold.steered import SteeredTransformer, plain_at
from ...run import Run
from ..spatial.findings import mean_interval

QUANTITIES = {
    "loss": "test loss",
    "loss_contact": "test loss, colliding",
    "n_contact_heads": "contact heads",
    "best_ap": "contact AP of the best head",
    "onset_step": "onset of the first contact head (step)",
    "half_step": "half of that AP reached (step)",
    "llc": "learning coefficient",
    "hessian_trace": "trace of the Hessian",
    "hessian_top": "largest eigenvalue of the Hessian",
    "participation_ratio": "directions that share the curvature",
    "attention_wire": "wire of attention, per unit of weight",
    "train_seconds": "training, seconds a seed",
}
"""Quantities and what the page calls them. ``onset_step`` and ``half_step`` are missing where no head is a contact
head; seconds are in the row of the first seed alone."""

ROUNDS = 20
"""Rounds of swaps at most that put a network in its shortest order before its wire is measured."""


def seed_table(runs: dict[str, Run]) -> pd.DataFrame:
    """One row a run and seed, one column a quantity; NaN where something was not found or not measured."""
    rows = [
        {"run": name, "seed": seed, **_of_seed(run, seed)} for name, run in runs.items() for seed in run.config.seeds
    ]
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame) -> dict[str, Any]:
    """Means over seeds with intervals, and differences from the first run, paired by seed where both have it."""
    names = list(dict.fromkeys(table.run))
    by_seed: dict[str, Any] = {name: table[table.run == name].set_index("seed") for name in names}
    runs = []
    for name in names:
        entry: dict[str, Any] = {"run": name, "n_seeds": len(by_seed[name])}
        for quantity in QUANTITIES:
            entry[quantity] = mean_interval(by_seed[name][quantity].to_numpy(float))
            if name != names[0]:
                entry[f"{quantity}_difference"] = paired(by_seed[name][quantity] - by_seed[names[0]][quantity])
        runs.append(entry)
    return without_nan({"reference": names[0], "runs": runs})


def paired(differences: Any) -> dict[str, Any]:
    """Mean difference with Student's 95 % interval and two-sided p-value over the seeds that both runs have."""
    found = mean_interval(differences.to_numpy(float))
    values = differences.dropna().to_numpy(float)
    testable = len(values) > 1 and values.std() > 1e-12 * np.abs(values).max()
    test: Any = stats.ttest_1samp(values, 0.0) if testable else None  # scipy's types do not know its fields
    return {**found, "p_value": float(test.pvalue) if testable else np.nan}


def sides(entries: list[dict[str, Any]], difference: str, by: str) -> dict[str, tuple[int, int, int]]:
    """How often the interval of a difference lies below zero, holds it, and lies above, for each name.

    Args:
        entries: of a summary; those without the difference, or without its interval, do not count.
        difference: its name in an entry.
        by: what names an entry, such as arm.
    """
    counts: dict[str, list[int]] = {}
    for entry in entries:
        low, high = entry.get(difference, {"interval": [None, None]})["interval"]
        if low is not None:
            counts.setdefault(entry[by], [0, 0, 0])[0 if high < 0 else 2 if low > 0 else 1] += 1
    return {name: (count[0], count[1], count[2]) for name, count in counts.items()}


def attention_wire(model: nn.Module) -> float:
    """Mean length of the wire between the residual stream and the heads, weighted by |w|, on a line of length one.

    Any network can be laid out so that it looks long; each is measured in the shortest order that swaps of neurons and
    heads find, so plain training is not charged for the arbitrary order it began with.
    """
    if structured.is_structured(model):
        model = structured.export(model)
    elif isinstance(model, SteeredTransformer):
        model = plain_at(model, 0.5)  # halfway along its manifold
    placement = spatial.keep_numbers(spatial.place(model, "line", layer_gap=0.0))
    for _ in range(ROUNDS):
        if not spatial.swap(model, placement).moved:
            break
    weights = dict(model.named_parameters())
    length = total = 0.0
    for connection in placement.wiring.connections:
        if ".attn." in connection.tensor:
            magnitudes = placement.magnitudes(connection, weights[connection.tensor].detach()).double()
            length += float((magnitudes * placement.distances(connection)).sum())
            total += float(magnitudes.sum())
    return length / total


def best_head_curve(run: Run, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Contact average precision of the head that ends best: steps of the checkpoints, and values there."""
    heads = [head for head in run.summary["heads"] if head["seed"] == seed]
    best = max(heads, key=lambda head: head["contact_ap"])
    steps, values, _ = Curves(run.measurements, "discs", seed).over_steps("contact_ap", best["layer"], best["head"])
    return steps, values


def half_step(steps: np.ndarray, values: np.ndarray) -> float:
    """Where a curve first comes to half of its end, on a line in log(1 + step) between checkpoints.

    Another question than the onset, which is where the rise begins: this one is when it has happened.
    """
    half = values[-1] / 2
    k = int(np.argmax(values >= half))
    if k == 0:
        return float(steps[0])
    log_steps = np.log1p(steps[k - 1 : k + 1].astype(float))
    return float(np.expm1(np.interp(half, values[k - 1 : k + 1], log_steps)))


def _train_seconds(run: Run) -> float:
    """One number a run, as all its seeds are timed together."""
    return run.summary["seconds"].get("train", np.nan) / len(list(run.cells))


def _of_seed(run: Run, seed: int) -> dict[str, float]:
    summary = run.summary
    heads = [head for head in summary["heads"] if head["seed"] == seed]
    contact = [head for head in heads if head["is_contact_head"]]
    onsets = [head["onset_step"] for head in contact if head["onset_step"] is not None]
    loss = next(entry for entry in summary["loss"] if entry["seed"] == seed)
    curves = Curves(run.measurements, "discs", seed)
    checkpoints = run.checkpoints(seed)
    last = checkpoints.steps[-1]
    return {
        "loss": loss["final"],
        "loss_contact": loss["contact"],
        "n_contact_heads": len(contact),
        "best_ap": max(head["contact_ap"] for head in heads),
        "onset_step": min(onsets, default=np.nan),
        "half_step": half_step(*best_head_curve(run, seed)) if contact else np.nan,
        "llc": curves.at("llc", last),
        "hessian_trace": curves.at("hessian_trace", last),
        "hessian_top": float(curves.curve("hessian_eigenvalue", last).value.max()),
        "participation_ratio": curves.at("participation_ratio", last),
        "attention_wire": attention_wire(checkpoints.load(last)),
        "train_seconds": _train_seconds(run) if seed == run.config.seeds[0] else np.nan,
    }

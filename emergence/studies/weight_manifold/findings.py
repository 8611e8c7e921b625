"""From the table of a study of weight manifolds to its findings: each arm at its own best learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...findings import onset_of, without_nan
from ..compare.findings import paired
from ..spatial.findings import mean_interval
from ..tuning import chosen_rates
from .config import ManifoldStudyConfig, TaskName
from .contexts import kind_of
from .walk import WALKED

QUANTITIES = {
    "error_learnt": "contexts learnt",
    "error_interpolation": "between them",
    "error_extrapolation": "beyond them",
}
WALK_QUANTITIES = {
    "onset_step": "onset of the contact head (step)",
    "best_ap_learnt": "contact AP of the best head, contexts learnt",
    "best_ap_interpolation": "between them",
    "best_ap_extrapolation": "beyond them",
    "same_head": "share of the walk with the same best head",
    "llc": "learning coefficient",
    "hessian_trace": "trace of the Hessian",
    "hessian_top": "largest eigenvalue of the Hessian",
}
"""Of transformers that are walked; the last three are means over the stations but those beyond the contexts learnt,
where a point of the manifold is no minimum of the loss."""


def at_chosen_rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each arm at its own best learning rate."""
    return table.merge(chosen_rates(table, ["arm"]))


def walked_rows(table: pd.DataFrame) -> Any:
    """The rows of the transformers that are walked, all at the rate of the manifold.

    When a head begins and how curved the loss is follow the learning rate more than anything else, so arms of different
    rates would be told apart by these alone.
    """
    rates: Any = chosen_rates(table, ["arm"]).set_index("arm").learning_rate
    walked: Any = table[table.arm.isin(WALKED)]
    return walked[walked.learning_rate == rates["manifold"]] if "manifold" in rates else at_chosen_rates(walked)


def summarize(table: pd.DataFrame, config: ManifoldStudyConfig) -> dict[str, Any]:
    """Mean errors over seeds with intervals, and how the manifold differs from each other arm, paired by seed."""
    rows: Any = at_chosen_rates(table)
    entries = []
    for entry in _paired_with_manifold(_errors(rows), config, tuple(QUANTITIES)):
        of_arm = rows[rows.arm == entry["arm"]]
        rate, n = float(of_arm.learning_rate.iloc[0]), int(of_arm.n_parameters.iloc[0])
        entries.append({"arm": entry.pop("arm"), "learning_rate": rate, "n_parameters": n, **entry})
    walks = _paired_with_manifold(walk_table(walked_rows(table), config.task), config, tuple(WALK_QUANTITIES))
    return without_nan({"task": config.task, "seeds": list(config.seeds), "arms": entries, "walks": walks})


def walk_table(rows: Any, task: TaskName) -> pd.DataFrame:
    """One row an arm and seed, one column a quantity of the walk; empty where nothing was walked."""
    walked = [
        {"arm": arm, "seed": seed, **_of_walk(of_run, task)}
        for (arm, seed), of_run in rows.groupby(["arm", "seed"])
        if (of_run.quantity == "llc").any()
    ]
    return pd.DataFrame(walked, columns=["arm", "seed", *WALK_QUANTITIES]).set_index(["arm", "seed"])


def best_heads(rows: Any) -> pd.DataFrame:
    """The head with the highest contact AP at each place of the walk, at the end: columns coordinate, head, value."""
    last = rows[(rows.quantity == "contact_ap") & (rows.moment == "end")]
    heads = last.assign(
        head=[f"{layer:.0f}.{head:.0f}" for layer, head in zip(last["layer"], last["head"], strict=True)]
    )
    return heads.sort_values("value").drop_duplicates("coordinate", keep="last").sort_values("coordinate")


def _errors(rows: Any) -> pd.DataFrame:
    errors = rows[rows.quantity.isin(list(QUANTITIES))]
    return errors.pivot_table(index=["arm", "seed"], columns="quantity", values="value")


def _of_walk(rows: Any, task: TaskName) -> dict[str, float]:
    best = best_heads(rows)
    kinds = best.coordinate.map(lambda place: kind_of(task, place))
    found = {f"best_ap_{kind}": float(value) for kind, value in best.groupby(kinds).value.mean().items()}
    head = best["head"].mode().iloc[0]
    found["same_head"] = float((best["head"] == head).mean())
    found["onset_step"] = _onset(rows, *map(int, head.split(".")), seed=int(rows.seed.iloc[0]))
    measured = rows[rows.quantity.isin(list(WALK_QUANTITIES))]
    is_minimum = measured.coordinate.map(lambda place: kind_of(task, place)) != "extrapolation"
    landscape = measured[is_minimum].groupby("quantity").value.mean()
    return found | {str(name): float(value) for name, value in landscape.items()}


def _onset(rows: Any, layer: int, head: int, *, seed: int) -> float:
    """Of the head that is best along most of the walk, by its mean AP at the stations where training was followed."""
    scores = rows[(rows.quantity == "contact_ap") & (rows["layer"] == layer) & (rows["head"] == head)]
    followed = scores[scores.coordinate.isin(scores[scores.moment == "training"].coordinate)]
    curve = followed.groupby("step").value.mean()
    onset = onset_of(curve.index.to_numpy(), curve.to_numpy(), np.random.default_rng((seed, layer, head)))
    return float(onset["onset_step"])


def _paired_with_manifold(
    by_seed: pd.DataFrame, config: ManifoldStudyConfig, quantities: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Means over seeds of each arm, and the manifold less it, paired by seed."""
    measured = set(by_seed.index.get_level_values("arm"))
    entries = []
    for arm in (arm for arm in config.arms if arm in measured):
        entry: dict[str, Any] = {"arm": arm}
        for quantity in quantities:
            values: Any = by_seed.loc[arm][quantity]
            entry[quantity] = mean_interval(values.to_numpy(float))
            if arm != "manifold" and "manifold" in measured:
                entry[f"{quantity}_difference"] = paired(by_seed.loc["manifold"][quantity] - values)
        entries.append(entry)
    return entries

"""From the table of measurements to findings: which heads detect collisions, since when, and by which law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import detect_onset

from .curves import Curves
from .learning_laws import effective_potential, learning_laws

if TYPE_CHECKING:
    from .run import Run

SCHEMA = 1
LEAST_POINTS_OF_AN_ONSET = 10
"""Checkpoints an onset needs; with fewer the summary has none."""


@dataclass(frozen=True)
class ContactHeadCriteria:
    """What a head must show, all at once, to be called a contact head. Our choice, fixed before the runs.

    Attributes:
        least_ap: contact average precision.
        least_ratio: average precision over that of the nearest neighbour (by surface gap).
        p_value: of the permutation null, below this.
        least_knockout: added loss, relative to the loss, when the edge to the true partner is cut.
        least_contrast: that added loss over the one from cutting the edge to the nearest non-partner.
    """

    least_ap: float = 0.75
    least_ratio: float = 1.8
    p_value: float = 0.01
    least_knockout: float = 0.30
    least_contrast: float = 10.0

    def met_by(self, head: dict[str, Any]) -> bool:
        """Check one entry of ``heads`` in the summary."""
        partner, other = head["edge_knockout_partner"], head["edge_knockout_nonpartner"]
        return bool(
            head["contact_ap"] >= self.least_ap
            and head["contact_ap"] >= self.least_ratio * head["nearest_neighbor_ap"]
            and head["p_value"] < self.p_value
            and partner >= self.least_knockout * head["knockout_baseline_loss"]
            and partner >= self.least_contrast * abs(other)
        )


CRITERIA = ContactHeadCriteria()


def summarize(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """Build summary.json: plain data, None where something was not measured or is not defined."""
    config, table = run.config, run.measurements
    train, evaluation = run.transitions("discs")
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "device": str(evaluation.positions.device),
        "seconds": seconds,
        "data": {
            "n_transitions": len(train),
            "contact_fraction": float(evaluation.contacts.any(-1).double().mean()),
        },
        "loss": [],
        "heads": [],
        "llc": [],
        "hessian": [],
        "laws": [],
        "potentials": [],
        "controls": [],
    }
    for seed in config.seeds:
        curves = Curves(table, "discs", seed)
        last = int(curves.steps[-1])
        summary["loss"].append({"seed": seed, **_losses(curves, last)})
        heads = _heads(run, curves, seed, last, with_onset=True)
        summary["heads"] += heads
        summary["llc"] += _llc(curves, seed)
        summary["hessian"] += _hessian(curves, seed)
        best = max(heads, key=lambda head: head["contact_ap"])
        summary["laws"] += learning_laws(run, curves, seed, best)
        summary["potentials"].append(effective_potential(run, curves, seed, best))
        summary["controls"] += _control(run, curves, "initialisation", seed, int(curves.steps[0]))
    if config.ghost_control:
        seed = config.seeds[0]
        ghosts = Curves(table, "ghosts", seed)
        summary["controls"] += _control(run, ghosts, "ghosts", seed, int(ghosts.steps[-1]))
    return without_nan(summary)


def _losses(curves: Curves, last: int) -> dict[str, float]:
    first = int(curves.steps[0])
    return {
        "initial": curves.at("loss_all", first),
        "final": curves.at("loss_all", last),
        "contact": curves.at("loss_contact", last),
        "free": curves.at("loss_free", last),
        "ballistic_baseline": curves.at("ballistic_loss_all", last),
        "ballistic_contact": curves.at("ballistic_loss_contact", last),
    }


def _heads(run: Run, curves: Curves, seed: int, step: int, *, with_onset: bool) -> list[dict[str, Any]]:
    model = run.config.model
    return [
        _head(curves, seed, step, layer, head, with_onset=with_onset)
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]


def _head(curves: Curves, seed: int, step: int, layer: int, head: int, *, with_onset: bool) -> dict[str, Any]:
    at = {"layer": layer, "head": head}
    entry: dict[str, Any] = {
        "seed": seed,
        "layer": layer,
        "head": head,
        "step": step,
        "contact_ap": curves.at("contact_ap", step, **at),
        "contact_ap_interval": [curves.at(f"contact_ap_{end}", step, **at) for end in ("low", "high")],
        "chance_ap": curves.at("chance_ap", step),
        "nearest_neighbor_ap": curves.at("nearest_neighbor_ap", step),
        "radius_score_excess": curves.at("radius_score_excess", step, **at),
        "distance_correlation": curves.at("distance_correlation", step, **at),
        "correlation_length": curves.at("correlation_length", step, **at),
        "approach_ratio": curves.at("approach_ratio", step, **at),
        "edge_knockout_partner": curves.at("edge_knockout_partner", step, **at),
        "edge_knockout_nonpartner": curves.at("edge_knockout_nonpartner", step, **at),
        "knockout_baseline_loss": curves.at("knockout_baseline_loss", step),
        "p_value": curves.at("contact_ap_p_value", step, **at),
    }
    entry["is_contact_head"] = CRITERIA.met_by(entry)
    if with_onset:
        steps, values, _ = curves.over_steps("contact_ap", **at)
        entry |= onset_of(steps, values, _rng(seed, layer, head))
    return entry


def onset_of(steps: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """When the curve began to rise; NaN where it did not, or where too few checkpoints were measured to tell."""
    usable = (steps > 0) & np.isfinite(values)  # looked for in log step, where step 0 has no place
    if usable.sum() < LEAST_POINTS_OF_AN_ONSET:
        return {"onset_step": math.nan, "onset_interval": [math.nan, math.nan], "onset_p_value": math.nan}
    onset = detect_onset(steps[usable], values[usable], rng=rng)
    return {"onset_step": onset.step, "onset_interval": list(onset.interval), "onset_p_value": onset.p_value}


def _llc(curves: Curves, seed: int) -> list[dict[str, Any]]:
    return [
        {
            "seed": seed,
            "step": step,
            "scope": "model" if layer is None else f"head {layer}.{head}",
            "value": curves.at("llc", step, layer, head),
            "standard_error": curves.error_at("llc", step, layer, head),
            "rhat": curves.at("llc_rhat", step, layer, head),
            "n_diverged": curves.at("llc_n_diverged", step, layer, head),
        }
        for layer, head in curves.places("llc")
        for step in curves.over_steps("llc", layer, head)[0].tolist()
    ]


def _hessian(curves: Curves, seed: int) -> list[dict[str, Any]]:
    steps, traces, errors = curves.over_steps("hessian_trace")
    return [
        {
            "seed": seed,
            "step": int(step),
            "top": float(curves.curve("hessian_eigenvalue", step)["value"].iloc[0]),
            "trace": float(trace),
            "trace_standard_error": float(error),
            "near_null_share": curves.at("near_null_share", step),
            "near_null_interval": [curves.at(f"near_null_share_{end}", step) for end in ("low", "high")],
        }
        for step, trace, error in zip(steps.tolist(), traces, errors, strict=True)
    ]


def _control(run: Run, curves: Curves, name: str, seed: int, step: int) -> list[dict[str, Any]]:
    """Heads of a control at one checkpoint, judged by the same criteria."""
    heads = _heads(run, curves, seed, step, with_onset=False)
    return [{"control": name, **head} for head in heads]


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def without_nan(value: Any) -> Any:
    """Replace NaN and infinities by None, all the way down: JSON has neither."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

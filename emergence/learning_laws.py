"""The laws by which structure emerges: relaxation after the onset, in the clock of gradient flow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import fit_effective_potential, fit_law

from .curves import Curves

if TYPE_CHECKING:
    from .run import Run

LEAST_POINTS = 8
"""Checkpoints after the onset that a law needs."""


def training_times(run: Run, seed: int, steps: np.ndarray, arm: str = "discs") -> np.ndarray:
    """Summed learning rate at each step."""
    checkpoints = run.checkpoints(seed, arm)
    return np.array([checkpoints.meta(int(step))["training_time"] for step in steps])


def learning_laws(run: Run, curves: Curves, seed: int, best: dict[str, Any]) -> list[dict[str, Any]]:
    """Laws of the loss on colliding particles, and of how the best head's attention turns to contacts.

    The window begins at the onset of the best head: a law of emergence cannot be asked before something emerges. The
    fit takes no standard errors, because those of one run are common to all its checkpoints (the same scenes).
    """
    head = (best["layer"], best["head"])
    asked = [("loss_contact", None, None), ("contact_ap", *head)]
    return [_law(run, curves, seed, best, number, *quantity) for number, quantity in enumerate(asked)]


def effective_potential(run: Run, curves: Curves, seed: int, best: dict[str, Any]) -> dict[str, Any]:
    """Degree of the potential from the loss on colliding particles and the best head's precision, relaxing together."""
    entry: dict[str, Any] = {"seed": seed, "layer": best["layer"], "head": best["head"]}
    t, loss = _since_onset(run, curves, seed, best, "loss_contact")
    _, precision = _since_onset(run, curves, seed, best, "contact_ap", best["layer"], best["head"])
    if len(t) < LEAST_POINTS or np.ptp(loss) == 0 or np.ptp(precision) == 0:
        return {**entry, "preferred": "undecided", "reason": _too_few(len(t)), "k": math.nan}
    fit = fit_effective_potential(t, loss, precision, rng=np.random.default_rng((seed, 200)))
    return {
        **entry,
        "preferred": fit.preferred,
        "reason": fit.reason,
        "k": fit.k,
        "k_interval": list(fit.k_interval),
        "loss_exponent": fit.loss_exponent,
        "loss_interval": list(fit.loss_interval),
        "relaxation_exponent": fit.relaxation_exponent,
        "relaxation_interval": list(fit.relaxation_interval),
        "k_over_m": fit.k_over_m,
        "k_over_m_interval": list(fit.k_over_m_interval),
        "weights": fit.weights,
        "window": list(fit.window),
    }


def _law(
    run: Run, curves: Curves, seed: int, best: dict[str, Any], number: int, quantity: str, layer: Any, head: Any
) -> dict[str, Any]:
    label = quantity if layer is None else f"{quantity} {layer}.{head}"
    t, y = _since_onset(run, curves, seed, best, quantity, layer, head)
    if len(t) < LEAST_POINTS:
        nothing = {"exponent": math.nan, "interval": [math.nan, math.nan], "window": None, "weights": {}}
        return {
            "seed": seed,
            "quantity": label,
            "preferred": "undecided",
            "reason": _too_few(len(t)),
            "parameters": {},
            **nothing,
        }
    fit = fit_law(t, y, rng=np.random.default_rng((seed, 100 + number)))
    return {
        "seed": seed,
        "quantity": label,
        "preferred": fit.preferred,
        "reason": fit.reason,
        "exponent": fit.exponent,
        "interval": list(fit.interval),
        "window": list(fit.window),
        "weights": fit.weights,
        "parameters": fit.parameters,
    }


def _since_onset(
    run: Run,
    curves: Curves,
    seed: int,
    best: dict[str, Any],
    quantity: str,
    layer: int | None = None,
    head: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Training times and values from the onset of the best head on; from step 1 if it has none."""
    steps, values, _ = curves.over_steps(quantity, layer, head)
    begin = best["onset_step"] if math.isfinite(best["onset_step"]) else 1
    kept = (steps >= begin) & np.isfinite(values)
    return training_times(run, seed, steps[kept]), values[kept]


def _too_few(n: int) -> str:
    return f"{n} usable checkpoints since the onset; a law needs {LEAST_POINTS} that vary"

"""RMSprop preconditioning: the documented step, and what is refused. Its law is tested among the truths."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from learning_coefficients import Point

from probes.llc import Rmsprop, estimate_llc

FULL = [torch.zeros(1, dtype=torch.float64)]
SHORT: dict[str, Any] = {"nbeta": 5.0, "step_size": 0.01, "localization": 3.0, "n_chains": 4000, "n_draws": 4}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def line(model: Any, batch: Any) -> torch.Tensor:
    """Slope 2: the trace reveals the position."""
    return 2.0 * model.w.sum()


def positions(preconditioner: Rmsprop, n_burnin: int) -> np.ndarray:
    got = estimate_llc(
        Point(1), FULL, loss_fn=line, **SHORT, n_burnin=n_burnin, preconditioner=preconditioner, generator=seeded()
    )
    return np.concatenate([got.burnin_trace, got.loss_trace], axis=1) / 2.0  # chain step


@pytest.mark.parametrize("adapts", [False, True])
def test_each_step_is_the_documented_one(adapts):
    """V after k steps at gradient 2 is ``4 (1 - decay^k)``; drift and noise follow G, averaged over 4000 chains."""
    step, n_burnin, decay, damping = SHORT["step_size"], 2, 0.5, 0.3
    w = positions(Rmsprop(decay=decay, damping=damping, adapts_while_drawing=adapts), n_burnin)
    for t in range(w.shape[1] - 1):
        updates = t + 1 if adapts else min(t + 1, n_burnin)
        scale = 1 / (damping + math.sqrt(4 * (1 - decay**updates)))
        drift = -step / 2 * scale * (SHORT["nbeta"] * 2.0 + SHORT["localization"] * w[:, t])
        noise = w[:, t + 1] - w[:, t] - drift
        assert abs(noise.mean()) < 4 * math.sqrt(step * scale / len(noise))
        assert noise.var() == pytest.approx(step * scale, rel=4 * math.sqrt(2 / len(noise)))


def test_entries_of_unequal_gradient_get_unequal_steps():
    """A stiff and a soft direction, 100 to 1, mix alike; plain SGLD leaves the soft one behind."""
    h = torch.tensor([10.0, 0.1], dtype=torch.float64)

    def ellipse(model: Any, batch: Any) -> torch.Tensor:
        return 0.5 * (h * model.w.square()).sum()

    def run(preconditioner: Rmsprop | None, step_size: float) -> float:
        return estimate_llc(
            Point(2), FULL, loss_fn=ellipse, nbeta=1000.0, step_size=step_size, localization=1.0, n_chains=100,
            n_draws=500, n_burnin=500, preconditioner=preconditioner, generator=seeded(),
        ).ess  # fmt: skip

    plain, preconditioned = run(None, 2e-5), run(Rmsprop(damping=1e-3), 6e-6)  # both 5 to 10 % of λ̂ from the step
    assert preconditioned > 2 * plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": 1.0}, r"decay must be at least 0 and below 1, got 1\.0"),
        ({"damping": 0.0}, r"damping must be finite and positive, got 0\.0"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Rmsprop(**change)


def test_too_short_a_burn_in_to_learn_in_is_refused():
    with pytest.raises(ValueError, match=r"n_burnin must be at least 1 / \(1 - decay\) = 100 steps, .*; got 99"):
        positions(Rmsprop(), 99)
    positions(Rmsprop(adapts_while_drawing=True), 0)

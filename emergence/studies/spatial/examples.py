"""The examples of brain-inspired modular training, each with the settings it was published with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ...config import AdamW, TrainingConfig
from ...interventions import spatial
from ...perceptron import Perceptron
from ...recurrent import ContinuousTimeRNN
from ...tasks import Task
from ...tasks.classes import modular_addition, two_moons
from ...tasks.cognitive import N_INPUTS, N_OUTPUTS, CognitiveTask
from ...tasks.symbolic import symbolic_task

ExampleName = Literal["independence", "feature-sharing", "composition", "two-moons", "modular-addition", "cognitive"]
WHOLE_SET = 10**6
"""More examples than any of the small tasks has: every step sees them all."""


@dataclass(frozen=True)
class Example:
    """What is learnt, by what network, laid out how, under which price.

    Attributes:
        task: drawn by a generator of random numbers.
        model: drawn by a generator.
        place: gives its neurons their places.
        spatial: the price of wire in the full method.
        training: the rest of the settings.
        price_of_l1: factor on the price for arms that pay for size alone, so that their error comes near the others'.
    """

    task: Callable[[np.random.Generator], Task]
    model: Callable[[torch.Generator], nn.Module]
    place: Callable[[nn.Module], spatial.Placement]
    spatial: spatial.Spatial
    training: TrainingConfig
    price_of_l1: float = 1.0


def example(name: ExampleName) -> Example:
    """Return an example by name, one of ``EXAMPLES``.

    All but the last are those of Liu, Gan & Tegmark 2023 (arXiv 2305.08746, sections 3.1 to 3.3, and their public
    code), but for a learning rate that falls to zero over the last tenth: connections that nobody needs then settle at
    zero, where theirs are cut by a threshold after training. Of the recurrent network (Liu, Khona, Fiete & Tegmark
    2023, arXiv 2310.07711) neither price nor length of training is published; ours were chosen on seed 0.
    """
    return _EXAMPLES[name]()


def _laid_out(layout: Any, price: spatial.Spatial, **rest: Any) -> Example:
    """An example whose neurons lie on ``layout``, at the cost that the price says."""
    return Example(spatial=price, place=lambda model: spatial.place(model, layout, **price.cost), **rest)


def _training(n_steps: int, learning_rate: float) -> TrainingConfig:
    return TrainingConfig(
        n_steps=n_steps,
        batch_size=WHOLE_SET,
        optimizer=AdamW(learning_rate=learning_rate),
        n_warmup_steps=0,
        n_decay_steps=n_steps // 10,
        n_checkpoints=40,
    )


def _symbolic(formula: str, widths: list[int], schedule: tuple[tuple[float, float], ...]) -> Callable[[], Example]:
    def build() -> Example:
        return _laid_out(
            "line",
            spatial.Spatial(strength=1e-3, schedule=schedule, swap_every=200, n_candidates=5, biases_from=0.75),
            task=lambda rng: symbolic_task(formula, rng=rng),
            model=lambda generator: Perceptron(widths, generator),
            training=_training(20_000, 2e-3),
        )

    return build


def _two_moons() -> Example:
    return _laid_out(
        "line",
        spatial.Spatial(
            layer_gap=0.2, strength=1e-3, schedule=((0.0, 1.0), (0.5, 10.0)), swap_every=200, n_candidates=10
        ),
        task=lambda rng: two_moons(rng=rng),
        model=lambda generator: Perceptron([2, 20, 20, 2], generator),
        training=_training(10_000, 2e-3),
    )


def _modular_addition() -> Example:
    return _laid_out(
        "line",
        spatial.Spatial(
            reduction="mean",
            layer_gap=0.5,
            locality=2.0,
            strength=0.1,
            schedule=((0.0, 1.0), (0.25, 10.0), (0.75, 1.0)),
            swap_every=200,
            n_candidates=30,
        ),
        task=lambda rng: modular_addition(rng=rng),
        model=lambda generator: Perceptron([64, 50, 50, 59], generator, embedding=(59, 32)),
        training=_training(20_000, 1e-3),
    )


def _cognitive() -> Example:
    """400 units on a 20 x 20 grid. Inputs and outputs have no place: whether theirs had one is not published."""
    return _laid_out(
        {"*": None, "cell": spatial.Grid((20, 20))},
        spatial.Spatial(strength=1e-4, swap_every=200, n_candidates=30),
        task=lambda rng: CognitiveTask(),
        model=lambda generator: ContinuousTimeRNN(N_INPUTS, 400, N_OUTPUTS, generator),
        training=TrainingConfig(
            n_steps=24_000,
            batch_size=8,
            n_warmup_steps=100,
            n_decay_steps=8000,
            n_checkpoints=24,
            max_gradient_norm=1.0,
        ),
        price_of_l1=1.5,
    )


_RISE_AND_FALL = ((0.0, 1.0), (0.25, 10.0), (0.75, 1.0))
_EXAMPLES: dict[str, Callable[[], Example]] = {
    "independence": _symbolic("independence", [4, 20, 20, 2], _RISE_AND_FALL),
    "feature-sharing": _symbolic("feature-sharing", [3, 20, 20, 3], _RISE_AND_FALL),
    "composition": _symbolic("composition", [4, 20, 20, 20, 20, 1], ((0.0, 1.0), (0.25, 3.0))),
    "two-moons": _two_moons,
    "modular-addition": _modular_addition,
    "cognitive": _cognitive,
}
EXAMPLES = tuple(_EXAMPLES)

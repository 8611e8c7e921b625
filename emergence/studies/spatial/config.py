"""Settings of a spatial study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from ...config import TrainingConfig, _require, _require_counts
from ...interventions.spatial import ARMS, ArmName
from ..settings import require_distinct
from .examples import EXAMPLES, Example, ExampleName, example


def with_steps(training: TrainingConfig, n_steps: int) -> TrainingConfig:
    """As many steps as asked for; the rise and the fall of the learning rate keep their shares."""
    share = n_steps / training.n_steps
    return replace(
        training,
        n_steps=n_steps,
        n_warmup_steps=int(training.n_warmup_steps * share),
        n_decay_steps=int(training.n_decay_steps * share),
    )


@dataclass(frozen=True)
class SpatialStudyConfig:
    """Train the arms of an example over seeds and prices of wire, and measure how modular they end.

    Attributes:
        example: task, network and settings, see ``emergence.studies.spatial.examples``.
        arms: parts of the method that are on.
        seeds: training runs of each arm.
        strengths: factors on the example's price of wire, each a run of its own (the arm ``none`` has no price).
        n_steps: in place of the example's; schedules keep their proportions.
        n_trials: of each cognitive task, for accuracy and functional clusters.
        n_shuffles: rewired graphs behind the null of modularity (400 units that are all connected take seconds each);
            anatomy, which is cheap, has its 10 000.
    """

    example: Annotated[ExampleName, tyro.conf.Suppress] = "independence"
    arms: tuple[ArmName, ...] = ("none", "l1", "full")
    seeds: tuple[int, ...] = (0, 1, 2)
    strengths: tuple[float, ...] = (1.0,)
    n_steps: int | None = None
    n_trials: int = 200
    n_shuffles: int = 19

    def __post_init__(self) -> None:
        require_distinct(self, "arms", "seeds", "strengths")
        _require(set(self.arms) <= set(ARMS), "arms", f"among {', '.join(ARMS)}", self.arms)
        prices = [f"{s:g}" for s in self.strengths]  # as folders name them
        _require(len(set(prices)) == len(prices), "strengths", "distinct in six digits", self.strengths)
        _require(min(self.seeds) >= 0, "seeds", "zero or positive", self.seeds)
        _require(all(0 < s < math.inf for s in self.strengths), "strengths", "positive and finite", self.strengths)
        _require(self.example in EXAMPLES, "example", f"one of {', '.join(EXAMPLES)}", self.example)
        _require_counts(self, "spatial study", 2, "n_trials", "n_shuffles")
        if self.n_steps is not None:
            _require_counts(self, "spatial study", 1, "n_steps")

    def example_settings(self) -> Example:
        """The example, with as many steps as asked for."""
        found = example(self.example)
        if self.n_steps is None:
            return found
        return replace(found, training=with_steps(found.training, self.n_steps))

    @property
    def runs(self) -> list[SpatialRun]:
        """All training runs."""
        return [
            SpatialRun(arm, strength, seed)
            for arm in self.arms
            for strength in (self.strengths if arm != "none" else (1.0,))
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class SpatialRun:
    """One training run of a study."""

    arm: ArmName
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}_{self.strength:g}/seed_{self.seed}"

"""Settings of a study of learning by next-layer attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

import tyro

from ...config import AdamW, TrainingConfig, _require, _require_counts
from ...interventions.settings import AttentionName
from ..settings import require_distinct, require_rates_and_seeds, scheduled_training
from ..supervised import TASKS, TaskName

RULES: tuple[AttentionName, ...] = get_args(AttentionName)
"""All attentions and feedbacks that have a name."""


@dataclass(frozen=True)
class NextLayerStudyConfig:
    """Train every rule at every depth, loss of messages and learning rate; choose the rate by validation.

    Attributes:
        task: what is learnt; the last three are real data that scikit-learn ships.
        rules: how error signals travel back, by name from ``ATTENTIONS`` and ``FEEDBACKS``; all else is alike.
        depths: hidden layers.
        width: neurons of each.
        drops: chances that a message is lost while a network learns.
        learning_rates: of Adam, the same to every rule. In trials a rate below or above all of these was seldom better:
            shallow networks learn best near the largest, deep ones and small data near the smaller ones.
        seeds: training runs of each rule at each depth, drop and rate.
        n_steps: of training, each.
        batch_size: examples a step.
    """

    task: Annotated[TaskName, tyro.conf.Suppress] = "digits"
    rules: tuple[AttentionName, ...] = (
        "backpropagation",
        "absolute",
        "normalised",
        "competitive",
        "feedback_alignment",
        "direct_feedback_alignment",
    )
    depths: tuple[int, ...] = (2, 4, 8, 16, 32)
    width: int = 64
    drops: tuple[float, ...] = (0.0,)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    n_steps: int = 500
    batch_size: int = 64

    def __post_init__(self) -> None:
        require_distinct(self, "rules", "depths", "drops")
        _require(self.task in TASKS, "task", f"one of {', '.join(TASKS)}", self.task)
        _require(set(self.rules) <= set(RULES), "rules", f"among {', '.join(RULES)}", self.rules)
        _require(min(self.depths) >= 1, "depths", "at least 1", self.depths)
        _require(all(0 <= drop < 1 for drop in self.drops), "drops", "at least 0 and below 1", self.drops)
        require_rates_and_seeds(self)
        _require_counts(self, "next-layer study", 1, "width", "n_steps", "batch_size")

    def training(self, learning_rate: float) -> TrainingConfig:
        """With Adam, on the schedule of all."""
        return scheduled_training(self, AdamW(learning_rate=learning_rate, weight_decay=0.0), n_checkpoints=10)

    @property
    def runs(self) -> list[NextLayerRun]:
        """All training runs."""
        return [
            NextLayerRun(rule, depth, drop, rate, seed)
            for depth in self.depths
            for drop in self.drops
            for rule in self.rules
            for rate in self.learning_rates
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class NextLayerRun:
    """One training run of a study."""

    rule: AttentionName
    depth: int
    drop: float
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.rule}/depth_{self.depth}_drop_{self.drop:g}/rate_{self.learning_rate:g}/seed_{self.seed}"

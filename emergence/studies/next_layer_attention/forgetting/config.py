"""Settings of a study of forgetting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from ....config import _require, _require_counts
from ....interventions.settings import AttentionName
from ...settings import require_distinct, require_rates_and_seeds
from ..config import RULES

SequenceName = Literal["split-digits", "permuted-digits"]
SEQUENCES: tuple[SequenceName, ...] = get_args(SequenceName)


@dataclass(frozen=True)
class ForgettingStudyConfig:
    """Learn tasks one after the other, each to the same accuracy whatever the rule, and measure what is forgotten.

    Attributes:
        task: which of two digits a picture shows, pair after pair, answered by the same two outputs; or all ten digits,
            their pixels put in another order for each task.
        rules: how error signals travel back, by name from ``ATTENTIONS`` and ``FEEDBACKS``; all else is alike.
        n_tasks: in the sequence; at most five pairs.
        depth: hidden layers.
        width: neurons of each.
        criterion: accuracy on validation at which a task is left for the next. Of a pair of digits validation holds
            some fifty pictures, of which the hardest pairs never have 95 % right.
        n_steps_at_most: on a task, should the criterion not be reached.
        check_every: steps between looks at the accuracy.
        learning_rates: of Adam, the same to every rule. Each gets the one with the highest accuracy over all tasks at
            the end, on validation: the smaller the rate, the less is forgotten, by every rule, and the more steps it
            takes.
        seeds: training runs of each rule and rate.
        batch_size: examples a step.
    """

    task: Annotated[SequenceName, tyro.conf.Suppress] = "split-digits"
    rules: tuple[AttentionName, ...] = (
        "backpropagation",
        "absolute",
        "normalised",
        "competitive",
        "feedback_alignment",
        "direct_feedback_alignment",
    )
    n_tasks: int = 5
    depth: int = 3
    width: int = 64
    criterion: float = 0.9
    n_steps_at_most: int = 2000
    check_every: int = 2
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batch_size: int = 64

    def __post_init__(self) -> None:
        require_distinct(self, "rules")
        _require(self.task in SEQUENCES, "task", f"one of {', '.join(SEQUENCES)}", self.task)
        _require(set(self.rules) <= set(RULES), "rules", f"among {', '.join(RULES)}", self.rules)
        most = 5 if self.task == "split-digits" else 100
        _require(2 <= self.n_tasks <= most, "n_tasks", f"from 2 to {most}", self.n_tasks)
        _require(0 < self.criterion < 1, "criterion", "between zero and one", self.criterion)
        require_rates_and_seeds(self)
        names = ("depth", "width", "n_steps_at_most", "check_every", "batch_size")
        _require_counts(self, "forgetting study", 1, *names)

    @property
    def runs(self) -> list[ForgettingRun]:
        """All training runs."""
        return [
            ForgettingRun(rule, rate, seed)
            for rule in self.rules
            for rate in self.learning_rates
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class ForgettingRun:
    """One network, through all tasks."""

    rule: AttentionName
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.rule}/rate_{self.learning_rate:g}/seed_{self.seed}"

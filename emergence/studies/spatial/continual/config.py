"""Settings of a continual study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulators.cognitive import TASKS

from ....config import _require, _require_counts
from ....interventions.spatial import ArmName
from ....tasks.symbolic import formula_names
from ...settings import require_distinct
from ..config import SpatialRun

ContinualExample = Literal["independence", "feature-sharing", "cognitive"]


@dataclass(frozen=True)
class ContinualStudyConfig:
    """Teach arms the old tasks of an example, then its new ones alone, and measure what the new ones cost the old.

    Attributes:
        example: formulas (a minute or so a run) or the twenty cognitive tasks (much longer), see
            ``emergence.studies.spatial.examples``.
        new: names of the tasks that are learnt second, all others being old. Empty: the last formula, or the four
            matching tasks.
        arms: parts of the method that are on, in both stages.
        strengths: factors on the example's price of wire, one for all arms or one for each, so that arms can be brought
            to the same accuracy in the old tasks. The arm ``none`` has no price.
        later_prices: factors on the price while the new tasks are learnt, each a run of its own from the same network.
            At 1 wire that serves the old tasks alone is paid for with nothing in return; at 0 it costs nothing.
        seeds: training runs of each arm.
        n_steps: on the old tasks, in place of the example's; schedules keep their proportions.
        n_new_steps: on the new tasks; None takes a quarter of the steps on the old ones.
        n_checkpoints: moments at which accuracy is measured while the new tasks are learnt, log-spaced.
        threshold: accuracy in the new tasks, their mean, at which arms are compared; None takes the highest, in whole
            percent, that every run reaches.
        tolerance: in the accuracy of old tasks before the new, for arms to count as matched.
        n_trials: of each cognitive task, for accuracy.
    """

    example: ContinualExample = "independence"
    new: tuple[str, ...] = ()
    arms: tuple[ArmName, ...] = ("none", "l1", "full")
    strengths: tuple[float, ...] = (1.0,)
    later_prices: tuple[float, ...] = (1.0, 0.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    n_steps: int | None = None
    n_new_steps: int | None = None
    n_checkpoints: int = 24
    threshold: float | None = None
    tolerance: float = 0.05
    n_trials: int = 200

    def __post_init__(self) -> None:
        require_distinct(self, "arms", "seeds", "later_prices")
        _require(min(self.seeds) >= 0, "seeds", "zero or positive", self.seeds)
        fits = len(self.strengths) in (1, len(self.arms)) and min(self.strengths) > 0
        _require(fits, "strengths", f"positive, one or one for each of {len(self.arms)} arms", self.strengths)
        _require(min(self.later_prices) >= 0, "later_prices", "zero or positive", self.later_prices)
        _require_counts(self, "continual study", 2, "n_trials", "n_checkpoints")
        for name in ("n_steps", "n_new_steps"):
            if getattr(self, name) is not None:
                _require_counts(self, "continual study", 1, name)
        _require(self.threshold is None or 0 < self.threshold <= 1, "threshold", "in (0, 1]", self.threshold)
        _require(self.tolerance >= 0, "tolerance", "zero or positive", self.tolerance)
        known = ", ".join(self.names)
        fits = len(set(self.new)) == len(self.new) < len(self.names) and set(self.new) <= set(self.names)
        _require(fits, "new", f"distinct, some but not all of {known}", self.new)

    @property
    def names(self) -> tuple[str, ...]:
        """All tasks of the example."""
        return TASKS if self.example == "cognitive" else formula_names(self.example)

    @property
    def new_tasks(self) -> tuple[str, ...]:
        """Names of those learnt second, in the order of the example."""
        usual = TASKS[-4:] if self.example == "cognitive" else self.names[-1:]
        return tuple(name for name in self.names if name in (self.new or usual))

    @property
    def old_tasks(self) -> tuple[str, ...]:
        """Names of those learnt first."""
        return tuple(name for name in self.names if name not in self.new_tasks)

    @property
    def runs(self) -> list[SpatialRun]:
        """All runs on the old tasks."""
        strengths = self.strengths * len(self.arms) if len(self.strengths) == 1 else self.strengths
        return [
            SpatialRun(arm, strength if arm != "none" else 1.0, seed)
            for arm, strength in zip(self.arms, strengths, strict=True)
            for seed in self.seeds
        ]

    def prices_later(self, arm: ArmName) -> tuple[float, ...]:
        """What is trained after a run of an arm; without a price there is nothing to change."""
        return self.later_prices if arm != "none" else (1.0,)

"""Settings of a study of structured layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ...config import AdamW, TrainingConfig, _require, _require_counts
from ...interventions.settings import StructureName
from ..settings import require_distinct, require_rates_and_seeds, scheduled_training
from ..supervised import TASKS, TaskName

ArmName = Literal["plain", "residual", "structure", "structured"]
ARMS: tuple[ArmName, ...] = ("plain", "residual", "structure", "structured")


@dataclass(frozen=True)
class StructuredStudyConfig:
    """Train every arm at every depth, width and learning rate; choose the rate by validation; measure conditioning.

    Attributes:
        task: what is learnt; the last three are real data that scikit-learn ships.
        arms: affine layers, layers with a skip connection, structure alone, structure with its correction. All arms
            have as many numbers to learn, but for structure alone, which has fewer.
        structure: see ``emergence.interventions.structured``.
        correction: bound on the Jacobian of the correction, ``e``.
        penalty: on the correction's share of the output.
        depths: hidden layers.
        widths: of a structured layer.
        learning_rates: the same to every arm.
        seeds: training runs of each arm at each depth, width and rate.
        n_steps: of training, each.
        batch_size: examples a step.
    """

    task: Annotated[TaskName, tyro.conf.Suppress] = "digits"
    arms: tuple[ArmName, ...] = ARMS
    structure: StructureName = "orthogonal"
    correction: float = 0.1
    penalty: float = 0.0
    depths: tuple[int, ...] = (4, 8, 16, 32, 64)
    widths: tuple[int, ...] = (64,)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    n_steps: int = 1000
    batch_size: int = 64

    def __post_init__(self) -> None:
        require_distinct(self, "arms", "depths", "widths")
        _require(self.task in TASKS, "task", f"one of {', '.join(TASKS)}", self.task)
        _require(set(self.arms) <= set(ARMS), "arms", f"among {', '.join(ARMS)}", self.arms)
        _require(0 < self.correction < 1, "correction", "above zero and below one", self.correction)
        _require(self.penalty >= 0, "penalty", "zero or positive", self.penalty)
        _require(min(self.depths) >= 2, "depths", "at least 2", self.depths)
        _require(min(self.widths) >= 4, "widths", "at least 4", self.widths)
        require_rates_and_seeds(self)
        _require_counts(self, "structured study", 1, "n_steps", "batch_size")

    def training(self, learning_rate: float) -> TrainingConfig:
        """With Adam, on the schedule of all."""
        return scheduled_training(self, AdamW(learning_rate=learning_rate, weight_decay=0.0), n_checkpoints=2)

    @property
    def runs(self) -> list[StructuredRun]:
        """All training runs."""
        return [
            StructuredRun(arm, depth, width, rate, seed)
            for width in self.widths
            for depth in self.depths
            for arm in self.arms
            for rate in self.learning_rates
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class StructuredRun:
    """One training run of a study."""

    arm: ArmName
    depth: int
    width: int
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}/depth_{self.depth}_width_{self.width}/rate_{self.learning_rate:g}/seed_{self.seed}"

"""Settings of a study of weight manifolds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...config import SGD, TrainingConfig, _require, _require_counts
from ..spatial.config import require_distinct

TaskName = Literal["rotated-digits", "noisy-digits"]
TASKS: tuple[TaskName, ...] = ("rotated-digits", "noisy-digits")
ArmName = Literal[
    "manifold", "plain_gradient", "wrong_topology", "raw", "raw_wide", "basis", "basis_wide", "film", "separate"
]
ARMS: tuple[ArmName, ...] = (
    "manifold", "plain_gradient", "wrong_topology", "raw", "raw_wide", "basis", "basis_wide", "film", "separate"
)  # fmt: skip


@dataclass(frozen=True)
class ManifoldStudyConfig:
    """Train every arm at every learning rate; choose the rate by validation; measure contexts seen and never seen.

    Attributes:
        task: handwritten digits turned by a context on a circle, or with noise of a context's strength.
        arms: the manifold of the task's topology; the same without its metric; the other topology, with its metric;
            the context as one more input (raw) or as the manifold's basis functions (basis), each as wide as the
            manifold or so wide that it has as many numbers (wide); hidden layers scaled and shifted by the context
            (FiLM); a network of its own for each of ``N_SEPARATE`` parts of the contexts.
        width: of two hidden layers.
        learning_rates: the same to every arm.
        seeds: training runs of each arm at each rate.
        n_steps: of training, each, by stochastic gradients with momentum.
        batch_size: examples a step, each at a context of its own.
    """

    task: Annotated[TaskName, tyro.conf.Suppress] = "rotated-digits"
    arms: tuple[ArmName, ...] = ARMS
    width: int = 64
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    n_steps: int = 4000
    batch_size: int = 128

    def __post_init__(self) -> None:
        require_distinct(self, "arms", "learning_rates", "seeds")
        _require(self.task in TASKS, "task", f"one of {', '.join(TASKS)}", self.task)
        _require(set(self.arms) <= set(ARMS), "arms", f"among {', '.join(ARMS)}", self.arms)
        _require(min(self.learning_rates) > 0, "learning_rates", "positive", self.learning_rates)
        _require(min(self.seeds) >= 0, "seeds", "zero or positive", self.seeds)
        _require_counts(self, "weight-manifold study", 1, "width", "n_steps", "batch_size")

    def training(self, learning_rate: float) -> TrainingConfig:
        """The same schedule for all: a short rise, and a fall over the last quarter."""
        return TrainingConfig(
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            optimizer=SGD(learning_rate=learning_rate, momentum=0.9),
            n_warmup_steps=self.n_steps // 20,
            n_decay_steps=self.n_steps // 4,
            n_checkpoints=2,
        )

    @property
    def runs(self) -> list[ManifoldRun]:
        """All training runs."""
        return [
            ManifoldRun(arm, rate, seed) for arm in self.arms for rate in self.learning_rates for seed in self.seeds
        ]


@dataclass(frozen=True)
class ManifoldArguments:
    """Train every arm, measure it at contexts seen and never seen, write report.html.

    Attributes:
        study: all settings of the study.
        out: folder; the same command again resumes it. Default: runs/manifold-TASK.
        n_workers: runs trained side by side; 0 takes as many as there are cores.
    """

    study: Annotated[ManifoldStudyConfig, tyro.conf.arg(name="")] = field(default_factory=ManifoldStudyConfig)
    out: Path | None = None
    n_workers: int = 0


@dataclass(frozen=True)
class ManifoldRun:
    """One training run of a study."""

    arm: ArmName
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}/rate_{self.learning_rate:g}/seed_{self.seed}"

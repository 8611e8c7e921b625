"""Settings of a study of weight manifolds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import tyro

from ...config import SGD, AdamW, TrainingConfig, _require, _require_counts
from ..settings import require_distinct, require_rates_and_seeds, scheduled_training

DigitsName = Literal["rotated-digits", "noisy-digits"]
ParticlesName = Literal["gravity-strength", "gravity-direction", "direction-and-restitution"]
TaskName = Literal[DigitsName, ParticlesName]
DIGITS: tuple[DigitsName, ...] = get_args(DigitsName)
PARTICLES: tuple[ParticlesName, ...] = get_args(ParticlesName)
ArmName = Literal[
    "manifold",
    "plain_gradient",
    "wrong_topology",
    "plain",
    "raw",
    "raw_wide",
    "basis",
    "basis_wide",
    "film",
    "separate",
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)


@dataclass(frozen=True)
class ManifoldStudyConfig:
    """Train every arm at every learning rate; choose the rate by validation; measure contexts seen and never seen.

    Attributes:
        task: handwritten digits turned by a context on a circle, or with noise of a context's strength.
        arms: the manifold of the task's topology; the same without its metric; another topology, with its metric; the
            network that is not told the context (plain); the context as further inputs (raw) or as the manifold's basis
            functions (basis), each as wide as the manifold or so wide that it has as many numbers (wide); units scaled
            and shifted by the context (FiLM); a network of its own for each of ``N_SEPARATE`` parts of the contexts.
        width: of two hidden layers.
        learning_rates: the same to every arm.
        seeds: training runs of each arm at each rate.
        n_steps: of training, each.
        batch_size: examples a step, each at a context of its own.
    """

    task: Annotated[DigitsName | ParticlesName, tyro.conf.Suppress] = "rotated-digits"
    arms: tuple[ArmName, ...] = ARMS
    width: int = 64
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    n_steps: int = 4000
    batch_size: int = 128

    tasks: ClassVar[tuple[str, ...]] = DIGITS
    n_checkpoints: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_distinct(self, "arms")
        _require(self.task in self.tasks, "task", f"one of {', '.join(self.tasks)}", self.task)
        _require(set(self.arms) <= set(ARMS), "arms", f"among {', '.join(ARMS)}", self.arms)
        require_rates_and_seeds(self)
        _require_counts(self, "weight-manifold study", 1, "width", "n_steps", "batch_size")

    def optimizer(self, learning_rate: float) -> SGD | AdamW:
        """Stochastic gradients with momentum, under which the metric is what the method says."""
        return SGD(learning_rate=learning_rate, momentum=0.9)

    def training(self, learning_rate: float) -> TrainingConfig:
        """On the schedule of all."""
        return scheduled_training(self, self.optimizer(learning_rate), self.n_checkpoints)

    @property
    def runs(self) -> list[ManifoldRun]:
        """All training runs."""
        return [
            ManifoldRun(arm, rate, seed) for arm in self.arms for rate in self.learning_rates for seed in self.seeds
        ]


@dataclass(frozen=True)
class SteeredStudyConfig(ManifoldStudyConfig):
    """Train particle transformers that gravity steers through their weights, against other ways to tell them.

    Attributes:
        task: hard discs under gravity of a context's strength (line), direction (ellipse), or of a context's direction
            with its restitution (torus).
        arms: see ``ManifoldStudyConfig``; FiLM scales and shifts what the norms before attention and MLP give.
        width: of the residual stream of two layers with four heads.
        learning_rates: the same to every arm.
        seeds: training runs of each arm at each rate.
        n_steps: of training, each, by Adam after the metric.
        batch_size: scenes a step, each at a context of its own.
    """

    task: Annotated[DigitsName | ParticlesName, tyro.conf.Suppress] = "gravity-direction"
    width: int = 32
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    n_steps: int = 1000

    tasks: ClassVar[tuple[str, ...]] = PARTICLES
    n_checkpoints: ClassVar[int] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.width % 4 == 0, "width", "a multiple of 4, the number of heads", self.width)

    def optimizer(self, learning_rate: float) -> SGD | AdamW:
        """Adam, by which transformers are trained."""
        return AdamW(learning_rate=learning_rate)


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

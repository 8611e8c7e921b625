"""Train one run of a spatial study, and bring a checkpoint back with the places it had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...checkpoints import Checkpoints
from ...interventions.spatial import Placement, SpatialTraining
from ...tasks import Task
from ...training import missing_steps, state_of_method, train
from .config import SpatialRun
from .examples import Example


@dataclass(frozen=True)
class TrainedRun:
    """Checkpoints of one run.

    Attributes:
        run: arm, strength and seed.
        example: what was trained.
        checkpoints: the snapshots.
    """

    run: SpatialRun
    example: Example
    checkpoints: Checkpoints

    @property
    def task(self) -> Task:
        """The examples of this seed, the same for all arms."""
        return self.example.task(np.random.default_rng((self.run.seed, 1)))

    def load(self, step: int) -> tuple[nn.Module, Placement]:
        """The network of a step, placed as it was then."""
        model = self.checkpoints.load(step)
        method = self._method(model)
        method.load_state(state_of_method(self.checkpoints.training_state(step)))
        return model, method.placement

    def train(self) -> None:
        """Train to the end, going on from the last checkpoint."""
        if not missing_steps(self.example.training, self.checkpoints):
            return
        model = self.checkpoints.make_model()
        train(
            model,
            self.task,
            self.example.training,
            seed=self.run.seed,
            checkpoints=self.checkpoints,
            intervention=self._method(model),
            metrics_file=self.checkpoints.folder / "metrics.jsonl",
        )

    def _method(self, model: nn.Module) -> SpatialTraining:
        price = self.example.spatial
        factor = self.run.strength * (self.example.price_of_l1 if self.run.arm in ("l1", "l1_swap") else 1.0)
        settings = replace(price, arm=self.run.arm, strength=price.strength * factor)
        return SpatialTraining(model, self.example.place(model), settings, self.example.training.n_steps)


def trained_run(folder: Path, run: SpatialRun, example: Example) -> TrainedRun:
    """The run whose checkpoints are in ``folder``."""

    def make_model() -> nn.Module:
        return example.model(torch.Generator().manual_seed(run.seed))

    return TrainedRun(run, example, Checkpoints(folder / "checkpoints" / run.name, make_model))

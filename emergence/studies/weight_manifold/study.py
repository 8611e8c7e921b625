"""A study of weight manifolds from settings to page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from probes import Measurement

from ...checkpoints import Checkpoints
from ...interventions import weight_manifold
from ...interventions.intervention import Intervention
from ...training import missing_steps, train
from ..study import method_study
from .config import ManifoldRun, ManifoldStudyConfig
from .networks import make_network
from .task import CONTEXTS, ContextTask, Range, digits_task, uniform

N_GRID = 41
"""Contexts from zero to one at which the error is told."""
N_CONTEXTS = 20
"""Contexts of each kind (learnt, interpolated, extrapolated) over which errors are averaged; at each, all digits."""


def _train_and_measure(cell: tuple[Path, ManifoldStudyConfig, ManifoldRun]) -> pd.DataFrame:
    """Train one run and measure it. All arms of a seed see the same digits at the same contexts."""
    folder, config, run = cell
    task = digits_task(config.task, rng=np.random.default_rng((run.seed, 1)))
    training = config.training(run.learning_rate)

    def make_model() -> nn.Module:
        return make_network(run.arm, config.task, config.width, torch.Generator().manual_seed(run.seed))

    checkpoints = Checkpoints(folder / "checkpoints" / run.name, make_model)
    model = make_model()
    diverged = False
    if missing_steps(training, checkpoints):
        try:
            train(
                model,
                task,
                training,
                seed=run.seed,
                checkpoints=checkpoints,
                intervention=method_at_work(run, config, model),
            )
        except FloatingPointError:  # this learning rate is not one to choose
            diverged = True
    if diverged:
        found = [Measurement("validation_error", np.inf)]
    else:
        found = list(measure(checkpoints.load(training.n_steps), task, np.random.default_rng((run.seed, 2))))
    rows = [("end", m.quantity, m.coordinate, m.value) for m in found]
    table = pd.DataFrame(rows, columns=["moment", "quantity", "coordinate", "value"])
    return table.assign(**asdict(run), n_parameters=sum(p.numel() for p in model.parameters()))


def method_at_work(run: ManifoldRun, config: ManifoldStudyConfig, model: nn.Module) -> Intervention:
    """The metric of the contexts learnt, which are not uniform, for the arms that have one."""
    if run.arm not in ("manifold", "wrong_topology"):
        return Intervention()
    shares = (np.arange(10_000) + 0.5) / 10_000
    contexts = torch.from_numpy(uniform(CONTEXTS[config.task].learnt, shares))
    gram = weight_manifold.measured_gram(weight_manifold.manifold_of(model), contexts)
    return weight_manifold.ManifoldTraining(model, gram)


def measure(model: nn.Module, task: ContextTask, rng: np.random.Generator) -> Iterator[Measurement]:
    """Errors at contexts learnt and held out, along all contexts, and on validation at contexts learnt."""
    contexts = CONTEXTS[task.name]
    yield Measurement("validation_error", _mean_error(model, task, task.validation, contexts.learnt, rng))
    for kind in ("learnt", "interpolation", "extrapolation"):
        yield Measurement(f"error_{kind}", _mean_error(model, task, task.test, getattr(contexts, kind), rng))
    for context in np.linspace(0, 1, N_GRID):
        yield Measurement("error", task.error(model, task.test, context, rng), coordinate=float(context))


def _mean_error(
    model: nn.Module,
    task: ContextTask,
    examples: tuple[torch.Tensor, torch.Tensor],
    ranges: tuple[Range, ...],
    rng: np.random.Generator,
) -> float:
    shares = (np.arange(N_CONTEXTS) + 0.5) / N_CONTEXTS
    return float(np.mean([task.error(model, examples, context, rng) for context in uniform(ranges, shares)]))


run_manifold_study = method_study(_train_and_measure)
"""Train and measure every run of a study of weight manifolds. Arguments, returns and errors as in ``method_study``."""

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
from .contexts import KINDS, Kind, along, as_tensor, contexts_of, even_shares
from .networks import make_network
from .particles import ParticlesTask
from .task import ContextTask, make_task
from .walk import STATIONS, WALKED, head_scores, landscape, walk_contexts

N_GRID = 41
"""Contexts from zero to one at which the error is told."""
N_CONTEXTS = 20
"""Contexts of each kind (learnt, interpolated, extrapolated) over which errors are averaged; at each, all examples."""


def _train_and_measure(cell: tuple[Path, ManifoldStudyConfig, ManifoldRun]) -> pd.DataFrame:
    """Train one run and measure it. All arms of a seed see the same examples at the same contexts."""
    folder, config, run = cell
    task = make_task(config.task, run.seed)
    training = config.training(run.learning_rate)

    def make_model() -> nn.Module:
        return make_network(run.arm, config.task, config.width, torch.Generator().manual_seed(run.seed))

    checkpoints = Checkpoints(folder / "checkpoints" / run.name, make_model)
    model = make_model()
    if missing_steps(training, checkpoints):
        method = method_at_work(run, config, model)
        try:
            train(model, task, training, seed=run.seed, checkpoints=checkpoints, intervention=method)
        except FloatingPointError:  # this learning rate is not one to choose
            return _table([(training.n_steps, Measurement("validation_error", np.inf))], run, model)
    trained, rng = checkpoints.load(training.n_steps), np.random.default_rng((run.seed, 2))
    rows = [(training.n_steps, found) for found in measure(trained, task, rng)]
    if isinstance(task, ParticlesTask) and run.arm in WALKED:
        rows += list(_walk(checkpoints, task))
    return _table(rows, run, model)


def _table(rows: list[tuple[int, Measurement]], run: ManifoldRun, model: nn.Module) -> pd.DataFrame:
    last = max(step for step, _ in rows)
    table = pd.DataFrame([{"step": step, **asdict(found)} for step, found in rows])
    table = table.assign(moment=np.where(table.step == last, "end", "training"))
    return table.assign(**asdict(run), n_parameters=sum(p.numel() for p in model.parameters()))


def method_at_work(run: ManifoldRun, config: ManifoldStudyConfig, model: nn.Module) -> Intervention:
    """The metric of the contexts learnt, which are not uniform, for the arms that have one."""
    if run.arm not in ("manifold", "wrong_topology"):
        return Intervention()
    contexts = as_tensor(contexts_of(config.task, "learnt", even_shares(config.task, 10_000))).double()
    gram = weight_manifold.measured_gram(weight_manifold.manifold_of(model), contexts)
    return weight_manifold.ManifoldTraining(model, gram)


def measure(model: nn.Module, task: ContextTask, rng: np.random.Generator) -> Iterator[Measurement]:
    """Errors at contexts learnt and held out, along all contexts, and on validation at contexts learnt."""
    yield Measurement("validation_error", _mean_error(model, task, "validation", "learnt", rng))
    for kind in KINDS:
        yield Measurement(f"error_{kind}", _mean_error(model, task, "test", kind, rng))
    places = np.linspace(0, 1, N_GRID)
    for place, context in zip(places, along(task.name, places), strict=True):
        yield Measurement("error", task.error(model, "test", context, rng), coordinate=float(place))


def _mean_error(model: nn.Module, task: ContextTask, part: str, kind: Kind, rng: np.random.Generator) -> float:
    contexts = contexts_of(task.name, kind, even_shares(task.name, N_CONTEXTS))
    return float(np.mean([task.error(model, part, context, rng) for context in contexts]))


def _walk(checkpoints: Checkpoints, task: ParticlesTask) -> Iterator[tuple[int, Measurement]]:
    """Heads at the stations over training, and all along the manifold at the end, with the landscape."""
    *earlier, last = checkpoints.steps
    for step in earlier:
        for found in head_scores(checkpoints.load(step), task, walk_contexts()[STATIONS]):
            yield step, found
    trained, generator = checkpoints.load(last), torch.Generator().manual_seed(task.seed)
    for found in (*head_scores(trained, task, walk_contexts()), *landscape(trained, task, generator)):
        yield last, found


run_manifold_study = method_study(_train_and_measure)
"""Train and measure every run of a study of weight manifolds. Arguments, returns and errors as in ``method_study``."""

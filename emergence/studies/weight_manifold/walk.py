"""Along the weights of a steered transformer: which heads see contacts at each context, and the landscape there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from probes import Measurement, contact_average_precision, estimate_llc, hessian_trace, top_eigenvalues

from ...config import LLCConfig
from ...data import Transitions, prediction_loss
from ...interventions import weight_manifold
from ...measuring import attention_patterns
from .config import ArmName
from .contexts import along, as_tensor
from .networks import Unaware
from .particles import ParticlesTask

WALKED: tuple[ArmName, ...] = ("manifold", "plain")
N_WALK = 12
"""Steps along the first axis at which heads are scored."""
STATIONS = slice(1, None, 3)
"""Of these steps, where training is followed and the landscape is measured."""
N_SCENES, N_PROBES = 128, 8
"""Behind the Hessian, and random vectors behind its trace."""


def walk_contexts() -> np.ndarray:
    """Places along the first axis."""
    return (np.arange(N_WALK) + 0.5) / N_WALK


def model_at(model: nn.Module, context: np.ndarray) -> nn.Module:
    """The transformer that answers at one context."""
    if isinstance(model, Unaware):
        return model.network
    return weight_manifold.at(model, as_tensor(context[None])[0])


def head_scores(model: nn.Module, task: ParticlesTask, places: Iterable[float]) -> Iterator[Measurement]:
    """Contact average precision of every head, on the scenes of each place."""
    for place in places:
        (context,) = along(task.name, np.array([place]))
        scenes = task.scenes("test", context)
        contacts, boxes = scenes.contacts.numpy(), scenes.scene_system.numpy()
        patterns = attention_patterns(model_at(model, context), scenes, torch.arange(len(scenes)))
        for layer, pattern in enumerate(patterns):
            found = contact_average_precision(pattern, contacts, groups=boxes)
            for head, (value, error) in enumerate(zip(found.value, found.standard_error, strict=True)):
                yield Measurement("contact_ap", float(value), float(error), layer, head, float(place))
        nearest = contact_average_precision(-scenes.gaps.numpy()[:, None], contacts, groups=boxes)
        yield Measurement("nearest_neighbor_ap", float(nearest.value[0]), coordinate=float(place))


def landscape(model: nn.Module, task: ParticlesTask, generator: torch.Generator) -> Iterator[Measurement]:
    """Learning coefficient and curvature of the transformer at each station, with the loss of its own scenes."""
    for place in walk_contexts()[STATIONS]:
        (context,) = along(task.name, np.array([place]))
        scenes, plain = task.scenes("test", context), model_at(model, context)
        yield from (replace(m, coordinate=float(place)) for m in _landscape_at(plain, scenes, generator))


def _landscape_at(model: Any, scenes: Transitions, generator: torch.Generator) -> Iterator[Measurement]:
    settings = LLCConfig()
    llc = estimate_llc(
        model,
        scenes.batches(settings.batch_size),
        loss_fn=prediction_loss,
        nbeta=settings.nbeta,
        step_size=settings.step_size,
        localization=settings.localization,
        n_chains=settings.n_chains,
        n_draws=settings.n_draws,
        n_burnin=settings.n_burnin,
        generator=generator,
    )
    yield Measurement("llc", llc.value, llc.standard_error)
    yield Measurement("llc_rhat", llc.rhat)
    model.use_explicit_attention()
    batches = scenes.batches(N_SCENES)[:1]
    common: dict[str, Any] = {"loss_fn": prediction_loss, "generator": generator}
    trace = hessian_trace(model, batches, n_probes=N_PROBES, **common)
    yield Measurement("hessian_trace", trace.value, trace.standard_error)
    yield Measurement("hessian_top", float(top_eigenvalues(model, batches, k=1, **common).values[0]))

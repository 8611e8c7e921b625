"""From settings to a method at work on a particle transformer."""

from __future__ import annotations

import torch
from torch import nn

from ..config import ModelConfig
from .intervention import Intervention
from .settings import Plain, Spatial, Structured

AnySettings = Plain | Spatial | Structured


def initial_model(
    settings: AnySettings, config: ModelConfig, n_features: int, n_outputs: int, *, seed: int
) -> nn.Module:
    """The model as training begins with it: what is trained, and what its checkpoints are loaded into."""
    from ..model import ParticleTransformer

    generator = torch.Generator().manual_seed(seed)
    model = ParticleTransformer(config, n_features, n_outputs, generator)
    if not isinstance(settings, Structured):
        return model
    from . import structured

    correction = structured.Correction(scale=settings.correction) if settings.correction else None
    return structured.convert(model, settings.layers, settings.structure, correction, generator=generator)


def begin(settings: AnySettings, model: nn.Module, n_steps: int) -> Intervention:
    """Start the method on a freshly initialised model.

    Spatial: neurons of all layers lie on a line, as in the method's transformer example (Liu, Gan & Tegmark 2023,
    section 3.4); swaps exchange places, so that a head keeps its number through training.
    """
    if isinstance(settings, Plain):
        return Intervention()
    if isinstance(settings, Structured):
        from . import structured

        return structured.StructuredTraining(model, settings)
    from . import spatial

    placement = spatial.keep_numbers(spatial.place(model, "line", **settings.cost))
    return spatial.SpatialTraining(model, placement, settings, n_steps)

"""From settings to a method at work on a particle transformer."""

from __future__ import annotations

import torch
from torch import nn

from simulators import System

from ..config import AnyIntervention, ModelConfig
from .intervention import Intervention
from .settings import NextLayerAttention, Plain, Spatial, Structured, WeightManifold


def initial_model(settings: AnyIntervention, config: ModelConfig, system: System, *, seed: int) -> nn.Module:
    """The model as training begins with it: what is trained, and what its checkpoints are loaded into."""
    from ..data import count_features
    from ..model import ParticleTransformer

    generator = torch.Generator().manual_seed(seed)
    model = ParticleTransformer(config, *count_features(system), generator)
    match settings:
        case Plain() | Spatial():
            return model
        case Structured():
            from . import structured

            correction = structured.Correction(scale=settings.correction) if settings.correction else None
            return structured.convert(model, settings.layers, settings.structure, correction, generator=generator)
        case WeightManifold():
            from .weight_manifold.steered import steer

            return steer(model, settings.layers, settings.manifold, dim=system.dim, generator=generator)
        case NextLayerAttention():
            from . import next_layer_attention

            attention, drop = settings.attention, settings.drop
            return next_layer_attention.convert(model, settings.layers, attention, drop=drop, generator=generator)


def begin(settings: AnyIntervention, model: nn.Module, n_steps: int) -> Intervention:
    """Start the method on a freshly initialised model.

    Spatial: neurons of all layers lie on a line, as in the method's transformer example (Liu, Gan & Tegmark 2023,
    section 3.4); swaps exchange places, so that a head keeps its number through training.
    """
    match settings:
        case Plain():
            return Intervention()
        case Spatial():
            from . import spatial

            placement = spatial.keep_numbers(spatial.place(model, "line", **settings.cost))
            return spatial.SpatialTraining(model, placement, settings, n_steps)
        case Structured():
            from . import structured

            return structured.StructuredTraining(model, settings)
        case WeightManifold():
            from .weight_manifold import ManifoldTraining
            from .weight_manifold.steered import SteeredTransformer, on_manifold

            assert isinstance(model, SteeredTransformer)
            return ManifoldTraining(on_manifold(model)) if settings.metric else Intervention()
        case NextLayerAttention():
            from . import next_layer_attention

            return next_layer_attention.NextLayerTraining(model)


def measured_model(settings: AnyIntervention, model: nn.Module) -> nn.Module:
    """What probes are given of a trained model: the same function, with the gradients of its loss."""
    if not isinstance(settings, NextLayerAttention):
        return model
    from . import next_layer_attention

    return next_layer_attention.export(model)

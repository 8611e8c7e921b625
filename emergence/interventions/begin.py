"""From settings to a method at work on a particle transformer."""

from __future__ import annotations

from torch import nn

from .intervention import Intervention
from .settings import Plain, Spatial


def begin(settings: Plain | Spatial, model: nn.Module, n_steps: int) -> Intervention:
    """Start the method on a freshly initialised model.

    Neurons of all layers lie on a line, as in the method's transformer example (Liu, Gan & Tegmark 2023, section 3.4);
    swaps exchange places, so that a head keeps its number through training.
    """
    if isinstance(settings, Plain):
        return Intervention()
    from . import spatial

    placement = spatial.keep_numbers(spatial.place(model, "line", **settings.cost))
    return spatial.SpatialTraining(model, placement, settings, n_steps)

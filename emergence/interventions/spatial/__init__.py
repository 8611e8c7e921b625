"""Neurons placed in space: wire costs, neurons change places, and anatomy grows with function.

Three calls on a model of your own, in its own training loop::

    placement = spatial.place(model, "grid")
    loss = task_loss + 1e-3 * spatial.wiring_cost(model, placement)
    spatial.swap(model, placement, optimizer)  # every few hundred steps

Liu, Gan & Tegmark 2023 (brain-inspired modular training, arXiv 2305.08746); Liu, Khona, Fiete & Tegmark 2023 (its
recurrent networks, arXiv 2310.07711).
"""

from ..settings import ARMS, ArmName, Spatial
from .cost import wiring_cost
from .layout import Grid, Layout, Line, Ring
from .placement import Placement, keep_numbers, place
from .swaps import Swaps, swap
from .training import SpatialTraining
from .wiring import Axis, Connection, Population, Wiring

__all__ = [
    "ARMS",
    "ArmName",
    "Axis",
    "Connection",
    "Grid",
    "Layout",
    "Line",
    "Placement",
    "Population",
    "Ring",
    "Spatial",
    "SpatialTraining",
    "Swaps",
    "Wiring",
    "keep_numbers",
    "place",
    "swap",
    "wiring_cost",
]

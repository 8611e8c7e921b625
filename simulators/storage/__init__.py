"""The ``trajectories/`` folder: .npy shards, a record for each, and a manifest, without which nothing is whole."""

from .reader import open_trajectories
from .windows import TrajectoryWindows, WindowBatch
from .writer import TrajectoryWriter, save_trajectories, write_trajectories

__all__ = [
    "TrajectoryWindows",
    "TrajectoryWriter",
    "WindowBatch",
    "open_trajectories",
    "save_trajectories",
    "write_trajectories",
]

"""What networks are asked to learn besides particles: the tasks of the methods' own papers."""

from .task import Task, batch_indices

__all__ = ["Task", "batch_indices"]

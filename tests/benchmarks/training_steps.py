"""A training step as the benchmarks of interventions time it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn


def training_step(model: nn.Module, x: torch.Tensor) -> Callable[[], float]:
    """A call is one training step and returns its CPU seconds."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def seconds() -> float:
        began = time.process_time()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        return time.process_time() - began

    return seconds

"""Leave a model as it was found: flags, gradients and the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def isolated(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in evaluation mode and restore everything on the way out.

    Restored: each submodule's training flag, each parameter's gradient (the object itself), buffers, and the
    global random states of the CPU and of the CUDA devices the model is on. Parameters are the caller's to leave
    alone: probes move copies.
    """
    flags = {module: module.training for module in model.modules()}
    gradients = {p: p.grad for p in model.parameters()}
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    # only the model's own devices: asking the others for their state would start CUDA on each of them
    devices = {t.device.index for t in (*gradients, *model.buffers()) if t.device.type == "cuda"}
    for p in gradients:
        p.grad = None
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            model.eval()
            yield model
    finally:
        for module, flag in flags.items():
            module.training = flag
        for p, gradient in gradients.items():
            p.grad = gradient
        with torch.no_grad():
            for registered, name, buffer, value in buffers:
                buffer.copy_(value)
                registered[name] = buffer  # a forward pass may have put another tensor in its place

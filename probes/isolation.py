"""Leave a model as it was found: flags, gradients, buffers and the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from torch import nn

_LAZY = (nn.UninitializedParameter, nn.UninitializedBuffer)


@contextmanager
def isolated(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in evaluation mode and restore everything on the way out.

    Restored: each submodule's training flag, each parameter's gradient (the object itself), buffers, and the
    global random states of the CPU and of the CUDA devices the model is on. Parameters are the caller's to leave
    alone: probes move copies. The caller's autocast and inference mode do not reach inside: the one would round
    every number to half precision unsaid, the other record no gradient.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it has no values (meta device, lazy tensors), or the data turn out to be on another device.
    """
    modules = _valued_modules(model)
    flags = [module.training for module in modules]
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    gradients = [p.grad for p in parameters]
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in modules
        if module._buffers
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    # only the model's own devices: asking the others for their random state would start CUDA on each of them
    devices = {p.device for p in parameters} | {buffer.device for _, _, buffer, _ in buffers}
    kinds = {device.type for device in devices} | {"cpu"}
    gpus = sorted(device.index for device in devices if device.type == "cuda")
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            p.grad = None
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=gpus))
            grad_mode = torch.is_grad_enabled()
            stack.enter_context(torch.inference_mode(False))  # which would also switch gradients on
            stack.enter_context(torch.set_grad_enabled(grad_mode))
            for kind in sorted(kinds):
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(_device_errors())
            if any(flags):
                model.eval()
            yield model
    finally:
        for module, flag in zip(modules, flags, strict=True):
            if module.training != flag:  # setting an attribute of a module is slow, and most are as they were
                module.training = flag
        for p, gradient in zip(parameters, gradients, strict=True):
            if p.grad is not gradient:
                p.grad = gradient
        with torch.no_grad():
            for registered, name, buffer, value in buffers:
                buffer.copy_(value)
                registered[name] = buffer  # a forward pass may have put another tensor in its place


def check_values(model: nn.Module) -> None:
    """Refuse what is no module, and a model without values: on the meta device, or with lazy tensors."""
    _valued_modules(model)


def _valued_modules(model: nn.Module) -> list[nn.Module]:
    """``model.modules()`` in any order, at a fifth of the cost: walking the tree is most of what isolation costs."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {model: None}
    rest = [model]
    while rest:
        module = rest.pop()
        for tensors in (module._parameters, module._buffers):
            for t in tensors.values():
                if t is not None and (t.is_meta or type(t) in _LAZY):
                    raise _no_values(model)
        for child in module._modules.values():
            if child is not None and child not in found:
                found[child] = None
                rest.append(child)
    return list(found)


def _no_values(model: nn.Module) -> ValueError:
    """Name the first tensor without values."""
    for name, t in chain(model.named_parameters(), model.named_buffers()):
        if type(t) in _LAZY:
            return ValueError(f"{name} of the model has no shape yet; run the model once on data before probing it")
        if t.is_meta:
            return ValueError(f"{name} of the model is on the meta device, without values; load weights before probing")
    raise AssertionError("all tensors have values")


@contextmanager
def _device_errors() -> Iterator[None]:
    """Say in one line that model and data are apart; torch names an operator deep inside the model."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        if not any(mark in reason for mark in ("same device", "expected device", "meta tensor", "Meta")):
            raise
        raise ValueError(f"model and data must be on the same device; move one to the other ({reason})") from error

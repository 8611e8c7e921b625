"""A continuous-time recurrent network, as neuroscience trains them on cognitive tasks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


class ContinuousTimeRNN(nn.Module):
    """``h <- (1 - a) h + a relu(W_ih u + W_hh h + b + noise)`` with ``a = dt / tau``, and a linear read-out.

    Yang et al. 2019 (Nature Neuroscience 22, 297), Methods; recurrent weights begin as half the identity, as in the
    public training recipe of the task collection.

    ``hook_hidden`` sees the rates of all units at every time step: what it returns is what units and read-out see. As
    in the particle transformer there are two equal paths: the fast one refuses double backward, and the explicit one is
    taken when ``hook_hidden`` is hooked or ``explicit`` is set.

    Args:
        n_inputs: numbers a time step.
        n_units: recurrent units.
        n_outputs: read-out units.
        generator: draws the initial weights, uniform within 1/sqrt(fan in) as torch does. None leaves them undefined.
        leak: ``a``; 1 for a time step as long as the time constant, the value of the recipe (100 ms each).
        noise: standard deviation on the units, before the factor ``sqrt(2 / a)``; only there with a generator.
    """

    def __init__(
        self,
        n_inputs: int,
        n_units: int,
        n_outputs: int,
        generator: torch.Generator | None = None,
        *,
        leak: float = 1.0,
        noise: float = 0.05,
    ) -> None:
        super().__init__()
        if not 0 < leak <= 1:
            raise ValueError(f"leak must be above 0 and at most 1, got {leak}")
        self.leak, self.noise = leak, noise * math.sqrt(2 / leak)
        self.cell = nn.RNNCell(n_inputs, n_units, nonlinearity="relu", device="meta").to_empty(device="cpu")
        self.readout = nn.Linear(n_units, n_outputs, device="meta").to_empty(device="cpu")
        self.hook_hidden = HookPoint()
        self.explicit = False
        if generator is not None:
            self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        for name, parameter in self.named_parameters():
            fan_in = self.cell.input_size if "_ih" in name else self.cell.hidden_size
            parameter.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
        self.cell.weight_hh.copy_(0.5 * torch.eye(self.cell.hidden_size))

    def forward(
        self, inputs: Float[Tensor, "sequence time input"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "sequence time output"]:
        """Run from rest through all time steps; with a ``generator`` the units are noisy, as in training."""
        return self.readout(self.rates(inputs, generator))

    def rates(
        self, inputs: Float[Tensor, "sequence time input"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "sequence time unit"]:
        """Rates of the units at each time step."""
        drive = F.linear(inputs.transpose(0, 1), self.cell.weight_ih, self.cell.bias_ih + self.cell.bias_hh)
        if generator is not None:
            noise = torch.empty_like(drive).normal_(generator=generator)
            drive = drive + self.noise * noise
        recurrent = self.cell.weight_hh.to(drive.dtype)  # half precision under autocast
        steps = (self._explicit if self._steps_needed() else _Recurrence.apply)(drive, recurrent, self.leak)
        return steps.transpose(0, 1)

    def _steps_needed(self) -> bool:
        hook = self.hook_hidden
        return self.explicit or bool(hook._forward_hooks or hook._backward_hooks)

    def _explicit(self, drive: Tensor, recurrent: Tensor, leak: float) -> Float[Tensor, "time sequence unit"]:
        h = torch.zeros_like(drive[0])
        rates = []
        for now in drive:
            rate = torch.addmm(now, h, recurrent.T).relu()
            h = self.hook_hidden(torch.lerp(h, rate, leak))
            rates.append(h)
        return torch.stack(rates)


class _Recurrence(torch.autograd.Function):
    """The same recurrence with one product for the gradient of the recurrent weights in place of one a time step."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, leak: float) -> Tensor:
        rates, driven = torch.empty_like(drive), torch.empty_like(drive)
        h, recurrent = torch.zeros_like(drive[0]), weight.T.contiguous()
        for now, rate, kept in zip(drive, rates, driven, strict=True):
            torch.addmm(now, h, recurrent, out=kept).relu_()
            torch.lerp(h, kept, leak, out=rate)
            h = rate
        ctx.save_for_backward(rates, driven, weight)
        ctx.leak = leak
        return rates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # create_graph; torch's once_differentiable lets wrong second derivatives pass
            raise RuntimeError("the fast path of ContinuousTimeRNN has no double backward; set model.explicit = True")
        rates, driven, weight = ctx.saved_tensors
        leak = ctx.leak
        to_drive, to_h = torch.empty_like(grad), torch.zeros_like(grad[0])
        for step in reversed(range(len(grad))):
            to_h = to_h + grad[step]
            torch.mul(to_h * leak, driven[step] > 0, out=to_drive[step])
            to_h = torch.addmm(to_h, to_drive[step], weight, beta=1 - leak)
        return to_drive, to_drive[1:].flatten(0, 1).T @ rates[:-1].flatten(0, 1), None

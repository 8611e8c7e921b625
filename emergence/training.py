"""The one training loop: any device, either optimizer, stopped and resumed at the same bits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import (
    Checkpoints,
    log_spaced_steps,
    optimizer_tensors,
    restore_optimizer,
)
from .config import AdamW, TrainingConfig
from .files import write_text
from .interventions.intervention import Intervention
from .tasks import Task

LOG_EVERY = 10
_OF_METHOD = "intervention/"


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Rate of the update that leads from ``step`` to ``step + 1``: a linear rise, constant, a linear fall."""
    rise = (step + 1) / max(1, config.n_warmup_steps)
    fall = (config.n_steps - step) / max(1, config.n_decay_steps)
    return config.optimizer.learning_rate * min(1.0, rise, fall)


def training_time(config: TrainingConfig, step: int) -> float:
    """The clock of the learning laws: the sum of learning rates up to ``step``, over 1 - momentum for SGD."""
    n_warm = min(step, config.n_warmup_steps)
    warm = n_warm * (n_warm + 1) / (2 * config.n_warmup_steps) if n_warm else 0.0
    n_late = max(0, step - (config.n_steps - config.n_decay_steps))
    late = n_late - n_late * (n_late - 1) / (2 * config.n_decay_steps) if n_late else 0.0
    momentum = 0.0 if isinstance(config.optimizer, AdamW) else config.optimizer.momentum
    return config.optimizer.learning_rate * (warm + step - n_warm - n_late + late) / (1 - momentum)


def missing_steps(config: TrainingConfig, checkpoints: Checkpoints) -> list[int]:
    """Planned checkpoints that are not there, ascending; training goes on from the one before the first of them."""
    return sorted(set(log_spaced_steps(config.n_steps, config.n_checkpoints)) - set(checkpoints.steps))


def state_of_method(training_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a checkpoint's training state that an intervention wrote."""
    return {key.removeprefix(_OF_METHOD): value for key, value in training_state.items() if key.startswith(_OF_METHOD)}


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Torch's fused implementations, on CPU and CUDA alike."""
    choice = config.optimizer
    if isinstance(choice, AdamW):
        return torch.optim.AdamW(
            model.parameters(),
            choice.learning_rate,
            betas=choice.betas,
            weight_decay=choice.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(model.parameters(), choice.learning_rate, momentum=choice.momentum, fused=True)


def train(
    model: nn.Module,
    task: Task,
    config: TrainingConfig,
    *,
    seed: int,
    checkpoints: Checkpoints,
    intervention: Intervention | None = None,
    meta: dict[str, object] | None = None,
    metrics_file: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train ``model`` in place, writing log-spaced checkpoints; continue from the last one before a gap.

    On the CPU a run that was killed and resumed writes the same bytes as one that was not.

    Args:
        model: freshly initialised; its weights become those of step 0.
        task: batches on the device of the model, and their loss; ``emergence.data.Transitions`` is one.
        config: steps, batch size, optimizer, precision.
        seed: of the order in which examples are drawn.
        checkpoints: where snapshots go and are resumed from.
        intervention: a method at work on this model; None trains plainly.
        meta: noted in each checkpoint's meta.json.
        metrics_file: one JSON line every ``LOG_EVERY`` steps and at each checkpoint: step, training time, and the
            loss of the step's batch before its update.
        on_step: called with the number of finished steps.

    Raises:
        FloatingPointError: the loss or the weights stopped being finite; the checkpoints before are kept.
        CheckpointError: the checkpoint to continue from is damaged or belongs to another model.
    """
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    optimizer = make_optimizer(config, model)
    method = intervention or Intervention()
    planned = set(log_spaced_steps(config.n_steps, config.n_checkpoints))
    to_save = missing_steps(config, checkpoints)
    earlier = [step for step in checkpoints.steps if not to_save or step < to_save[0]]
    start = earlier[-1] if earlier else 0
    if earlier:
        checkpoints.load_into(model, start)
        state = checkpoints.training_state(start)
        method.load_state(state_of_method(state))
        restore_optimizer(optimizer, names, {k: t for k, t in state.items() if not k.startswith(_OF_METHOD)})
    take_step = _make_step(model, optimizer, task, config, method)
    model.train()

    def save(step: int) -> None:
        if not all(p.isfinite().all() for p in names):
            raise _diverged("weights are not finite", step)
        note = {"training_time": training_time(config, step), "seed": seed, **(meta or {})}
        state = {_OF_METHOD + key: t for key, t in method.state().items()}
        checkpoints.save(step, model, optimizer_tensors(optimizer, names) | state, note)

    if 0 in to_save:
        save(0)
    with _MetricsLog(metrics_file, start) as log:
        for step in range(start + 1, config.n_steps + 1):
            batch = task.training_batch(seed, step, config.batch_size)
            loss = take_step(learning_rate(config, step - 1), batch, step)
            if step % LOG_EVERY == 0 or step in planned:
                log.write(step, training_time(config, step), loss.item())
            if step in to_save:
                save(step)
            if on_step is not None:
                on_step(step)
    return model.eval()


def _make_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, config: TrainingConfig, method: Intervention
) -> Callable[[float, Any, int], Tensor]:
    """Bind everything but the learning rate, the batch and the number of the step; returns the task's loss."""
    device = next(model.parameters()).device
    precision = torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()
    loss_fn = torch.compile(task.loss) if config.compile else task.loss

    def take_step(rate: float, batch: Any, step: int) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        with precision:
            loss = loss_fn(model, batch)
        penalty = method.penalty(step)
        (loss if penalty is None else loss + penalty).backward()
        method.after_backward(step)
        if config.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        optimizer.step()
        method.after_step(step, optimizer)
        return loss.detach()

    return take_step


class _MetricsLog:
    """One JSON line a logged step; those after the step resumed from are dropped, so none is told twice."""

    def __init__(self, path: Path | None, start: int) -> None:
        self.path, self.start = path, start

    def __enter__(self) -> _MetricsLog:
        if self.path is None:
            return self
        kept = [line for line in _whole_lines(self.path) if json.loads(line)["step"] <= self.start]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.file = self.path.open("a", buffering=1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.path is not None:
            self.file.close()

    def write(self, step: int, time: float, loss: float) -> None:
        """Note one step; refuse to go on from a loss that is not a number."""
        if not math.isfinite(loss):
            raise _diverged(f"training loss is {loss}", step)
        if self.path is not None:
            self.file.write(json.dumps({"step": step, "training_time": time, "loss": loss}) + "\n")


def _diverged(what: str, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"the {what} at step {step}: lower the learning rate, or look for NaN in the data; "
        "the checkpoints so far are kept"
    )


def _whole_lines(path: Path) -> list[str]:
    """Lines that were finished; a killed run may leave a torn last one."""
    return path.read_text().split("\n")[:-1] if path.is_file() else []

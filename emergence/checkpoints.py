"""Snapshots of a training run: whole or not there, without pickle, and checked to be what they say."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from probes.series import CheckpointError, fill

WEIGHTS, TRAINING_STATE, META = "weights.safetensors", "training_state.safetensors", "meta.json"


def log_spaced_steps(n_steps: int, n_checkpoints: int) -> list[int]:
    """Step 0, then steps evenly spaced in log step from 1 to ``n_steps``; fewer where rounding makes them coincide."""
    spaced = np.unique(np.geomspace(1, n_steps, n_checkpoints).round().astype(int))
    return [0, *(int(step) for step in spaced if step < n_steps), n_steps]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: ``steps`` and ``load(step)``, as ``probes.sweep_checkpoints`` wants them.

    Attributes:
        folder: holds ``step_00000123`` folders.
        make_model: returns a fresh module for the weights to go into.
        measured: makes of the filled module what ``load`` returns, where that is not what was trained.
    """

    folder: Path
    make_model: Callable[[], nn.Module]
    measured: Callable[[nn.Module], nn.Module] = lambda model: model

    @property
    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending. A half-written one has another name and does not count."""
        found = self.folder.glob("step_" + "[0-9]" * 8)
        return sorted(int(path.name.removeprefix("step_")) for path in found)

    def path(self, step: int) -> Path:
        """Folder of a step."""
        return self.folder / f"step_{step:08d}"

    def meta(self, step: int) -> dict[str, Any]:
        """Read what was noted beside the weights.

        Raises:
            CheckpointError: there is no such step, or its meta.json is damaged.
        """
        if not self.path(step).is_dir():
            known = ", ".join(map(str, self.steps)) or "none"
            raise CheckpointError(f"no checkpoint of step {step} in {self.folder}; steps there: {known}")
        try:
            return json.loads((self.path(step) / META).read_text())
        except (OSError, ValueError) as error:
            raise _damaged(self.path(step) / META, error) from error

    def load(self, step: int) -> nn.Module:
        """Return a fresh model with the weights of ``step``, in evaluation mode.

        Raises:
            CheckpointError: missing or damaged files, weights that differ from the hash noted at saving, or
                weights that do not fit the model.
        """
        return self.measured(self.load_into(self.make_model(), step))

    def load_into(self, model: nn.Module, step: int) -> nn.Module:
        """Fill ``model`` with the weights of ``step`` and put it in evaluation mode; raises what ``load`` raises."""
        return load_weights(model, self._checked(step, WEIGHTS))

    def training_state(self, step: int) -> dict[str, Tensor]:
        """Read the optimizer's tensors of ``step``; raises what ``load`` raises."""
        return _read_tensors(self._checked(step, TRAINING_STATE))

    def _checked(self, step: int, name: str) -> Path:
        """Path of a file whose bytes are those that were saved."""
        path, expected = self.path(step) / name, self.meta(step).get(_hash_key(name))
        if not path.is_file():
            raise _damaged(path, "file is missing")
        if (found := file_sha256(path)) != expected:
            raise _damaged(path, f"sha256 is {found[:12]}, noted at saving {str(expected)[:12]}")
        return path

    def save(self, step: int, model: nn.Module, training_state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write one checkpoint beside its final name, then rename: it is there whole or not at all.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        aside = self.folder / f".step_{step:08d}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write_tensors(model.state_dict(), aside / WEIGHTS)
        _write_tensors(training_state, aside / TRAINING_STATE)
        hashes = {_hash_key(name): file_sha256(aside / name) for name in (WEIGHTS, TRAINING_STATE)}
        full = {**meta, "step": step, **hashes}
        (aside / META).write_text(json.dumps(full, indent=1, sort_keys=True) + "\n")
        aside.rename(self.path(step))


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` from a safetensors file and put it in evaluation mode.

    Raises:
        CheckpointError: unreadable file, or tensors of another model.
    """
    return fill(model, _read_tensors(path), path)


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_key(name: str) -> str:
    return name.removesuffix(".safetensors") + "_sha256"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write through Python's file object, whose errors tell a full disk from a forbidden one."""
    path.write_bytes(serialize({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def _damaged(path: Path, why: object) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read ({why}); delete {path.parent} and run again to rewrite it")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """Flatten an optimizer's state to named tensors, ``exp_avg/blocks.0.attn.W_Q`` and so on."""
    return {
        f"{key}/{names[p]}": value.detach().cpu().contiguous()
        for p, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put flattened state back, on the device of each parameter (where fused optimizers want their step count too)."""
    by_name = {name: p for p, name in names.items()}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        optimizer.state[by_name[name]][kind] = value.to(by_name[name].device)

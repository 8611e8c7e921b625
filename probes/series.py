"""Checkpoints from anywhere as a series to sweep over: files of weights with a factory, or a function of the step."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

LAST_NUMBER = r"(\d+)(?!.*\d)"
"""The last number of a path without its suffix: 100 of ``run_2/step_0100.pt`` and of ``step100/model.safetensors``."""

_WRAPPERS = ("_orig_mod.", "module.")  # what torch.compile and DistributedDataParallel put before every name


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


@dataclass(frozen=True)
class FunctionSeries:
    """A series whose models a function makes, such as a family of pretrained models.

    Pythia from Hugging Face, and the same through TransformerLens::

        FunctionSeries(steps, lambda step: GPTNeoXForCausalLM.from_pretrained(name, revision=f"step{step}"))
        FunctionSeries(steps, lambda step: HookedTransformer.from_pretrained(name, checkpoint_value=step))

    Attributes:
        steps: ascending.
        make: step to a module with its weights.
    """

    steps: Sequence[int]
    make: Callable[[int], nn.Module]

    def __post_init__(self) -> None:
        _check_ascending(self.steps)

    def load(self, step: int) -> nn.Module:
        """Return the module of ``step`` in evaluation mode.

        Raises:
            CheckpointError: the series has no such step.
            TypeError: ``make`` returned no module.
        """
        _check_known(step, self.steps)
        return _checked_module(self.make(step), "make")


@dataclass(frozen=True)
class StateDictSeries:
    """Files of weights, and a factory of the model they belong to.

    Read without running code from the file (``torch.load`` with ``weights_only``). Names that torch.compile or
    DistributedDataParallel prefixed are understood.

    Attributes:
        make_model: returns a fresh module.
        files: step to a ``.safetensors`` file, or one that ``torch.save`` wrote.
        key: where the weights are inside a nested file, ``"model"`` or ``"state_dict"`` say; None: the file is them.
    """

    make_model: Callable[[], nn.Module]
    files: Mapping[int, Path]
    key: str | None = None

    @classmethod
    def from_glob(
        cls, make_model: Callable[[], nn.Module], pattern: str, *, step: str = LAST_NUMBER, key: str | None = None
    ) -> StateDictSeries:
        """Find the files that match a pattern, such as ``"checkpoints/step_*.pt"`` (``**`` for any depth).

        Args:
            make_model: see the class.
            pattern: as of ``glob``.
            step: regular expression whose only group is the step, searched in the path without its suffix.
            key: see the class.

        Raises:
            FileNotFoundError: nothing matches.
            ValueError: a path without a step, or two of one step.
        """
        paths = sorted(Path(found) for found in glob.glob(pattern, recursive=True) if Path(found).is_file())
        if not paths:
            raise FileNotFoundError(f"no file matches {pattern!r}; give the pattern in quotes, from {Path.cwd()}")
        files: dict[int, Path] = {}
        for path in paths:
            match = re.search(step, path.with_suffix("").as_posix())
            if match is None:
                raise ValueError(f"{path} has no step that matches {step!r}; give another pattern or step")
            number = int(match.group(1))
            if number in files:
                raise ValueError(
                    f"{files[number]} and {path} both have step {number}; narrow the pattern, or say by step= "
                    "which number is the step"
                )
            files[number] = path
        return cls(make_model, dict(sorted(files.items())), key)

    @property
    def steps(self) -> list[int]:
        """Steps of the files, ascending."""
        return sorted(self.files)

    def load(self, step: int) -> nn.Module:
        """Return a fresh model with the weights of ``step``, in evaluation mode.

        Raises:
            CheckpointError: no such step, an unreadable file, or weights of another model.
            TypeError: ``make_model`` returned no module.
        """
        _check_known(step, self.steps)
        path = self.files[step]
        return fill(_checked_module(self.make_model(), "make_model"), _read_weights(path, self.key), path)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Copy weights into a model, all of them, and put it in evaluation mode.

    A tied tensor may be left out under all names but one, as files of safetensors do.

    Raises:
        CheckpointError: names or shapes that differ; ``path`` says whose.
    """
    own = model.state_dict()
    given = {own[name].data_ptr() for name in own if name in tensors}
    lacking = [name for name in own if name not in tensors and own[name].data_ptr() not in given]
    problems = [f"it lacks {name}" for name in lacking]
    problems += [f"it has {name}, the model has not" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else ""
        raise CheckpointError(f"{path} belongs to another model: {problems[0]}{more}; check the model's configuration")
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def _read_weights(path: Path, key: str | None) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name."""
    content = _read(path)
    if key is not None:
        if key not in content:
            raise CheckpointError(f"{path} has no {key!r}; it has {', '.join(map(str, content))}")
        content = content[key]
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        nested = [name for name in strangers if isinstance(content[name], Mapping)]
        hint = f'; the weights may be under key="{nested[0]}"' if nested else ""
        raise CheckpointError(f"{path} holds more than tensors ({', '.join(map(str, strangers[:5]))}){hint}")
    for prefix in _WRAPPERS:
        if content and all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return content


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # here: nothing else of the probes needs it

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds objects that only running its code could read; save model.state_dict() alone"
        ) from error
    except Exception as error:  # the readers raise a dozen kinds on damaged bytes
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no dictionary of tensors")
    return content


def _checked_module(model: Any, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must return a torch.nn.Module, got {type(model).__name__}")
    return model.eval()


def _check_known(step: int, steps: Sequence[int]) -> None:
    if step not in steps:
        raise CheckpointError(f"no checkpoint of step {step}; steps there: {', '.join(map(str, steps)) or 'none'}")


def _check_ascending(steps: Sequence[int]) -> None:
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"steps must ascend without repeats, got {list(steps)}")

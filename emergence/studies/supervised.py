"""What deep networks learn: examples to learn from, to choose the learning rate on, and to report."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch

from ..tasks.datasets import dataset_task
from ..tasks.examples import Examples, ExampleTask

TaskName = Literal["regression", "digits", "breast-cancer", "diabetes"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)

N_INPUTS, N_OUTPUTS, N_TEACHER = 16, 4, 32
N_TRAIN, N_TEST = 2000, 1000
VALIDATION = 0.2
"""Fraction of the examples to learn from that is set aside for choosing the learning rate."""


def study_task(name: TaskName, *, rng: np.random.Generator) -> tuple[ExampleTask, Examples]:
    """The task, and the examples of validation, which are neither learnt nor reported."""
    task = regression_task(rng=rng) if name == "regression" else dataset_task(name, rng=rng)
    n = round((1 - VALIDATION) * len(task.train.inputs))
    learnt, validation = (Examples(*(t[part] for t in task.train)) for part in (slice(n), slice(n, None)))
    return ExampleTask(learnt, task.test, task.input_names, task.target_names), validation


def regression_task(*, rng: np.random.Generator) -> ExampleTask:
    """Answers of a random network with one hidden layer of 32 to normal inputs: smooth, noiseless, of order one."""
    first = rng.normal(size=(N_INPUTS, N_TEACHER)) * 2 / math.sqrt(N_INPUTS)
    second = rng.normal(size=(N_TEACHER, N_OUTPUTS)) / math.sqrt(N_TEACHER)

    def draw(n: int) -> Examples:
        x = rng.normal(size=(n, N_INPUTS))
        return Examples(torch.from_numpy(x).float(), torch.from_numpy(np.tanh(x @ first) @ second).float())

    return ExampleTask(draw(N_TRAIN), draw(N_TEST))


def sizes(task: ExampleTask) -> tuple[int, int]:
    """Numbers a network reads and writes."""
    n_out = task.train.targets.shape[1] if task.train.targets.is_floating_point() else len(task.target_names)
    return task.train.inputs.shape[1], n_out

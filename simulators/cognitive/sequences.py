"""Training data: trials of random tasks one after the other, in sequences of equal length."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from .parameters import check_dt, draw_parameters, draw_steps
from .tasks import N_INPUTS, SHORTEST_PERIOD, TASKS
from .trials import add_noise, lay_out


def cognitive_sequences(
    n_sequences: int,
    n_steps: int,
    *,
    rng: np.random.Generator,
    noise: bool = True,
    dt: float = 100.0,
    tasks: Sequence[str] | None = None,
) -> tuple[Float32[np.ndarray, "sequence time 53"], Int64[np.ndarray, "sequence time"]]:
    """Draw sequences of trials of the tasks, the last trial of a sequence cut where the sequence ends.

    As with neurogym's ``ScheduleEnvs(envs, RandomSchedule(20), env_input=True)`` the first task is uniform over all and
    each next one over the others; a task that uses one ring a trial takes the other one when it comes again. One task
    alone follows itself.

    Args:
        n_sequences: at least 1.
        n_steps: time steps of each sequence, at least 1 (``ngym_usage/yang19`` trains on 100).
        rng: the source of all draws.
        noise: as in ``cognitive_trials``.
        dt: time step in milliseconds, as there.
        tasks: names in ``TASKS``, in any order; None takes all twenty. Each keeps its own place in the rule input,
            whichever the others are (neurogym would number those of a schedule anew).

    Returns:
        Inputs, (sequence, time, 53), and labels, (sequence, time), as in ``CognitiveTrials``.

    Raises:
        ValueError: an argument out of range; no task, an unknown one, or one named twice.

    Cost:
        About 0.8 ms for 20 sequences of 100 steps, 0.3 ms for a single one, on one core.

    References:
        As in ``cognitive_trials``. Every sequence begins with the first step of a trial; neurogym's ``Dataset`` does
        so in batches of at least 19 sequences of 100 steps, and in smaller ones only once in a few batches, as its
        cache then holds more than one batch.
    """
    for name, value in (("n_sequences", n_sequences), ("n_steps", n_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_dt(dt)
    places = _places(tasks)
    most = -(-n_steps // (3 * int(SHORTEST_PERIOD // dt)))  # trials, were all the shortest
    hops = rng.integers(1, max(2, len(places)), size=(n_sequences, most))
    hops[:, 0] = rng.integers(len(places), size=n_sequences)
    task = places[hops.cumsum(axis=1) % len(places)]  # (sequence, trial), never the same of several twice running
    steps = _cut(draw_steps(task, dt, rng=rng), n_steps)
    used = steps.any(axis=2)
    parameters = draw_parameters(task[used], _alternating_rings(task, rng)[used], steps[used], rng=rng)
    inputs, labels = lay_out(parameters)
    if noise:
        add_noise(inputs, parameters, dt, rng=rng)
    return inputs.reshape(n_sequences, n_steps, N_INPUTS), labels.reshape(n_sequences, n_steps)


def _places(tasks: Sequence[str] | None) -> Int64[np.ndarray, " task"]:
    """Return the places of the tasks in the collection, ascending."""
    if tasks is None:
        return np.arange(len(TASKS), dtype=np.int64)
    if isinstance(tasks, str) or not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks must be a list of different names, at least one, or None for all, got {tasks!r}")
    if unknown := [name for name in tasks if name not in TASKS]:
        raise ValueError(f"tasks must be among {', '.join(TASKS)}, got {unknown[0]!r}")
    return np.array(sorted(TASKS.index(name) for name in tasks), dtype=np.int64)


def _cut(steps: np.ndarray, n_steps: int) -> np.ndarray:
    """Shorten the periods of each sequence, (sequence, trial, period), so that they end at its last step."""
    ends = np.minimum(steps.reshape(len(steps), -1).cumsum(axis=1), n_steps)
    return np.diff(ends, axis=1, prepend=0).reshape(steps.shape)


def _alternating_rings(task: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each trial, (sequence, trial), a ring that changes each time its task comes in a sequence."""
    times = np.eye(len(TASKS), dtype=np.int64)[task].cumsum(axis=1)  # (sequence, trial, task): seen so far
    times = np.take_along_axis(times, task[..., None], axis=2)[..., 0]
    first = np.take_along_axis(rng.integers(2, size=(len(task), len(TASKS))), task, axis=1)
    return (first + times) % 2

"""From parameters to arrays: the inputs a network sees and the labels it should give."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64

from .parameters import TrialParameters, check_dt, draw_parameters, draw_steps
from .tasks import HOLDS_FIXATION, MATCH, N_DIRECTIONS, N_INPUTS, N_PERIODS, REACH, SHOWS, TASKS, ring_bumps

_BUMPS = ring_bumps()
_RINGS = tuple(slice(1 + N_DIRECTIONS * ring, 1 + N_DIRECTIONS * (ring + 1)) for ring in range(2))
_RULE = 1 + 2 * N_DIRECTIONS


@dataclass(frozen=True)
class CognitiveTrials:
    """Trials side by side, all from their first step on; zeros follow a trial that is shorter than the longest.

    Args:
        inputs: fixation, 16 units of ring 1, 16 of ring 2, one-hot rule in the order of ``TASKS``, (trial, time, 53).
        labels: 0 to fixate, 1 to 16 for a direction, (trial, time).
        length: time steps that belong to the trial, (trial,).
        parameters: what was drawn; ``noise_free_trials`` gives the same trials without noise.
    """

    inputs: Float32[np.ndarray, "trial time 53"]
    labels: Int64[np.ndarray, "trial time"]
    length: Int64[np.ndarray, " trial"]
    parameters: TrialParameters

    @property
    def task(self) -> Int64[np.ndarray, " trial"]:
        """Place in ``TASKS``, (trial,)."""
        return self.parameters.task


def cognitive_trials(
    task: str | int, n_trials: int, *, rng: np.random.Generator, noise: bool = True, dt: float = 100.0
) -> CognitiveTrials:
    """Draw trials of one task.

    They come as one neurogym environment gives them: where a task uses one ring a trial (go, rtgo, dlygo, their anti
    tasks, and the four match tasks) the rings take turns, the first one random. All else is independent.

    Args:
        task: a name in ``TASKS`` or its place there.
        n_trials: at least 1.
        rng: the source of all draws.
        noise: whether to add white noise of standard deviation 1 / sqrt(dt) to the rings, as neurogym does: on both
            while stimuli are shown in the ten decision tasks, on the ring in use in the match tasks, none in the go and
            anti tasks.
        dt: time step in milliseconds, at most 200; default as in the neurogym examples of Yang et al.
            (``ngym_usage/yang19``; the paper has 20 ms). Lengths equal those of neurogym for whole numbers.

    Returns:
        The trials.

    Raises:
        ValueError: an unknown task, or another argument out of range.

    Cost:
        5 to 20 microseconds a trial, 212 bytes a time step.

    References:
        Yang, Joglekar, Song, Newsome and Wang 2019, "Task representations in neural networks trained to perform many
        cognitive tasks", Nature Neuroscience 22, 297, doi:10.1038/s41593-018-0310-2. Timing, strengths, noise and
        rounding are those of neurogym 2.3.1 (doi:10.5281/zenodo.14508986), collection yang19, which departs from the
        paper: rings of 16 units, not 32; the decision and match tasks take fixation away with the first stimulus;
        halves of the ring are unequal for the sample of dmc and dnmc.

    Example:
        >>> trials = cognitive_trials("dlygo", 3, rng=np.random.default_rng(0))
        >>> trials.inputs.shape, trials.labels[:, 0].tolist()
        ((3, 20, 53), [0, 0, 0])
    """
    index = _place(task)
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, got {n_trials}")
    check_dt(dt)
    tasks = np.full(n_trials, index, dtype=np.int64)
    rings = (np.arange(n_trials) + rng.integers(2)) % 2
    parameters = draw_parameters(tasks, rings, draw_steps(tasks, dt, rng=rng), rng=rng)
    inputs, labels = lay_out(parameters)
    if noise:
        add_noise(inputs, parameters, dt, rng=rng)
    return _side_by_side(inputs, labels, parameters)


def noise_free_trials(parameters: TrialParameters) -> CognitiveTrials:
    """Build the trials of given parameters, without noise; the trials may be of different tasks.

    Args:
        parameters: lengths, directions, strengths and answers.

    Returns:
        The trials, equal to those of neurogym 2.3.1 with ``sigma=0`` and the same parameters, to the last bit.
    """
    return _side_by_side(*lay_out(parameters), parameters)


def cognitive_accuracy(outputs: Float[np.ndarray, "trial time 17"], trials: CognitiveTrials) -> float:
    """Return the share of trials whose largest output at the last step is at the label of that step.

    This is the rule of ``ngym_usage/yang19``; fixating is the right answer to half of the match trials.

    Args:
        outputs: what the network gave, logits or probabilities, (trial, time, 17).
        trials: what it saw.

    Returns:
        The accuracy p; its standard error over trials is sqrt(p (1 - p) / trial).

    Raises:
        ValueError: outputs of another shape than the trials.
    """
    expected = (*trials.labels.shape, 1 + N_DIRECTIONS)
    if outputs.shape != expected:
        raise ValueError(f"outputs must have shape {expected} (trial, time, response), got {outputs.shape}")
    last = np.arange(len(trials.length)), trials.length - 1
    return float((outputs[last].argmax(axis=-1) == trials.labels[last]).mean())


def lay_out(parameters: TrialParameters) -> tuple[Float32[np.ndarray, "step 53"], Int64[np.ndarray, " step"]]:
    """Return inputs and labels of all trials, one after the other, without noise."""
    counts = parameters.steps.ravel()
    labels = np.zeros(parameters.steps.shape, dtype=np.int64)
    labels[:, -1] = parameters.answer
    inputs = _period_inputs(parameters).reshape(-1, N_INPUTS)  # (trial * period, input)
    return np.repeat(inputs, counts, axis=0), np.repeat(labels.ravel(), counts)


def add_noise(
    inputs: Float32[np.ndarray, "step 53"], parameters: TrialParameters, dt: float, *, rng: np.random.Generator
) -> None:
    """Add noise to what ``lay_out`` gave, in place: it is ours."""
    task = parameters.task[:, None]
    shown = (parameters.strengths > 0).any(axis=1) | (task < MATCH.start)  # (trial, ring)
    noisy = (shown & (task >= REACH.stop))[:, None] & SHOWS[parameters.task].any(axis=2, keepdims=True)
    noisy = np.repeat(noisy.reshape(-1, 2), parameters.steps.ravel(), axis=0)  # (step, ring)
    for ring, units in enumerate(_RINGS):
        rows = np.flatnonzero(noisy[:, ring])
        inputs[rows, units] += rng.standard_normal((len(rows), N_DIRECTIONS), np.float32) / np.float32(np.sqrt(dt))


def _period_inputs(parameters: TrialParameters) -> np.ndarray:
    """Return what each period shows, (trial, period, input)."""
    task = parameters.task
    bumps = parameters.strengths[..., None] * _BUMPS[parameters.directions][:, :, None]  # (trial, stimulus, ring, unit)
    bumps = bumps.reshape(len(task), 2, 1, -1)
    shows = SHOWS[task][..., None]  # (trial, period, stimulus, 1)
    inputs = np.zeros((len(task), N_PERIODS, N_INPUTS), dtype=np.float32)
    inputs[..., 0] = HOLDS_FIXATION[task]
    for stimulus in range(2):  # one after the other, rounded to float32 in between as in neurogym
        inputs[..., 1:_RULE] += bumps[:, stimulus] * shows[:, :, stimulus]
    inputs[np.arange(len(task)), :, _RULE + task] = 1
    return inputs


def _side_by_side(inputs: np.ndarray, labels: np.ndarray, parameters: TrialParameters) -> CognitiveTrials:
    """Give each trial of a stream a row of its own."""
    length = parameters.steps.sum(axis=1)
    inside = np.arange(length.max(initial=0)) < length[:, None]  # (trial, time)
    padded_inputs = np.zeros((*inside.shape, N_INPUTS), dtype=np.float32)
    padded_labels = np.zeros(inside.shape, dtype=np.int64)
    padded_inputs[inside], padded_labels[inside] = inputs, labels
    return CognitiveTrials(padded_inputs, padded_labels, length, parameters)


def _place(task: str | int) -> int:
    """Return the place of a task in the collection."""
    if isinstance(task, str) and task in TASKS:
        return TASKS.index(task)
    if isinstance(task, int | np.integer) and 0 <= task < len(TASKS):
        return int(task)
    raise ValueError(f"task must be one of {', '.join(TASKS)}, or a place among them from 0 on, got {task!r}")

"""What is random in a trial, apart from noise, drawn for many trials at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from .tasks import (
    CONTRASTS,
    DECISION,
    DELAYED,
    DM1_STIMULUS,
    FIXATION_INTERVAL,
    MATCH,
    MILLISECONDS,
    N_DIRECTIONS,
    REACH,
    SCORED_RINGS,
    SHORTEST_PERIOD,
    SHOWN_RINGS,
    STRENGTHS,
    TASKS,
)

_OPPOSITE = N_DIRECTIONS // 2


@dataclass(frozen=True)
class TrialParameters:
    """All that decides a trial but its noise; ``noise_free_trials`` makes the trial of it.

    Args:
        task: place in ``TASKS``, (trial,).
        steps: time steps of fixation, first stimulus, delay, second stimulus and decision, (trial, 5); 0 where the
            task has no such period. In rtgo and rtanti the first stimulus comes with the decision, in the five
            decision tasks without delay the second comes with the first.
        directions: of the first and the second stimulus, 0 to 15, (trial, stimulus); any number without a second one.
        strengths: (trial, stimulus, ring); 0 on a ring that does not show it.
        answer: the label of the decision, (trial,): 1 + direction, or 0 where the right answer is to go on fixating.

    Raises:
        ValueError: fields of different numbers of trials, or a task, direction or answer that does not exist.
    """

    task: Int64[np.ndarray, " trial"]
    steps: Int64[np.ndarray, "trial 5"]
    directions: Int64[np.ndarray, "trial 2"]
    strengths: Float64[np.ndarray, "trial 2 2"]
    answer: Int64[np.ndarray, " trial"]

    def __post_init__(self):
        for name, shape in (("task", ()), ("steps", (5,)), ("directions", (2,)), ("strengths", (2, 2)), ("answer", ())):
            expected, got = (len(self.task), *shape), getattr(self, name).shape
            if got != expected:
                raise ValueError(f"{name} must have shape {expected}, as task has {len(self.task)} trials; got {got}")
        limits = (("task", len(TASKS)), ("directions", N_DIRECTIONS), ("answer", N_DIRECTIONS + 1))
        for name, limit in (*limits, ("steps", np.inf)):
            values = getattr(self, name)
            if values.size and not (values.min() >= 0 and values.max() < limit):
                raise ValueError(f"{name} must be at least 0 and below {limit}, got {values.min()} to {values.max()}")


def check_dt(dt: float) -> None:
    """Refuse a time step in which a period would be lost."""
    if not 0 < dt <= SHORTEST_PERIOD:
        raise ValueError(f"dt must be above 0 and at most {SHORTEST_PERIOD:g} ms, the shortest period, got {dt}")


def draw_steps(
    task: Int64[np.ndarray, "*trials"], dt: float, *, rng: np.random.Generator
) -> Int64[np.ndarray, "*trials 5"]:
    """Draw the lengths of the periods, in whole steps; neurogym, too, rounds each period down."""
    milliseconds = MILLISECONDS[task]
    drawn = (task >= DECISION.start) & (task < DELAYED.stop)
    milliseconds[..., 0] = np.where(drawn, rng.uniform(*FIXATION_INTERVAL, task.shape), milliseconds[..., 0])
    dm1 = task == TASKS.index("dm1")
    milliseconds[..., 1] = np.where(dm1, rng.choice(DM1_STIMULUS, task.shape), milliseconds[..., 1])
    return (milliseconds // dt).astype(np.int64)


def draw_parameters(
    task: Int64[np.ndarray, " trial"],
    ring: Int64[np.ndarray, " trial"],
    steps: Int64[np.ndarray, "trial 5"],
    *,
    rng: np.random.Generator,
) -> TrialParameters:
    """Draw directions and strengths; ``ring`` is where the tasks that use one of the two rings show their stimuli."""
    directions = np.zeros((len(task), 2), dtype=np.int64)
    strengths = np.zeros((len(task), 2, 2))
    answer = np.zeros(len(task), dtype=np.int64)
    for family, draw in ((REACH, _reach), (DECISION, _decision), (DELAYED, _decision), (MATCH, _match)):
        rows = np.flatnonzero((task >= family.start) & (task < family.stop))
        if len(rows):
            directions[rows], strengths[rows], answer[rows] = draw(task[rows], ring[rows], rng)
    return TrialParameters(task, steps, directions, strengths, answer)


def _reach(task: np.ndarray, ring: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answer the direction of the stimulus, or in the anti tasks the opposite one."""
    target = rng.integers(N_DIRECTIONS, size=len(task))
    anti = task >= TASKS.index("anti")
    stimulus = (target + _OPPOSITE * anti) % N_DIRECTIONS
    strengths = np.zeros((len(task), 2, 2))
    strengths[np.arange(len(task)), 0, ring] = 1.0
    return np.stack([stimulus, np.zeros_like(stimulus)], axis=1), strengths, target + 1


def _decision(
    task: np.ndarray, ring: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answer the stronger of two stimuli, by the sum over the rings that count; equal ones at random."""
    n = len(task)
    first = rng.integers(N_DIRECTIONS, size=n)
    second = (first + rng.integers(1, N_DIRECTIONS, size=n)) % N_DIRECTIONS
    delayed = task[0] >= DELAYED.start
    place = task - (DELAYED if delayed else DECISION).start
    strengths = _delayed_strengths(n, rng) if delayed else _instant_strengths(n, rng)
    strengths *= SHOWN_RINGS[place][:, None]
    evidence = (strengths * SCORED_RINGS[place][:, None]).sum(axis=2)
    prefers_first = evidence[:, 0] + rng.uniform(-1e-6, 1e-6, n) > evidence[:, 1]
    return np.stack([first, second], axis=1), strengths, np.where(prefers_first, first, second) + 1


def _instant_strengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw strengths that sum to 1 on each ring, (trial, stimulus, ring)."""
    contrast = rng.choice(CONTRASTS, (n, 2)) * rng.choice((-1, 1), (n, 2))
    return np.stack([0.5 + contrast / 2, 0.5 - contrast / 2], axis=1)


def _delayed_strengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw two different strengths for each ring, (trial, stimulus, ring)."""
    first = rng.integers(len(STRENGTHS), size=(n, 2))
    second = (first + rng.integers(1, len(STRENGTHS), size=(n, 2))) % len(STRENGTHS)
    return STRENGTHS[np.stack([first, second], axis=1)]


def _match(task: np.ndarray, ring: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answer the direction of the test if sample and test match (dms, dmc) or do not (dnms, dnmc), else fixate.

    A sample that does not match is opposite. Categories are halves of the ring; as in neurogym, a sample of direction 8
    counts to the first half, a test of direction 8 to the second.
    """
    n = len(task)
    sample = rng.integers(N_DIRECTIONS, size=n)
    match = rng.integers(2, size=n).astype(np.bool_)
    second_half = (sample > _OPPOSITE) ^ ~match
    in_category = rng.integers(_OPPOSITE, size=n) + _OPPOSITE * second_half
    by_sample = (sample + _OPPOSITE * ~match) % N_DIRECTIONS
    test = np.where(task >= TASKS.index("dmc"), in_category, by_sample)
    go_on_match = (task - MATCH.start) % 2 == 0
    strengths = np.zeros((n, 2, 2))
    strengths[np.arange(n), :, ring] = 1.0
    return np.stack([sample, test], axis=1), strengths, np.where(match == go_on_match, test + 1, 0)

"""What the compiled files of the engine for smooth forces hand to each other."""

from typing import NamedTuple

import numpy as np

FRESH, READY, DRIFTED, MOVED, DONE, HASTY = range(6)  # how far a system is in its step; HASTY met walls too often
STEP, OPEN = 0, 1  # columns of Bodies.tally


class Setup(NamedTuple):
    """What all systems share, beside the law."""

    lengths: np.ndarray  # (dim,) of periodic axes, else 0
    low: np.ndarray  # (dim,) near walls, minus infinity where there are none
    walls: np.ndarray  # (dim,) far walls, infinity where there are none
    step: float
    steps_per_frame: int
    n_frames: int
    duration: float  # until the last frame
    reach: float  # of the list of near pairs; 0 sums over all pairs
    skin: float  # what the list reaches beyond the force
    pushed: bool  # by external forces


class Bodies(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it."""

    position: np.ndarray  # (dim, particle)
    previous: np.ndarray  # (dim, particle) a step before
    listed: np.ndarray  # (dim, particle) when the list was made
    velocity: np.ndarray  # (dim, particle)
    acceleration: np.ndarray  # (dim, particle)
    radii: np.ndarray  # (particle,)
    masses: np.ndarray  # (particle,)
    strengths: np.ndarray  # (particle,) what external forces act on
    couplings: np.ndarray  # (particle,), or (particle * particle,) for a factor of each pair
    response: np.ndarray  # (particle,) acceleration a unit of summed force
    near: np.ndarray  # (particle,) square of the largest sum of radii with anyone
    turning: np.ndarray  # (3, particle) about the magnetic field: rate, cosine and sine of half a step; or (3, 0)
    crowd: np.ndarray  # (particle,) how many others may be within reach, open encounters aside
    tally: np.ndarray  # (2,)
    pair: np.ndarray  # (open, 2) encounters under way
    begin: np.ndarray  # (open,)
    deepest: np.ndarray  # (open,) overlap so far
    gained: np.ndarray  # (open, dim) momentum of the first of the pair so far


class Rows(NamedTuple):
    """Buffers for the log: all systems with a leading axis, or one system without it."""

    time: np.ndarray  # (row,)
    i: np.ndarray  # (row,)
    j: np.ndarray  # (row,)
    impulse: np.ndarray  # (row,)
    normal: np.ndarray  # (row, dim)
    duration: np.ndarray  # (row,)
    overlap: np.ndarray  # (row,)
    filled: np.ndarray  # (1,)


class NearPairs(NamedTuple):
    """Near pairs in both orders, for eight particles at a time; all pairs where ``partners`` is empty.

    The partners of particle i are ``partners[8 * k + i % 8]`` for k in ``range(starts[i // 8], starts[i // 8 + 1])``.
    Whoever has fewer partners than another of the eight is its own partner at last.
    """

    starts: np.ndarray  # (eights + 1,)
    partners: np.ndarray  # (capacity,) int32
    selves: np.ndarray  # (particle,) how often each is its own partner

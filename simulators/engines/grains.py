"""What the soft-contact engine keeps of a system from one time step to the next, and the law that all systems share."""

from typing import NamedTuple

import numpy as np
from numba import njit

RUNNING, FULL, CROWDED, CRAMPED, DONE, DIVERGED = 0, 1, 2, 3, 4, 5  # no room in the log; for contacts; in the list
STEP, CONTACTS, TOUCHED, OVER, ROWS, HASTY, UNFORESEEN, COUNTERS = 0, 1, 2, 3, 4, 5, 6, 7  # entries of Grains.tally
POSITION, VELOCITY, PUSH, SPIN, TWIST, ORIGIN, RADIUS, MASS, INERTIA, SINCE = 0, 3, 6, 9, 12, 15, 18, 19, 20, 21
BODY_ROWS = 22
BEGAN, DURATION, DEEPEST, MOMENTUM, NORMAL, LOGGED = 0, 1, 2, 3, 6, 9  # columns of a contact and of a log row
OVERLAP, SPRING, SLIP, CONTACT_COLUMNS = 9, 10, 13, 16  # of a contact only

# Without numba's counting of references: nothing in here allocates, and at sixteen particles it took half of the time.
_options = {"cache": True, "error_model": "numpy", "_nrt": False}
# What Python calls, in several threads at once. All else does without what only calls from Python need: a quarter of
# the time to compile.
running = njit(**_options, nogil=True)
_options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled = njit(**_options, forceinline=True)
# What every step calls: passing its dozen arrays would cost as much as moving 32 particles.
inlined = njit(**_options, inline="always")
# Sums in any order, where a NaN must stay one; maxima of numbers known to be finite.
summing = njit(**_options, forceinline=True, fastmath={"reassoc", "nsz"})
finding = njit(**_options, forceinline=True, fastmath={"nnan", "nsz"})


class ContactLaw(NamedTuple):
    """What all systems share: numbers only, as numba counts references to every array taken out of a record."""

    dim: int
    stiffness: float
    damping_ratio: float
    restitution: float
    friction: float
    tangential_share: float  # of the tangential spring over the normal one
    hertz: bool
    tension: bool
    interacting: bool
    amplitude: float
    angular_frequency: float
    rotation: float
    step: float
    steps_per_frame: int
    n_frames: int
    skin: float
    widest: float  # distance of touch
    cells_from: int  # particles from which a list is built from cells


class Grains(NamedTuple):
    """The running state, bit for bit: all systems with a leading axis, or one system without it.

    Vectors have three components, the third zero in two dimensions: contacts are rare, and one law serves both.

    Rows of ``body``: position; velocity and spin half a step ago; accelerations by contacts, of both; radius, mass and
    moment of inertia; where the present flight began, and at which step. Velocities and origins of flights are
    relative to the falling body. The position of a particle that flies freely is brought up to date when needed.
    """

    body: np.ndarray  # (row, particle) see below
    fall: np.ndarray  # (2, 3) how far and how fast a body fell that nothing touched, since the last epoch
    contact: np.ndarray  # (contact, column) see BEGAN ... SLIP
    who: np.ndarray  # (contact, 3) particle, partner or wall, entry in the list
    touched: np.ndarray  # (2 contact,) who was pushed or twisted at the last step, the first tally[TOUCHED] entries
    tally: np.ndarray  # (COUNTERS,)

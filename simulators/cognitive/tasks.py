"""What is fixed about each task: its periods, and what they show.

All figures are those of ``neurogym/envs/collections/yang19.py`` in neurogym 2.3.1, whose tasks depart from Yang et al.
2019 (Nature Neuroscience 22, 297, doi:10.1038/s41593-018-0310-2, Methods) in ring size, timing and strengths.
"""

import numpy as np

TASKS = (
    *("go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti"),
    *("dm1", "dm2", "ctxdm1", "ctxdm2", "multidm"),
    *("dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multidlydm"),
    *("dms", "dnms", "dmc", "dnmc"),
)
REACH, DECISION, DELAYED, MATCH = range(6), range(6, 11), range(11, 16), range(16, 20)  # families, as places in TASKS

N_DIRECTIONS = 16
N_INPUTS = 1 + 2 * N_DIRECTIONS + len(TASKS)  # fixation, ring 1, ring 2, rule

# Periods: fixation, first stimulus, delay, second stimulus, decision; in milliseconds, 0 where a task has none.
N_PERIODS = 5
_DRAWN = 0  # in the two decision families: the fixation, uniform over an interval
MILLISECONDS = np.array(
    [
        *[(500, 500, 0, 0, 500), (500, 0, 0, 0, 500), (500, 500, 500, 0, 500)] * 2,
        *[(_DRAWN, 500, 0, 0, 200)] * len(DECISION),
        *[(_DRAWN, 500, 1000, 500, 200)] * len(DELAYED),
        *[(300, 500, 1000, 500, 900)] * len(MATCH),
    ],
    dtype=np.float64,
)
FIXATION_INTERVAL = (200.0, 500.0)
DM1_STIMULUS = (200.0, 400.0, 600.0)  # dm1 alone draws the length of its stimulus
SHORTEST_PERIOD = 200.0  # of all periods that a trial has; a trial is at least three of them (dm1)

HOLDS_FIXATION = np.zeros((len(TASKS), N_PERIODS), dtype=np.bool_)  # (task, period)
HOLDS_FIXATION[:, 0] = True
HOLDS_FIXATION[REACH, 1:3] = True  # only these hold it until the decision; all others drop it with the first stimulus

SHOWS = np.zeros((len(TASKS), N_PERIODS, 2), dtype=np.bool_)  # (task, period, stimulus)
SHOWS[:, 1, 0] = True
SHOWS[DECISION, 1, 1] = True  # both at once
SHOWS[DELAYED.start : MATCH.stop, 3, 1] = True
for name in ("rtgo", "rtanti"):
    SHOWS[TASKS.index(name), :, 0] = np.arange(N_PERIODS) == N_PERIODS - 1  # with the decision

CONTRASTS = np.array((0.08, 0.16, 0.32, 0.64))  # decision: the two strengths are 0.5 + c / 2 and 0.5 - c / 2
STRENGTHS = np.array((0.3, 0.6, 1.0))  # delayed decision: two different ones of these
SHOWN_RINGS = np.array([(1, 0), (0, 1), (1, 1), (1, 1), (1, 1)])  # (place in a decision family, ring)
SCORED_RINGS = np.array([(1, 0), (0, 1), (1, 0), (0, 1), (1, 1)])  # which ring's strengths decide


def ring_bumps() -> np.ndarray:
    """Return the input of a ring, 0.8 exp(-(8 d / pi)^2 / 2) at an angular distance d, (direction, unit).

    Yang et al. 2019, Methods, there for rings of 32 units.
    """
    angles = np.arange(N_DIRECTIONS) * (2 * np.pi / N_DIRECTIONS)
    difference = np.abs(angles[:, None] - angles)
    distance = np.minimum(difference, 2 * np.pi - difference)
    return 0.8 * np.exp(-((distance / (np.pi / 8)) ** 2) / 2)

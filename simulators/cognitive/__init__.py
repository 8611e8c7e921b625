"""The twenty cognitive tasks of Yang et al. 2019, as neurogym 2.3.1 defines them, in batches.

One trial is a few periods in each of which nothing changes but the noise, so a trial is a table of at most five rows
and a batch is those rows, each repeated as often as its period has steps. ``tasks.py`` has the facts of the tasks,
``parameters.py`` draws what is random in a trial, ``trials.py`` and ``sequences.py`` lay trials out.
"""

from .parameters import TrialParameters
from .sequences import cognitive_sequences
from .tasks import TASKS
from .trials import CognitiveTrials, cognitive_accuracy, cognitive_trials, noise_free_trials

__all__ = [
    "TASKS",
    "CognitiveTrials",
    "TrialParameters",
    "cognitive_accuracy",
    "cognitive_sequences",
    "cognitive_trials",
    "noise_free_trials",
]

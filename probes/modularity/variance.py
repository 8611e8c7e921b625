"""How much every unit does in every task: its variance over trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .arrays import finite_array


def task_variance(activity: Mapping[str, Any] | Sequence[Any]) -> Float[np.ndarray, "task unit"]:
    """Variance of each unit over the trials of a task, averaged over time.

    Args:
        activity: for each task an array (trial, time, unit), numpy or torch. Trials and times may differ in number
            from task to task; a feed-forward layer (trial, unit) is one time, ``layer[:, None]``. A mapping keeps
            its order. Leave out the noise that a network adds while it trains: it would count as task variance.

    Returns:
        Unbiased (n - 1), so that tasks of few trials compare with tasks of many; the square of the activity's unit.

    Raises:
        ValueError: no task, another number of axes, NaN or infinity, fewer than two trials, units that differ in
            number between tasks.

    References:
        Yang et al. 2019, "Task representations in neural networks trained to perform many cognitive tasks",
        Nature Neuroscience 22, Methods ("task variance"); they divide by n.
    """
    named = dict(activity) if isinstance(activity, Mapping) else dict(enumerate(activity))
    if not named:
        raise ValueError("activity holds no task; give an array (trial, time, unit) for each")
    rows = []
    for task, values in named.items():
        array = finite_array(f"activity[{task!r}]", values, "trial time unit")
        if len(array) < 2:
            raise ValueError(f"activity[{task!r}] must hold at least 2 trials, got {len(array)}")
        rows.append(array.var(axis=0, ddof=1).mean(axis=0))
    n_units = sorted({len(row) for row in rows})
    if len(n_units) > 1:
        raise ValueError(f"the tasks of activity must agree on the number of units, got {n_units}")
    return np.stack(rows)

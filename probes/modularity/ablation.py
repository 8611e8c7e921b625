"""What breaks without a functional cluster: the tasks it serves, or any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import stdtrit
from torch import Tensor, nn

from ..hooking import replaced_output
from ..isolation import isolated
from .arrays import finite_array
from .clusters import FunctionalClusters
from .shuffle_test import check_count

Evaluate = Callable[[nn.Module], Mapping[str, Any] | Sequence[Any]]
"""``evaluate(model)``: for each task one number a trial, 1 where it was right (bool will do) or any score."""


@dataclass(frozen=True)
class ClusterAblation:
    """Accuracy lost when a cluster is silenced, beside random sets of as many active units.

    Attributes:
        tasks: names, in the order of the arrays.
        baseline: accuracy with nothing silenced.
        drop: accuracy lost.
        standard_error: of the drop, over the trials of a task, each compared with itself unablated.
        null_drop: the same of every random set.
        p_value: (1 + random sets that lose at least as much) / (1 + sets), for each task; not corrected for their
            number.
        serves: tasks in which the cluster's mean normalized variance is at least ``SERVED``.
        specificity: mean drop over the tasks served less the mean over the others; NaN where it serves all.
        specificity_interval: 95 %, Student's t over trials for these tasks; zero wide where no trial scatters.
        specificity_p_value: against the same of the random sets, as ``p_value``; NaN where it serves all.
    """

    tasks: tuple[str, ...]
    baseline: Float[np.ndarray, " task"]
    drop: Float[np.ndarray, "cluster task"]
    standard_error: Float[np.ndarray, "cluster task"]
    null_drop: Float[np.ndarray, "cluster draw task"]
    p_value: Float[np.ndarray, "cluster task"]
    serves: Bool[np.ndarray, "cluster task"]
    specificity: Float[np.ndarray, " cluster"]
    specificity_interval: Float[np.ndarray, "cluster 2"]
    specificity_p_value: Float[np.ndarray, " cluster"]


SERVED = 0.5
"""Mean normalized variance from which a cluster serves a task: half of the largest there can be (our choice)."""


@torch.no_grad()
def cluster_ablation(
    model: nn.Module,
    clusters: FunctionalClusters,
    evaluate: Evaluate,
    *,
    layer: str,
    rng: np.random.Generator,
    n_draws: int = 99,
) -> ClusterAblation:
    """Silence each cluster and see which tasks suffer, beside random sets of as many active units.

    The output of submodule ``layer`` has its units on the last axis; those of the cluster are set to zero at every
    call, hence at every time step of a network that calls it once a step.

    Args:
        model: any torch module; it is left as it was found.
        clusters: of ``functional_clusters`` on the tasks that ``evaluate`` returns, in its order.
        evaluate: returns for each task, by name or in order, the score of each trial. Every call starts from the same
            global random state, so noise drawn from it is the same; trials must be the same as well.
        layer: submodule whose output holds the units. A fused ``nn.RNN`` or ``nn.GRU`` has no such submodule, since
            its steps are inside; unroll it with a cell.
        rng: draws the random sets.
        n_draws: random sets a cluster; 99 (our choice) puts the smallest p-value at 0.01.

    Raises:
        ValueError: an unknown layer, one not called, one with another number of units, tasks other than those of the
            clusters, fewer than two trials, or an evaluation that gives another result when it is repeated.
        TypeError: a layer that returns no tensor.

    Cost: 2 + clusters x (1 + ``n_draws``) evaluations.

    References:
        Yang et al. 2019, Nature Neuroscience 22, Fig. 4 (lesions of clusters). Null and specificity are ours.
    """
    check_count("n_draws", n_draws, 1)
    names, intact = _scores(model, evaluate, clusters)
    _check_repeats(intact, _scores(model, evaluate, clusters)[1])
    active, n_units = np.flatnonzero(clusters.active), len(clusters.active)

    def losses(units: np.ndarray) -> list[np.ndarray]:
        kept = torch.ones(n_units, dtype=torch.bool)
        kept[units] = False
        with replaced_output(model, layer, lambda output: _silenced(output, kept, layer)):
            _, scores = _scores(model, evaluate, clusters)
        return [before - after for before, after in zip(intact, _same_trials(intact, scores), strict=True)]

    lost = [losses(np.flatnonzero(clusters.labels == c)) for c in range(clusters.n_clusters)]
    random_lost = [[losses(rng.choice(active, size, replace=False)) for _ in range(n_draws)] for size in clusters.sizes]
    drop = _mean_over_trials(lost)
    error = np.array([[x.std(ddof=1) / np.sqrt(len(x)) for x in tasks] for tasks in lost])
    null = np.array([_mean_over_trials(draws) for draws in random_lost])
    serves = clusters.profile >= SERVED
    contrast = _contrast(serves)
    specificity = (contrast * drop).sum(axis=1)
    of_null = (contrast[:, None] * null).sum(axis=-1)
    half = stdtrit(min(map(len, intact)) - 1, 0.975) * np.sqrt((contrast**2 * error**2).sum(axis=1))
    return ClusterAblation(
        tasks=names,
        baseline=np.array([scores.mean() for scores in intact]),
        drop=drop,
        standard_error=error,
        null_drop=null,
        p_value=_p_value(drop, null),
        serves=serves,
        specificity=specificity,
        specificity_interval=np.stack([specificity - half, specificity + half], axis=-1),
        specificity_p_value=np.where(np.isnan(specificity), np.nan, _p_value(specificity, of_null)),
    )


def _scores(
    model: nn.Module, evaluate: Evaluate, clusters: FunctionalClusters
) -> tuple[tuple[str, ...], list[Float[np.ndarray, " trial"]]]:
    """Run one evaluation and check what it returns."""
    with isolated(model):
        result = evaluate(model)
    named = dict(result) if isinstance(result, Mapping) else {f"task {i}": scores for i, scores in enumerate(result)}
    n_tasks = len(clusters.normalized)
    if len(named) != n_tasks:
        raise ValueError(f"evaluate must return the {n_tasks} tasks of the clusters, got {len(named)}")
    scores = [finite_array(f"evaluate's {name!r}", values, "trial") for name, values in named.items()]
    if min(map(len, scores)) < 2:
        raise ValueError(f"evaluate must return at least 2 trials a task, got {[len(s) for s in scores]}")
    return tuple(map(str, named)), scores


def _silenced(output: Tensor, kept: Tensor, layer: str) -> Tensor:
    if output.ndim == 0 or output.shape[-1] != len(kept):
        raise ValueError(
            f"layer {layer!r} must return the {len(kept)} units of the clusters on the last axis, "
            f"got shape {tuple(output.shape)}"
        )
    return output.masked_fill(~kept.to(output.device), 0)


def _same_trials(before: list[np.ndarray], after: list[np.ndarray]) -> list[np.ndarray]:
    if [len(scores) for scores in before] != [len(scores) for scores in after]:
        raise ValueError("evaluate must return as many trials at every call; draw them beforehand")
    return after


def _check_repeats(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    pairs = zip(first, _same_trials(first, second), strict=True)
    if not all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs):
        raise ValueError("evaluate must return the same when it is repeated; draw trials and noise beforehand")


def _mean_over_trials(lost: list[list[np.ndarray]]) -> Float[np.ndarray, "set task"]:
    return np.array([[x.mean() for x in tasks] for tasks in lost])


def _contrast(serves: Bool[np.ndarray, "cluster task"]) -> Float[np.ndarray, "cluster task"]:
    """Weights of the mean over tasks served less the mean over the others; NaN without either."""
    n_served, n_tasks = serves.sum(axis=1, keepdims=True), serves.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(serves, 1 / n_served, -1 / (n_tasks - n_served))
    return np.where((n_served == 0) | (n_served == n_tasks), np.nan, contrast)


def _p_value(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided, over the second axis of the null; ties up to rounding count against the cluster."""
    return (1 + (null >= observed[:, None] - 1e-12).sum(axis=1)) / (1 + null.shape[1])

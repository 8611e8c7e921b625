"""What breaks without a head, or without one of its edges.

Works on any model that hands its attention scores, and each head's output z, through named submodules, as
TransformerLens-style models do. Losses are per query, so an effect can be read where it belongs: on the particle
whose edge was cut, on those that collide, on those that fly free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .groups import error_of_sum, interval
from .hooking import replaced_output
from .isolation import isolated

QueryLoss = Callable[[nn.Module, Any], Float[Tensor, "scene query"]]
"""``query_loss(model, batch)``: the loss of each query, shape (scene, query)."""

SCORES = "blocks.{layer}.attn.hook_attn_scores"
Z = "blocks.{layer}.attn.hook_z"


@dataclass(frozen=True)
class EdgeKnockout:
    """Loss of a query when one of its attention edges is cut, per head and for all heads of a layer at once.

    Examples of one group of scenes are not independent (the two partners of one collision least of all), so errors
    treat groups as the independent units; they are NaN for a single group.

    Attributes:
        baseline: loss of each example with nothing cut.
        increase: added loss, shape (layer, head, example).
        layer_increase: added loss when every head of the layer loses the edge, shape (layer, example).
        group: label of the independent unit each example belongs to.
    """

    baseline: Float[np.ndarray, " example"]
    increase: Float[np.ndarray, "layer head example"]
    layer_increase: Float[np.ndarray, "layer example"]
    group: Int[np.ndarray, " example"]

    @property
    def mean(self) -> Float[np.ndarray, "layer head"]:
        """Mean added loss."""
        return self.increase.mean(axis=-1)

    @property
    def standard_error(self) -> Float[np.ndarray, "layer head"]:
        """Of the mean, over groups of examples."""
        return _error_of_mean(self.increase, self.group)

    @property
    def interval(self) -> Float[np.ndarray, "layer head 2"]:
        """95 % of the mean, Student's t (groups - 1)."""
        return _interval_of_mean(self.increase, self.group)

    @property
    def relative(self) -> Float[np.ndarray, "layer head"]:
        """Mean added loss in units of the mean loss with nothing cut."""
        return self.mean / self.baseline.mean()

    @property
    def layer_mean(self) -> Float[np.ndarray, " layer"]:
        """Mean added loss when every head of the layer loses the edge."""
        return self.layer_increase.mean(axis=-1)

    @property
    def layer_standard_error(self) -> Float[np.ndarray, " layer"]:
        """Of the layer's mean, over groups of examples."""
        return _error_of_mean(self.layer_increase, self.group)

    @property
    def layer_interval(self) -> Float[np.ndarray, "layer 2"]:
        """95 % of the layer's mean, Student's t (groups - 1)."""
        return _interval_of_mean(self.layer_increase, self.group)


@dataclass(frozen=True)
class HeadAblation:
    """Loss added by silencing a head, averaged over each named group of queries.

    Attributes:
        kind: what replaced the head's output.
        baseline: mean loss of each group with nothing ablated.
        increase: mean added loss, group name to array (layer, head).
        standard_error: of the increase, over groups of scenes; NaN where a single one holds such queries.
        interval: 95 % of the increase, Student's t (groups - 1), group name to array (layer, head, 2).
    """

    kind: str
    baseline: Mapping[str, float]
    increase: Mapping[str, Float[np.ndarray, "layer head"]]
    standard_error: Mapping[str, Float[np.ndarray, "layer head"]]
    interval: Mapping[str, Float[np.ndarray, "layer head 2"]]


@torch.no_grad()
def edge_knockout(
    model: nn.Module,
    batch: Any,
    edges: Int[np.ndarray, "example 3"],
    *,
    query_loss: QueryLoss,
    n_layers: int,
    n_heads: int,
    scores: str = SCORES,
    scene_groups: Int[np.ndarray, " scene"] | None = None,
) -> EdgeKnockout:
    """Cut single attention edges (query to key) and measure the loss of the query.

    One example is one scene with one edge cut: its score is set to minus infinity before the softmax, so the other
    keys share the attention (Geva et al. 2023, arXiv 2304.14767, "attention knockout"; there whole spans of tokens,
    here one edge). Scenes are repeated if they hold several edges, so that no two cuts meet.

    Args:
        model: left as it was found.
        batch: a tensor, or a (nested) tuple, list or dict of tensors with scenes on the first axis.
        edges: integer rows (scene, query, key).
        query_loss: loss of each query.
        n_layers: of the model.
        n_heads: in each layer.
        scores: name of the submodule that returns scores of shape (scene, head, query, key), before the softmax,
            with ``{layer}`` in it.
        scene_groups: label of the independent unit each scene belongs to (its box); None takes scenes for independent.

    Raises:
        ValueError: edges of another shape, none at all, out of range, or a query cut from itself; a submodule that is
            missing, never called, or returns another shape; a loss of another shape, or that is not finite.
        TypeError: edges that are not integers, or a batch that holds something other than tensors.

    Cost: n_layers (n_heads + 1) + 1 forward passes over as many scenes as there are edges.
    """
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 3 or len(edges) == 0:
        raise ValueError(f"edges must have shape (example, 3) with at least one row, got {edges.shape}")
    if not np.issubdtype(edges.dtype, np.integer):
        raise TypeError(f"edges must be integers (scene, query, key), got {edges.dtype}")
    if (edges[:, 1] == edges[:, 2]).any():
        raise ValueError("edges must join two particles; a row has query = key")
    n_scenes = _n_scenes(batch)
    _check_range("edges", edges, 0, n_scenes, "scene", "batch")
    scene, query, key = torch.from_numpy(edges.astype(np.int64)).unbind(1)
    example = torch.arange(len(edges))
    examples = tree_map(lambda t: t[scene.to(t.device)], batch)
    group = edges[:, 0] if scene_groups is None else _checked_groups(scene_groups, n_scenes)[edges[:, 0]]

    def loss(without: str) -> np.ndarray:
        losses = _checked_loss(query_loss(model, examples), len(edges), "query_loss")
        _check_range("edges", edges, 1, losses.shape[1], "query", "loss")
        found = losses[example, query].double().cpu().numpy()
        if not np.isfinite(found).all():
            first = edges[~np.isfinite(found)][0].tolist()
            raise ValueError(
                f"the loss with {without} is {found[~np.isfinite(found)][0]} for edge {first}; "
                "check the data, and that scores are taken before the softmax"
            )
        return found

    def cut(heads: slice) -> Callable[[Tensor], Tensor]:
        def replace(attn_scores: Tensor) -> Tensor:
            _check_heads("scores", attn_scores, 1, n_heads, "(scene, head, query, key)")
            _check_range("edges", edges, 1, attn_scores.shape[2], "query", "scores")
            _check_range("edges", edges, 2, attn_scores.shape[3], "key", "scores")
            attn_scores = attn_scores.clone()
            attn_scores[example, heads, query, key] = float("-inf")
            return attn_scores

        return replace

    def loss_without(layer: int, heads: slice) -> np.ndarray:
        with replaced_output(model, scores.format(layer=layer), cut(heads)):
            return loss(f"the edge cut in layer {layer}")

    with isolated(model):
        baseline = loss("nothing cut")
        increase = [
            [loss_without(layer, slice(head, head + 1)) - baseline for head in range(n_heads)]
            for layer in range(n_layers)
        ]
        layer_increase = [loss_without(layer, slice(None)) - baseline for layer in range(n_layers)]
    return EdgeKnockout(baseline, np.array(increase), np.array(layer_increase), np.asarray(group))


@torch.no_grad()
def head_ablation(
    model: nn.Module,
    batch: Any,
    groups: Mapping[str, Bool[Tensor, "scene query"] | Bool[np.ndarray, "scene query"]],
    *,
    query_loss: QueryLoss,
    kind: Literal["zero", "mean", "resample"],
    n_layers: int,
    n_heads: int,
    generator: torch.Generator,
    z: str = Z,
    scene_groups: Int[np.ndarray, " scene"] | None = None,
) -> HeadAblation:
    """Silence one head at a time and measure the loss of each group of queries.

    Args:
        model: left as it was found.
        batch: as in ``edge_knockout``.
        groups: which queries make up each group, colliding and free particles say.
        query_loss: loss of each query.
        kind: the head's output z is set to zero, to its mean over scenes and queries, or taken from the same query
            of another scene, drawn anew for each head.
        n_layers: of the model.
        n_heads: in each layer.
        generator: draws the other scenes; used by ``resample`` only.
        z: name of the submodule that returns z of shape (scene, query, head, d_head), with ``{layer}`` in it.
        scene_groups: as in ``edge_knockout``.

    Raises:
        ValueError: unknown kind, no group, an empty one or one of another shape than the loss; a single scene to
            resample from; a submodule that is missing, never called, or returns another shape; a loss not finite.

    Cost: n_layers n_heads + 1 forward passes.
    """
    if kind not in ("zero", "mean", "resample"):
        raise ValueError(f"kind must be zero, mean or resample, got {kind!r}")
    if not groups:
        raise ValueError("groups is empty; name at least one group of queries")
    n_scenes = _n_scenes(batch)
    if kind == "resample" and n_scenes < 2:
        raise ValueError(f"resample takes z from another scene; batch has {n_scenes}")
    units = np.arange(n_scenes) if scene_groups is None else _checked_groups(scene_groups, n_scenes)

    def added(layer: int, head: int, baseline: Tensor) -> Tensor:
        with replaced_output(model, z.format(layer=layer), _silenced(head, n_heads, kind, generator)):
            return loss() - baseline

    def loss() -> Tensor:
        losses = _checked_loss(query_loss(model, batch), n_scenes, "query_loss").double()
        if not losses.isfinite().all():
            where = tuple((~losses.isfinite()).nonzero()[0].tolist())
            raise ValueError(f"the loss is {losses[where].item()} for (scene, query) {where}; check data and weights")
        return losses

    with isolated(model):
        baseline = loss()
        masks = {name: _checked_mask(name, mask, baseline) for name, mask in groups.items()}
        change = torch.stack(
            [torch.stack([added(layer, head, baseline) for head in range(n_heads)]) for layer in range(n_layers)]
        )
    increase, error, ends = {}, {}, {}
    for name, mask in masks.items():
        changes = change[:, :, mask].cpu().numpy()
        increase[name] = changes.mean(axis=-1)
        unit = units[np.nonzero(mask.cpu().numpy())[0]]
        error[name], ends[name] = _error_of_mean(changes, unit), _interval_of_mean(changes, unit)
    before = {name: baseline[mask].mean().item() for name, mask in masks.items()}
    return HeadAblation(kind, before, increase, error, ends)


def _silenced(head: int, n_heads: int, kind: str, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Replace the output of one head."""

    def replace(z: Tensor) -> Tensor:
        _check_heads("z", z, 2, n_heads, "(scene, query, head, d_head)")
        z = z.clone()
        if kind == "zero":
            z[:, :, head] = 0
        elif kind == "mean":
            z[:, :, head] = z[:, :, head].mean(dim=(0, 1))
        else:
            order = torch.randperm(len(z), generator=generator, device=generator.device).to(z.device)
            z[order, :, head] = z[order.roll(1), :, head]  # one random cycle: no scene keeps its own
        return z

    return replace


def partner_edges(
    contacts: Bool[np.ndarray, "scene query key"], distances: Float[np.ndarray, "scene query key"]
) -> tuple[Int[np.ndarray, "example 3"], Int[np.ndarray, "example 3"]]:
    """Edges of the particles with exactly one partner: to that partner, and to the nearest of the others.

    Args:
        contacts: whether the pair collides; a particle's contact with itself is left out.
        distances: between the pair, to judge who is nearest; surfaces or centres.

    Returns:
        Two integer arrays of rows (scene, query, key), paired row by row.

    Raises:
        ValueError: shapes that disagree, NaN, no particle with exactly one partner, or no other particle.
    """
    if contacts.ndim != 3 or contacts.shape[1] != contacts.shape[2] or contacts.shape != distances.shape:
        raise ValueError(
            "contacts and distances must both have shape (scene, query, key) with queries = keys, "
            f"got {contacts.shape} and {distances.shape}"
        )
    apart = ~np.eye(contacts.shape[-1], dtype=bool)
    if (np.isnan(distances) & apart).any():
        where = tuple(np.argwhere(np.isnan(distances) & apart)[0].tolist())
        raise ValueError(f"distances holds NaN, first at {where}")
    contacts = contacts & apart
    scene, query = np.nonzero(contacts.sum(axis=-1) == 1)
    if len(scene) == 0 or contacts.shape[-1] < 3:
        raise ValueError(
            f"contacts {contacts.shape} holds no particle with exactly one partner and another particle beside; "
            "give more scenes"
        )
    partner = contacts[scene, query].argmax(axis=-1)
    others = distances[scene, query].copy()
    rows = np.arange(len(scene))
    others[rows, partner] = np.inf
    others[rows, query] = np.inf
    return np.stack([scene, query, partner], axis=1), np.stack([scene, query, others.argmin(axis=-1)], axis=1)


def _n_scenes(batch: Any) -> int:
    """Length of the first axis, the same in all tensors of a batch."""
    leaves = tree_leaves(batch)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            got = "a scalar tensor" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(
                f"batch must hold only tensors with scenes on the first axis, got {got}; close over the rest"
            )
    lengths = sorted({len(leaf) for leaf in leaves})
    if len(lengths) != 1:
        raise ValueError(f"the tensors of batch must agree on the number of scenes, got {lengths or 'no tensor'}")
    return lengths[0]


def _check_range(what: str, edges: np.ndarray, column: int, size: int, axis: str, of: str) -> None:
    bad = (edges[:, column] < 0) | (edges[:, column] >= size)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{what} row {row} is {edges[row].tolist()}, but {of} has {size} on the {axis} axis")


def _checked_groups(groups: np.ndarray, n_scenes: int) -> np.ndarray:
    if len(groups) != n_scenes:
        raise ValueError(f"scene_groups must label each of the {n_scenes} scenes, got {len(groups)} labels")
    return groups


def _check_heads(what: str, activation: Tensor, axis: int, n_heads: int, shape: str) -> None:
    if activation.ndim != 4 or activation.shape[axis] != n_heads:
        raise ValueError(f"{what} must have shape {shape} with n_heads = {n_heads}, got {tuple(activation.shape)}")


def _checked_loss(loss: Tensor, n_scenes: int, what: str) -> Tensor:
    if loss.ndim != 2 or len(loss) != n_scenes:
        raise ValueError(f"{what} must return shape (scene, query) with {n_scenes} scenes, got {tuple(loss.shape)}")
    return loss


def _checked_mask(name: str, mask: Tensor | np.ndarray, loss: Tensor) -> Tensor:
    mask = torch.as_tensor(mask, device=loss.device)
    if mask.shape != loss.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"groups[{name!r}] must be bool of shape {tuple(loss.shape)} as the loss, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if not mask.any():
        raise ValueError(f"groups[{name!r}] holds no query; leave it out or give more scenes")
    return mask


def _error_of_mean(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the last axis, whose entries move together within a group."""
    return error_of_sum(_influence_on_mean(values), group)


def _interval_of_mean(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """95 % interval of the same."""
    return interval(values.mean(axis=-1), _influence_on_mean(values), group)


def _influence_on_mean(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(values - values.mean(axis=-1, keepdims=True), -1, 0) / values.shape[-1]

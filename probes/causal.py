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
from torch.utils._pytree import tree_map

from .hooking import replaced_output
from .isolation import isolated

QueryLoss = Callable[[nn.Module, Any], Float[Tensor, "scene query"]]
"""``query_loss(model, batch)``: the loss of each query, shape (scene, query)."""

SCORES = "blocks.{layer}.attn.hook_attn_scores"
Z = "blocks.{layer}.attn.hook_z"


@dataclass(frozen=True)
class EdgeKnockout:
    """Loss of a query when one of its attention edges is cut, per head and for all heads of a layer at once.

    Attributes:
        baseline: loss of each example with nothing cut.
        increase: added loss, shape (layer, head, example).
        layer_increase: added loss when every head of the layer loses the edge, shape (layer, example).
    """

    baseline: Float[np.ndarray, " example"]
    increase: Float[np.ndarray, "layer head example"]
    layer_increase: Float[np.ndarray, "layer example"]

    @property
    def mean(self) -> Float[np.ndarray, "layer head"]:
        """Mean added loss."""
        return self.increase.mean(axis=-1)

    @property
    def standard_error(self) -> Float[np.ndarray, "layer head"]:
        """Of the mean, over examples taken as independent."""
        return self.increase.std(axis=-1, ddof=1) / np.sqrt(self.increase.shape[-1])

    @property
    def relative(self) -> Float[np.ndarray, "layer head"]:
        """Mean added loss in units of the mean loss with nothing cut."""
        return self.mean / self.baseline.mean()


@dataclass(frozen=True)
class HeadAblation:
    """Loss added by silencing a head, averaged over each named group of queries.

    Attributes:
        kind: what replaced the head's output.
        baseline: mean loss of each group with nothing ablated.
        increase: mean added loss, group name to array (layer, head).
        standard_error: of the increase, over scenes.
    """

    kind: str
    baseline: Mapping[str, float]
    increase: Mapping[str, Float[np.ndarray, "layer head"]]
    standard_error: Mapping[str, Float[np.ndarray, "layer head"]]


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
) -> EdgeKnockout:
    """Cut single attention edges (query to key) and measure the loss of the query.

    One example is one scene with one edge cut: its score is set to minus infinity before the softmax, so the other
    keys share the attention. Scenes are repeated if they hold several edges, so that no two cuts meet.

    Args:
        model: left as it was found.
        batch: a tensor, or a (nested) tuple, list or dict of tensors with scenes on the first axis.
        edges: integer rows (scene, query, key).
        query_loss: loss of each query.
        n_layers: of the model.
        n_heads: in each layer.
        scores: name of the submodule that returns scores of shape (scene, head, query, key), with ``{layer}`` in it.

    Raises:
        ValueError: edges of another shape, none at all, or a query cut from itself.

    Cost: n_layers (n_heads + 1) + 1 forward passes over as many scenes as there are edges.
    """
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 3 or len(edges) == 0:
        raise ValueError(f"edges must have shape (example, 3) with at least one row, got {edges.shape}")
    if (edges[:, 1] == edges[:, 2]).any():
        raise ValueError("edges must join two particles; a row has query = key")
    scene, query, key = torch.from_numpy(edges.astype(np.int64)).unbind(1)
    example = torch.arange(len(edges))
    examples = tree_map(lambda t: t[scene.to(t.device)], batch)

    def loss() -> np.ndarray:
        return query_loss(model, examples)[example, query].double().cpu().numpy()

    def cut(heads: slice) -> Callable[[Tensor], Tensor]:
        def replace(attn_scores: Tensor) -> Tensor:
            attn_scores = attn_scores.clone()
            attn_scores[example, heads, query, key] = float("-inf")
            return attn_scores

        return replace

    def loss_without(layer: int, heads: slice) -> np.ndarray:
        with replaced_output(model, scores.format(layer=layer), cut(heads)):
            return loss()

    with isolated(model):
        baseline = loss()
        increase = [
            [loss_without(layer, slice(head, head + 1)) - baseline for head in range(n_heads)]
            for layer in range(n_layers)
        ]
        layer_increase = [loss_without(layer, slice(None)) - baseline for layer in range(n_layers)]
    return EdgeKnockout(baseline, np.array(increase), np.array(layer_increase))


@torch.no_grad()
def head_ablation(
    model: nn.Module,
    batch: Any,
    groups: Mapping[str, Bool[Tensor, "scene query"]],
    *,
    query_loss: QueryLoss,
    kind: Literal["zero", "mean", "resample"],
    n_layers: int,
    n_heads: int,
    generator: torch.Generator,
    z: str = Z,
) -> HeadAblation:
    """Silence one head at a time and measure the loss of each group of queries.

    Args:
        model: left as it was found.
        batch: as in ``edge_knockout``.
        groups: which queries make up each group, colliding and free particles say.
        query_loss: loss of each query.
        kind: the head's output z is set to zero, to its mean over scenes and queries, or taken from the same query
            of another scene.
        n_layers: of the model.
        n_heads: in each layer.
        generator: draws the other scenes; used by ``resample`` only.
        z: name of the submodule that returns z of shape (scene, query, head, d_head), with ``{layer}`` in it.

    Raises:
        ValueError: unknown kind, or an empty group.

    Cost: n_layers n_heads + 1 forward passes.
    """
    if kind not in ("zero", "mean", "resample"):
        raise ValueError(f"kind must be zero, mean or resample, got {kind!r}")
    for name, mask in groups.items():
        if not mask.any():
            raise ValueError(f"groups[{name!r}] holds no query; leave it out or give more scenes")

    def silenced(head: int) -> Callable[[Tensor], Tensor]:
        def replace(z: Tensor) -> Tensor:
            z = z.clone()
            if kind == "zero":
                z[:, :, head] = 0
            elif kind == "mean":
                z[:, :, head] = z[:, :, head].mean(dim=(0, 1))
            else:
                shift = torch.randint(1, max(2, len(z)), (1,), generator=generator).item()
                z[:, :, head] = z[:, :, head].roll(int(shift), dims=0)
            return z

        return replace

    def added(layer: int, head: int, baseline: Tensor) -> Tensor:
        with replaced_output(model, z.format(layer=layer), silenced(head)):
            return query_loss(model, batch).double() - baseline

    with isolated(model):
        baseline = query_loss(model, batch).double()
        change = torch.stack(
            [torch.stack([added(layer, head, baseline) for head in range(n_heads)]) for layer in range(n_layers)]
        )
    return HeadAblation(
        kind,
        {name: baseline[mask].mean().item() for name, mask in groups.items()},
        {name: change[:, :, mask].mean(-1).cpu().numpy() for name, mask in groups.items()},
        {name: _scene_error(change, mask) for name, mask in groups.items()},
    )


def _scene_error(change: Tensor, mask: Tensor) -> Float[np.ndarray, "layer head"]:
    """Standard error of a mean over queries whose scenes are the independent units."""
    mean = change[:, :, mask].mean(-1)
    per_scene = ((change - mean[..., None, None]) * mask).sum(-1)
    return (per_scene.square().sum(-1).sqrt() / mask.sum()).cpu().numpy()


def partner_edges(
    contacts: Bool[np.ndarray, "scene query key"], distances: Float[np.ndarray, "scene query key"]
) -> tuple[Int[np.ndarray, "example 3"], Int[np.ndarray, "example 3"]]:
    """Edges of the particles with exactly one partner: to that partner, and to the nearest of the others.

    Returns:
        Two integer arrays of rows (scene, query, key), paired row by row.

    Raises:
        ValueError: no particle has exactly one partner, or there is no other particle.
    """
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

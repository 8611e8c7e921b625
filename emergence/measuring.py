"""The probes of a study, bound to its evaluation scenes: what is measured at each checkpoint, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes import (
    approach_preference,
    contact_average_precision,
    distance_correlation,
    edge_knockout,
    estimate_llcs,
    head_ablation,
    partner_edges,
    permutation_null,
    radial_attention,
    radius_score,
    record_outputs,
)
from probes.sweep import FunctionProbe, Measurement

from .config import StudyConfig
from .data import Transitions, loss_per_particle, prediction_loss
from .model import head_masks
from .probing import hessian_measurements

CHUNK = 250
"""Scenes a forward pass when patterns are recorded."""


def loss_probe(data: Transitions, identity: str) -> FunctionProbe:
    """Loss on all, on colliding, on wall-hitting and on free particles of the evaluation scenes."""
    colliding = data.contacts.any(-1)
    groups = {
        "all": torch.ones_like(colliding),
        "contact": colliding,
        "wall": data.wall_contacts & ~colliding,
        "free": ~data.wall_contacts & ~colliding,
    }

    def rows(losses: Float[Tensor, "scene particle"], prefix: str) -> Iterator[Measurement]:
        for name, mask in groups.items():
            mean, error = _mean_over_systems(losses, mask, data.scene_system)
            yield Measurement(f"{prefix}_{name}", mean, error)

    @torch.no_grad()
    def measure(model: Any, seed: int) -> Iterable[Measurement]:
        ballistic = (data.ballistic - data.batch.targets).square().mean(-1)
        return [*rows(loss_per_particle(model, data.batch), "loss"), *rows(ballistic, "ballistic_loss")]

    return FunctionProbe("loss", measure, {"data": identity})


def head_probe(data: Transitions, config: StudyConfig, identity: str) -> FunctionProbe:
    """Everything a head's attention shows: contacts, distances, approach."""
    scenes = _first_scenes(data, config.probes.n_scenes)
    contacts, gaps = data.contacts[scenes].cpu().numpy(), data.gaps[scenes].cpu().numpy()
    distances, approaching = data.distances[scenes].cpu().numpy(), data.approaching[scenes].cpu().numpy()
    groups = data.scene_system[scenes].cpu().numpy()
    radius = contact_range(data, config.data.frame_interval)
    edges = np.linspace(0.0, float(np.percentile(distances, 95)), 25)

    def measure(model: Any, seed: int) -> Iterator[Measurement]:
        rng = np.random.default_rng(seed)
        for layer, pattern in enumerate(attention_patterns(model, data, scenes)):
            ap = contact_average_precision(pattern, contacts, groups=groups)
            null = permutation_null(
                pattern, contacts, rng=rng, groups=groups, n_permutations=config.probes.n_permutations
            )
            near = radius_score(pattern, distances, radius=radius, groups=groups)
            radial = radial_attention(pattern, distances, edges=edges, groups=groups)
            correlation = distance_correlation(pattern, distances, edges=edges, groups=groups)
            approach = approach_preference(pattern, distances, approaching, edges=edges, groups=groups)
            for head in range(pattern.shape[1]):
                numbers = {
                    "contact_ap": (ap.value[head], ap.standard_error[head]),
                    "contact_ap_low": ap.interval[head, 0],
                    "contact_ap_high": ap.interval[head, 1],
                    "contact_ap_null": (null.null[:, head].mean(), null.null[:, head].std()),
                    "contact_ap_p_value": null.p_value[head],
                    "radius_score": near.score[head],
                    "radius_score_chance": near.chance[head],
                    "radius_score_excess": (near.excess[head], near.standard_error[head]),
                    "distance_correlation": correlation.pearson[head],
                    "distance_correlation_spearman": correlation.spearman[head],
                    "correlation_length": (correlation.length[head], correlation.length_standard_error[head]),
                    "approach_ratio": approach.ratio[head],
                    "approach_ratio_low": approach.interval[head, 0],
                    "approach_ratio_high": approach.interval[head, 1],
                }
                yield from _numbers(numbers, layer, head)
                for name, curve, error in (
                    ("radial_attention", radial.g[head], radial.standard_error[head]),
                    ("connected_correlation", correlation.connected[head], correlation.standard_error[head]),
                    ("attention_approaching", approach.approaching[head], None),
                    ("attention_receding", approach.receding[head], None),
                ):
                    yield from _curve(name, radial.centers, curve, error, layer, head)
        for name, score in (
            ("nearest_neighbor_ap", -gaps),
            ("nearest_center_ap", -distances),
            ("free_flight_ap", -_free_flight_gap(data, scenes, config.data.frame_interval)),
        ):
            baseline = contact_average_precision(score[:, None], contacts, groups=groups)
            yield Measurement(name, float(baseline.value[0]), float(baseline.standard_error[0]))
        yield Measurement("chance_ap", float(contacts.sum() / (contacts.size - contacts[..., 0].size)))

    settings = {
        "data": identity,
        "n_scenes": len(scenes),
        "n_permutations": config.probes.n_permutations,
        "radius": radius,
    }
    return FunctionProbe("heads", measure, settings)


def causal_probe(data: Transitions, config: StudyConfig, identity: str) -> FunctionProbe:
    """Edge knock-out and head ablation."""
    n_layers, n_heads = config.model.n_layers, config.model.n_heads
    scenes = _first_scenes(data, config.probes.n_scenes)
    batch = type(data.batch)(*(t[scenes] for t in data.batch))
    contacts, gaps = data.contacts[scenes], data.gaps[scenes]
    colliding = contacts.any(-1)
    groups = {"contact": colliding, "free": ~colliding & ~data.wall_contacts[scenes]}
    groups = {name: mask for name, mask in groups.items() if mask.any()}  # in a dense box nobody flies free
    boxes = data.scene_system[scenes].cpu().numpy()
    partner, nearest = (
        edges[_spread(len(edges), config.probes.n_knockout_edges)]
        for edges in partner_edges(contacts.cpu().numpy(), gaps.cpu().numpy())
    )
    common: dict[str, Any] = {
        "query_loss": loss_per_particle,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "scene_groups": boxes,
    }

    def measure(model: Any, seed: int) -> Iterator[Measurement]:
        cut = {
            name: edge_knockout(model, batch, edges, **common)
            for name, edges in (("partner", partner), ("nonpartner", nearest))
        }
        yield Measurement("knockout_baseline_loss", float(cut["partner"].baseline.mean()))
        for name, result in cut.items():
            for layer in range(n_layers):
                whole = (result.layer_mean[layer], result.layer_standard_error[layer])
                yield from _numbers({f"edge_knockout_{name}": whole}, layer, None)
                for head in range(n_heads):
                    increase = (result.mean[layer, head], result.standard_error[layer, head])
                    yield from _numbers({f"edge_knockout_{name}": increase}, layer, head)
        generator = torch.Generator().manual_seed(seed)
        for kind in ("zero", "mean", "resample"):
            ablation = head_ablation(model, batch, groups, kind=kind, generator=generator, **common)
            for group, increase in ablation.increase.items():
                for layer, head in np.ndindex(increase.shape):
                    value = (increase[layer, head], ablation.standard_error[group][layer, head])
                    yield from _numbers({f"{kind}_ablation_{group}": value}, layer, head)

    settings = {"data": identity, "n_scenes": len(scenes), "n_edges": len(partner)}
    return FunctionProbe("causal", measure, settings)


def hessian_probe(data: Transitions, config: StudyConfig, identity: str) -> FunctionProbe:
    """Leading eigenvalues, trace and near-null share of the loss Hessian."""
    settings = config.probes.hessian
    size = min(settings.n_scenes, len(data))
    batches = [type(data.batch)(*(t[_first_scenes(data, size)] for t in data.batch))]

    def measure(model: Any, seed: int) -> Iterable[Measurement]:
        model.use_explicit_attention()
        numbers = asdict(settings)
        options = {name: numbers[name] for name in ("n_top", "n_probes", "n_steps", "near_null_threshold")}
        return hessian_measurements(model, batches, prediction_loss, None, seed, **options)

    return FunctionProbe("hessian", measure, {"data": identity, **asdict(settings)})


def llc_probe(data: Transitions, config: StudyConfig, identity: str) -> FunctionProbe:
    """Local learning coefficient of the whole model and of each head, in one vectorised run."""
    settings = config.probes.llc
    batches = data.batches(settings.batch_size)

    def measure(model: Any, seed: int) -> Iterator[Measurement]:
        places = {"model": (None, None), **{f"{layer}.{head}": (layer, head) for layer, head in head_masks(model)}}
        scopes = {"model": None, **{f"{layer}.{head}": mask for (layer, head), mask in head_masks(model).items()}}
        estimates = estimate_llcs(
            model,
            batches,
            scopes=scopes,
            loss_fn=prediction_loss,
            nbeta=settings.nbeta,
            step_size=settings.step_size,
            localization=settings.localization,
            n_chains=settings.n_chains,
            n_draws=settings.n_draws,
            n_burnin=settings.n_burnin,
            generator=torch.Generator().manual_seed(seed),
        )
        for scope, estimate in estimates.items():
            numbers = {
                "llc": (estimate.value, estimate.standard_error),
                "llc_rhat": estimate.rhat,
                "llc_n_diverged": estimate.n_diverged,
            }
            yield from _numbers(numbers, *places[scope])

    return FunctionProbe("llc", measure, {"data": identity, **asdict(settings)})


def attention_patterns(
    model: Any, data: Transitions, scenes: Tensor
) -> list[Float[np.ndarray, "scene head query key"]]:
    """Attention pattern of each layer on the given scenes."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    recorded = record_outputs(model, data.batch.features[scenes].split(CHUNK), names)
    return [recorded[name].double().cpu().numpy() for name in names]


def contact_range(data: Transitions, interval: float) -> float:
    """Distance within which a collision in the next interval is likely: a diameter and one typical flight."""
    return float(2 * data.radii.mean() + data.velocities.square().mean().sqrt() * interval)


def _free_flight_gap(data: Transitions, scenes: Tensor, interval: float) -> Float[np.ndarray, "scene query key"]:
    """Smallest surface gap within the interval if nothing else collided: the geometry of two discs alone."""
    dx, v = data.separations[scenes].cpu().numpy(), data.velocities[scenes].cpu().numpy()
    dv = v[:, :, None] - v[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        closest = np.nan_to_num(-(dx * dv).sum(-1) / (dv**2).sum(-1))
    time = np.clip(closest, 0.0, interval)
    radii = data.radii[scenes].cpu().numpy()
    return np.linalg.norm(dx + dv * time[..., None], axis=-1) - radii[:, :, None] - radii[:, None]


def _first_scenes(data: Transitions, n: int) -> Tensor:
    """Scenes spread evenly over the evaluation boxes."""
    return torch.from_numpy(_spread(len(data), n)).to(data.batch.features.device)


def _spread(n: int, n_chosen: int) -> np.ndarray:
    """Indices of ``n_chosen`` of ``n`` things, evenly spread; all of them if there are fewer."""
    return np.linspace(0, n - 1, min(n, n_chosen)).round().astype(np.int64)


def _mean_over_systems(values: Tensor, mask: Tensor, system: Tensor) -> tuple[float, float]:
    """Mean over masked particles, with the standard error that boxes as independent units give."""
    if not mask.any():
        return float("nan"), float("nan")
    values = values.double()
    mean = values[mask].mean()
    residual = ((values - mean) * mask).sum(-1)
    per_system = torch.zeros(int(system.max()) + 1, dtype=residual.dtype, device=residual.device).index_add(
        0, system, residual
    )
    return mean.item(), (per_system.square().sum().sqrt() / mask.sum()).item()


def _numbers(numbers: dict[str, Any], layer: int | None, head: int | None) -> Iterator[Measurement]:
    for quantity, value in numbers.items():
        mean, error = value if isinstance(value, tuple) else (value, float("nan"))
        yield Measurement(quantity, float(mean), float(error), layer, head)


def _curve(name: str, x: Any, y: Any, error: Any, layer: int | None, head: int | None) -> Iterator[Measurement]:
    for i, (abscissa, value) in enumerate(zip(x, y, strict=True)):
        spread = float("nan") if error is None else float(error[i])
        yield Measurement(name, float(value), spread, layer, head, float(abscissa))

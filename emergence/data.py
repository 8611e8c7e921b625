"""Trajectories become tensors here and nowhere else: scenes, targets, and the labels they are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from simulators import HardSpheres, Trajectories, contact_labels, wall_contact_labels


class Batch(NamedTuple):
    """What the network reads and what it should have written, both normalised."""

    features: Float[Tensor, "scene particle feature"]
    targets: Float[Tensor, "scene particle output"]


@dataclass(frozen=True)
class Normalization:
    """Means and standard deviations that bring features and targets to order one; taken from the training scenes."""

    feature_mean: tuple[float, ...]
    feature_std: tuple[float, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> Normalization:
        """Measure over all scenes and particles. A constant column keeps unit scale."""

        def moments(a: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
            mean, std = a.mean(axis=(0, 1)), a.std(axis=(0, 1))
            return tuple(mean.tolist()), tuple(np.where(std > 1e-12, std, 1.0).tolist())

        return cls(*moments(features), *moments(targets))


@dataclass(frozen=True)
class Transitions:
    """Pairs of neighbouring frames: the scene now, its change over one frame interval, and what collided meanwhile.

    Attributes:
        batch: features (position, velocity, radius, mass) and targets (change of position and velocity).
        positions, velocities: the scene now, in simulation units, float64.
        radii: of the particles, float64.
        contacts: the pair collided inside the interval.
        wall_contacts: the particle hit a wall inside the interval.
        scene_system: the box a scene comes from; scenes of one box are not independent.
        ballistic: targets a particle would have in free flight, the baseline that knows gravity but no contact.
        normalization: how features and targets were scaled.
    """

    batch: Batch
    positions: Float[Tensor, "scene particle dim"]
    velocities: Float[Tensor, "scene particle dim"]
    radii: Float[Tensor, "scene particle"]
    contacts: Bool[Tensor, "scene particle particle"]
    wall_contacts: Bool[Tensor, "scene particle"]
    scene_system: Tensor
    ballistic: Float[Tensor, "scene particle output"]
    normalization: Normalization

    def __len__(self) -> int:
        return len(self.batch.features)

    @property
    def distances(self) -> Float[Tensor, "scene particle particle"]:
        """Centre distances in the scene now."""
        return torch.linalg.vector_norm(self.positions[:, :, None] - self.positions[:, None], dim=-1)

    @property
    def gaps(self) -> Float[Tensor, "scene particle particle"]:
        """Distances between surfaces; negative where ghosts overlap."""
        return self.distances - self.radii[:, :, None] - self.radii[:, None]

    @property
    def approaching(self) -> Bool[Tensor, "scene particle particle"]:
        """The pair's distance is shrinking now."""
        dx = self.positions[:, :, None] - self.positions[:, None]
        dv = self.velocities[:, :, None] - self.velocities[:, None]
        return (dx * dv).sum(-1) < 0

    def batches(self, size: int) -> list[Batch]:
        """Equal batches in fixed order; scenes beyond the last whole batch are left out."""
        n = len(self) // size
        if n == 0:
            raise ValueError(f"size must be at most the number of scenes, {len(self)}; got {size}")
        return [Batch(*(t[i * size : (i + 1) * size] for t in self.batch)) for i in range(n)]


def make_transitions(
    trajectories: Trajectories,
    *,
    normalization: Normalization | None = None,
    device: torch.device | str = "cpu",
) -> Transitions:
    """Turn every pair of neighbouring frames into one training example.

    Args:
        trajectories: frames and collision log, from ``simulators.simulate`` or a run folder.
        normalization: scales of the training set, for evaluation scenes; None measures them here.
        device: where the tensors go to stay; batches are gathered there by index.
    """
    x, v = trajectories.positions, trajectories.velocities
    n_systems, n_frames, n_particles, dim = x.shape
    n_scenes = n_systems * (n_frames - 1)

    def per_scene(a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a[:, None], (n_systems, n_frames - 1, *a.shape[1:])).reshape(n_scenes, *a.shape[1:])

    now_x, now_v = (a[:, :-1].reshape(n_scenes, n_particles, dim) for a in (x, v))
    radii, masses = per_scene(trajectories.radii), per_scene(trajectories.masses)
    features = np.concatenate([now_x, now_v, radii[..., None], masses[..., None]], axis=-1)
    changes = np.concatenate([np.diff(x, axis=1), np.diff(v, axis=1)], axis=-1).reshape(n_scenes, n_particles, 2 * dim)
    scale = normalization or Normalization.of(features, changes)

    def normalised(a: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return torch.from_numpy(((a - mean) / std).astype(np.float32)).to(device)

    flight = _free_flight(trajectories.system, now_v, trajectories.frame_interval)
    return Transitions(
        batch=Batch(
            normalised(features, scale.feature_mean, scale.feature_std),
            normalised(changes, scale.target_mean, scale.target_std),
        ),
        positions=torch.from_numpy(now_x).to(device),
        velocities=torch.from_numpy(now_v).to(device),
        radii=torch.from_numpy(radii.copy()).to(device),
        contacts=torch.from_numpy(contact_labels(trajectories).reshape(n_scenes, n_particles, n_particles)).to(device),
        wall_contacts=torch.from_numpy(wall_contact_labels(trajectories).reshape(n_scenes, n_particles)).to(device),
        scene_system=torch.arange(n_systems, device=device).repeat_interleave(n_frames - 1),
        ballistic=normalised(flight, scale.target_mean, scale.target_std),
        normalization=scale,
    )


def _free_flight(system: HardSpheres, velocities: np.ndarray, interval: float) -> np.ndarray:
    """Change of position and velocity under gravity alone."""
    g = np.asarray(system.gravity)
    return np.concatenate(
        [velocities * interval + g * interval**2 / 2, np.broadcast_to(g * interval, velocities.shape)],
        axis=-1,
    )


def prediction_loss(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean squared error of the normalised change of state, over scenes, particles and outputs."""
    return F.mse_loss(model(batch.features), batch.targets)


def loss_per_particle(model: nn.Module, batch: Batch) -> Float[Tensor, "scene particle"]:
    """The same error, averaged over the outputs of each particle only."""
    return (model(batch.features) - batch.targets).square().mean(dim=-1)

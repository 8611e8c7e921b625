"""Trajectories become tensors here and nowhere else: scenes, targets, and the labels they are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from simulators import System, Trajectories, contact_labels, minimum_image, periodic_axes, wall_contact_labels

from .tasks import batch_indices


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
        batch: features (position, velocity, angular velocity where discs turn, radius, mass, charge where there is
            one) and targets (change of position, velocity and angular velocity). The hidden edges of a spring
            network are not among them.
        positions, velocities: the scene now, in simulation units, float64.
        radii: of the particles, float64.
        contacts: the pair collided inside the interval.
        wall_contacts: the particle hit a wall inside the interval.
        scene_system: the box a scene comes from; scenes of one box are not independent.
        system: the physics behind the scenes; it knows which axes are periodic.
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
    system: System
    ballistic: Float[Tensor, "scene particle output"]
    normalization: Normalization

    def __len__(self) -> int:
        return len(self.batch.features)

    @property
    def separations(self) -> Float[Tensor, "scene particle particle dim"]:
        """Vectors from the second particle to the first, to the nearest image along periodic axes."""
        return _nearest(self.positions[:, :, None] - self.positions[:, None], self.system)

    @property
    def distances(self) -> Float[Tensor, "scene particle particle"]:
        """Centre distances in the scene now."""
        return torch.linalg.vector_norm(self.separations, dim=-1)

    @property
    def gaps(self) -> Float[Tensor, "scene particle particle"]:
        """Distances between surfaces; negative where ghosts or soft particles overlap."""
        return self.distances - self.radii[:, :, None] - self.radii[:, None]

    @property
    def approaching(self) -> Bool[Tensor, "scene particle particle"]:
        """The pair's distance is shrinking now."""
        dv = self.velocities[:, :, None] - self.velocities[:, None]
        return (self.separations * dv).sum(-1) < 0

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """Scenes of one training step, gathered where the data are."""
        index = torch.from_numpy(batch_indices(seed, step, len(self), size)).to(self.batch.features.device)
        return Batch(*(t.index_select(0, index) for t in self.batch))

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """See ``prediction_loss``."""
        return prediction_loss(model, batch)

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
    x, v, system = trajectories.positions, trajectories.velocities, trajectories.system
    n_systems, n_frames, n_particles, _ = x.shape
    n_scenes = n_systems * (n_frames - 1)

    def per_scene(a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a[:, None], (n_systems, n_frames - 1, *a.shape[1:])).reshape(n_scenes, *a.shape[1:])

    def joined(a: np.ndarray) -> np.ndarray:
        return a.reshape(n_scenes, *a.shape[2:])

    radii = per_scene(trajectories.radii)
    moving = [x, v] + ([] if trajectories.angular_velocities is None else [trajectories.angular_velocities])
    fixed = [trajectories.radii, trajectories.masses] + ([] if trajectories.charges is None else [trajectories.charges])
    now = [joined(a[:, :-1]) for a in moving]
    features = np.concatenate([*now, *(per_scene(a)[..., None] for a in fixed)], axis=-1)
    steps = [minimum_image(np.diff(x, axis=1), system), *(np.diff(a, axis=1) for a in moving[1:])]
    changes = np.concatenate([joined(a) for a in steps], axis=-1)
    scale = normalization or Normalization.of(features, changes)

    def normalised(a: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return torch.from_numpy(((a - mean) / std).astype(np.float32)).to(device)

    flight = _free_flight(system, now[1], trajectories.frame_interval, changes.shape[-1])
    return Transitions(
        batch=Batch(
            normalised(features, scale.feature_mean, scale.feature_std),
            normalised(changes, scale.target_mean, scale.target_std),
        ),
        positions=torch.from_numpy(now[0]).to(device),
        velocities=torch.from_numpy(now[1]).to(device),
        radii=torch.from_numpy(radii.copy()).to(device),
        contacts=torch.from_numpy(contact_labels(trajectories).reshape(n_scenes, n_particles, n_particles)).to(device),
        wall_contacts=torch.from_numpy(wall_contact_labels(trajectories).reshape(n_scenes, n_particles)).to(device),
        scene_system=torch.arange(n_systems, device=device).repeat_interleave(n_frames - 1),
        system=system,
        ballistic=normalised(flight, scale.target_mean, scale.target_std),
        normalization=scale,
    )


def count_features(system: System) -> tuple[int, int]:
    """Return how many features and outputs a particle of the system has; see ``Transitions.batch``."""
    state = system.draw_state(1, rng=np.random.default_rng(0))
    spin = 0 if state.angular_velocities is None else state.angular_velocities.shape[-1]
    n_outputs = 2 * system.dim + spin
    return n_outputs + (2 if state.charges is None else 3), n_outputs


def _free_flight(system: System, velocities: np.ndarray, interval: float, n_outputs: int) -> np.ndarray:
    """Change of position and velocity under gravity alone; what turns goes on turning."""
    g = np.asarray(getattr(system, "gravity", (0.0,) * system.dim))
    dim = velocities.shape[-1]
    changes = np.zeros((*velocities.shape[:-1], n_outputs))
    changes[..., :dim] = velocities * interval + g * interval**2 / 2
    changes[..., dim : 2 * dim] = g * interval
    return changes


def _nearest(separations: Tensor, system: System) -> Tensor:
    """The minimum image, on the device of the tensor."""
    periodic = torch.tensor(periodic_axes(system), device=separations.device)
    sides = torch.tensor(system.box, dtype=separations.dtype, device=separations.device)
    return torch.where(periodic, separations - torch.round(separations / sides) * sides, separations)


def prediction_loss(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean squared error of the normalised change of state, over scenes, particles and outputs."""
    return F.mse_loss(model(batch.features), batch.targets)


def loss_per_particle(model: nn.Module, batch: Batch) -> Float[Tensor, "scene particle"]:
    """The same error, averaged over the outputs of each particle only."""
    return (model(batch.features) - batch.targets).square().mean(dim=-1)

"""Every knob of a study: frozen, checked on construction, the same object in a notebook, a file and a shell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from simulators import (
    ChargedParticles,
    GravitatingBodies,
    HardSpheres,
    LennardJones,
    RotatingBox,
    SoftSpheres,
    SpringNetwork,
    VibratedBox,
)

from .interventions.settings import NextLayerAttention, Plain, Spatial, Structured, WeightManifold

AnySystem = (
    HardSpheres
    | SoftSpheres
    | VibratedBox
    | RotatingBox
    | LennardJones
    | GravitatingBodies
    | ChargedParticles
    | SpringNetwork
)
AnyIntervention = Plain | Spatial | Structured | WeightManifold | NextLayerAttention
PresetName = Literal["quick", "standard", "paper"]


def _require(condition: bool, field_name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{field_name} must be {expected}, got {got}")


def _require_counts(settings: object, prefix: str, least: int, *names: str) -> None:
    for name in names:
        _require(getattr(settings, name) >= least, f"{prefix}.{name}", f"at least {least}", getattr(settings, name))


def _require_positive(settings: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        _require(0 < value < math.inf, f"{prefix}.{name}", "positive and finite", value)


@dataclass(frozen=True)
class DataConfig:
    """How many collisions to simulate, and how far ahead the network must see.

    Attributes:
        system: the physics; see ``simulators`` for each.
        n_systems: independent boxes, each started from its own draw.
        n_frames: snapshots a box; each neighbouring pair of snapshots is one transition.
        frame_interval: simulation time between snapshots, the horizon of the prediction.
        n_evaluation_systems: boxes kept out of training, for every number that is reported.
    """

    system: AnySystem = field(default_factory=HardSpheres)
    n_systems: int = 3000
    n_frames: int = 51
    frame_interval: float = 0.1
    n_evaluation_systems: int = 60

    def __post_init__(self) -> None:
        _require_counts(self, "data", 1, "n_systems", "n_evaluation_systems")
        _require_counts(self, "data", 2, "n_frames")
        _require_positive(self, "data", "frame_interval")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the particle transformer, in TransformerLens' names."""

    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 48
    d_head: int = 12
    d_mlp: int = 192

    def __post_init__(self) -> None:
        _require_counts(self, "model", 1, "n_layers", "n_heads", "d_model", "d_head", "d_mlp")


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Decay is off by default: it would move the very landscape we measure.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "optimizer", "learning_rate")
        _require(all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", "in [0, 1)", self.betas)
        _require(0 <= self.weight_decay < math.inf, "optimizer.weight_decay", "zero or positive", self.weight_decay)


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent on minibatches: the control that obeys the argument behind the power laws."""

    learning_rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "optimizer", "learning_rate")
        _require(0 <= self.momentum < 1, "optimizer.momentum", "in [0, 1)", self.momentum)


@dataclass(frozen=True)
class TrainingConfig:
    """One training loop, whatever the device.

    Attributes:
        n_steps: gradient steps.
        batch_size: scenes a step.
        optimizer: how a gradient becomes a step.
        n_warmup_steps: steps over which the learning rate rises linearly from zero.
        n_decay_steps: last steps, over which it falls linearly to zero.
        n_checkpoints: snapshots, log-spaced from step 1, beside step 0.
        max_gradient_norm: longer gradients are scaled down to it; None leaves all as they are.
        precision: bfloat16 runs the forward pass under autocast and is meant for CUDA.
        compile: hand the training step to torch.compile; pays for itself on long runs only.
    """

    n_steps: int = 3000
    batch_size: int = 256
    optimizer: AdamW | SGD = field(default_factory=AdamW)
    n_warmup_steps: int = 50
    n_decay_steps: int = 0
    n_checkpoints: int = 24
    max_gradient_norm: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        _require_counts(self, "training", 1, "n_steps", "batch_size", "n_checkpoints")
        _require_counts(self, "training", 0, "n_warmup_steps", "n_decay_steps")
        if self.n_decay_steps:
            left = self.n_steps - self.n_warmup_steps
            _require(self.n_decay_steps <= left, "training.n_decay_steps", f"at most {left}", self.n_decay_steps)
        if self.max_gradient_norm is not None:
            _require_positive(self, "training", "max_gradient_norm")


@dataclass(frozen=True)
class LLCConfig:
    """Stochastic gradient Langevin dynamics around each checkpoint; one scale for the whole model and every head.

    Chosen on the last checkpoint of a standard study (seed 0): these settings give 61.7 ± 0.6 for the whole model with
    R-hat 1.01; batch 64 gives 60.3 ± 0.4, and half the step size at batch 64 58.1 ± 0.7. With localization 10 the whole
    model settles as fast, but a head's chains still climb after 500 steps.

    Attributes:
        nbeta: n times the inverse temperature, in units of one over the normalised squared error.
        step_size: of the Langevin update.
        localization: strength of the pull back to the checkpoint.
        n_chains: independent chains for each scope.
        n_draws: recorded steps a chain, after ``n_burnin`` discarded ones.
        n_burnin: discarded steps.
        batch_size: scenes a Langevin step.
        n_checkpoints: checkpoints visited, log-spaced among those saved.
    """

    nbeta: float = 100.0
    step_size: float = 2e-4
    localization: float = 100.0
    n_chains: int = 4
    n_draws: int = 100
    n_burnin: int = 100
    batch_size: int = 8
    n_checkpoints: int = 7

    def __post_init__(self) -> None:
        _require_positive(self, "probes.llc", "nbeta", "step_size")
        _require(0 <= self.localization < math.inf, "probes.llc.localization", "zero or positive", self.localization)
        _require_counts(self, "probes.llc", 0, "n_burnin")
        _require_counts(self, "probes.llc", 1, "n_chains", "batch_size", "n_checkpoints")
        _require_counts(self, "probes.llc", 4, "n_draws")


@dataclass(frozen=True)
class HessianConfig:
    """Curvature of the loss at some checkpoints.

    Attributes:
        n_scenes: evaluation scenes behind the loss.
        n_top: leading eigenvalues.
        n_probes, n_steps: of the stochastic Lanczos quadrature behind trace and near-null share.
        near_null_threshold: an eigenvalue below this share of the largest counts as near-null. Lanczos of these sizes
            resolves a hundredth; a ten-thousandth it leaves between 0 and 1.
        n_checkpoints: checkpoints visited, log-spaced among those saved.
    """

    n_scenes: int = 128
    n_top: int = 10
    n_probes: int = 4
    n_steps: int = 30
    near_null_threshold: float = 1e-2
    n_checkpoints: int = 5

    def __post_init__(self) -> None:
        _require_counts(self, "probes.hessian", 1, "n_scenes", "n_top", "n_probes", "n_steps", "n_checkpoints")


@dataclass(frozen=True)
class ProbeConfig:
    """What is measured along training.

    Attributes:
        n_scenes: evaluation scenes for the head and causal probes.
        n_causal_checkpoints: checkpoints whose edges and heads are cut, log-spaced among those saved.
        n_control_checkpoints: checkpoints of the ghost control that are probed.
        n_permutations: of the null at every checkpoint.
        n_knockout_edges: most colliding particles whose edges are cut.
        llc, hessian: settings of the landscape probes.
    """

    n_scenes: int = 800
    n_causal_checkpoints: int = 8
    n_control_checkpoints: int = 8
    n_permutations: int = 199
    n_knockout_edges: int = 512
    llc: LLCConfig = field(default_factory=LLCConfig)
    hessian: HessianConfig = field(default_factory=HessianConfig)

    def __post_init__(self) -> None:
        _require_counts(self, "probes", 1, "n_scenes", "n_causal_checkpoints", "n_control_checkpoints")
        _require_counts(self, "probes", 100, "n_permutations")  # fewer can give no p-value below 0.01
        _require_counts(self, "probes", 2, "n_knockout_edges")  # one edge has no standard error


@dataclass(frozen=True)
class StudyConfig:
    """One study: simulate, train, probe, report.

    Attributes:
        preset: the preset this began from.
        seeds: training runs; the first seed also draws the boxes, which all runs share.
        device: where tensors live; auto takes CUDA if there is one.
        n_threads: CPU threads to simulate and train with; 0 takes all cores. Probes take one.
        ghost_control: also train the first seed on discs that pass through each other.
        intervention: how training differs from plain, on every arm.
    """

    preset: PresetName = "standard"
    seeds: tuple[int, ...] = (0,)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    n_threads: int = 0
    ghost_control: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    intervention: AnyIntervention = field(default_factory=Plain)
    probes: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        _require(len(self.seeds) >= 1, "seeds", "at least one seed", self.seeds)
        _require(len(set(self.seeds)) == len(self.seeds), "seeds", "distinct", self.seeds)
        _require(min(self.seeds) >= 0, "seeds", "zero or positive", self.seeds)
        _require(self.n_threads >= 0, "n_threads", "zero (all cores) or positive", self.n_threads)
        system = self.data.system
        _require(
            system.n_particles >= 3,
            "data.system.n_particles",
            "at least 3 (a pair that collides, and another to tell the partner from)",
            system.n_particles,
        )
        _require(
            getattr(system, "interacting", True),
            "data.system.interacting",
            "true (ghosts are the arm of ghost_control)",
            "false",
        )
        _require(
            hasattr(system, "interacting") or not self.ghost_control,
            "ghost_control",
            f"false for {type(system).__name__} (only particles with contacts have ghosts)",
            "true",
        )
        n_scenes = self.data.n_evaluation_systems * (self.data.n_frames - 1)
        _require(
            self.probes.llc.batch_size <= n_scenes,
            "probes.llc.batch_size",
            f"at most the {n_scenes} evaluation scenes",
            self.probes.llc.batch_size,
        )

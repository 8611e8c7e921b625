"""Every knob of a study: frozen, checked on construction, the same object in a notebook, a file and a shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from simulators import HardSpheres

PresetName = Literal["quick", "standard", "paper"]


def _require(condition: bool, field_name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{field_name} must be {expected}, got {got}")


@dataclass(frozen=True)
class DataConfig:
    """How many collisions to simulate, and how far ahead the network must see.

    Attributes:
        system: the physics.
        n_systems: independent boxes, each started from its own draw.
        n_frames: snapshots a box; each neighbouring pair of snapshots is one transition.
        frame_interval: simulation time between snapshots, the horizon of the prediction.
        n_evaluation_systems: boxes kept out of training, for every number that is reported.
    """

    system: HardSpheres = field(default_factory=HardSpheres)
    n_systems: int = 3000
    n_frames: int = 51
    frame_interval: float = 0.1
    n_evaluation_systems: int = 60

    def __post_init__(self) -> None:
        _require(self.n_systems >= 1, "data.n_systems", "at least 1", self.n_systems)
        _require(self.n_frames >= 2, "data.n_frames", "at least 2", self.n_frames)
        _require(self.frame_interval > 0, "data.frame_interval", "positive", self.frame_interval)
        _require(
            self.n_evaluation_systems >= 1,
            "data.n_evaluation_systems",
            "at least 1",
            self.n_evaluation_systems,
        )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the particle transformer, in TransformerLens' names."""

    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 48
    d_head: int = 12
    d_mlp: int = 192

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp"):
            _require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Decay is off by default: it would move the very landscape we measure.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optimizer.learning_rate", "positive", self.learning_rate)
        _require(self.weight_decay >= 0, "optimizer.weight_decay", "zero or positive", self.weight_decay)


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent on minibatches: the control that obeys the argument behind the power laws."""

    learning_rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optimizer.learning_rate", "positive", self.learning_rate)
        _require(0 <= self.momentum < 1, "optimizer.momentum", "in [0, 1)", self.momentum)


@dataclass(frozen=True)
class TrainingConfig:
    """One training loop, whatever the device.

    Attributes:
        n_steps: gradient steps.
        batch_size: scenes a step.
        optimizer: how a gradient becomes a step.
        n_warmup_steps: steps over which the learning rate rises linearly from zero.
        n_checkpoints: snapshots, log-spaced from step 1, beside step 0.
        precision: bfloat16 runs the forward pass under autocast and is meant for CUDA.
        compile: hand the training step to torch.compile; pays for itself on long runs only.
    """

    n_steps: int = 3000
    batch_size: int = 256
    optimizer: AdamW | SGD = field(default_factory=AdamW)
    n_warmup_steps: int = 50
    n_checkpoints: int = 24
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size", "n_checkpoints"):
            _require(getattr(self, name) >= 1, f"training.{name}", "at least 1", getattr(self, name))
        _require(self.n_warmup_steps >= 0, "training.n_warmup_steps", "zero or positive", self.n_warmup_steps)


@dataclass(frozen=True)
class LLCConfig:
    """Stochastic gradient Langevin dynamics around each checkpoint; one scale for the whole model and every head.

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
    step_size: float = 3e-4
    localization: float = 10.0
    n_chains: int = 4
    n_draws: int = 100
    n_burnin: int = 100
    batch_size: int = 16
    n_checkpoints: int = 7


@dataclass(frozen=True)
class HessianConfig:
    """Curvature of the loss at some checkpoints.

    Attributes:
        n_scenes: evaluation scenes behind the loss.
        n_top: leading eigenvalues.
        n_probes, n_steps: of the stochastic Lanczos quadrature behind trace and near-null share.
        n_checkpoints: checkpoints visited, log-spaced among those saved.
    """

    n_scenes: int = 128
    n_top: int = 10
    n_probes: int = 4
    n_steps: int = 30
    n_checkpoints: int = 5


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


@dataclass(frozen=True)
class StudyConfig:
    """One study: simulate, train, probe, report.

    Attributes:
        preset: the preset this began from.
        seeds: training runs; the first seed also draws the boxes, which all runs share.
        device: where tensors live; auto takes CUDA if there is one.
        n_threads: CPU threads of torch and numba; 0 takes all cores.
        ghost_control: also train the first seed on discs that pass through each other.
    """

    preset: PresetName = "standard"
    seeds: tuple[int, ...] = (0,)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    n_threads: int = 0
    ghost_control: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    probes: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        _require(len(self.seeds) >= 1, "seeds", "at least one seed", self.seeds)
        _require(len(set(self.seeds)) == len(self.seeds), "seeds", "distinct", self.seeds)

"""Settings of the methods; light, so that the command line can read them without loading torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

ArmName = Literal["none", "l1", "l1_local", "l1_swap", "full"]
ARMS: tuple[ArmName, ...] = ("none", "l1", "l1_local", "l1_swap", "full")
"""No price, plain L1, L1 with distance, L1 with swaps, and all of it: the arms of Liu, Gan & Tegmark 2023."""

StructureName = Literal[
    "orthogonal", "spectral", "antisymmetric", "low_rank_diagonal", "block_diagonal", "circulant", "masked"
]

AttentionName = Literal[
    "squared", "absolute", "power", "normalised", "competitive",
    "backpropagation", "sign_symmetric", "feedback_alignment", "direct_feedback_alignment",
]  # fmt: skip


@dataclass(frozen=True)
class Plain:
    """Plain training: no intervention."""


@dataclass(frozen=True)
class Spatial:
    """Neurons in space: how wire is priced over training, see ``emergence.interventions.spatial``.

    Attributes:
        arm: which parts are on, see ``ARMS``. Swaps go by distance in every arm that has them.
        strength: of the cost beside the loss (``lambda``). At the default a standard particle transformer (seed 0) ends
            with 0.31 of the wire of plain training and 1.11 times its test loss; at 3e-5 with 0.64 and 1.02.
        schedule: ``(fraction of training, factor on strength)``, each from its fraction on.
        swap_every: steps between rounds of swaps.
        n_candidates: the most important neurons of each population that may move in a round.
        biases_from: fraction of training before which biases are free.
        locality: cost of a weight of one per unit of distance; for this and the next two see ``spatial.place``.
        layer_gap: its cost whatever the distance.
        reduction: sum or mean over each weight matrix.
    """

    arm: ArmName = "full"
    strength: float = 1e-4
    schedule: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    swap_every: int = 200
    n_candidates: int = 30
    biases_from: float = 0.0
    locality: float = 1.0
    layer_gap: float = 0.1
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"spatial.arm must be one of {', '.join(ARMS)}, got {self.arm!r}")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"spatial.strength must be zero or positive and finite, got {self.strength}")
        fractions = [fraction for fraction, _ in self.schedule]
        if not fractions or fractions[0] != 0.0 or fractions != sorted(fractions) or fractions[-1] >= 1:
            raise ValueError(f"spatial.schedule must begin at 0.0 and rise below 1, got {self.schedule}")
        for name in ("swap_every", "n_candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"spatial.{name} must be at least 1, got {getattr(self, name)}")

    def strength_at(self, step: int, n_steps: int) -> float:
        """The price during the update that leads to ``step``."""
        if self.arm == "none":
            return 0.0
        done = (step - 1) / n_steps
        return self.strength * [factor for fraction, factor in self.schedule if fraction <= done][-1]

    @property
    def cost(self) -> dict[str, Any]:
        """The arguments of ``spatial.place`` that say what wire costs."""
        return {"locality": self.locality, "layer_gap": self.layer_gap, "reduction": self.reduction}


@dataclass(frozen=True)
class Structured:
    """Structured layers with a correction beside them, see ``emergence.interventions.structured``.

    Attributes:
        structure: of the weights; on the transformer's rectangular weights antisymmetric and circulant are refused.
        layers: names or glob patterns of the layers converted.
        correction: scale of the nonlinear branch beside each; zero is structure alone.
        penalty: strength, beside the loss, of the mean share of the correction in the layers' outputs.
    """

    structure: StructureName = "orthogonal"
    layers: tuple[str, ...] = ("blocks.*.attn", "blocks.*.mlp")
    correction: float = 0.1
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.structure not in get_args(StructureName):
            names = ", ".join(get_args(StructureName))
            raise ValueError(f"structured.structure must be one of {names}, got {self.structure!r}")
        _require_layers("structured", self.layers)
        for name in ("correction", "penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"structured.{name} must be zero or positive and finite, got {getattr(self, name)}")
        if self.penalty > 0 and self.correction == 0:
            raise ValueError(f"structured.penalty={self.penalty} has no correction to weigh; set structured.correction")


@dataclass(frozen=True)
class WeightManifold:
    """Weights that follow how hot each scene is, see ``emergence.interventions.weight_manifold``.

    The context is the share of scenes at equilibrium that are colder: uniform from zero to one for discs, whose
    velocities are drawn from Maxwell's distribution.

    Attributes:
        manifold: a name from ``weight_manifold.MANIFOLDS`` whose context is one number that does not come round.
        layers: names or glob patterns of the layers converted.
        metric: whether gradients take the metric of the manifold before the optimizer sees them.
    """

    manifold: Literal["line", "spline"] = "line"
    layers: tuple[str, ...] = ("blocks.*.attn", "blocks.*.mlp")
    metric: bool = True

    def __post_init__(self) -> None:
        if self.manifold not in ("line", "spline"):
            raise ValueError(f"weight_manifold.manifold must be line or spline, got {self.manifold!r}")
        _require_layers("weight_manifold", self.layers)


@dataclass(frozen=True)
class NextLayerAttention:
    """Neurons that seek the next layer's attention, see ``emergence.interventions.next_layer_attention``.

    Attributes:
        attention: a name from its ``ATTENTIONS``, or from the ``FEEDBACKS`` it is compared with.
        layers: names or glob patterns of the layers converted.
        drop: chance that a message is lost on its way back.
    """

    attention: AttentionName = "absolute"
    layers: tuple[str, ...] = ("blocks.*.attn", "blocks.*.mlp", "W_U")
    drop: float = 0.0

    def __post_init__(self) -> None:
        if self.attention not in get_args(AttentionName):
            names = ", ".join(get_args(AttentionName))
            raise ValueError(f"next_layer_attention.attention must be one of {names}, got {self.attention!r}")
        _require_layers("next_layer_attention", self.layers)
        if not 0 <= self.drop < 1:
            raise ValueError(f"next_layer_attention.drop must be at least 0 and below 1, got {self.drop}")


def _require_layers(prefix: str, layers: tuple[str, ...]) -> None:
    if not layers:
        raise ValueError(f"{prefix}.layers is empty; give names or patterns of layers")

"""How the localized posterior is sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Rmsprop:
    """RMSprop preconditioning: a step size of its own for each entry of the weights.

        V <- decay V + (1 - decay) (grad L_b)^2,    G = 1 / (damping + sqrt(V)),    V starts at 0

    G scales gradient and pull, and its root the noise. The drift's correction for a G that depends on w (Li et al.'s
    Γ) is left out, as is usual. That is exact only while G stays constant, so by default V is learned in the burn-in
    and then held: the draws have the law of plain SGLD. While V goes on adapting and the chain moves little within
    V's memory, the draws follow the posterior times ``Π (damping + |grad L|)`` over the entries, which makes λ̂ too
    large: on a bowl of 20 equal directions at nbeta 100 by 42 % with no memory at all.

    Attributes:
        decay: memory of V; 0.99 as in the code of Hitchcock and Hoogland.
        damping: 0.1, likewise; with larger gradients G counts, with smaller ones all is plain SGLD at a step of
            ``step_size / damping``.
        adapts_while_drawing: let V adapt in the kept draws too, as published.

    References: Li et al. 2016, Preconditioned SGLD, arXiv 1512.07666, algorithm 1; Hitchcock and Hoogland 2025,
    arXiv 2507.21449, find it the most faithful of the samplers they compare. Holding V is ours.
    """

    decay: float = 0.99
    damping: float = 0.1
    adapts_while_drawing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {self.decay}")
        if not (self.damping > 0 and math.isfinite(self.damping)):
            raise ValueError(f"damping must be finite and positive, got {self.damping}")

    def scale(self, square: Tensor) -> Tensor:
        """G, given V."""
        return (square.sqrt() + self.damping).reciprocal_()


@dataclass(frozen=True)
class SgldOptions:
    """How the localized posterior is sampled.

    The posterior is ``exp(-nbeta L(w) - localization |w - w*|^2 / 2)``; one step is

        w <- w - step_size/2 [nbeta grad L_b(w) + localization (w - w*)] + sqrt(step_size) N(0, I).

    Attributes:
        nbeta: inverse temperature times number of samples; ``wbic_nbeta(n_samples)`` gives the usual choice.
        step_size: ε. Stable below ``4 / (nbeta h + localization)`` with h the largest curvature of the loss; the
            variance along curvature h comes out ``1 / (1 - ε (nbeta h + localization)/4)`` times too large.
        localization: γ, the strength of the pull to w*.
        n_chains: independent chains, all started at w*.
        n_draws: draws kept of each chain.
        n_burnin: steps before the first kept draw.
        preconditioner: None for plain SGLD, or ``Rmsprop()``.
        compiled: evaluate loss and gradient by ``torch.compile``.
    """

    nbeta: float
    step_size: float
    localization: float
    n_chains: int
    n_draws: int
    n_burnin: int
    preconditioner: Rmsprop | None = None
    compiled: bool = field(default=False, compare=False)  # estimates differ by rounding alone

    def __post_init__(self) -> None:
        for name, value, ok in (
            ("nbeta", self.nbeta, self.nbeta > 0),
            ("step_size", self.step_size, self.step_size > 0),
            ("localization", self.localization, self.localization >= 0),
        ):
            if not (ok and math.isfinite(value)):
                bound = "not negative" if name == "localization" else "positive"
                raise ValueError(f"{name} must be finite and {bound}, got {value}")
        for name, value, least in (
            ("n_chains", self.n_chains, 1),
            ("n_draws", self.n_draws, 4),
            ("n_burnin", self.n_burnin, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self._check_memory()

    def _check_memory(self) -> None:
        held = self.preconditioner
        if held is None or held.adapts_while_drawing:
            return
        memory = 1 / (1 - held.decay)
        if self.n_burnin < memory:
            raise ValueError(
                f"n_burnin must be at least 1 / (1 - decay) = {memory:.0f} steps, in which the preconditioner is "
                f"learned; got {self.n_burnin}"
            )

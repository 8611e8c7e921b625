"""What an LLC run returns: the number, its error, what speaks against it, and the way into xarray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .options import SgldOptions

if TYPE_CHECKING:
    import xarray

MAX_RHAT = 1.1
"""R-hat above which an estimate carries a warning; our choice (Vehtari et al. 2021 ask 1.01 of long chains)."""

MIN_DRIFT_P = 1e-3
"""p-value of no drift below which an estimate carries a warning; our choice."""

MIN_ESS_PER_CHAIN = 10.0
"""Effective draws a chain below which an estimate carries a warning (Gelman et al. 2013, BDA3, section 11.5)."""

MAX_STEP_EXCESS = 0.1
"""Share of λ̂ owed to the length of the step above which an estimate carries a warning; our choice."""


@dataclass(frozen=True)
class ObservedLLC:
    """``nbeta (E[O(w)] - O(w*))`` of another loss O, over the draws of the sampled loss.

    Attributes:
        value: the estimate; NaN if every chain diverged.
        standard_error: of ``value``, as in ``LLCEstimate``.
        interval: 95 % interval for the sampled mean.
        ess: draws the sample is worth for this mean.
        init_loss: O(w*), mean over all batches.
        loss_trace: ``init_loss + O_b(w_t) - O_b(w*)`` of each kept draw.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    ess: float
    init_loss: float
    loss_trace: Float[np.ndarray, "chain draw"]


@dataclass(frozen=True)
class LLCEstimate:
    """A local learning coefficient with its error and the facts needed to trust it.

    Diverged chains are left out of every number here and counted.

    Attributes:
        value: λ̂; NaN if every chain diverged.
        standard_error: of ``value``, from autocorrelation within chains and spread between them, the larger.
        interval: 95 % interval for the sampled mean (Student's t). It does not cover the bias of a large step
            (``step_excess``) or of too short a burn-in.
        per_chain: λ̂ of each chain, NaN where it diverged.
        rhat: rank-normalised split R-hat of the losses.
        ess: draws, over all chains, the sample is worth for the mean.
        drift_p: p-value that the draws' beginning and end have one mean (Geweke); small if the burn-in was too short.
        acceptance: mean Metropolis-Hastings acceptance the steps would have had, over all entries together, each on
            the minibatch that made the step. It falls with the number of entries at equal bias of λ̂; to judge the
            step, read ``step_excess``.
        step_excess: what the finite step and the minibatches' noise add to λ̂: ``ε/8 E[nbeta grad L_b · grad U_b]``,
            U the potential that is sampled. Exact for a quadratic loss on full batches at any localization (ours,
            from the stationarity of ``|w - w*|²``), an upper bound with minibatches; for other losses a guide.
        n_diverged: chains excluded: not finite, or beyond ``divergence_bound``.
        init_loss: L(w*), mean over all batches.
        loss_trace: ``init_loss + L_b(w_t) - L_b(w*)`` of each kept draw, so ``nbeta (trace - init_loss)`` averages
            to λ̂. Rows of diverged chains are kept for inspection.
        burnin_trace: the same before the kept draws.
        observed: the same estimate for each of ``observed_loss_fns``, by name.
        n_entries: scalars that moved; the LLC of a minimum is at most half of it.
        n_gradients: minibatch gradients spent.
        vectorized: False if chains were evaluated one after another: a loss or the batches do not vectorise, or one
            copy of the model is large.
        settings: the options used.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    per_chain: Float[np.ndarray, " chain"]
    rhat: float
    ess: float
    drift_p: float
    acceptance: float
    step_excess: float
    n_diverged: int
    init_loss: float
    loss_trace: Float[np.ndarray, "chain draw"]
    burnin_trace: Float[np.ndarray, "chain step"]
    observed: Mapping[str, ObservedLLC]
    n_entries: int
    n_gradients: int
    vectorized: bool
    settings: SgldOptions

    @property
    def value_at_zero_step(self) -> float:
        """λ̂ less ``step_excess``: what shorter steps and larger batches would tend to, exact for a quadratic loss."""
        return self.value - self.step_excess

    @property
    def is_negative(self) -> bool:
        """λ̂ < 0: the chains found lower losses, so w* is no local minimum (or the noise is larger than λ̂)."""
        return self.value < 0

    @property
    def _correlation_time(self) -> float:
        """Steps a chain takes for one effective draw; leaving w* takes about as long."""
        return (len(self.per_chain) - self.n_diverged) * self.settings.n_draws / max(self.ess, 1.0)

    @property
    def _has_fallen(self) -> bool:
        """A chain was excluded because it fell far below L(w*), rather than for leaving the finite numbers."""
        excluded = self.loss_trace[np.isnan(self.per_chain)]
        return bool((np.isfinite(excluded).all(axis=1) & (excluded[:, -1] < self.init_loss)).any())

    @property
    def faults(self) -> Mapping[str, str]:
        """What speaks against the number: a short name and a sentence each; empty for a sound estimate."""
        n_chains = len(self.per_chain)
        checks = (
            (
                "diverged",
                self.n_diverged > 0,
                f"{self.n_diverged} of {n_chains} chains diverged: step_size is too large",
            ),
            (
                "negative",
                self.is_negative or self._has_fallen,
                "negative: w* is no local minimum of this loss, or there are too few draws",
            ),
            (
                "not mixed",
                self.rhat > MAX_RHAT,
                f"R-hat {self.rhat:.2f} exceeds {MAX_RHAT}: chains have not mixed; raise n_burnin and n_draws",
            ),
            (
                "short burn-in",
                self.settings.n_burnin < self._correlation_time,
                f"n_burnin {self.settings.n_burnin} is below the draws' correlation time {self._correlation_time:.0f}: "
                "they count the way out from w* and lower the estimate; raise n_burnin",
            ),
            (
                "drift",
                self.drift_p < MIN_DRIFT_P,
                f"the draws drift (p = {self.drift_p:.1e} that beginning and end have one mean); raise n_burnin",
            ),
            (
                "few draws",
                self.ess < MIN_ESS_PER_CHAIN * (n_chains - self.n_diverged),
                f"only {self.ess:.0f} effective draws of {n_chains - self.n_diverged} chains; raise n_draws",
            ),
            (
                "step too large",
                self.step_excess > MAX_STEP_EXCESS * abs(self.value),
                f"about {self.step_excess:.2g} of the estimate {self.value:.3g} comes from the length of the step and "
                "minibatch noise; lower step_size or take larger batches",
            ),
            (
                "above d/2",
                self.value > (1 + MAX_STEP_EXCESS) * self.n_entries / 2 + 4 * self.standard_error,
                f"{self.value:.3g} exceeds half the {self.n_entries} entries, which no minimum's coefficient does: "
                "the chains left its neighbourhood; lower step_size, raise localization, check the loss",
            ),
        )
        return {name: sentence for name, found, sentence in checks if found}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the number, one sentence each; empty for a sound estimate."""
        return tuple(self.faults.values())

    @property
    def is_sound(self) -> bool:
        """Nothing speaks against the number; leave the others out of curves and fits."""
        return not self.faults and math.isfinite(self.value)

    def to_xarray(self) -> xarray.Dataset:
        """The estimate as an xarray data set, under the variable names of devinterp.

        Returns:
            ``loss_trace`` ``(chain, draw)`` and ``llc_per_chain`` ``(chain)``, ``init_loss``, ``llc_mean`` and
            ``llc_std`` (standard deviation between the chains, diverged ones left out) as devinterp has them; beside
            them ``standard_error``, ``interval`` ``(bound)``, ``rhat``, ``ess``, ``drift_p``, ``acceptance``,
            ``step_excess``, ``n_diverged``, and of each observed loss ``observed_<name>``,
            ``observed_<name>_standard_error``. Settings are attributes, so ``to_netcdf`` can write it.

        Raises:
            ImportError: xarray is not installed.
        """
        arrays = _import_xarray()
        sound = self.per_chain[np.isfinite(self.per_chain)]
        scalars = {
            "init_loss": self.init_loss,
            "llc_mean": self.value,
            "llc_std": float(sound.std(ddof=1)) if len(sound) > 1 else math.nan,
            "standard_error": self.standard_error,
            "rhat": self.rhat,
            "ess": self.ess,
            "drift_p": self.drift_p,
            "acceptance": self.acceptance,
            "step_excess": self.step_excess,
            "n_diverged": self.n_diverged,
        }
        for name, observed in self.observed.items():
            scalars |= {f"observed_{name}": observed.value, f"observed_{name}_standard_error": observed.standard_error}
        return arrays.Dataset(
            {
                "loss_trace": (("chain", "draw"), self.loss_trace),
                "llc_per_chain": (("chain",), self.per_chain),
                "interval": (("bound",), np.array(self.interval)),
                **{name: ((), value) for name, value in scalars.items()},
            },
            coords={
                "chain": np.arange(self.loss_trace.shape[0]),
                "draw": np.arange(self.loss_trace.shape[1]),
                "bound": ["low", "high"],
            },
            attrs=_flat_settings(self.settings),
        )


def join_llcs(estimates: Mapping[Any, LLCEstimate], *, dim: str = "scope") -> xarray.Dataset:
    """Join estimates into one xarray data set along a new dimension.

    Args:
        estimates: by scope, as ``estimate_llcs`` returns them, or by training step.
        dim: name of the new dimension, say ``"scope"`` or ``"step"``; its labels are the keys.

    Raises:
        ImportError: xarray is not installed.
        ValueError: no estimates, or estimates of unequal settings, which do not compare.
    """
    arrays = _import_xarray()
    if not estimates:
        raise ValueError("estimates is empty; give at least one")
    first, *others = estimates.values()
    for name, other in zip(list(estimates)[1:], others, strict=True):
        if other.settings != first.settings:
            raise ValueError(
                f"estimates must share their settings to be compared; {next(iter(estimates))!r} has {first.settings}, "
                f"{name!r} has {other.settings}"
            )
    joined = arrays.concat([e.to_xarray() for e in estimates.values()], dim=dim, join="exact")
    return joined.assign_coords({dim: list(estimates)})


def _flat_settings(settings: SgldOptions) -> dict[str, float | int | str]:
    """Settings as attributes a netCDF file can hold."""
    preconditioner = settings.preconditioner
    numbers = {name: value for name, value in asdict(settings).items() if name != "preconditioner"}
    numbers["compiled"] = int(settings.compiled)  # it has no truth values
    if preconditioner is None:
        return {**numbers, "sampler": "sgld"}
    held = {f"rmsprop_{name}": float(value) for name, value in asdict(preconditioner).items()}
    return {**numbers, "sampler": "rmsprop_sgld", **held}


def _import_xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ImportError("xarray is not installed; pip install 'emergence-lab[results]'") from error
    return xarray

"""Which activations carry a difference: put those of a clean input into the run on a corrupted one.

A pair of inputs differs in one thing (one particle moved, say). If patching a site brings the output back to what
the clean input gives, the site carries that thing. Works on any model whose sites are outputs of named submodules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .groups import Groups, error_of_sum, interval
from .hooking import matching_submodules, record_outputs, replaced_output
from .isolation import isolated

Metric = Callable[[Any], Tensor]
"""``metric(output of the model)``: one number a scene, or one in all (which leaves the interval unknown)."""

COMPONENTS = ("blocks.*.attn.hook_z", "blocks.*.hook_mlp_out")
"""What writes into the residual stream, under TransformerLens' names: heads and MLPs."""


@dataclass(frozen=True)
class Site:
    """Where to patch: the output of a submodule, or part of it.

    Attributes:
        name: of the submodule.
        index: entries after the scene axis, all if empty. ``Site("blocks.0.attn.hook_z", (slice(None), 2))`` is head
            2, ``Site("blocks.1.hook_resid_pre", (5,))`` the residual stream of particle 5.
    """

    name: str
    index: tuple[int | slice, ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(":" if i == slice(None) else str(i) for i in self.index)
        return f"{self.name}[:, {inside}]" if inside else self.name


@dataclass(frozen=True)
class Patching:
    """How much of the difference between two inputs each patch recovers.

    Attributes:
        sites: what was patched, in the order given.
        recovered: (patched - corrupted) / (clean - corrupted), of means over scenes: 0 if the patch changes nothing, 1
            if it brings back the clean output. Neither is a bound.
        standard_error: of the recovered part, over groups of scenes; NaN for a single group or a single number.
        interval: 95 %, Student's t (groups - 1); shape (site, 2).
        clean: mean metric of the clean input.
        corrupted: mean metric of the corrupted input.
        patched: mean metric with each patch.
        n_forward: forward passes spent.
    """

    sites: tuple[str, ...]
    recovered: Float[np.ndarray, " site"]
    standard_error: Float[np.ndarray, " site"]
    interval: Float[np.ndarray, "site 2"]
    clean: float
    corrupted: float
    patched: Float[np.ndarray, " site"]
    n_forward: int


@torch.no_grad()
def patch_activation(
    model: nn.Module,
    clean: Any,
    corrupted: Any,
    sites: Sequence[str | Site],
    *,
    metric: Metric,
    groups: Groups | None = None,
) -> Patching:
    """Run the model on the corrupted input with one site at a time as it is on the clean one.

    Args:
        model: left as it was found; called as ``model(clean)``.
        clean: input with the thing in place.
        corrupted: the same scenes without it, in the same order.
        sites: names of submodules, or parts of what they return.
        metric: of the model's output.
        groups: label of the independent unit each scene belongs to; None takes scenes for independent.

    Raises:
        ValueError: no site, an unknown one or one that is never called, activations or metrics of other shapes, a
            metric that is not finite, or one that does not tell clean from corrupted.

    Cost: two forward passes, and one a site.

    References:
        Zhang & Nanda 2023, arXiv 2309.16042, for the normalised effect; Wang et al. 2022, arXiv 2211.00593.
    """
    patches = _checked_sites("sites", sites)
    run = _Runs(model, metric)
    with isolated(model):
        known = record_outputs(model, [clean], [site.name for site in patches])
        before, after = run(clean), run(corrupted)
        values = []
        for site in patches:
            with _placed(model, {site.name: [(site.index, known[site.name])]}):
                values.append(run(corrupted))
    return _patching(patches, before, after, values, groups, 3 + len(patches))


@torch.no_grad()
def patch_path(
    model: nn.Module,
    clean: Any,
    corrupted: Any,
    senders: Sequence[str | Site],
    receiver: str | Site | None = None,
    *,
    metric: Metric,
    frozen: Sequence[str] = COMPONENTS,
    groups: Groups | None = None,
) -> Patching:
    """Patch the direct path from a sender to a receiver; all other components stay as on the corrupted input.

    On the corrupted input, with the sender as on the clean one and every other frozen component held, what reaches
    the receiver is recorded; then that alone is put into a run on the corrupted input.

    Args:
        model: left as it was found.
        clean: as in ``patch_activation``.
        corrupted: as in ``patch_activation``.
        senders: sites whose direct effect is asked for, one at a time.
        receiver: site that reads it, such as ``Site("blocks.1.attn.hook_q", (slice(None), 0))``; None is the
            output itself.
        metric: of the model's output.
        frozen: names or glob patterns of the components that are held. By default every head's z and every MLP's
            output under TransformerLens' names: paths run through the residual stream alone. Leave out the MLPs
            to let them pass the signal on, as Wang et al. do.
        groups: as in ``patch_activation``.

    Raises:
        ValueError: as ``patch_activation``; or a pattern of ``frozen`` that matches no submodule.

    Cost: four forward passes, and two a sender (one without a receiver).

    References:
        Wang et al. 2022, arXiv 2211.00593, appendix B; Goldowsky-Dill et al. 2023, arXiv 2304.05969.
    """
    patches = _checked_sites("senders", senders)
    (target,) = _checked_sites("receiver", [receiver]) if receiver is not None else (None,)
    held = matching_submodules(model, frozen)
    run = _Runs(model, metric)
    with isolated(model):
        known = record_outputs(model, [clean], [site.name for site in patches])
        still = record_outputs(model, [corrupted], held)
        before, after = run(clean), run(corrupted)
        values = []
        for site in patches:
            placed: dict[str, list] = {name: [((), value)] for name, value in still.items()}
            placed.setdefault(site.name, []).append((site.index, known[site.name]))
            if target is not None:
                placed.pop(target.name, None)  # the receiver is free to receive
                with _placed(model, placed):
                    reached = record_outputs(model, [corrupted], [target.name])[target.name]
                placed = {target.name: [(target.index, reached)]}
            with _placed(model, placed):
                values.append(run(corrupted))
    return _patching(patches, before, after, values, groups, 4 + len(patches) * (2 if target else 1))


class _Runs:
    """Calls the model and checks what the metric says of its output."""

    def __init__(self, model: nn.Module, metric: Metric) -> None:
        self.model, self.metric = model, metric

    def __call__(self, inputs: Any) -> Float[np.ndarray, " scene"]:
        value = self.metric(self.model(inputs))
        if not isinstance(value, Tensor) or value.ndim > 1 or value.numel() == 0:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metric must return a tensor of one number a scene, or a scalar; got {got}")
        found = value.double().cpu().numpy().reshape(-1)
        if not np.isfinite(found).all():
            where = int(np.flatnonzero(~np.isfinite(found))[0])
            raise ValueError(f"metric must be finite, got {found[where]} at scene {where}")
        return found


def _checked_sites(argument: str, sites: Sequence[str | Site]) -> list[Site]:
    if isinstance(sites, str):
        raise TypeError(f"{argument} must be a sequence of names or sites, got the string {sites!r}; put it in a list")
    found = [Site(site) if isinstance(site, str) else site for site in sites]
    if not found:
        raise ValueError(f"{argument} is empty; name at least one submodule")
    return found


@contextmanager
def _placed(model: nn.Module, patches: dict[str, list[tuple[tuple, Tensor]]]) -> Iterator[None]:
    """Replace parts of outputs, in order, for the length of the block."""

    def replacing(name: str, parts: list[tuple[tuple, Tensor]]) -> Callable[[Tensor], Tensor]:
        def replace(output: Tensor) -> Tensor:
            output = output.clone()
            for index, value in parts:
                if value.shape != output.shape:
                    raise ValueError(
                        f"submodule {name!r} returns shape {tuple(value.shape)} on the one input and "
                        f"{tuple(output.shape)} on the other; give both the same scenes"
                    )
                try:
                    output[(slice(None), *index)] = value[(slice(None), *index)]
                except IndexError as error:
                    raise ValueError(
                        f"site {Site(name, index)} lies outside the shape {tuple(output.shape)}"
                    ) from error
            return output

        return replace

    with ExitStack() as hooks:
        for name, parts in patches.items():
            hooks.enter_context(replaced_output(model, name, replacing(name, parts)))
        yield


def _patching(
    sites: list[Site],
    clean: np.ndarray,
    corrupted: np.ndarray,
    values: list[np.ndarray],
    groups: np.ndarray | None,
    n_forward: int,
) -> Patching:
    """The ratio of two means, with its interval over groups of scenes."""
    if clean.shape != corrupted.shape:
        raise ValueError(f"clean and corrupted must hold the same scenes, got {len(clean)} and {len(corrupted)}")
    patched = np.stack(values)
    effect, gain = clean - corrupted, (patched - corrupted).T
    if np.abs(effect.mean()) <= 1e-12 * max(np.abs(clean).max(), np.abs(corrupted).max()):
        raise ValueError(
            f"metric must tell clean from corrupted, its mean is {clean.mean():.9g} on both; nothing to recover"
        )
    recovered = gain.mean(axis=0) / effect.mean()
    influence = (gain - recovered * effect[:, None]) / effect.sum()
    known = groups if len(clean) > 1 else None  # a single number is a group of its own
    return Patching(
        sites=tuple(map(str, sites)),
        recovered=recovered,
        standard_error=error_of_sum(influence, known),
        interval=interval(recovered, influence, known),
        clean=float(clean.mean()),
        corrupted=float(corrupted.mean()),
        patched=patched.mean(axis=1),
        n_forward=n_forward,
    )

"""Probe checkpoints of anybody's model from the command line: ``emergence probe --model module:factory ...``."""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from probes.sweep import Measurement, Probe

    from .progress import Progress


@dataclass(frozen=True)
class HessianOptions:
    """Curvature of the loss.

    Attributes:
        n_top: leading eigenvalues.
        n_probes: random vectors of the stochastic Lanczos quadrature.
        n_steps: Lanczos steps of each.
        near_null_threshold: an eigenvalue below this share of the largest counts as near-null.
    """

    n_top: int = 5
    n_probes: int = 4
    n_steps: int = 60
    near_null_threshold: float = 1e-3


@dataclass(frozen=True)
class LLCOptions:
    """Local learning coefficient.

    Attributes:
        nbeta: n times the inverse temperature; None: n / ln n with n the rows of all batches.
        step_size: of the Langevin update; see ``probes.calibrate_llc``.
        localization: strength of the pull back to the checkpoint.
        n_chains: independent chains for each scope.
        n_draws: recorded steps a chain.
        n_burnin: steps discarded before.
        compiled: compile the step, once for all checkpoints; needs a C++ compiler on a CPU.
    """

    nbeta: float | None = None
    step_size: float = 1e-4
    localization: float = 100.0
    n_chains: int = 4
    n_draws: int = 200
    n_burnin: int = 200
    compiled: bool = False


@dataclass(frozen=True)
class ProbeArguments:
    """Measure checkpoints of any model; the same command again goes on where it stopped.

    Attributes:
        model: ``module:factory``, called without arguments; the current folder is searched as well.
        checkpoints: files of weights (.safetensors, or what torch.save wrote), as a pattern in quotes; the last
            number of a path is its step.
        data: ``module:name`` of the batches: a list, or a function that returns one.
        loss: ``module:name`` of ``loss_fn(model, batch)``, the mean over the batch.
        probe: ``hessian``, ``llc``, or ``module:name`` of a probe of your own (``probes.sweep.Probe``).
        scope: parameters by name or pattern, such as ``blocks.0.attn.*``, each probed beside the whole model.
        out: folder of the results.
        key: where the weights are inside a nested file, such as ``state_dict``.
        step: regular expression whose only group is the step of a path.
        seed: of the training run; names it in the table and enters the random numbers.
        on_error: stop at a probe that fails, or record it and go on.
        hessian: settings of that probe.
        llc: settings of that probe.
    """

    model: str
    checkpoints: str
    probe: tuple[str, ...] = ("hessian", "llc")
    data: str | None = None
    loss: str | None = None
    scope: tuple[str, ...] = ()
    out: Path = Path("runs/probed")
    key: str | None = None
    step: str | None = None
    seed: int = 0
    on_error: Literal["raise", "record"] = "raise"
    hessian: HessianOptions = field(default_factory=HessianOptions)
    llc: LLCOptions = field(default_factory=LLCOptions)


def probe_checkpoints(arguments: ProbeArguments, *, progress: Progress) -> pd.DataFrame:
    """Run the probes; write measurements.parquet, measurements.csv and a figure a quantity to the folder.

    Raises:
        ValueError: something named is not there or of the wrong kind, or what ``sweep_checkpoints`` refuses.
        FileNotFoundError: no checkpoint matches.
    """
    from probes import sweep_checkpoints
    from probes.series import LAST_NUMBER, StateDictSeries

    from .files import write_aside

    factory = named_object(arguments.model, "model")
    _check_callable(factory, arguments.model)
    series = StateDictSeries.from_glob(
        factory, arguments.checkpoints, step=arguments.step or LAST_NUMBER, key=arguments.key
    )
    probes = list(_probes(arguments))
    n_done = 0
    with progress.stage(f"probe {len(series.steps)} checkpoints", len(series.steps) * len(probes)) as advance:

        def count(_name: str, _step: int) -> None:
            nonlocal n_done
            n_done += 1
            advance(n_done)

        table = sweep_checkpoints(
            series,
            probes,
            store=arguments.out / "measurements",
            seed=arguments.seed,
            on_error=arguments.on_error,
            on_cell=count,
        )
    write_aside(arguments.out / "measurements.parquet", lambda path: table.to_parquet(path, index=False))
    write_aside(arguments.out / "measurements.csv", lambda path: table.to_csv(path, index=False))
    draw_table(table, arguments.out / "figures")
    return table


def named_object(name: str, option: str) -> Any:
    """Import ``module:name``, the module from the path or the current folder.

    Raises:
        ValueError: it is spelled otherwise, the module cannot be imported, or has no such name.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"--{option} must be module:name, such as train:make_model; got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"--{option}: cannot import {module_name} ({error}); run from the folder it is in") from error
    if not hasattr(module, attribute):
        known = ", ".join(n for n in vars(module) if not n.startswith("_"))
        raise ValueError(f"--{option}: {module_name} has no {attribute!r}; it has {known}")
    return getattr(module, attribute)


def _check_callable(factory: object, name: str) -> None:
    if not callable(factory):
        raise ValueError(f"--model {name} must be callable without arguments, got {type(factory).__name__}")


def _probes(arguments: ProbeArguments) -> Iterator[Probe]:
    from probes.sweep import Probe

    ours: dict[str, Callable[..., Probe]] = {"hessian": _hessian_probe, "llc": _llc_probe}
    for name in arguments.probe:
        if name not in ours:
            probe = named_object(name, "probe")
            if not isinstance(probe, Probe):
                raise ValueError(
                    f"--probe {name} must have a name, settings and a call, as probes.sweep.Probe says; or choose "
                    f"{', '.join(ours)}"
                )
            yield probe
            continue
        if arguments.data is None or arguments.loss is None:
            raise ValueError(f"--probe {name} needs --data module:batches and --loss module:loss_fn")
        batches, loss_fn = _batches(arguments.data), named_object(arguments.loss, "loss")
        identity = {"data": content_hash(batches), "loss": arguments.loss}
        for scope in (None, *arguments.scope):
            yield ours[name](batches, loss_fn, arguments, identity, scope)


def _batches(name: str) -> Sequence[Any]:
    found = named_object(name, "data")
    batches = found() if callable(found) else found
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"--data {name} must be batches, or a function that returns them; got {type(batches).__name__}"
        )
    return list(batches)


def _hessian_probe(
    batches: Sequence[Any], loss_fn: Any, arguments: ProbeArguments, identity: dict[str, Any], scope: str | None
) -> Probe:
    from probes.sweep import FunctionProbe

    options = arguments.hessian

    def measure(model: Any, seed: int) -> Iterable[Measurement]:
        return hessian_measurements(model, batches, loss_fn, scope, seed, **asdict(options))

    settings = {**identity, "scope": scope, **asdict(options)}
    return FunctionProbe(_name("hessian", scope), measure, settings)


def hessian_measurements(
    model: Any,
    batches: Sequence[Any],
    loss_fn: Any,
    parameters: Any,
    seed: int,
    *,
    n_top: int,
    n_probes: int,
    n_steps: int,
    near_null_threshold: float,
) -> Iterator[Measurement]:
    """Leading eigenvalues (those that converged), trace, near-null share and participation ratio."""
    import torch

    from probes import degeneracy, hessian_trace, spectral_density, top_eigenvalues
    from probes.sweep import Measurement

    generator = torch.Generator().manual_seed(seed)
    common: dict[str, Any] = {"loss_fn": loss_fn, "generator": generator, "parameters": parameters}
    top = top_eigenvalues(model, batches, k=n_top, **common)
    density = spectral_density(model, batches, n_probes=n_probes, n_steps=n_steps, **common)
    flat = degeneracy(density, relative_threshold=near_null_threshold)
    trace = hessian_trace(model, batches, n_probes=2 * n_probes, **common)
    for rank, (value, converged) in enumerate(zip(top.values, top.converged, strict=True)):
        yield Measurement("hessian_eigenvalue", float(value) if converged else math.nan, coordinate=float(rank))
    yield Measurement("hessian_trace", trace.value, trace.standard_error)
    yield Measurement("near_null_share", flat.near_null_share, flat.near_null_standard_error)
    for end, value in zip(("low", "high"), flat.near_null_interval, strict=True):
        yield Measurement(f"near_null_share_{end}", value)
    yield Measurement("participation_ratio", flat.participation_ratio, flat.participation_standard_error)


def _llc_probe(
    batches: Sequence[Any], loss_fn: Any, arguments: ProbeArguments, identity: dict[str, Any], scope: str | None
) -> Probe:
    from probes import estimate_llc
    from probes.llc import wbic_nbeta
    from probes.sweep import FunctionProbe, Measurement

    options = asdict(arguments.llc)
    if options["nbeta"] is None:
        options["nbeta"] = wbic_nbeta(sum(map(_n_rows, batches)))

    def measure(model: Any, seed: int) -> Iterator[Measurement]:
        import torch

        generator = torch.Generator().manual_seed(seed)
        estimate = estimate_llc(model, batches, loss_fn=loss_fn, parameters=scope, generator=generator, **options)
        yield Measurement("llc", estimate.value, estimate.standard_error)
        yield Measurement("llc_rhat", estimate.rhat)
        yield Measurement("llc_n_diverged", float(estimate.n_diverged))
        yield Measurement("loss", estimate.init_loss)

    return FunctionProbe(_name("llc", scope), measure, {**identity, "scope": scope, **options})


def _name(probe: str, scope: str | None) -> str:
    return probe if scope is None else f"{probe} {scope}"


def _n_rows(batch: Any) -> int:
    """Length of a batch's first tensor."""
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.ndim]
    if not leaves:
        raise ValueError("--data: a batch holds no tensor, so its rows cannot be counted; give --llc.nbeta")
    return len(leaves[0])


def content_hash(batches: Sequence[Any]) -> str:
    """Hash of all tensors in the batches, and of what else is in them as text."""
    import torch
    from torch.utils._pytree import tree_flatten

    digest = hashlib.sha256()
    for batch in batches:
        leaves, structure = tree_flatten(batch)
        digest.update(str(structure).encode())
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                digest.update(f"{leaf.dtype} {tuple(leaf.shape)}".encode())
                digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                digest.update(repr(leaf).encode())
    return digest.hexdigest()


def draw_table(table: Any, folder: Path) -> None:
    """Draw every quantity over the training steps, one figure each."""
    from matplotlib.figure import Figure

    from probes.plots import plot_over_steps, theme

    from .report.style import save

    with theme():
        for quantity in table["quantity"].unique():
            rows = table[(table["quantity"] == quantity) & table["value"].notna()]
            if rows["step"].nunique() > 1:
                figure = Figure(figsize=(6, 3.6))
                plot_over_steps(rows, quantity, ax=figure.subplots())
                save(figure, folder, "".join(c if c.isalnum() else "_" for c in quantity))

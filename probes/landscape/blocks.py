"""Curvature of parts of a model, tensors, layers or heads, each at the cost of its own block."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..parameters import Parameters, select_parameters
from ..protocols import Batches, LossFn
from .degeneracy import Degeneracy, degeneracy
from .density import SpectralDensity, check_sizes, lanczos_quadrature
from .eigenvalues import Eigenvalues, Which, check_request, extreme_pairs
from .graphs import Matrix
from .operator import MEMORY_BUDGET, curvature_operators
from .trace import TraceEstimate, trace_estimate


@dataclass(frozen=True)
class BlockCurvature:
    """Curvature of one diagonal block of the Hessian: that of the loss when only these entries move.

    Attributes:
        eigenvalues: extreme eigenpairs.
        density: spectral density; ``degeneracy(density, relative_threshold=...)`` counts at another threshold.
        trace: from the same products as the density, of which it is the first moment.
        degeneracy: flat directions, counted from the density.
        n_entries: dimension of the block.
        n_matvecs: products spent on all of it.
    """

    eigenvalues: Eigenvalues
    density: SpectralDensity
    trace: TraceEstimate
    degeneracy: Degeneracy
    n_entries: int
    n_matvecs: int


def hessian_blocks(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    blocks: Mapping[str, Parameters],
    k: int,
    n_probes: int,
    n_steps: int,
    generator: torch.Generator,
    which: Which = "largest",
    tolerance: float = 1e-4,
    matrix: Matrix = "hessian",
    memory_budget: int = MEMORY_BUDGET,
    vectors_at_once: int | None = None,
) -> dict[str, BlockCurvature]:
    """Measure diagonal blocks of the loss Hessian: leading eigenpairs, trace, density and degeneracy of each.

    Every head of a model: ``blocks=head_parameters(model)``; layers by patterns: ``{"block 0": "blocks.0.*"}``; every
    tensor: ``{name: name for name, _ in model.named_parameters()}``.

    Args:
        model: any torch module, float32 or float64.
        batches: re-iterable, all weighted alike.
        loss_fn: scalar mean loss of a batch.
        blocks: name to the entries of the block; blocks may overlap. The random numbers of a block follow from the
            generator's state and its name alone, so its figures do not depend on the others.
        k: eigenpairs of each block, at most its number of entries.
        n_probes: of the density, at least 2, see ``spectral_density``.
        n_steps: of the density, see ``spectral_density``.
        generator: draws the start vectors and probes.
        which: see ``top_eigenvalues``.
        tolerance: see ``top_eigenvalues``.
        matrix: "hessian", or "ggn" for the Gauss-Newton matrix of a ``SplitLoss``.
        memory_budget: bytes of gradient graph kept between products.
        vectors_at_once: see ``curvature_operator``.

    Returns:
        One record a block, in the order given.

    Raises:
        ValueError: no block, a block that chooses nothing or has fewer than ``k`` entries, a number out of range, or a
            loss or model that cannot be probed (see ``curvature_operator``).
        TypeError: ``batches`` can be iterated only once.

    Cost:
        ``n_probes * n_steps`` products a block, and those of ``top_eigenvalues``. Only the tensors of a block are
        differentiated, and blocks of the same tensors share one gradient graph: see ``CurvatureOperator``.
    """
    if not blocks:
        raise ValueError("blocks is empty; give at least one name with its parameters")
    check_request(which, tolerance)
    check_sizes(n_probes, n_steps, least_probes=2)
    selections = {name: select_parameters(model, parameters) for name, parameters in blocks.items()}
    for name, selection in selections.items():
        if not 1 <= k <= selection.n_entries:
            raise ValueError(f"k must lie between 1 and the {selection.n_entries} entries of block {name!r}, got {k}")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    opened = curvature_operators(
        model,
        batches,
        loss_fn=loss_fn,
        selections=selections,
        matrix=matrix,
        memory_budget=memory_budget,
        vectors_at_once=vectors_at_once,
    )
    found = {}
    with opened as operators:
        for name, operator in operators:
            draws = torch.Generator(generator.device).manual_seed(seed ^ zlib.crc32(name.encode()))
            pairs = extreme_pairs(operator, k, which, tolerance, None, draws)
            density = lanczos_quadrature(operator, n_probes, n_steps, draws)
            found[name] = BlockCurvature(
                eigenvalues=pairs,
                density=density,
                trace=trace_estimate(operator.n_entries * density.moments(1), density.n_matvecs, operator.n_entries),
                degeneracy=degeneracy(density),
                n_entries=operator.n_entries,
                n_matvecs=operator.n_matvecs,
            )
    return {name: found[name] for name in blocks}

"""Products of a vector with the Hessian or Gauss-Newton matrix of a mean loss, restricted to chosen parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..isolation import isolated
from ..objective import SplitLoss, checked_batches, mean_loss
from ..parameters import Parameters, ParameterSelection, group_by_tensors, select_parameters
from ..protocols import Batches, LossFn
from .graphs import GaussNewtonGraph, HessianGraph, Matrix
from .second_order import second_order_errors

MEMORY_BUDGET = 2**30
"""Bytes of gradient graph kept between products; one GiB is our choice, small beside any training machine."""

DEVICE_VECTORS = 16
"""Vectors multiplied at once on a device other than the CPU, where a single one leaves most of it idle; our choice."""


class KeptGraphs:
    """The graphs of all batches in some tensors: kept while they fit the memory budget, rebuilt beyond it.

    Attributes:
        tensors: those differentiated.
        n_retained: batches whose graph is kept.
        vectors_at_once: how many vectors a product takes together.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        loss_fn: LossFn,
        tensors: Sequence[Tensor],
        *,
        matrix: Matrix,
        memory_budget: int,
        vectors_at_once: int | None,
    ) -> None:
        self._model, self._batches, self._loss_fn, self._matrix = model, batches, loss_fn, matrix
        self.tensors = tensors
        first = self._graph(batches[0])
        self.n_retained = min(len(batches), int(memory_budget // first.n_bytes))
        wanted = vectors_at_once or (1 if tensors[0].device.type == "cpu" else DEVICE_VECTORS)
        # on its way through the graph every vector needs about as much memory as the graph itself
        self.vectors_at_once = min(wanted, max(1, memory_budget // first.n_bytes))
        kept = [first] if self.n_retained else []
        del first
        self._retained = kept + [self._graph(batch) for batch in batches[1 : self.n_retained]]

    def release(self) -> None:
        """Free the graphs, though an operator on them may still be held."""
        self._retained.clear()

    def products(self, directions: Sequence[Tensor], *, is_batched: bool) -> Iterator[list[Tensor]]:
        """The product of each batch."""
        for i, batch in enumerate(self._batches):
            is_kept = i < self.n_retained
            graph = self._retained[i] if is_kept else self._graph(batch)
            with second_order_errors(self._model, batch, self._loss_fn):
                yield graph.product(directions, retain=is_kept, is_batched=is_batched)

    def _graph(self, batch: Any) -> HessianGraph | GaussNewtonGraph:
        """One batch's graph; no fused attention, whose kernels have no double backward."""
        with (
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
            second_order_errors(self._model, batch, self._loss_fn),
        ):
            if self._matrix == "ggn":
                assert isinstance(self._loss_fn, SplitLoss)
                return GaussNewtonGraph(self._model, batch, self._loss_fn, self.tensors)
            return HessianGraph(self._model, batch, self._loss_fn, self.tensors)


class CurvatureOperator:
    """The linear map v -> A v, A the Hessian (or Gauss-Newton matrix) of the mean loss at the model's parameters.

    Made by ``curvature_operator``. Only tensors that hold chosen entries are differentiated, so the block of one
    layer costs less than the whole.

    Attributes:
        n_entries: dimension of the vectors.
        n_matvecs: products computed so far.
        n_retained: batches whose graph is kept.
        vectors_at_once: how many vectors ``products`` multiplies together.
        device: where vectors live.
        dtype: of the vectors; float64 if every chosen tensor is, otherwise float32.
        eps: rounding unit of the model's coarsest tensor; products are no better than this, relative to |A|.

    Cost:
        In forward+backward passes over all batches, on a 100,000-parameter transformer with 128 scenes and one CPU
        core: a product 2.4 to 2.6 with retained graphs, 3.4 to 3.7 with rebuilt ones; restricted to the attention of
        the first of two blocks 1.4, to one tensor of the second block 0.5. The graph held 23 MB there.
    """

    def __init__(self, graphs: KeptGraphs, selection: ParameterSelection, n_batches: int, eps: float) -> None:
        self._graphs, self._selection, self._n_batches = graphs, selection, n_batches
        self.n_entries = selection.n_entries
        self.n_matvecs = 0
        self.n_retained, self.vectors_at_once = graphs.n_retained, graphs.vectors_at_once
        self.device = graphs.tensors[0].device
        is_double = all(p.dtype == torch.float64 for p in graphs.tensors)
        self.dtype = torch.float64 if is_double else torch.float32
        self.eps = eps

    def __call__(self, vector: Float[Tensor, " n_entries"]) -> Float[Tensor, " n_entries"]:
        """Return A ``vector``, accumulated over the batches in float64.

        Raises:
            ValueError: the loss has no second derivative, or the product is not finite.
        """
        return self._multiply(vector)

    def products(self, vectors: Float[Tensor, "n_vectors n_entries"]) -> Float[Tensor, "n_vectors n_entries"]:
        """Return A times each row, ``vectors_at_once`` rows together.

        A model with an operation that torch cannot vectorise is multiplied one row at a time from then on.
        """
        rows: list[Tensor] = []
        while len(rows) < len(vectors):
            block = vectors[len(rows) : len(rows) + self.vectors_at_once]
            if len(block) > 1:
                try:
                    rows.extend(self._together(block))
                    continue
                except (RuntimeError, UserWarning):
                    self.vectors_at_once = 1  # if a single vector fails as well, its error is the one to tell
            rows.append(self._multiply(block[0]))
        return torch.stack(rows)

    def random_signs(self, generator: torch.Generator) -> Float[Tensor, " n_entries"]:
        """Draw independent signs (Rademacher): E[z z^T] is the identity, with the least variance of z^T A z."""
        signs = torch.randint(0, 2, (self.n_entries,), generator=generator, device=generator.device)
        return (2 * signs - 1).to(self.device, self.dtype)

    def random_normal(self, generator: torch.Generator) -> Float[Tensor, " n_entries"]:
        """Draw a vector with no preferred direction: it misses no eigenvector, as signs may by symmetry."""
        shape, device = (self.n_entries,), generator.device
        return torch.randn(shape, generator=generator, device=device, dtype=self.dtype).to(self.device)

    def _together(self, vectors: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop", category=UserWarning)
            return self._multiply(vectors)

    def _multiply(self, vectors: Tensor) -> Tensor:
        """The product of one vector, or of several on the first axis."""
        n_leading = vectors.ndim - 1
        directions = self._selection.scatter(vectors, self._graphs.tensors)
        total = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
        for parts in self._graphs.products(directions, is_batched=n_leading > 0):
            total += self._selection.gather(parts, n_leading).double()
        self.n_matvecs += len(vectors) if n_leading else 1
        if not bool(torch.isfinite(total).all()):
            raise ValueError(
                "a Hessian-vector product is not finite although the loss is: the loss has no second derivative "
                "at these parameters (a square root or norm at zero, or overflow); probe in float64 or smooth it"
            )
        return (total / self._n_batches).to(self.dtype)


@contextmanager
def curvature_operator(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    parameters: Parameters = None,
    matrix: Matrix = "hessian",
    memory_budget: int = MEMORY_BUDGET,
    vectors_at_once: int | None = None,
) -> Iterator[CurvatureOperator]:
    """Open the Hessian of a model's mean loss as a linear map; the model is left as it was found.

    H = d2L / dw2 of L(w) = mean over batches of ``loss_fn(model, batch)``, over the chosen entries of w; or the
    generalised Gauss-Newton matrix G = mean over batches of J^T H_out J, with J = d output / dw and H_out the
    Hessian of the loss in the output. H - G is the loss's slope times the curvature of the output: zero at a perfect
    fit, and what can make H indefinite; G has no negative eigenvalue if the loss is convex in the output.

    Args:
        model: any torch module; it is put in evaluation mode inside.
        batches: re-iterable, all weighted alike.
        loss_fn: scalar mean loss, twice differentiable in reverse mode. ``scaled_dot_product_attention`` is
            switched to its math backend, because the fused kernels have no double backward.
        parameters: names, glob patterns or masks; None takes all trainable parameters.
        matrix: "hessian", or "ggn", for which ``loss_fn`` must be a ``SplitLoss``.
        memory_budget: bytes of gradient graph to keep between products.
        vectors_at_once: vectors that ``products`` multiplies together, as far as the memory budget allows; by
            default 1 on the CPU, where more gain nothing, and 16 elsewhere.

    Yields:
        The operator, valid inside the ``with`` block.

    Raises:
        TypeError: ``batches`` can be iterated only once, or "ggn" of a loss that is not a ``SplitLoss``.
        ValueError: no batch, no parameter chosen, half-precision parameters, or a loss that is not scalar, not
            finite, not deterministic, or without a second derivative (the submodule at fault is named).

    Cost:
        One forward pass over the batches and one more over the first to check the loss, one gradient graph.
    """
    opened = curvature_operators(
        model,
        batches,
        loss_fn=loss_fn,
        selections={"parameters": select_parameters(model, parameters)},
        matrix=matrix,
        memory_budget=memory_budget,
        vectors_at_once=vectors_at_once,
    )
    with opened as operators:
        _, operator = next(operators)
        yield operator


@contextmanager
def curvature_operators(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFn,
    selections: Mapping[str, ParameterSelection],
    matrix: Matrix,
    memory_budget: int,
    vectors_at_once: int | None,
) -> Iterator[Iterator[tuple[str, CurvatureOperator]]]:
    """Open one operator after the other, by name; those in the same tensors (heads of a layer) share their graphs."""
    if matrix not in get_args(Matrix):
        raise ValueError(f"matrix must be one of {', '.join(get_args(Matrix))}; got {matrix!r}")
    if matrix == "ggn" and not isinstance(loss_fn, SplitLoss):
        raise TypeError(
            "the Gauss-Newton matrix depends on where the loss is cut: give loss_fn=SplitLoss(output_fn, "
            f"output_loss_fn) instead of a {type(loss_fn).__name__}"
        )
    if vectors_at_once is not None and vectors_at_once < 1:
        raise ValueError(f"vectors_at_once must be at least 1, got {vectors_at_once}")
    with isolated(model):
        sequence = checked_batches(batches)
        eps = {name: _checked_rounding(model, selection) for name, selection in selections.items()}
        mean_loss(model, sequence, loss_fn)

        def opened() -> Iterator[tuple[str, CurvatureOperator]]:
            for names in group_by_tensors(selections).values():
                tensors = selections[names[0]].tensors(model)
                graphs = KeptGraphs(
                    model,
                    sequence,
                    loss_fn,
                    tensors,
                    matrix=matrix,
                    memory_budget=memory_budget,
                    vectors_at_once=vectors_at_once,
                )
                for name in names:
                    yield name, CurvatureOperator(graphs, selections[name], len(sequence), eps[name])
                graphs.release()

        yield opened()


def _checked_rounding(model: nn.Module, selection: ParameterSelection) -> float:
    """Rounding unit of the coarsest tensor of the model; refuses chosen tensors that carry no second derivative."""
    chosen = selection.tensors(model)
    kinds = {(p.dtype, p.device) for p in chosen}
    if len({device for _, device in kinds}) > 1 or not {d for d, _ in kinds} <= {torch.float32, torch.float64}:
        found = ", ".join(sorted(f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in kinds))
        raise ValueError(
            f"the chosen tensors must be float32 or float64 on one device, got {found}; half precision leaves a "
            "curvature of two or three digits, or none: probe a copy made by model.float()"
        )
    return max(torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point())

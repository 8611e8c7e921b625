"""Many copies of one model that differ in some tensors, evaluated together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten  # the public name is younger than our torch floor

from ..protocols import LossFn
from .compiled import NotCompilable, compile_step

_SAVED_BYTES = 2**30
"""Most activation memory kept for one backward pass; our choice. More copies than fit are evaluated in turns."""

_SAVED_BYTES_ALONE = 2**16
"""Mean size of the tensors that autograd saves of one copy, above which, on a CPU, the copies are evaluated one by one:
a copy then keeps the core busy by itself and its activations in the cache, which gains more than sharing calls (see
``bench_llc.py``). A model of many small operations gains by sharing them whatever their number."""

_PREFIX = "model."


class BatchTable:
    """Batches stacked leaf by leaf, so that every copy can take its own by index.

    Batches that do not stack (unequal shapes, leaves that are no tensors) are kept as they are: ``stacked`` is
    False and the copies are evaluated one after another.
    """

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        flat, specs = zip(*(tree_flatten(batch) for batch in batches), strict=True)
        self._spec = specs[0]
        self.stacked = all(spec == specs[0] for spec in specs) and all(map(_alike, zip(*flat, strict=False)))
        self._leaves = [torch.stack(leaves) for leaves in zip(*flat, strict=True)] if self.stacked else []

    def __len__(self) -> int:
        return len(self.batches)

    def take(self, index: Int[Tensor, " copy"]) -> list[Tensor]:
        """The leaves of one batch per copy, or of the only batch, without a copy axis."""
        if len(self) == 1:
            return [leaf[0] for leaf in self._leaves]
        return [leaf.index_select(0, index) for leaf in self._leaves]

    def unflatten(self, leaves: Sequence[Tensor]) -> Any:
        """A batch as the loss function knows it."""
        return tree_unflatten(list(leaves), self._spec)


def _alike(leaves: Sequence[Any]) -> bool:
    first = leaves[0]
    return all(
        isinstance(leaf, Tensor) and (leaf.shape, leaf.dtype, leaf.device) == (first.shape, first.dtype, first.device)
        for leaf in leaves
    )


class _Loss(nn.Module):
    """The loss as a module, so that ``functional_call`` can swap the model's tensors."""

    def __init__(self, model: nn.Module, loss_fn: LossFn) -> None:
        super().__init__()
        self.model = model
        self._loss_fn = loss_fn

    def forward(self, batch: Any) -> Tensor:
        return self._loss_fn(self.model, batch)


class CopiesLoss:
    """One loss of many copies of a model, each on a batch of its own.

    Vectorised over the copies with ``torch.func.vmap`` where loss and batches allow, else one copy after another with
    the same results; ``vectorized`` says which.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn, table: BatchTable, names: Sequence[str]) -> None:
        own = set(names)
        self._names = [f"{_PREFIX}{name}" for name in names]
        self._shared = {f"{_PREFIX}{name}": p.detach() for name, p in model.named_parameters() if name not in own}
        self._loss = _Loss(model, loss_fn)
        self._table = table
        self._vmapped = vmap(self._call_leaves, in_dims=(0, None if len(table) == 1 else 0))
        self._explicit_attention = False
        self.vectorized = False

    def __call__(self, own: list[Tensor], index: Int[Tensor, " copy"]) -> Tensor:
        """The losses of the copies whose tensors are stacked in ``own``."""
        return self._all_at_once(own, index) if self.vectorized else self._one_by_one(own, index)

    def vectorize(self, own: list[Tensor], index: Int[Tensor, " copy"]) -> None:
        """Vectorise from now on if the loss, and its gradient where ``own`` asks for one, can be. It must have run."""
        if not self._table.stacked:
            return
        self.vectorized = self._vectorizes(own, index)
        if not self.vectorized:  # fused attention has no batching rule on a CPU, what it is made of has
            self._explicit_attention = True
            self.vectorized = self._vectorizes(own, index)

    def _vectorizes(self, own: list[Tensor], index: Tensor) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*performance drop", category=UserWarning)
                losses = self._all_at_once(own, index)
                if losses.requires_grad:
                    torch.autograd.grad(losses.sum(), own, allow_unused=True)
        except (RuntimeError, UserWarning):  # the loss ran before, so this is vmap's: .item(), data-dependent
            # shapes, a write in place, or an operator without a batching rule
            return False
        return True

    def alone(self, own: Sequence[Tensor], batch: int) -> Tensor:
        """The loss of one copy on one batch."""
        return self._call(own, self._table.batches[batch])

    def _call(self, own: Sequence[Tensor], batch: Any) -> Tensor:
        return functional_call(self._loss, {**self._shared, **dict(zip(self._names, own, strict=True))}, (batch,))

    def _call_leaves(self, own: list[Tensor], leaves: list[Tensor]) -> Tensor:
        return self._call(own, self._table.unflatten(leaves))

    def together(self, own: list[Tensor], leaves: list[Tensor]) -> Tensor:
        """The losses of the copies, vectorised, each on the batch that has these leaves."""
        with sdpa_kernel(SDPBackend.MATH) if self._explicit_attention else nullcontext():
            return self._vmapped(own, leaves)

    def _all_at_once(self, own: list[Tensor], index: Tensor) -> Tensor:
        return self.together(own, self._table.take(index))

    def _one_by_one(self, own: list[Tensor], index: Tensor) -> Tensor:
        return torch.stack([self.alone([t[c] for t in own], batch) for c, batch in enumerate(index.tolist())])


class Ensemble:
    """Copies of a model that share all tensors but the named ones.

    The copies' own tensors live side by side in ``positions``, one flat row a copy; change it in place. The forward
    pass is vectorised over copies and differentiated by plain autograd, which is faster than
    ``vmap(grad_and_value)`` because the backward pass pays no transform. Shared tensors stay unbatched: products
    with them are one large matrix product, and nothing is differentiated below the first tensor that differs.

    Attributes:
        center: the model's own values, ``(entry,)``.
        positions: the copies' values, ``(copy, entry)``; all start at ``center``.
        vectorized: False when copies are evaluated one after another: a loss or the batches do not vectorise, or one
            copy is large. Results are the same.

    With ``compiled``, loss and gradient are one compiled function (see ``compile_step``); ValueError if they cannot.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        table: BatchTable,
        names: Sequence[str],
        n_copies: int,
        observed: Mapping[str, LossFn],
        compiled: bool,
    ) -> None:
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        own = [parameters[name] for name in names]
        kinds = {(p.dtype, p.device) for p in own}
        if len(kinds) > 1 or own[0].dtype not in (torch.float32, torch.float64):
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ValueError(f"the chosen tensors must be all float32 or all float64 on one device; got {found}")
        self.center = torch.cat([p.reshape(-1) for p in own])
        self.positions = self.center.repeat(n_copies, 1)
        self._shapes = [p.shape for p in own]
        self._views = [t.detach() for t in self._as_tensors(self.positions)]
        self._table = table
        self._loss = CopiesLoss(model, loss_fn, table, names)
        self._observed = {name: CopiesLoss(model, f, table, names) for name, f in observed.items()}
        self._compiled: Callable[..., list[Tensor]] | None = None
        self._chunk = self._plan(names, compiled)
        self.vectorized = all(loss.vectorized for loss in (self._loss, *self._observed.values()))

    def losses_and_gradients(
        self, index: Int[Tensor, " copy"]
    ) -> tuple[Float[Tensor, " copy"], Float[Tensor, "copy entry"]]:
        """Each copy's loss on its batch, and the gradient in its own entries."""
        if not self._loss.vectorized:
            parts = [self._evaluate_alone(copy, batch) for copy, batch in enumerate(index.tolist())]
            losses, gradients = zip(*parts, strict=True)
            return torch.stack(losses), torch.stack(gradients)
        parts = [self._evaluate(rows, index) for rows in self._turns()]
        if len(parts) == 1:
            return parts[0]
        losses, gradients = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(gradients)

    @torch.no_grad()
    def observed_losses(self, index: Int[Tensor, " copy"]) -> dict[str, Float[Tensor, " copy"]]:
        """Each copy's observed losses on its batch."""
        return {
            name: torch.cat([loss([view[rows] for view in self._views], index[rows]) for rows in self._turns()])
            for name, loss in self._observed.items()
        }

    def _turns(self) -> list[slice]:
        return [slice(i, i + self._chunk) for i in range(0, len(self.positions), self._chunk)]

    def _as_tensors(self, positions: Tensor) -> list[Tensor]:
        """The copies' own tensors, as views of their flat rows."""
        pieces = positions.split([shape.numel() for shape in self._shapes], dim=1)
        return [
            piece.unflatten(1, shape) if shape else piece[:, 0]
            for piece, shape in zip(pieces, self._shapes, strict=True)
        ]

    def _evaluate(self, rows: slice, index: Tensor) -> tuple[Tensor, Tensor]:
        if self._compiled is not None:
            losses, gradients = self._compiled(self.positions[rows], *self._table.take(index[rows]))
            return losses, gradients
        leaves = [view[rows].requires_grad_() for view in self._views]
        with torch.enable_grad():
            losses = self._loss(leaves, index[rows])
            gradients = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return losses.detach(), torch.cat([g.flatten(1) if g.ndim > 1 else g[:, None] for g in gradients], dim=1)

    def _evaluate_alone(self, copy: int, batch: int) -> tuple[Tensor, Tensor]:
        leaves = [view[copy].requires_grad_() for view in self._views]
        with torch.enable_grad():
            loss = self._loss.alone(leaves, batch)
            gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        return loss.detach(), torch.cat([g.reshape(-1) for g in gradients])

    def _step(self, positions: Tensor, *leaves: Tensor) -> list[Tensor]:
        """Losses and gradients of some copies, nothing kept."""
        positions = positions.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._loss.together(self._as_tensors(positions), list(leaves))
            gradients = torch.autograd.grad(losses.sum(), positions)
        return [losses.detach(), *gradients]

    def _compile(self, n_rows: int) -> None:
        """Compile ``_step`` for so many copies at once."""
        if not self._loss.vectorized:
            raise ValueError("compiled: the loss or its batches do not vectorise over chains; leave compiled out")
        first = torch.zeros(n_rows, dtype=torch.long, device=self.center.device)
        try:
            self._compiled = compile_step(self._step, [self.positions[:n_rows], *self._table.take(first)])
        except NotCompilable as error:
            raise ValueError(f"compiled: {error}; leave compiled out") from error

    def _plan(self, names: Sequence[str], compiled: bool) -> int:
        """Vectorise and compile what can be; return how many copies take turns, by what autograd saves for one."""
        first = torch.zeros(1, dtype=torch.long, device=self.center.device)
        leaves = [view[:1].requires_grad_() for view in self._views]
        sizes = self._saved_sizes(leaves, first, names)
        saved = sum(sizes)
        together = saved <= _SAVED_BYTES_ALONE * len(sizes) or self.center.device.type != "cpu"
        if together or compiled:
            with torch.enable_grad():
                self._loss.vectorize(leaves, first)
        for loss in self._observed.values():
            loss.vectorize([view[:1] for view in self._views], first)
        n_copies = len(self.positions)
        n_rows = min(n_copies, max(1, _SAVED_BYTES // max(saved, 1)))
        if compiled:
            most = n_rows if together else 1
            n_rows = max(n for n in range(1, most + 1) if n_copies % n == 0)  # compiled for turns of one size
            self._compile(n_rows)
        return n_rows

    def _saved_sizes(self, leaves: list[Tensor], first: Tensor, names: Sequence[str]) -> list[int]:
        """Bytes of each tensor that autograd saves of one copy, for the backward pass."""
        sizes: list[int] = []

        def note(t: Tensor) -> Tensor:
            sizes.append(t.numel() * t.element_size())
            return t

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            alone = self._loss(leaves, first)
        if not alone.requires_grad:
            raise ValueError(f"the loss does not depend on the chosen tensors: {', '.join(names)}")
        return sizes

"""The metric of the manifold: gradients of points become those under which the weights themselves move least."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .context import read_context
from .convert import ManifoldModel, points_of
from .manifolds import WeightManifold, named_manifold


def precondition(m: nn.Module, gram: Float[Tensor, "k k"] | None = None) -> None:
    """Replace the gradients of all points by ``sum over l of (G^-1)_kl dP_l``, in place.

    Call it after ``backward`` and before ``optimizer.step()``, once. With plain SGD the step is then the steepest under
    a bound on how far the manifold moves, ``integral of |dW(s)|^2 ds`` (Benjamin et al. 2025, arXiv 2505.22994), and
    ``dW(s) = -rate integral of K(s, s') grad loss(s') ds'`` with ``kernel`` K, however the manifold is written.
    Momentum and Adam take what this leaves; how the paper composes them is not known.

    Args:
        m: from ``convert``, or a model that holds such.
        gram: G where contexts are not uniform, see ``measured_gram``.

    Raises:
        TypeError: ``gram`` is no tensor.
        ValueError: nothing is on a manifold, no gradients, or ``gram`` not K by K and positive definite.
    """
    models = [module for module in m.modules() if isinstance(module, ManifoldModel)]
    if not models:
        raise ValueError(f"{type(m).__name__} has nothing on a manifold to precondition; convert it first")
    pushed = [(each, [points for points in points_of(each) if points.grad is not None]) for each in models]
    if not any(points for _, points in pushed):
        raise ValueError("no point has a gradient; call precondition after backward and before optimizer.step()")
    for each, points in pushed:
        inverse = _inverse(each.manifold, gram)
        for p in points:
            assert p.grad is not None
            p.grad.copy_(torch.tensordot(inverse.to(p.grad), p.grad, 1))


def measured_gram(manifold: WeightManifold | str, contexts: Tensor) -> Float[Tensor, "k k"]:
    """``G = mean of f f^T`` over contexts that are not uniform, in double precision.

    Raises:
        ValueError: unknown manifold, contexts of a wrong shape or off it, or so few different ones that G has no
            inverse.
    """
    chosen = named_manifold(manifold)
    f = chosen.basis(read_context(chosen, contexts, torch.empty(0, dtype=torch.float64)).detach())
    if f.dim() != 2:
        raise ValueError(f"contexts must be a batch, got one point of shape {tuple(contexts.shape)}")
    gram = f.T @ f / len(f)
    _inverse(chosen, gram)
    return gram


def kernel(
    manifold: WeightManifold | str, s: Float[Tensor, "*context"], other: Float[Tensor, "*others"]
) -> Float[Tensor, "*batch"]:
    """``K(s, s') = f(s)^T G^-1 f(s')``: how far a gradient at s' moves the weights at s. Contexts broadcast."""
    chosen = named_manifold(manifold)
    f = chosen.basis(s)
    return (f @ _inverse(chosen, None).to(f) * chosen.basis(other)).sum(-1)


def _inverse(manifold: WeightManifold, gram: Tensor | None) -> Float[Tensor, "k k"]:
    if gram is None:
        return torch.linalg.inv(manifold.gram())
    n = manifold.n_points
    if not isinstance(gram, Tensor):
        raise TypeError(f"gram must be a tensor, got {type(gram).__name__}")
    if gram.shape != (n, n):
        raise ValueError(f"gram on {type(manifold).__name__} must have shape {(n, n)}, got {tuple(gram.shape)}")
    gram = gram.detach().double().cpu()
    if not gram.isfinite().all() or not torch.allclose(gram, gram.T):
        raise ValueError("gram must be symmetric and finite")
    values = torch.linalg.eigvalsh(gram)
    if values[0] <= 1e-10 * values[-1]:
        raise ValueError(
            f"gram must be positive definite, its smallest eigenvalue is {values[0]:.3g}; "
            f"measure it on contexts at {n} or more different places"
        )
    return torch.linalg.inv(gram)

"""What depth can do at most to a network of nearly isometric layers."""

from __future__ import annotations

from typing import Any

import numpy as np


def conditioning_bound(epsilon: Any, depth: Any) -> Any:
    r"""Bound on the condition number of L layers: :math:`((1 + \epsilon) / (1 - \epsilon))^L`.

    It holds where each layer's Jacobian has all its singular values in :math:`[1 - \epsilon, 1 + \epsilon]`, such as
    an orthogonal map with a correction of norm at most :math:`\epsilon` added. It bounds the ratio of gradient norms
    across layers as well.

    Args:
        epsilon: norm of the correction's Jacobian, in [0, 1); a number or an array.
        depth: number of layers, whole, at least 1; a number or an array that broadcasts against ``epsilon``.

    Returns:
        The bound, in the broadcast shape; infinite beyond the range of float64.

    Raises:
        ValueError: epsilon outside [0, 1), or a depth that is no whole number from 1.

    References:
        Weyl's inequality for singular values, Horn & Johnson 1991, Topics in Matrix Analysis, 3.3.16, layer by layer.
    """
    e, n = _checked(epsilon, depth)
    with np.errstate(over="ignore"):
        return np.exp(n * (np.log1p(e) - np.log1p(-e)))


def sensitivity_bound(epsilon: Any, depth: Any) -> Any:
    r"""Bound on the growth of a perturbation through L layers: :math:`(1 + \epsilon)^L`.

    The premise, arguments, shape and refusals are those of ``conditioning_bound``.
    """
    e, n = _checked(epsilon, depth)
    with np.errstate(over="ignore"):
        return np.exp(n * np.log1p(e))


def _checked(epsilon: Any, depth: Any) -> tuple[np.ndarray, np.ndarray]:
    e, n = np.asarray(epsilon, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    if not ((e >= 0) & (e < 1)).all():
        raise ValueError(f"epsilon must lie in [0, 1), got {e[~((e >= 0) & (e < 1))].flat[0]}")
    whole = (n >= 1) & (n == np.floor(n)) & np.isfinite(n)
    if not whole.all():
        raise ValueError(f"depth must be a whole number of layers, at least 1, got {n[~whole].flat[0]}")
    return e, n

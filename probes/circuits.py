"""What a head is wired to look for and to pass on: its QK and OV circuits, read from the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor


@dataclass(frozen=True)
class HeadCircuits:
    """The two bilinear maps of each head.

    Attributes:
        qk: how much a query with feature i looks for a key with feature j, shape (head, feature, feature). Scores
            before the softmax are x_query qk x_key, the 1/sqrt(d_head) included.
        ov: what attending to feature i adds to output j, shape (head, feature, output).
        qk_singular_values: of each head, d_head of them, falling.
        ov_singular_values: the same.
        ov_eigenvalues: d_head of them where the map leads from a space to itself, else NaN.
    """

    qk: Float[np.ndarray, "head feature feature"]
    ov: Float[np.ndarray, "head feature output"]
    qk_singular_values: Float[np.ndarray, "head d"]
    ov_singular_values: Float[np.ndarray, "head d"]
    ov_eigenvalues: Complex[np.ndarray, "head d"]

    @property
    def copying_score(self) -> Float[np.ndarray, " head"]:
        """Sum of the eigenvalues of OV over the sum of their moduli: 1 copies what it attends to, -1 negates it."""
        moduli = np.abs(self.ov_eigenvalues).sum(axis=-1)
        return np.divide(
            self.ov_eigenvalues.sum(axis=-1).real, moduli, out=np.full(len(moduli), np.nan), where=moduli > 0
        )

    @property
    def qk_symmetry(self) -> Float[np.ndarray, " head"]:
        """Cosine between QK and its transpose: 1 looks for what it is like itself, -1 is antisymmetric."""
        square = (self.qk**2).sum(axis=(1, 2))
        overlap = (self.qk * self.qk.swapaxes(1, 2)).sum(axis=(1, 2))
        return np.divide(overlap, square, out=np.full(len(square), np.nan), where=square > 0)


@torch.no_grad()
def head_circuits(
    W_Q: Float[Tensor, "head d_model d_head"],
    W_K: Float[Tensor, "head d_model d_head"],
    W_V: Float[Tensor, "head d_model d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    *,
    read_in: Float[Tensor, "feature d_model"] | None = None,
    norm_weight: Float[Tensor, " d_model"] | None = None,
    read_out: Float[Tensor, "d_model output"] | None = None,
) -> HeadCircuits:
    r"""QK and OV circuits of one layer's heads, in the basis of the input features.

    With E = ``read_in`` (the embedding), N the norm before the layer and U = ``read_out``,
    :math:`QK = E N W_Q W_K^T N^T E^T / \sqrt{d_{head}}` and :math:`OV = E N W_V W_O U`. N centres and multiplies by
    ``norm_weight``; its scale differs from particle to particle and is left at 1. Biases are left out.
    For a layer behind others this is the direct path from the input, past the layers between.

    Args:
        W_Q: TransformerLens' layout, such as ``model.blocks[0].attn.W_Q``.
        W_K: the same.
        W_V: the same.
        W_O: the same.
        read_in: rows of features in the residual stream, such as ``model.W_E``; None keeps the stream's own basis.
        norm_weight: of the layer norm before the heads, ``model.blocks[0].ln1.weight``; None for no norm.
        read_out: columns of outputs, such as ``model.W_U``; None keeps the stream's own basis.

    Raises:
        ValueError: shapes that disagree.

    Cost: products of the weights, and a decomposition of d_head x d_head a head: the maps have rank d_head.

    References:
        Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", for both circuits and the
        eigenvalues of OV; the score there is the same ratio.
    """
    _check_shapes(W_Q, W_K, W_V, W_O, read_in, norm_weight, read_out)
    d_model, d_head = W_Q.shape[1:]
    Q, K, V, out = (w.double() for w in (W_Q, W_K, W_V, W_O))
    basis = torch.eye(d_model, dtype=torch.float64, device=Q.device) if read_in is None else read_in.double()
    if norm_weight is not None:
        basis = (basis - basis.mean(dim=1, keepdim=True)) * norm_weight.double()
    if read_out is not None:
        out = out @ read_out.double()
    Q, K, V = basis @ Q / d_head**0.5, basis @ K, basis @ V  # head feature d_head
    is_square = V.shape[1] == out.shape[2]
    undefined = torch.full((len(Q), d_head), torch.nan, dtype=torch.complex128)
    eigenvalues = torch.linalg.eigvals(out @ V) if is_square else undefined
    return HeadCircuits(
        qk=(Q @ K.mT).cpu().numpy(),
        ov=(V @ out).cpu().numpy(),
        qk_singular_values=_singular_values(Q, K.mT),
        ov_singular_values=_singular_values(V, out),
        ov_eigenvalues=eigenvalues.cpu().numpy(),
    )


def _singular_values(left: Tensor, right: Tensor) -> Float[np.ndarray, "head d"]:
    """Of left @ right, from the small triangular factors; zeros make up d_head where a side is narrower."""
    small = torch.linalg.qr(left).R @ torch.linalg.qr(right.mT).R.mT
    found = torch.linalg.svdvals(small)
    missing = left.shape[-1] - found.shape[-1]
    return torch.nn.functional.pad(found, (0, missing)).cpu().numpy()


def _check_shapes(
    W_Q: Tensor,
    W_K: Tensor,
    W_V: Tensor,
    W_O: Tensor,
    read_in: Tensor | None,
    norm_weight: Tensor | None,
    read_out: Tensor | None,
) -> None:
    if W_Q.ndim != 3:
        raise ValueError(f"W_Q must have shape (head, d_model, d_head), got {tuple(W_Q.shape)}")
    n_heads, d_model, d_head = W_Q.shape
    expected = {"W_K": W_Q.shape, "W_V": W_Q.shape, "W_O": (n_heads, d_head, d_model)}
    for name, w in {"W_K": W_K, "W_V": W_V, "W_O": W_O}.items():
        if tuple(w.shape) != tuple(expected[name]):
            raise ValueError(f"{name} must have shape {tuple(expected[name])} to match W_Q, got {tuple(w.shape)}")
    for name, w, axis in (("read_in", read_in, 1), ("norm_weight", norm_weight, 0), ("read_out", read_out, 0)):
        if w is not None and (w.ndim <= axis or w.shape[axis] != d_model):
            raise ValueError(f"{name} must have d_model = {d_model} on axis {axis}, got shape {tuple(w.shape)}")

"""Circuits against the scores and outputs of the model whose weights they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import HookedAttention, initialized, unchecked

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import head_circuits, record_outputs


@pytest.fixture
def weights(generator) -> list[torch.Tensor]:
    model: Any = initialized(HookedAttention(d_model=7, d_head=2), generator)
    attn = model.blocks[0].attn
    return [attn.W_Q, attn.W_K, attn.W_V, attn.W_O]


def test_circuits_are_the_products_of_the_weights(weights, generator):
    embed = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    read_out = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    got = head_circuits(*weights, read_in=embed, read_out=read_out)
    for h, (Q, K, V, out) in enumerate(zip(*(w.detach() for w in weights), strict=True)):
        np.testing.assert_allclose(got.qk[h], embed @ Q @ K.T @ embed.T / 2**0.5, rtol=1e-12)
        np.testing.assert_allclose(got.ov[h], embed @ V @ out @ read_out, rtol=1e-12)
    assert np.isnan(got.ov_eigenvalues).all()  # from 4 features to 3 outputs
    assert np.isnan(got.copying_score).all()


def test_decompositions_are_those_of_the_full_matrices(weights):
    got = head_circuits(*weights)
    for h in range(3):
        for matrix, values in ((got.qk[h], got.qk_singular_values[h]), (got.ov[h], got.ov_singular_values[h])):
            np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False)[:2], values, rtol=1e-10)
        full = np.linalg.eigvals(got.ov[h])
        largest = full[np.argsort(-np.abs(full))[:2]]
        np.testing.assert_allclose(np.sort_complex(largest), np.sort_complex(got.ov_eigenvalues[h]), rtol=1e-9)
        assert got.copying_score[h] == pytest.approx(full.sum().real / np.abs(full).sum(), rel=1e-9)
        transposed = (got.qk[h] * got.qk[h].T).sum() / (got.qk[h] ** 2).sum()
        assert got.qk_symmetry[h] == pytest.approx(transposed, rel=1e-12)


def test_a_head_that_copies_scores_one_and_one_that_negates_minus_one(generator):
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    V = basis[None, :, :3].repeat(4, 1, 1)
    rotated = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 0]], dtype=torch.float64) @ basis[:, :3].T
    out = torch.stack([V[0].T, -2 * V[0].T, rotated, torch.zeros(3, 6, dtype=torch.float64)])
    got = head_circuits(V, V, V, out)
    np.testing.assert_allclose(got.copying_score[:3], [1, -1, 0], atol=1e-12)
    assert np.isnan(got.copying_score[3])
    np.testing.assert_allclose(got.ov_singular_values, [[1, 1, 1], [2, 2, 2], [1, 1, 0], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(got.qk_symmetry, 1.0)
    turned = head_circuits(V[:1] @ rotated[None, :, :] @ V[:1], V[:1], V[:1], out[:1])
    assert turned.qk_symmetry[0] == pytest.approx(-1.0, abs=1e-12)


@torch.no_grad()
def test_qk_gives_the_scores_of_our_model_and_ov_what_attention_writes(generator):
    """Without biases, first layer: the norm's scale of either particle divides, nothing else."""
    model = ParticleTransformer(ModelConfig(n_layers=1, n_heads=3, d_model=12, d_head=4, d_mlp=8), 6, 4, generator)
    model.double().ln_final = torch.nn.Identity()  # type: ignore[assignment]
    model.layers[0].ln1.weight.copy_(torch.rand(12, generator=generator) + 0.5)
    x = torch.randn(5, 7, 6, generator=generator, dtype=torch.float64)
    attn, norm = model.layers[0].attn, model.layers[0].ln1
    got = head_circuits(
        attn.W_Q, attn.W_K, attn.W_V, attn.W_O, read_in=model.W_E, norm_weight=norm.weight, read_out=model.W_U
    )
    names = ["hook_embed", "blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_pattern", "blocks.0.hook_attn_out"]
    seen = {name: t.numpy() for name, t in record_outputs(model, [x], names).items()}
    scale = np.sqrt(seen["hook_embed"].var(-1) + norm.eps)
    normed = x.numpy() / scale[..., None]
    np.testing.assert_allclose(
        np.einsum("sif,hfg,sjg->shij", normed, got.qk, normed), seen["blocks.0.attn.hook_attn_scores"], atol=1e-11
    )
    written = np.einsum("shij,sjf,hfo->sio", seen["blocks.0.attn.hook_pattern"], normed, got.ov)
    np.testing.assert_allclose(written, seen["blocks.0.hook_attn_out"] @ model.W_U.numpy(), atol=1e-11)


def test_a_basis_smaller_than_a_head(generator):
    W = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    got = head_circuits(W, W, W, W.mT, read_in=torch.eye(6, dtype=torch.float64)[:3])
    assert got.qk_singular_values.shape == (2, 4)
    np.testing.assert_allclose(got.qk_singular_values[:, 3], 0.0)
    np.testing.assert_allclose(got.qk_singular_values[0, :3], np.linalg.svd(got.qk[0], compute_uv=False), rtol=1e-10)


def test_shapes_that_disagree_are_refused(weights):
    circuits = unchecked(head_circuits)
    Q, K, V, out = weights
    with pytest.raises(ValueError, match=r"W_Q must have shape \(head, d_model, d_head\), got \(7, 2\)"):
        circuits(Q[0], K, V, out)
    with pytest.raises(ValueError, match=r"W_O must have shape \(3, 2, 7\) to match W_Q, got \(3, 7, 2\)"):
        circuits(Q, K, V, V)
    with pytest.raises(ValueError, match=r"read_in must have d_model = 7 on axis 1, got shape \(7, 4\)"):
        circuits(Q, K, V, out, read_in=torch.ones(7, 4))
    with pytest.raises(ValueError, match=r"read_out must have d_model = 7 on axis 0, got shape \(4, 7\)"):
        circuits(Q, K, V, out, read_out=torch.ones(4, 7))
    with pytest.raises(ValueError, match=r"norm_weight must have d_model = 7 on axis 0, got shape \(6,\)"):
        circuits(Q, K, V, out, norm_weight=torch.ones(6))

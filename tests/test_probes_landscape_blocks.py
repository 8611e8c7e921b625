"""Blocks of the Hessian: heads, tensors and layers against the dense sub-blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import Attention, Case, attention, dense_hessian, initialized, left_as_found, mlp, seeded
from torch import Tensor, nn

from probes import SplitLoss, head_parameters, hessian_blocks, top_eigenvalues
from probes.landscape import BlockCurvature


def blocks_of(case: Case, blocks: Any, *, seed: int = 0, **options: Any) -> dict[str, BlockCurvature]:
    sizes: dict[str, Any] = {"k": 3, "n_probes": 4, "n_steps": 10}
    return hessian_blocks(
        case.model, case.batches, loss_fn=case.loss_fn, blocks=blocks, generator=seeded(seed), **(sizes | options)
    )


def test_every_head_is_its_dense_sub_block() -> None:
    case = attention(d_model=6, n_heads=3)
    heads = head_parameters(case.model)
    assert list(heads) == ["head0", "head1", "head2"]
    found = blocks_of(case, heads, k=5, n_probes=30, n_steps=4)
    hessian = dense_hessian(case)
    for name, masks in heads.items():
        index = torch.cat([mask.reshape(-1) for mask in masks.values()]).numpy()
        values = np.linalg.eigvalsh(hessian[np.ix_(index, index)])[::-1]
        block = found[name]
        assert block.n_entries == len(values) == 4 * 6 * 2
        assert block.eigenvalues.converged.all()
        np.testing.assert_allclose(block.eigenvalues.values, values[:5], rtol=1e-6)
        assert abs(block.trace.value - values.sum()) < 4 * block.trace.standard_error
        known = np.sqrt(2 * ((values**2).sum() - (np.diag(hessian)[index] ** 2).sum()) / 30)
        assert block.trace.standard_error == pytest.approx(known, rel=0.6)
        moments = block.density.moments(2)
        assert abs(moments.mean() - (values**2).mean()) < 4 * moments.std(ddof=1) / np.sqrt(30)
        assert block.degeneracy.n_entries == len(values)
        assert block.n_matvecs == block.eigenvalues.n_matvecs + block.density.n_matvecs


def test_tensors_and_patterns_make_blocks_in_the_order_given() -> None:
    case = mlp()
    names = [name for name, _ in case.model.named_parameters()]
    blocks: dict[str, Any] = {"last": "2.*", **{name: name for name in reversed(names)}}
    found = blocks_of(case, blocks)
    assert list(found) == ["last", "2.bias", "2.weight", "0.bias", "0.weight"]
    assert [block.n_entries for block in found.values()] == [75, 3, 72, 24, 144]
    alone = top_eigenvalues(
        case.model, case.batches, loss_fn=case.loss_fn, k=3, parameters="2.weight", generator=seeded(5)
    )
    np.testing.assert_allclose(found["2.weight"].eigenvalues.values, alone.values, rtol=1e-7)


def test_a_block_does_not_depend_on_the_others() -> None:
    case = attention()
    heads = head_parameters(case.model)
    together, alone = blocks_of(case, heads), blocks_of(case, {"head1": heads["head1"]})
    for part in ("eigenvalues", "density"):
        for name, value in vars(getattr(together["head1"], part)).items():
            np.testing.assert_array_equal(value, getattr(getattr(alone["head1"], part), name))
    other = blocks_of(case, {"head1": heads["head1"]}, seed=1)
    assert other["head1"].trace.value != alone["head1"].trace.value


def test_heads_of_a_layer_share_one_graph() -> None:
    """Loss evaluations: one a batch and one more to check the loss, then one a batch for the graphs of the layer."""
    case = attention()
    n_calls = 0

    def counted(model: nn.Module, batch: Any) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return case.loss_fn(model, batch)

    with left_as_found(case.model):
        blocks_of(Case(case.model, case.batches, counted), head_parameters(case.model))
    assert n_calls == 3 + 2


def test_gauss_newton_blocks_of_a_linear_model_are_those_of_the_hessian() -> None:
    case = mlp()
    loss = SplitLoss(lambda model, batch: model(batch[0]), lambda output, batch: (output - batch[1]).square().mean())
    linear = Case(nn.Linear(6, 3).double(), case.batches, loss)
    one, other = (blocks_of(linear, {"weight": "weight"}, matrix=matrix)["weight"] for matrix in ("hessian", "ggn"))
    np.testing.assert_allclose(one.eigenvalues.values, other.eigenvalues.values, rtol=1e-10)
    np.testing.assert_allclose(one.trace.samples, other.trace.samples, rtol=1e-10)


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ({}, {}, "blocks is empty"),
        ({"b": "2.bias"}, {"k": 4}, "k must lie between 1 and the 3 entries of block 'b', got 4"),
        ({"b": "3.*"}, {}, r"'3\.\*' matches no trainable tensor"),
        ({"b": None}, {"n_probes": 1}, "n_probes must be at least 2, got 1"),
        ({"b": None}, {"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"b": None}, {"tolerance": 1.0}, "tolerance must lie between 0 and 1, got 1.0"),
    ],
)
def test_bad_requests_are_refused(blocks, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks_of(mlp(), blocks, **options)


def test_heads_are_named_by_their_layer() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList(nn.Module() for _ in range(2))
    for block in model.blocks:
        block.attn = initialized(Attention(4, 2), seeded())
    heads = head_parameters(model)
    assert list(heads) == [f"blocks.{layer}.attn.head{head}" for layer in (0, 1) for head in (0, 1)]
    masks = heads["blocks.1.attn.head0"]
    assert list(masks) == [f"blocks.1.attn.{kind}" for kind in ("W_Q", "W_K", "W_V", "W_O")]
    assert all(mask[0].all() and not mask[1].any() for mask in masks.values())


def test_models_without_such_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="no submodule with trainable W_Q, W_K, W_V, W_O; give masks instead"):
        head_parameters(mlp().model)
    grouped = Attention(4, 2)
    grouped.W_K = nn.Parameter(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match=r"its lengths are \{'W_Q': 2, 'W_K': 1, 'W_V': 2, 'W_O': 2\}"):
        head_parameters(grouped)
    with pytest.raises(ValueError, match="no submodule"):
        head_parameters(Attention(4, 2).requires_grad_(False))

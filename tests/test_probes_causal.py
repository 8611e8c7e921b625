"""Cut edges and silenced heads against forward passes written out with the cut in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import HookedAttention, initialized, left_as_found, unchecked
from torch import Tensor, nn

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import edge_knockout, head_ablation, partner_edges, record_outputs

SIZES: dict[str, Any] = {"n_layers": 2, "n_heads": 3}
N_SCENES, N_PARTICLES = 6, 5


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return (model(x)[..., :2] - y).square().mean(-1)


def written_out(model, x, *, cut=None, new_z=None) -> Tensor:
    """The forward pass in plain loops over heads; ``cut[layer]`` bans edges, ``new_z(layer, head, z)`` replaces z."""
    for layer, block in enumerate(model.blocks):
        added = torch.zeros_like(x)
        for head in range(block.attn.W_Q.shape[0]):
            q, k, v = (x @ w[head] for w in (block.attn.W_Q, block.attn.W_K, block.attn.W_V))
            weights = (q @ k.transpose(-1, -2)).exp()
            if cut is not None:
                weights = weights * ~cut[layer, head]
            z = (weights / weights.sum(-1, keepdim=True)) @ v
            added = added + (z if new_z is None else new_z(layer, head, z)) @ block.attn.W_O[head]
        x = x + added
    return x


class Dropping(HookedAttention):
    """In training mode every forward pass would differ."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


@pytest.fixture
def model(generator) -> nn.Module:
    return initialized(Dropping(), generator).train()


@pytest.fixture
def batch(generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(N_SCENES, N_PARTICLES, 6, generator=generator, dtype=torch.float64)
    return x, torch.randn(N_SCENES, N_PARTICLES, 2, generator=generator, dtype=torch.float64)


EDGES = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 1], [3, 4, 0], [5, 0, 4], [5, 0, 4]])


@torch.no_grad()
def loss_with(model, batch, **change) -> np.ndarray:
    x, y = batch
    return (written_out(model, x, **change)[..., :2] - y).square().mean(-1).numpy()


def cut_mask(scene, query, key, layer, heads) -> Tensor:
    cut = torch.zeros(2, 3, N_SCENES, N_PARTICLES, N_PARTICLES, dtype=torch.bool)
    cut[layer, heads, scene, query, key] = True
    return cut


# edge knock-out


def test_a_knockout_by_hand():
    """Uniform attention over the values 0, 3, 9 adds their mean 4; without the edge to 9 the mean is 1.5."""
    model = HookedAttention(n_layers=1, n_heads=1, d_model=1, d_head=1)
    attn: Any = model.blocks[0]
    nn.init.ones_(attn.attn.W_V)
    nn.init.ones_(attn.attn.W_O)
    x = torch.tensor([[[0.0], [3.0], [9.0]]], dtype=torch.float64)
    got = edge_knockout(
        model, x, np.array([[0, 0, 2], [0, 1, 0]]), query_loss=lambda m, x: m(x)[..., 0], n_layers=1, n_heads=1
    )
    np.testing.assert_allclose(got.baseline, [4.0, 7.0])
    np.testing.assert_allclose(got.increase, [[[-2.5, 2.0]]])
    np.testing.assert_allclose(got.layer_increase, [[-2.5, 2.0]])
    np.testing.assert_allclose(got.mean, [[-0.25]])
    np.testing.assert_allclose(got.relative, [[-0.25 / 5.5]])
    np.testing.assert_allclose(got.layer_mean, [-0.25])
    assert np.isnan(got.standard_error[0, 0])  # one scene


def test_knockouts_match_forward_passes_written_out(model, batch):
    """Each edge is cut alone, though scene 0 holds three and one edge is there twice."""
    with left_as_found(model):
        got = edge_knockout(model, batch, EDGES, query_loss=squared_error, **SIZES)
    baseline = loss_with(model, batch)
    np.testing.assert_allclose(got.baseline, baseline[EDGES[:, 0], EDGES[:, 1]], rtol=1e-12)
    for e, (scene, query, key) in enumerate(EDGES):
        for layer in range(2):
            for head in range(3):
                loss = loss_with(model, batch, cut=cut_mask(scene, query, key, layer, head))[scene, query]
                assert got.increase[layer, head, e] == pytest.approx(loss - got.baseline[e], abs=1e-12)
            loss = loss_with(model, batch, cut=cut_mask(scene, query, key, layer, slice(None)))[scene, query]
            assert got.layer_increase[layer, e] == pytest.approx(loss - got.baseline[e], abs=1e-12)
    assert abs(got.layer_increase[0] - got.increase[0].sum(0)).max() > 1e-3  # not a sum over heads


def test_batches_may_be_dicts_and_our_model_takes_part(generator):
    """Masking scores equals masking the pattern and sharing out what it held."""
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=8), 6, 4, generator)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
    model.double()
    x = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)

    def loss(model, batch):
        return model(batch["x"]).square().mean(-1)

    with left_as_found(model):
        got = edge_knockout(model, {"x": x}, np.array([[1, 2, 3]]), query_loss=loss, **SIZES)

    def shared_out(pattern):
        pattern = pattern.clone()
        pattern[1, 0, 2, 3] = 0
        return pattern / pattern.sum(-1, keepdim=True)

    with torch.no_grad():
        expected = model.run_with_hooks(x, fwd_hooks=[("blocks.1.attn.hook_pattern", lambda p, hook: shared_out(p))])
        change = expected.square().mean(-1)[1, 2] - model(x).square().mean(-1)[1, 2]
    assert abs(change) > 1e-4
    assert got.increase[1, 0, 0] == pytest.approx(change.item(), abs=1e-12)


def test_another_name_for_the_scores(model, batch):
    renamed = nn.Module()
    renamed.register_module("inner", model)
    renamed.forward = lambda x: model(x)
    at = {"scores": "inner.blocks.{layer}.attn.hook_attn_scores"}
    got = edge_knockout(renamed, batch, EDGES, query_loss=squared_error, **at, **SIZES)
    want = edge_knockout(model, batch, EDGES, query_loss=squared_error, **SIZES)
    np.testing.assert_array_equal(got.increase, want.increase)


def test_errors_treat_groups_of_scenes_as_units(model, batch):
    boxes = np.array([7, 7, 7, 2, 2, 9])
    got = edge_knockout(model, batch, EDGES, query_loss=squared_error, scene_groups=boxes, **SIZES)
    np.testing.assert_array_equal(got.group, [7, 7, 7, 2, 9, 9])
    values = got.increase[1, 2]
    totals = np.array([(values - values.mean())[got.group == box].sum() for box in (2, 7, 9)])
    assert got.standard_error[1, 2] == pytest.approx(np.sqrt((totals**2).sum() * 3 / 2) / 6)
    whole = got.layer_increase[1]
    totals = np.array([(whole - whole.mean())[got.group == box].sum() for box in (2, 7, 9)])
    assert got.layer_standard_error[1] == pytest.approx(np.sqrt((totals**2).sum() * 3 / 2) / 6)
    half = 4.302653 * got.layer_standard_error  # Student's t, two degrees of freedom
    np.testing.assert_allclose(got.layer_interval, np.stack([-half, half], -1) + got.layer_mean[:, None], rtol=1e-6)
    half = 4.302653 * got.standard_error
    np.testing.assert_allclose(got.interval, np.stack([-half, half], -1) + got.mean[..., None], rtol=1e-6)
    alone = edge_knockout(model, batch, EDGES[[0, 3, 4]], query_loss=squared_error, **SIZES)
    np.testing.assert_allclose(alone.standard_error, alone.increase.std(-1, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (np.zeros((0, 3), int), r"at least one row, got \(0, 3\)"),
        (np.zeros((4, 2), int), r"shape \(example, 3\) .* got \(4, 2\)"),
        (np.array([[0, 1, 1]]), "a row has query = key"),
        (np.array([[0, 1, 2], [6, 1, 2]]), r"edges row 1 is \[6, 1, 2\], but batch has 6 on the scene axis"),
        (np.array([[-1, 1, 2]]), r"edges row 0 is \[-1, 1, 2\], but batch has 6 on the scene axis"),
        (np.array([[0, 5, 2]]), r"edges row 0 is \[0, 5, 2\], but loss has 5 on the query axis"),
        (np.array([[0, 1, 5]]), r"edges row 0 is \[0, 1, 5\], but scores has 5 on the key axis"),
        (np.array([[0, 1, -2]]), r"edges row 0 is \[0, 1, -2\], but scores has 5 on the key axis"),
    ],
)
def test_bad_edges_are_refused(model, batch, edges, said):
    with left_as_found(model), pytest.raises(ValueError, match=said):
        unchecked(edge_knockout)(model, batch, edges, query_loss=squared_error, **SIZES)


def test_edges_that_are_not_integers_are_refused(model, batch):
    with pytest.raises(TypeError, match=r"edges must be integers .* got float64"):
        unchecked(edge_knockout)(model, batch, EDGES * 1.0, query_loss=squared_error, **SIZES)


def test_sizes_that_are_not_the_models_are_refused(model, batch, generator):
    """A head too many would otherwise be a slice of nothing, with no effect."""
    for n_heads in (2, 4):
        with pytest.raises(ValueError, match=rf"n_heads = {n_heads}, got \(6, 3, 5, 5\)"):
            edge_knockout(model, batch, EDGES, query_loss=squared_error, n_layers=2, n_heads=n_heads)
        with pytest.raises(ValueError, match=rf"n_heads = {n_heads}, got \(6, 5, 3, 2\)"):
            ablation(model, batch, "zero", generator, n_heads=n_heads)
    with pytest.raises(ValueError, match=r"'blocks.2.attn.hook_attn_scores'; alike: blocks.0.attn.hook_attn_scores"):
        edge_knockout(model, batch, EDGES, query_loss=squared_error, n_layers=3, n_heads=3)


def test_a_knockout_that_did_not_happen_is_refused(model, batch, generator):
    model.blocks[0].attn.spare = nn.Identity()
    model.blocks[1].attn.spare = nn.Identity()
    name = "blocks.{layer}.attn.spare"
    with left_as_found(model):
        with pytest.raises(ValueError, match=r"'blocks.0.attn.spare' was not called"):
            edge_knockout(model, batch, EDGES, query_loss=squared_error, scores=name, **SIZES)
        with pytest.raises(ValueError, match=r"'blocks.0.attn.spare' was not called"):
            ablation(model, batch, "zero", generator, z=name)


def test_cutting_a_pattern_in_place_of_scores_is_refused(model, batch):
    with pytest.raises(ValueError, match=r"edge cut in layer 0 is nan for edge \[0, 1, 2\].*before the softmax"):
        edge_knockout(
            model, batch, EDGES, query_loss=lambda m, b: squared_error(m, b) * 1.0, **SIZES,
            scores="blocks.{layer}.attn.hook_pattern",
        )  # fmt: skip


def test_losses_and_batches_of_another_kind_are_refused(model, batch, generator):
    x, y = batch
    knock, ablate = unchecked(edge_knockout), unchecked(head_ablation)
    with pytest.raises(ValueError, match=r"query_loss must return shape \(scene, query\) with 6 scenes, got \(\)"):
        knock(model, batch, EDGES, query_loss=lambda m, b: squared_error(m, b).mean(), **SIZES)
    with pytest.raises(ValueError, match=r"query_loss must return .* 6 scenes, got \(5, 6\)"):
        ablate(
            model, batch, {"all": torch.ones(6, 5, dtype=torch.bool)}, query_loss=lambda m, b: squared_error(m, b).T,
            kind="zero", generator=generator, **SIZES,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"agree on the number of scenes, got \[4, 6\]"):
        knock(model, (x, y[:4]), EDGES, query_loss=squared_error, **SIZES)
    with pytest.raises(TypeError, match="got float"):
        knock(model, (x, 0.1), EDGES, query_loss=squared_error, **SIZES)
    with pytest.raises(TypeError, match="got a scalar tensor"):
        knock(model, (x, torch.tensor(0.1)), EDGES, query_loss=squared_error, **SIZES)
    with pytest.raises(ValueError, match="scene_groups must label each of the 6 scenes, got 2 labels"):
        knock(model, batch, EDGES, query_loss=squared_error, scene_groups=np.arange(2), **SIZES)
    broken = y.clone()
    broken[5, 0] = torch.nan
    with pytest.raises(ValueError, match=r"loss with nothing cut is nan for edge \[5, 0, 4\]"):
        knock(model, (x, broken), EDGES, query_loss=squared_error, **SIZES)
    with pytest.raises(ValueError, match=r"loss is nan for \(scene, query\) \(5, 0\)"):
        ablation(model, (x, broken), "zero", generator)


class Fixed(nn.Module):
    """Hands out its own parameters as scores and z."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.z = nn.Identity(), nn.Identity()
        self.table = nn.Parameter(torch.zeros(2, 1, 3, 3))
        self.heads = nn.Parameter(torch.ones(2, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.table).softmax(-1)[:, 0] @ (self.z(self.heads)[:, :, 0] + x)


def test_what_the_model_hands_out_is_not_written_into(generator):
    model, x = Fixed(), torch.arange(6.0).reshape(2, 3, 1)
    options: dict[str, Any] = {"query_loss": lambda m, b: m(b)[..., 0], "n_layers": 1, "n_heads": 1}
    with left_as_found(model):
        got = edge_knockout(model, x, np.array([[0, 0, 2], [1, 2, 0]]), scores="scores", **options)
        every = {"all": torch.ones(2, 3, dtype=torch.bool)}
        ablated = head_ablation(model, x, every, kind="zero", generator=generator, z="z", **options)
    np.testing.assert_allclose(got.increase, [[[-0.5, 0.5]]])
    np.testing.assert_array_equal(got.layer_increase, got.increase[:, 0])
    np.testing.assert_allclose(ablated.increase["all"], [[-1.0]])


# head ablation


def query_groups() -> dict[str, Tensor]:
    mask = torch.zeros(N_SCENES, N_PARTICLES, dtype=torch.bool)
    mask[[0, 0, 2, 3], [1, 4, 2, 3]] = True
    return {"contact": mask, "free": ~mask}


def ablation(model, batch, kind, generator, **options):
    options = {"query_loss": squared_error, **SIZES, **options}
    return head_ablation(model, batch, query_groups(), kind=kind, generator=generator, **options)


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_ablation_matches_forward_passes_written_out(model, batch, generator, kind):
    before = generator.get_state()
    with left_as_found(model):
        got = ablation(model, batch, kind, generator)
    assert torch.equal(generator.get_state(), before)  # only resampling draws
    baseline = loss_with(model, batch)
    for layer, head in np.ndindex(2, 3):

        def new_z(at_layer, at_head, z, here=(layer, head)):
            if (at_layer, at_head) != here:
                return z
            return torch.zeros_like(z) if kind == "zero" else z.mean((0, 1)).expand_as(z)

        change = loss_with(model, batch, new_z=new_z) - baseline
        for name, mask in query_groups().items():
            assert got.baseline[name] == pytest.approx(baseline[mask.numpy()].mean(), abs=1e-12)
            assert got.increase[name][layer, head] == pytest.approx(change[mask.numpy()].mean(), abs=1e-12)
            assert abs(got.increase[name][layer, head]) > 1e-4
            residual = np.where(mask, change - change[mask.numpy()].mean(), 0).sum(1)[mask.any(1)]
            error = np.sqrt((residual**2).sum() * len(residual) / (len(residual) - 1)) / mask.sum().item()
            assert got.standard_error[name][layer, head] == pytest.approx(error)


def test_resampling_takes_z_from_another_scene(model, batch, generator):
    """Scenes alike but for their sign: with two, each must take the other's."""
    x, y = batch
    pair = x[:2], y[:2]
    all_queries = {"all": np.ones((2, N_PARTICLES), dtype=bool)}
    with left_as_found(model):
        got = head_ablation(
            model, pair, all_queries, query_loss=squared_error, kind="resample", generator=generator, **SIZES
        )
    for layer, head in np.ndindex(2, 3):

        def new_z(at_layer, at_head, z, here=(layer, head)):
            return z.flip(0) if (at_layer, at_head) == here else z

        change = loss_with(model, pair, new_z=new_z) - loss_with(model, pair)
        assert got.increase["all"][layer, head] == pytest.approx(change.mean(), abs=1e-12)


def test_resampled_scenes_are_a_permutation_without_fixed_points(model, batch, generator):
    """z of a head that reads the scene's number alone says where it came from."""
    x = torch.arange(N_SCENES, dtype=torch.float64)[:, None, None].expand(-1, N_PARTICLES, 6)
    model = HookedAttention()
    attn: Any = model.blocks[0].attn
    nn.init.ones_(attn.W_V)
    seen = []

    def loss(model, batch):
        plain = model(batch)
        z = record_outputs(model, [batch], ["blocks.0.attn.hook_z"])["blocks.0.attn.hook_z"]
        seen.append(z[:, 0, :, 0] / 6)  # scene head
        return plain[..., 0]

    groups = {"all": torch.ones(N_SCENES, N_PARTICLES, dtype=torch.bool)}
    for _ in range(20):
        head_ablation(model, x, groups, query_loss=loss, kind="resample", n_layers=1, n_heads=3, generator=generator)
    origins = torch.stack([seen[4 * run + 1 + head][:, head] for run in range(20) for head in range(3)]).round()
    assert torch.equal(origins.sort(-1).values, torch.arange(6.0, dtype=torch.float64).expand(60, -1))
    assert not (origins == torch.arange(6)).any()
    assert len({tuple(row) for row in origins.int().tolist()}) > 20  # of 120 cycles


def test_resampling_is_the_generators(model, batch):
    runs = [ablation(model, batch, "resample", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0].increase["free"], runs[1].increase["free"])
    assert (runs[0].increase["free"] != runs[2].increase["free"]).all()


def test_groups_of_scenes_are_units_of_the_ablation_error(model, batch, generator):
    got = ablation(model, batch, "zero", generator, scene_groups=np.array([0, 0, 0, 1, 1, 1]))
    wide = ablation(model, batch, "zero", generator, scene_groups=np.zeros(6, int))
    assert np.isfinite(got.standard_error["free"]).all()
    half = 12.706205 * got.standard_error["free"]  # two groups, one degree of freedom
    np.testing.assert_allclose(
        got.interval["free"], np.stack([-half, half], -1) + got.increase["free"][..., None], rtol=1e-6
    )
    assert np.isnan(wide.standard_error["free"]).all()


def test_bad_ablations_are_refused(model, batch, generator):
    ablate = unchecked(head_ablation)
    options = {"query_loss": squared_error, "generator": generator, **SIZES}
    with pytest.raises(ValueError, match="kind must be zero, mean or resample, got 'noise'"):
        ablate(model, batch, query_groups(), kind="noise", **options)
    with pytest.raises(ValueError, match=r"groups\['none'\] holds no query"):
        ablate(model, batch, {"none": torch.zeros(6, 5, dtype=torch.bool)}, kind="zero", **options)
    with pytest.raises(ValueError, match="groups is empty"):
        ablate(model, batch, {}, kind="zero", **options)
    with pytest.raises(ValueError, match=r"groups\['all'\] must be bool of shape \(6, 5\).*bool of shape \(6, 4\)"):
        ablate(model, batch, {"all": torch.ones(6, 4, dtype=torch.bool)}, kind="zero", **options)
    one = batch[0][:1], batch[1][:1]
    with pytest.raises(ValueError, match="from another scene; batch has 1"):
        ablate(model, one, {"all": torch.ones(1, 5, dtype=torch.bool)}, kind="resample", **options)


# edges of partners


def test_partner_edges_match_a_slow_loop(rng):
    contacts = rng.random((20, 6, 6)) < 0.1
    contacts |= contacts.swapaxes(1, 2)
    distances = rng.random((20, 6, 6))
    partner, nearest = partner_edges(contacts, distances)
    expected = []
    for s in range(20):
        for i in range(6):
            partners = [j for j in range(6) if j != i and contacts[s, i, j]]
            if len(partners) == 1:
                rest = [j for j in range(6) if j not in (i, partners[0])]
                expected.append([s, i, partners[0], min(rest, key=lambda j, s=s, i=i: distances[s, i, j])])
    np.testing.assert_array_equal(partner, np.array(expected)[:, :3])
    np.testing.assert_array_equal(nearest, np.array(expected)[:, [0, 1, 3]])


def test_partner_edges_refuse_what_they_cannot_answer(rng):
    contacts, distances = np.zeros((2, 4, 4), dtype=bool), rng.random((2, 4, 4))
    with pytest.raises(ValueError, match=r"contacts \(2, 4, 4\) holds no particle with exactly one partner"):
        partner_edges(contacts, distances)
    with pytest.raises(ValueError, match=r"contacts \(1, 2, 2\) holds no particle"):
        partner_edges(~np.eye(2, dtype=bool)[None], distances[:1, :2, :2])
    with pytest.raises(ValueError, match=r"got \(2, 4, 4\) and \(2, 3, 3\)"):
        unchecked(partner_edges)(contacts, distances[:, 1:, 1:])
    distances[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"distances holds NaN, first at \(1, 0, 2\)"):
        partner_edges(contacts, distances)

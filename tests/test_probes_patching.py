"""Patched activations and paths against forward passes written out with the patch in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import HookedAttention, initialized, left_as_found, unchecked
from torch import Tensor, nn

from emergence.config import ModelConfig
from emergence.model import ParticleTransformer
from probes import Site, patch_activation, patch_path

N_SCENES, N_PARTICLES = 8, 5


def first_output(output: Tensor) -> Tensor:
    """Of particle 0: one number a scene."""
    return output[:, 0, 0]


@pytest.fixture
def model(generator) -> nn.Module:
    return initialized(HookedAttention(), generator).train()


@pytest.fixture
def pair(generator) -> tuple[Tensor, Tensor]:
    """The same scenes with particle 3 somewhere else."""
    clean = torch.randn(N_SCENES, N_PARTICLES, 6, generator=generator, dtype=torch.float64)
    corrupted = clean.clone()
    corrupted[:, 3] = torch.randn(N_SCENES, 6, generator=generator, dtype=torch.float64)
    return clean, corrupted


def attention_of(model: Any, layer: int, x: Tensor, *, q_from: Tensor | None = None) -> list[Tensor]:
    """z of each head, in plain loops; ``q_from`` lets the queries see another stream."""
    attn = model.blocks[layer].attn
    q_from = x if q_from is None else q_from
    z = []
    for head in range(3):
        q, k, v = q_from @ attn.W_Q[head], x @ attn.W_K[head], x @ attn.W_V[head]
        z.append((q @ k.mT).softmax(-1) @ v)
    return z


def added(model: Any, layer: int, z: list[Tensor]) -> Tensor:
    return sum(z[head] @ model.blocks[layer].attn.W_O[head] for head in range(3))  # type: ignore[return-value]


@torch.no_grad()
def with_head(model: Any, clean: Tensor, corrupted: Tensor, layer: int, head: int) -> Tensor:
    """The corrupted run with one head's z from the clean one."""
    x, y = clean, corrupted
    for at in range(2):
        z_clean, z = attention_of(model, at, x), attention_of(model, at, y)
        if at == layer:
            z[head] = z_clean[head]
        x, y = x + added(model, at, z_clean), y + added(model, at, z)
    return y


def recovered(metrics: Tensor, clean: Tensor, corrupted: Tensor) -> float:
    return ((metrics.mean() - corrupted.mean()) / (clean.mean() - corrupted.mean())).item()


def test_patched_heads_match_forward_passes_written_out(model, pair):
    sites = [Site(f"blocks.{layer}.attn.hook_z", (slice(None), head)) for layer in range(2) for head in range(3)]
    with left_as_found(model):
        got = patch_activation(model, pair[0], pair[1], sites, metric=first_output)
    with torch.no_grad():
        before, after = (first_output(model(x)) for x in pair)
    assert (got.clean, got.corrupted) == pytest.approx((before.mean().item(), after.mean().item()), abs=1e-14)
    assert got.sites[4] == "blocks.1.attn.hook_z[:, :, 1]"
    assert got.n_forward == 3 + 6
    for n, (layer, head) in enumerate(np.ndindex(2, 3)):
        want = first_output(with_head(model, pair[0], pair[1], layer, head))
        assert got.patched[n] == pytest.approx(want.mean().item(), abs=1e-13)
        assert got.recovered[n] == pytest.approx(recovered(want, before, after), abs=1e-11)
    assert np.abs(got.recovered).max() > 0.01


def test_what_particle_0_hears_of_particle_3_comes_through_the_last_z(model, pair):
    got = patch_activation(
        model, pair[0], pair[1], ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"], metric=first_output
    )
    assert abs(got.recovered[0] - 1.0) > 0.01  # the keys of the second layer still see 3 where it is
    moved_by_first = got.recovered[1]
    both = Site("blocks.0.attn.hook_z", (0,)), Site("blocks.1.attn.hook_z", (0,))
    parts = patch_activation(model, pair[0], pair[1], list(both), metric=first_output)
    assert parts.recovered[1] == pytest.approx(moved_by_first, abs=1e-11)  # the others' last z is not read by 0


def test_a_position_of_our_model(generator):
    """Moving particle 3 reaches particle 0 only through the stream of 3 and through what others made of it."""
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=2, d_model=8, d_head=4, d_mlp=8), 6, 4, generator)
    model.double()
    clean = torch.randn(6, 4, 6, generator=generator, dtype=torch.float64)
    corrupted = clean.clone()
    corrupted[:, 3] += 1.0
    sites: list[str | Site] = ["hook_embed", Site("hook_embed", (3,)), Site("hook_embed", (slice(0, 3),))]
    sites += [Site("blocks.1.hook_resid_post", (0,)), Site("blocks.1.hook_resid_post", (1,))]
    with left_as_found(model):
        got = patch_activation(model, clean, corrupted, sites, metric=first_output)
    np.testing.assert_allclose(got.recovered, [1, 1, 0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(got.interval[:, 1] - got.interval[:, 0], 0, atol=1e-8)


def test_interval_is_that_of_a_ratio_over_groups(model, pair):
    boxes = np.repeat(np.arange(4), 2)
    got = patch_activation(model, pair[0], pair[1], ["blocks.0.attn.hook_z"], metric=first_output, groups=boxes)
    with torch.no_grad():
        before, after = (first_output(model(x)).numpy() for x in pair)
        known = [attention_of(model, 0, x) for x in pair]
        y = pair[1] + added(model, 0, known[0])
        patched = first_output(y + added(model, 1, attention_of(model, 1, y))).numpy()
    gain, effect = patched - after, before - after
    values = []
    for box in range(4):  # delete one group: the jackknife, which the infinitesimal one approaches
        kept = boxes != box
        values.append(gain[kept].sum() / effect[kept].sum())
    residual = (gain - got.recovered[0] * effect).reshape(4, 2).sum(1) / effect.sum()
    assert got.standard_error[0] == pytest.approx(np.sqrt((residual**2).sum() * 4 / 3))
    assert 0.3 < got.standard_error[0] / (np.std(values) * np.sqrt(3)) < 3
    assert np.diff(got.interval[0])[0] / 2 == pytest.approx(3.182446 * got.standard_error[0], rel=1e-6)


def test_intervals_cover_95_percent_of_samples(generator):
    """150 samples of 40 scenes: four binomial standard errors are 7.1 %."""
    model = initialized(HookedAttention(), generator)
    x = torch.randn(4000, 4, 6, generator=generator, dtype=torch.float64)
    y = x.clone()
    y[:, 3, 0] += 2.0

    def stretched(output: Tensor) -> Tensor:
        return output[:, 0].square().sum(-1)

    def measured(scenes: np.ndarray):
        site = Site("blocks.1.attn.hook_z", (slice(None), 1))
        return patch_activation(model, x[scenes], y[scenes], [site], metric=stretched)

    truth = measured(np.arange(4000)).recovered[0]
    rng = np.random.default_rng(0)
    ends = [measured(rng.integers(0, 4000, 40)).interval[0] for _ in range(150)]
    assert abs(np.mean([low < truth < high for low, high in ends]) - 0.95) < 0.071


def test_a_single_number_has_no_interval(model, pair):
    got = patch_activation(
        model, pair[0], pair[1], ["blocks.0.attn.hook_z"], metric=lambda out: first_output(out).mean()
    )
    assert np.isfinite(got.recovered[0])
    assert np.isnan([got.standard_error[0], *got.interval[0]]).all()


# paths


@torch.no_grad()
def path_written_out(model: Any, clean: Tensor, corrupted: Tensor, sender: int, receiver: int | None) -> Tensor:
    """From head ``sender`` of the first layer to the queries of head ``receiver`` of the second, or to the output."""
    before, still = attention_of(model, 0, clean), attention_of(model, 0, corrupted)
    moved = list(still)
    moved[sender] = before[sender]
    y, y_moved = corrupted + added(model, 0, still), corrupted + added(model, 0, moved)
    z = attention_of(model, 1, y)
    if receiver is None:
        return y_moved + added(model, 1, z)
    z[receiver] = attention_of(model, 1, y, q_from=y_moved)[receiver]
    return y + added(model, 1, z)


class Queries(HookedAttention):
    """With a submodule that returns the queries."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            attn: Any = block.attn
            attn.hook_q = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            attn: Any = block.attn
            q, k, v = (torch.einsum("spd,hde->sphe", x, w) for w in (attn.W_Q, attn.W_K, attn.W_V))
            pattern = attn.hook_pattern(torch.einsum("sqhe,skhe->shqk", attn.hook_q(q), k).softmax(-1))
            x = x + torch.einsum("sqhe,hed->sqd", attn.hook_z(torch.einsum("shqk,skhe->sqhe", pattern, v)), attn.W_O)
        return x


@pytest.mark.parametrize("receiver", [0, 2, None])
def test_paths_match_forward_passes_written_out(generator, pair, receiver):
    model = initialized(Queries(), generator)
    senders = [Site("blocks.0.attn.hook_z", (slice(None), head)) for head in range(3)]
    target = None if receiver is None else Site("blocks.1.attn.hook_q", (slice(None), receiver))
    with left_as_found(model):
        got = patch_path(model, pair[0], pair[1], senders, target, metric=first_output, frozen=["blocks.*.attn.hook_z"])
    with torch.no_grad():
        before, after = (first_output(model(x)) for x in pair)
    for head in range(3):
        want = first_output(path_written_out(model, pair[0], pair[1], head, receiver))
        assert got.recovered[head] == pytest.approx(recovered(want, before, after), abs=1e-11)
    assert np.abs(got.recovered).max() > 1e-3
    assert got.n_forward == 4 + (3 if receiver is None else 6)


def test_direct_paths_to_a_linear_output_add_up(generator, pair):
    """Embedding, heads and MLPs of our model without its last norm: their direct effects are the whole difference."""
    model = ParticleTransformer(ModelConfig(n_layers=2, n_heads=2, d_model=8, d_head=4, d_mlp=8), 6, 4, generator)
    model.ln_final = nn.Identity()  # type: ignore[assignment]
    model.double()
    senders = ["hook_embed"] + [f"blocks.{n}.{part}" for n in range(2) for part in ("attn.hook_z", "hook_mlp_out")]
    with left_as_found(model):
        got = patch_path(model, pair[0], pair[1], senders, metric=first_output)
    assert got.recovered.sum() == pytest.approx(1.0, abs=1e-10)
    free = patch_path(model, pair[0], pair[1], senders, metric=first_output, frozen=["blocks.*.attn.hook_z"])
    assert np.abs(free.recovered - got.recovered).max() > 1e-6  # MLPs pass the signal on


def test_a_receiver_among_the_frozen_is_free_to_receive(generator, pair):
    """The z of a head of the second layer, which reads the sender through queries, keys and values."""
    model: Any = initialized(HookedAttention(), generator)
    sender = Site("blocks.0.attn.hook_z", (slice(None), 1))
    receiver = Site("blocks.1.attn.hook_z", (slice(None), 2))
    got = patch_path(model, pair[0], pair[1], [sender], receiver, metric=first_output, frozen=["blocks.*.attn.hook_z"])
    with torch.no_grad():
        before, after = (first_output(model(x)) for x in pair)
        moved = attention_of(model, 0, pair[1])
        y = pair[1] + added(model, 0, moved)
        moved[1] = attention_of(model, 0, pair[0])[1]
        z = attention_of(model, 1, y)
        z[2] = attention_of(model, 1, pair[1] + added(model, 0, moved))[2]
        want = first_output(y + added(model, 1, z))
    assert got.recovered[0] == pytest.approx(recovered(want, before, after), abs=1e-11)
    assert abs(got.recovered[0]) > 1e-4


# refusals


def test_bad_input_is_refused(model, pair):
    patch = unchecked(patch_activation)
    z = ["blocks.0.attn.hook_z"]
    with left_as_found(model):
        with pytest.raises(TypeError, match="sites must be a sequence of names or sites, got the string"):
            patch(model, pair[0], pair[1], z[0], metric=first_output)
        with pytest.raises(ValueError, match="sites is empty"):
            patch(model, pair[0], pair[1], [], metric=first_output)
        with pytest.raises(ValueError, match=r"no submodule 'blocks.7.attn.hook_z'; alike: blocks.0.attn.hook_z"):
            patch(model, pair[0], pair[1], ["blocks.7.attn.hook_z"], metric=first_output)
        with pytest.raises(ValueError, match=r"one number a scene, or a scalar; got \(8, 5\)"):
            patch(model, pair[0], pair[1], z, metric=lambda out: out[..., 0])
        with pytest.raises(ValueError, match="got float"):
            patch(model, pair[0], pair[1], z, metric=lambda out: 1.0)
        with pytest.raises(ValueError, match="metric must be finite, got nan at scene 0"):
            patch(model, pair[0], pair[1], z, metric=lambda out: first_output(out) * torch.nan)
        with pytest.raises(ValueError, match=r"tell clean from corrupted, its mean is .* on both"):
            patch(model, pair[0], pair[0], z, metric=first_output)
        with pytest.raises(ValueError, match=r"returns shape \(8, 5, 3, 2\) on the one input and \(6, 5, 3, 2\)"):
            patch(model, pair[0], pair[1][:6], z, metric=first_output)
        with pytest.raises(
            ValueError, match=r"site blocks.0.attn.hook_z\[:, :, 3\] lies outside the shape \(8, 5, 3, 2\)"
        ):
            patch(model, pair[0], pair[1], [Site(z[0], (slice(None), 3))], metric=first_output)
        with pytest.raises(ValueError, match=r"no submodule 'blocks.\*.hook_mlp_out'"):
            unchecked(patch_path)(model, pair[0], pair[1], z, metric=first_output)
        with pytest.raises(ValueError, match="groups must label each of the 8 scenes, got 2 labels"):
            patch(model, pair[0], pair[1], z, metric=first_output, groups=np.arange(2))

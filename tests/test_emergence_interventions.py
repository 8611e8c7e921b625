"""Methods at work on the particle transformer: how each begins, what is trained, and what probes are given of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from micro_study import MODEL, contents, few_transitions, micro, short_training
from scipy import stats

from emergence.checkpoints import Checkpoints
from emergence.config import AnyIntervention
from emergence.data import prediction_loss
from emergence.interventions import next_layer_attention, weight_manifold
from emergence.interventions.begin import begin, initial_model, measured_model
from emergence.interventions.settings import NextLayerAttention, Plain, Spatial, Structured, WeightManifold
from emergence.interventions.weight_manifold.steered import SteeredTransformer, colder_share, plain_at, steer
from emergence.model import ParticleTransformer, head_masks
from emergence.run import config_from_dict, config_to_dict
from emergence.training import train
from simulators import HardSpheres

METHODS = [kind() for kind in get_args(AnyIntervention)]
DISCS = HardSpheres(n_particles=5)


@pytest.fixture(scope="module")
def scenes():
    return few_transitions()


def begun(settings: AnyIntervention, seed: int = 3) -> torch.nn.Module:
    return initial_model(settings, MODEL, DISCS, seed=seed)


def moved(model: torch.nn.Module, seed: int = 5, size: float = 0.1) -> Any:
    """The model with every weight moved a little, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += size * torch.randn(p.shape, generator=generator)
    return model


def true_gradient(model: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(prediction_loss(model, batch), parameters), strict=True))


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: type(s).__name__)
def test_every_method_trains_and_is_measured_by_the_loss_it_has(settings, scenes, tmp_path):
    """A trained model's loss falls, and what probes are given has the same loss and a gradient that lowers it."""
    config = short_training()
    checkpoints = Checkpoints(tmp_path, lambda: begun(settings), lambda model: measured_model(settings, model))
    model = checkpoints.make_model()
    before = prediction_loss(model, scenes.batch).item()
    train(model, scenes, config, seed=0, checkpoints=checkpoints, intervention=begin(settings, model, config.n_steps))
    after = prediction_loss(model, scenes.batch).item()
    assert after < 0.9 * before
    measured: Any = checkpoints.load(config.n_steps)
    assert prediction_loss(measured, scenes.batch).item() == pytest.approx(after, rel=1e-6)
    gradient = true_gradient(measured, scenes.batch)
    size = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
    step = 1e-3 / size
    with torch.no_grad():
        for name, p in measured.named_parameters():
            p -= step * gradient[name]
    fallen = after - prediction_loss(measured, scenes.batch).item()
    assert fallen == pytest.approx(step * size**2, rel=0.1)  # first order


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: type(s).__name__)
def test_settings_survive_their_file(settings):
    config = micro(intervention=settings)
    assert config_from_dict(config_to_dict(config), "here") == config


@pytest.mark.parametrize("settings", [Spatial(), WeightManifold(), WeightManifold("spline"), NextLayerAttention()])
def test_methods_that_change_no_start_begin_as_plain_training_does(settings, scenes):
    plain, model = begun(Plain()), begun(settings)
    torch.testing.assert_close(model(scenes.batch.features), plain(scenes.batch.features), rtol=1e-5, atol=1e-6)
    assert isinstance(plain, ParticleTransformer)
    assert isinstance(model, ParticleTransformer)
    assert set(model.hook_dict) == set(plain.hook_dict)


def test_probes_of_next_layer_attention_are_given_the_plain_model(scenes):
    settings = NextLayerAttention("direct_feedback_alignment")
    model = moved(begun(settings))
    measured = measured_model(settings, model)
    assert next_layer_attention.is_converted(model)
    assert type(measured) is ParticleTransformer
    plain = ParticleTransformer(MODEL, 6, 4)
    plain.load_state_dict(measured.state_dict())
    expected = true_gradient(plain, scenes.batch)
    for name, g in true_gradient(measured, scenes.batch).items():
        torch.testing.assert_close(g, expected[name], rtol=0, atol=0)
    assert any((g != expected[name]).any() for name, g in true_gradient(model, scenes.batch).items())


def test_lost_messages_are_lost_again_after_a_stop(tmp_path, scenes):
    settings, config = NextLayerAttention("absolute", drop=0.3), short_training()

    def trained(folder: Any, n_steps: int) -> None:
        checkpoints = Checkpoints(folder, lambda: begun(settings))
        model = checkpoints.make_model()

        def stop(step: int) -> None:
            if step == n_steps:
                raise KeyboardInterrupt

        method = begin(settings, model, config.n_steps)
        train(model, scenes, config, seed=0, checkpoints=checkpoints, intervention=method, on_step=stop)

    trained(tmp_path / "unbroken", -1)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", 40)
    trained(tmp_path / "stopped", -1)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "unbroken")


@pytest.mark.parametrize(("n_particles", "dim"), [(1, 2), (10, 2), (7, 3)])
def test_the_share_of_colder_scenes_is_chi_squared(n_particles, dim):
    velocities = torch.randn(4000, n_particles, dim, generator=torch.Generator().manual_seed(0))
    share = colder_share(velocities)
    squares = velocities.double().square().sum((1, 2))
    expected = torch.from_numpy(stats.chi2(n_particles * dim).cdf(squares.numpy()))
    torch.testing.assert_close(share.double(), expected, rtol=0, atol=1e-5)
    assert stats.kstest(share.double().numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("manifold", ["line", "spline"])
def test_a_steered_transformer_is_the_plain_one_at_each_scenes_context(manifold, scenes):
    """Against the loop over scenes, each by the ordinary model at its context, and against being told the context."""
    plain = ParticleTransformer(MODEL, 6, 4, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    model = moved(steer(plain, ("blocks.*.attn", "blocks.*.mlp"), manifold, dim=2, generator=generator))
    features = scenes.batch.features[:7]
    contexts = colder_share(features[..., 2:4])
    assert contexts.max() - contexts.min() > 0.2
    outputs = model(features)
    told = weight_manifold.ManifoldModel(copy.deepcopy(model), model.manifold)
    told.model.__class__ = ParticleTransformer
    torch.testing.assert_close(told(features, contexts), outputs)
    for row, context, expected in zip(features, contexts, outputs, strict=True):
        point = plain_at(model, float(context))
        assert type(point) is ParticleTransformer
        assert point.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(point(row[None])[0], expected, rtol=1e-4, atol=1e-5)


def test_steering_reads_velocities_and_nothing_else(scenes):
    model = begun(WeightManifold())
    assert isinstance(model, SteeredTransformer)
    assert model.velocities == slice(2, 4)
    in_space = initial_model(
        WeightManifold(), MODEL, HardSpheres(dim=3, n_particles=5, box=(1.0,) * 3, gravity=(0.0,) * 3), seed=0
    )
    assert isinstance(in_space, SteeredTransformer)
    assert in_space.velocities == slice(3, 6)


def test_a_head_on_a_manifold_is_its_slices_at_every_point():
    model = begun(WeightManifold("spline"))
    assert isinstance(model, SteeredTransformer)
    n_points = model.manifold.n_points
    masks, plain = head_masks(model), head_masks(ParticleTransformer(MODEL, 6, 4))
    assert masks.keys() == plain.keys()
    parameters = dict(model.named_parameters())
    for place, of_head in masks.items():
        for name, mask in of_head.items():
            assert mask.shape == parameters[name].shape
            assert mask.sum() == n_points * plain[place][name].sum()
            assert mask[:, place[1]].all()


def test_the_metric_may_be_left_out(scenes):
    """With it the gradients of the points are others; without it they are the loss's."""
    for settings, is_changed in ((WeightManifold(), True), (WeightManifold(metric=False), False)):
        model = moved(begun(settings))
        prediction_loss(model, scenes.batch).backward()
        expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        begin(settings, model, 10).after_backward(1)
        differs = any((p.grad != expected[name]).any() for name, p in model.named_parameters() if p.grad is not None)
        assert differs == is_changed


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (WeightManifold, {"manifold": "torus"}, "weight_manifold.manifold must be line or spline, got 'torus'"),
        (WeightManifold, {"layers": ()}, "weight_manifold.layers is empty"),
        (NextLayerAttention, {"attention": "squred"}, "must be one of squared, absolute"),
        (NextLayerAttention, {"drop": 1.0}, "drop must be at least 0 and below 1, got 1.0"),
        (NextLayerAttention, {"layers": ()}, "next_layer_attention.layers is empty"),
        (Structured, {"layers": ()}, "structured.layers is empty"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_that_make_no_sense_are_refused(kind, wrong, said):
    with pytest.raises(ValueError, match=said):
        kind(**wrong)


def test_names_of_attention_are_those_of_the_method():
    known = {*next_layer_attention.ATTENTIONS, *next_layer_attention.FEEDBACKS}
    assert {replace(NextLayerAttention(), attention=name).attention for name in known} == known

"""The next-layer rule: backpropagation where attention is squared, passes written by hand where it is not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusals import assert_refused
from torch import nn

import emergence.model
from emergence.config import ModelConfig
from emergence.interventions import next_layer_attention, structured
from emergence.interventions.next_layer_attention import (
    ATTENTIONS,
    FEEDBACKS,
    Absolute,
    Competitive,
    DirectFeedbackAlignment,
    Elementwise,
    Normalised,
    Power,
    Squared,
)
from emergence.model import ParticleTransformer
from emergence.perceptron import Perceptron
from probes import estimate_llc, top_eigenvalues

RULES = [*ATTENTIONS, *FEEDBACKS]
SOUGHT: dict[str, Any] = {
    "absolute": Absolute(), "power 1": Power(1.0), "power 1.5": Power(), "power 3": Power(3.0),
    "normalised": Normalised(), "competitive": Competitive(), "hot": Competitive(10.0),
    "a function": lambda w: (w**2 + 0.01).sqrt(), "squared": Squared(),
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in double precision, every weight of size 1/sqrt(fan in)."""
    for i, p in enumerate(model.double().parameters()):
        p.data = normal(*p.shape, seed=seed + i) / math.sqrt(max(1, p[0].numel()) if p.dim() > 1 else 10)
    return model


def tanh_stack(*widths: int) -> nn.Module:
    return drawn(Perceptron(widths, seeded(), activation=nn.Tanh))


def particles(explicit: bool) -> nn.Module:
    return drawn(ParticleTransformer(ModelConfig(2, 2, 8, 4, 12), 6, 4, seeded()).use_explicit_attention(explicit))


def models() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """A model of every kind of layer, and an input."""
    series, image, volume = normal(5, 4, 9, seed=4), normal(5, 4, 7, 6, seed=4), normal(5, 2, 5, 4, 4, seed=4)
    two = nn.Conv2d(4, 6, 3, groups=2, padding=(1, 0), stride=(1, 2))
    nets: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "linear in the middle": (
            nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)), normal(5, 2, 3, 6, seed=4),
        ),
        "one example": (nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), normal(6, seed=4)),
        "conv1d": (nn.Sequential(nn.Conv1d(4, 3, 3, stride=2), nn.Tanh(), nn.Conv1d(3, 2, 2)), series),
        "conv1d of one example": (nn.Sequential(nn.Conv1d(4, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 2)), series[0]),
        "conv2d": (
            nn.Sequential(two, nn.Tanh(), nn.Conv2d(6, 2, 2, bias=False), nn.Flatten(), nn.Linear(12, 3)), image,
        ),
        "padded": (
            nn.Sequential(
                nn.Conv2d(4, 3, (4, 3), padding="same", dilation=(1, 2)), nn.Tanh(),
                nn.Conv2d(3, 3, 3, padding="same"), nn.Tanh(),
                nn.Conv2d(3, 3, 3, padding=(1, 2), padding_mode="circular"), nn.Tanh(),
                nn.Conv2d(3, 2, (3, 2), padding="same", padding_mode="reflect"),
            ), image,
        ),
        "conv3d": (nn.Sequential(nn.Conv3d(2, 3, 2, dilation=2), nn.Tanh(), nn.Conv3d(3, 2, 1)), volume),
    }  # fmt: skip
    return {
        "perceptron": (tanh_stack(6, 8, 7, 4), normal(5, 6, seed=4)),
        **{name: (drawn(model), x) for name, (model, x) in nets.items()},
        "particles": (particles(False), normal(5, 3, 6, seed=4)),
        "particles, explicit": (particles(True), normal(5, 3, 6, seed=4)),
    }


KINDS = list(models())
DIRECT_KINDS = ["perceptron", "linear in the middle", "conv2d", "particles"]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own


def converted(kind: str, attention: Any = "absolute", seed: int = 9, **options: Any) -> tuple[Any, torch.Tensor]:
    model, x = models()[kind]
    return next_layer_attention.convert(model, "*", attention, generator=seeded(seed), **options), x


def gradients(model: nn.Module, x: torch.Tensor, push: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Of a weighted sum of squared outputs."""
    outputs = model(x)
    push = normal(*outputs.shape, seed=7).to(outputs) if push is None else push
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((push * outputs + outputs.square()).sum(), parameters)
    return dict(zip(names, found, strict=True))


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Apart by no more than a share of each gradient's norm, or of 1 % of all where it is smaller (b_K's is zero)."""
    assert found.keys() == expected.keys()
    least = 0.01 * torch.stack([truth.norm() for truth in expected.values()]).norm()
    for name, truth in expected.items():
        apart = (found[name] - truth).norm() / truth.norm().clamp(min=least)
        assert apart <= tolerance, f"{name}: {apart:.3g}"


def test_near_means_near():
    truth = {"w": torch.ones(4)}
    with pytest.raises(AssertionError, match="w: 0.001"):
        assert_near({"w": torch.full((4,), 1.001)}, truth, 1e-4)
    with pytest.raises(AssertionError):
        assert_near({}, truth, 1.0)


@pytest.mark.parametrize("attention", ["squared", "backpropagation", Power(2.0), lambda w: w**2 / 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", KINDS)
def test_squared_attention_is_backpropagation(kind, dtype, tolerance, attention):
    model, x = models()[kind]
    model, x = model.to(dtype), x.to(dtype)
    m = next_layer_attention.convert(model, "*", attention)
    push = normal(*model(x).shape, seed=7).to(dtype)
    assert_near(gradients(m, x, push), gradients(model, x, push), tolerance)


def paid_by_hand(name: str, w: np.ndarray) -> np.ndarray:
    """Attention as its definition says, sums written out; listeners are rows."""
    paid = np.zeros_like(w)
    for j, i in np.ndindex(*w.shape):
        size = abs(w[j, i])
        match name.split():
            case ["absolute"]:
                paid[j, i] = size
            case ["power", p]:
                paid[j, i] = size ** float(p) / float(p)
            case ["normalised"]:
                paid[j, i] = size**2 / sum(w[j, k] ** 2 for k in range(w.shape[1]))
            case ["competitive" | "hot" as how]:
                t = 0.1 if how == "competitive" else 10.0
                paid[j, i] = math.exp(size / t) / sum(math.exp(abs(w[j, k]) / t) for k in range(w.shape[1]))
            case ["a", "function"]:
                paid[j, i] = math.sqrt(size**2 + 0.01)
            case ["squared"]:
                paid[j, i] = size**2 / 2
    return paid


def derivative_by_hand(name: str, w: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Of each neuron's own attention by its own weight: central differences."""
    found = np.zeros_like(w)
    for j, i in np.ndindex(*w.shape):
        ends = []
        for sign in (1, -1):
            moved = w.copy()
            moved[j, i] += sign * step
            ends.append(paid_by_hand(name, moved)[j, i])
        found[j, i] = (ends[0] - ends[1]) / (2 * step)
    return found


def backward_by_hand(model: nn.Module, x: torch.Tensor, back: list[Callable[[np.ndarray, np.ndarray], np.ndarray]]):
    """Gradients of the sum of half squared outputs of a tanh stack, neuron by neuron.

    ``back[l]`` gives the signals at the activities that layer l hears, of the signals of layer l and the output's.
    """
    layers = [(f"linear{i}", model.get_submodule(f"linear{i}")) for i in range(len(back))]
    weights = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for _, layer in layers]  # type: ignore[reportAttributeAccessIssue]
    heard = [x.numpy()]
    for w, b in weights:
        z = heard[-1] @ w.T + b
        heard.append(z if len(heard) == len(weights) else np.tanh(z))
    d = error = heard[-1]
    found = {}
    for index in reversed(range(len(weights))):
        w, _ = weights[index]
        gradient = np.zeros_like(w)
        for j, i in np.ndindex(*w.shape):
            gradient[j, i] = sum(d[b, j] * heard[index][b, i] for b in range(len(x)))
        found[f"{layers[index][0]}.weight"] = torch.from_numpy(gradient)
        found[f"{layers[index][0]}.bias"] = torch.from_numpy(d.sum(0))
        d = back[index](d, error) * (1 - heard[index] ** 2)
    return found


def half_square(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (model(x).square().sum() / 2).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("match_norm", [True, False])
@pytest.mark.parametrize("name", SOUGHT)
def test_gradients_are_those_of_a_pass_by_hand(name, match_norm):
    model, x = models()["perceptron"]
    m = next_layer_attention.convert(model, "linear*", SOUGHT[name], match_norm=match_norm)

    def back(layer: str):
        w = model.get_parameter(f"{layer}.weight").detach().numpy()
        matrix = derivative_by_hand(name, w)
        scale = math.sqrt((w**2).sum() / (matrix**2).sum()) if match_norm else 1.0
        return lambda d, _: np.array([[sum(row * column) for column in matrix.T] for row in d]) * scale

    expected = backward_by_hand(model, x, [back(f"linear{i}") for i in range(3)])
    assert_near(half_square(m, x), dict(sorted(expected.items())), 1e-7)


def test_feedback_alignment_is_that_of_a_pass_by_hand():
    m, x = converted("perceptron", "feedback_alignment")
    random = [m.get_submodule(f"linear{i}").feedback_weight.numpy() for i in range(3)]
    expected = backward_by_hand(m, x, [lambda d, _, b=b: d @ b for b in random])
    assert_near(half_square(m, x), expected, 1e-12)


def test_direct_feedback_alignment_is_that_of_a_pass_by_hand():
    m, x = converted("perceptron", "direct_feedback_alignment")
    random = [m.get_submodule(f"linear{i}").feedback_weight.numpy() for i in range(3)]
    assert [b.shape for b in random] == [(4, 6), (4, 8), (4, 7)]
    expected = backward_by_hand(m, x, [lambda _, error, b=b: error @ b for b in random])
    assert_near(half_square(m, x), expected, 1e-12)


def test_random_feedback_has_the_size_it_says():
    wide = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 300))
    m: Any = next_layer_attention.convert(wide, "*", "feedback_alignment", generator=seeded())
    for layer, plain in zip(m, wide, strict=True):  # 2e4 draws and more: 3 % is six standard errors
        size = plain.weight.square().mean().sqrt().item()  # type: ignore[reportCallIssue]
        assert float(layer.feedback_weight.square().mean().sqrt()) == pytest.approx(size, rel=0.03)
    m = next_layer_attention.convert(wide, "*", "direct_feedback_alignment", generator=seeded())
    for layer in m:
        error = normal(50, 300).float()
        assert float((error @ layer.feedback_weight).norm() / error.norm()) == pytest.approx(1, rel=0.03)
    nn.init.zeros_(wide[1].weight)  # type: ignore[reportArgumentType]
    m = next_layer_attention.convert(wide, "*", "feedback_alignment", generator=seeded())
    assert float(m[1].feedback_weight.square().mean().sqrt()) == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("attention", ["absolute", "competitive", "feedback_alignment"])
@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "padded", "conv3d", "linear in the middle"])
def test_signals_pass_a_layer_as_if_its_weights_were_the_matrix(kind, attention):
    m, x = converted(kind, attention)
    for layer in m:
        if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            x = layer(x).detach()
            continue
        plain: Any = copy.deepcopy(next_layer_attention.export(layer))
        w = layer.weight.detach()
        if attention == "feedback_alignment":
            matrix: Any = layer.feedback_weight
        elif attention == "absolute":
            matrix = w.sign() * w.norm() / w.sign().norm()
        else:
            share = (10 * w.abs()).flatten(1).softmax(1).view_as(w)
            matrix = w.sign() * share * (1 - share)
            matrix = matrix * w.norm() / matrix.norm()
        plain.weight.data = matrix
        free, same = x.clone().requires_grad_(), x.clone().requires_grad_()
        outputs: Any = layer(free)
        push = normal(*outputs.shape, seed=3)
        outputs.backward(push)
        plain(same).backward(push)
        torch.testing.assert_close(free.grad, same.grad)
        x = outputs.detach()


@pytest.mark.parametrize("explicit", [False, True])
def test_particles_that_seek_attention(explicit, monkeypatch):
    """Against the plain model whose every product takes its gradient by x from a product with other weights."""
    model, x = particles(explicit), normal(5, 3, 6, seed=4)
    m = next_layer_attention.convert(model, "*", "absolute")
    found = gradients(m, x)
    plain = F.linear

    def sending_signs(x, weight, bias=None):
        signs = (weight.sign() * weight.norm() / weight.sign().norm()).detach()
        zero = plain(x, signs)
        return plain(x.detach(), weight, bias) + zero - zero.detach()

    monkeypatch.setattr(emergence.model.F, "linear", sending_signs)
    assert_near(found, gradients(model, x), 1e-12)


@pytest.mark.parametrize("kind", ["linear in the middle", "conv2d", "particles"])
def test_direct_feedback_reaches_positions_and_channels(kind):
    """The gradient at what a layer hears is ``e B``, alike at each place where the output has none."""
    m, x = converted(kind, "direct_feedback_alignment")
    seen: dict[str, torch.Tensor] = {}
    layer = {"linear in the middle": "2", "conv2d": "2", "particles": "blocks.1.mlp"}[kind]

    def listen(module: Any, inputs: Any) -> None:
        inputs[0].register_hook(lambda gradient: seen.__setitem__(layer, gradient))

    m.get_submodule(layer).register_forward_pre_hook(listen)
    outputs = m(x)
    push = normal(*outputs.shape, seed=7)
    outputs.backward(push)
    name = "feedback_W_in" if kind == "particles" else "feedback_weight"
    projected = push @ m.get_submodule(layer).get_buffer(name)
    expected = projected[:, :, None, None].expand_as(seen[layer]) if kind == "conv2d" else projected
    torch.testing.assert_close(seen[layer], expected)


def test_absolute_attention_points_near_the_gradient_but_not_along_it():
    model, x = tanh_stack(20, 64, 64, 64, 5), normal(128, 20, seed=1)
    m = next_layer_attention.convert(model, "*", "absolute")
    cosines = next_layer_attention.alignment(m, x, lambda m, x: (m(x) - 1).square().mean())
    assert list(cosines) == [name for name, _ in model.named_parameters()]
    hidden = [cosines[f"linear{i}.weight"] for i in range(3)]
    assert all(0.2 < value < 0.98 for value in hidden)
    assert cosines["linear3.weight"] == pytest.approx(1, abs=1e-12)  # the output's error is the true one


def test_signs_are_the_same_under_both_their_names():
    model, x = models()["perceptron"]
    both = [next_layer_attention.convert(model, "*", name) for name in ("absolute", "sign_symmetric")]
    assert_near(gradients(both[0], x), gradients(both[1], x), 0.0)


@pytest.mark.parametrize("name", SOUGHT)
def test_a_neuron_that_follows_its_signal_is_heard_more(name):
    """A_i after the listeners' step, as a function of a_i alone: its slope is minus rate times the signal."""
    model, _ = models()["perceptron"]
    layer: Any = next_layer_attention.convert(model.get_submodule("linear1"), "*", SOUGHT[name], match_norm=False)
    activity, rate, change = normal(8, seed=2).requires_grad_(), 1e-6, 1.0
    layer(activity).backward(d := normal(7, seed=3))
    signal: Any = activity.grad
    w = layer.weight.detach()

    def received(i: int, a_i: float) -> float:
        a = activity.detach().clone()
        a[i] = a_i
        return next_layer_attention.attention_received(w - rate * torch.outer(d, a), SOUGHT[name])[i].item()

    for i in range(8):
        a_i = activity[i].item()
        risen = received(i, a_i - change * signal[i].sign().item()) - received(i, a_i)
        assert risen > 0
        assert risen == pytest.approx(rate * change * abs(signal[i].item()), rel=1e-2)  # second order is 1e-6 / |w|


@pytest.mark.parametrize("match_norm", [True, False])
@pytest.mark.parametrize("name", SOUGHT)
def test_a_neuron_reads_its_signal_off_its_listeners(name, match_norm):
    """Signal at each hidden layer's activities: of the rule, and from the weights' own change on one example."""
    model, x = models()["perceptron"]
    m = next_layer_attention.convert(model, "*", SOUGHT[name], match_norm=match_norm)
    heard: dict[int, torch.Tensor] = {}
    for i in (1, 2):
        hook = lambda _, inputs, i=i: (inputs[0].retain_grad(), heard.__setitem__(i, inputs[0]))[-1]  # noqa: E731
        m.get_submodule(f"linear{i}").register_forward_pre_hook(hook)
    before, rate = copy.deepcopy(m.state_dict()), 0.01
    m(x[:1]).square().sum().backward()
    torch.optim.SGD(m.parameters(), rate).step()
    for i, activity in heard.items():
        weights = before[f"linear{i}.weight"], m.state_dict()[f"linear{i}.weight"]
        found = next_layer_attention.local_signal(*weights, activity[0], rate, SOUGHT[name], match_norm=match_norm)
        truth: Any = activity.grad
        assert (found - truth[0]).norm() <= 1e-6 * truth.norm()


def test_silent_units_cannot_tell_unless_asked_to_rest():
    w, activity = normal(3, 4), torch.tensor([0.0, 1.0, 1e-9, -2.0]).double()
    after = w - 0.1 * torch.outer(normal(3, seed=1), activity)
    found = next_layer_attention.local_signal(w, after, activity, 0.1)
    assert found.isnan().tolist() == [True, False, True, False]
    resting = next_layer_attention.local_signal(w, after, activity, 0.1, silent=0.0)
    assert torch.equal(resting, found.nan_to_num(0.0))
    assert next_layer_attention.local_signal(w, w, torch.zeros(4).double(), 0.1).isnan().all()
    torch.testing.assert_close(found[1::2], (normal(3, seed=1) @ w)[1::2])


EVERY_MIX = [(kind, rule) for rule in RULES for kind in KINDS if rule != "direct_feedback_alignment"]
EVERY_MIX += [(kind, "direct_feedback_alignment") for kind in DIRECT_KINDS]


@pytest.mark.parametrize(("kind", "rule"), EVERY_MIX)
def test_forwards_nothing_changes_and_the_given_model_is_left(kind, rule):
    model, x = models()[kind]
    before, outputs, state = copy.deepcopy(model.state_dict()), model(x), torch.random.get_rng_state()
    m = next_layer_attention.convert(model.eval(), "*", rule, generator=seeded(), drop=0.1)
    assert torch.equal(m(x), outputs)
    with torch.no_grad():
        assert torch.equal(m(x), outputs)
    gradients(m, x)
    m(x).sum().backward()
    own = copy.deepcopy(m.state_dict())
    plain = next_layer_attention.export(m)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, own[key]) for key, value in m.state_dict().items())
    assert [key for key in own if "feedback_" not in key] == list(before) == list(plain.state_dict())
    assert any("feedback_" in key for key in own) == rule.endswith("_alignment")
    assert all(p.grad is None for p in model.parameters())
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    pairs = zip(plain.modules(), model.modules(), strict=True)
    assert not any(vars(module).keys() ^ vars(other).keys() for module, other in pairs)
    assert not plain._forward_hooks
    assert torch.equal(plain(x), outputs)
    assert not any(module.training for module in (*model.modules(), *m.modules(), *plain.modules()))
    assert next_layer_attention.is_converted(m)
    assert not next_layer_attention.is_converted(plain)
    assert_near(gradients(plain, x), gradients(model, x), 0.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["perceptron", "conv2d", "particles"])
def test_copies_and_reloading_keep_the_rule(kind, rule):
    m, x = converted(kind, rule)
    truth = gradients(m, x)
    assert_near(gradients(copy.deepcopy(m), x), truth, 0.0)
    fresh, _ = converted(kind, rule, seed=10)
    if rule.endswith("_alignment"):
        with pytest.raises(AssertionError):
            assert_near(gradients(fresh, x), truth, 1e-3)
    fresh.load_state_dict(m.state_dict())
    assert_near(gradients(fresh, x), truth, 0.0)
    assert_near(gradients(copy.deepcopy(fresh).float(), x.float()), {k: v.float() for k, v in truth.items()}, 1e-4)


@pytest.mark.parametrize("kind", ["perceptron", "particles"])
def test_two_passes_before_backward_keep_their_own_errors(kind):
    m, x = converted(kind, "direct_feedback_alignment")
    fewer = 2 * x[:3]
    apart = [gradients(m, x), gradients(m, fewer)]
    names, parameters = zip(*m.named_parameters(), strict=True)
    first, second = m(x), m(fewer)
    for outputs, truth in ((second, apart[1]), (first, apart[0])):
        push = normal(*outputs.shape, seed=7)
        found = torch.autograd.grad((push * outputs + outputs.square()).sum(), parameters)
        assert_near(dict(zip(names, found, strict=True)), truth, 0.0)
    passes = m(x), m(fewer)
    together = sum((normal(*y.shape, seed=7) * y + y.square()).sum() for y in passes)
    assert isinstance(together, torch.Tensor)
    found = torch.autograd.grad(together, parameters)
    both = {name: apart[0][name] + apart[1][name] for name in names}
    assert_near(dict(zip(names, found, strict=True)), both, 1e-12)


def test_layers_may_follow_different_rules():
    model, x = models()["perceptron"]
    mixed = next_layer_attention.convert(model, "linear1", "absolute")
    mixed = next_layer_attention.convert(mixed, "linear2", Power(3.0))
    w = [model.get_parameter(f"linear{i}.weight").detach().numpy() for i in range(3)]
    matrices = [w[0], np.sign(w[1]), np.sign(w[2]) * w[2] ** 2]
    scaled = [m * np.sqrt((v**2).sum() / (m**2).sum()) for m, v in zip(matrices, w, strict=True)]
    back = [lambda d, _, m=m: d @ m for m in scaled]
    assert_near(half_square(mixed, x), backward_by_hand(model, x, back), 1e-12)
    alone = next_layer_attention.convert(model, "linear0", "absolute")
    assert_near(half_square(alone, x), half_square(model, x), 1e-12)  # nothing before it learns


def test_parameters_and_inputs_get_gradients_only_where_asked():
    m, x = converted("perceptron")
    m.linear1.weight.requires_grad_(False)
    m.linear2.bias.requires_grad_(False)
    truth = gradients(converted("perceptron")[0], x)
    push = normal(5, 4, seed=7)
    x.requires_grad_()
    outputs = m(x)
    (push * outputs + outputs.square()).sum().backward()
    assert m.linear1.weight.grad is m.linear2.bias.grad is None
    torch.testing.assert_close(m.linear0.weight.grad, truth["linear0.weight"])
    torch.testing.assert_close(m.linear2.weight.grad, truth["linear2.weight"])
    assert x.grad is not None


P_LOST, N_DRAWN = 0.3, 40_000


def test_lost_messages_leave_the_mean_as_it_is():
    """40 000 examples alike: the mean signal is the whole one within 4 standard errors, which are 0.5 % of it."""
    layer = drawn(nn.Linear(6, 4))
    d, matrix = normal(4, seed=3), layer.get_parameter("weight").detach().sign()
    m: Any = next_layer_attention.convert(layer, "*", "absolute", match_norm=False, drop=P_LOST, generator=seeded())
    x = normal(1, 6).expand(N_DRAWN, 6).clone().requires_grad_()
    m(x).backward(d.expand(N_DRAWN, 4))
    signals: Any = x.grad
    error = (P_LOST / (1 - P_LOST) * (d[:, None] * matrix).square().sum(0) / N_DRAWN).sqrt()
    assert float(error.norm() / (d @ matrix).norm()) < 0.007
    assert ((signals.mean(0) - d @ matrix).abs() < 4 * error).all()
    torch.testing.assert_close(signals.std(0), error * N_DRAWN**0.5, rtol=0.03, atol=0)
    # what a neuron's own weights are told is never lost
    torch.testing.assert_close(m.weight.grad, torch.outer(d, x.detach()[0]) * N_DRAWN)
    torch.testing.assert_close(m.bias.grad, d * N_DRAWN)


def test_a_message_is_lost_to_all_that_would_hear_it_and_drawn_anew():
    m: Any = next_layer_attention.convert(drawn(nn.Linear(5, 1)), "*", drop=P_LOST, generator=seeded())
    x = normal(N_DRAWN, 5).requires_grad_()
    lost = []
    for _ in range(2):
        x.grad = None
        m(x).sum().backward()
        arrived: Any = x.grad / m.weight.detach()
        assert torch.equal(arrived.isclose(arrived[:, :1]), torch.ones_like(arrived).bool())
        is_lost = arrived[:, 0] == 0
        torch.testing.assert_close(arrived[~is_lost], torch.full_like(arrived[~is_lost], 1 / (1 - P_LOST)))
        error = math.sqrt(P_LOST * (1 - P_LOST) / N_DRAWN)
        assert abs(float(is_lost.double().mean()) - P_LOST) < 4 * error
        lost.append(is_lost)
    both = float((lost[0] & lost[1]).double().mean())  # independent
    assert abs(both - P_LOST**2) < 4 * math.sqrt(P_LOST**2 / N_DRAWN)


@pytest.mark.parametrize("rule", ["squared", "direct_feedback_alignment"])
def test_what_is_lost_follows_from_the_generator(rule):
    first, x = converted("perceptron", rule, drop=0.5)
    same = copy.deepcopy(first)
    found = gradients(first, x)
    assert_near(gradients(same, x), found, 0.0)
    with pytest.raises(AssertionError):
        assert_near(gradients(first, x), found, 1e-3)
    before = [gradients(copy.deepcopy(first), x)]
    next_layer_attention.alignment(first, x, lambda m, x: m(x).square().mean())
    assert_near(gradients(first, x), before[0], 0.0)


def teacher_data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(64, 6, generator=seeded(100 + seed), dtype=torch.float64).float()
    teacher = Perceptron([6, 10, 3], seeded(200 + seed), activation=nn.Tanh)
    return x, 3 * teacher(x).detach()


def trained(rule: Any, seed: int, n_steps: int = 200, **options: Any) -> tuple[list[float], nn.Module]:
    """Losses of Adam on a small problem of regression."""
    model = Perceptron([6, 24, 24, 24, 3], seeded(seed), activation=nn.Tanh)
    m = next_layer_attention.convert(model, "*", rule, generator=seeded(seed), **options)
    optimizer, (x, y), losses = torch.optim.Adam(m.parameters(), 0.005), teacher_data(seed), []
    for _ in range(n_steps):
        loss = (m(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, m


@pytest.mark.parametrize("rule", [*RULES, lambda w: (w**2 + 1e-4).sqrt()])
def test_every_rule_learns(rule):
    losses, _ = trained(rule, 0)
    assert losses[-1] < (0.06 if str(rule).endswith("_alignment") else 0.01) * losses[0]


def test_learning_survives_lost_messages():
    losses, _ = trained("absolute", 0, drop=0.3)
    assert losses[-1] < 0.02 * losses[0]


def test_weights_align_with_random_feedback():
    """Eight seeds: the cosine of hidden layers' gradients with the true ones grows, and ends above zero."""
    names = ["linear0.weight", "linear1.weight", "linear2.weight"]
    for rule in ("feedback_alignment", "direct_feedback_alignment"):
        change = []
        for seed in range(8):
            batch = teacher_data(seed)
            cosines = []
            for n_steps in (0, 200):
                _, m = trained(rule, seed, n_steps)
                found = next_layer_attention.alignment(m, batch, mean_square)
                cosines.append(np.mean([found[name] for name in names]))
            assert cosines[1] > 0.05, (rule, seed, cosines)
            change.append(cosines[1] - cosines[0])
        assert np.mean(change) > 3 * np.std(change, ddof=1) / math.sqrt(len(change)), (rule, change)


def test_matched_norms_keep_signals_in_size_through_depth():
    model, x = tanh_stack(*[64] * 17), normal(32, 64, seed=1)

    def size_at_first(attention: str, **options: Any) -> float:
        m = next_layer_attention.convert(model, "*", attention, **options)
        found = half_square(m, x)
        return float(found["linear0.bias"].norm() / found["linear15.bias"].norm())

    true = size_at_first("squared")
    assert 0.1 < size_at_first("absolute") / true < 10
    assert size_at_first("absolute", match_norm=False) / true > 1e9  # sqrt(64) at each of 15 layers is 4e13


def mean_square(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "direct_feedback_alignment"] + [torch.cosh])
@pytest.mark.parametrize("kind", ["perceptron", "conv2d", "particles, explicit"])
def test_gradients_of_each_example_by_vmap(kind, rule):
    m, x = converted(kind, rule)
    parameters, fixed = dict(m.named_parameters()), dict(m.named_buffers())

    def loss(own: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(m, {**own, **fixed}, (x[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    m(x).square().sum().backward()
    for name, p in m.named_parameters():
        torch.testing.assert_close(each[name].sum(0), p.grad)
    many = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in parameters.items()}
    several = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(many, x[0])
    for name, found in several.items():
        torch.testing.assert_close(found[0], each[name][0])


def test_alignment_leaves_the_model_as_it_was():
    m, x = converted("perceptron", "direct_feedback_alignment", drop=0.2)
    m(x).sum().backward()
    kept = [p.grad for p in m.parameters()]
    values, state = [p.grad.clone() for p in m.parameters()], copy.deepcopy(m.state_dict())
    m.linear0.bias.requires_grad_(False)
    cosines = next_layer_attention.alignment(m, x, lambda m, x: m(x)[:, 0].mean())
    assert list(cosines) == ["linear0.weight", "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
    assert all(p.grad is gradient for p, gradient in zip(m.parameters(), kept, strict=True))
    assert all(torch.equal(p.grad, value) for p, value in zip(m.parameters(), values, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in m.state_dict().items())
    assert m.training
    unheard = next_layer_attention.alignment(m, x, lambda m, x: m.get_parameter("linear2.bias").sum())
    assert math.isnan(unheard["linear1.weight"])
    assert unheard["linear2.bias"] == pytest.approx(1)


class Contrary(next_layer_attention.Feedback):
    """A user's own: every signal with the wrong sign."""

    def matrix(self, weight, random):
        return -weight


def test_alignment_is_signed_and_feedback_may_be_ones_own():
    m, x = converted("perceptron", Contrary())
    cosines = next_layer_attention.alignment(m, x, lambda m, x: m(x).square().mean())
    expected = [1, 1, -1, -1, 1, 1]  # two wrong signs, one, none
    assert list(cosines.values()) == pytest.approx(expected, abs=1e-12)


def test_what_crosses_between_layers_is_counted():
    Message = next_layer_attention.LayerMessages
    m, x = converted("perceptron")  # 6-8-7-4, five examples
    expected = [
        Message("linear0.weight", 30, 0, 0),
        Message("linear1.weight", 40, 35, 56),
        Message("linear2.weight", 35, 20, 28),
    ]
    assert next_layer_attention.messages(m, x) == expected
    m, _ = converted("perceptron", "feedback_alignment")
    assert [row.copied_weights for row in next_layer_attention.messages(m, x)] == [0, 0, 0]
    assert [row.signals for row in next_layer_attention.messages(m, x)] == [0, 35, 20]
    m, _ = converted("perceptron", "direct_feedback_alignment")
    assert [row.signals for row in next_layer_attention.messages(m, x)] == [0, 20, 20]
    m, x = converted("particles")
    rows = next_layer_attention.messages(m, x)
    assert [row.weight for row in rows[:4]] == [f"blocks.0.attn.W_{kind}" for kind in "QKVO"]
    assert (rows[-1].weight, rows[-1].activities, rows[-1].signals) == ("W_U", 5 * 3 * 8, 5 * 3 * 4)
    with torch.no_grad():
        assert next_layer_attention.messages(m, x) == rows


def test_half_precision_is_that_of_autocast():
    model, x = models()["particles"]
    model, x = model.float(), x.float()
    m = next_layer_attention.convert(model, "*", "squared")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(m(x), model(x))
        both = [gradients(each, x) for each in (m, model)]
        assert all(g.isfinite().all() for g in gradients(converted("particles", "absolute")[0].float(), x).values())
    assert_near(both[0], both[1], 0.02)  # eight bits


@pytest.mark.parametrize("kind", ["perceptron", "particles"])
def test_learning_coefficient_and_curvature_are_measured_on_the_plain_model(kind):
    m, x = converted(kind, "feedback_alignment")
    model, x = next_layer_attention.export(m.float()), x.float()
    if isinstance(model, ParticleTransformer):
        model.use_explicit_attention()
    batches = [(x, model(x).detach() + 0.1)]
    settings = {"nbeta": 5.0, "step_size": 1e-5, "localization": 10.0, "n_chains": 2, "n_draws": 5, "n_burnin": 2}
    estimate = estimate_llc(model, batches, loss_fn=mean_square, generator=seeded(), **settings)
    assert math.isfinite(estimate.value)
    top = top_eigenvalues(model, batches, loss_fn=mean_square, k=1, generator=seeded())
    assert float(top.values[0]) > 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # inside torch.func.jvp
@pytest.mark.parametrize("rule", ["squared", "absolute", "feedback_alignment", "direct_feedback_alignment"])
def test_second_derivatives_are_refused(rule):
    m, x = converted("perceptron", rule)
    first = torch.autograd.grad(m(x).square().sum(), m.linear0.weight, create_graph=True)[0]
    assert_refused(
        torch.autograd.grad,
        first.sum(),
        m.linear0.weight,
        message=r"no second or forward derivative; measure on export\(m\)",
    )
    if rule == "direct_feedback_alignment":
        return

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(m, {"linear1.weight": weight}, (x,)).square().sum()

    weight = m.linear1.weight.detach()
    assert_refused(torch.func.hessian(loss), weight, message="no second or forward derivative")
    assert_refused(torch.func.jacrev(torch.func.grad(loss)), weight, message="no second or forward derivative")
    assert_refused(torch.func.jvp, loss, (weight,), (weight,), message="no second or forward derivative")


def half_function(w: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(w.detach().numpy() ** 2)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown layer": ({"layers": "linaer1"}, "'linaer1' matches no layer .* did you mean 'linear1'"),
    "no match": ({"layers": "head*"}, "there are linear0, linear1, linear2"),
    "none": ({"layers": []}, "layers is empty"),
    "not a name": ({"layers": [3]}, "layers must hold names or patterns, got int"),
    "unknown attention": (
        {"attention": "absolut"}, "attention must be one of squared, .*direct_feedback_alignment .* mean 'absolute'",
    ),
    "class": ({"attention": Squared}, r"settings such as Squared\(\), got the class Squared"),
    "not an attention": ({"attention": 3}, "attention must be a name or settings such as .*, got int"),
    "softmax": ({"attention": lambda w: w.abs().softmax(-1)}, "must be elementwise, but its value at a weight depends"),
    "sum": ({"attention": lambda w: w.square().sum()}, r"elementwise: of shape \(7, 8\) here, got shape \(\)"),
    "number": ({"attention": lambda w: 3.0}, r"elementwise: of shape \(7, 8\) here, got float"),
    "numpy": ({"attention": half_function}, "must be differentiable by torch, got numbers without a gradient"),
    "fails": ({"attention": lambda w: w.nonsense()}, "must be a differentiable function of a weight, it failed: "),
    "logarithm": ({"attention": torch.log}, r"must have finite values, got none at a weight of -0\.\d+; smooth it"),
    "root": ({"attention": lambda w: (w - w).sqrt()}, "must have finite derivatives, got none at a weight of"),
    "steps": ({"attention": torch.sign}, "a derivative of zero at every weight of linear1; nothing would be learned"),
    "drop": ({"drop": 1.0}, "drop must be at least 0 and below 1, got 1.0"),
    "drop below": ({"drop": -0.1}, "drop must be at least 0 and below 1, got -0.1"),
    "drop nan": ({"drop": math.nan}, "drop must be at least 0 and below 1, got nan"),
    "drop text": ({"drop": "0.1"}, "drop must be a number, got str"),
    "no generator": ({"attention": "feedback_alignment"}, "generator is missing: FeedbackAlignment .* give generator"),
    "no generator for drop": ({"drop": 0.5}, r"generator is missing: drop=0.5 draws random numbers"),
    "seed": ({"drop": 0.5, "generator": 3}, "generator must be a torch.Generator, got int"),
    "scale": ({"attention": "sign_symmetric", "match_norm": False}, "match_norm=False is for attentions; SignSym"),
}  # fmt: skip


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused(case):
    options, message = REFUSED[case]
    options = {"layers": "linear1"} | options
    assert_refused(next_layer_attention.convert, models()["perceptron"][0], **options, message=message)


@pytest.mark.usefixtures("as_users_run")
def test_models_that_cannot_be_converted_are_refused():
    model: Any = models()["perceptron"][0]
    convert = next_layer_attention.convert
    once = convert(model, "linear1")
    assert_refused(convert, once, "linear*", message="'linear1' is converted already; convert the plain model")
    particle = convert(models()["particles"][0], "W_U")
    assert_refused(convert, particle, "W_U", message="'W_U' is converted already")
    shaped = structured.convert(model, "linear1", generator=seeded())
    assert_refused(convert, shaped, "linear1", message="'linear1' matches no layer")
    model.linear1.weight.data[0, 0] = torch.nan
    assert_refused(convert, model, "linear1", message="'linear1' holds weights that are not finite")
    tied: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert_refused(convert, tied, "1", message="0.weight and 1.weight; untie")
    assert_refused(convert, nn.Sequential(nn.ReLU()), "*", message="the model has none")
    assert_refused(convert, "model", "*", message="must be a torch.nn.Module")
    assert_refused(Power, 0.5, message="p must be at least 1 and finite, got 0.5")
    assert_refused(Competitive, 0.0, message="temperature must be positive and finite, got 0.0")
    assert_refused(DirectFeedbackAlignment, 0, message="n_outputs must be at least 1, got 0")
    plain = models()["perceptron"][0]
    assert_refused(next_layer_attention.export, plain, message="must be a model from convert, got a plain Perceptron")
    assert_refused(next_layer_attention.messages, plain, message="must be a model from convert")
    assert_refused(next_layer_attention.alignment, plain, None, mean_square, message="must be a model from convert")


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        h = self.first(x).tanh()
        return self.last(h), h


@pytest.mark.usefixtures("as_users_run")
def test_direct_feedback_is_refused_where_it_has_no_meaning():
    x = normal(5, 6).float()

    def direct(model: nn.Module, n_outputs: int | None = None) -> Any:
        return next_layer_attention.convert(model, "*", DirectFeedbackAlignment(n_outputs), generator=seeded())

    assert_refused(direct(TwoOutputs()), x, message="needs a model with one tensor as output, got tuple")
    stack = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    message = r"drawn for outputs of shape \(batch, ..., 3\), got \(5, 4\); give DirectFeedbackAlignment\(n_outputs"
    assert_refused(direct(stack, 3), x, message=message)
    assert_refused(direct(stack), x[0], message=r"outputs of shape \(batch, ..., 4\), got \(4,\)")
    pooled = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.AvgPool1d(2, ceil_mode=True), nn.Flatten())
    assert_refused(direct(pooled), x[:, None], message=r"got \(5, 2\)")
    direct(pooled, 2)(x[:, None]).sum().backward()
    folded = nn.Sequential(nn.Linear(6, 5), nn.Flatten(0, 1), nn.Linear(5, 4), nn.Unflatten(0, (5, 2)))
    message = (
        r"cannot reach layer '2.weight': its input has shape \(10, 5\), the output \(5, 2, 4\); both need the batch"
    )
    assert_refused(direct(folded), torch.zeros(5, 2, 6), message=message)
    ring = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(8, 2))
    assert_refused(direct, ring, message="'0' has padding_mode='circular'; direct feedback needs 'zeros'")
    m = direct(stack)
    assert_refused(m[2](m[0](x)).sum().backward, message="'2.weight' waits for the error at the model's output")
    loss = lambda w: torch.func.functional_call(m, {"0.weight": w}, (x,)).sum()  # noqa: E731
    message = "direct feedback alignment does not work inside torch.func; take gradients by backward"
    assert_refused(torch.func.grad(loss), m[0].weight.detach(), message=message)
    lossy = next_layer_attention.convert(stack, "*", drop=0.5, generator=seeded())
    each = torch.func.vmap(torch.func.grad(lambda x: lossy(x).sum()))
    assert_refused(each, x, message="drop does not work inside torch.func.vmap; take gradients by backward")


REFUSED_SIGNALS: dict[str, tuple[dict[str, Any], str]] = {
    "shapes": ({"weight_after": torch.zeros(3, 5)}, r"both be \(listener, source\), got \(3, 4\) and \(3, 5\)"),
    "batch": ({"activity": torch.zeros(2, 4)}, r"activity must be of one example, of shape \(4,\), got \(2, 4\)"),
    "rate": ({"rate": 0.0}, "rate must be positive and finite, got 0.0"),
    "name": ({"attention": "squard"}, "attention must be one of .* did you mean 'squared'"),
    "feedback": ({"attention": "sign_symmetric"}, "one that neurons seek, got the feedback SignSymmetric"),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", REFUSED_SIGNALS)
def test_signals_that_cannot_be_read_are_refused(case):
    changed, message = REFUSED_SIGNALS[case]
    options = {
        "weight_before": torch.ones(3, 4), "weight_after": torch.ones(3, 4), "activity": torch.ones(4), "rate": 0.1,
    } | changed  # fmt: skip
    assert_refused(next_layer_attention.local_signal, **options, message=message)
    if case == "feedback":
        received = next_layer_attention.attention_received
        assert_refused(received, torch.ones(3, 4), "sign_symmetric", message="one that neurons seek")


def test_shares_of_a_listener_sum_to_one_and_zero_weights_are_finite():
    w = normal(4, 3, 2, 2)
    for attention in (Normalised(), Competitive()):
        torch.testing.assert_close(attention.paid(w).flatten(1).sum(1), torch.ones(4).double())
        assert attention.derivative(torch.zeros(4, 3)).abs().sum() == 0
    assert Elementwise(torch.square).paid(w).equal(w.square())
    silent = next_layer_attention.convert(nn.Linear(3, 2).requires_grad_(), "*", "normalised")
    nn.init.zeros_(silent.get_parameter("weight"))
    x = torch.ones(1, 3, requires_grad=True)
    silent(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0, 0]]


def test_the_example_of_the_docstring_runs():
    _, example = (next_layer_attention.__doc__ or "").split("::\n\n", 1)
    code = [line[4:] for line in example.split("\n\n")[0].split("\n")]
    assert len(code) <= 10
    model = models()["perceptron"][0].float()
    loader = [(normal(5, 6, seed=i).float(), normal(5, 4).float()) for i in range(3)]
    names: dict[str, Any] = {
        "next_layer_attention": next_layer_attention, "torch": torch, "loader": loader, "model": model,
        "loss_fn": F.mse_loss,
    }  # fmt: skip
    exec("\n".join(code), names)
    x = loader[0][0]
    assert torch.equal(names["plain"](x), names["m"](x))
    assert not torch.allclose(names["plain"](x), model(x))
    assert 0 < names["cosines"]["linear1.weight"] < 1

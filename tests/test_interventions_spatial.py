"""Neurons in space: what wire costs, and that exchanging neurons changes that and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from refusals import assert_refused
from torch import nn

from emergence.checkpoints import Checkpoints
from emergence.config import AdamW, ModelConfig, TrainingConfig
from emergence.interventions import spatial
from emergence.model import ParticleTransformer
from emergence.perceptron import Perceptron
from emergence.recurrent import ContinuousTimeRNN
from emergence.tasks.symbolic import symbolic_task
from emergence.training import train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron(widths: list[int], generator: torch.Generator, **options: Any) -> Any:
    return Perceptron(widths, generator, **options)


class Recurrent(nn.Module):
    """A read-out behind one of torch's recurrent layers."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0])


def cases() -> dict[str, tuple[Any, torch.Tensor, Any]]:
    """A model of every kind we place, an input for it, and a layout."""
    normed: Any = nn.Sequential(
        nn.Linear(4, 20),
        nn.SiLU(),
        nn.LayerNorm(20),
        nn.Linear(20, 16),
        nn.BatchNorm1d(16),
        nn.SiLU(),
        nn.Linear(16, 2),
    )
    normed[4].running_mean.normal_(generator=seeded(1))
    normed[4].running_var.uniform_(0.5, 2, generator=seeded(1))
    layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    sequences = torch.randn(3, 5, 6, generator=seeded(2))
    found: dict[str, tuple[Any, torch.Tensor, Any]] = {
        "linear and norm": (normed, torch.randn(7, 4, generator=seeded(3)), "line"),
        "continuous time": (ContinuousTimeRNN(6, 36, 4, seeded()), sequences, "grid"),
        "rnn": (Recurrent(nn.RNN(6, 12, num_layers=2, batch_first=True)), sequences, "line"),
        "gru": (Recurrent(nn.GRU(6, 12, batch_first=True)), sequences, "ring"),
        "lstm": (Recurrent(nn.LSTM(6, 12, num_layers=2, bias=False, batch_first=True)), sequences, "grid"),
        "embedding": (perceptron([16, 20, 11], seeded(), embedding=(11, 8)), torch.randint(11, (6, 2)), "line"),
        "encoder": (nn.Sequential(nn.Linear(6, 12), encoder, nn.Linear(12, 4)), sequences, "line"),
        "particles": (ParticleTransformer(ModelConfig(2, 3, 12, 4, 24), 6, 4, seeded()), sequences, "line"),
    }
    with torch.no_grad():  # norms and some biases begin all alike, and would not show a permutation
        for model, _, _ in found.values():
            for p in model.parameters():
                p += 0.1 * torch.randn(p.shape, generator=seeded(4))
    return found


def double(case: tuple[Any, torch.Tensor, Any]) -> tuple[Any, torch.Tensor, Any]:
    model, x, layout = case
    return model.double().eval(), x.double() if x.is_floating_point() else x, layout


def in_turn(placement: spatial.Placement, first: str) -> spatial.Placement:
    """The same placement, the populations whose name begins so being exchanged before the others move."""
    wiring = placement.wiring
    order = sorted(wiring.populations, key=lambda name: not name.startswith(first))
    populations = {name: wiring.populations[name] for name in order}
    return replace(placement, wiring=replace(wiring, populations=populations))


KINDS = list(cases())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_of_swaps_saves_what_it_predicts_and_changes_no_output(kind, reduction):
    model, x, layout = double(cases()[kind])
    placement = spatial.place(model, layout, reduction=reduction, locality=1.7, layer_gap=0.3, example=x)
    outputs, cost = model(x).detach(), spatial.wiring_cost(model, placement).item()
    swaps = spatial.swap(model, placement)
    assert len(swaps.moved) > 3
    assert swaps.saved > 0
    assert abs(cost - spatial.wiring_cost(model, placement).item() - swaps.saved) < 1e-9
    torch.testing.assert_close(model(x), outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_stay_to_a_millionth_in_single_precision(kind):
    model, x, layout = cases()[kind]
    model.eval()
    placement = spatial.place(model, layout)
    outputs = model(x).detach()
    spatial.swap(model, placement)
    torch.testing.assert_close(model(x), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(100))
def test_the_exchange_taken_is_the_best_by_brute_force(seed):
    model = ContinuousTimeRNN(3, 6, 2, seeded(seed)).double()
    with torch.no_grad():
        model.cell.weight_hh.normal_(generator=seeded(seed + 1000))
    layout = spatial.Line() if seed % 2 else spatial.Grid((2, 3))
    placement = spatial.place(model, {"*": "line", "cell": layout}, reduction=("sum", "mean")[seed % 2])
    importance = torch.stack([w.detach().abs().sum(dim) for w, dim in _touching(model)]).sum(0)
    candidate = int(importance.argmax())
    before = spatial.wiring_cost(model, placement).item()
    costs = [_cost_after_exchange(model, placement, candidate, other) for other in range(6)]
    swaps = spatial.swap(model, in_turn(placement, "cell"), n_candidates=1)
    taken = [m for m in swaps.moved if m[0] == "cell"]
    assert bool(taken) == (min(costs) < before - 1e-12)
    if taken:
        assert taken[0][1:] == (candidate, int(np.argmin(costs)))


def _touching(model):
    return (model.cell.weight_ih, 1), (model.cell.weight_hh, 1), (model.cell.weight_hh, 0), (model.readout.weight, 0)


def _cost_after_exchange(model, placement, a, b):
    order = torch.arange(6)
    order[[a, b]] = order[[b, a]]
    moved = ContinuousTimeRNN(3, 6, 2).double()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for key in ("cell.weight_ih", "cell.bias_ih", "cell.bias_hh"):
        state[key] = state[key][order]
    state["cell.weight_hh"] = state["cell.weight_hh"][order][:, order]
    state["readout.weight"] = state["readout.weight"][:, order]
    moved.load_state_dict(state)
    return spatial.wiring_cost(moved, placement).item()


def test_wiring_cost_is_the_sum_over_weights_of_size_times_length():
    model = perceptron([3, 4, 2], seeded()).double()
    placement = spatial.place(model, "line", locality=2.0, layer_gap=0.25)
    expected = 0.0
    for layer, (n_in, n_out) in enumerate([(3, 4), (4, 2)]):
        linear = getattr(model, f"linear{layer}")
        for i in range(n_out):
            expected += 0.25 * abs(linear.bias[i].item())
            for j in range(n_in):
                distance = abs((i + 0.5) / n_out - (j + 0.5) / n_in)
                expected += abs(linear.weight[i, j].item()) * (2.0 * distance + 0.25)
    cost = spatial.wiring_cost(model, placement)
    assert cost.item() == pytest.approx(expected, rel=1e-13)
    cost.backward()
    distances = torch.tensor([[abs((i + 0.5) / 4 - (j + 0.5) / 3) for j in range(3)] for i in range(4)]).double()
    price = model.linear0.weight.detach().sign() * (2.0 * distances + 0.25)
    torch.testing.assert_close(model.linear0.weight.grad, price, rtol=0, atol=1e-6)
    free = spatial.wiring_cost(model, placement, biases=False).item()
    biases = sum(getattr(model, f"linear{layer}").bias.abs().sum().item() for layer in (0, 1))
    assert cost.item() - free == pytest.approx(0.25 * biases)


def test_the_mean_divides_each_tensor_by_its_size():
    model = perceptron([3, 4], seeded()).double()
    by_sum, by_mean = (spatial.place(model, "line", reduction=r) for r in ("sum", "mean"))
    costs = [spatial.wiring_cost(model, p, biases=False).item() for p in (by_sum, by_mean)]
    assert costs[0] == pytest.approx(12 * costs[1], rel=1e-13)
    of_biases = [spatial.wiring_cost(model, p).item() - c for p, c in zip((by_sum, by_mean), costs, strict=True)]
    assert of_biases[0] == pytest.approx(4 * of_biases[1], rel=1e-12)


def test_the_defaults_are_those_of_the_symbolic_examples():
    placement = spatial.place(perceptron([3, 4], seeded()), "line")
    assert (placement.locality, placement.layer_gap, placement.reduction) == (1.0, 0.1, "sum")


def test_tokens_have_no_place_and_folds_share_theirs():
    model = perceptron([16, 5], seeded(), embedding=(11, 8)).double()
    placement = spatial.place(model, "line", locality=1.0, layer_gap=0.5)
    x, y = ((torch.arange(n).double() + 0.5) / n for n in (8, 5))
    distance = (y[:, None] - x).abs()
    w = model.linear0.weight.detach().abs()
    expected = 0.5 * model.embed.weight.abs().sum() + (w * (distance.repeat(1, 2) + 0.5)).sum()
    assert spatial.wiring_cost(model, placement, biases=False).item() == pytest.approx(expected.item(), rel=1e-12)


def test_moments_travel_with_their_neurons():
    """A step after a swap is the step before it, swapped."""
    x, y = torch.randn(20, 4, generator=seeded(1)), torch.randn(20, 2, generator=seeded(2))

    def fresh():
        model = perceptron([4, 12, 2], seeded()).double()
        return model, torch.optim.AdamW(model.parameters(), 0.05)

    def step(model, optimizer):
        optimizer.zero_grad()
        (model(x.double()) - y).square().mean().backward()
        optimizer.step()

    plain, plain_optimizer = fresh()
    swapped, swapped_optimizer = fresh()
    for model, optimizer in ((plain, plain_optimizer), (swapped, swapped_optimizer)):
        for _ in range(3):
            step(model, optimizer)
    placement = spatial.place(swapped, "line")
    assert spatial.swap(swapped, placement, swapped_optimizer).orders["linear0"].tolist() != list(range(12))
    for _ in range(3):
        step(plain, plain_optimizer)
        step(swapped, swapped_optimizer)
    torch.testing.assert_close(swapped(x.double()), plain(x.double()), rtol=0, atol=1e-12)


def test_gradients_travel_too():
    model = perceptron([4, 12, 2], seeded())
    model(torch.ones(1, 4)).sum().backward()
    before = model.linear0.weight.grad.clone()
    order = spatial.swap(model, spatial.place(model, "line")).orders["linear0"]
    assert torch.equal(model.linear0.weight.grad, before[order])


def test_inputs_and_outputs_keep_their_weights_and_change_their_places():
    model = perceptron([4, 12, 2], seeded())
    with torch.no_grad():
        model.linear0.weight.zero_()
        for i in range(4):
            model.linear0.weight[:, i] = torch.exp(-(((torch.arange(12) + 0.5) / 12 - (3.5 - i) / 4) ** 2) / 0.02)
    placement = spatial.place(model, {"*": "line"})
    hidden_before = model.linear0.weight.clone()
    moved = spatial.swap(model, placement)
    assert [m for m in moved.moved if m[0] == "input"]
    assert placement.positions["input"].flatten().tolist() == pytest.approx([0.875, 0.625, 0.375, 0.125])
    assert sorted(model.linear0.weight.flatten().tolist()) == sorted(hidden_before.flatten().tolist())


def test_swaps_find_a_hidden_order():
    """A local network whose neurons were shuffled is put back to its length."""
    n = 30
    places = (torch.arange(n) + 0.5) / n
    local = torch.exp(-((places[:, None] - places) ** 2) / 0.002)
    order = torch.randperm(n, generator=seeded(3))
    model = perceptron([n, n, n], seeded())
    with torch.no_grad():
        model.linear0.weight.copy_(local[order])
        model.linear1.weight.copy_(local[:, order])
    placement = spatial.place(model, "line")
    shuffled = spatial.wiring_cost(model, placement, biases=False).item()
    for _ in range(20):
        if not spatial.swap(model, placement).moved:
            break
    sorted_model = perceptron([n, n, n], seeded())
    with torch.no_grad():
        sorted_model.linear0.weight.copy_(local)
        sorted_model.linear1.weight.copy_(local)
    best = spatial.wiring_cost(sorted_model, spatial.place(sorted_model, "line"), biases=False).item()
    found = spatial.wiring_cost(model, placement, biases=False).item()
    assert shuffled - found > 0.9 * (shuffled - best)


def test_heads_move_whole():
    model: Any = ParticleTransformer(ModelConfig(n_layers=1, n_heads=4, d_model=16, d_head=4, d_mlp=8), 6, 4, seeded())
    with torch.no_grad():
        for name in ("W_Q", "W_K", "W_V"):
            for head in range(4):  # head h reads and writes the quarter 3 - h of the stream
                mask = torch.zeros(16)
                mask[4 * (3 - head) : 4 * (4 - head)] = 1
                getattr(model.blocks[0].attn, name)[head] *= mask[:, None]
                model.blocks[0].attn.W_O[head] *= mask
    placement = in_turn(spatial.place(model, "line"), "blocks")
    attention = model.blocks[0].attn
    before = {name: getattr(attention, name).detach().clone() for name in ("W_Q", "W_K", "W_V")}
    swaps = spatial.swap(model, placement)
    assert any(name.endswith("heads") for name, _, _ in swaps.moved)
    for kind, names in (("qk", ("W_Q", "W_K")), ("v", ("W_V",))):
        order = swaps.orders[f"blocks.0.attn.{kind}"].view(4, 4)
        assert torch.equal(order // 4, (order // 4)[:, :1].expand(4, 4))  # what was one head is one head
        for name in names:
            came_from = (order // 4)[:, 0]
            entries = (t.flatten(1).sort(dim=1).values for t in (getattr(attention, name), before[name][came_from]))
            torch.testing.assert_close(*entries, rtol=0, atol=0)
    queries, values = (swaps.orders[f"blocks.0.attn.{kind}"].view(4, 4)[:, 0] // 4 for kind in ("qk", "v"))
    assert torch.equal(queries, values)


def test_the_most_important_heads_move_first():
    """Importance counts queries, keys and values; with one candidate no other head is offered a place."""
    model: Any = ParticleTransformer(ModelConfig(1, 3, 6, 2, 4), 6, 4, seeded())
    attention = model.blocks[0].attn
    for heaviest, name in ((0, "W_V"), (1, "W_V"), (2, "W_Q")):
        with torch.no_grad():
            for p in attention.parameters():
                p.zero_()
            for head in range(3):  # each belongs one third of the line further on
                third = 2 * ((head + 1) % 3)
                attention.W_Q[head, third : third + 2] = 1 + 0.1 * head
                getattr(attention, name)[head, third : third + 2] += 9 * (head == heaviest)
        placement = spatial.keep_numbers(in_turn(spatial.place(model, "line"), "blocks"))
        heads = [m[1:] for m in spatial.swap(model, placement, n_candidates=1).moved if m[0].endswith("heads")]
        assert heads == [(heaviest, (heaviest + 1) % 3)]


def test_equals_are_not_exchanged():
    """Rounding must not send neurons round and round that need the same wire, yet the smallest saving is taken."""
    model = ContinuousTimeRNN(3, 30, 2, seeded()).double()
    with torch.no_grad():
        for w in model.parameters():
            w.fill_(0.1)
    placement = spatial.place(model, {"*": None, "cell": "ring"})
    assert spatial.swap(model, placement).moved == ()
    with torch.no_grad():
        model.cell.weight_hh[0, 15] += 1e-6  # across the ring
    places = placement.positions["cell"]
    across, beside = ((places[0] - places[other]).abs().sum().item() for other in (15, 1))
    assert spatial.swap(model, placement).saved == pytest.approx(1e-6 * (across - beside), rel=1e-6)


def test_layers_that_are_not_named_stay_as_they_are():
    model: Any = nn.ModuleDict({name: perceptron([4, 12, 2], seeded()) for name in ("left", "right")}).double()
    right = {name: p.clone() for name, p in model["right"].named_parameters()}
    x = torch.randn(5, 4, dtype=torch.float64, generator=seeded(1))
    before = model["left"](x).detach()
    placement = spatial.place(model, "line", layers=["left.linear0", "left.linear1"])
    assert spatial.swap(model, placement).orders.keys() >= {"left.linear0"}
    assert all(torch.equal(right[name], p) for name, p in model["right"].named_parameters())
    torch.testing.assert_close(model["left"](x), before, rtol=0, atol=1e-12)


def test_a_wiring_of_your_own_places_what_no_stack_tells():
    """Neurons of a residual stream: written by two layers, read by two."""
    model, x = Residual().double(), torch.randn(3, 4, dtype=torch.float64, generator=seeded(1))
    axes = [spatial.Axis(f"{layer}.{kind}", (0,)) for layer in "ab" for kind in ("weight", "bias")]
    reads = [spatial.Axis(f"{layer}.weight", (1,)) for layer in "bc"]
    stream = spatial.Population("stream", 8, (*axes, *reads))
    wiring = spatial.Wiring({"stream": stream}, (spatial.Connection("stream", "stream", reads[0], axes[2]),))
    placement = spatial.place(model, "line", wiring=wiring, example=x)
    before = model(x).detach()
    assert spatial.swap(model, placement).moved
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)


# layouts


def test_layouts():
    assert spatial.Line().positions(4).flatten().tolist() == [0.125, 0.375, 0.625, 0.875]
    grid = spatial.Grid((2, 3)).positions(6)
    assert grid[:, 0].tolist() == [0.25] * 3 + [0.75] * 3
    assert grid[:3, 1].tolist() == pytest.approx([1 / 6, 0.5, 5 / 6])
    assert torch.equal(spatial.Grid().positions(400), spatial.Grid((20, 20)).positions(400))
    assert torch.equal(spatial.Grid().positions(14), spatial.Grid((2, 7)).positions(14))
    right, top, left, bottom = [0.9, 0.5], [0.5, 0.9], [0.1, 0.5], [0.5, 0.1]
    torch.testing.assert_close(spatial.Ring(0.4).positions(4), torch.tensor([right, top, left, bottom]).double())
    ring = spatial.Ring().positions(10)
    assert torch.linalg.vector_norm(ring - 0.5, dim=1).tolist() == pytest.approx([0.25] * 10)
    apart = torch.linalg.vector_norm(ring - ring.roll(1, 0), dim=1)  # chords of a tenth of a circle
    assert apart.tolist() == pytest.approx([0.5 * np.sin(np.pi / 10)] * 10)
    assert spatial.Grid((2, 3, 4)).positions(24).shape == (24, 3)


def test_a_population_without_a_place_pays_no_distance_and_stays():
    model = ContinuousTimeRNN(5, 36, 3, seeded()).double()
    with torch.no_grad():
        model.cell.weight_hh.normal_(generator=seeded(1))
    placement = spatial.place(model, {"*": None, "cell": "grid"}, locality=2.0, layer_gap=0.1)
    places = spatial.Grid().positions(36)
    distance = (places[:, None] - places).abs().sum(-1)
    plain = sum(p.abs().sum() for p in model.parameters())
    expected = 0.1 * plain + 2 * (model.cell.weight_hh.abs() * distance).sum()
    cost = spatial.wiring_cost(model, placement).item()
    assert cost == pytest.approx(expected.item(), rel=1e-12)
    swaps = spatial.swap(model, placement)
    assert {name for name, _, _ in swaps.moved} == {"cell"}
    assert cost - spatial.wiring_cost(model, placement).item() == pytest.approx(swaps.saved, abs=1e-9)


def test_numbers_are_kept_by_moving_places():
    """Exchanging places costs and saves what exchanging weights does, and no weight moves."""
    model, _, layout = double(cases()["particles"])
    by_weights, by_places = (spatial.place(model, layout) for _ in range(2))
    before = {name: p.clone() for name, p in model.named_parameters()}
    cost = spatial.wiring_cost(model, by_places).item()
    swaps = spatial.swap(model, spatial.keep_numbers(by_places))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert cost - spatial.wiring_cost(model, by_places).item() == pytest.approx(swaps.saved, abs=1e-9)
    assert spatial.swap(model, by_weights).moved == swaps.moved


def test_a_line_among_grids_lies_in_the_middle():
    placement = spatial.place(perceptron([3, 16, 2], seeded()), "grid", inputs="line", outputs="ring")
    assert placement.positions["input"][:, 1].tolist() == [0.5] * 3
    assert placement.positions["linear1"].shape == (2, 2)


# refusals


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = self.a(x)
        return self.c(h + self.b(h))


class WithPosition(nn.Module):
    def __init__(self):
        super().__init__()
        self.position, self.out = nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(x + self.position)


def shared() -> nn.Module:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (nn.Linear(4, 6), {"layout": "cube"}, "layout must be one of line, grid, ring"),
        (nn.Linear(4, 6), {"layout": 3}, "layout must be a name"),
        (nn.Linear(4, 13), {"layout": "grid"}, "13 neurons fill no grid near a square"),
        (nn.Linear(4, 6), {"layout": {"*": "line", "hidden": "line"}}, "layout names no population 'hidden'"),
        (nn.Linear(4, 6), {"layout": {"input": "line"}}, "is missing"),
        (nn.Linear(4, 6), {"layout": {"*": None}}, "must give a place to at least one population"),
        (nn.Linear(4, 6), {"layout": spatial.Grid((2, 2)), "inputs": "line"}, "has 4 places, not 6"),
        (nn.Linear(4, 6), {"layout": spatial.Ring(0.7)}, "radius must be above 0"),
        (nn.Linear(4, 6), {"layout": "line", "locality": -1.0}, "locality must be zero or positive"),
        (nn.Linear(4, 6), {"layout": "line", "layer_gap": float("nan")}, "layer_gap must be zero or positive"),
        (nn.Linear(4, 6), {"layout": "line", "reduction": "max"}, "reduction must be 'sum' or 'mean'"),
        (shared(), {"layout": "line"}, "0.weight and 1.weight share their weights"),
        (nn.Conv2d(1, 2, 3), {"layout": "line"}, r"\(Conv2d\) cannot be placed"),
        (nn.ReLU(), {"layout": "line"}, "has no layer to place|has no parameters"),
        (WithPosition(), {"layout": "line"}, "WithPosition|position belongs to no layer"),
        (nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 2)), {"layout": "line"}, "reads 6 numbers, but .* writes 5"),
        (nn.Sequential(nn.Linear(4, 5)), {"layout": "line", "layers": ["1"]}, "no submodule '1'"),
        (nn.Sequential(nn.Linear(4, 4)), {"layout": "line", "layers": ["0", "0"]}, "is named twice"),
        (nn.LSTM(4, 6, bidirectional=True), {"layout": "line"}, "must run one way"),
        (nn.Sequential(nn.Linear(4, 4), nn.Embedding(3, 4)), {"layout": "line"}, "must be the first layer"),
        (nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(8, 2)), {"layout": "line"}, "reads 8 numbers"),
        (Residual(), {"layout": "line", "example": torch.randn(3, 4)}, "exchanging neurons of 'a' changes"),
        (
            Perceptron([4, 4, 2], seeded()),
            {"layout": "line", "example": torch.full((3, 4), torch.nan)},
            "by nan: something",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_placed_is_refused_in_one_line(model, arguments, message):
    assert_refused(spatial.place, model, message=message, **arguments)


@pytest.mark.usefixtures("as_users_run")
def test_a_model_without_module_is_refused():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        spatial.place("model", "line")  # type: ignore[arg-type]


def test_swap_refuses_another_model_and_weights_that_are_not_finite():
    model = perceptron([3, 4, 2], seeded())
    placement = spatial.place(model, "line")
    with pytest.raises(ValueError, match="give the model that was placed"):
        spatial.swap(nn.Linear(3, 4), placement)
    with pytest.raises(ValueError, match="give the model that was placed"):
        spatial.wiring_cost(nn.Linear(3, 4), placement)
    with pytest.raises(ValueError, match="n_candidates must be at least 1"):
        spatial.swap(model, placement, n_candidates=0)
    model.linear0.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="linear0.weight holds values that are not finite"):
        spatial.swap(model, placement)


def test_place_leaves_the_model_as_it_was():
    model, x, layout = cases()["particles"]
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    spatial.place(model, layout, example=x)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


# training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arm": "l2"}, "spatial.arm must be one of"),
        ({"strength": -1.0}, "spatial.strength must be zero or positive"),
        ({"schedule": ((0.1, 1.0),)}, "spatial.schedule must begin at 0.0"),
        ({"schedule": ()}, "spatial.schedule must begin at 0.0"),
        ({"swap_every": 0}, "spatial.swap_every must be at least 1"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        spatial.Spatial(**settings)


def test_the_price_follows_its_schedule():
    settings = spatial.Spatial("l1", 2.0, ((0.0, 1.0), (0.25, 10.0), (0.75, 1.0)))
    assert [settings.strength_at(step, 100) for step in (1, 25, 26, 75, 76, 100)] == [2, 2, 20, 20, 2, 2]
    assert spatial.Spatial("none", 2.0).strength_at(1, 100) == 0


def run(folder, arm: Any = "full", n_steps=60, stop=None):
    model = perceptron([4, 12, 12, 2], seeded())
    task = symbolic_task("independence", rng=np.random.default_rng(0))
    placement = spatial.place(model, "line")
    settings = spatial.Spatial(arm, 1e-2, swap_every=10, n_candidates=5)
    method = spatial.SpatialTraining(model, placement, settings, n_steps)

    def on_step(step):
        if step == stop:
            raise KeyboardInterrupt

    train(
        model,
        task,
        TrainingConfig(n_steps=n_steps, batch_size=100, n_checkpoints=8, optimizer=AdamW(0.01), n_warmup_steps=0),
        seed=0,
        checkpoints=Checkpoints(folder, lambda: perceptron([4, 12, 12, 2], seeded())),
        intervention=method,
        on_step=on_step,
    )
    return model, placement, task


def test_a_killed_run_resumes_at_the_same_bits(tmp_path):
    whole, places, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn", stop=43)
    resumed, resumed_places, _ = run(tmp_path / "torn")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert all(torch.equal(p, resumed_places.positions[name]) for name, p in places.positions.items())
    assert not torch.equal(places.positions["input"], spatial.Line().positions(4))  # else the state tests nothing


@pytest.mark.parametrize("arm", spatial.ARMS)
def test_each_arm_pays_and_swaps_for_what_its_name_says(arm):
    model = perceptron([4, 12, 2], seeded()).double()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
    optimizer.step()
    placement = spatial.place(model, "line", locality=2.0, layer_gap=0.3)
    settings = spatial.Spatial(arm, 0.5, ((0.0, 1.0), (0.5, 10.0)), swap_every=10, n_candidates=1, biases_from=0.75)
    method = spatial.SpatialTraining(model, placement, settings, 100)
    locality = 2.0 if arm in ("l1_local", "full") else 0.0
    for step, price, biases in ((1, 0.5, False), (75, 5.0, False), (76, 5.0, True)):  # 76 is the first past 3/4
        cost = spatial.wiring_cost(model, spatial.place(model, "line", locality=locality, layer_gap=0.3), biases=biases)
        penalty = method.penalty(step)
        assert (0 if penalty is None else penalty.item()) == pytest.approx(0 if arm == "none" else price * cost.item())
    weights, moments = (t.clone() for t in (model.linear0.weight, optimizer.state[model.linear0.weight]["exp_avg"]))
    for step in (1, 9, 11):
        method.after_step(step, optimizer)
    assert torch.equal(model.linear0.weight, weights)
    method.after_step(20, optimizer)
    if arm not in ("l1_swap", "full"):
        assert torch.equal(model.linear0.weight, weights)
        return
    order = [int((weights == row).all(1).nonzero()) for row in model.linear0.weight]
    assert sum(place != neuron for place, neuron in enumerate(order)) == 2  # the one candidate and its partner
    assert torch.equal(optimizer.state[model.linear0.weight]["exp_avg"], moments[order])


def test_each_arm_has_its_parts(tmp_path):
    costs = {}
    for arm in spatial.ARMS:
        model, _, _ = run(tmp_path / arm, arm, n_steps=200)
        costs[arm] = spatial.wiring_cost(model, spatial.place(model, "line")).item()
    assert costs["none"] > costs["l1"] > costs["l1_local"] > 0
    assert costs["l1_swap"] < costs["l1"]
    assert costs["full"] < costs["l1_local"]

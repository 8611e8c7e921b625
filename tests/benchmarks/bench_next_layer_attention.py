"""What a training step costs by the next-layer rule, in steps of plain backpropagation; and what depth does to signals.

Cost: a perceptron of 4 layers and the particle transformer as the standard study trains it, batches of 256: forward,
backward, Adam (goal: 1.3). CPU time, interleaved rounds. Depth: the size of the signal at the first layer over that at
the last, in the same ratio for backpropagation, with the norm of each ``F'(W)`` matched to the weight's and without.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import interleaved
import numpy as np
import torch
from torch import nn
from training_steps import training_step

from emergence.config import ModelConfig
from emergence.interventions import next_layer_attention
from emergence.interventions.next_layer_attention import ATTENTIONS, FEEDBACKS
from emergence.model import ParticleTransformer
from emergence.perceptron import Perceptron

RESULTS = Path(__file__).parent / "results" / "next_layer_attention.json"
WIDTHS, DEPTH, BATCH, GOAL = (128, 512), 4, 256, 1.3
DEPTHS, DEPTH_WIDTH = (2, 8, 32), 64


def check(plain: nn.Module, x: torch.Tensor) -> None:
    """Squared attention is backpropagation."""
    m = next_layer_attention.convert(plain, "*")
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    cosines = next_layer_attention.alignment(m, x, loss)
    assert all(abs(value - 1) < 1e-5 for name, value in cosines.items() if not name.endswith("b_K")), cosines


def ratios(plain: nn.Module, x: torch.Tensor, n_rounds: int) -> dict[str, Any]:
    """Milliseconds of a plain step; steps by each rule over it."""
    check(plain, x)
    generator = torch.Generator().manual_seed(0)
    convert = next_layer_attention.convert
    models = {name: convert(plain, "*", name, generator=generator) for name in (*ATTENTIONS, *FEEDBACKS)}
    models["absolute, 0.1 lost"] = convert(plain, "*", "absolute", drop=0.1, generator=generator)
    models["lambda w: w**2 / 2"] = convert(plain, "*", lambda w: w**2 / 2)
    steps = {name: training_step(model, x) for name, model in {"plain": plain, **models}.items()}
    spent = np.empty((n_rounds + 3, len(steps)))
    for turn in range(len(spent)):
        order = list(enumerate(steps.values()))
        for column, step in order if turn % 2 == 0 else reversed(order):
            spent[turn, column] = step()
    spent = spent[3:]
    found: dict[str, Any] = {"plain_ms": interleaved.spread(1e3 * spent[:, 0]), "goal": GOAL}
    for column, name in enumerate(models, start=1):
        found[f"{name} over plain"] = interleaved.spread(spent[:, column] / spent[:, 0])
    return found


def signal_growth(depth: int, seed: int) -> dict[str, float]:
    """Norm of the first bias' gradient over the last one's, over the same under backpropagation."""
    generator = torch.Generator().manual_seed(seed)
    plain = Perceptron([DEPTH_WIDTH] * (depth + 1), generator, activation=nn.Tanh).double()
    for name, p in plain.named_parameters():
        if name.endswith("weight"):
            nn.init.orthogonal_(p, generator=generator)
    x = torch.randn(BATCH, DEPTH_WIDTH, generator=generator, dtype=torch.float64)

    def size(attention: str, **options: Any) -> float:
        m = next_layer_attention.convert(plain, "*", attention, **options)
        m(x).square().sum().backward()
        first, last = m.get_parameter("linear0.bias").grad, m.get_parameter(f"linear{depth - 1}.bias").grad
        assert first is not None
        assert last is not None
        return float(first.norm() / last.norm())

    true = size("squared")
    return {
        f"{attention}, {'matched' if match_norm else 'bare'}": size(attention, match_norm=match_norm) / true
        for attention in ("absolute", "power", "normalised", "competitive")
        for match_norm in (True, False)
    }


def growth_with_depth() -> dict[str, Any]:
    """The median over five seeds, with the spread."""
    found = {}
    for depth in DEPTHS:
        seeds = [signal_growth(depth, seed) for seed in range(5)]
        found[f"depth {depth}"] = {
            name: interleaved.spread(np.array([growth[name] for growth in seeds])) for name in seeds[0]
        }
    return {"width": DEPTH_WIDTH, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {"rounds": options.rounds, "depth": DEPTH, "batch": BATCH}
    for width in WIDTHS:
        plain = Perceptron([width] * (DEPTH + 1), generator)
        x = torch.randn(BATCH, width, generator=generator)
        found[f"width {width}"] = ratios(plain, x, options.rounds)
    scenes = torch.randn(BATCH, 10, 6, generator=generator)
    transformer = ParticleTransformer(ModelConfig(), 6, 4, generator)
    found["particle transformer"] = ratios(transformer, scenes, options.rounds)
    found["signals at the first layer"] = growth_with_depth()
    found |= {"torch": torch.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

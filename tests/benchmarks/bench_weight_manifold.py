"""What a training step costs with weights on a manifold, in steps of plain ones: CPU time, interleaved rounds.

A perceptron of 4 layers, batches of 256 examples each at a context of its own: forward, backward, preconditioning, SGD
(goal: 1.2 K, where K is the number of points). Before timing, a batch is compared with models at single contexts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import interleaved
import numpy as np
import torch
from torch import nn

from emergence.interventions import weight_manifold
from emergence.perceptron import Perceptron

RESULTS = Path(__file__).parent / "results" / "weight_manifold.json"


class Contestant:
    """A model with its optimizer; a call is one training step."""

    def __init__(self, model: nn.Module, *inputs: torch.Tensor, is_preconditioned: bool = False) -> None:
        self.model, self.inputs, self.is_preconditioned = model, inputs, is_preconditioned
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, fused=True)

    def seconds(self) -> float:
        began = time.process_time()
        self.optimizer.zero_grad()
        (self.model(*self.inputs) - self.inputs[0]).square().mean().backward()
        if self.is_preconditioned:
            weight_manifold.precondition(self.model)
        self.optimizer.step()
        return time.process_time() - began


def check(m: nn.Module, x: torch.Tensor, s: torch.Tensor) -> None:
    """A batch of contexts is what models at each of them compute."""
    alone = torch.stack([weight_manifold.at(m, s[b])(x[b]) for b in range(4)])
    torch.testing.assert_close(m(x, s)[:4], alone, rtol=1e-4, atol=1e-4)


def race(width: int, options: argparse.Namespace) -> dict:
    """Ratios of a converted step to a plain one, by manifold."""
    generator = torch.Generator().manual_seed(0)
    plain = Perceptron([width] * (options.depth + 1), generator)
    x = torch.randn(options.batch, width, generator=generator)
    s = torch.rand(options.batch, generator=generator)
    contestants = {"plain": Contestant(plain, x)}
    for name in ("line", "ellipse"):
        m = weight_manifold.convert(plain, "linear*", name, spread=0.1, generator=generator)
        check(m, x, s)
        contestants[f"{name} without preconditioning"] = Contestant(m, x, s)
        m = weight_manifold.convert(plain, "linear*", name, spread=0.1, generator=generator)
        contestants[name] = Contestant(m, x, s, is_preconditioned=True)
    spent = np.array([[c.seconds() for c in contestants.values()] for _ in range(options.rounds + 3)])[3:]
    found = {"plain_ms": interleaved.spread(1e3 * spent[:, 0])}
    for column, (name, contestant) in enumerate(contestants.items()):
        if column:
            k = weight_manifold.manifold_of(contestant.model).n_points
            found[f"{name} over plain"] = interleaved.spread(spent[:, column] / spent[:, 0]) | {"goal": 1.2 * k}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {**vars(options), **{f"width {width}": race(width, options) for width in (128, 512)}}
    found |= {"torch": torch.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

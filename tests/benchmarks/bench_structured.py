"""What a training step costs with structured layers, in steps of plain ones: CPU time, interleaved rounds.

A perceptron of 8 layers, 128 wide, batches of 128: forward, backward, Adam (goal for the default structure: 1.5).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import interleaved
import numpy as np
import torch
from torch import nn

from emergence.interventions import structured
from emergence.perceptron import Perceptron

RESULTS = Path(__file__).parent / "results" / "structured.json"


class Contestant:
    """A model with its optimizer; a call is one training step."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        self.model, self.x = model, x
        self.optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def seconds(self) -> float:
        began = time.process_time()
        self.optimizer.zero_grad()
        (self.model(self.x) - self.x).square().mean().backward()
        self.optimizer.step()
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    plain = Perceptron([options.width] * (options.depth + 1), generator)
    x = torch.randn(options.batch, options.width, generator=generator)
    kinds: list[tuple[Any, Any]] = [(name, None) for name in structured.STRUCTURES] + [
        ("orthogonal", structured.Correction())
    ]
    contestants = {"plain": Contestant(plain, x)}
    for name, correction in kinds:
        model = structured.convert(plain, "linear*", name, correction, generator=generator)
        contestants[name if correction is None else f"{name}, corrected"] = Contestant(model, x)
    spent = np.array([[c.seconds() for c in contestants.values()] for _ in range(options.rounds + 3)])[3:]
    found = {**vars(options), "plain_ms": interleaved.spread(1e3 * spent[:, 0])}
    for column, name in enumerate(contestants):
        if column:
            found[f"{name} over plain"] = interleaved.spread(spent[:, column] / spent[:, 0])
    found |= {"torch": torch.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

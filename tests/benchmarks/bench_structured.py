"""What a training step costs with structured layers, in steps of plain ones: CPU time, interleaved rounds.

A perceptron of 8 layers, 128 wide, at four sizes of batch, and the particle transformer as the standard study trains
it: forward, backward, Adam (goal for the default structure: 1.5).
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
from emergence.interventions import structured
from emergence.model import ParticleTransformer
from emergence.perceptron import Perceptron

RESULTS = Path(__file__).parent / "results" / "structured.json"
WIDTH, DEPTH, BATCHES = 128, 8, (128, 256, 512, 1024, 4096)
LAYERS = ["linear*"]
PARTICLE_LAYERS = ["blocks.*.attn", "blocks.*.mlp"]


def ratios(
    plain: nn.Module, layers: list[str], x: torch.Tensor, structures: list[Any], n_rounds: int
) -> dict[str, Any]:
    """Milliseconds of a plain step; steps with each structure, and with the default and its correction, over it."""
    generator = torch.Generator().manual_seed(0)
    models = {name: structured.convert(plain, layers, name, None, generator=generator) for name in structures}
    models["orthogonal, corrected"] = structured.convert(plain, layers, generator=generator)
    steps = {name: training_step(model, x) for name, model in {"plain": plain, **models}.items()}
    spent = np.array([[step() for step in steps.values()] for _ in range(n_rounds + 3)])[3:]
    found = {"plain_ms": interleaved.spread(1e3 * spent[:, 0])}
    for column, name in enumerate(models, start=1):
        found[f"{name} over plain"] = interleaved.spread(spent[:, column] / spent[:, 0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {"rounds": options.rounds, "width": WIDTH, "depth": DEPTH}
    for batch in BATCHES:
        plain = Perceptron([WIDTH] * (DEPTH + 1), generator)
        x = torch.randn(batch, WIDTH, generator=generator)
        structures = list(structured.STRUCTURES) if batch == BATCHES[0] else ["orthogonal"]
        found[f"batch {batch}"] = ratios(plain, LAYERS, x, structures, options.rounds)
    scenes = torch.randn(256, 10, 6, generator=generator)
    transformer = ParticleTransformer(ModelConfig(), 6, 4, generator)
    found["particle transformer"] = ratios(transformer, PARTICLE_LAYERS, scenes, ["orthogonal"], options.rounds)
    found |= {"torch": torch.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What spatial training costs on the recurrent network of 400 units, in training steps: CPU time, interleaved rounds.

A round of swaps (goal: at most 5 steps), the price of wire, and the drawing of a batch (goal: a tenth of a step).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import interleaved
import numpy as np
import torch

from emergence.interventions import spatial
from emergence.studies.spatial.examples import example
from emergence.training import make_optimizer

RESULTS = Path(__file__).parent / "results" / "spatial.json"


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    chosen = example("cognitive")
    task = chosen.task(np.random.default_rng(0))
    model = chosen.model(torch.Generator().manual_seed(0))
    placement = chosen.place(model)
    config = chosen.training
    optimizer = make_optimizer(config, model)

    def batch() -> object:
        return task.training_batch(0, 1, config.batch_size)

    def step(priced: bool) -> None:
        optimizer.zero_grad()
        loss = task.loss(model, drawn)
        if priced:
            loss = loss + chosen.spatial.strength * spatial.wiring_cost(model, placement)
        loss.backward()
        optimizer.step()

    def exchange(n_candidates: int | None) -> None:
        with torch.no_grad():  # weights that leave much to exchange
            model.get_parameter("cell.weight_hh").copy_(
                torch.randn(400, 400, generator=torch.Generator().manual_seed(1)) / 20
            )
        swaps = spatial.swap(model, placement, optimizer, n_candidates=n_candidates)
        moved[n_candidates] = len(swaps.moved)

    drawn, moved = batch(), {}
    contestants: dict[str, Callable[[], object]] = {
        "step": lambda: step(False),
        "step with priced wire": lambda: step(True),
        "batch": batch,
        "swaps of 30 candidates": lambda: exchange(30),
        "swaps of all": lambda: exchange(None),
    }
    spent = np.array([[seconds(call) for call in contestants.values()] for _ in range(rounds + 2)])[2:]
    found = {
        "rounds": rounds,
        "step_ms": interleaved.spread(1e3 * spent[:, 0]),
        "moved": {str(k): n for k, n in moved.items()},
    }
    for column, name in enumerate(contestants):
        if column:
            found[f"{name} over step"] = interleaved.spread(spent[:, column] / spent[:, 0])
    found |= {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "n_threads": 1,
        "batch_size": config.batch_size,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

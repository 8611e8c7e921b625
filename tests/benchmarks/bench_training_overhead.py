"""What our training step costs against a bare PyTorch loop of the same network without hook points.

Both loops start from the same weights and see the same scenes with the same optimizer. First their losses are
compared; then they take turns of few steps, so that what else the machine does meets both alike. The times of a pair
are sums over its turns, and the result is the median of their ratios. Goal: at most 1.05 (issue 2).

    python tests/benchmarks/bench_training_overhead.py [--pairs 5] [--turns 16] [--steps 4] [--threads 1] [--device cpu]
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emergence.config import ModelConfig, StudyConfig, TrainingConfig
from emergence.data import Transitions, make_transitions
from emergence.interventions.intervention import Intervention
from emergence.model import ParticleTransformer
from emergence.tasks import batch_indices
from emergence.training import _make_step, learning_rate, make_optimizer
from simulators import HardSpheres, simulate


class BareBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.n_heads = config.n_heads * config.d_head, config.n_heads
        self.ln1, self.ln2 = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.q, self.k, self.v = (nn.Linear(config.d_model, width) for _ in range(3))
        self.out = nn.Linear(width, config.d_model)
        self.up, self.down = nn.Linear(config.d_model, config.d_mlp), nn.Linear(config.d_mlp, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        n, particles, _ = x.shape
        h = self.ln1(x)
        q, k, v = (p(h).view(n, particles, self.n_heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, particles, -1)
        x = x + self.out(z)
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class BareTransformer(nn.Module):
    """The network written as one would for this single purpose: torch.nn layers, no hook points."""

    def __init__(self, config: ModelConfig, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, config.d_model)
        self.blocks = nn.Sequential(*(BareBlock(config) for _ in range(config.n_layers)))
        self.ln_final = nn.LayerNorm(config.d_model)
        self.unembed = nn.Linear(config.d_model, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.unembed(self.ln_final(self.blocks(self.embed(x))))

    @torch.no_grad()
    def copy_weights(self, model: ParticleTransformer) -> None:
        """Take over the weights of ours, in torch.nn's layout."""

        def fill(linear: nn.Linear, W: Tensor, b: Tensor) -> None:
            linear.weight.copy_(W.T)
            linear.bias.copy_(b)

        fill(self.embed, model.W_E, model.b_E)
        fill(self.unembed, model.W_U, model.b_U)
        self.ln_final.load_state_dict(model.ln_final.state_dict())
        for bare, ours in zip(self.blocks, model.layers, strict=True):
            assert isinstance(bare, BareBlock)
            attn, mlp = ours.attn, ours.mlp
            for linear, W, b in (
                (bare.q, attn.W_Q, attn.b_Q),
                (bare.k, attn.W_K, attn.b_K),
                (bare.v, attn.W_V, attn.b_V),
            ):
                fill(linear, W.transpose(0, 1).flatten(1), b.flatten())
            fill(bare.out, attn.W_O.flatten(0, 1), attn.b_O)
            fill(bare.up, mlp.W_in, mlp.b_in)
            fill(bare.down, mlp.W_out, mlp.b_out)
            bare.ln1.load_state_dict(ours.ln1.state_dict())
            bare.ln2.load_state_dict(ours.ln2.state_dict())


def bare_loop(model: BareTransformer, data: Transitions, config: TrainingConfig) -> Callable[[int, int], float]:
    """The shortest loop that does the same work."""
    optimizer = make_optimizer(config, model)
    features, targets = data.batch

    def steps(first: int, n: int) -> float:
        loss = torch.zeros(())
        for step in range(first, first + n):
            index = torch.from_numpy(batch_indices(0, step, len(features), config.batch_size)).to(features.device)
            optimizer.param_groups[0]["lr"] = learning_rate(config, step - 1)
            optimizer.zero_grad()
            loss = F.mse_loss(model(features[index]), targets[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    return steps


def our_loop(model: ParticleTransformer, data: Transitions, config: TrainingConfig) -> Callable[[int, int], float]:
    """The inside of ``emergence.training.train``."""
    take_step = _make_step(model, make_optimizer(config, model), data, config, Intervention())

    def steps(first: int, n: int) -> float:
        loss = torch.zeros(())
        for step in range(first, first + n):
            batch = data.training_batch(0, step, config.batch_size)
            loss = take_step(learning_rate(config, step - 1), batch, step)
        return loss.item()

    return steps


def seconds(steps: Callable[[int, int], float], first: int, n: int, device: str) -> float:
    """CPU time of this process on the CPU (the machine may be shared), wall time on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    steps(first, n)
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--turns", type=int, default=16, help="turns of each loop in a pair")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    study = StudyConfig()
    rng = np.random.default_rng(0)
    data = make_transitions(
        simulate(HardSpheres(), n_systems=100, n_frames=51, frame_interval=0.1, rng=rng), device=args.device
    )
    torch.set_num_threads(args.threads)  # after numba started its pool, which sets it
    ours = ParticleTransformer(study.model, 6, 4, torch.Generator().manual_seed(0)).to(args.device)
    bare = BareTransformer(study.model, 6, 4).to(args.device)
    bare.copy_weights(ours)
    config = study.training
    loops = {"ours": our_loop(ours, data, config), "bare": bare_loop(bare, data, config)}

    losses = {name: loop(1, 20) for name, loop in loops.items()}  # also the warm-up
    if not math.isclose(losses["ours"], losses["bare"], rel_tol=1e-3):
        raise SystemExit(f"the two networks differ: {losses}")
    spent = {"ours": [0.0] * args.pairs, "bare": [0.0] * args.pairs}
    step = 21
    for pair in range(args.pairs):
        for turn in range(args.turns):
            for name in ("ours", "bare") if turn % 2 == 0 else ("bare", "ours"):
                spent[name][pair] += seconds(loops[name], step, args.steps, args.device) / args.turns
            step += args.steps
    ratios = [a / b for a, b in zip(spent["ours"], spent["bare"], strict=True)]
    print(
        json.dumps(
            {
                "ratio": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                "ms_per_step": {name: 1e3 * statistics.median(values) for name, values in spent.items()},
                "n_pairs": args.pairs,
                "n_steps_a_pair": args.turns * args.steps,
                "loss_after_20_steps": losses,
                "batch_size": config.batch_size,
                "device": args.device,
                "n_threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "machine": platform.processor() or platform.machine(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

"""Head probes against TransformerLens: recorded patterns (B11), and what heads track over checkpoints (B12).

B11. Patterns of all layers by ``record_outputs`` and by ``run_with_cache(names_filter=...)``, against a plain forward
of the same explicit attention. Gate: the same bits. Goal: our overhead at most half of theirs.

B12. 100 checkpoints x 8 heads x 5 quantities, rank correlation and mutual information with a permutation null of
both, against two loops over checkpoints, heads and quantities around ``run_with_cache``: one as it is usually
written (scipy and ``histogram2d`` in each permutation), one with ranks and bins hoisted out of the permutations. Same
permutations for all. Gate: values equal to 1e-6, and the same p-values. Goal: at least 5 times the first.

    python tests/benchmarks/bench_heads.py [--rounds 5] [--checkpoints 20] [--permutations 99] [--quick]
"""

import argparse
import time
from collections.abc import Callable

import interleaved
import numpy as np
import torch
from scipy import stats

from emergence.config import ModelConfig
from emergence.data import make_transitions
from emergence.model import ParticleTransformer
from probes import attention_patterns, record_outputs, what_heads_track
from simulators import HardSpheres, contact_impulse, simulate, time_to_contact

N_BINS = 24
"""As ``what_heads_track`` cuts 130 scenes of 10 particles or more; the loops by hand do the same."""


def models(n: int, n_features: int) -> list[ParticleTransformer]:
    """Checkpoints: as good as any for speed, all different."""
    config = ModelConfig(n_layers=2, n_heads=4)
    return [ParticleTransformer(config, n_features, 4, torch.Generator().manual_seed(seed)).eval() for seed in range(n)]


def seconds(call: Callable[[], object], n: int) -> float:
    began = time.process_time()
    for _ in range(n):
        call()
    return (time.process_time() - began) / n


# B11


@torch.no_grad()
def patterns_recorded(model: ParticleTransformer, features: torch.Tensor, rounds: int, n_calls: int) -> dict:
    """Median overheads over a plain forward, in seconds, and their ratio in each round."""
    model.use_explicit_attention()
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]

    def plain() -> object:
        return model(features)

    def ours() -> dict:
        return record_outputs(model, [features], names)

    def theirs() -> dict:
        return model.run_with_cache(features, names_filter=names)[1]

    a, b = ours(), theirs()
    if not all(torch.equal(a[name], b[name]) for name in names):
        raise SystemExit("the recorded patterns differ")
    contestants = [plain, ours, theirs]
    for contestant in contestants:
        seconds(contestant, 10)
    spent = np.empty((rounds, 3))
    for turn in range(rounds):
        turns = np.zeros(3)
        for k in range(20):  # short turns: what else the machine does meets all alike
            for c in range(3) if k % 2 == 0 else (2, 1, 0):
                turns[c] += seconds(contestants[c], n_calls)
        spent[turn] = turns / 20
    over = spent[:, 1:] - spent[:, :1]
    return {
        "plain_ms": interleaved.spread(1e3 * spent[:, 0]),
        "ours_over_plain_ms": interleaved.spread(1e3 * over[:, 0]),
        "transformer_lens_over_plain_ms": interleaved.spread(1e3 * over[:, 1]),
        "our_overhead_over_theirs": interleaved.spread(over[:, 0] / over[:, 1]),
    }


# B12


class Scenes:
    """Evaluation scenes and five quantities of their pairs."""

    def __init__(self, n_scenes: int) -> None:
        run = simulate(
            HardSpheres(), n_systems=n_scenes // 10, n_frames=11, frame_interval=0.1, rng=np.random.default_rng(0)
        )
        data = make_transitions(run)
        self.features = data.batch.features
        self.groups = data.scene_system.numpy()
        dx, dv = data.separations.numpy(), (data.velocities[:, :, None] - data.velocities[:, None]).numpy()
        distance = data.distances.numpy()
        with np.errstate(invalid="ignore"):
            closing = -(dx * dv).sum(-1) / distance
        closing[:, range(closing.shape[1]), range(closing.shape[1])] = 0.0
        due = time_to_contact(run)[:, :-1].reshape(distance.shape)
        self.quantities = {
            "distance": distance,
            "closing speed": closing,
            "time to contact": np.where(np.isfinite(due), due, 10.0),  # beyond the run
            "contact": data.contacts.numpy(),
            "impulse": contact_impulse(run).reshape(distance.shape),
        }


def tracked_by_us(checkpoints: list[ParticleTransformer], scenes: Scenes, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and p-values, shape (2 measures, quantity, head of all checkpoints)."""
    pattern = np.concatenate([p for model in checkpoints for p in attention_patterns(model, [scenes.features])], axis=1)
    got = what_heads_track(
        pattern, scenes.quantities, rng=np.random.default_rng(1), groups=scenes.groups, n_permutations=n
    )
    measures = got.rank_correlation, got.mutual_information
    return np.stack([m.value for m in measures]), np.stack([m.p_value for m in measures])


def relabellings(scenes: Scenes, n_particles: int, n: int) -> list[np.ndarray]:
    """The permutations that ``what_heads_track`` draws, the observed order first."""
    rng, labels = np.random.default_rng(1), np.tile(np.arange(n_particles), (scenes.groups.max() + 1, 1))
    drawn = []
    for _ in range(1 + n):
        drawn.append(labels[scenes.groups])
        labels = rng.permuted(labels, axis=-1)
    return drawn


def bins(values: np.ndarray) -> np.ndarray:
    return (N_BINS * (stats.rankdata(values) - 0.5) / values.size).astype(np.int64)


def information(table: np.ndarray) -> float:
    """Plug-in mutual information less the Miller-Madow bias."""
    n, a, b = table.sum(), table.sum(1), table.sum(0)
    p, q = table / n, np.outer(a, b) / table.sum() ** 2
    full = p > 0
    bias = (full.sum() - (a > 0).sum() - (b > 0).sum() + 1) / (2 * n)
    return float((p[full] * np.log(p[full] / q[full])).sum() - bias)


def centred(ranks: np.ndarray) -> np.ndarray:
    return ranks - ranks.mean(-1, keepdims=True)


def most(quantity: np.ndarray) -> float:
    """What a perfect order would reach."""
    ordered = np.sort(centred(stats.rankdata(quantity, axis=-1)), axis=-1)
    return float((ordered * (np.arange(ordered.shape[-1]) - (ordered.shape[-1] - 1) / 2)).sum())


def by_hand(
    checkpoints: list[ParticleTransformer], scenes: Scenes, n: int, *, hoisted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The loop around TransformerLens' cache."""
    n_particles = scenes.features.shape[1]
    off = ~np.eye(n_particles, dtype=bool)
    drawn, scene = relabellings(scenes, n_particles, n), np.arange(len(scenes.features))[:, None, None]

    def partners(pairs: np.ndarray) -> np.ndarray:
        return pairs[:, off].reshape(len(pairs), n_particles, n_particles - 1)

    values, p_values = [], []
    for model in checkpoints:
        _, cache = model.run_with_cache(scenes.features, names_filter=lambda name: name.endswith("hook_pattern"))
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                attention = partners(
                    cache[f"blocks.{layer}.attn.hook_pattern"][:, head].detach().numpy().astype(np.float64)
                )
                for quantity in scenes.quantities.values():
                    measure = _hoisted if hoisted else _each_time
                    found = measure(attention, quantity.astype(np.float64), drawn, scene, partners)
                    values.append(found[0].copy())
                    found[:, 0] = np.abs(found[:, 0])
                    p_values.append((found >= found[0] - 1e-9).mean(0))
    shape = (len(checkpoints) * 8, len(scenes.quantities), 2)
    return tuple(np.reshape(x, shape).transpose(2, 1, 0) for x in (values, p_values))  # type: ignore[return-value]


def _each_time(attention, quantity, drawn, scene, partners) -> np.ndarray:
    found = []
    for labels in drawn:
        q = partners(quantity[scene, labels[:, :, None], labels[:, None]])
        a_ranks, q_ranks = stats.rankdata(attention, axis=-1), stats.rankdata(q, axis=-1)
        r = (centred(a_ranks) * centred(q_ranks)).sum() / most(q)
        table = np.histogram2d(bins(attention), bins(q), bins=N_BINS, range=[[0, N_BINS]] * 2)[0]
        found.append((r, information(table)))
    return np.array(found)


def _hoisted(attention, quantity, drawn, scene, partners) -> np.ndarray:
    a_ranks, a_bins = centred(stats.rankdata(attention, axis=-1)), bins(attention)
    largest = most(partners(quantity))
    q_ranks, q_bins = np.zeros(quantity.shape), np.zeros(quantity.shape, dtype=np.int64)
    off = ~np.eye(quantity.shape[-1], dtype=bool)
    q_ranks[:, off] = centred(stats.rankdata(partners(quantity), axis=-1)).reshape(len(quantity), -1)
    q_bins[:, off] = bins(partners(quantity)).reshape(len(quantity), -1)
    found = []
    for labels in drawn:
        i, j = labels[:, :, None], labels[:, None]
        r = (a_ranks * partners(q_ranks[scene, i, j])).sum() / largest
        cells = a_bins * N_BINS + partners(q_bins[scene, i, j]).ravel()
        found.append((r, information(np.bincount(cells, minlength=N_BINS**2).reshape(N_BINS, N_BINS))))
    return np.array(found)


def tracking(rounds: int, n_checkpoints: int, n_permutations: int, n_scenes: int) -> dict:
    """Rounds of fresh checkpoints; seconds a checkpoint and the two ratios."""
    scenes = Scenes(n_scenes)
    everyone = models(rounds * n_checkpoints, scenes.features.shape[-1])
    spent, worst = np.empty((rounds, 3)), 0.0
    for turn in range(rounds):
        checkpoints = everyone[turn * n_checkpoints : (turn + 1) * n_checkpoints]
        contestants: list[Callable] = [
            lambda c=checkpoints: tracked_by_us(c, scenes, n_permutations),
            lambda c=checkpoints: by_hand(c, scenes, n_permutations, hoisted=False),
            lambda c=checkpoints: by_hand(c, scenes, n_permutations, hoisted=True),
        ]
        results: list = [None] * 3
        for k in range(3) if turn % 2 == 0 else (2, 1, 0):
            began = time.process_time()
            results[k] = contestants[k]()
            spent[turn, k] = (time.process_time() - began) / n_checkpoints
        worst = max(worst, *(np.abs(results[0][0] - other[0]).max() for other in results[1:]))
        if worst > 1e-6 or not all(np.allclose(results[0][1], other[1]) for other in results[1:]):
            raise SystemExit(f"the measures differ by {worst}, or the p-values do")
        print(f"round {turn}: {spent[turn].round(3).tolist()} s a checkpoint", flush=True)
    return {
        "ours_s": interleaved.spread(spent[:, 0]),
        "usual_loop_s": interleaved.spread(spent[:, 1]),
        "hoisted_loop_s": interleaved.spread(spent[:, 2]),
        "usual_loop_over_ours": interleaved.spread(spent[:, 1] / spent[:, 0]),
        "hoisted_loop_over_ours": interleaved.spread(spent[:, 2] / spent[:, 0]),
        "largest_difference": worst,
    }


def patterns(rounds: int) -> dict:
    """B11 at two sizes."""
    (model,) = models(1, 6)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for n_scenes, n_particles, n_calls in ((16, 8, 20), (250, 10, 3)):
        features = torch.randn(n_scenes, n_particles, 6, generator=generator)
        found[f"batch {n_scenes} x {n_particles}"] = patterns_recorded(model, features, rounds, n_calls)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoints", type=int, default=20, help="a round")
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=["patterns", "tracking"], default=["patterns", "tracking"])
    parser.add_argument("--quick", action="store_true", help="a look: two rounds of two checkpoints, nothing written")
    args = parser.parse_args()
    if args.scenes < 130:
        parser.error("--scenes must be at least 130, so that all cut into 24 bins")
    if args.quick:
        args.rounds, args.checkpoints = 2, 2
    torch.set_num_threads(1)
    if "patterns" in args.only:
        interleaved.write_result("heads_patterns", patterns(args.rounds), vars(args))
    if "tracking" in args.only:
        found = tracking(args.rounds, args.checkpoints, args.permutations, args.scenes)
        interleaved.write_result("heads_tracking", found, vars(args))


if __name__ == "__main__":
    main()

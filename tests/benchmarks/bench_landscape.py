"""Leading eigenvalues, spectral density and blocks of heads: side by side with the libraries people use for them.

Three races, each after a look at who is right. ``eigenvalues``: top 20 of a particle transformer of 48,000 parameters
on 64 scenes, against float64 ARPACK. ``density``: 3 probes of 80 steps on one of 2,000 parameters, whose whole Hessian
fits. ``heads``: a product with the block of one head. ``sizes``: a product in forward+backward passes, as models grow.

All contestants of a round take one turn each, in an order that is reversed every other round; the result is the median
of the ratios. Time is CPU time of this process on one thread. Rivals that are not installed are left out; to have them
without another torch: ``pip install --no-deps curvlinops-for-pytorch==3.0.1 backpack-for-pytorch unfoldNd einconv
linear_operator hessian-eigenthings==1.0.0a5 pyhessian==0.1 tqdm``.

    python tests/benchmarks/bench_landscape.py [--rounds 5] [--only eigenvalues density heads sizes] [--quick]
"""

from __future__ import annotations

from interleaved import spread, write_result  # isort: skip  (before numpy: it limits the threads)

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from scipy.sparse.linalg import eigsh as _eigsh
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from emergence.config import ModelConfig
from emergence.data import make_transitions
from emergence.model import ParticleTransformer
from probes import SplitLoss, degeneracy, head_parameters, hessian_blocks, spectral_density, top_eigenvalues
from probes.landscape import curvature_operator
from simulators import HardSpheres, simulate

eigsh: Any = _eigsh  # its annotations know no tolerance that is a float
Contestants = dict[str, Callable[[], Any]]
PACKAGES = ("torch", "scipy", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Written out: forward mode over torch's own loss fails in torch 2.13."""
    return (output - target).square().mean()


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return squared_error(model(batch[0]), batch[1])


SPLIT = SplitLoss(lambda model, batch: model(batch[0]), lambda output, batch: squared_error(output, batch[1]))


def trained_model(n_scenes: int, **sizes: int) -> tuple[ParticleTransformer, tuple[Tensor, Tensor]]:
    """A particle transformer after 300 steps of Adam, and the scenes to probe it on."""
    run = simulate(HardSpheres(), n_systems=16, n_frames=33, frame_interval=0.1, rng=np.random.default_rng(0))
    features, targets = make_transitions(run).batch
    features, targets = features.float(), targets.float()
    model = ParticleTransformer(ModelConfig(**sizes), features.shape[-1], targets.shape[-1], _seeded(0))
    model.use_explicit_attention()
    optimizer, generator = torch.optim.Adam(model.parameters(), 1e-3), _seeded(1)
    for _ in range(300):
        index = torch.randint(len(features), (64,), generator=generator)
        optimizer.zero_grad()
        loss_fn(model, (features[index], targets[index])).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval(), (features[:n_scenes], targets[:n_scenes])


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_products(model: nn.Module, batch: Any) -> tuple[int, Callable]:
    """Hessian-vector products in float64, written out: the reference for all."""
    model = copy.deepcopy(model).double()
    chosen = list(model.parameters())
    loss = loss_fn(model, tuple(t.double() for t in batch))
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, chosen, create_graph=True)])

    def product(vector: np.ndarray) -> np.ndarray:
        found = torch.autograd.grad(flat, chosen, torch.from_numpy(np.ravel(vector)), retain_graph=True)
        return torch.cat([g.flatten() for g in found]).numpy()

    return len(flat), product


def top_exact(n: int, product: Callable, k: int) -> np.ndarray:
    operator: Any = LinearOperator((n, n), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    values = eigsh(
        operator, k, which="LA", tol=1e-10, return_eigenvectors=False, v0=np.random.default_rng(0).normal(size=n)
    )
    return np.sort(values)[::-1]


def race(contestants: Contestants, rounds: int) -> dict[str, Any]:
    """CPU seconds of each, and how many times those of the first it took."""
    seconds = np.empty((rounds, len(contestants)))
    for turn in range(rounds):
        order = list(enumerate(contestants.values()))
        for k, contestant in order if turn % 2 == 0 else reversed(order):
            began = time.process_time()
            contestant()
            seconds[turn, k] = time.process_time() - began
    found = {}
    for k, name in enumerate(contestants):
        found[name] = {"cpu_s": spread(seconds[:, k])}
        if k:
            found[name]["over_first"] = spread(seconds[:, k] / seconds[:, 0])
        print(
            name,
            {key: f"{v['median']:.3g} [{v['min']:.3g}, {v['max']:.3g}]" for key, v in found[name].items()},
            flush=True,
        )
    return found


def rival(name: str) -> Any:
    """The module of a rival, or None after saying that it is left out."""
    try:
        return import_module(name)
    except ImportError as error:
        print(f"without {name}: {error}")
        return None


def operator_of_curvlinops(module: Any, model: nn.Module, batch: Any) -> Any:
    model = copy.deepcopy(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return module.HessianLinearOperator(model, _SquaredError(), parameters, [batch], check_deterministic=False)


class _SquaredError(nn.MSELoss):
    """What curvlinops asks for, without torch's own loss."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return squared_error(input, target)


def eigenvalues(rounds: int) -> dict[str, Any]:
    """B8."""
    model, batch = trained_model(64, d_model=44, n_layers=2, n_heads=4, d_head=11, d_mlp=176)
    n, product = exact_products(model, batch)
    truth, k = top_exact(n, product, 20), 20
    contestants: Contestants = {
        "ours": lambda: top_eigenvalues(model, [batch], loss_fn=loss_fn, k=k, generator=_seeded(0)).values
    }
    if (he := rival("hessian_eigenthings")) is not None:

        def eigenthings() -> np.ndarray:
            operator = he.HessianOperator(copy.deepcopy(model), [batch], loss_fn)
            return he.lanczos(operator, k=k, max_iter=80, reorthogonalize=True, which="LA", seed=0).eigenvalues.numpy()

        contestants["hessian-eigenthings, 80 steps"] = eigenthings
    if (curvlinops := rival("curvlinops")) is not None:

        def arpack() -> np.ndarray:
            operator = operator_of_curvlinops(curvlinops, model, batch).to_scipy()
            return eigsh(operator, k, which="LA", tol=1e-3, return_eigenvectors=False)

        contestants["curvlinops + eigsh"] = arpack
    if (pyhessian := rival("pyhessian")) is not None:

        def powers() -> np.ndarray:
            return np.array(
                pyhessian.hessian(copy.deepcopy(model), squared_error, batch, cuda=False).eigenvalues(top_n=k)[0]
            )

        contestants["PyHessian"] = powers
    errors = {}
    for name, contestant in contestants.items():  # also the warm-up
        values = np.sort(np.asarray(contestant(), dtype=float))[::-1]
        errors[name] = float(np.max(np.abs(values - truth) / np.abs(truth)))
        print(f"{name}: largest relative error {errors[name]:.2g}", flush=True)
    if errors["ours"] > 1e-5:
        raise SystemExit(f"ours is off by {errors['ours']:.2g}")
    found = top_eigenvalues(model, [batch], loss_fn=loss_fn, k=k, generator=_seeded(0))
    return {
        "n_parameters": n,
        "n_products_of_ours": found.n_matvecs,
        "max_relative_error": errors,
        "times": race(contestants, rounds),
    }


def density(rounds: int) -> dict[str, Any]:
    """B9, on a model fitted to four scenes until most of its directions are null."""
    model, batch = trained_model(4, d_model=8, n_layers=2, n_heads=2, d_head=4, d_mlp=32)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
    for _ in range(2000):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    n, product = exact_products(model, batch)
    truth = np.linalg.eigvalsh(np.stack([product(row) for row in np.eye(n)]))
    share = float((np.abs(truth) < 1e-4 * np.abs(truth).max()).mean())

    def ours(seed: int) -> Any:
        options: dict[str, Any] = {"loss_fn": loss_fn, "generator": _seeded(seed)}
        return spectral_density(model, [batch], n_probes=3, n_steps=80, **options)

    contestants: Contestants = {"ours": lambda: degeneracy(ours(0))}
    rules: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
        "ours": lambda seed: ((found := ours(seed)).nodes, found.weights)
    }
    if (he := rival("hessian_eigenthings")) is not None:

        def eigenthings(seed: int) -> Any:
            operator = he.HessianOperator(copy.deepcopy(model), [batch], loss_fn)
            return he.spectral_density(operator, num_runs=3, lanczos_steps=80, seed=10 * seed)

        contestants["hessian-eigenthings"] = lambda: eigenthings(0)
        rules["hessian-eigenthings"] = lambda seed: (
            (found := eigenthings(seed)).raw_eigenvalues.numpy(),
            found.raw_weights.numpy(),
        )
    if (curvlinops := rival("curvlinops")) is not None:
        papyan = import_module("curvlinops.papyan2020traces.spectrum")
        operator = operator_of_curvlinops(curvlinops, model, batch)

        def papyans(_seed: int) -> tuple[np.ndarray, np.ndarray]:
            """What its density is made of; drawn from the global generator."""
            pairs = [papyan.fast_lanczos(operator, 80) for _ in range(3)]
            values, vectors = zip(*pairs, strict=True)
            return torch.stack(values).numpy(), torch.stack(vectors)[:, 0].numpy() ** 2

        ends = (float(truth[0]), float(truth[-1]))  # given: to find the lower one among the null takes it minutes
        contestants["curvlinops"] = lambda: curvlinops.lanczos_approximate_spectrum(
            operator, 80, num_repeats=3, boundaries=ends
        )
        rules["curvlinops"] = papyans
    accuracy = {name: [_compared(truth, *rule(seed)) for seed in range(5)] for name, rule in rules.items()}
    flat = [degeneracy(ours(seed)) for seed in range(5)]
    for found, f in zip(accuracy["ours"], flat, strict=True):
        found |= {"near_null_share": f.near_null_share, "near_null_interval": f.near_null_interval}
    accuracy = {name: {key: [each[key] for each in found] for key in found[0]} for name, found in accuracy.items()}
    print(f"true share {share:.4f}", accuracy, flush=True)
    mine = accuracy["ours"]
    if np.median(mine["wasserstein_1"]) > 1.3e-3 or np.ptp([share, *mine["near_null_share"]]) > 0.02:
        print("ours misses the gate")
    return {"n_parameters": n, "true_near_null_share": share, "accuracy": accuracy, "times": race(contestants, rounds)}


def _compared(truth: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """A quadrature rule against all eigenvalues; the share is counted from its nodes."""
    top = nodes.max(axis=1, keepdims=True)
    return {
        "wasserstein_1": wasserstein_distance(truth, nodes.ravel(), None, weights.ravel()) / np.ptp(truth),
        "near_null_share": float((weights * (np.abs(nodes) < 1e-4 * np.abs(nodes).max())).sum(axis=1).mean()),
        "copies_of_the_top_value": int((np.abs(nodes - top) < 1e-4 * top).sum(axis=1).max()),
    }


def heads(rounds: int) -> dict[str, Any]:
    """B10."""
    model, batch = trained_model(64, d_model=44, n_layers=2, n_heads=4, d_head=11, d_mlp=176)
    blocks = {name: masks for name, masks in head_parameters(model).items() if name.startswith("blocks.0.")}
    found = hessian_blocks(
        model, [batch], loss_fn=loss_fn, blocks=blocks, k=5, n_probes=2, n_steps=20, generator=_seeded(0)
    )
    errors = {}
    exact = copy.deepcopy(model).double()
    tensors = dict(exact.named_parameters())
    for name, masks in blocks.items():
        index = torch.cat(
            [masks.get(key, torch.zeros_like(p, dtype=torch.bool)).flatten() for key, p in tensors.items()]
        )
        rows = index.nonzero()[:, 0].numpy()
        n, product = exact_products(model, batch)
        dense = np.stack([product(np.eye(1, n, row)[0])[rows] for row in rows]) if name.endswith("head0") else None
        values = np.linalg.eigvalsh(dense)[::-1][:5] if dense is not None else _top_of_rows(n, product, rows)
        errors[name] = float(np.max(np.abs(found[name].eigenvalues.values - values) / values))
    print("largest relative errors", errors, flush=True)
    if max(errors.values()) > 1e-4:
        raise SystemExit("ours is off")
    n_products, times = 20, {}
    for layer in range(2):
        masks = head_parameters(model)[f"blocks.{layer}.attn.head0"]
        with curvature_operator(model, [batch], loss_fn=loss_fn, parameters=masks) as ours:
            vector = ours.random_normal(_seeded(0))
            contestants: Contestants = {"ours": lambda ours=ours, v=vector: [ours(v) for _ in range(n_products)]}
            if (curvlinops := rival("curvlinops")) is not None:
                whole = operator_of_curvlinops(curvlinops, model, batch)
                index = torch.cat(
                    [
                        masks.get(key, torch.zeros_like(p, dtype=torch.bool)).flatten()
                        for key, p in model.named_parameters()
                    ]
                )
                rows = index.nonzero()[:, 0].tolist()
                block = curvlinops.SubmatrixLinearOperator(whole, rows, rows)
                difference = float((block @ vector - ours(vector)).norm() / ours(vector).norm())
                print(f"layer {layer}: products differ by {difference:.2g}", flush=True)
                contestants["curvlinops submatrix"] = lambda b=block, v=vector: [b @ v for _ in range(n_products)]
            for contestant in contestants.values():
                contestant()
            times[f"layer {layer}"] = race(contestants, 3 * rounds)
    n_entries = next(iter(found.values())).n_entries
    return {"n_entries": n_entries, "max_relative_error": errors, "n_products_a_turn": n_products, "times": times}


def _rows(model: nn.Module, masks: dict[str, Tensor]) -> np.ndarray:
    """Positions of the masked entries in the flat vector of all parameters."""
    chosen = [masks.get(name, torch.zeros_like(p, dtype=torch.bool)) for name, p in model.named_parameters()]
    return torch.cat([mask.flatten() for mask in chosen]).nonzero()[:, 0].numpy()


def _top_of_rows(n: int, product: Callable, rows: np.ndarray) -> np.ndarray:
    def block(vector: np.ndarray) -> np.ndarray:
        whole = np.zeros(n)
        whole[rows] = np.ravel(vector)
        return product(whole)[rows]

    return top_exact(len(rows), block, 5)


def sizes(rounds: int) -> dict[str, Any]:
    """What a product costs as the model grows."""
    found, n_turns = {}, 10
    for d_model in (16, 32, 64, 128):
        model, batch = trained_model(64, d_model=d_model, n_layers=2, n_heads=4, d_head=d_model // 4, d_mlp=4 * d_model)
        parameters = list(model.parameters())

        def gradient(model: nn.Module = model, batch: Any = batch, parameters: Any = parameters) -> None:
            for _ in range(n_turns):
                torch.autograd.grad(loss_fn(model, batch), parameters)

        contestants: Contestants = {"gradient": gradient}
        with (
            curvature_operator(model, [batch], loss_fn=loss_fn) as kept,
            curvature_operator(model, [batch], loss_fn=loss_fn, memory_budget=0) as rebuilt,
            curvature_operator(model, [batch], loss_fn=SPLIT, matrix="ggn") as gauss_newton,
        ):
            vector = kept.random_normal(_seeded(0))
            operators = {"graph kept": kept, "graph rebuilt": rebuilt, "gauss-newton": gauss_newton}
            for name, operator in operators.items():
                contestants[name] = lambda o=operator, v=vector: [o(v) for _ in range(n_turns)]
            for contestant in contestants.values():
                contestant()
            times = race(contestants, rounds)
        found[kept.n_entries] = {
            "gradient_ms": 1e3 * times["gradient"]["cpu_s"]["median"] / n_turns,
            **{name: times[name]["over_first"] for name in operators},
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    races = {race.__name__: race for race in (eigenvalues, density, heads, sizes)}
    parser.add_argument("--only", nargs="+", choices=races, default=list(races))
    parser.add_argument("--quick", action="store_true", help="one round, nothing written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # after numba started its pool, which sets it
    warnings.filterwarnings("ignore", category=UserWarning)  # of the rivals
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    for name in arguments.only:
        print(f"== {name}", flush=True)
        found = races[name](1 if arguments.quick else arguments.rounds)
        write_result(f"landscape_{name}", {"versions_raced": versions, name: found}, vars(arguments))


if __name__ == "__main__":
    main()

"""One contestant of ``bench_llc.py`` in an interpreter of its own, told line by line what to measure.

Reads a task a line as JSON, answers a line: value, its error from the spread between chains, CPU and wall seconds.
Needs torch and the contestant alone:

    python llc_worker.py ours|devinterp1|devinterp2|canonical FOLDER

``FOLDER/model.pt`` and ``FOLDER/data.pt`` hold what all contestants measure.
"""

import contextlib
import io
import itertools
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
D_MODEL, N_HEADS, N_LAYERS, D_HEAD = 44, 4, 2, 11
NOISE_VARIANCE = 0.01
"""The squared error is divided by twice this, so that it is a negative log-likelihood."""


class Block(nn.Module):
    """Pre-norm attention over particles, heads along the first axis of each weight, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(0.15 * torch.randn(N_HEADS, D_MODEL, D_HEAD)) for _ in range(3))
        self.W_O = nn.Parameter(0.15 * torch.randn(N_HEADS, D_HEAD, D_MODEL))
        self.ln1, self.ln2 = nn.LayerNorm(D_MODEL), nn.LayerNorm(D_MODEL)
        self.mlp = nn.Sequential(nn.Linear(D_MODEL, 4 * D_MODEL), nn.GELU(), nn.Linear(4 * D_MODEL, D_MODEL))

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln1(x).unsqueeze(-3)  # scene 1 particle d_model
        q, k, v = h @ self.W_Q, h @ self.W_K, h @ self.W_V  # scene head particle d_head
        pattern = (q @ k.transpose(-1, -2) / D_HEAD**0.5).softmax(-1)
        x = x + ((pattern @ v) @ self.W_O).sum(-3)
        return x + self.mlp(self.ln2(x))


class ParticleTransformer(nn.Module):
    """Particles in, change of state out; 47 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.unembed = nn.Linear(6, D_MODEL), nn.Linear(D_MODEL, 4)
        self.blocks = nn.Sequential(*(Block() for _ in range(N_LAYERS)))
        self.ln_final = nn.LayerNorm(D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        return self.unembed(self.ln_final(self.blocks(self.embed(x))))


class Regression(nn.Module):
    """Twenty weights, no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(20))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


MODELS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "transformer": (ParticleTransformer, NOISE_VARIANCE),
    "regression": (Regression, 1.0),
}
"""Factory and noise variance."""


class PopulationLoss(nn.Module):
    """A model of ``learning_coefficients.py`` whose output, for any input, is its loss."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.model, self.loss_fn = known.model, known.loss_fn

    def forward(self, x: Tensor) -> Tensor:
        return self.loss_fn(self.model, x)


def criterion(variance: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean over the batch and the outputs of the squared error over twice the variance."""
    return lambda out, y: 0.5 * (out - y).square().mean() / variance


def head_masks(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The slices of each head: name to boolean masks."""
    masks = {}
    for layer, head in itertools.product(range(N_LAYERS), range(N_HEADS)):
        of_head = {}
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            full = f"blocks.{layer}.{name}"
            of_head[full] = torch.zeros_like(model.get_parameter(full), dtype=torch.bool)
            of_head[full][head] = True
        masks[f"{layer}.{head}"] = of_head
    return masks


class Task:
    """What is measured: model at w*, data and settings."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        if "known" in request:
            self.model, self.x = PopulationLoss(known_model(request["known"])), torch.zeros(1, 1, dtype=torch.float64)
            self.y, self.criterion = self.x, lambda out, y: out
        else:
            make, variance = MODELS[request["model"]]
            self.model = make()
            self.model.load_state_dict(torch.load(folder / f"{request['model']}.pt"))
            self.x, self.y = torch.load(folder / f"{request['model']}_data.pt")
            self.criterion = criterion(variance)
        self.model.eval()
        self.batch_size: int = request["batch_size"]
        self.n_chains: int = request["n_chains"]
        self.n_draws: int = request["n_draws"]
        self.n_burnin: int = request.get("n_burnin", 0)
        self.step_size: float = request["step_size"]
        self.localization: float = request["localization"]
        self.nbeta: float = request["nbeta"]
        self.seed: int = request["seed"]
        self.own_init_loss: bool = request.get("own_init_loss", False)
        self.at_zero_step: bool = request.get("at_zero_step", False)
        self.compiled: bool = request.get("compiled", False)
        self.scopes = head_masks(self.model) if request.get("heads") else {"model": None}

    @property
    def init_loss(self) -> float:
        with torch.no_grad():
            return self.criterion(self.model(self.x), self.y).item()


def known_model(arguments: list[Any]) -> Any:
    """A model of published coefficient, by the name of its maker and what that takes."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import learning_coefficients  # pyright: ignore[reportMissingImports]

    maker, *sizes = arguments
    if maker == "linear_network":
        return learning_coefficients.linear_network(*sizes[:-1], rank=sizes[-1])
    return getattr(learning_coefficients, maker)(*sizes)


Chains = dict[str, list[float]]
"""Scope to the value of each chain."""


def ours(task: Task) -> Chains:
    """This library: all scopes in one call."""
    from probes import estimate_llcs

    batches = list(zip(task.x.split(task.batch_size), task.y.split(task.batch_size), strict=True))
    got = estimate_llcs(
        task.model,
        batches,
        scopes=task.scopes,
        loss_fn=lambda m, b: task.criterion(m(b[0]), b[1]),
        nbeta=task.nbeta,
        step_size=task.step_size,
        localization=task.localization,
        n_chains=task.n_chains,
        n_draws=task.n_draws,
        n_burnin=task.n_burnin,
        compiled=task.compiled,
        generator=torch.Generator().manual_seed(task.seed),
    )
    if task.at_zero_step:
        return {scope: [e.value_at_zero_step] for scope, e in got.items()}
    return {scope: e.per_chain.tolist() for scope, e in got.items()}


def devinterp1(task: Task) -> Chains:
    """Devinterp 1.3.2: any model through ``evaluate``; scopes as masks, one after another."""
    from devinterp.optim import SGLD  # pyright: ignore[reportMissingImports]
    from devinterp.slt.sampler import (  # pyright: ignore[reportMissingImports]
        estimate_learning_coeff_with_summary,
    )

    shuffle = torch.Generator().manual_seed(task.seed)
    loader = DataLoader(TensorDataset(task.x, task.y), batch_size=task.batch_size, shuffle=True, generator=shuffle)
    settings = {"lr": task.step_size, "nbeta": task.nbeta, "localization": task.localization}
    found = {}
    for scope, masks in task.scopes.items():
        if masks is not None:
            masks = {n: masks.get(n, torch.zeros_like(p, dtype=torch.bool)) for n, p in task.model.named_parameters()}
        got = estimate_learning_coeff_with_summary(
            task.model,
            loader=loader,
            evaluate=lambda m, b: task.criterion(m(b[0]), b[1]),
            sampling_method=SGLD,
            optimizer_kwargs=dict(settings),
            num_draws=task.n_draws,
            num_chains=task.n_chains,
            num_burnin_steps=task.n_burnin,
            init_loss=None if task.own_init_loss else task.init_loss,
            seed=task.seed,
            verbose=False,
            optimize_over_per_model_param=masks,
        )
        found[scope] = [got[f"llc-chain/{i}"] for i in range(task.n_chains)]
    return found


def devinterp2(task: Task) -> Chains:
    """Devinterp 2.0.1, made for language models: a sample's number is its token, the loss looks the sample up.

    It writes every sample's loss to disk, which is part of its time. Its average includes the burn-in.
    """
    from datasets import Dataset
    from devinterp.slt.llc import llc  # pyright: ignore[reportMissingImports]

    numbers = Dataset.from_dict({"input_ids": [[i, i] for i in range(len(task.x))]}).with_format("torch")

    def loss_fn(model: nn.Module, input_ids: Tensor) -> Tensor:
        chosen = input_ids[:, 0]
        losses = [task.criterion(model(task.x[chosen]), task.y[chosen])]
        return torch.stack(losses).expand(len(chosen))[:, None]  # its mean is the batch's

    found = {}
    for scope, masks in task.scopes.items():
        got = llc(
            task.model,
            numbers,
            {},
            lr=task.step_size,
            n_beta=task.nbeta,
            localization=task.localization,
            num_chains=task.n_chains,
            num_draws=task.n_draws,
            num_burnin_steps=task.n_burnin,
            batch_size=task.batch_size,
            num_init_loss_batches=len(task.x) // task.batch_size,
            init_seed=task.seed,
            match_sampling_input_ids_across_chains=False,
            param_masks=masks,
            loss_fn=loss_fn,
            device="cpu",
        )
        found[scope] = got["llc_per_chain"].values.tolist()
    return found


def canonical(task: Task) -> Chains:
    """canonical-interp 0.1.5, eager; without scopes. Its init loss pass is part of its time."""
    from canonical_interp import LLCEstimator  # pyright: ignore[reportMissingImports]

    shuffle = torch.Generator().manual_seed(task.seed)
    loader = DataLoader(TensorDataset(task.x, task.y), batch_size=task.batch_size, shuffle=True, generator=shuffle)
    estimator = LLCEstimator(
        draws=task.n_draws,
        chains=task.n_chains,
        burnin_steps=task.n_burnin,
        steps_bw_draws=1,
        learning_rate=task.step_size,
        localization=task.localization,
        nbeta=task.nbeta,
    )
    estimator.estimate_llc(
        task.model, loader, criterion_fn=task.criterion, seed=task.seed, compile=False, show_progress=False
    )
    return {"model": estimator.get_metrics()["llcs"].tolist()}


CONTESTANTS = {"ours": ours, "devinterp1": devinterp1, "devinterp2": devinterp2, "canonical": canonical}


def _prepare(name: str) -> None:
    """Silence, and what canonical-interp 0.1.5 needs on Python 3.11: a function of 3.12, and its step uncompiled."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if name == "canonical":
        os.environ["TORCHDYNAMO_DISABLE"] = "1"

        def batched(values: Any, n: int) -> Any:
            values = list(values)
            return (values[i : i + n] for i in range(0, len(values), n))

        itertools.batched = getattr(itertools, "batched", batched)  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    _prepare(name)
    for line in sys.stdin:
        task = Task(folder, json.loads(line))
        cpu, wall = time.process_time(), time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            chains = CONTESTANTS[name](task)
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({"chains": chains, **spent}), flush=True)


if __name__ == "__main__":
    main()

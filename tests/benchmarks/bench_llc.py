"""Local learning coefficients side by side with the libraries people use: equal model, data, settings, gradients.

Each contestant works in a process of its own and is told one task at a time; they take turns, so that what else the
machine does meets all alike. Time is CPU time of the process on one thread. First the values are compared: a ratio
counts only if its gate says ``"passed": true``.

- ``whole_64``, ``whole_8``: a particle transformer, batches of 64 with 4 chains and of 8 with 16 chains; gate: our
  value and the rival's differ by no more than rounds do (Welch's test, p at least 0.0455, what 2 standard errors are):
  chains of canonical-interp share their minibatches, so their own spread is too small. Rivals draw batches by epochs,
  which reads 1.5 % more at batches of 8 (see ``sample_losses``): with more rounds that gate has to fail.
- ``regression_full``, ``regression_100``: 20 weights, 1000 samples; gate: ours and the rival's within 5 % of the
  closed form, ours over 16 further seeds.
- ``heads_64``, ``heads_8``: each of 8 heads alone, 4 chains each; gate: the same, p times 8 heads.
- ``spread``: 40 seeds of the regression at equal gradients, against devinterp 1.3.2 with the init loss it takes by
  itself; goal: a quarter of its standard deviation, bias at most 5 %.
- ``known``: nine models of published coefficient, ours, ours extrapolated to a step of zero, and devinterp 1.3.2 at
  equal gradients, the init loss known; half an hour, nearly all of it the rival's.
- ``chains``: what a step costs a chain, for ours, from 1 chain to 32.

Devinterp 2.0.1 writes every sample's loss to disk, which is part of its time. Rivals are named by the interpreter of
an environment that has them; the others are left out. canonical-interp spends a gradient of all chains on every batch
before the first step; ``per_gradient`` counts those as work.

With ``--compiled`` our step is compiled, before the clock starts: what a sweep pays once, for tens of seconds.

    python tests/benchmarks/bench_llc.py [--devinterp1 PYTHON] [--devinterp2 PYTHON] [--canonical PYTHON] [--compiled]
"""

from interleaved import spread, write_result  # isort: skip (limits threads before numpy comes)

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rivals import llc_worker
from scipy.stats import ttest_ind

HERE = Path(__file__).parent
TRANSFORMER = {"model": "transformer", "nbeta": 80.0, "step_size": 2e-5, "localization": 100.0}
REGRESSION = {"model": "regression", "nbeta": 1000 / math.log(1000), "step_size": 2.5e-4, "localization": 5.0}
LONG = {"n_chains": 4, "n_draws": 1000, "n_burnin": 100}
TASKS: dict[str, dict[str, Any]] = {
    "whole_64": {**TRANSFORMER, "batch_size": 64, "n_chains": 4, "n_draws": 200},
    "whole_8": {**TRANSFORMER, "batch_size": 8, "n_chains": 16, "n_draws": 200},
    "regression_full": {**REGRESSION, **LONG, "batch_size": 1000},
    "regression_100": {**REGRESSION, **LONG, "batch_size": 100},
    "heads_64": {**TRANSFORMER, "step_size": 1e-4, "batch_size": 64, "n_chains": 4, "n_draws": 40, "heads": True},
    "heads_8": {**TRANSFORMER, "step_size": 1e-4, "batch_size": 8, "n_chains": 4, "n_draws": 40, "heads": True},
}
LEAST_P = 0.0455
GOALS = {
    "whole_64": {"devinterp1": 1.2, "devinterp2": 1.8},
    "whole_8": {"devinterp1": 2.5, "devinterp2": 7.0, "canonical": 1.2},
    "regression_full": {"devinterp1": 10.0, "devinterp2": 3.0},
    "regression_100": {"devinterp1": 3.5, "devinterp2": 4.0},
    "heads_64": {"devinterp1": 2.0, "devinterp2": 2.0},
    "heads_8": {"devinterp1": 4.0, "devinterp2": 4.0},
}


KNOWN: list[list[Any]] = [
    ["regular", 4],
    ["regular", 20],
    ["crossing", 2, 4],
    ["crossing", 2, 6],
    ["linear_network", 4, 1, 2, 0],
    ["linear_network", 6, 2, 3, 0],
    ["linear_network", 2, 2, 2, 0],
    ["linear_network", 4, 2, 3, 1],
    ["linear_network", 3, 2, 3, 2, 1],
]
"""Makers of ``learning_coefficients.py``, widths, and the rank last; all of multiplicity 1."""
STEPS = {("linear_network", 3, 2, 3, 2, 1): 2e-5}


class Contestant:
    """A process that measures what it is told."""

    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.name = name
        command = [python, str(HERE / "rivals" / "llc_worker.py"), name, str(folder)]
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "TMPDIR": str(folder)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def measure(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Run one task; return the chains' values by scope, and seconds."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} died; its error is printed above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def make_files(folder: Path) -> float:
    """Write model and data of both problems; return the regression's exact value under its localized posterior."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        x = torch.randn(512, 10, 6)
        nearest = (torch.cdist(x[..., :2], x[..., :2]) + 10 * torch.eye(10)).argmin(-1)
        partner = torch.gather(x, 1, nearest[..., None].expand(-1, -1, 6))
        y = 0.3 * (x[..., 2:] - partner[..., 2:]) + llc_worker.NOISE_VARIANCE**0.5 * torch.randn(512, 10, 4)
        model = llc_worker.ParticleTransformer()
        optimizer, loss = torch.optim.Adam(model.parameters(), lr=2e-3), torch.zeros(())
        for step in range(400):
            chosen = torch.arange(64) + 64 * (step % 8)
            loss = llc_worker.criterion(1.0)(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"transformer: {sum(p.numel() for p in model.parameters())} parameters, half squared error {loss:.3f}")
        torch.save(model.state_dict(), folder / "transformer.pt")
        torch.save((x, y), folder / "transformer_data.pt")
        x = torch.randn(1000, 20)
        y = x @ torch.randn(20) + torch.randn(1000)
        torch.save({"w": torch.linalg.lstsq(x, y[:, None]).solution[:, 0]}, folder / "regression.pt")
        torch.save((x, y), folder / "regression_data.pt")
    stiff = REGRESSION["nbeta"] * torch.linalg.eigvalsh(x.double().T @ x.double() / 1000)
    return float((0.5 * stiff / (stiff + REGRESSION["localization"])).sum())


def race(
    name: str, contestants: Sequence[Contestant], rounds: int, exact: float, *, compiled: bool = False
) -> dict[str, Any]:
    """Let all take turns over the task; return seconds, values, gates and our ratios."""
    task = {**TASKS[name], "compiled": compiled}  # rivals do not look at it
    able = [c for c in contestants if c.name == "ours" or c.name in GOALS[name]]
    seconds = {c.name: np.empty(rounds) for c in able}
    rounds_of: dict[str, dict[str, list[float]]] = {c.name: {} for c in able}

    def note(c: Contestant, got: Mapping[str, Any]) -> None:
        for scope, values in got["chains"].items():
            rounds_of[c.name].setdefault(scope, []).append(float(np.mean(values)))

    for c in able:
        c.measure({**task, "seed": 999, "n_draws": 4, "n_burnin": 0})  # imports, first calls
    for turn in range(rounds):
        for c in able if turn % 2 == 0 else reversed(able):
            got = c.measure({**task, "seed": 1000 * (turn + 1)})  # rivals seed chain i with seed + i
            seconds[c.name][turn] = got["cpu"]
            note(c, got)
    if name.startswith("regression"):  # five percent take more chains than the rounds have
        for seed in range(16):
            note(able[0], able[0].measure({**task, "seed": seed}))
    found: dict[str, Any] = {"ours": {"cpu_s": spread(seconds["ours"]), "value": _values(rounds_of["ours"])}}
    for c in able[1:]:
        gate = (
            _near(exact, rounds_of, c.name)
            if name.startswith("regression")
            else _alike(rounds_of["ours"], rounds_of[c.name])
        )
        ratio = spread(seconds[c.name] / seconds["ours"])
        found[c.name] = {
            "cpu_s": spread(seconds[c.name]),
            "value": _values(rounds_of[c.name]),
            "gate": gate,
            "ours_faster": ratio,
            "goal": GOALS[name][c.name],
            "reached": bool(gate["passed"] and ratio["median"] >= GOALS[name][c.name]),
        }
        if c.name == "canonical":
            n_batches = 512 // TASKS[name]["batch_size"]
            found[c.name]["per_gradient"] = ratio["median"] / (1 + n_batches / TASKS[name]["n_draws"])
        print(
            f"{name:16} {c.name:10} {ratio['median']:6.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] times, goal "
            f"{GOALS[name][c.name]}; gate {gate}",
            flush=True,
        )
    return found


def _values(scopes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Mean and standard error over rounds."""
    return {s: [float(np.mean(v)), float(np.std(v, ddof=1) / math.sqrt(len(v)))] for s, v in scopes.items()}


def _alike(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Welch's test of each scope; with a few rounds two standard errors are crossed too easily."""
    a, b = _values(ours), _values(theirs)
    z = np.array([(a[s][0] - b[s][0]) / math.hypot(a[s][1], b[s][1]) for s in a])
    tests: list[Any] = [ttest_ind(ours[s], theirs[s], equal_var=False) for s in a]
    least = min(float(test.pvalue) for test in tests)
    return {"passed": least * len(z) >= LEAST_P, "p_value": min(1.0, least * len(z)), "largest_z": float(abs(z).max())}


def _near(exact: float, rounds_of: Mapping[str, Mapping[str, Sequence[float]]], rival: str) -> dict[str, Any]:
    errors = {name: float(np.mean(rounds_of[name]["model"])) / exact - 1 for name in ("ours", rival)}
    return {"passed": all(abs(e) <= 0.05 for e in errors.values()), "relative_errors": errors}


def seed_spread(contestants: Sequence[Contestant], seeds: int, exact: float) -> dict[str, Any]:
    """Values over seeds at equal gradients: ours against devinterp 1.3.2 with its own init loss."""
    task = {**REGRESSION, "batch_size": 100, "n_chains": 4, "n_draws": 250, "n_burnin": 100, "own_init_loss": True}
    found: dict[str, Any] = {"exact": exact}
    for c in (c for c in contestants if c.name in ("ours", "devinterp1")):
        values = [np.mean(c.measure({**task, "seed": seed})["chains"]["model"]) for seed in range(seeds)]
        found[c.name] = {"relative_bias": np.mean(values) / exact - 1, "standard_deviation": np.std(values, ddof=1)}
    if "devinterp1" in found:
        ratio = found["ours"]["standard_deviation"] / found["devinterp1"]["standard_deviation"]
        found["ours_over_devinterp1"] = ratio
        found["reached"] = bool(ratio <= 0.25 and abs(found["ours"]["relative_bias"]) <= 0.05)
    print("spread", found, flush=True)
    return found


def known_values(contestants: Sequence[Contestant], seeds: int) -> dict[str, Any]:
    """Mean absolute relative error against published coefficients, at equal gradients, nbeta 1000, localization 1."""
    length = {"n_chains": 8, "n_draws": 20_000, "n_burnin": 20_000}  # flat directions relax in 20 000 steps
    settings = {"nbeta": 1000.0, "localization": 1.0, "batch_size": 1, **length}
    found: dict[str, Any] = {}
    racers = {c.name: (c, False) for c in contestants if c.name in ("ours", "devinterp1")}
    racers["ours at zero step"] = (contestants[0], True)
    for name, (c, at_zero_step) in racers.items():
        errors = np.empty((len(KNOWN), seeds))
        for k, known in enumerate(KNOWN):
            step_size, published = STEPS.get((*known,), 1e-4), llc_worker.known_model(known).coefficient
            task = {"model": "known", "known": known, "step_size": step_size, "at_zero_step": at_zero_step, **settings}
            for seed in range(seeds):
                value = np.mean(c.measure({**task, "seed": 1000 * (seed + 1)})["chains"]["model"])
                errors[k, seed] = value / published - 1
        found[name] = {
            "relative_error": {" ".join(map(str, known)): e for known, e in zip(KNOWN, errors.mean(1), strict=True)},
            "mean_absolute_relative_error": float(np.mean(np.abs(errors))),
        }
        print("known", name, found[name], flush=True)
    return found


def chain_curve(ours: Contestant, rounds: int) -> dict[str, Any]:
    """CPU milliseconds a step and chain at batch 8, the numbers of chains in turn; the loading is subtracted."""
    counts = (1, 2, 4, 8, 16, 32)
    milliseconds = {n: np.empty(rounds) for n in counts}
    for turn in range(rounds):
        for n in counts:
            task = {**TASKS["whole_8"], "n_chains": n, "seed": turn}
            short, long = (ours.measure({**task, "n_draws": n_draws})["cpu"] for n_draws in (10, 40))
            milliseconds[n][turn] = 1e3 * (long - short) / 30 / n
    curve = {str(n): spread(values) for n, values in milliseconds.items()}
    print("chains", {n: round(s["median"], 2) for n, s in curve.items()}, flush=True)
    return curve


def main() -> None:
    """Make the data, let all measure, write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for rival in ("devinterp1", "devinterp2", "canonical"):
        parser.add_argument(f"--{rival}", help="interpreter of an environment that has it")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument(
        "--only", nargs="*", metavar="PART", help="the parts named above, in this order; all by default"
    )
    parser.add_argument("--compiled", action="store_true", help="ours compiled, in races; kept in another file")
    parser.add_argument("--quick", action="store_true", help="write nothing down")
    arguments = parser.parse_args()
    compiled, file = arguments.compiled, "llc_compiled" if arguments.compiled else "llc"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        exact = make_files(folder)
        contestants = [Contestant("ours", sys.executable, folder)]
        for rival in ("devinterp1", "devinterp2", "canonical"):
            if getattr(arguments, rival):
                contestants.append(Contestant(rival, getattr(arguments, rival), folder))
            else:
                print(f"without {rival}: no interpreter named")
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            **{name: partial(race, name, contestants, arguments.rounds, exact, compiled=compiled) for name in TASKS},
            "spread": partial(seed_spread, contestants, arguments.seeds, exact),
            "known": partial(known_values, contestants, 1),
            "chains": partial(chain_curve, contestants[0], arguments.rounds),
        }
        result: dict[str, Any] = {}
        settings = {"quick": arguments.quick, "rounds": arguments.rounds, "tasks": TASKS, "torch": torch.__version__}
        for name in arguments.only or parts:
            result[name] = parts[name]()
            settings["seconds"] = time.perf_counter() - began
            write_result(file, result, settings)  # after each part: a run cut short keeps what it has
        for c in contestants:
            c.close()


if __name__ == "__main__":
    main()

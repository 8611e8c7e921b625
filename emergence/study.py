"""A whole study: simulate, train, probe, report. Each stage skips what is done, so any stop can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import StudyConfig
from .files import write_aside, write_json
from .progress import Progress, Silent
from .run import Run, create_run

if TYPE_CHECKING:
    import pandas as pd

    from probes.sweep import Probe

STAGES = ("simulate", "train", "probe", "report")


def run_study(config: StudyConfig, out: Path | str, *, progress: Progress | None = None) -> Run:
    """Run every stage of a study in ``out``; called again after a stop, it goes on where it was.

    Args:
        config: all settings; ``emergence.presets`` has three to begin from.
        out: the run folder, new or of the same configuration.
        progress: shows the stages; None shows nothing.

    Returns:
        The run, with ``measurements``, ``summary`` and ``report.html`` in its folder.

    Raises:
        ValueError: the folder holds a run with other settings.
        BlockingIOError: another process is at work in the folder.
        CheckpointError: a checkpoint is damaged.
    """
    run = create_run(out, config)
    for stage in STAGES:
        run_stage(run, stage, progress=progress)
    return run


def run_stage(run: Run, stage: str, *, progress: Progress | None = None) -> None:
    """Run one stage of an existing run; earlier stages must be done."""
    from .devices import threads

    work = {"simulate": simulate_stage, "train": train_stage, "probe": probe_stage, "report": report_stage}[stage]
    # Probes are thousands of small operations, too small to share between threads.
    n_threads = 1 if stage == "probe" else run.config.n_threads
    with run.exclusive(), threads(n_threads), _timed(run, stage):
        work(run, progress or Silent())


def simulate_stage(run: Run, progress: Progress) -> None:
    """Write the trajectories of every arm."""
    from .simulation import simulate_arm

    arms = dict.fromkeys(arm for arm, _ in run.cells)
    with progress.stage("simulate collisions", len(arms)) as advance:
        for done, arm in enumerate(arms, start=1):
            simulate_arm(run, arm)
            advance(done)


def train_stage(run: Run, progress: Progress) -> None:
    """Train every cell (arm and seed), leaving checkpoints and metrics."""
    from .interventions.begin import begin
    from .training import missing_steps, train

    config = run.config.training
    for arm, seed in run.cells:
        checkpoints = run.checkpoints(seed, arm)
        if not missing_steps(config, checkpoints):
            continue
        data, _ = run.transitions(arm)
        model = checkpoints.make_model().to(data.batch.features.device)
        with progress.stage(f"train on {arm}, seed {seed}", config.n_steps) as advance:
            train(
                model,
                data,
                config,
                seed=seed,
                checkpoints=checkpoints,
                intervention=begin(run.config.intervention, model, config.n_steps),
                metrics_file=checkpoints.folder / "metrics.jsonl",
                on_step=advance,
            )


def probe_stage(run: Run, progress: Progress) -> None:
    """Measure every checkpoint and gather measurements.parquet."""
    import pandas as pd

    tables = []
    for arm, seed in run.cells:
        tables.append(_probe_cell(run, arm, seed, progress).assign(arm=arm))
    table = pd.concat(tables, ignore_index=True)
    write_aside(run.folder / "measurements.parquet", lambda path: table.to_parquet(path, index=False))


def _probe_cell(run: Run, arm: str, seed: int, progress: Progress) -> pd.DataFrame:
    import pandas as pd

    from probes import sweep_checkpoints

    checkpoints = run.checkpoints(seed, arm)
    if not checkpoints.steps:
        raise FileNotFoundError(f"no checkpoint in {checkpoints.folder}; train first: emergence train {run.folder}")
    plan = _probe_plan(run, arm, checkpoints.steps)
    cells = sum(len(steps) for _, steps in plan)
    tables, done = [], 0
    with progress.stage(f"probe {arm}, seed {seed}", cells) as advance:
        for probe, steps in plan:

            def count(name: str, step: int) -> None:
                nonlocal done
                done += 1
                advance(done)

            tables.append(
                sweep_checkpoints(
                    checkpoints, [probe], store=run.folder / "measurements", seed=seed, steps=steps, on_cell=count
                )
            )
    return pd.concat(tables, ignore_index=True)


def _probe_plan(run: Run, arm: str, steps: list[int]) -> list[tuple[Probe, list[int]]]:
    """Which probe visits which checkpoints. Ghosts need no landscape: the control is about heads."""
    from . import measuring

    _, data = run.transitions(arm)
    identity = _data_identity(run, arm)
    config = run.config
    if arm == "ghosts":
        steps = spread(steps, config.probes.n_control_checkpoints)
    plan: list[tuple[Probe, list[int]]] = [
        (measuring.loss_probe(data, identity), steps),
        (measuring.head_probe(data, config, identity), steps),
        (measuring.causal_probe(data, config, identity), spread(steps, config.probes.n_causal_checkpoints)),
    ]
    if arm == "discs":
        plan += [
            (measuring.hessian_probe(data, config, identity), spread(steps, config.probes.hessian.n_checkpoints)),
            (measuring.llc_probe(data, config, identity), spread(steps, config.probes.llc.n_checkpoints)),
        ]
    return plan


def spread(steps: list[int], n: int) -> list[int]:
    """The last step and others, ``n`` in all, evenly spread over the list (which is log-spaced)."""
    count = min(n, len(steps))
    if count == 1:
        return steps[-1:]
    return sorted({steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count)} | {steps[-1]})


def _data_identity(run: Run, arm: str) -> str:
    """Hash of the evaluation trajectories, so that a cell measured on other data is another cell."""
    from .checkpoints import file_sha256

    return file_sha256(run.folder / "trajectories" / arm / "evaluation" / "manifest.json")[:16]


def report_stage(run: Run, progress: Progress) -> None:
    """Write the figures, report.html and summary.json."""
    from .findings import summarize
    from .report import write_report

    start = time.perf_counter()
    with progress.stage("write the report", 2) as advance:
        summary = summarize(run, stage_seconds(run))
        advance(1)
        write_report(run, summary)
        seconds = {**summary["seconds"], "report": time.perf_counter() - start}
        write_json(run.folder / "summary.json", {**summary, "seconds": seconds})
        advance(2)


@contextmanager
def _timed(run: Run, stage: str) -> Iterator[None]:
    """Add the seconds a stage took to timings.json; a resumed stage adds up."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = stage_seconds(run)
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        write_json(run.folder / "timings.json", seconds)


def stage_seconds(run: Run) -> dict[str, Any]:
    """Seconds spent in each stage so far."""
    path = run.folder / "timings.json"
    return json.loads(path.read_text()) if path.is_file() else {}

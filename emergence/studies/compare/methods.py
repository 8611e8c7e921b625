"""Runs of methods by name, made for a comparison: the same study, one intervention each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...config import AnyIntervention, StudyConfig
from ...interventions.settings import NextLayerAttention, Plain, Spatial, Structured, WeightManifold
from ...progress import Progress

METHODS: dict[str, AnyIntervention] = {
    "plain": Plain(),
    "spatial": Spatial(),
    "structured": Structured(),
    "weight-manifold": WeightManifold(),
    "next-layer-attention": NextLayerAttention(),
}
"""Methods with their default settings; for others, make runs with ``emergence run`` and compare their folders."""


def run_methods(
    named: Sequence[str], config: StudyConfig, out: Path, *, progress: Progress | None = None
) -> list[Path]:
    """Run each method that is named, in a folder of its own in ``out``; called again, it goes on where it was.

    Args:
        named: names of ``METHODS``, or run folders, which are taken as they are.
        config: the study that all share but for the intervention.
        out: folder of the comparison.
        progress: shows the stages; None shows nothing.

    Returns:
        The run folders, in the order named.

    Raises:
        ValueError: a folder there holds a run with other settings.
        BlockingIOError: another process is at work in it.
    """
    from ...study import run_study

    folders = []
    for name in named:
        if name in METHODS:
            run_study(replace(config, intervention=METHODS[name]), out / name, progress=progress)
        folders.append(out / name if name in METHODS else Path(name))
    return folders

"""Three studies to begin from. Every number is a field of the configuration and can be set on the command line."""

from __future__ import annotations

from .config import (
    DataConfig,
    HessianConfig,
    LLCConfig,
    PresetName,
    ProbeConfig,
    StudyConfig,
    TrainingConfig,
)


def preset(name: PresetName | str) -> StudyConfig:
    """Return a preset by name.

    Raises:
        ValueError: unknown name.
    """
    if name not in _PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(_PRESETS)}")
    return _PRESETS[name]()


def quick() -> StudyConfig:
    """A minute or so: too short for good numbers, long enough to see a head turn towards contacts."""
    return StudyConfig(
        preset="quick",
        ghost_control=False,
        data=DataConfig(n_systems=600, n_evaluation_systems=20),
        training=TrainingConfig(n_steps=600, batch_size=128, n_checkpoints=12),
        probes=ProbeConfig(
            n_scenes=300,
            n_permutations=199,
            n_knockout_edges=256,
            llc=LLCConfig(n_draws=50, n_burnin=50, n_checkpoints=3),
            hessian=HessianConfig(n_scenes=64, n_top=5, n_probes=2, n_steps=20, n_checkpoints=2),
        ),
    )


def standard() -> StudyConfig:
    """The default: about five minutes on two cores, one seed and the ghost control."""
    return StudyConfig(preset="standard")


def paper() -> StudyConfig:
    """Five seeds, more checkpoints, more draws: for a GPU or patience."""
    return StudyConfig(
        preset="paper",
        seeds=(0, 1, 2, 3, 4),
        data=DataConfig(n_systems=10_000, n_evaluation_systems=200),
        training=TrainingConfig(n_steps=20_000, n_checkpoints=60),
        probes=ProbeConfig(
            n_scenes=4000,
            n_permutations=999,
            n_knockout_edges=4096,
            llc=LLCConfig(n_draws=1000, n_burnin=1000, batch_size=64, n_checkpoints=30),
            hessian=HessianConfig(n_scenes=1024, n_top=20, n_probes=8, n_steps=80, n_checkpoints=20),
        ),
    )


_PRESETS = {"quick": quick, "standard": standard, "paper": paper}

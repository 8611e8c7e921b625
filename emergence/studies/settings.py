"""What the settings of the methods' studies have in common."""

from __future__ import annotations

from typing import Any

from ..config import SGD, AdamW, TrainingConfig, _require


def require_distinct(settings: object, *names: str) -> None:
    """Refuse an empty list, and one that names anything twice."""
    for name in names:
        values = getattr(settings, name)
        _require(0 < len(values) == len(set(values)), name, "distinct, and at least one", values)


def require_rates_and_seeds(settings: Any) -> None:
    """Refuse learning rates and seeds that no run can have."""
    require_distinct(settings, "learning_rates", "seeds")
    _require(min(settings.learning_rates) > 0, "learning_rates", "positive", settings.learning_rates)
    _require(min(settings.seeds) >= 0, "seeds", "zero or positive", settings.seeds)


def scheduled_training(settings: Any, optimizer: SGD | AdamW, n_checkpoints: int) -> TrainingConfig:
    """The same schedule for every arm of a study: a short rise, and a fall over the last quarter."""
    return TrainingConfig(
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        optimizer=optimizer,
        n_warmup_steps=settings.n_steps // 20,
        n_decay_steps=settings.n_steps // 4,
        n_checkpoints=n_checkpoints,
    )

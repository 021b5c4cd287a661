"""What a training run is told, and what it says of an epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ml.augmentation import AugmentationConfig
from ml.models import ModelConfig


class TrainingError(Exception):
    """Training cannot start or go on; ``str()`` says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything but the data that a run depends on.

    ``learning_rate`` is for a batch of 128 and grows with it. ``emotion_weight``
    adds the loss over the four emotions alone to that over all that people saw.
    ``faces_per_epoch`` cuts an epoch short where a whole one costs too much.
    ``mixup_share`` and ``cutmix_share`` are shares of the batches. ``device``
    ``auto`` takes a GPU where there is one; ``precision`` ``auto`` is bf16 where
    the hardware multiplies it. ``teachers`` are the hashes of the models whose word
    is ``teacher_share`` of the targets (``ml.distillation``).
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig | None = field(default_factory=AugmentationConfig)
    seed: int = 0
    epochs: int = 60
    faces_per_epoch: int | None = None
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: float = 2.0
    ema_decay: float = 0.999
    label_smoothing: float = 0.0
    emotion_weight: float = 1.0
    mixup_share: float = 0.3
    mixup_alpha: float = 0.3
    cutmix_share: float = 0.1
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    loader_threads: int = 0
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError("epochs must be at least 1 and batch_size at least 2")
        if not 0 < self.learning_rate < math.inf or self.seed < 0:
            raise ValueError(
                "learning_rate must be a positive number, seed not negative"
            )
        if not 0 <= self.warmup_epochs < math.inf:
            raise ValueError("warmup_epochs must be a number, not negative")
        if not 0 < self.ema_decay < 1:
            raise ValueError("ema_decay must lie in (0, 1)")
        if not 0 <= self.mixup_share + self.cutmix_share <= 1:
            raise ValueError("mixup_share and cutmix_share must not exceed 1 together")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"unknown precision {self.precision!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of the curves. Losses are means a face; the rest lies in [0, 1] and
    is measured with the averaged weights."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    learning_rate: float
    duration_seconds: float


def config_from_dict(raw: dict[str, Any]) -> TrainConfig:
    """The inverse of ``TrainConfig.to_dict``, also after JSON turned tuples."""

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }

    raw = dict(raw)
    augmentation = raw.pop("augmentation")
    return TrainConfig(
        model=ModelConfig(**tuples(raw.pop("model"))),
        augmentation=(
            None if augmentation is None else AugmentationConfig(**tuples(augmentation))
        ),
        **tuples(raw),
    )

"""What others read of the registry."""

from __future__ import annotations

from pathlib import Path

from ml.inference import WEIGHTS_DIR
from webapp.registry.models import ModelVersion


def get_champion() -> ModelVersion | None:
    """The version that serves; None before the first one was registered."""
    return ModelVersion.objects.filter(is_champion=True).first()


def model_path(model_version: ModelVersion) -> Path:
    """Where its ONNX file lies."""
    return WEIGHTS_DIR / model_version.path

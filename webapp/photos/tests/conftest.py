from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from django.conf import LazySettings

from ml.runtime import CPU
from tests.models import write_tiny_model
from webapp.photos.services.serving import ModelServer
from webapp.registry.models import ModelVersion
from webapp.registry.services import promote_model_version, register_model_version


@pytest.fixture(autouse=True)
def media(settings: LazySettings, tmp_path: Path) -> Path:
    """Files of people in a folder of the test's own."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


@pytest.fixture(autouse=True)
def fresh_model_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a worker that has loaded nothing yet."""
    monkeypatch.setattr("webapp.photos.services.processing.model_server", ModelServer())


@pytest.fixture
def champion(db: None, tmp_path: Path) -> ModelVersion:
    version = register_model_version(path=write_tiny_model(tmp_path, "tiny-1"))
    promote_model_version(model_version=version, promoted_by=None, reason="test")
    version.refresh_from_db()
    return version


@pytest.fixture
def missing_gpu(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is to use a GPU, on any machine."""
    settings.INFERENCE_PROVIDER = "cuda"
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])

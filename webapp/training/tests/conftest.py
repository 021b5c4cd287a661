from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from ml.retraining import RetrainingData, load_retraining
from webapp.accounts.models import Role, User
from webapp.curation.tests.factories import PersonFactory
from webapp.photos.services.serving import ModelServer
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_shipped_model
from webapp.training.services import base, drift, job, promotion, readings
from webapp.training.tests.factories import Labeller


@pytest.fixture(autouse=True)
def home(
    settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Files and checkpoints in a folder of the test's own, and no network that
    another test has loaded."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MIEN_HOME = tmp_path
    settings.DATASET_DIR = ""
    # The lease's thread sees nothing of a test's transaction.
    monkeypatch.setattr(job, "RENEW_EVERY_SECONDS", 3600.0)
    server = ModelServer()
    for module in (readings, drift):
        monkeypatch.setattr(module, "model_server", server)
    return tmp_path


@pytest.fixture(autouse=True)
def small_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head refitted on a quarter of the base's faces comes out four times as soon;
    those that judge are all there."""

    def load(*given: Any) -> RetrainingData:
        data = load_retraining(*given)
        return replace(
            data,
            features=data.features[::4],
            targets=data.targets[::4],
            weights=data.weights[::4],
        )

    monkeypatch.setattr(base, "load_retraining", load)


@pytest.fixture
def champion(db: None) -> ModelVersion:
    return register_shipped_model()


@pytest.fixture
def labeller(champion: ModelVersion) -> Labeller:
    return Labeller(champion)


@pytest.fixture
def admin(db: None) -> User:
    return PersonFactory(role=Role.ADMIN)


@pytest.fixture
def another_rolls_back_first(
    admin: User, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Call it, and whoever rolls back next finds that another one did so between
    their look at the champion and their rollback."""
    may = promotion.has_role

    def meanwhile(person: User, role: Role) -> bool:
        monkeypatch.setattr(promotion, "has_role", may)
        promotion.roll_back(rolled_back_by=admin)
        return may(person, role)

    return lambda: monkeypatch.setattr(promotion, "has_role", meanwhile)

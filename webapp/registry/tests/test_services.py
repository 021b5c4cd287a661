from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection, transaction

from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.manifest import ManifestError, ModelFileError, load_manifest, manifest_path
from ml.retraining import SHIPPED_RETRAINING
from tests.models import write_tiny_model
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import (
    features_name,
    get_champion,
    read_model_file,
)
from webapp.registry.services import (
    promote_model_version,
    register_model_version,
    register_shipped_model,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings: LazySettings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def registered(folder: Path, version: str) -> ModelVersion:
    return register_model_version(path=write_tiny_model(folder, version))


def promote(version: ModelVersion) -> Promotion | None:
    return promote_model_version(model_version=version, promoted_by=None, reason="test")


def test_registered_version_loads_from_the_storage_alone(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "a")
    version = register_model_version(path=path)
    path.unlink()
    manifest_path(path).unlink()

    classifier = EmotionClassifier(*read_model_file(version))

    assert classifier.manifest.version == "a"


def test_registering_again_changes_nothing(tmp_path: Path) -> None:
    assert registered(tmp_path, "a") == registered(tmp_path, "a")
    assert ModelVersion.objects.count() == 1


def test_version_that_is_taken_by_another_file_is_refused(tmp_path: Path) -> None:
    registered(tmp_path, "a")
    other = write_tiny_model(tmp_path, "a", bias=(1, 0, 0, 0))

    with pytest.raises(ModelFileError, match="registered with another file"):
        register_model_version(path=other)


def test_file_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "a")
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(ModelFileError):
        register_model_version(path=path)

    assert not ModelVersion.objects.exists()


def test_model_without_a_manifest_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "a")
    manifest_path(path).unlink()

    with pytest.raises(ManifestError):
        register_model_version(path=path)


def test_promotion_moves_the_one_champion_and_is_recorded(tmp_path: Path) -> None:
    first, second = registered(tmp_path, "a"), registered(tmp_path, "b2")
    promote(first)

    promotion = promote(second)

    assert get_champion() == second
    assert promotion is not None
    assert promotion.previous == first
    assert Promotion.objects.count() == 2


def test_rollback_is_another_promotion(tmp_path: Path) -> None:
    first, second = registered(tmp_path, "a"), registered(tmp_path, "b2")
    for version in (first, second, first):
        promote(version)

    assert get_champion() == first
    assert Promotion.objects.count() == 3


def test_promoting_the_champion_changes_nothing(tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    promote(version)

    assert promote(version) is None
    assert Promotion.objects.count() == 1


def test_database_forbids_two_champions(tmp_path: Path) -> None:
    first, second = registered(tmp_path, "a"), registered(tmp_path, "b2")
    promote(first)

    with pytest.raises(IntegrityError), transaction.atomic():
        ModelVersion.objects.filter(pk=second.pk).update(is_champion=True)


@pytest.mark.django_db(transaction=True)
def test_promotions_at_once_leave_one_champion_and_a_chain(tmp_path: Path) -> None:
    versions = [registered(tmp_path, "v" * (i + 1)) for i in range(6)]
    start = threading.Barrier(len(versions))

    def run(version: ModelVersion) -> None:
        start.wait()
        try:
            promote(version)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[version]) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ModelVersion.objects.filter(is_champion=True).count() == 1
    chain = list(Promotion.objects.order_by("created_at"))
    assert len(chain) == len(versions)
    assert sorted(str(p.previous_id) for p in chain[1:]) == sorted(
        str(p.model_version_id)
        for p in chain
        if p.model_version_id != get_champion().pk  # type: ignore[union-attr]
    )


def test_shipped_model_becomes_champion_of_an_empty_site() -> None:
    version = register_shipped_model()

    assert get_champion() == version
    assert version.version == load_manifest(SHIPPED_MODEL).version


def test_features_of_the_shipped_model_outlive_its_release() -> None:
    """The next one ships those of another network."""
    for _ in range(2):
        version = register_shipped_model()

    name = features_name(version.sha256)
    with default_storage.open(name, "rb") as handle:
        assert handle.read() == SHIPPED_RETRAINING.read_bytes()
    _, kept = default_storage.listdir("models")
    assert {f"models/{one}" for one in kept} == {version.file_name, name}


def test_starting_again_does_not_undo_a_rollback(tmp_path: Path) -> None:
    older = register_model_version(path=write_tiny_model(tmp_path, "a"), shipped=True)
    register_shipped_model()
    promote(older)

    register_shipped_model()

    assert get_champion() == older


def test_new_release_replaces_a_shipped_champion_but_not_one_of_the_site(
    tmp_path: Path,
) -> None:
    older = register_model_version(path=write_tiny_model(tmp_path, "a"), shipped=True)
    promote(older)
    assert register_shipped_model() == get_champion()

    ModelVersion.objects.filter(shipped=True, is_champion=True).update(
        is_champion=False
    )
    Promotion.objects.all().delete()
    ModelVersion.objects.exclude(pk=older.pk).delete()
    own = registered(tmp_path, "own")
    promote(own)

    register_shipped_model()

    assert get_champion() == own


def test_missing_file_is_said(tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    default_storage.delete(version.file_name)

    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model_file(version)

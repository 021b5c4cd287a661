"""Any two versions, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from ml.tests.faces import write_dataset
from tests.models import write_tiny_model
from webapp.photos.models import Photo
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import features_name
from webapp.registry.services import register_model_version
from webapp.training.errors import CannotCompare, RunFailed
from webapp.training.models import DatasetSnapshot, Split
from webapp.training.services import base, versions
from webapp.training.services.snapshots import usable_faces
from webapp.training.services.versions import compare_versions
from webapp.training.tests.factories import Labeller, head_run, take_files_away

pytestmark = pytest.mark.django_db


def test_comparison_is_kept_until_its_faces_change(
    champion: ModelVersion, labeller: Labeller
) -> None:
    labeller.faces(5)
    candidate = head_run().candidate
    assert candidate is not None
    first = compare_versions(left=champion, right=candidate)
    # Without its file a version cannot be asked any more.
    default_storage.delete(f"models/{candidate.sha256}.onnx")

    assert compare_versions(left=champion, right=candidate) == first

    held = usable_faces(snapshot=DatasetSnapshot.objects.get(), split=Split.EVALUATION)
    Photo.objects.filter(pk=held[0].photo_key).update(training_consent_at=None)
    with pytest.raises(RunFailed, match="cannot be loaded"):
        compare_versions(left=champion, right=candidate)


def test_comparison_is_made_anew_under_other_rules_and_on_other_features(
    champion: ModelVersion, labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(5)
    candidate = head_run().candidate
    assert candidate is not None
    compare_versions(left=champion, right=candidate)
    default_storage.delete(candidate.file_name)

    with monkeypatch.context() as patched:
        patched.setattr(versions, "EVALUATION_SHARE", 0.5)
        with pytest.raises(RunFailed, match="cannot be loaded"):
            compare_versions(left=champion, right=candidate)
    compare_versions(left=champion, right=candidate)
    # The next release ships those of another network: those kept are read.
    monkeypatch.setattr(base, "shipped_features_fit", lambda body: False)
    with pytest.raises(RunFailed, match="cannot be loaded"):
        compare_versions(left=champion, right=candidate)


def test_features_are_not_read_for_a_comparison_that_is_kept(
    champion: ModelVersion, labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "shipped_features_fit", lambda body: False)
    labeller.faces(5)
    candidate = head_run().candidate
    assert candidate is not None
    first = compare_versions(left=champion, right=candidate)

    take_files_away(monkeypatch)

    assert compare_versions(left=champion, right=candidate) == first


def test_features_that_ship_go_before_those_kept_of_an_earlier_release(
    champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = features_name(champion.sha256)
    default_storage.delete(name)
    default_storage.save(name, ContentFile(b"of an earlier release"))

    data, _ = base.kept_features(base.load_version(champion)[0])

    assert data.model_sha256 == champion.sha256


def test_comparison_does_not_read_the_data_folder_while_somebody_waits(
    champion: ModelVersion, settings: LazySettings, tmp_path: Path
) -> None:
    settings.DATASET_DIR = str(write_dataset(tmp_path / "faces", 2))
    other = register_model_version(path=write_tiny_model(tmp_path, "other"))

    with pytest.raises(CannotCompare, match="no features of version other"):
        compare_versions(left=champion, right=other)


def test_either_side_may_be_the_champion(
    champion: ModelVersion, labeller: Labeller
) -> None:
    labeller.faces(5)
    candidate = head_run().candidate
    assert candidate is not None
    there = compare_versions(left=champion, right=candidate).report["sets"][0]
    back = compare_versions(left=candidate, right=champion).report["sets"][0]

    assert (there["fixed"], there["broken"]) == (back["broken"], back["fixed"])
    assert there["champion"] == back["candidate"]

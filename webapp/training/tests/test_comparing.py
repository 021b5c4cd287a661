"""Any two versions, side by side."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage

from webapp.photos.models import Photo
from webapp.registry.models import ModelVersion
from webapp.training.errors import RunFailed
from webapp.training.models import DatasetSnapshot, Split
from webapp.training.services.snapshots import usable_faces
from webapp.training.services.versions import compare_versions
from webapp.training.tests.factories import Labeller, head_run

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

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from django.db import connection
from PIL import Image

from ml.labels import EMOTIONS, Emotion
from webapp.curation.models import Consensus, GoldFace
from webapp.curation.services.queue import IMPORTED
from webapp.curation.tests.factories import let_expire
from webapp.photos.models import Photo
from webapp.photos.services.consent import set_consent
from webapp.photos.services.erasure import delete_photo
from webapp.training.models import DatasetSnapshot, GoneWhy, SnapshotFace, Split
from webapp.training.services import snapshots
from webapp.training.services.lineage import choose_start, versions_with_gone_faces
from webapp.training.services.snapshots import (
    build_snapshot,
    gone_faces,
    mark_gone_faces,
    snapshot_is_intact,
    usable_faces,
)
from webapp.training.tests.factories import Labeller, head_run, png

pytestmark = pytest.mark.django_db

BASE = {"kind": "features", "sha256": "0" * 64}


def splits(snapshot: DatasetSnapshot) -> dict[object, str]:
    return dict(snapshot.faces.values_list("face_key", "split"))


def noise(seed: int, change: int = 0) -> bytes:
    """A picture like no other; ``change`` makes another that nearly is the same."""
    pixels = np.random.default_rng(seed).integers(10, 245, (48, 48), np.uint8)
    pixels[:2, :2] += change
    return png(Image.fromarray(pixels))


def test_snapshot_holds_what_people_decided_and_nothing_else(
    labeller: Labeller,
) -> None:
    kept = labeller.face(Emotion.SAD)
    for spoilt in ("gold", "open", "unclear", "withdrawn", "expired", "erased"):
        face = labeller.face(Emotion.HAPPY)
        if spoilt == "gold":
            GoldFace.objects.create(face=face, verdict="happy")
        elif spoilt == "open":
            Consensus.objects.filter(face=face).update(
                state="open", verdict="", method="none", decided_at=None
            )
        elif spoilt == "unclear":
            Consensus.objects.filter(face=face).update(verdict="unclear")
        elif spoilt == "withdrawn":
            set_consent(photos=Photo.objects.filter(pk=face.photo_id), train=False)
        elif spoilt == "expired":
            let_expire(face)
        else:
            delete_photo(photo=face.photo)

    snapshot = build_snapshot(base=BASE)

    row = snapshot.faces.get()
    assert row.face_id == row.face_key == kept.pk
    assert (row.label, row.shares, row.weight) == ("sad", [0.0, 1.0, 0.0, 0.0], 1.0)
    assert snapshot_is_intact(snapshot=snapshot)


def test_same_labels_give_the_same_snapshot_and_new_ones_another(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    first = build_snapshot(base=BASE)

    assert build_snapshot(base=BASE) == first
    labeller.face(Emotion.SAD)
    second = build_snapshot(base=BASE)

    assert (second.number, second.previous, second.counts["new"]) == (2, first, 1)
    assert second.sha256 != first.sha256


def test_how_sure_a_label_is_makes_no_new_snapshot(labeller: Labeller) -> None:
    labeller.faces(1)
    first = build_snapshot(base=BASE)
    Consensus.objects.update(quality=0.8)

    assert build_snapshot(base=BASE) == first


def test_face_stays_on_its_side_in_every_later_snapshot(labeller: Labeller) -> None:
    labeller.faces(6)
    before = splits(build_snapshot(base=BASE))
    labeller.faces(6)
    after = splits(build_snapshot(base=BASE))

    assert before.items() <= after.items()
    assert set(before.values()) == {"train", "evaluation"}


def test_faces_of_one_photo_are_never_on_both_sides(labeller: Labeller) -> None:
    for _ in range(12):
        photo = labeller.photo()
        for index in (1, 2):
            labeller.face(EMOTIONS[index], photo=photo, index=index)
    first = build_snapshot(base=BASE)
    # Of one photo another face is labelled later, when the first has lost its label.
    row = first.faces.filter(split=Split.EVALUATION).first()
    assert row is not None
    Consensus.objects.filter(face__photo=row.photo_key).delete()
    photo = Photo.objects.get(pk=row.photo_key)
    late = labeller.face(Emotion.HAPPY, photo=photo, index=3)
    second = build_snapshot(base=BASE)

    assert second.faces.get(face_key=late.pk).split == Split.EVALUATION
    for snapshot in (first, second):
        sides: dict[object, set[str]] = {}
        for photo_key, split in snapshot.faces.values_list("photo_key", "split"):
            sides.setdefault(photo_key, set()).add(split)
        assert all(len(found) == 1 for found in sides.values())


def test_near_duplicates_are_never_on_both_sides(labeller: Labeller) -> None:
    for seed in range(16):
        labeller.face(Emotion.HAPPY, crop=noise(seed))
    before = build_snapshot(base=BASE)
    twins = {
        labeller.face(Emotion.HAPPY, crop=noise(seed, change=3)).pk: seed
        for seed in range(16)
    }
    snapshot = build_snapshot(base=BASE)

    crops = {bytes(row.face.crop): row.split for row in before.faces.all()}  # type: ignore[union-attr]
    assert set(crops.values()) == {"train", "evaluation"}
    rows = snapshot.faces.filter(face_key__in=twins)
    assert len(rows) == len(twins)
    for row in rows:
        assert row.split == crops[noise(twins[row.face_key])]


def test_face_that_would_tie_both_sides_together_is_set_aside(
    labeller: Labeller,
) -> None:
    for _ in range(12):
        labeller.face(Emotion.HAPPY)
    first = build_snapshot(base=BASE)
    learned = first.faces.filter(split=Split.TRAIN).first()
    judging = first.faces.filter(split=Split.EVALUATION).first()
    assert learned is not None
    assert judging is not None
    photo = Photo.objects.get(pk=learned.photo_key)
    crop = bytes(judging.face.crop)  # type: ignore[union-attr]
    between = labeller.face(Emotion.HAPPY, photo=photo, index=2, crop=crop)

    second = build_snapshot(base=BASE)

    assert second.faces.get(face_key=between.pk).split == Split.SET_ASIDE
    assert splits(first).items() <= splits(second).items()
    assert second.counts["set_aside"] == 1


def test_changed_row_is_noticed(labeller: Labeller) -> None:
    labeller.faces(1)
    snapshot = build_snapshot(base=BASE)
    snapshot.faces.filter(label="happy").update(label="sad")

    assert not snapshot_is_intact(snapshot=snapshot)


def test_erased_and_withdrawn_faces_are_marked_in_every_snapshot(
    labeller: Labeller,
) -> None:
    faces = labeller.faces(1)
    build_snapshot(base=BASE)
    labeller.face(Emotion.SAD)
    build_snapshot(base=BASE)
    erased, withdrawn = faces[0], faces[1]
    key = erased.pk
    delete_photo(photo=erased.photo)
    set_consent(photos=Photo.objects.filter(pk=withdrawn.photo_id), train=False)
    # In the very transaction of the deletion, before anything is marked.
    assert SnapshotFace.objects.filter(face_key=key, face__isnull=True).count() == 2

    assert mark_gone_faces() == 4
    assert mark_gone_faces() == 0

    for face_key, why in ((key, GoneWhy.ERASED), (withdrawn.pk, GoneWhy.WITHDRAWN)):
        rows = SnapshotFace.objects.filter(face_key=face_key)
        assert [row.gone_why for row in rows] == [why, why]
    for snapshot in DatasetSnapshot.objects.all():
        assert snapshot_is_intact(snapshot=snapshot)
        usable = {
            row.face_key
            for split in Split
            for row in usable_faces(snapshot=snapshot, split=split)
        }
        assert not usable & {key, withdrawn.pk}
    third = build_snapshot(base=BASE)
    assert not third.faces.filter(face_key__in=[key, withdrawn.pk]).exists()


def test_expired_face_is_not_used_before_it_is_erased(labeller: Labeller) -> None:
    faces = labeller.faces(1)
    snapshot = build_snapshot(base=BASE)
    let_expire(faces[0])

    usable = {
        row.face_key
        for split in Split
        for row in usable_faces(snapshot=snapshot, split=split)
    }

    assert usable == {face.pk for face in faces[1:]}
    assert [row.face_key for row in gone_faces()] == [faces[0].pk]


def test_imported_face_never_judges(labeller: Labeller) -> None:
    labeller.faces(8)
    before = build_snapshot(base=BASE)
    held_out = before.faces.filter(split=Split.EVALUATION)
    assert held_out.exists()
    keys = set(held_out.values_list("face_key", flat=True))
    Photo.objects.update(consent_version=IMPORTED)
    new = {face.pk for face in labeller.faces(8)}
    Photo.objects.filter(faces__in=new).update(consent_version=IMPORTED)

    after = splits(build_snapshot(base=BASE))

    assert {after[key] for key in keys} == {Split.SET_ASIDE}
    assert {after[key] for key in new} == {Split.TRAIN}


def test_imported_face_that_judged_makes_another_snapshot(labeller: Labeller) -> None:
    """Of the same labels: it was frozen before imported faces were kept from that."""
    labeller.faces(8)
    before = build_snapshot(base=BASE)
    Photo.objects.update(consent_version=IMPORTED)

    after = build_snapshot(base=BASE)

    assert after.number == before.number + 1
    assert not after.faces.filter(split=Split.EVALUATION).exists()
    assert build_snapshot(base=BASE) == after


def test_near_duplicates_are_looked_for_before_anybody_has_to_wait(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer at a time."""
    labeller.faces(1)
    outside = len(connection.savepoint_ids)
    found: list[int] = []
    search = snapshots.near_duplicates

    def look(*given: Any, **named: Any) -> Any:
        found.append(len(connection.savepoint_ids))
        return search(*given, **named)

    monkeypatch.setattr(snapshots, "near_duplicates", look)
    build_snapshot(base=BASE)

    assert found == [outside]


def test_consent_that_comes_back_brings_the_face_back(labeller: Labeller) -> None:
    face = labeller.face(Emotion.SAD)
    snapshot = build_snapshot(base=BASE)
    photo = Photo.objects.filter(pk=face.photo_id)
    set_consent(photos=photo, train=False)
    mark_gone_faces()
    set_consent(photos=photo, train=True)
    mark_gone_faces()

    assert snapshot.faces.get().gone_at is None


def test_versions_that_learned_from_an_erased_face_are_listed_and_retrained_without(
    labeller: Labeller,
) -> None:
    labeller.faces(4)
    first = head_run()
    assert versions_with_gone_faces() == {}
    learned = SnapshotFace.objects.filter(split=Split.TRAIN).first()
    assert learned is not None
    delete_photo(photo=learned.face.photo)  # type: ignore[union-attr]

    assert versions_with_gone_faces() == {first.candidate_id: 1}
    without = head_run()

    assert without.candidate_id not in versions_with_gone_faces()
    assert not without.snapshot.faces.filter(face_key=learned.face_key).exists()  # type: ignore[union-attr]


def test_run_starts_from_a_version_that_knows_nothing_of_erased_faces(
    labeller: Labeller,
) -> None:
    labeller.faces(4)
    first = head_run()
    candidate = first.candidate
    assert candidate is not None
    assert choose_start(champion=candidate, mode="full") == candidate  # type: ignore[arg-type]
    assert choose_start(champion=candidate, mode="head") == labeller.version  # type: ignore[arg-type]
    learned = SnapshotFace.objects.filter(split=Split.TRAIN).first()
    delete_photo(photo=learned.face.photo)  # type: ignore[union-attr]

    assert choose_start(champion=candidate, mode="full") == labeller.version  # type: ignore[arg-type]


def test_erasure_leaves_nothing_of_what_versions_said_of_a_face(
    labeller: Labeller,
) -> None:
    face = labeller.faces(3)[0]
    run = head_run()
    assert run.comparisons.filter(face=face).exists()
    key = face.pk

    delete_photo(photo=face.photo)

    assert not run.comparisons.filter(snapshot_face__face_key=key).exists()


def test_crop_of_another_size_is_taken(labeller: Labeller) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112), "grey").save(buffer, "PNG")
    labeller.face(Emotion.NEUTRAL, crop=buffer.getvalue())

    assert build_snapshot(base=BASE).faces.count() == 1

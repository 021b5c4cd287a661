"""Curated faces are frozen into a data set, split once and for all."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from PIL import Image

from ml.duplicates import Groups, near_duplicates, thumbnails
from ml.labels import EMOTIONS
from ml.manifest import InputSpec
from webapp.curation.selectors import TrainingLabel, training_labels
from webapp.curation.services.queue import IMPORTED
from webapp.photos.models import Face, Photo
from webapp.photos.selectors import training_allowed
from webapp.training.models import (
    DatasetSnapshot,
    GoneWhy,
    SnapshotFace,
    Split,
)

UInt8Array = npt.NDArray[np.uint8]

EVALUATION_SHARE: Final = 0.25
"""Of the groups of new faces so many judge; the others train."""

_THUMB_CROP: Final = InputSpec(size_px=48, channels=1)
_BATCH: Final = 500


def labels_sha256(labels: Iterable[TrainingLabel]) -> str:
    """What curation gives now, in one word. How far a label can be relied on is left
    out: it changes with every vote of anybody, and is nothing new by itself."""
    lines = sorted(f"{label.face_id} {label.label}" for label in labels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def current_labels() -> list[TrainingLabel]:
    """Every face that may train now, in the order of decision."""
    return list(training_labels())


def build_snapshot(*, base: dict[str, Any]) -> DatasetSnapshot:
    """Freeze what curation gives now; the latest snapshot where that is the same, its
    rows still are what was hashed, and no imported face judges there.

    A face keeps the side that it was on in an earlier snapshot. New faces go to one
    side in groups: all faces of a photo, and all that nearly are one of them. A
    group that would tie the two sides together is set aside. An imported face never
    judges, for the network may have learned from the folder that it came from: one
    that did in an earlier snapshot is set aside. ``base``
    goes into the manifest, see ``DatasetSnapshot``.
    """
    mark_gone_faces()
    labels = current_labels()
    fingerprint = labels_sha256(labels)
    crops = dict(
        zip(
            (label.face_id for label in labels),
            read_crops([label.face_id for label in labels], _THUMB_CROP),
            strict=True,
        )
    )
    # Erased between the two queries.
    labels = [label for label in labels if crops[label.face_id] is not None]
    # Seconds for some thousand faces: SQLite lets nobody else write meanwhile.
    groups = _groups(labels, [_pixels(crops[label.face_id]) for label in labels])
    with transaction.atomic():
        latest = DatasetSnapshot.objects.select_for_update().order_by("-number").first()
        if (
            latest is not None
            and latest.labels_sha256 == fingerprint
            and latest.base == base
            and snapshot_is_intact(snapshot=latest)
            and not latest.faces.filter(
                split=Split.EVALUATION, face__photo__consent_version=IMPORTED
            ).exists()
        ):
            return latest
        splits = _splits(labels, groups)
        known = set(
            SnapshotFace.objects.filter(snapshot=latest).values_list(
                "face_key", flat=True
            )
        )
        snapshot = DatasetSnapshot(
            number=(latest.number if latest else 0) + 1,
            labels_sha256=fingerprint,
            base=base,
            previous=latest,
        )
        rows = [
            SnapshotFace(
                snapshot=snapshot,
                face_id=label.face_id,
                face_key=label.face_id,
                photo_key=label.photo_id,
                label=label.label,
                shares=_shares(label),
                weight=round(label.weight, 6),
                split=splits[label.face_id],
                reason=label.reason,
                sampled=label.sampled,
                decided_at=label.decided_at,
            )
            for label in labels
        ]
        snapshot.counts = _counts(rows, known)
        snapshot.sha256 = hashlib.sha256(
            _manifest_text(base, rows).encode()
        ).hexdigest()
        snapshot.save(force_insert=True)
        SnapshotFace.objects.bulk_create(rows, batch_size=_BATCH)
    return snapshot


def manifest_text(*, snapshot: DatasetSnapshot) -> str:
    """The frozen list as it was hashed: a line of JSON for the base, then one a
    face: key, photo, label, weight, split, shares. Erased faces are in it by the
    random ids that they had."""
    return _manifest_text(snapshot.base, list(snapshot.faces.all()))


def snapshot_is_intact(*, snapshot: DatasetSnapshot) -> bool:
    """Whether the rows still are what was hashed."""
    text = manifest_text(snapshot=snapshot)
    return hashlib.sha256(text.encode()).hexdigest() == snapshot.sha256


def usable_faces(*, snapshot: DatasetSnapshot, split: Split) -> list[SnapshotFace]:
    """The faces of one side that may still be used, in the order of their keys."""
    return list(
        snapshot.faces.filter(training_allowed("face__photo"), split=split).order_by(
            "face_key"
        )
    )


def gone_faces() -> QuerySet[SnapshotFace]:
    """Rows whose face may not be used any more, marked or not: the others are those
    that ``usable_faces`` gives."""
    return SnapshotFace.objects.exclude(training_allowed("face__photo"))


def mark_gone_faces() -> int:
    """Write down, in every snapshot, which faces may not be used any more; how many
    rows were new. Consent that was taken back and given again counts anew."""
    now = timezone.now()
    unmarked = SnapshotFace.objects.filter(gone_at__isnull=True)
    erased = unmarked.filter(face__isnull=True).update(
        gone_at=now, gone_why=GoneWhy.ERASED
    )
    withdrawn = unmarked.filter(
        pk__in=SnapshotFace.objects.filter(
            gone_at__isnull=True,
            face__isnull=False,
            face__photo__training_consent_at__isnull=True,
        ).values("pk")
    ).update(gone_at=now, gone_why=GoneWhy.WITHDRAWN)
    # Withdrawn first, erased later: the later word is the stronger one.
    SnapshotFace.objects.filter(gone_why=GoneWhy.WITHDRAWN, face__isnull=True).update(
        gone_why=GoneWhy.ERASED
    )
    SnapshotFace.objects.filter(
        gone_why=GoneWhy.WITHDRAWN,
        pk__in=SnapshotFace.objects.filter(
            gone_why=GoneWhy.WITHDRAWN,
            face__photo__training_consent_at__isnull=False,
        ).values("pk"),
    ).update(gone_at=None, gone_why="")
    return erased + withdrawn


def read_crops(
    face_ids: Sequence[uuid.UUID], spec: InputSpec
) -> list[UInt8Array | None]:
    """The stored crops as uint8 (S, S, C) of a model's input, in the order given;
    None for a face that is gone."""
    out: dict[uuid.UUID, UInt8Array] = {}
    for start in range(0, len(face_ids), _BATCH):
        rows = Face.objects.filter(pk__in=face_ids[start : start + _BATCH]).values_list(
            "pk", "crop"
        )
        out.update({pk: decode_crop(bytes(data), spec) for pk, data in rows})
    return [out.get(face_id) for face_id in face_ids]


def decode_crop(png: bytes, spec: InputSpec) -> UInt8Array:
    """A stored crop as a model takes it; resized where another size was stored."""
    image = Image.open(io.BytesIO(png), formats=["PNG"]).convert(
        "L" if spec.channels == 1 else "RGB"
    )
    size = (spec.size_px, spec.size_px)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(*size, spec.channels)


def _pixels(crop: UInt8Array | None) -> UInt8Array:
    assert crop is not None  # Faces without one were left out before.
    return crop


def _splits(
    labels: Sequence[TrainingLabel], groups: Sequence[int]
) -> dict[uuid.UUID, Split]:
    before = _earlier_splits("face_key", [label.face_id for label in labels])
    # Also where the face that was labelled first has lost its label since.
    photos = _earlier_splits("photo_key", [label.photo_id for label in labels])
    imported = _imported_photos([label.photo_id for label in labels])
    members: dict[int, list[TrainingLabel]] = {}
    for label, group in zip(labels, groups, strict=True):
        members.setdefault(group, []).append(label)
    out: dict[uuid.UUID, Split] = {}
    for faces in members.values():
        known = {before[m.face_id] for m in faces if m.face_id in before}
        known |= {photos[m.photo_id] for m in faces if m.photo_id in photos}
        if len(known) > 1:
            side = Split.SET_ASIDE
        elif known:
            side = known.pop()
        elif any(member.photo_id in imported for member in faces):
            side = Split.TRAIN
        else:
            side = _drawn([member.photo_id for member in faces])
        for member in faces:
            own = before.get(member.face_id, side)
            if own == Split.EVALUATION and member.photo_id in imported:
                own = Split.SET_ASIDE
            out[member.face_id] = own
    return out


def _imported_photos(photo_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those that came from a data folder, not from a visitor."""
    out: set[uuid.UUID] = set()
    for start in range(0, len(photo_ids), _BATCH):
        photos = Photo.objects.filter(
            pk__in=photo_ids[start : start + _BATCH], consent_version=IMPORTED
        )
        out.update(photos.values_list("pk", flat=True))
    return out


def _earlier_splits(column: str, keys: Sequence[uuid.UUID]) -> dict[uuid.UUID, Split]:
    """Which side each face (or photo) was on, by ``face_key`` (``photo_key``)."""
    out: dict[uuid.UUID, Split] = {}
    for start in range(0, len(keys), _BATCH):
        rows = (
            SnapshotFace.objects.filter(
                **{f"{column}__in": keys[start : start + _BATCH]}
            )
            .exclude(split=Split.SET_ASIDE)
            .order_by("snapshot__number")
            .values_list(column, "split")
        )
        out.update({key: Split(split) for key, split in rows})
    return out


def _groups(labels: Sequence[TrainingLabel], crops: Sequence[UInt8Array]) -> list[int]:
    """A number a face, the same for faces that must stay on one side."""
    groups = Groups(len(labels))
    by_photo: dict[uuid.UUID, int] = {}
    for i, label in enumerate(labels):
        groups.join(i, np.array([by_photo.setdefault(label.photo_id, i)]))
    if crops:
        for i, others, _ in near_duplicates(thumbnails(np.stack(crops))):
            groups.join(i, others)
    return groups.firsts()


def _drawn(photo_ids: Sequence[uuid.UUID]) -> Split:
    """A side by the photo's random id: the same whenever it is drawn."""
    first = min(photo_ids)
    number = int.from_bytes(hashlib.sha256(b"split:" + first.bytes).digest()[:8])
    return Split.EVALUATION if number < EVALUATION_SHARE * 2**64 else Split.TRAIN


def _shares(label: TrainingLabel) -> list[float]:
    """Of the votes on the four emotions; of a label that no vote supports (an
    adjudicator's, or one that people's weights gave), all on that label."""
    votes = np.array(label.tally[: len(EMOTIONS)], np.float64)
    position = [emotion.value for emotion in EMOTIONS].index(label.label)
    if not votes.sum() or votes.argmax() != position:
        votes = np.eye(len(EMOTIONS))[position]
    return [round(float(share), 6) for share in votes / votes.sum()]


def _counts(rows: Sequence[SnapshotFace], known: set[uuid.UUID]) -> dict[str, Any]:
    tallies = {
        split: Counter(row.label for row in rows if row.split == split)
        for split in Split
    }
    return {
        **{
            split.value: {e.value: tallies[split][e.value] for e in EMOTIONS}
            for split in (Split.TRAIN, Split.EVALUATION)
        },
        "set_aside": sum(tallies[Split.SET_ASIDE].values()),
        "photos": len({row.photo_key for row in rows}),
        "new": sum(row.face_key not in known for row in rows),
    }


def _manifest_text(base: dict[str, Any], rows: Sequence[SnapshotFace]) -> str:
    lines = [json.dumps(base, sort_keys=True)]
    for row in sorted(rows, key=lambda row: row.face_key):
        shares = ",".join(f"{share:.6f}" for share in row.shares)
        lines.append(
            f"{row.face_key} {row.photo_key} {row.label} {row.weight:.6f} "
            f"{row.split} {shares}"
        )
    return "\n".join(lines) + "\n"

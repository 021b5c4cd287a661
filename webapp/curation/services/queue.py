"""What comes onto the queue, and why. Only faces that may be used for training do."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from webapp.curation.models import Consensus, Correction, QueueItem, Reason, Source
from webapp.curation.services.consensus import lock_consensus, refresh_consensus
from webapp.curation.services.priority import priorities
from webapp.photos.models import Face, PhotoStatus, Prediction
from webapp.photos.selectors import training_allowed

IMPORTED: Final = "import"
"""``Photo.consent_version`` of what an admin brought in."""

_BATCH: Final = 500

_STRENGTH: Final = {
    Reason.FLAG: 5,
    Reason.DIFFER: 4,
    Reason.UNSURE: 3,
    Reason.SUSPECT: 2,
    Reason.MANUAL: 1,
    Reason.SAMPLE: 0,
}
"""Of two reasons for one face, the stronger is kept."""


def enqueue_faces(*, face_ids: Sequence[uuid.UUID], reason: Reason) -> int:
    """Put faces on the queue; how many were not there yet.

    A face that may not be used for training, or that has no reading yet, is left
    out. One that is there already keeps the stronger of the two reasons.
    """
    new = 0
    for start in range(0, len(face_ids), _BATCH):
        new += _enqueue_batch(face_ids[start : start + _BATCH], reason)
    return new


def fill_queue() -> int:
    """Find what belongs on the queue and is not there; how many faces came.

    Flagged faces whose consent came later, faces that the model is not sure of, and
    the random sample. (Faces on which two versions differ are brought by whoever
    compares them.) Runs any number of times, also at once.
    """
    return sum(
        enqueue_faces(face_ids=list(faces[:_BATCH]), reason=reason)
        for reason, faces in (
            (Reason.FLAG, _flagged()),
            (Reason.UNSURE, _unsure()),
            (Reason.SAMPLE, _sample()),
        )
    )


def usable_faces() -> QuerySet[Face]:
    """Faces whose photo is read and may be used for training."""
    return Face.objects.filter(
        training_allowed("photo"), photo__status=PhotoStatus.DONE
    )


def in_sample(face_id: uuid.UUID) -> bool:
    """Whether chance alone has chosen the face: ids are random, so a share of them
    is a random sample, whenever and however often it is drawn."""
    return face_id < _sample_end()


@transaction.atomic
def _enqueue_batch(face_ids: Iterable[uuid.UUID], reason: Reason) -> int:
    faces = dict(
        usable_faces()
        .filter(pk__in=list(face_ids))
        .order_by("pk")
        .values_list("pk", "photo__consent_version")
    )
    # As bulk labels write them, so that neither waits for the other's.
    there = QueueItem.objects.filter(face_id__in=faces).order_by("face_id")
    known = {item.face_id: item for item in there}
    items = [
        QueueItem(
            face_id=face,
            reason=reason,
            # What an admin brings in is no sample of what visitors bring.
            sampled=reason != Reason.MANUAL and came != IMPORTED and in_sample(face),
        )
        for face, came in faces.items()
        if face not in known
    ]
    fresh = priorities(items=items)
    for item in items:
        item.priority = fresh[item.pk]
    # Somebody else may do the same at this moment: the first one's row stays.
    QueueItem.objects.bulk_create(items, ignore_conflicts=True)
    Consensus.objects.bulk_create(
        [Consensus(face_id=item.face_id) for item in items], ignore_conflicts=True
    )
    _settle_voted([item.face_id for item in items])
    stronger = [
        item
        for item in known.values()
        if _STRENGTH[Reason(item.reason)] < _STRENGTH[reason]
    ]
    for item in stronger:
        item.reason = reason
    fresh = priorities(items=stronger)
    for item in stronger:
        QueueItem.objects.filter(pk=item.pk).update(
            reason=reason, priority=fresh[item.pk]
        )
    return len(items)


def _settle_voted(face_ids: Sequence[uuid.UUID]) -> None:
    """Faces that had votes before they had a place on the queue."""
    voted = Consensus.objects.filter(face_id__in=face_ids, votes__gt=0)
    for face_id in voted.order_by("face_id").values_list("face_id", flat=True):
        refresh_consensus(consensus=lock_consensus(face_id=face_id))


def _sample_end() -> uuid.UUID:
    share = settings.CURATION_SAMPLE_PERCENT / 100
    return uuid.UUID(int=min(int(share * 2**128), 2**128 - 1))


def _flagged() -> QuerySet[Face, uuid.UUID]:
    flags = Correction.objects.filter(
        source=Source.VISITOR, retracted_at__isnull=True
    ).values("face")
    return _absent().filter(pk__in=flags).values_list("pk", flat=True)


def _unsure() -> QuerySet[Face, uuid.UUID]:
    unsure = Prediction.objects.filter(
        not_sure=True, model_version=F("face__photo__model_version")
    ).values("face")
    return _absent().filter(pk__in=unsure).values_list("pk", flat=True)


def _sample() -> QuerySet[Face, uuid.UUID]:
    return _absent().filter(pk__lt=_sample_end()).values_list("pk", flat=True)


def _absent() -> QuerySet[Face]:
    """Faces of visitors that may be used and are not on the queue, oldest first."""
    return (
        usable_faces()
        .filter(queue_item__isnull=True)
        .exclude(photo__consent_version=IMPORTED)
        .order_by("created_at")
    )

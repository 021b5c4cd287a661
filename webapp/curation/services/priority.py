"""How soon each face is labelled: what is known of it, through the order in force."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db.models import Count, F

from ml.labels import EMOTIONS
from webapp.curation.models import (
    Consensus,
    Correction,
    QueueItem,
    QueueStatus,
    Source,
)
from webapp.curation.order import ORDERS, Signals
from webapp.photos.models import Prediction

_BATCH = 500


def served_probabilities(
    *, face_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, tuple[float, ...]]:
    """What the version that read each photo, and that its visitor saw, said."""
    out: dict[uuid.UUID, tuple[float, ...]] = {}
    for start in range(0, len(face_ids), _BATCH):
        rows = Prediction.objects.filter(
            face_id__in=face_ids[start : start + _BATCH],
            model_version=F("face__photo__model_version"),
        ).values_list("face_id", *(emotion.value for emotion in EMOTIONS))
        out.update({face: tuple(values) for face, *values in rows})
    return out


def priorities(*, items: Sequence[QueueItem]) -> dict[uuid.UUID, float]:
    """Priority of each item, by its id."""
    order = ORDERS[settings.CURATION_ORDER]
    face_ids = [item.face_id for item in items]
    read = served_probabilities(face_ids=face_ids)
    votes: dict[uuid.UUID, int] = {}
    flags: dict[uuid.UUID, int] = {}
    for start in range(0, len(face_ids), _BATCH):
        part = face_ids[start : start + _BATCH]
        votes.update(
            Consensus.objects.filter(face__in=part).values_list("face_id", "votes")
        )
        flags.update(_count_flags(part))
    return {
        item.pk: order(
            Signals(
                reason=item.reason,
                probabilities=read.get(item.face_id),
                votes=votes.get(item.face_id, 0),
                flags=flags.get(item.face_id, 0),
                chance=chance_of(item.face_id),
            )
        )
        for item in items
    }


def reorder_queue() -> int:
    """Give every waiting face its priority by the order in force; how many changed.

    Needed after the order, or what it looks at, has changed; a vote moves its face at
    once, and that stays. Takes longer the more faces wait: what is done by the time
    it is stopped is kept."""
    waiting = QueueItem.objects.filter(status=QueueStatus.WAITING).order_by("pk")
    ids = list(waiting.values_list("pk", flat=True))
    changed = 0
    for start in range(0, len(ids), _BATCH):
        items = list(waiting.filter(pk__in=ids[start : start + _BATCH]))
        fresh = priorities(items=items)
        for item in items:
            if item.priority != fresh[item.pk]:
                # One that is not as it was read has moved meanwhile.
                as_read = QueueItem.objects.filter(pk=item.pk, priority=item.priority)
                changed += as_read.update(priority=fresh[item.pk])
    return changed


def chance_of(face_id: uuid.UUID) -> float:
    """A number in [0, 1) that belongs to the face; its id is drawn at random."""
    return (face_id.int >> 80) / 2**48


def _count_flags(face_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    return dict(
        Correction.objects.filter(
            face__in=face_ids, source=Source.VISITOR, retracted_at__isnull=True
        )
        .order_by()
        .values_list("face_id")
        .annotate(count=Count("pk"))
    )

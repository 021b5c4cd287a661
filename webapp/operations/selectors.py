"""What the status page shows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from webapp.operations.models import ABSENT_AFTER, Presence, ServingHour
from webapp.photos.models import Photo, PhotoStatus

SHOWN_HOURS: Final = 48


@dataclass(frozen=True, slots=True)
class Hour:
    """All versions together."""

    at: datetime
    photos: int
    failed: int
    wait_p95_ms: int
    not_sure_percent: float


@dataclass(frozen=True, slots=True)
class Owed:
    """Photos without a result; ``oldest_at`` is null where there are none."""

    waiting: int
    processing: int
    oldest_at: datetime | None


def owed_photos() -> Owed:
    photos = Photo.objects.filter(
        status__in=[PhotoStatus.QUEUED, PhotoStatus.PROCESSING]
    )
    oldest = photos.order_by("created_at").values_list("created_at", flat=True).first()
    processing = photos.filter(status=PhotoStatus.PROCESSING).count()
    return Owed(photos.count() - processing, processing, oldest)


def last_hours(*, now: datetime | None = None) -> list[Hour]:
    """The last ``SHOWN_HOURS``, oldest first, none left out."""
    now = now or timezone.now()
    current = now.replace(minute=0, second=0, microsecond=0)
    first = current - timedelta(hours=SHOWN_HOURS - 1)
    rows: dict[datetime, list[ServingHour]] = defaultdict(list)
    for row in ServingHour.objects.filter(hour__gte=first):
        rows[row.hour].append(row)
    hours = []
    for number in range(SHOWN_HOURS):
        at = first + timedelta(hours=number)
        done = [row for row in rows[at] if row.version]
        faces = sum(row.faces for row in done)
        not_sure = sum(row.not_sure for row in done)
        hours.append(
            Hour(
                at,
                photos=sum(row.photos for row in done),
                failed=sum(row.photos for row in rows[at] if not row.version),
                wait_p95_ms=max((row.wait_p95_ms for row in done), default=0),
                not_sure_percent=round(100 * not_sure / faces, 1) if faces else 0.0,
            )
        )
    return hours


def present_workers() -> QuerySet[Presence]:
    """Workers and beats that were seen in the last half minute."""
    return Presence.objects.filter(seen_at__gte=timezone.now() - ABSENT_AFTER)


def count_readers() -> int:
    """Workers in sight that read photos."""
    return present_workers().filter(queues__contains="inference").count()


def beat_is_present() -> bool:
    """Whether the schedule runs; the beat alone takes no queue."""
    return present_workers().filter(queues="").exists()

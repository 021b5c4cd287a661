"""Hours of serving, counted before their photos are erased, and how the champion's
answers change between them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import F
from django.utils import timezone

from ml.labels import EMOTIONS
from webapp.curation.services.queue import IMPORTED
from webapp.operations.models import ServingHour
from webapp.photos.models import Photo, PhotoStatus, Prediction
from webapp.registry.selectors import get_champion

_LOOK_BACK_HOURS: Final = 23
"""Photos live for a day: what nobody counted by then cannot be counted any more."""

KEPT_DAYS: Final = 400
CHANGE_MIN_FACES: Final = 200
_RECENT: Final = timedelta(hours=24)
_REFERENCE: Final = timedelta(days=28)


def summarise_hours(*, now: datetime | None = None) -> int:
    """Count the hour under way, the one before, and those that nobody counted.

    An hour that is over for long is left alone: some of its photos are erased by
    now. Runs any number of times; how many rows were written.
    """
    now = now or timezone.now()
    current = now.replace(minute=0, second=0, microsecond=0)
    first = current - timedelta(hours=_LOOK_BACK_HOURS)
    known = set(
        ServingHour.objects.filter(hour__gte=first).values_list("hour", flat=True)
    )
    written = 0
    for back in range(_LOOK_BACK_HOURS, -1, -1):
        hour = current - timedelta(hours=back)
        if back > 1 and hour in known:
            continue
        written += _summarise(hour)
    ServingHour.objects.filter(hour__lt=now - timedelta(days=KEPT_DAYS)).delete()
    return written


def _summarise(hour: datetime) -> int:
    within = {"done_at__gte": hour, "done_at__lt": hour + timedelta(hours=1)}
    waits: dict[str, list[float]] = defaultdict(list)
    for status, version, created_at, done_at in (
        Photo.objects.filter(
            status__in=[PhotoStatus.DONE, PhotoStatus.FAILED], **within
        )
        # What an admin brought in waited for nobody, and nobody was shown it.
        .exclude(consent_version=IMPORTED)
        .values_list("status", "model_version__version", "created_at", "done_at")
    ):
        key = version or "" if status == PhotoStatus.DONE else ""
        assert done_at is not None  # Null is in no range.
        waits[key].append(1000 * (done_at - created_at).total_seconds())
    faces: dict[str, Counter[str]] = defaultdict(Counter)
    unsure: Counter[str] = Counter()
    for version, not_sure, *values in (
        Prediction.objects.filter(
            # Versions that read along, or again, were shown to nobody.
            model_version=F("face__photo__model_version"),
            **{f"face__photo__{name}": value for name, value in within.items()},
        )
        .exclude(face__photo__consent_version=IMPORTED)
        .order_by()
        .values_list("model_version__version", "not_sure", *(e.value for e in EMOTIONS))
    ):
        label = EMOTIONS[max(range(len(values)), key=values.__getitem__)]
        faces[version][label.value] += 1
        unsure[version] += not_sure
    counted = dict(
        ServingHour.objects.filter(hour=hour).values_list("version", "photos")
    )
    written = 0
    for version, each in waits.items():
        if len(each) < counted.get(version, 0):
            # Some of those that were counted are deleted; read they were all the same.
            continue
        written += 1
        ServingHour.objects.update_or_create(
            hour=hour,
            version=version,
            defaults={
                "photos": len(each),
                "faces": faces[version].total(),
                "not_sure": unsure[version],
                "emotions": {e.value: faces[version][e.value] for e in EMOTIONS},
                "wait_p50_ms": round(percentile(each, 50)),
                "wait_p95_ms": round(percentile(each, 95)),
            },
        )
    return written


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed; never below 0."""
    ordered = sorted(values)
    index = math.ceil(percent / 100 * len(ordered)) - 1
    return max(0.0, ordered[max(0, index)])


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """The champion's answers of the last day against those of its four weeks before;
    how far the faces lie from its training data is the business of training.

    ``psi`` is the population stability index over the four emotions: below 0.1
    nothing moved, above 0.25 much did. ``not_sure`` is a share in [0, 1].
    """

    version: str
    psi: float
    not_sure: float
    not_sure_before: float
    faces: int
    faces_before: int


def measure_answer_change(*, now: datetime | None = None) -> AnswerChange | None:
    """None until both times have ``CHANGE_MIN_FACES``."""
    champion = get_champion()
    if champion is None:
        return None
    now = now or timezone.now()
    recent, before = Counter[str](), Counter[str]()
    for hour in ServingHour.objects.filter(
        version=champion.version, hour__gte=now - _REFERENCE
    ):
        side = recent if hour.hour >= now - _RECENT else before
        side.update(hour.emotions)
        side["faces"] += hour.faces
        side["not_sure"] += hour.not_sure
    if min(recent["faces"], before["faces"]) < CHANGE_MIN_FACES:
        return None
    psi = 0.0
    for emotion in EMOTIONS:
        # Half a face more, so that an emotion nobody showed divides by no zero.
        new = (recent[emotion.value] + 0.5) / (recent["faces"] + 2)
        old = (before[emotion.value] + 0.5) / (before["faces"] + 2)
        psi += (new - old) * math.log(new / old)
    return AnswerChange(
        champion.version,
        psi,
        recent["not_sure"] / recent["faces"],
        before["not_sure"] / before["faces"],
        recent["faces"],
        before["faces"],
    )

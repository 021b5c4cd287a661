"""What a visitor allows: giving it and taking it back are one call each."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Case, QuerySet, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from webapp.photos.consent import CONSENT_VERSION
from webapp.photos.models import Photo


def set_consent(
    *, photos: QuerySet[Photo], keep: bool | None = None, train: bool | None = None
) -> int:
    """Change what is allowed for some photos; None leaves it; how many changed.

    Taking ``keep`` back starts the time until a photo is erased, but not anew where it
    was not kept. Taking ``train`` back excludes the faces from every later data set.
    """
    now = timezone.now()
    changes: dict[str, object] = {}
    if keep is not None:
        ends = Now() + timedelta(seconds=settings.PHOTO_RETENTION_SECONDS)
        changes["expires_at"] = None if keep else Coalesce("expires_at", ends)
    if train is not None:
        changes["training_consent_at"] = now if train else None
    if not changes:
        return 0
    if train or (keep and train is False):
        changes["consent_version"] = CONSENT_VERSION
    elif keep:
        # Whoever allowed training by another text was not asked for this one.
        changes["consent_version"] = Case(
            When(training_consent_at=None, then=Value(CONSENT_VERSION)),
            default="consent_version",
        )
    return photos.update(**changes)

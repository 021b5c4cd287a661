"""What is known of the site's running. No row tells of a person or of a photo."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import models

from webapp.core.models import TimedModel

ABSENT_AFTER: Final = timedelta(seconds=30)
"""Who was not seen for so long is not there."""


class ServingHour(TimedModel):
    """What one version did in one hour; it outlives the photos, which are erased.

    ``version`` is empty for photos that failed. ``emotions`` counts faces by what was
    said; ``wait_p50_ms`` and ``wait_p95_ms`` are from the upload to the result.
    """

    hour = models.DateTimeField(db_index=True)
    version = models.CharField(max_length=80, blank=True, default="")
    photos = models.PositiveIntegerField()
    faces = models.PositiveIntegerField()
    not_sure = models.PositiveIntegerField()
    emotions = models.JSONField()
    wait_p50_ms = models.PositiveIntegerField()
    wait_p95_ms = models.PositiveIntegerField()

    class Meta:
        ordering = ["hour", "version"]
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "version"], name="one_row_per_hour_and_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.version or 'failed'} at {self.hour:%Y-%m-%d %H:00}"


class Presence(models.Model):
    """A worker or beat that said it is there; it says so every few seconds."""

    name = models.CharField(max_length=120, primary_key=True)
    queues = models.CharField(max_length=120)
    provider = models.CharField(max_length=60, blank=True, default="")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

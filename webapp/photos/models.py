"""Photo, Face, Prediction.

A Photo's ``status`` goes

    queued -> processing -> done
                        |-> queued   (its worker died, or asked for another try)
                        |-> failed   (after ``MAX_ATTEMPTS`` tries)

and never back from ``done`` or ``failed``. Every step is a conditional UPDATE in
``services``; a worker that has lost its lease can take none of them.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils import timezone

from ml.labels import EMOTIONS
from webapp.core.models import TimedModel
from webapp.registry.models import ModelVersion

MAX_ATTEMPTS = 3


class PhotoStatus(models.TextChoices):
    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"


class FailureReason(models.TextChoices):
    """Why a photo failed; the sentences for visitors stand in ``selectors``."""

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"
    UNREADABLE = "unreadable"
    MODEL = "model"


class Batch(TimedModel):
    """Several photos that a visitor gave at once, in the order of their upload.

    ``refused`` lists what was no photo: ``[{"position", "name", "reason"}, ...]``.
    ``idempotency_hash`` is of the key that came with them, of what was sent and of who
    sent it; null without a key, and until all of it is taken in. Until then the batch
    ``is_incomplete``, and for good where its process ends meanwhile.
    """

    visitor_key = models.CharField(max_length=64, db_index=True)
    refused = models.JSONField(default=list)
    idempotency_hash = models.CharField(max_length=64, null=True, unique=True)  # noqa: DJ001
    is_incomplete = models.BooleanField(default=False, db_default=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return str(self.pk)


class Photo(TimedModel):
    """What a visitor gave: re-encoded, without metadata, under a random name.

    ``width_px`` and ``height_px`` are those of the upright original; the stored
    JPEG may be smaller. ``visitor_key`` is the hash of the browser's token.
    ``position`` counts within the ``batch``, from 1, and is 0 without one.
    ``expires_at`` is null where the visitor asked to keep the photo;
    ``training_consent_at`` is null unless its faces may be used for training, and
    ``consent_version`` names the text that was agreed to.
    ``upload_sha256`` is of the bytes and choices as they were sent, and
    ``idempotency_hash`` of the key that came with them and of who sent it.
    ``lease_token`` names the one worker that may finish it, until
    ``lease_expires_at``. ``put_off_since`` says from when on it has been put off, for
    the store is away or no model serves; null where it never was, or is done or failed.
    """

    visitor_key = models.CharField(max_length=64, db_index=True)
    batch = models.ForeignKey(
        Batch, null=True, on_delete=models.SET_NULL, related_name="photos"
    )
    position = models.PositiveSmallIntegerField(default=0)
    status = models.CharField(
        max_length=16, choices=PhotoStatus, default=PhotoStatus.QUEUED
    )
    failure_reason = models.CharField(
        max_length=16, choices=FailureReason, blank=True, default=""
    )
    file_name = models.CharField(max_length=120, unique=True)
    width_px = models.PositiveIntegerField()
    height_px = models.PositiveIntegerField()
    faces_found = models.PositiveIntegerField(null=True)
    model_version = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.PROTECT, related_name="+"
    )

    attempts = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    queued_at = models.DateTimeField()
    put_off_since = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True, db_index=True)

    training_consent_at = models.DateTimeField(null=True)
    consent_version = models.CharField(max_length=16, blank=True, default="")

    idempotency_hash = models.CharField(max_length=64, null=True, unique=True)  # noqa: DJ001
    upload_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["status", "queued_at"],
                condition=models.Q(status__in=["queued", "processing"]),
                name="photo_owed",
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=[status.value for status in PhotoStatus]),
                name="photo_status_is_known",
            ),
            models.CheckConstraint(
                condition=(
                    models.Q(
                        status="processing",
                        lease_token__isnull=False,
                        lease_expires_at__isnull=False,
                    )
                    | models.Q(
                        ~models.Q(status="processing"),
                        lease_token__isnull=True,
                        lease_expires_at__isnull=True,
                    )
                ),
                name="photo_lease_while_processing",
            ),
            models.CheckConstraint(
                condition=models.Q(~models.Q(status="done"))
                | models.Q(model_version__isnull=False, done_at__isnull=False),
                name="photo_done_has_result",
            ),
            models.CheckConstraint(
                condition=models.Q(status="failed", failure_reason__gt="")
                | models.Q(~models.Q(status="failed"), failure_reason=""),
                name="photo_failed_has_reason",
            ),
            models.CheckConstraint(
                condition=models.Q(attempts__lte=MAX_ATTEMPTS),
                name="photo_attempts_are_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.status})"

    @property
    def is_kept(self) -> bool:
        return self.expires_at is None

    @property
    def has_expired(self) -> bool:
        """Its time is up, whether or not the sweep has come by."""
        return self.expires_at is not None and self.expires_at < timezone.now()

    @property
    def may_train(self) -> bool:
        return self.training_consent_at is not None


class ShareLink(TimedModel):
    """A link by which somebody else may see a photo, until it ends or is revoked.

    The link carries a random token; we keep its SHA-256.
    """

    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="links")
    token_sha256 = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"link to {self.photo_id} until {self.expires_at:%Y-%m-%d}"

    @property
    def ends_at(self) -> datetime:
        """When it ceases to open the photo, as the photo stands now: with it, where
        that is erased first."""
        return min(self.expires_at, self.photo.expires_at or self.expires_at)


class Face(TimedModel):
    """One detected face: box in pixels of the upright original, number ``index``
    from 1 in reading order, the crop that the model saw as PNG, and its quality.

    ``landmarks`` is a list of five [x, y] or null; ``quality`` what
    ``ml.quality`` measured.
    """

    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="faces")
    index = models.PositiveSmallIntegerField()
    x = models.FloatField()
    y = models.FloatField()
    width = models.FloatField()
    height = models.FloatField()
    landmarks = models.JSONField(null=True)
    detector_score = models.FloatField()
    assumed = models.BooleanField()
    quality = models.JSONField()
    crop = models.BinaryField()

    class Meta:
        ordering = ["photo", "index"]
        constraints = [
            models.UniqueConstraint(
                fields=["photo", "index"], name="one_face_per_index"
            )
        ]

    def __str__(self) -> str:
        return f"face {self.index} of {self.photo_id}"


class Prediction(TimedModel):
    """What one ModelVersion said of one Face. Immutable.

    ``activation`` says where each emotion was seen: float16, little-endian, of
    shape (4, side, side), upright as the crop.
    """

    face = models.ForeignKey(Face, on_delete=models.CASCADE, related_name="predictions")
    model_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="+"
    )
    happy = models.FloatField()
    sad = models.FloatField()
    surprise = models.FloatField()
    neutral = models.FloatField()
    not_sure = models.BooleanField()
    activation = models.BinaryField()

    class Meta:
        ordering = ["face", "created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["face", "model_version"], name="one_prediction_per_version"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    **{f"{emotion.value}__gte": 0 for emotion in EMOTIONS}
                )
                & models.Q(**{f"{emotion.value}__lte": 1 for emotion in EMOTIONS}),
                name="prediction_is_probabilities",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_version_id} of {self.face_id}"

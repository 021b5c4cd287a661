"""A queued photo becomes its result, exactly once, whoever dies meanwhile.

Whoever claims a photo gets a lease with a token; every later step is an UPDATE on
that token. A lease lasts seconds and is renewed while the work goes on, so that
the photo of a killed worker is free again soon, and that of a slow one stays its.
Leases and due times are told by the database's clock, the same to all hosts; and
what lies further ahead than anybody sets it was set before that clock went back.
"""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import default_storage
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from PIL import Image

from ml.inference import Reading
from ml.labels import EMOTIONS
from ml.preprocessing import UInt8Array, crop_faces
from ml.quality import face_quality
from ml.runtime import ProviderUnavailable
from ml.types import DetectedFace, FaceQuality
from webapp.core.clock import CLOCK_SLACK_SECONDS, in_seconds
from webapp.core.metrics import PHOTOS_ENDED, PREDICTIONS, STAGE_SECONDS, stage
from webapp.core.storage import StorageAway
from webapp.photos.models import (
    MAX_ATTEMPTS,
    Face,
    FailureReason,
    Photo,
    PhotoStatus,
    Prediction,
)
from webapp.photos.services.queue import count_waiting_messages, wake_worker
from webapp.photos.services.serving import NoModelServes, ServingModel, model_server

LEASE_SECONDS: Final = 4.0
_RENEW_EVERY_SECONDS: Final = 1.0
_MESSAGE_LOST_AFTER_SECONDS: Final = 2.0
_AGAIN_AFTER_SECONDS: Final = 5.0
_PATIENCE: Final = timedelta(hours=1)
"""So long after it was first put off a photo waits for what is no fault of its own."""
_UNTRIED: Final = timedelta(minutes=10)
"""Where nobody tried a photo for so long after it was due, nobody was there to."""

_SWEEP_LIMIT: Final = 500

logger = logging.getLogger(__name__)
jobs = logging.getLogger("webapp.jobs")


def claim_photo(*, photo_id: uuid.UUID) -> Photo | None:
    """Lease a queued photo; None where somebody else has it or it is gone."""
    token = uuid.uuid4()
    claimed = Photo.objects.filter(
        pk=photo_id, status=PhotoStatus.QUEUED, attempts__lt=MAX_ATTEMPTS
    ).update(
        status=PhotoStatus.PROCESSING,
        lease_token=token,
        lease_expires_at=_lease_end(),
        attempts=F("attempts") + 1,
    )
    if not claimed:
        return None
    # Gone, where it was deleted in this very moment.
    photo = Photo.objects.filter(pk=photo_id, lease_token=token).first()
    if photo is not None:
        STAGE_SECONDS.labels("wait").observe(_seconds_since(photo.queued_at))
    return photo


def process_claimed_photo(*, photo: Photo) -> None:
    """Read every face of a claimed photo and finish it, or give it back.

    Never raises for what a photo or a model can do: the photo then waits for its
    next attempt or is failed, with a reason. Where the store is away, no model serves
    or this host lacks what networks are to run on, no attempt is counted.
    """
    try:
        with _lease_kept(photo):
            _read_and_finish(photo)
    except SoftTimeLimitExceeded:
        logger.warning("photo %s: took too long", photo.pk)
        give_back_photo(photo=photo, reason=FailureReason.TIMEOUT)
    except DatabaseError:
        # The row cannot be written now; the lease runs out and the sweep sees to it.
        raise
    except (NoModelServes, ProviderUnavailable) as error:
        logger.error("photo %s: %s", photo.pk, error)
        _put_off(photo, FailureReason.MODEL)
    except StorageAway as error:
        logger.error("photo %s: %s", photo.pk, error)
        _put_off(photo, FailureReason.UNREADABLE)
    except OSError as error:
        logger.error("photo %s: its file cannot be read: %s", photo.pk, error)
        give_back_photo(photo=photo, reason=FailureReason.UNREADABLE)
    except Exception:
        # The border of the job: whatever a network raises is this photo's failure
        # and must not stop the worker.
        logger.exception("photo %s: attempt %s failed", photo.pk, photo.attempts)
        give_back_photo(photo=photo, reason=FailureReason.MODEL)


def give_back_photo(
    *, photo: Photo, reason: FailureReason, unless_renewed: bool = False
) -> bool:
    """End a lease without a result: queued again, or failed after the last
    attempt. False where the lease was lost meanwhile, or with ``unless_renewed`` is
    not as ``photo`` has it any more."""
    mine = _held(photo)
    if unless_renewed:
        mine = mine.filter(lease_expires_at=photo.lease_expires_at)
    if photo.attempts >= MAX_ATTEMPTS:
        failed = mine.update(
            status=PhotoStatus.FAILED,
            failure_reason=reason,
            done_at=timezone.now(),
            put_off_since=None,
            lease_token=None,
            lease_expires_at=None,
        )
        PHOTOS_ENDED.labels("failed", reason.value).inc(failed)
        return bool(failed)
    given_back = mine.update(
        status=PhotoStatus.QUEUED,
        queued_at=Now(),
        lease_token=None,
        lease_expires_at=None,
    )
    if given_back:
        transaction.on_commit(lambda: wake_worker(photo.pk), robust=True)
    return bool(given_back)


def _held(photo: Photo) -> QuerySet[Photo]:
    """The photo, as long as its lease is ours."""
    return Photo.objects.filter(
        pk=photo.pk, status=PhotoStatus.PROCESSING, lease_token=photo.lease_token
    )


def _put_off(photo: Photo, reason: FailureReason) -> None:
    """Give it back as if it had never been claimed: the sweep wakes somebody once it
    is due. After an hour of that attempts count, so that nobody waits for ever."""
    mine = _held(photo)
    # Nobody ran who could have tried: the hour begins anew.
    mine.filter(queued_at__lt=Now() - _UNTRIED).update(put_off_since=None)
    if mine.filter(put_off_since__lt=Now() - _PATIENCE).exists():
        give_back_photo(photo=photo, reason=reason)
        return
    mine.update(
        status=PhotoStatus.QUEUED,
        queued_at=in_seconds(_AGAIN_AFTER_SECONDS),
        # Not from its upload on: it may have lain there while no worker ran.
        put_off_since=Coalesce("put_off_since", Now()),
        attempts=F("attempts") - 1,
        lease_token=None,
        lease_expires_at=None,
    )


def sweep_photos() -> int:
    """Set going what stands still; how many photos that were.

    Expired leases end; and where fewer messages lie in the queue than photos wait,
    the oldest photos get a new one. Runs any number of times, also at once.
    """
    stranded = Photo.objects.filter(
        Q(lease_expires_at__lt=Now())
        | Q(lease_expires_at__gt=in_seconds(LEASE_SECONDS + CLOCK_SLACK_SECONDS)),
        status=PhotoStatus.PROCESSING,
    ).order_by("lease_expires_at")[:_SWEEP_LIMIT]
    moved = sum(
        give_back_photo(
            photo=photo, reason=FailureReason.WORKER_LOST, unless_renewed=True
        )
        for photo in stranded
    )
    waiting = Photo.objects.filter(
        Q(queued_at__lt=in_seconds(-_MESSAGE_LOST_AFTER_SECONDS))
        | Q(queued_at__gt=in_seconds(_AGAIN_AFTER_SECONDS + CLOCK_SLACK_SECONDS)),
        status=PhotoStatus.QUEUED,
    ).order_by("queued_at")
    owed = waiting.count()
    messages = count_waiting_messages() if owed else 0
    if messages is None or owed <= messages:
        return moved
    lost = min(owed - messages, _SWEEP_LIMIT)
    for photo_id in waiting.values_list("pk", flat=True)[:lost]:
        if not wake_worker(photo_id):
            break
        moved += 1
    return moved


def _read_and_finish(photo: Photo) -> None:
    serving = model_server.champion()
    with stage("load"), default_storage.open(photo.file_name, "rb") as handle:
        image = Image.open(io.BytesIO(handle.read()), formats=["JPEG"])
        image.load()
    with stage("detect"):
        detection = model_server.detector.detect(image)
    with stage("classify"):
        crops = crop_faces(image, detection.faces, serving.classifier.manifest.input)
        reading = serving.classifier.read_crops(crops)
        qualities = [
            face_quality(image, face, crop)
            for face, crop in zip(detection.faces, crops, strict=True)
        ]
    factor = (photo.width_px / image.width, photo.height_px / image.height)
    faces = [face.scaled(*factor) for face in detection.faces]
    with stage("finish"):
        finished = _finish_photo(
            photo, serving, detection.found, faces, crops, qualities, reading
        )
    if finished:
        _count_result(photo, serving, reading)


def _count_result(photo: Photo, serving: ServingModel, reading: Reading) -> None:
    """After the commit: what a lost lease threw away counts for nothing."""
    seconds = _seconds_since(photo.created_at)
    PHOTOS_ENDED.labels("done", "").inc()
    STAGE_SECONDS.labels("total").observe(seconds)
    jobs.info(
        "photo %s: %s faces",
        photo.pk,
        len(reading.scores),
        extra={
            "photo_id": str(photo.pk),
            "faces": len(reading.scores),
            "attempt": photo.attempts,
            "version": serving.version.version,
            "duration_ms": round(1000 * seconds),
        },
    )
    for scores in reading.scores:
        PREDICTIONS.labels(
            serving.version.version,
            scores.label.value,
            "no" if scores.not_sure else "yes",
        ).inc()


def _seconds_since(at: datetime) -> float:
    return max(0.0, (timezone.now() - at).total_seconds())


def _finish_photo(
    photo: Photo,
    serving: ServingModel,
    faces_found: int,
    faces: list[DetectedFace],
    crops: UInt8Array,
    qualities: list[FaceQuality],
    reading: Reading,
) -> bool:
    """Write the result and end the lease in one transaction, or write nothing and
    say so."""
    activations = serving.classifier.class_activation(reading.feature_map)
    with transaction.atomic():
        finished = _held(photo).update(
            status=PhotoStatus.DONE,
            done_at=timezone.now(),
            faces_found=faces_found,
            model_version=serving.version,
            put_off_since=None,
            lease_token=None,
            lease_expires_at=None,
        )
        if not finished:
            logger.warning("photo %s: the lease was lost, result dropped", photo.pk)
            return False
        rows = Face.objects.bulk_create(
            _face_row(photo, index, face, crop, quality)
            for index, (face, crop, quality) in enumerate(
                zip(faces, crops, qualities, strict=True), start=1
            )
        )
        Prediction.objects.bulk_create(
            Prediction(
                face=row,
                model_version=serving.version,
                not_sure=scores.not_sure,
                activation=activation.astype("<f2").tobytes(),
                **{
                    emotion.value: probability
                    for emotion, probability in zip(
                        EMOTIONS, scores.probabilities, strict=True
                    )
                },
            )
            for row, scores, activation in zip(
                rows, reading.scores, activations, strict=True
            )
        )
    return True


def _face_row(
    photo: Photo, index: int, face: DetectedFace, crop: UInt8Array, quality: FaceQuality
) -> Face:
    marks = face.landmarks
    return Face(
        photo=photo,
        index=index,
        x=face.box.x,
        y=face.box.y,
        width=face.box.width,
        height=face.box.height,
        landmarks=list(asdict(marks).values()) if marks else None,
        detector_score=face.score,
        assumed=face.assumed,
        quality=asdict(quality),
        crop=_png(crop),
    )


def _png(crop: UInt8Array) -> bytes:
    """uint8 (S, S, C) as PNG: what the model saw, to the last pixel."""
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(crop)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _lease_kept(photo: Photo) -> Iterator[None]:
    """Renew the lease while the block runs; a short one never gets that far."""
    stop = threading.Event()

    def renew() -> None:
        try:
            while not stop.wait(_RENEW_EVERY_SECONDS):
                try:
                    kept = Photo.objects.filter(
                        pk=photo.pk, lease_token=photo.lease_token
                    ).update(lease_expires_at=_lease_end())
                except DatabaseError as error:
                    logger.warning("photo %s: lease not renewed: %s", photo.pk, error)
                    continue
                if not kept:
                    return
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name=f"lease-{photo.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _lease_end() -> CombinedExpression:
    return in_seconds(LEASE_SECONDS)

"""Bytes in, a durable row and file out, or a refusal that leaves neither."""

from __future__ import annotations

import hashlib
import secrets
import threading
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone

from ml import images
from webapp.core.errors import Conflict, DomainError
from webapp.core.metrics import REFUSALS, stage
from webapp.photos.consent import CONSENT_VERSION
from webapp.photos.models import Batch, Photo
from webapp.photos.services.queue import wake_worker

STORED_MAX_SIDE_PX: Final = 1920
"""Large enough to see and to find small faces; more of a person is not kept."""

MAX_IDEMPOTENCY_KEY_LENGTH: Final = 200

_HTTP_STATUS: Final = {
    images.ImageTooLarge.code: 413,
    images.ImageUnsupported.code: 415,
    images.ImageAnimated.code: 415,
}

_decoding = threading.BoundedSemaphore(2)
"""24 megapixels are 73 MB while they are open: not more than two at a time."""


class PhotoRefused(DomainError):
    """The upload is no photo that can be used; says why."""

    def __init__(self, refusal: images.ImageRefused) -> None:
        super().__init__(str(refusal), code=refusal.code)
        self.http_status = _HTTP_STATUS.get(refusal.code, 400)


class StorageUnavailable(DomainError):
    code = "storage_unavailable"
    http_status = 503
    retry_after_seconds = 60


class IdempotencyMismatch(Conflict):
    code = "idempotency_mismatch"
    http_status = 422


def submit_photo(
    *,
    data: bytes,
    visitor_key: str,
    keep: bool = False,
    train: bool = False,
    idempotency_scope: str = "",
    idempotency_key: str = "",
    batch: Batch | None = None,
    position: int = 0,
) -> Photo:
    """Take a photo in: when this returns, row and file are durable.

    Without ``keep`` it is erased after the retention time; without ``train`` no
    data set ever takes its faces.
    The same non-empty ``idempotency_key`` of the same ``idempotency_scope`` with
    the same bytes returns the photo that is there. Raises ``PhotoRefused``,
    ``IdempotencyMismatch`` or ``StorageUnavailable``, and then no photo was taken.
    """
    upload_sha256 = hashlib.sha256(data).hexdigest()
    idempotency_hash = _idempotency_hash(idempotency_scope, idempotency_key)
    known = _known_photo(idempotency_hash, upload_sha256)
    if known is not None:
        return known
    try:
        with _decoding, stage("decode"):
            image = images.decode_image(data, STORED_MAX_SIDE_PX)
            encoded = images.encode_jpeg(image.pixels)
    except images.ImageRefused as refusal:
        REFUSALS.labels(refusal.code).inc()
        raise PhotoRefused(refusal) from refusal
    file_name = new_file_name()
    # The file first: a row without its file would be a lie. A file without a row,
    # left by a crash between the two, is found and removed by the sweep.
    try:
        with stage("store"):
            default_storage.save(file_name, ContentFile(encoded))
    except OSError as error:
        raise StorageUnavailable(
            "We cannot store your photo at the moment. Please try again in a minute."
        ) from error
    now = timezone.now()
    retention = timedelta(seconds=settings.PHOTO_RETENTION_SECONDS)
    try:
        with transaction.atomic():
            photo = Photo.objects.create(
                visitor_key=visitor_key,
                file_name=file_name,
                width_px=image.width_px,
                height_px=image.height_px,
                queued_at=now,
                expires_at=None if keep else now + retention,
                training_consent_at=now if train else None,
                consent_version=CONSENT_VERSION if keep or train else "",
                batch=batch,
                position=position,
                idempotency_hash=idempotency_hash,
                upload_sha256=upload_sha256,
            )
            photo_id = photo.pk
            # Robust: the photo is acknowledged whatever becomes of the message.
            transaction.on_commit(lambda: wake_worker(photo_id), robust=True)
    except IntegrityError:
        # Two with the same key at the same moment: the other one came first.
        default_storage.delete(file_name)
        known = _known_photo(idempotency_hash, upload_sha256)
        if known is None:
            raise
        return known
    return photo


def new_file_name() -> str:
    """A random name that tells nothing; two levels, so that no folder grows huge."""
    name = secrets.token_hex(20)
    return f"photos/{name[:2]}/{name}.jpg"


def _idempotency_hash(scope: str, key: str) -> str | None:
    if not key:
        return None
    if len(key) > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise DomainError(
            f"The Idempotency-Key is longer than {MAX_IDEMPOTENCY_KEY_LENGTH} "
            "characters: use a UUID.",
            code="idempotency_key_too_long",
        )
    return hashlib.sha256(f"{scope}:{key}".encode()).hexdigest()


def _known_photo(idempotency_hash: str | None, upload_sha256: str) -> Photo | None:
    if idempotency_hash is None:
        return None
    photo = Photo.objects.filter(idempotency_hash=idempotency_hash).first()
    if photo is not None and photo.upload_sha256 != upload_sha256:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used with another photo: use a new key."
        )
    return photo

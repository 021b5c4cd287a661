"""Bytes in, a durable row and file out, or a refusal that leaves neither."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from ml import images
from webapp.core.errors import Conflict, DomainError
from webapp.core.metrics import REFUSALS, stage
from webapp.photos.consent import CONSENT_VERSION
from webapp.photos.models import Batch, Photo
from webapp.photos.services.erasure import delete_file, delete_photo
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

_DECODING_WAIT_SECONDS: Final = 10.0
"""The slowest photo that is taken needs two: longer than this, and too many wait."""


class PhotoRefused(DomainError):
    """The upload is no photo that can be used; says why."""

    def __init__(self, refusal: images.ImageRefused) -> None:
        super().__init__(str(refusal), code=refusal.code)
        self.http_status = _HTTP_STATUS.get(refusal.code, 400)


class StorageUnavailable(DomainError):
    code = "storage_unavailable"
    http_status = 503
    retry_after_seconds = 60


class IntakeBusy(DomainError):
    """Too many photos come in at once; nothing of this one was taken."""

    code = "busy"
    http_status = 503
    retry_after_seconds = 5


class IdempotencyMismatch(Conflict):
    code = "idempotency_mismatch"
    http_status = 422


def submit_photo(
    *,
    data: bytes,
    visitor_key: str,
    keep: bool = False,
    train: bool = False,
    idempotency_scopes: Sequence[str] = (),
    idempotency_key: str = "",
    batch: Batch | None = None,
    position: int = 0,
) -> Photo:
    """Take a photo in: when this returns, row and file are durable.

    Without ``keep`` it is erased after the retention time; without ``train`` no
    data set ever takes its faces.
    The same non-empty ``idempotency_key`` with the same bytes and choices returns
    the photo that is there: of the first of ``idempotency_scopes``, under which a
    new photo is remembered, or of a later one where it is the same visitor's.
    Raises ``PhotoRefused``, ``IdempotencyMismatch``, ``IntakeBusy`` or
    ``StorageUnavailable``, and then no photo was taken.
    """
    upload_sha256 = _upload_sha256(data, keep=keep, train=train)
    hashes = idempotency_hashes(idempotency_scopes, idempotency_key)
    known = _known_photo(hashes, visitor_key, upload_sha256)
    if known is not None:
        return known
    image, encoded = _re_encoded(data)
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
                # By the database's clock, as the sweep tells the time.
                expires_at=None if keep else Now() + retention,
                training_consent_at=now if train else None,
                consent_version=CONSENT_VERSION if keep or train else "",
                batch=batch,
                position=position,
                idempotency_hash=hashes[0] if hashes else None,
                upload_sha256=upload_sha256,
            )
            photo.refresh_from_db(fields=["expires_at"])
            photo_id = photo.pk
            # Robust: the photo is acknowledged whatever becomes of the message.
            transaction.on_commit(lambda: wake_worker(photo_id), robust=True)
    except IntegrityError:
        # Two with the same key at the same moment: the other one came first.
        delete_file(file_name)
        known = _known_photo(hashes, visitor_key, upload_sha256)
        if known is None:
            raise
        return known
    return photo


def new_file_name() -> str:
    """A random name that tells nothing; two levels, so that no folder grows huge."""
    name = secrets.token_hex(20)
    return f"photos/{name[:2]}/{name}.jpg"


def _re_encoded(data: bytes) -> tuple[images.DecodedImage, bytes]:
    if not _decoding.acquire(timeout=_DECODING_WAIT_SECONDS):
        REFUSALS.labels(IntakeBusy.code).inc()
        raise IntakeBusy(
            "The site is taking in as many photos as it can. Please try again in a "
            "few seconds."
        )
    try:
        with stage("decode"):
            image = images.decode_image(data, STORED_MAX_SIDE_PX)
            return image, images.encode_jpeg(image.pixels)
    except images.ImageRefused as refusal:
        REFUSALS.labels(refusal.code).inc()
        raise PhotoRefused(refusal) from refusal
    finally:
        _decoding.release()


def _upload_sha256(data: bytes, *, keep: bool, train: bool) -> str:
    """Of what was sent: the bytes, and what was allowed with them."""
    digest = hashlib.sha256(data)
    digest.update(f"keep={keep},train={train}".encode())
    return digest.hexdigest()


def idempotency_hashes(scopes: Sequence[str], key: str) -> list[str]:
    """One for each scope; none without a key. A key without a scope would be
    everybody's: ``ValueError``."""
    if not key:
        return []
    if not scopes:
        raise ValueError("an idempotency key needs a scope")
    if len(key) > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise DomainError(
            f"The Idempotency-Key is longer than {MAX_IDEMPOTENCY_KEY_LENGTH} "
            "characters: use a UUID.",
            code="idempotency_key_too_long",
        )
    # As JSON: glued together, the address 2001:db8::1 with the key "2:k" would be that
    # of 2001:db8::1:2 with the key "k".
    return [
        hashlib.sha256(json.dumps([scope, key]).encode()).hexdigest()
        for scope in scopes
    ]


def _known_photo(
    hashes: Sequence[str], visitor_key: str, upload_sha256: str
) -> Photo | None:
    if not hashes:
        return None
    first, *later = hashes
    photo = Photo.objects.filter(
        Q(idempotency_hash=first)
        | Q(idempotency_hash__in=later, visitor_key=visitor_key)
    ).first()
    if photo is not None and photo.has_expired:
        # The sweep has yet to come by; until then the row would hold the key.
        delete_photo(photo=photo)
        return None
    if photo is not None and photo.upload_sha256 != upload_sha256:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used with another photo, or with other choices "
            "of keep and train: use a new key."
        )
    return photo

"""Deleting: rows and files, everywhere, whoever asks or when the time is up."""

from __future__ import annotations

import logging
import random
import time
import uuid
from datetime import datetime, timedelta
from typing import Final

from django.core.files.storage import default_storage
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    transaction,
)
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from webapp.accounts.api_keys import ended_visitor_keys
from webapp.core.errors import NotFound
from webapp.photos.models import Batch, Photo

_MOST_AT_ONCE: Final = 10_000
_ERASING_SECONDS: Final = 12.0
"""A task has twenty; what it leaves waits for the next one."""

_DELETE_TRIES: Final = 3
_DEADLOCK: Final = "40P01"
"""PostgreSQL's word for two that wait for each other: it ends one of them."""

_ORPHAN_AFTER: Final = timedelta(minutes=10)
"""Older than any upload under way: a younger file may still get its row, a younger
batch the rest of its photos."""

logger = logging.getLogger(__name__)


def lock_photo(*, photo_id: uuid.UUID) -> Photo:
    """The photo, until the transaction ends neither deleted nor written to by
    others. Raises ``NotFound`` where it was deleted a moment ago."""
    photo = Photo.objects.select_for_update(no_key=True).filter(pk=photo_id).first()
    if photo is None:
        raise NotFound("This photo is gone: it was deleted a moment ago.")
    return photo


def delete_photo(*, photo: Photo) -> None:
    """Remove a photo, its faces, their predictions and its file.

    A worker that is reading it loses its lease and writes nothing. Where the file
    cannot be removed now, the orphan sweep does it.
    """
    for tries_left in reversed(range(_DELETE_TRIES)):
        try:
            _delete_once(photo)
        except (IntegrityError, OperationalError) as error:
            # Somebody labelled one of its faces after those were looked for, or at
            # this moment. Their word stands by now, and goes with the rest.
            if not (tries_left and _met_another(error)):
                raise
        else:
            return


def _met_another(error: DatabaseError) -> bool:
    """Whether what somebody else wrote was in the way, so that to try again helps."""
    state = getattr(error.__cause__, "sqlstate", None)
    return isinstance(error, IntegrityError) or state == _DEADLOCK


def _delete_once(photo: Photo) -> None:
    with transaction.atomic():
        # Locked before its faces are looked for: a worker that writes them just now
        # is waited for, and one that comes later finds no photo.
        locked = Photo.objects.select_for_update().filter(pk=photo.pk)
        locked.first()
        Photo.objects.filter(pk=photo.pk).delete()
        transaction.on_commit(lambda: delete_file(photo.file_name))


def delete_batch(*, batch: Batch) -> None:
    """Remove a batch with all its photos."""
    for photo in batch.photos.all():
        delete_photo(photo=photo)
    batch.delete()


def delete_photos_of(*, visitor_key: str) -> int:
    """Remove all photos and batches of one browser; how many photos."""
    photos = list(Photo.objects.filter(visitor_key=visitor_key))
    for photo in photos:
        delete_photo(photo=photo)
    Batch.objects.filter(visitor_key=visitor_key).delete()
    return len(photos)


def erase_expired_photos() -> int:
    """Delete what has outlived its time or its API key; how many photos that were. The
    database's clock decides: a host whose own is wrong erases nothing early.

    With them go batches of which nobody was told, for their process ended while they
    came in.
    """
    expired = Photo.objects.filter(
        Q(expires_at__lt=Now()) | Q(visitor_key__in=ended_visitor_keys())
    )
    deadline = time.monotonic() + _ERASING_SECONDS
    erased = 0
    for photo in list(expired.order_by("expires_at")[:_MOST_AT_ONCE]):
        if time.monotonic() > deadline:
            break
        delete_photo(photo=photo)
        erased += 1
    old = Batch.objects.filter(created_at__lt=Now() - _ORPHAN_AFTER)
    for batch in old.filter(is_incomplete=True):
        delete_batch(batch=batch)
    old.filter(photos__isnull=True).delete()
    return erased


def empty_write_ahead_log() -> None:
    """SQLite keeps former pages in its log until they are overwritten: a deleted
    face would outlive its row there. Other databases see to that themselves."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        # Gives up, rather than waits, while somebody reads: next minute, then.
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_orphan_files() -> int:
    """Delete photo files that no row names; how many. What a slow store leaves no time
    for waits for the next sweep."""
    before = timezone.now() - _ORPHAN_AFTER
    deadline = time.monotonic() + _ERASING_SECONDS
    removed = 0
    folders, _ = _listdir("photos")
    # In one order the last folders would never have their turn.
    random.shuffle(folders)
    for folder in folders:
        if time.monotonic() > deadline:
            return removed
        _, names = _listdir(f"photos/{folder}")
        paths = {f"photos/{folder}/{name}" for name in names}
        known = set(
            Photo.objects.filter(file_name__in=paths).values_list(
                "file_name", flat=True
            )
        )
        for path in sorted(paths - known):
            if time.monotonic() > deadline:
                return removed
            if _modified_at(path) < before:
                delete_file(path)
                removed += 1
    return removed


def _modified_at(path: str) -> datetime:
    """When a file was written; now, where its photo was deleted a moment ago."""
    try:
        modified_at: datetime = default_storage.get_modified_time(path)
    except FileNotFoundError:
        return timezone.now()
    return modified_at


def _listdir(path: str) -> tuple[list[str], list[str]]:
    try:
        return default_storage.listdir(path)
    except FileNotFoundError:
        return [], []


def delete_file(name: str) -> None:
    """Remove a photo's file; where that cannot be done now, the orphan sweep does it,
    for no row names it any more."""
    try:
        default_storage.delete(name)
    except OSError as error:
        logger.error("file %s not deleted, the next sweep tries again: %s", name, error)

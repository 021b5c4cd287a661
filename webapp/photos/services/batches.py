"""Several photos at once, or a zip of them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from django.core.files.base import File
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from ml.images import MAX_BYTES
from webapp.core.errors import DomainError
from webapp.photos.models import Batch, Photo
from webapp.photos.selectors import photos_in
from webapp.photos.services.erasure import delete_batch, delete_photo
from webapp.photos.services.intake import (
    PhotoRefused,
    idempotency_hashes,
    submit_photo,
)

MAX_PHOTOS: Final = 50
MAX_BATCH_BYTES: Final = 100 * 1024 * 1024
_MAX_ZIP_ENTRIES: Final = 1000
"""Folders and hidden files are no photos, but a directory that lists more of them than
this only costs memory: 100 MB hold two million."""

_ZIP_ENTRY: Final = b"PK\x01\x02"
_ZIP_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""With a file in it, empty, and one that was to be split."""

_ZIP_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others are unpacked to their end before a byte of them is handed out: a few
kilobytes of bzip2 are gigabytes then."""

_SHOWN_NAME_LENGTH: Final = 80


class BatchRefused(DomainError):
    """Nothing of it could be taken; says why."""

    code = "invalid_batch"


class TooManyPhotos(BatchRefused):
    code = "too_many"

    def __init__(self) -> None:
        super().__init__(f"Those are more than {MAX_PHOTOS} photos. Please send fewer.")


class PackedOddly(BatchRefused):
    def __init__(self) -> None:
        super().__init__(
            "It is packed in a way that we cannot read. Please pack it as a plain zip."
        )


class ZipDamaged(BatchRefused):
    """Its directory cannot be read, so nothing in it can be."""


class BatchGone(BatchRefused):
    """It was deleted while its photos came in."""

    code = "deleted_meanwhile"
    http_status = 409

    def __init__(self) -> None:
        super().__init__(
            "These photos were deleted while they came in: none of them is kept. "
            "Please send them again if you want them read."
        )


def submit_batch(
    *,
    files: Iterable[tuple[str, bytes]],
    visitor_key: str,
    keep: bool = False,
    train: bool = False,
    idempotency_key: str = "",
    upload_sha256: str = "",
) -> Batch:
    """Take in up to ``MAX_PHOTOS`` photos; a zip among ``files`` counts as what is
    in it.

    What is no photo is listed in ``refused`` and stops nothing. The same non-empty
    ``idempotency_key`` of the same visitor with the same ``upload_sha256`` returns
    the batch that is there. Raises ``BatchRefused`` where there are too many, or not
    one photo; then none is kept. Where the process ends before it returns, the sweep
    removes what it had taken.
    """
    scope = f"{visitor_key}:{upload_sha256}"
    mark = next(iter(idempotency_hashes([scope], idempotency_key)), None)
    if known := _known_batch(mark):
        return known
    batch = Batch.objects.create(visitor_key=visitor_key, is_incomplete=True)
    # The sweep measures its age by the database's clock.
    Batch.objects.filter(pk=batch.pk).update(created_at=Now())
    refused: list[dict[str, object]] = []
    taken: list[Photo] = []
    position = 0
    try:
        for name, data in _unpacked(files):
            position += 1
            if position > MAX_PHOTOS:
                raise TooManyPhotos
            try:
                if isinstance(data, BatchRefused):
                    raise data
                photo = submit_photo(
                    data=data,
                    visitor_key=visitor_key,
                    keep=keep,
                    train=train,
                    batch=batch,
                    position=position,
                )
            except (PhotoRefused, BatchRefused) as error:
                shown = name[-_SHOWN_NAME_LENGTH:]
                refused.append(
                    {"position": position, "name": shown, "reason": str(error)}
                )
            else:
                taken.append(photo)
        if not taken:
            reason = refused[0]["reason"] if refused else "There was no file in it."
            raise BatchRefused(
                f"Not one photo could be read. {reason}", code="no_photo"
            )
        batch.refused = refused
        with transaction.atomic():
            written = Batch.objects.filter(pk=batch.pk).update(
                refused=refused, idempotency_hash=mark, is_incomplete=False
            )
        if not written:
            raise BatchGone
    except BaseException as error:
        # By their own rows: those of a batch that is gone are in none any more.
        for photo in taken:
            delete_photo(photo=photo)
        batch.delete()
        if isinstance(error, IntegrityError):
            # Two of the same at the same moment: the other one was done first.
            if known := _known_batch(mark):
                return known
            raise BatchGone from error
        raise
    return batch


def hash_files(files: Iterable[File[bytes]], *, keep: bool, train: bool) -> str:
    """Of what was sent: the files, and what was allowed with them. Each file stands
    at its beginning again."""
    digest = hashlib.sha256(f"keep={keep},train={train}".encode())
    for file in files:
        digest.update(f",{file.size}:".encode())
        for chunk in file.chunks():
            digest.update(chunk)
        file.seek(0)
    return digest.hexdigest()


def is_zip(file: File[bytes]) -> bool:
    """By its first bytes; names lie."""
    start = file.read(len(_ZIP_STARTS[0]))
    file.seek(0)
    return start in _ZIP_STARTS


def count_photos(files: Iterable[File[bytes]]) -> int:
    """How many photos ``submit_batch`` would find; a zip of none counts as one.

    Each file stands at its beginning again. Raises ``TooManyPhotos``.
    """
    count = 0
    for file in files:
        count += max(1, _count_members(file)) if is_zip(file) else 1
        if count > MAX_PHOTOS:
            raise TooManyPhotos
    return count


def _known_batch(mark: str | None) -> Batch | None:
    """The batch that was taken in under this mark, unless all of it is gone."""
    if mark is None:
        return None
    batch = Batch.objects.filter(idempotency_hash=mark).first()
    if batch is not None and not photos_in(batch=batch).exists():
        # The sweep has yet to come by; until then the row would hold the key.
        delete_batch(batch=batch)
        return None
    return batch


def _unpacked(
    files: Iterable[tuple[str, bytes]],
) -> Iterator[tuple[str, bytes | BatchRefused]]:
    """Files, and those of a zip, read in memory one by one: no path is ever written
    to. In place of what cannot be read stands why."""
    for name, data in files:
        if not data.startswith(_ZIP_STARTS):
            yield name, data
            continue
        try:
            archive = _open_zip(data)
        except ZipDamaged as error:
            yield name, error
            continue
        with archive:
            for member, member_name in _members(archive):
                yield member_name, _read_member(archive, member)


def _count_members(file: File[bytes]) -> int:
    data = file.read()
    file.seek(0)
    try:
        with _open_zip(data) as archive:
            return sum(1 for _ in _members(archive))
    except ZipDamaged:
        return 0


def _open_zip(data: bytes) -> zipfile.ZipFile:
    """Raises ``ZipDamaged`` or ``TooManyPhotos``."""
    # Before zipfile makes an object of each of them.
    if data.count(_ZIP_ENTRY) > _MAX_ZIP_ENTRIES:
        raise TooManyPhotos
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:
        # What a crafted directory makes zipfile raise has no common base.
        raise ZipDamaged("The zip is damaged. Please pack it again.") from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """What may be a photo, and its name without folders."""
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        hidden = path.name.startswith(".") or "__MACOSX" in path.parts
        # A name may be empty, which is_dir does not expect.
        if path.name and not member.is_dir() and not hidden:
            yield member, path.name


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> bytes | BatchRefused:
    if member.flag_bits & 1:
        return BatchRefused("It is encrypted. Please pack it without a password.")
    if member.compress_type not in _ZIP_PACKED:
        return PackedOddly()
    try:
        # The header may lie about the size: read at most one byte too many.
        with archive.open(member) as handle:
            return handle.read(MAX_BYTES + 1)
    except NotImplementedError:
        return PackedOddly()
    except Exception:  # noqa: BLE001  # What it may raise has no common base.
        return BatchRefused("It is damaged inside the zip.")

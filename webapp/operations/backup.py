"""Everything in one file, and back.

A tar archive: ``database.jsonl.gz`` with one row a line, ``files/`` with every file of
the store, ``manifest.json`` last, with what belongs to it and the hash of each member.
The rows are Django's own words, so what was saved on SQLite comes back on PostgreSQL
and the other way round.

The site may go on meanwhile. The rows are one moment's; a photo that was deleted before
its file was copied is left out of the restore, too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import secrets
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from django.apps import apps
from django.conf import settings
from django.core import serializers
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management.color import no_style
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error as DatabaseError
from django.db import connection, models, transaction
from django.db.migrations.recorder import MigrationRecorder

from webapp.accounts.models import User
from webapp.accounts.services import DEMO_PEOPLE, close_known_passwords
from webapp.photos.models import Photo
from webapp.photos.services.erasure import erase_expired_photos
from webapp.registry.models import ModelVersion, Promotion

FORMAT: Final = 1
_ROWS: Final = "database.jsonl.gz"
_FILES: Final = "files/"
_MANIFEST: Final = "manifest.json"
_CHUNK: Final = 1024 * 1024
# No part of a name begins with a dot: none leads elsewhere, and none is of the store's
# own making.
_FILE_NAME: Final = re.compile(r"[\w-]+(/[\w-][\w.-]*)+")

# Sessions end with a restore: who was logged in logs in again. The beat's mark of its
# last change is made anew when its schedule is saved.
_LEFT_OUT: Final = frozenset(
    {
        "sessions.session",
        "operations.presence",
        "django_celery_beat.periodictasks",
    }
)
# Rows that bootstrap and the beat make by themselves, and tries to log in.
_MADE_ANEW: Final = frozenset({"auth", "contenttypes", "django_celery_beat", "axes"})


class BackupError(Exception):
    """It cannot be saved or restored; says what to do."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds, or what a restore brought back."""

    rows: int
    files: int
    size_bytes: int
    erased_meanwhile: int = 0
    passwords_closed: tuple[str, ...] = ()


def save_backup(*, path: Path) -> Summary:
    """Write all rows and files to ``path``, which only this user may read.

    The file appears whole or not at all. Raises ``BackupError``.
    """
    if not path.name or (path.exists() and not path.is_file()):
        # A device would be replaced by a file, a folder after everything was written.
        raise BackupError(f"{path} is no file. Name one, as in /backups/mien.tar.")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error}") from error
    try:
        with os.fdopen(descriptor, "wb") as handle:
            summary = _write(handle, beside)
            handle.flush()
            os.fsync(handle.fileno())
        beside.rename(path)
    except (OSError, DatabaseError, tarfile.TarError) as error:
        raise BackupError(f"The backup is not complete: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return Summary(summary.rows, summary.files, path.stat().st_size)


def restore_backup(*, path: Path, replace: bool = False) -> Summary:
    """Bring rows and files back, after every member's hash was checked.

    Rows come in one transaction: all or none. With ``replace`` what is there gives
    way, else the site may hold no more than ``bootstrap`` makes. Raises
    ``BackupError``, and then no row has changed, but where it says that they are back.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            manifest = _checked_manifest(archive)
            _check_state(manifest, replace)
            # Files first: a row without its file would be a lie.
            present = _restore_files(archive, manifest)
            rows = _restore_rows(archive)
    except (OSError, DatabaseError, tarfile.TarError, EOFError) as error:
        raise BackupError(f"{path} cannot be restored: {error}") from error
    try:
        closed = close_known_passwords()
        erased = _drop_photos_without_file(present)
        # What was due while the backup lay there is due now.
        while due := erase_expired_photos():
            erased += due
    except (OSError, DatabaseError) as error:
        raise BackupError(
            "All rows and files are back, but photos that were due for erasure, or a "
            f"demo's passwords, may be among them: {error}. Restore again with "
            "--replace."
        ) from error
    return Summary(rows, len(present), path.stat().st_size, erased, tuple(closed))


def _write(handle: IO[bytes], beside: Path) -> Summary:
    hashes: dict[str, str] = {}
    rows_path = beside.with_name(f"{beside.name}.rows")
    with tarfile.open(fileobj=handle, mode="w:") as archive:
        try:
            rows = _write_rows(rows_path)
            hashes[_ROWS] = _hash_of(rows_path)
            archive.add(rows_path, _ROWS, filter=_plain)
        finally:
            rows_path.unlink(missing_ok=True)
        files = 0
        for name in _stored_names(""):
            try:
                with default_storage.open(name, "rb") as stored:
                    data = stored.read()
            except FileNotFoundError:
                # Somebody deleted their photo meanwhile: so it is gone from here, too.
                continue
            files += 1
            hashes[_FILES + name] = hashlib.sha256(data).hexdigest()
            _add(archive, _FILES + name, data)
        manifest = {
            "format": FORMAT,
            "rows": rows,
            "migrations": _migrations(),
            "sha256": hashes,
        }
        _add(archive, _MANIFEST, json.dumps(manifest, indent=1).encode())
    return Summary(rows, files, 0)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """No name of a user of this machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(_plain(member), io.BytesIO(data))


def _write_rows(path: Path) -> int:
    rows = 0
    opener = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with (
        os.fdopen(opener, "wb") as raw,
        gzip.open(raw, "wb", compresslevel=6) as packed,
        _one_moment(),
    ):
        for model in _models():
            for row in model._base_manager.order_by("pk").iterator(chunk_size=500):
                [record] = serializers.serialize("python", [row])
                packed.write(json.dumps(record, cls=_Exact).encode() + b"\n")
                rows += 1
    return rows


class _Exact(DjangoJSONEncoder):
    """Django's own cuts microseconds off."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else super().default(o)


@contextmanager
def _one_moment() -> Iterator[None]:
    """Every query inside sees the same state, and holds nobody up."""
    if connection.vendor == "sqlite":
        # Not atomic(), which takes the write lock: readers need none.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _models() -> list[type[models.Model]]:
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
        and not model._meta.proxy
        and model._meta.label_lower not in _LEFT_OUT
    ]


def _migrations() -> list[str]:
    applied = MigrationRecorder(connection).applied_migrations()
    return sorted(f"{app}.{name}" for app, name in applied)


def _stored_names(folder: str) -> Iterator[str]:
    try:
        folders, names = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    for name in sorted(names):
        path = f"{folder}/{name}" if folder else name
        if _FILE_NAME.fullmatch(path):
            yield path
    for name in sorted(folders):
        yield from _stored_names(f"{folder}/{name}" if folder else name)


def _checked_manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    members = {member.name: member for member in archive.getmembers()}
    if _MANIFEST not in members:
        raise BackupError("This is no backup of Mien, or not a whole one.")
    try:
        manifest = json.loads(_read(archive, _MANIFEST))
        hashes = dict(manifest["sha256"])
        known = manifest["format"] == FORMAT
        whole = isinstance(manifest["migrations"], list) and _ROWS in hashes
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupError("The backup's manifest cannot be read.") from error
    if not known:
        raise BackupError(
            "Another release of Mien wrote this backup: restore it there."
        )
    if not whole or set(members) != {*hashes, _MANIFEST}:
        raise BackupError("The backup lacks members, or has more than its manifest.")
    for name, wanted in hashes.items():
        is_file = name.startswith(_FILES) and _FILE_NAME.fullmatch(name[len(_FILES) :])
        if not members[name].isreg() or not (name == _ROWS or is_file):
            raise BackupError(f"The backup has a member that may not be: {name!r}.")
        digest = hashlib.sha256()
        stream = archive.extractfile(name)
        assert stream is not None
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        if digest.hexdigest() != wanted:
            raise BackupError(f"The backup is damaged: {name} is not what was saved.")
    return dict(manifest)


def _check_state(manifest: dict[str, Any], replace: bool) -> None:
    if manifest["migrations"] != _migrations():
        raise BackupError(
            "The backup is of another release: its tables differ. Restore it with that "
            "release (manage.py bootstrap makes its tables), then upgrade."
        )
    found = [] if replace else _found()
    if found:
        raise BackupError(
            f"This site is not empty: it holds {', '.join(found)}. Restore into an "
            "empty site, or say --replace to give all of that up."
        )


def _found() -> list[str]:
    """What a restore would wipe out and ``bootstrap`` would not make again."""
    found = []
    for model in _models():
        if model._meta.app_label in _MADE_ANEW:
            continue
        rows = model._base_manager.all()
        if model is User and settings.DEMO:
            rows = rows.exclude(username__in=[name for name, _, _ in DEMO_PEOPLE])
        elif model is ModelVersion:
            rows = rows.exclude(shipped=True)
        elif model is Promotion:
            rows = rows.exclude(promoted_by=None)
        count = rows.count()
        if count:
            meta = model._meta
            name = meta.verbose_name if count == 1 else meta.verbose_name_plural
            found.append(f"{count} {name}")
    return found


def _restore_files(archive: tarfile.TarFile, manifest: dict[str, Any]) -> set[str]:
    names = {
        name[len(_FILES) :] for name in manifest["sha256"] if name.startswith(_FILES)
    }
    for name in sorted(names):
        # Else the store would choose another name for the second of the same.
        default_storage.delete(name)
        default_storage.save(name, ContentFile(_read(archive, _FILES + name)))
    return names


def _drop_photos_without_file(present: set[str]) -> int:
    # Not by one query: SQLite takes only so many names in it.
    rows = Photo.objects.values_list("pk", "file_name")
    missing = [pk for pk, name in rows.iterator() if name not in present]
    for photo in missing:
        Photo.objects.filter(pk=photo).delete()
    return len(missing)


def _restore_rows(archive: tarfile.TarFile) -> int:
    stream = archive.extractfile(_ROWS)
    assert stream is not None
    rows = 0
    models_ = _models()
    try:
        with transaction.atomic():
            _empty()
            with gzip.open(stream, "rb") as lines:
                for line in lines:
                    for restored in serializers.deserialize(
                        "python", [json.loads(line)]
                    ):
                        restored.object.save_base(raw=True, force_insert=True)
                        rows += 1
            with connection.cursor() as cursor:
                for statement in connection.ops.sequence_reset_sql(no_style(), models_):
                    cursor.execute(statement)
    except (
        *(DatabaseError, serializers.base.DeserializationError, ValueError),
        # Lines that are JSON and no rows, or not even packed.
        *(KeyError, TypeError, AttributeError, RecursionError, zlib.error),
    ) as error:
        raise BackupError(f"The rows cannot be restored: {error!r}") from error
    return rows


def _empty() -> None:
    """All tables, those of what a backup leaves out as well."""
    tables = [
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
    ]
    statements = connection.ops.sql_flush(
        no_style(), tables, reset_sequences=True, allow_cascade=False
    )
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()


def _hash_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

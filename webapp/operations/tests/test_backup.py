"""Everything in one file and back, on whichever database the tests run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from webapp.accounts import audit
from webapp.accounts.models import Invitation, Role, User
from webapp.accounts.services import seed_demo_people
from webapp.core.tests.queries import query_limit
from webapp.operations import backup
from webapp.operations.backup import BackupError, restore_backup, save_backup
from webapp.operations.models import ServingHour
from webapp.photos.models import Face, Photo, PhotoStatus, Prediction
from webapp.photos.services.processing import claim_photo, process_claimed_photo
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def read_photo(champion: ModelVersion) -> Photo:
    photo = claim_photo(photo_id=PhotoFactory().pk)
    assert photo is not None
    process_claimed_photo(photo=photo)
    photo.refresh_from_db()
    assert photo.status == PhotoStatus.DONE
    return photo


def snapshot() -> dict[str, list[dict[str, object]]]:
    return {
        model._meta.label: [
            {
                key: bytes(value) if isinstance(value, memoryview) else value
                for key, value in row.items()
            }
            for row in model._base_manager.order_by("pk").values()
        ]
        for model in backup._models()
    }


def wipe() -> None:
    with transaction.atomic():
        backup._empty()
    for name in list(backup._stored_names("")):
        default_storage.delete(name)


def test_everything_comes_back_to_the_last_byte(
    read_photo: Photo, tmp_path: Path
) -> None:
    person = User.objects.create_user("eve", password="secret-of-eve-1")
    audit.record(actor=person, action="tested", subject="backup")
    every = IntervalSchedule.objects.create(every=2, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="sweep", task="sweep", interval=every)
    with default_storage.open(read_photo.file_name) as handle:
        picture = handle.read()
    before = snapshot()
    saved = save_backup(path=tmp_path / "b.tar")
    wipe()
    assert not User.objects.exists()

    restored = restore_backup(path=tmp_path / "b.tar")

    assert snapshot() == before
    assert restored.rows == saved.rows == sum(map(len, before.values()))
    assert restored.files == saved.files == 2  # The photo and the model.
    with default_storage.open(read_photo.file_name) as handle:
        assert handle.read() == picture
    assert Face.objects.get().crop
    assert Prediction.objects.get().activation
    assert User.objects.get(username="eve").check_password("secret-of-eve-1")
    # Numbers go on where they ended.
    assert User.objects.create_user("next").pk > person.pk


def test_commands_say_what_they_did(
    read_photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.tar"
    call_command("backup", str(path))
    call_command("restore", str(path), "--replace")

    said = capsys.readouterr().out
    assert "2 files" in said
    assert "are back" in said


def test_more_files_than_a_query_takes_names_come_back(
    read_photo: Photo, tmp_path: Path
) -> None:
    for number in range(120):
        default_storage.save(f"photos/aa/{number}.jpg", ContentFile(b"x"))
    lost = PhotoFactory()
    default_storage.delete(lost.file_name)
    save_backup(path=tmp_path / "b.tar")
    wipe()

    with query_limit(100):
        restored = restore_backup(path=tmp_path / "b.tar")

    assert (restored.files, restored.erased_meanwhile) == (122, 1)
    assert Photo.objects.get() == read_photo


def test_only_its_owner_may_read_a_backup(read_photo: Photo, tmp_path: Path) -> None:
    save_backup(path=tmp_path / "b.tar")

    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".b.tar*"))


def test_photos_that_are_there_are_not_given_up_unasked(
    read_photo: Photo, tmp_path: Path
) -> None:
    save_backup(path=tmp_path / "b.tar")
    PhotoFactory()

    with pytest.raises(CommandError, match="--replace"):
        call_command("restore", str(tmp_path / "b.tar"))

    assert Photo.objects.count() == 2


@pytest.mark.parametrize("kind", ["person", "entry", "hour", "model", "invitation"])
def test_site_without_photos_is_not_given_up_unasked(kind: str, tmp_path: Path) -> None:
    save_backup(path=tmp_path / "b.tar")
    empty = snapshot()
    {
        "person": lambda: User.objects.create_user("eve"),
        "entry": lambda: audit.record(actor=None, action="tested", subject="restore"),
        "hour": lambda: ServingHour.objects.create(
            **dict.fromkeys(
                ("photos", "faces", "not_sure", "wait_p50_ms", "wait_p95_ms"), 1
            ),
            hour=timezone.now(),
            emotions={},
        ),
        "model": lambda: ModelVersion.objects.create(version="own", manifest={}),
        "invitation": lambda: Invitation.objects.create(
            role=Role.ANNOTATOR, expires_at=timezone.now()
        ),
    }[kind]()
    before = snapshot()

    with pytest.raises(BackupError, match=r"not empty: it holds 1 .*--replace"):
        restore_backup(path=tmp_path / "b.tar")

    assert snapshot() == before
    restore_backup(path=tmp_path / "b.tar", replace=True)
    assert snapshot() == empty


def test_site_that_only_bootstrap_made_takes_a_backup(
    read_photo: Photo, tmp_path: Path
) -> None:
    save_backup(path=tmp_path / "b.tar")
    wipe()
    call_command("bootstrap", "--without-static")
    assert User.objects.exists()
    assert ModelVersion.objects.exists()

    restore_backup(path=tmp_path / "b.tar")

    assert Photo.objects.get() == read_photo
    assert not User.objects.exists()


def test_site_of_somebody_called_as_in_a_demo_is_not_empty(
    read_photo: Photo, tmp_path: Path, settings: LazySettings
) -> None:
    save_backup(path=tmp_path / "b.tar")
    wipe()
    settings.DEMO = False
    User.objects.create_superuser("max", password="a-password-of-ones-own")

    with pytest.raises(BackupError, match="1 user"):
        restore_backup(path=tmp_path / "b.tar")

    assert User.objects.filter(username="max").exists()


def test_backup_of_a_demo_brings_no_known_password(
    tmp_path: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    seed_demo_people()
    save_backup(path=tmp_path / "b.tar")
    wipe()
    settings.DEMO = False

    call_command("restore", str(tmp_path / "b.tar"))

    assert User.objects.count() == 2
    assert not any(person.has_usable_password() for person in User.objects.all())
    assert "manage.py changepassword" in capsys.readouterr().err


def test_photo_whose_time_is_up_does_not_come_back(
    read_photo: Photo, tmp_path: Path
) -> None:
    save_backup(path=tmp_path / "b.tar")
    Photo.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    save_backup(path=tmp_path / "late.tar")
    wipe()

    summary = restore_backup(path=tmp_path / "late.tar")

    assert summary.erased_meanwhile == 1
    assert not Photo.objects.exists()
    assert not default_storage.exists(read_photo.file_name)


def test_photo_that_was_deleted_while_files_were_copied_does_not_come_back(
    read_photo: Photo, tmp_path: Path
) -> None:
    default_storage.delete(read_photo.file_name)
    save_backup(path=tmp_path / "b.tar")
    wipe()

    restore_backup(path=tmp_path / "b.tar")

    assert not Photo.objects.exists()


def rewritten(path: Path, change: dict[str, bytes | None]) -> Path:
    """The archive with members replaced, added or (None) left out."""
    target = path.with_name("other.tar")
    with tarfile.open(path) as old, tarfile.open(target, "w") as new:
        contents = {m.name: old.extractfile(m).read() for m in old.getmembers()}
        contents.update(change)
        for name, data in contents.items():
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database.jsonl.gz": b"other"}, "is damaged"),
        ({"manifest.json": None}, "no backup of Mien"),
        ({"manifest.json": b"{"}, "manifest cannot be read"),
        ({"files/../../etc/passwd": b"x"}, "more than its manifest"),
    ],
)
def test_backup_that_was_tampered_with_changes_nothing(
    read_photo: Photo,
    tmp_path: Path,
    change: dict[str, bytes | None],
    said: str,
) -> None:
    save_backup(path=tmp_path / "b.tar")
    before = snapshot()

    with pytest.raises(BackupError, match=said):
        restore_backup(path=rewritten(tmp_path / "b.tar", change), replace=True)

    assert snapshot() == before


@pytest.mark.parametrize(
    "inside",
    [
        *("../../escaped", "photos/../../../escaped", "photos/../models/x.onnx"),
        *("photos/./x.jpg", "photos/.x.jpg", "photos//x.jpg", "x.jpg"),
    ],
)
def test_name_that_leads_elsewhere_is_refused(
    inside: str, read_photo: Photo, tmp_path: Path
) -> None:
    save_backup(path=tmp_path / "b.tar")
    before = set(backup._stored_names(""))
    name = f"files/{inside}"
    with tarfile.open(tmp_path / "b.tar") as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())
    manifest["sha256"][name] = (
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    )
    change = {name: b"x", "manifest.json": json.dumps(manifest).encode()}

    with pytest.raises(BackupError, match="may not be"):
        restore_backup(path=rewritten(tmp_path / "b.tar", change), replace=True)

    assert set(backup._stored_names("")) == before
    assert Photo.objects.get() == read_photo


def test_half_a_backup_and_something_else_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello" * 1000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(BackupError):
            restore_backup(path=tmp_path / "x")
    with pytest.raises(BackupError, match="cannot be restored"):
        restore_backup(path=tmp_path / "missing")


def test_backup_of_another_release_says_what_to_do(
    read_photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backup(path=tmp_path / "b.tar")
    monkeypatch.setattr(backup, "_migrations", lambda: ["photos.9999_later"])

    with pytest.raises(BackupError, match="with that release"):
        restore_backup(path=tmp_path / "b.tar", replace=True)


def test_database_that_goes_away_is_said_in_a_sentence(
    read_photo: Photo, tmp_path: Path
) -> None:
    save_backup(path=tmp_path / "b.tar")

    def away(*_: object) -> None:
        raise OperationalError("the server went away")

    with (
        connection.execute_wrapper(away),
        pytest.raises(BackupError, match=r"cannot be restored: the server went away"),
    ):
        restore_backup(path=tmp_path / "b.tar", replace=True)

    def away_for_photos(execute: Any, sql: str, *rest: Any) -> Any:
        asks = sql.startswith("SELECT") and 'FROM "photos_photo"' in sql
        return away() if asks else execute(sql, *rest)

    with (
        connection.execute_wrapper(away_for_photos),
        pytest.raises(BackupError, match=r"are back, but .* Restore again"),
    ):
        restore_backup(path=tmp_path / "b.tar", replace=True)
    assert Photo.objects.get() == read_photo


def test_backup_holds_up_nobody_who_writes(read_photo: Photo, tmp_path: Path) -> None:
    """Rows are read in one moment; a photo that comes meanwhile is not among them."""
    with backup._one_moment():
        assert Photo.objects.count() == 1
        add_photo_elsewhere()
        assert Photo.objects.count() == 1
    assert Photo.objects.count() == 2


def add_photo_elsewhere() -> None:
    def add() -> None:
        try:
            PhotoFactory()
        finally:
            connection.close()

    thread = threading.Thread(target=add)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()


def test_backup_replaces_files_alone(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (tmp_path, fifo, Path()):
        with pytest.raises(BackupError, match="is no file"):
            save_backup(path=path)
    assert list(tmp_path.iterdir()) == [fifo]
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    "rows",
    [b"no gzip", *map(gzip.compress, (b"5\n", b"[]\n", b"{}\n", b"[" * 100_000))],
    ids=["unpacked", "number", "list", "nothing", "brackets"],
)
def test_rows_that_are_none_change_nothing(
    rows: bytes, read_photo: Photo, tmp_path: Path
) -> None:
    manifest = {
        "format": backup.FORMAT,
        "migrations": backup._migrations(),
        "sha256": {backup._ROWS: hashlib.sha256(rows).hexdigest()},
    }
    with tarfile.open(tmp_path / "b.tar", "w:") as archive:
        backup._add(archive, backup._ROWS, rows)
        backup._add(archive, backup._MANIFEST, json.dumps(manifest).encode())
    before = snapshot()

    with pytest.raises(BackupError, match="cannot be restored"):
        restore_backup(path=tmp_path / "b.tar", replace=True)
    assert snapshot() == before


@pytest.mark.parametrize("lacking", ["migrations", "sha256", "format"])
def test_manifest_that_lacks_something_is_refused(lacking: str, tmp_path: Path) -> None:
    manifest = {"format": backup.FORMAT, "migrations": [], "sha256": {}}
    del manifest[lacking]
    with tarfile.open(tmp_path / "b.tar", "w:") as archive:
        backup._add(archive, backup._MANIFEST, json.dumps(manifest).encode())

    with pytest.raises(BackupError, match="manifest cannot be read"):
        restore_backup(path=tmp_path / "b.tar")
